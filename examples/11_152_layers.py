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
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

plain = pk.Chain(depth=152, width=128)
skip = pk.Residual(every=2)
scaled = pk.Residual(every=2, scale="inverse_sqrt_depth")
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
figure, ax = plt.subplots(figsize=(5, 5), layout="constrained")
decades, theory = {}, {}

# Gradient after each block over gradient at the output; median of ten nets, 32 inputs each.

lines = ("-", "--", "-.", ":", "--", "-.", ":")
nudge = {"plain": -0.9, "skips / sqrt(blocks)": 0.1, "skips and batch norm": 0.6}
for (name, chain), line in zip(chains.items(), lines, strict=True):
    p = pk.propagate(chain, batch=32, replicas=10)
    profile = p.median("log10_grad_activation")
    decades[name] = p.median("signal_end_to_end")
    ax.plot(np.arange(152, -1, -2), (profile - profile[-1])[::2], linestyle=line, linewidth=2)
    text = f"{name}: {decades[name]:+.1f}"
    ax.annotate(
        text, (155, decades[name] + nudge.get(name, 0)), va="center", annotation_clip=False, fontsize="small"
    )
    theory[name] = pk.predict(chain, batch=32).signal_end_to_end
    print(f"{name:24} {decades[name]:+7.2f} decades, at infinite width {theory[name]:+7.2f}: {p.verdict}")

ax.axhspan(-3, 3, color="0.92", zorder=0)
ax.set(xlabel="layers travelled backwards", ylabel="decades over the output's gradient", xlim=(0, 152))
ax.set_title("152 layers, with and without skips")
plt.show()
