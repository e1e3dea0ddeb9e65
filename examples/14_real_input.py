# SPDX-License-Identifier: BSD-3-Clause
"""
A real input
============

*Question.* All this with Gaussian noise as input. Does it hold for real data, with its mean, its scale and its correlations?

*Answer.* After a few layers, yes. In a tanh chain the scale of handwritten digits (0 .. 16, none negative) is forgotten within
about five layers and their likeness to each other at the rate that theory gives: 17 layers for a factor e, some 50 in all. A ReLU
chain without biases never forgets the scale, but its gradients do not care.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import pykernel as pk

digits = load_digits().data[:16].T  # 64 pixels x 16 images, 0 .. 16
inputs = {"digits, as they are": digits, "digits, scaled to 1": digits / np.sqrt((digits**2).mean()), "noise": None}
chain = pk.Chain(widths=[64] + 80 * [128], activation="tanh", init="lecun_normal", gain=1.5)
runs = {name: pk.propagate(chain, x=x, batch=16, replicas=5) for name, x in inputs.items()}
square = {name: 10 ** p.log10_mean_square_preactivation.mean(axis=0) for name, p in runs.items()}
alike = {name: p.similarity.mean(axis=0) for name, p in runs.items()}
slope = {name: float(p.slope.mean()) for name, p in runs.items()}

# %%
# Layers until a real input cannot be told from noise: the mean square within 5 percent, the mean cosine within 0.05.

forgets = {}
for name in list(inputs)[:2]:
    q = np.abs(square[name] / square["noise"] - 1) > 0.05
    c = np.abs(alike[name] - alike["noise"]) > 0.05
    forgets[name] = (int(np.flatnonzero(q).max(initial=-1)) + 1, int(np.flatnonzero(c).max(initial=-1)) + 1)
    print(f"{name}: scale forgotten after {forgets[name][0]} layers, correlations after {forgets[name][1]}")
print("theory:", pk.depth_scales(chain))
print("decades a layer:", {name: round(s, 4) for name, s in slope.items()})

relu = chain.replace(activation="relu", init="he_normal", gain=1.0)
relu_slope = {name: float(pk.propagate(relu, x=x, batch=16, replicas=5).slope.mean()) for name, x in inputs.items()}
print("ReLU, decades a layer:", {name: round(s, 4) for name, s in relu_slope.items()})

figure, (top, bottom) = plt.subplots(2, 1, figsize=(5, 6.5), layout="constrained", sharex=True)
for name, line in zip(inputs, ("-", "--", ":"), strict=True):
    top.plot(np.arange(1, 81), square[name], line, label=name)
    bottom.plot(np.arange(1, 81), alike[name], line, label=name)
top.set(yscale="log", ylabel="mean square of z", title="How long a tanh chain remembers its input")
bottom.set(xlabel="layer", ylabel="mean cosine of two inputs")
top.legend()
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
folder.mkdir(exist_ok=True)
figure.savefig(folder / "14_real_input.png")
