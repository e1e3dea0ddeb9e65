# SPDX-License-Identifier: BSD-3-Clause
"""
Dead units
==========

*Question.* "A ReLU that is off for every input never learns again." How many are dead at the start, what does
it depend on, and can a whole net be dead?

*Answer.* One input switches off half of the units; a batch of B independent ones :math:`2^{-B}` in the first
layer, but depth makes inputs alike and the share climbs back to half, whatever the width. The gain changes
nothing without biases; shared biases make inputs alike sooner. A narrow deep net can be dead altogether, with
chance :math:`1 - (1 - 2^{-n})^L`. Leaky ReLU has no dead units.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

chain, layers = pk.Chain(depth=100, width=128), np.arange(1, 101)
biased, leaky = chain.replace(bias_std=1.0, gain=0.7), chain.replace(activation="leaky_relu")
cases = {  # chain, batch, line, where the label goes
    "batch 1": (chain, 1, "-", (1, 0.53)),
    "batch 8": (chain, 8, "--", (3, 0.21)),
    "batch 64": (chain, 64, "-", (7, 0.08)),
    "batch 64, width 512 (dotted)": (chain.replace(width=512), 64, ":", (12, 0.16)),
    "batch 64, biases": (biased, 64, "-.", (1.05, 0.36)),
    "batch 64, leaky ReLU": (leaky, 64, "-", (9, 0.015)),
    "batch 64, gain 2": (chain.replace(gain=2), 64, "", None),  # the same to the last bit: not drawn
}
figure, (top, bottom) = plt.subplots(2, 1, figsize=(5, 7), layout="constrained")
dead = {}
for name, (case, batch, line, at) in cases.items():
    dead[name] = pk.propagate(case, batch=batch, replicas=8).dead.mean(axis=0)
    if line:
        top.plot(layers, dead[name], line)
        top.annotate(name, at, fontsize="small")
    print(
        f"{name:28} dead in layer 1: {dead[name][0]:.3f}, layer 10: "
        f"{dead[name][9]:.3f}, layer 100: {dead[name][99]:.3f}"
    )

# Whole nets: one that has a layer with no unit on passes neither signal nor gradient.

depths, replicas, chance = np.array([5, 10, 20, 40, 80]), 2000, {}
for n, marker in ((3, "o"), (5, "s"), (8, "^")):
    signal = pk.propagate(pk.Chain(depth=80, width=n), replicas=replicas).log10_mean_square_activation
    chance[n] = np.isneginf(signal[:, depths - 1]).mean(axis=0)
    bottom.plot(depths, chance[n], marker)
    bottom.plot(depths, 1 - (1 - 2.0**-n) ** depths, "k:")
    bottom.annotate(f"width {n}", (22, chance[n][2] - 0.07))
    print(
        f"width {n}: chance that a net of 20 layers is dead {chance[n][2]:.3f}, "
        f"theory {1 - (1 - 2.0**-n) ** 20:.3f}"
    )

top.set(
    xlabel="layer",
    ylabel="share of dead units",
    title="Dead for the whole batch",
    xscale="log",
    ylim=(-0.01, 0.58),
)
bottom.set(
    xlabel="depth", ylabel="share of dead nets", title="Dead altogether (dotted: theory)", xscale="log"
)
bottom.set_xticks(depths, depths)
bottom.minorticks_off()
plt.show()
