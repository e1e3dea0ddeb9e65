# SPDX-License-Identifier: BSD-3-Clause
"""
Unit-scaled attention, stacked
==============================

*Question.* Attention of T independent positions averages them, so its output is small; unit scaling
multiplies it so that one layer gives what it takes, standard deviation 1. Somebody stacks a few such
layers and finds 10 and more. Why?

*Answer.* The factor is right once. Outputs of one layer are no longer independent: positions become alike,
an average of equal numbers is as large as each, and the factor multiplies what needs none. For 64
positions it is 4.85, and the stack grows by 3 in the second layer and by 4.85 in every later one, 40 000
times behind eight. A skip keeps positions apart for a while, but the sum grows likewise; another constant
would be wrong for the first layer. A norm before each branch stops it, and leaves the factor itself as the
size of the output.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

n, T, L = 256, 64, 8
attention = pk.Attention(4)
plain = pk.Chain(width=n, init="lecun_normal", blocks=[pk.Block(attention)])
once = pk.propagate(plain, positions=T, replicas=20)
factor = 10 ** (-0.5 * once.log10_mean_square_activation.mean())
print(f"one layer of {T} independent positions gives 1 / {factor:.2f}")

stacks = {
    "unit-scaled": [pk.Block(attention, pk.Scale(factor))],
    "with a norm before": [pk.Block(pk.Norm("rms"), attention, pk.Scale(factor))],
    "skip and branch by sqrt(1/2)": [pk.Block(attention, pk.Scale(factor), skip=0.5**0.5, scale=0.5**0.5)],
    "the same and a norm before": [
        pk.Block(pk.Norm("rms"), attention, pk.Scale(factor), skip=0.5**0.5, scale=0.5**0.5)
    ],
}
layer = np.arange(1, L + 1)
size, cosine = {}, {}
figure, ax = plt.subplots(figsize=(5.5, 4), layout="constrained")
for (name, blocks), line in zip(stacks.items(), ("o-", "s--", "^-.", "D:"), strict=True):
    chain = pk.Chain(depth=L, width=n, init="lecun_normal", blocks=blocks)
    p = pk.propagate(chain, positions=T, replicas=4)
    size[name] = 10 ** (0.5 * p.median("log10_mean_square_activation"))
    cosine[name] = p.median("similarity")
    ax.semilogy(layer, size[name], line, color="black", label=name)
    print(f"{name:30} std {size[name][0]:.2f} behind layer 1, {size[name][-1]:.3g} behind {L}; ", end="")
    print(f"cosine {cosine[name][0]:.2f}, {cosine[name][-1]:.2f}")
growth = size["unit-scaled"][1:] / size["unit-scaled"][:-1]
print("growth of the unit-scaled stack:", *(f"{g:.2f}" for g in growth), "a layer")

ax.set(xlabel="layer", ylabel="standard deviation of its output")
ax.legend(frameon=False, fontsize=8)
plt.show()
