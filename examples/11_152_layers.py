# SPDX-License-Identifier: BSD-3-Clause
"""
152 layers: what skip connections really do
===========================================

*Question.* "Skip connections prevent vanishing gradients, that is why 152 layers train." Is it so?

*Answer.* At He's scale nothing vanishes in a plain net either. Skips alone make gradients *explode*: every block doubles the squared norm,
:math:`2^{76}` here. Batch norm alone explodes too, by 1.21 a layer. Both together tame each other: a block adds a constant to a sum that
keeps growing, so growth is a small power of depth. Branches scaled by :math:`1/\\sqrt{blocks}` do it without batch norm: at most a factor e.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

plain = pk.Chain(depth=152, width=128)
skip = pk.Residual(every=2)
scaled = pk.Residual(every=2, scale="inverse_sqrt_depth")
order = "norm-activation-linear"  # batch norm inside the branch, as in pre-activation residual nets
chains = {
    "plain": plain,
    "plain, 20 % less weight": plain.replace(gain=0.8),
    "skips, 20 % less weight": plain.replace(gain=0.8, residual=skip),
    "skips": plain.replace(residual=skip),
    "batch norm": plain.replace(norm="batch"),
    "skips and batch norm": plain.replace(norm="batch", residual=skip, order=order),
    "skips / sqrt(blocks)": plain.replace(residual=scaled),
}
figure, ax = plt.subplots(figsize=(5, 4.5), layout="constrained")
decades, profile = {}, {}

# %%
# Gradient at layer l over gradient at the output; median of ten nets, 32 inputs each.

lines = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
for (name, chain), line in zip(chains.items(), lines, strict=True):
    p = pk.propagate(chain, batch=32, replicas=10, engine="dense")
    profile[name] = np.median(p.log10_grad_activation, axis=0)
    decades[name] = float(np.median(p.signal_end_to_end))
    ax.plot(profile[name] - profile[name][-1], linestyle=line, linewidth=2, label=f"{name}: {decades[name]:+.1f}")
    print(f"{name:26} {decades[name]:+7.2f} decades over 152 layers: {p.verdict}")

print(f"theory: skips {38 * np.log10(2):+.2f} (2^76 squared norm), batch norm {152 * np.log10(1.21):+.2f}, scaled at most {np.log10(np.e) / 2:+.2f}")
ax.axhspan(-3, 3, color="0.92", zorder=0)
ax.set(xlabel="layer", ylabel="decades over the output's gradient", title="152 layers")
ax.legend(fontsize="small")
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
folder.mkdir(exist_ok=True)
figure.savefig(folder / "11_152_layers.png")
