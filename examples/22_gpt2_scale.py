# SPDX-License-Identifier: BSD-3-Clause
"""
GPT-2's 1/sqrt(2N)
==================

*Question.* GPT-2 begins with weights N(0, 0.02^2), but divides those that end a branch by the root of the
2 N branches. What does it do, and what if somebody forgets it, as happened in a widely used library?

*Answer.* It holds the sum of all branches at the size of one, whatever the depth: the signal's mean square
rises from 1 by 0.06 behind 3 layers and behind 48; forgotten, by 0.4 and by 8.3. Later branches see a
normalised signal, so the gradient at the input is larger than at the end by nearly the root of that
growth: a factor of 3.1 beside one of 1.04, as if early layers had thrice the learning rate. The loss at
the beginning, ln V + d 0.02^2 / 2 for a head of its own, tells nothing of it.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

width, T, vocabulary = 128, 16, 500
depths = [3, 12, 48]
std = 0.02 * (768 / width) ** 0.5  # the spread of a sum over 128 numbers like that over GPT-2's 768


def forgotten(chain):
    """The same with one standard deviation for all weights."""
    attention, feed_forward = chain.blocks
    norm, mix = attention.steps
    same = pk.Attention(mix.heads, causal=True)
    first = [pk.Block(norm, same, skip=1.0)]
    return chain.replace(blocks=[*first, pk.Block(*feed_forward.steps[:3], pk.Linear(width), skip=1.0)])


growth, slope, loss = {}, {}, {}
for layers in depths:
    gpt = pk.blocks.gpt2(layers=layers, width=width, heads=4, vocabulary=vocabulary)
    gpt = gpt.replace(gain=std / 0.02)
    for name, chain in (("with 1/sqrt(2N)", gpt), ("forgotten", forgotten(gpt))):
        p = pk.propagate(chain, positions=T, replicas=10)
        growth.setdefault(name, []).append(10 ** p.median("log10_mean_square_activation")[-2] - 1)
        signal = p.median("log10_grad_activation")
        slope.setdefault(name, []).append(10 ** (signal[0] - signal[-2]))
        loss.setdefault(name, []).append(p.loss.mean())
        print(f"{layers:3} layers, {name:16}: mean square 1 + {growth[name][-1]:.3f}, ", end="")
        print(f"gradient x {slope[name][-1]:.2f}")

head = pk.Head("softmax", vocabulary, init="normal(0.02)")
expected = np.log(vocabulary) + width * 0.02**2 / 2
print(f"loss {loss['with 1/sqrt(2N)'][-1]:.3f}, theory {expected:.3f}")

figure, ax = plt.subplots(figsize=(5, 3.8), layout="constrained")
for (name, rows), line in zip(growth.items(), ("o-", "s--"), strict=True):
    ax.loglog(depths, rows, line, color="black", label=name)
ax.set(
    xlabel="layers N", ylabel="what 2 N branches add to a mean square of 1", xticks=depths, xticklabels=depths
)
ax.legend(frameon=False)
plt.show()
