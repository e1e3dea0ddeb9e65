# SPDX-License-Identifier: BSD-3-Clause
"""
Two faces of the same medal?
============================

*Question.* "Keep z near 0, away from saturation, and the gradient survives: tanh is linear there. So is the sigmoid."

*Answer.* Linear, yes, but with slope 1/4. Near 0 tanh passes the whole gradient and the sigmoid a quarter of it. Weights four
times as large would make up for it, if the sigmoid did not also add 1/2: its output is never near 0, so large weights push z into
saturation again and the factor stays below 1. Subtract the 1/2 and stretch by four, and it is as good as tanh, because it is
tanh.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk


def centred(z):
    return 4 / (1 + np.exp(-z)) - 2


def centred_slope(z):
    return 1 - centred(z) ** 2 / 4


functions = {"tanh": "tanh", "sigmoid": "sigmoid", "4 sigmoid - 2": pk.Activation(centred, centred_slope, name="4 sigmoid - 2")}
gains = np.array([0.25, 0.5, 1, 2, 4, 8])
factor, spread = {}, {}

# %%
# The norm of the signal's gradient is multiplied by *factor* a layer, and z spreads to *spread*, at the depth where both have settled.

for name, function in functions.items():
    chains = [pk.Chain(depth=30, width=256, activation=function, init="lecun_normal", gain=g) for g in gains]
    runs = [pk.propagate(chain, replicas=3) for chain in chains]
    factor[name] = np.array([10 ** np.mean(p.log10_derivative_factor[:, 15:] + p.log10_weight_factor[:, 15:]) for p in runs])
    spread[name] = np.array([10 ** (np.mean(p.log10_mean_square_preactivation[:, 15:]) / 2) for p in runs])
    for g, f, s in zip(gains, factor[name], spread[name], strict=True):
        print(f"{name:14} weights {g:5.2f}/sqrt(n): z of {s:8.2g}, gradient x {f:.3f} a layer, or {f / g:.3f} from the derivative")

figure, ax = plt.subplots(layout="constrained")
for (name, f), line in zip(factor.items(), ("^-", "o--", "s:"), strict=True):
    ax.plot(gains, f / gains, line, label=name)
ax.axhline(0.25, color="0.6", linewidth=1)
ax.plot(gains, 1 / gains, color="k", linewidth=1, label="needed to keep the gradient")
ax.set(xscale="log", yscale="log", ylim=(0.05, 2), xlabel="weight scale: standard deviation times sqrt(n)")
ax.set(ylabel="what the derivative contributes", title="Linear near 0, with different slopes")
ax.set_xticks(gains, [f"{g:g}" for g in gains])
ax.set_yticks([0.1, 0.25, 0.5, 1], ["0.1", "1/4", "1/2", "1"])
ax.minorticks_off()
ax.legend(fontsize="small", loc="lower left")
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
folder.mkdir(exist_ok=True)
figure.savefig(folder / "08_two_faces.png")
