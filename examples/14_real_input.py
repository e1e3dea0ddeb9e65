# SPDX-License-Identifier: BSD-3-Clause
"""
A real input
============

*Question.* All this with Gaussian noise as input. Does it hold for real data, with its mean, its scale and
its correlations?

*Answer.* After the first layers, yes. A tanh chain forgets the scale of handwritten digits (0 .. 16, none
negative) within about five layers, and their likeness to each other as theory says: at last by a factor e in
17 layers, so some 50 in all. A ReLU chain without biases never forgets the scale, but its gradients do not
care. The factor a layer is that of noise in both.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import pykernel as pk

digits = load_digits().data[:16].T  # 64 pixels x 16 images, 0 .. 16
inputs = {
    "digits, 0 .. 16": digits,
    "digits, scaled to 1": digits / np.sqrt((digits**2).mean()),
    "noise": None,
}
chain = pk.Chain(widths=[64] + 80 * [512], activation="tanh", init="lecun_normal", gain=1.5)
runs = {name: pk.propagate(chain, x=x, batch=16, replicas=5) for name, x in inputs.items()}
square = {name: 10 ** p.log10_mean_square_preactivation.mean(axis=0) for name, p in runs.items()}
alike = {name: p.similarity.mean(axis=0) for name, p in runs.items()}
slope = {name: float(p.slope.mean()) for name, p in runs.items()}

# %%
# Layers until a real input cannot be told from noise: the mean square within 5 percent, the mean cosine
# within 0.05.

forgets = {}
for name in list(inputs)[:2]:
    q = np.abs(square[name] / square["noise"] - 1) > 0.05
    c = np.abs(alike[name] - alike["noise"]) > 0.05
    forgets[name] = (int(np.flatnonzero(q).max(initial=-1)) + 1, int(np.flatnonzero(c).max(initial=-1)) + 1)
    print(f"{name}: scale forgotten after {forgets[name][0]} layers, correlations after {forgets[name][1]}")
unit = digits / np.linalg.norm(digits, axis=0)
cosine = ((unit.T @ unit).sum() - 16) / (16 * 15)  # the mean over pairs
theory = pk.predict(chain, batch=16, correlation=cosine)
print(f"mean cosine of two digits {cosine:.2f}; theory: {pk.depth_scales(chain)}")
print(
    "tanh, decades a layer:", {name: round(s, 4) for name, s in slope.items()}, f"theory: {theory.slope:.4f}"
)

relu = chain.replace(activation="relu", init="he_normal", gain=1.0)
relu_slope = {
    name: float(pk.propagate(relu, x=x, batch=16, replicas=5).slope.mean()) for name, x in inputs.items()
}
print("ReLU, decades a layer:", {name: round(s, 4) for name, s in relu_slope.items()})

figure, (top, bottom) = plt.subplots(2, 1, figsize=(5, 6.5), layout="constrained", sharex=True)
for name, line in zip(inputs, ("-", "--", ":"), strict=True):
    top.plot(np.arange(1, 81), square[name], line, label=name, linewidth=2)
    bottom.plot(np.arange(1, 81), alike[name], line, label=name, linewidth=2)
bottom.plot(np.arange(1, 81), theory.similarity, "k-", linewidth=1, label="theory for the second")
top.set(yscale="log", ylabel="mean square of z", title="How long a tanh chain remembers its input")
bottom.set(xlabel="layer", ylabel="mean cosine of two inputs")
bottom.legend(fontsize="small")
plt.show()
