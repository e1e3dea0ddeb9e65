# SPDX-License-Identifier: BSD-3-Clause
"""
"Variance 2/n only prevents exploding, not vanishing"
=====================================================

*Question.* Is He's rule a bound on one side only?

*Answer.* No: 2/n holds the *mean* of the squared gradient at 1, from both sides; 10 percent less variance
vanishes, 10 percent more explodes. What no variance can do is hold single networks there: the logarithm
spreads with depth over width, its variance is about :math:`5L/n`. The typical (median) network is left with
:math:`e^{-5L/2n}` of the squared gradient, while rare networks with large ones keep the mean at 1.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

width, depths, replicas = 64, [4, 8, 16, 32, 64, 128], 4000
squared = {}

for depth in depths:
    p = pk.propagate(pk.Chain(depth=depth, width=width), replicas=replicas)
    squared[depth] = 10 ** (2 * p.signal_end_to_end)  # rows are logarithms of norms
    print(
        f"depth/width {depth / width:5.3f}: squared ratio, "
        f"mean {squared[depth].mean():.3f}, median {np.median(squared[depth]):.4f}"
    )

# %%
# Beyond a depth of about the width, 4000 networks no longer meet the rare ones that keep the mean at 1: the
# measured mean falls short, and its error bar (from the sample's own spread) does not know. Now both sides of
# 2/n, at depth 200 and width 1000.

rate = {}
for variance in (1.8, 2.0, 2.2):
    chain = pk.Chain(depth=200, width=1000, init=pk.VarianceScaling(variance))
    rate[variance] = float(np.mean(pk.propagate(chain, replicas=20).signal_end_to_end))
    print(f"variance {variance}/n: {rate[variance]:+.2f} decades over 200 layers")

figure, ax = plt.subplots(figsize=(5, 4), layout="constrained")
x, sample = np.array(depths) / width, np.array(list(squared.values()))
ax.fill_between(x, *np.quantile(sample, [0.05, 0.95], axis=1), color="0.88")
ax.errorbar(
    x, sample.mean(axis=1), 2 * sample.std(axis=1) / np.sqrt(replicas), fmt="o-", color="tab:red", capsize=3
)
ax.plot(x, np.median(sample, axis=1), "s", color="tab:blue")
ax.plot(x, np.exp(-2.5 * x), "k:")
ax.annotate("mean", (1.5, 1.1), ha="center")
ax.annotate("median, exp(-5L/2n)", (1.2, 0.08))
ax.annotate("grey: nine networks of ten", (0.05, 5e-5))
ax.set(
    yscale="log",
    xlabel="depth / width",
    ylabel="squared gradient, input over output",
    title="2/n keeps the mean, not the network",
)
plt.show()
