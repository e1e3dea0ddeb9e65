# SPDX-License-Identifier: BSD-3-Clause
"""
The chain rule taken apart
==========================

*Question.* A gradient is a product of derivatives and weights. "The derivative of the sigmoid is at most 1/4, so every layer
divides the gradient by four; ReLU's is 0 or 1, half the units are off, so every layer halves it." What are the factors, measured?

*Answer.* With weights of variance 1/n the weights contribute a factor 1, and the derivative .236 a layer for sigmoid (its mean
square counts, not its maximum), .707 for ReLU (:math:`\\sqrt{1/2}`: half of the *squared* norm is lost, not half of the norm),
and for tanh a factor that creeps towards 1.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

derivative, weight = {}, {}
figure, ax = plt.subplots(layout="constrained")
layers = np.arange(1, 31)

for name, line in (("tanh", "^-"), ("relu", "s-"), ("sigmoid", "o-")):
    chain = pk.Chain(depth=30, width=512, activation=name, init="lecun_normal")
    p = pk.propagate(chain, replicas=50)
    derivative[name] = 10 ** p.log10_derivative_factor.mean(axis=0)
    weight[name] = 10 ** p.log10_weight_factor.mean(axis=0)
    ax.plot(layers, derivative[name], line, markersize=4, label=f"derivative, {name}")
    ax.plot(layers, weight[name], line[0], color="0.6", markersize=3)
    print(f"{name:8} derivative x weight at layer 30: {derivative[name][-1]:.3f} x {weight[name][-1]:.3f}")

# Grey marks: what the weights contribute, for each of the three. Folklore is dotted.

ax.axhline(0.25, linestyle=":", color="k", label="folklore, sigmoid: 1/4")
ax.axhline(0.5, linestyle="-.", color="k", label="folklore, ReLU: 1/2")
ax.set(xlabel="layer", ylabel="factor on the gradient's norm", ylim=(0, 1.1), title="What each layer multiplies the gradient by")
ax.legend(fontsize="small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18))
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
folder.mkdir(exist_ok=True)
figure.savefig(folder / "02_chain_rule.png")
