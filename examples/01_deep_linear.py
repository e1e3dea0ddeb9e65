# SPDX-License-Identifier: BSD-3-Clause
"""
A deep linear net with W = 1.5 I, and with W = 0.5 I
====================================================

*Question.* With all weights equal to 1.5 times the identity, activations grow as :math:`1.5^L` and gradients with them; with 0.5
they shrink as :math:`0.5^L`. At which layer does a computer give up?

*Answer.* float32 after 218 layers upwards and 149 downwards, float64 after 1750 and 1074. A separate exponent for each block of
numbers never gives up: at depth 100 000 the gradient is :math:`10^{17609}`, or :math:`10^{-30103}`.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

deep, shown = 100_000, 2000
ones = np.ones((2, 1))  # one input, two units, all ones: every activation of layer l is exactly c^l
figure, ax = plt.subplots(layout="constrained")
decades, first_bad = {}, {}

for c, line in ((1.5, "-"), (0.5, "--")):
    chain = pk.Chain(depth=deep, width=2, activation="linear", init=pk.Identity(c))
    p = pk.propagate(chain, x=ones, cotangent=ones)
    decades[c] = p.signal_end_to_end[0]
    ax.plot(p.log10_mean_square_activation[0, :shown] / 2, line, color="0.4", label=f"W = {c} I")
    print(f"W = {c} I, with exponent: gradient times 10^{decades[c]:+.1f} over {deep} layers")
    for dtype, marker in (("float32", "s"), ("float64", "o")):
        plain = pk.propagate(chain.replace(depth=shown), x=ones, cotangent=ones, dtype=dtype, precision="native", engine="dense")
        end = first_bad[c, dtype] = plain.failure.layer
        ax.plot(end, end * np.log10(c), marker, color="tab:red" if c > 1 else "tab:blue")
        ax.annotate(f"  plain {dtype} ends: {end}", (end, end * np.log10(c)), va="center")
        print(f"W = {c} I, plain {dtype}: {plain.failure}")

# The gradient does the same backwards: in a linear chain with W = c I it is multiplied by c at every layer.

ax.set(xlabel="layer", ylabel="log10 of the activation", xlim=(0, 3400), title="Where plain arithmetic ends")
ax.legend(loc="lower right")
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
folder.mkdir(exist_ok=True)
figure.savefig(folder / "01_deep_linear.png")
