# SPDX-License-Identifier: BSD-3-Clause
"""
A million units wide, a hundred thousand layers deep
====================================================

*Question.* How large a chain fits on a laptop?

*Answer.* Width is the matter of one engine, depth of the other. *Matrix-free* never draws a weight: a million
units, where one matrix would fill 4 terabytes, costs a vector a layer, and the law of the result is exact.
*Dense* draws every weight anew when it needs it: a hundred thousand layers need the memory of their signals
only. Both agree with theory, over thousands of decades.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

wide = pk.Chain(depth=20, width=1_000_000, activation="sigmoid", init="lecun_normal")
deep = pk.Chain(depth=100_000, width=32, activation="relu", init="lecun_normal")
w = pk.propagate(wide, engine="matrix_free")
d = pk.propagate(deep, engine="dense")
theory = pk.predict(wide)

# %%
# One sigmoid net a million wide against infinite width: their gap is what a million units leave to chance.

gap = np.abs(w.log10_grad_activation[0] - theory.log10_grad_activation).max()
print(
    f"{wide}: {w.engine}, {w.seconds:.2f} s; {wide.weight_count:.0e} weights, "
    f"none drawn; {gap:.1e} decades from infinite width"
)

# A ReLU chain with variance 1/n loses 1/sqrt(2) a layer, and more at width 32: E log, not log E (Hanin and
# Nica 2018).
slope, wide_slope = float(d.slope[0]), -0.5 * np.log10(2)
exact = pk.predict(deep.replace(depth=1000)).signal_end_to_end_mean / 1000
print(f"{deep}: {d.engine}, {d.seconds:.2f} s; gradient 10^{d.signal_end_to_end[0]:.0f}")
print(
    f"  a layer: {slope:.5f} measured, {exact:.5f} expected at width 32, {wide_slope:.5f} at infinite width"
)

figure, (top, bottom) = plt.subplots(2, 1, figsize=(5, 6.5), layout="constrained")
top.plot(theory.log10_grad_activation, "k-", label="theory, infinite width")
top.plot(w.log10_grad_activation[0], "o", mfc="none", label="a million units, measured")
top.set(xlabel="layer", ylabel="log10 of the gradient", title="Wide: 20 layers of 1 000 000 units")
layers = np.arange(0, deep.depth + 1, 500)
bottom.plot(
    layers / 1000, d.log10_grad_activation[0, layers], "-", linewidth=5, color="0.75", label="measured"
)
bottom.plot(layers / 1000, exact * (deep.depth - layers), "k--", label="expected at width 32")
bottom.axhspan(-45, 38, color="tab:red")
bottom.annotate("the red line: all that float32 can hold", (2, -900), fontsize="small", va="top")
bottom.set(
    xlabel="layer, in thousands", ylabel="log10 of the gradient", title="Deep: 100 000 layers of 32 units"
)
top.legend(), bottom.legend(loc="lower right")
plt.show()
