# SPDX-License-Identifier: BSD-3-Clause
"""
The recurrent net that made the problem famous
==============================================

*Question.* Vanishing gradients were first described in recurrent networks (Bengio, Simard, Frasconi 1994).
What does one weight, used at every step in time, do to the gradient, and what do spectral radius and
clipping have to do with it (Pascanu, Mikolov, Bengio 2013)?

*Answer.* In a linear network a step back in time multiplies the gradient by about the spectral radius of W;
tanh takes its slope off. At radius 0.9 a tanh net keeps 0.78 a step, five decades are gone after fifty, and
the last five uses make nine tenths of the weight's gradient: what came before is not learnt. At radius 3
the gradient grows by a third a step, and the oldest use weighs a million times the newest. Clipping makes
the sum finite, but it multiplies all uses by one number: what is old weighs as much, or as little, as
before.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

steps, n = 50, 100


def elman(phi, radius, **words):
    """h[t] = phi(W h[t-1] + U x[t]); the eigenvalues of such a W fill a disc of this radius (Girko's law)."""
    step = pk.Block(pk.Linear(gain=radius), pk.Drive(10, gain=0.3), phi)
    return pk.Chain(depth=steps, width=n, blocks=[step], init="lecun_normal", tied=True, **words)


radii = (0.5, 0.9, 1.1, 1.5, 3.0)
runs = {}
for phi in ("linear", "tanh"):
    for radius in radii:
        p = runs[phi, radius] = pk.propagate(elman(phi, radius), replicas=30, engine="dense")
        uses = p.log10_grad_weight[:, 0::2]  # of W; those of U lie between
        share = np.cumsum(10 ** (2 * (uses - uses.max(axis=1, keepdims=True)))[:, ::-1], axis=1)
        recent = np.median((share < 0.9 * share[:, -1:]).sum(axis=1)) + 1
        print(f"{phi:6}, radius {radius}: gradient times {10 ** p.median('slope'):.2f} a step back;", end=" ")
        print(f"nine tenths from the last {recent:.0f} uses;", end=" ")
        print(f"dJ/dW 10^{p.median('log10_grad_weight_total')[0]:.1f}")

# %%
# Clipping acts on the sum over uses.

clipped = pk.propagate(elman("tanh", 3.0, clip=pk.Clip(norm=1.0)), replicas=30, engine="dense")
before, after = (p.median("log10_grad_weight_total")[0] for p in (runs["tanh", 3.0], clipped))
old, new = (runs["tanh", 3.0].median("log10_grad_weight")[i] for i in (0, -2))
print(f"radius 3, clipped: 10^{before:.1f} becomes 10^{after:.1f}; first over last use 10^{old - new:.1f}")

figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
for radius in radii:
    middle = runs["tanh", radius].median("log10_grad_activation")
    (line,) = ax.plot(np.arange(steps + 1) - steps, middle)
    at = {"xytext": (-4, 0), "textcoords": "offset points", "ha": "right", "va": "center"}
    ax.annotate(f"radius {radius}", (-steps, middle[0]), color=line.get_color(), **at)
ax.set(xlim=(-steps - 12, 0), xlabel="steps before the loss", ylabel="log10 of the gradient's norm")
ax.set(title="A tanh net with inputs, back in time")
plt.show()
