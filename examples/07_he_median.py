# SPDX-License-Identifier: BSD-3-Clause
"""
"Variance 2/n only prevents exploding, not vanishing"
=====================================================

*Question.* Is He's rule a bound on one side only?

*Answer.* No: 2/n holds the *mean* of the squared gradient at 1, from both sides; 10 percent less variance vanishes, 10 percent
more explodes. What no variance can do is hold single networks there: the logarithm spreads with depth over width as :math:`5L/n`,
and the typical (median) network loses :math:`-5L/2n`, while rare networks with large gradients keep the mean at 1.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

width, depths = 64, np.array([4, 8, 16, 32, 64, 128])
squared, mean, middle = {}, [], []

for depth in depths:
    p = pk.propagate(pk.Chain(depth=int(depth), width=width), replicas=4000)
    squared[int(depth)] = 10 ** (2 * p.signal_end_to_end)
    mean.append(squared[depth].mean())
    middle.append(np.median(squared[depth]))
    print(f"depth/width {depth / width:5.3f}: mean squared ratio {mean[-1]:.3f}, median {middle[-1]:.4f}")

# %%
# Beyond a depth of about the width, 4000 networks no longer meet the rare ones that keep the mean at 1.
# Now both sides of 2/n, at depth 200 and width 1000.

rate = {}
for variance in (1.8, 2.0, 2.2):
    chain = pk.Chain(depth=200, width=1000, init=pk.VarianceScaling(variance))
    rate[variance] = float(np.mean(pk.propagate(chain, replicas=20).signal_end_to_end))
    print(f"variance {variance}/n: {rate[variance]:+.2f} decades over 200 layers")

figure, ax = plt.subplots(layout="constrained")
low, high = np.quantile([squared[d] for d in depths.tolist()], [0.05, 0.95], axis=1)
ax.fill_between(depths / width, low, high, color="0.88", label="9 of 10 networks")
ax.plot(depths / width, mean, "o-", color="tab:red", label="mean")
ax.plot(depths / width, middle, "s--", color="tab:blue", label="median")
ax.plot(depths / width, np.exp(-2.5 * depths / width), ":", color="k", label="exp(-5L/2n)")
ax.set(yscale="log", xlabel="depth / width", ylabel="squared gradient, input over output", title="2/n keeps the mean, not the network")
ax.legend(fontsize="small", loc="lower left")
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
folder.mkdir(exist_ok=True)
figure.savefig(folder / "07_he_median.png")
