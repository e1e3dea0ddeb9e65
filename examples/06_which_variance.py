# SPDX-License-Identifier: BSD-3-Clause
"""
1/n, 2/n, 2/(n_in + n_out): which for which activation?
=======================================================

*Question.* LeCun, He, Glorot: three rules for the variance of the weights. Which belongs to which activation, and how exact must
it be?

*Answer.* 2/n for ReLU and leaky ReLU; 1/n for functions that are the identity near 0 (tanh, softsign, arctan, linear, SELU), most
of which forgive 2/n; GELU and SiLU need more than 2/n, the sigmoid much more. Glorot's rule is LeCun's where widths are equal.
How exact: the window in which depth L stays within three decades is :math:`10^{\\pm 3/L}`: a factor 2 at depth 10, 7 percent at
depth 100.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

schemes = ["lecun_normal", "glorot_normal", "he_normal"]
functions = ["linear", "tanh", "softsign", "arctan", "selu", "relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "sigmoid"]
ds = pk.sweep({"activation": functions, "init": schemes}, pk.Chain(depth=50, width=256), replicas=30, profiles=False, progress=False)
decades = ds.signal_end_to_end.median("replica")
verdict = ds.verdict.to_pandas()
print(verdict)

# %%
# The multiplier as a hyperparameter: one curve for each depth; its optimum stays, its width shrinks as 1/L.

depths, gains = [10, 30, 100], np.geomspace(0.5, 2, 21)
tuned = pk.sweep({"depth": depths, "gain": gains}, pk.Chain(depth=1, width=256), replicas=30, profiles=False, progress=False)
curves = tuned.signal_end_to_end.median("replica")
window = {}
for depth in depths:
    low, high = np.interp([-3, 3], curves.sel(depth=depth), gains)
    window[depth] = high / low
    print(f"He-ReLU, depth {depth}: stable for multipliers from {low:.3f} to {high:.3f}")

figure, (top, bottom) = plt.subplots(2, 1, figsize=(5, 7), height_ratios=(3, 2), layout="constrained")
top.imshow(np.clip(decades, -12, 12), cmap="RdBu_r", vmin=-14, vmax=14, aspect="auto")
for i, j in np.ndindex(decades.shape):
    colour = "white" if abs(decades.values[i, j]) > 9 else "black"
    top.text(j, i, f"{decades.values[i, j]:+.1f} {verdict.iloc[i, j]}", ha="center", va="center", fontsize="small", color=colour)
top.set(xticks=range(3), xticklabels=schemes, yticks=range(len(functions)), yticklabels=functions, title="Decades over 50 layers")
for depth, line in zip(depths, ("-", "--", ":"), strict=True):
    bottom.plot(gains, curves.sel(depth=depth), line, label=f"depth {depth}")
bottom.axhspan(-3, 3, color="0.9", zorder=0)
bottom.set(xscale="log", xlabel="multiplier on He's weights, ReLU", ylabel="decades", ylim=(-10, 10))
bottom.set_xticks([0.5, 0.7, 1, 1.4, 2], ["0.5", "0.7", "1", "1.4", "2"])
bottom.minorticks_off()
bottom.legend()
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
folder.mkdir(exist_ok=True)
figure.savefig(folder / "06_which_variance.png")
