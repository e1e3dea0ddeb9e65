# SPDX-License-Identifier: BSD-3-Clause
"""
Reading a coordinate check
==========================

*Question.* "My learning rate worked at width 256 and blows up at 4096." Which part of the network does
that, and what does muP (Yang and Hu 2021) change?

*Answer.* A coordinate check trains the same network at several widths for a step or a few, and looks at
how far coordinates move. With one rate for all weights the logits move as n, since each of n weights of
the head moves the same way, and hidden layers as n^(1/2), while the first layer, which reads 16 numbers
whatever the width, moves as n^(-1/2). With rates divided by fan_in ("ntk") the logits move alike at
every width and the hidden layers less and less: wide networks stop learning features. With muP's rates
and its smaller head everything moves by as much at every width: flat lines are what a coordinate check
should show, and a slope says which layer's rate or initial size is wrong.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

widths, steps = [128, 512, 2048, 8192], 3
chain = pk.Chain(widths=[16, 64, 64, 64], activation="tanh", init="lecun_normal", head=pk.Head("mse", 1))
rates = {"standard": 1e-4, "ntk": 0.1, "mup": 0.1}

slopes = {}
figure, ax = plt.subplots(figsize=(5.5, 4), layout="constrained")
for (name, rate), marker in zip(rates.items(), "^vo", strict=True):
    c = pk.coordinate_check(chain, widths=widths, steps=steps, rate=rate, parametrization=name)
    slopes[name] = c.change
    place = np.arange(len(c.layers))
    ax.errorbar(place, c.change[0], 2 * c.change_error[0], marker=marker, capsize=3, label=name)
    ax.plot(place, c.change_promised, color="k", ls=":", lw=1)
    print(
        f"{name:9}",
        " ".join(f"{layer} {slope:+.2f}" for layer, slope in zip(c.layers, c.change[0], strict=True)),
    )
    print(f"{'':9} logits of the fresh network: {c.size[0, -1]:+.2f}")

ax.set_xticks(place, c.layers)
ax.set(xlabel="layer", ylabel="exponent in width of the change by one step")
ax.legend(frameon=False, fontsize=8, title="dotted: promised")
plt.show()
