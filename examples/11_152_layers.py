# SPDX-License-Identifier: BSD-3-Clause
"""
152 layers: what skip connections really do
===========================================

*Question.* "Skip connections prevent vanishing gradients, that is why 152 layers train." Is it so?

*Answer.* At He's scale nothing vanishes in a plain net either. Skips alone make gradients *explode*: every
block doubles the squared norm, :math:`2^{76}` here, 11.4 decades of the norm (and more where branches end in
a ReLU: positive outputs add up, and the part of the gradient along their sum grows with it, at any width a
machine can hold). Batch norm alone explodes too, by 1.21 a layer. Both together tame each other: a block adds
a constant to a growing sum, so the gradient grows as a power of depth, about the first. Branches scaled by
:math:`1/\\sqrt{blocks}` do it without batch norm: at most a factor e in the squared norm.

ResNet-152 itself, a quarter as wide: 6 decades with skips alone, 11 with batch norm alone, 3 with both.
Where the last norm of a block begins at 0, it begins as its skip, and only projections change the gradient.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

plain = pk.Chain(depth=152, width=128)
skip, scaled = pk.Residual(every=2), pk.Residual(every=2, scale="inverse_sqrt_depth")
first = "norm-activation-linear"  # pre-activation: a branch ends in a linear layer
chains = {
    "plain": plain,
    "plain, 20 % less weight": plain.replace(gain=0.8),
    "skips": plain.replace(residual=skip, order=first),
    "skips, ReLU last": plain.replace(residual=skip),
    "batch norm": plain.replace(norm="batch"),
    "skips and batch norm": plain.replace(norm="batch", residual=skip, order=first),
    "skips / sqrt(blocks)": plain.replace(residual=scaled, order=first),
}


def without(norms=False, skips=False):
    kept = lambda steps: [s for s in steps if norms or not isinstance(s, pk.Norm)]
    way = lambda skip: None if not skips else kept(skip) if isinstance(skip, tuple) else skip
    lean = lambda blocks: [pk.Block(*kept(b.steps), skip=way(b.skip), after=b.after) for b in blocks]
    return resnet.replace(first=lean(resnet.first), blocks=lean(resnet.blocks))


resnet = pk.blocks.resnet(152, width=16, classes=None, small=True)
resnets = {
    "plain": without(),
    "skips": without(skips=True),
    "batch norm": without(norms=True),
    "skips and batch norm": resnet,
    "last norm at 0": pk.blocks.resnet(152, width=16, classes=None, small=True, zero_last=True),
}
lines = dict(zip([*chains, "last norm at 0"], ("-", "--", "-.", ":", "--", "-.", ":", ":"), strict=True))
nudge = {"skips / sqrt(blocks)": 0.5, "skips and batch norm": 0.9, "plain": -0.5}
figure, axes = plt.subplots(1, 2, figsize=(9.5, 5), layout="constrained", sharey=True)


def draw(ax, networks, replicas, **x):
    profiles, decades, theory = {}, {}, {}
    for name, chain in networks.items():
        p = pk.propagate(chain, replicas=replicas, **x)
        profiles[name] = profile = p.median("log10_grad_activation")
        decades[name] = end = p.median("signal_end_to_end")
        theory[name] = pk.predict(chain, **x).signal_end_to_end
        last = len(profile) - 1
        every = slice(None, None, 2 if last == 152 else 1)  # of dense layers two a block
        ax.plot(np.arange(last, -1, -1)[every], (profile - profile[-1])[every], lines[name], lw=2)
        ax.text(1.02 * last, end + nudge.get(name, 0), f"{name}: {end:+.1f}", va="center", fontsize="small")
        print(f"{name:24} {end:+7.2f} decades, at infinite width {theory[name]:+7.2f}: {p.verdict}")
    ax.axhspan(-3, 3, color="0.92", zorder=0)
    return profiles, decades, theory


_, decades, theory = draw(axes[0], chains, 10, batch=32)
images = draw(axes[1], resnets, 5, batch=4, positions=(32, 32))
axes[0].set(title="dense", xlim=(0, 152), xlabel="layers backwards", ylabel="decades of the gradient")
axes[1].set(title="ResNet-152", xlim=(0, 52), xlabel="blocks backwards")
plt.show()
