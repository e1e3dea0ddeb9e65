# SPDX-License-Identifier: BSD-3-Clause
"""
float8: where it breaks
=======================

*Question.* Eight bits hold a weight well enough. Do they hold signals and gradients of a deep network?

*Answer.* Over a few layers. e4m3 has three fraction bits, and a rounding adds 2.7 percent of noise: the
gradient of a ReLU chain keeps a cosine of .75 over ten layers and .1 over a hundred. Rounding only
the gradients costs far less than rounding weights or signals: noise on gradients adds up and flips no gates.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

width, depths = 256, [2, 5, 10, 20, 50, 100]
e4, e5 = "float8_e4m3fn", "float8_e5m2"
formats = {
    "weights e4m3": pk.Formats(weights=e4),
    "gradients e5m2": pk.Formats(gradients=e5, loss_scale=64),
    "signals e4m3": pk.Formats(signals=e4),
    "all three": pk.Formats(e4, e4, e5, loss_scale=64),
}
plain = pk.Chain(depth=2, width=width)
skips = pk.Chain(depth=2, width=width, residual=pk.Residual(every=1, scale="inverse_sqrt_depth"))
cosine = {}
for name, f in formats.items():
    runs = [pk.propagate(plain.replace(depth=L), formats=f, replicas=64) for L in depths]
    cosine[name] = np.array([p.gradient_cosine[:, 0].mean() for p in runs])
runs = [pk.propagate(skips.replace(depth=L), formats=formats["all three"], replicas=64) for L in depths]
cosine["all three, skips"] = np.array([p.gradient_cosine[:, 0].mean() for p in runs])

figure, ax = plt.subplots(figsize=(5, 4), layout="constrained")
for (name, values), marker in zip(cosine.items(), "vd^so", strict=True):
    ax.semilogx(depths, values, f"{marker}-", label=name)
    print(f"{name:17}", " ".join(f"{L} layers {c:.2f}" for L, c in zip(depths, values, strict=True)))
ax.set(xlabel="layers", ylabel="cosine of the gradient with float32", title="Eight bits, layer by layer")
ax.legend(frameon=False, fontsize="small")
plt.show()
