# SPDX-License-Identifier: BSD-3-Clause
"""
Dead units
==========

*Question.* "A ReLU that is off for every input never learns again." How many are dead at the start, what does it depend on, and
can a whole net be dead?

*Answer.* One input switches off half of the units; a batch of independent inputs almost none in the first layer, but depth makes
inputs alike and the share climbs back to half. The gain changes nothing without biases. A narrow deep net can be dead altogether,
with chance :math:`1 - (1 - 2^{-n})^L`. Leaky ReLU has no dead units.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

figure, (top, bottom) = plt.subplots(2, 1, figsize=(5, 7), layout="constrained")
chain = pk.Chain(depth=100, width=128)
cases = {
    "batch 1": (chain, 1),
    "batch 8": (chain, 8),
    "batch 64": (chain, 64),
    "batch 64, gain 2": (chain.replace(gain=2), 64),
    "batch 64, biases": (chain.replace(bias_std=1.0, gain=0.7), 64),
    "batch 64, leaky": (chain.replace(activation="leaky_relu"), 64),
}
dead = {}
for (name, (case, batch)), line in zip(cases.items(), ("-", "--", "-.", ":", (0, (1, 3)), "-"), strict=True):
    dead[name] = pk.propagate(case, batch=batch, replicas=10, engine="dense").dead.mean(axis=0)
    top.plot(np.arange(1, 101), dead[name], linestyle=line, linewidth=4 if line == "-." else 1.5, label=name)
    print(f"{name:18} dead in layer 1: {dead[name][0]:.3f}, layer 10: {dead[name][9]:.3f}, layer 100: {dead[name][99]:.3f}")

# Whole nets: one that has a layer with no unit on passes neither signal nor gradient.

depths, replicas, chance = np.array([5, 10, 20, 40, 80]), 2000, {}
for n, marker in ((3, "o"), (5, "s"), (8, "^")):
    deepest = pk.propagate(pk.Chain(depth=80, width=n), replicas=replicas, engine="dense").log10_mean_square_activation
    chance[n] = np.isneginf(deepest[:, depths - 1]).mean(axis=0)
    bottom.plot(depths, chance[n], marker, label=f"width {n}, measured")
    bottom.plot(depths, 1 - (1 - 2.0**-n) ** depths, "k:")
    print(f"width {n}: chance that a net of 20 layers is dead {chance[n][2]:.3f}, theory {1 - (1 - 2.0**-n) ** 20:.3f}")

top.set(xlabel="layer", ylabel="share of dead units", title="Dead for the whole batch", xscale="log")
bottom.set(xlabel="depth", ylabel="share of dead nets", title="Dead altogether (dotted: theory)", xscale="log")
bottom.set_xticks(depths, depths)
bottom.minorticks_off()
top.legend(fontsize="small")
bottom.legend(fontsize="small")
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
folder.mkdir(exist_ok=True)
figure.savefig(folder / "09_dead_units.png")
