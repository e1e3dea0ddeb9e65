# SPDX-License-Identifier: BSD-3-Clause
"""
Rank collapse
=============

*Question.* "Attention alone loses rank doubly exponentially with depth." What does a skip change, what a
norm, what a feed-forward network?

*Answer.* Attention that looks at all alike makes 16 positions one at once. With a skip what is each
position's own stays as large as it is, while what they have in common doubles its square with every layer:
1 - cosine is 1 / (1 - 1/T + 2^L / T), which halves a layer. A norm behind the sum divides both alike and
changes nothing. A norm before the branch weakens later branches, and the cosine nears one as a power of
depth only; a feed-forward network of ReLUs pushes positions apart again and slows it further.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

n, T, L = 256, 16, 24
uniform = pk.Attention(1, scale=0.0)  # every position looks at all alike
norm, relus = pk.Norm("layer"), (pk.Linear(n), "relu", pk.Linear(n))
patterns = {
    "attention alone": [pk.Block(uniform)],
    "with a skip": [pk.Block(uniform, skip=1.0)],
    "skip and norm after": [pk.Block(uniform, skip=1.0, after=norm)],
    "skip and norm before": [pk.Block(norm, uniform, skip=1.0)],
    "the last, and ReLUs": [pk.Block(norm, uniform, skip=1.0), pk.Block(norm, *relus, skip=1.0)],
}


def theory(layer):
    """1 - cosine behind skips and uniform attention of T independent positions, mean square 1."""
    return 1 / (1 - 1 / T + 2.0**layer / T)


layer = np.arange(1, L + 1)
apart = {}
figure, ax = plt.subplots(figsize=(5.5, 4), layout="constrained")
for (name, pattern), marker in zip(patterns.items(), "v^osD", strict=True):
    chain = pk.Chain(depth=L, width=n, init="lecun_normal", blocks=pattern)
    p = pk.propagate(chain, positions=T, replicas=40, dtype="float64")
    apart[name] = 1 - p.similarity[:, len(pattern) - 1 :: len(pattern)].mean(axis=0)
    seen = apart[name] > 1e-12
    ax.semilogy(layer[seen], apart[name][seen], marker=marker, markevery=4, label=name)
    print(f"{name:22} 1 - cosine {apart[name][1]:.2e} behind 2 layers, {apart[name][-1]:.2e} behind {L}")
ax.semilogy(layer, theory(layer), "k--", label="theory of uniform attention and skips")
ax.set(xlabel="layer", ylabel="1 - mean cosine between positions", ylim=(1e-9, 2))
ax.legend(frameon=False, fontsize=8)
plt.show()
