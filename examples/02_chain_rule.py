# SPDX-License-Identifier: BSD-3-Clause
"""
The chain rule taken apart
==========================

*Question.* A gradient is a product of derivatives and weights. "The derivative of the sigmoid is at most 1/4,
so every layer divides the gradient by four; ReLU's is 0 or 1, half the units are off, so every layer halves
it." What are the factors, measured?

*Answer.* With weights of variance 1/n the weights contribute a factor 1, and the derivative .236 a layer for
sigmoid (its mean square counts, not its maximum), .707 for ReLU (:math:`\\sqrt{1/2}`: half of the *squared*
norm is lost, not half of the norm), and for tanh a factor that creeps towards 1. The product of all factors
is the gradient, to the last digit.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

derivative, weight, gap = {}, {}, {}
figure, ax = plt.subplots(figsize=(5, 4), layout="constrained")
layers = np.arange(1, 31)

for name, line in (("tanh", "^-"), ("ReLU", "s-"), ("sigmoid", "o-")):
    p = pk.propagate(pk.Chain(depth=30, width=512, activation=name.lower(), init="lecun_normal"), replicas=50)
    derivative[name] = 10 ** p.log10_derivative_factor.mean(axis=0)
    weight[name] = 10 ** p.log10_weight_factor.mean(axis=0)
    product = (p.log10_derivative_factor + p.log10_weight_factor).sum(axis=1)
    gap[name] = float(np.abs(product - p.signal_end_to_end).max())
    ax.plot(layers, derivative[name], line, markersize=4)
    ax.annotate(name, (31, derivative[name][-1] - 0.02), va="center", annotation_clip=False)
    ax.plot(layers, weight[name], line[0], color="0.65", markersize=3)
    print(
        f"{name:8} derivative x weight at layer 30: {derivative[name][-1]:.3f} x {weight[name][-1]:.3f}",
        end="; ",
    )
    print(f"all 30 layers: 10^{product.mean():.3f}, the gradient: 10^{p.signal_end_to_end.mean():.3f}")

# Grey marks: what the weights contribute, for each of the three. Folklore is dotted.

for value, text in ((0.25, "folklore for sigmoid: 1/4"), (0.5, "folklore for ReLU: 1/2")):
    ax.axhline(value, linestyle=":", color="k")
    ax.annotate(text, (10, value + 0.02))
ax.annotate("weights (grey): 1", (10, 1.04), color="0.35")
ax.annotate("derivatives", (10, 0.76))
ax.set(xlabel="layer", ylabel="factor on the gradient's norm", ylim=(0, 1.12), xlim=(0, 31))
ax.set_title("What each layer multiplies the gradient by")
plt.show()
