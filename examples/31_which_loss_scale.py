# SPDX-License-Identifier: BSD-3-Clause
"""
Which loss scale?
=================

*Question.* float16 ends at 65504 above and at 2^-24 below: gradients in it are multiplied by a loss scale.
Which one fits, and is there always one?

*Answer.* One that brings the smallest gradients of all layers above 2^-24 and leaves the largest below
65504. A chain that keeps its gradient has a wide window of them, one whose gradient spans more decades than
float16 has none: a vanishing gradient then *is* a flushed one, and `recommend` says so.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

scales = 2.0 ** np.arange(-8, 33, 4)
chains = {
    "he_normal": pk.Chain(depth=30, width=256),
    "a fifth of it is lost a layer": pk.Chain(depth=30, width=256, gain=0.8),
    "two thirds are lost a layer": pk.Chain(depth=30, width=256, gain=0.33),
}
figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained", sharey=True)
lost, advice = {}, {}
for ax, (name, chain) in zip(axes, chains.items(), strict=True):
    shares = []
    for scale in scales:
        p = pk.propagate(chain, formats=pk.Formats(gradients="float16", loss_scale=scale), replicas=4)
        finite = np.isfinite(p.log10_grad_activation[:, 1:])
        shares.append((p.flushed_gradient.max(axis=1).mean(), 1 - finite.mean()))
    lost[name] = np.array(shares)
    ax.semilogx(scales, lost[name][:, 0], "o-", base=2, label="flushed, worst layer")
    ax.semilogx(scales, lost[name][:, 1], "s--", base=2, label="layers that are inf or nan")
    advice[name] = pk.recommend(chain, formats=pk.Formats(gradients="float16"), replicas=4).formats
    ax.set(xlabel="loss scale", title=name)
    ax.title.set_fontsize(9)
    if advice[name].loss_scale:
        ax.axvline(advice[name].loss_scale, color="grey", linestyle=":")
    print(f"{name}: {advice[name]}")

axes[0].set_ylabel("share")
axes[0].legend(frameon=False, fontsize="small")
plt.show()
