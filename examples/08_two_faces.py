# SPDX-License-Identifier: BSD-3-Clause
"""
Two faces of the same medal?
============================

*Question.* "Keep z near 0, away from saturation, and the gradient survives: tanh is linear there. So is the
sigmoid."

*Answer.* Linear, yes, but with slope 1/4. Near 0 tanh passes the whole gradient and the sigmoid a quarter of
it. Weights four times as large would make up for it, if the sigmoid did not also add 1/2: its output is never
near 0, so large weights push z into saturation again and the factor stays below 1. Subtract the 1/2 and
stretch by four, and it is as good as tanh, because it is tanh.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk


def centred(z):
    return 4 / (1 + np.exp(-z)) - 2


def centred_slope(z):
    return 1 - centred(z) ** 2 / 4


functions = {
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "4 sigmoid - 2": pk.Activation(centred, centred_slope, name="4 sigmoid - 2"),
}
gains = np.array([0.5, 1, 2, 4, 8])
factor, spread = {}, {}

# *factor* multiplies the gradient's norm, *spread* is the root mean square of z, in the layers where both
# have settled.

for name, function in functions.items():
    chains = [pk.Chain(depth=30, width=256, activation=function, init="lecun_normal", gain=g) for g in gains]
    runs = [pk.propagate(chain, replicas=3) for chain in chains]
    factor[name] = np.array(
        [10 ** np.mean(p.log10_derivative_factor[:, 15:] + p.log10_weight_factor[:, 15:]) for p in runs]
    )
    spread[name] = np.array([10 ** (np.mean(p.log10_mean_square_preactivation[:, 15:]) / 2) for p in runs])
    for g, f, s in zip(gains, factor[name], spread[name], strict=True):
        print(
            f"{name:14} weights {g:5.2f}/sqrt(n): z of {s:8.2g}, "
            f"gradient x {f:.3f} a layer, or {f / g:.3f} from the derivative"
        )

figure, ax = plt.subplots(figsize=(5, 4), layout="constrained")
for (name, f), mark in zip(factor.items(), ("^-", "o--", "s"), strict=True):
    ax.plot(
        gains, f / gains, mark, markersize=6 if name == "sigmoid" else 5 + 5 * (name == "tanh"), linewidth=2
    )
ax.plot(gains, 1 / gains, "k:")
ax.annotate("tanh (triangles),\n4 sigmoid - 2 (squares)", (2.1, 0.65))
ax.annotate("sigmoid", (0.6, 0.26))
ax.annotate("dotted: needed to keep the gradient", (0.8, 1.5))
ax.loglog()
ax.set(
    ylim=(0.08, 2),
    xlabel="weight scale: standard deviation times sqrt(n)",
    ylabel="what the derivative contributes",
)
ax.set_title("Linear near 0, with different slopes")
ax.set_xticks(gains, [f"{g:g}" for g in gains])
ax.set_yticks([0.1, 0.25, 0.5, 1, 2], ["0.1", "1/4", "1/2", "1", "2"])
ax.minorticks_off()
plt.show()
