# SPDX-License-Identifier: BSD-3-Clause
"""
152 layers: what skip connections really do
===========================================

*Question.* "Skip connections prevent vanishing gradients, that is why 152 layers train." Is it so?

*Answer.* At He's scale nothing vanishes in a plain net either. Skips alone make gradients *explode*: every block doubles the
squared norm, :math:`2^{76}` here (and more where branches end in a ReLU: positive outputs add up). Batch norm alone explodes too,
by 1.21 a layer. Both together tame each other: a block adds a constant to a growing sum, so growth is a small power of depth.
Branches scaled by :math:`1/\\sqrt{blocks}` do it without batch norm: at most a factor e in the squared norm.
"""

import sys
from pathlib import Path

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
decades, theory, profile = {}, {}, {}

# Gradient at layer l over gradient at the output; median of ten nets, 32 inputs each.

lines = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
for (name, chain), line in zip(chains.items(), lines, strict=True):
    p = pk.propagate(chain, batch=32, replicas=10, engine="dense")
    profile[name] = np.median(p.log10_grad_activation, axis=0)
    decades[name] = float(np.median(p.signal_end_to_end))
    ax.plot(profile[name] - profile[name][-1], linestyle=line, linewidth=2, label=f"{name}: {decades[name]:+.1f}")
    theory[name] = pk.predict(chain, batch=32).signal_end_to_end
    print(f"{name:24} {decades[name]:+7.2f} decades, at infinite width {theory[name]:+7.2f}: {p.verdict}")

ax.axhspan(-3, 3, color="0.92", zorder=0)
ax.set(xlabel="layer", ylabel="decades over the output's gradient", title="152 layers")
ax.legend(fontsize="small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.15))
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
folder.mkdir(exist_ok=True)
figure.savefig(folder / "11_152_layers.png")
