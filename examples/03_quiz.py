# SPDX-License-Identifier: BSD-3-Clause
"""
The quiz: what cures a vanishing gradient?
==========================================

*Question.* "A network of 50 sigmoid layers does not learn: its gradients vanish. Which helps: (a) tanh, (b)
ReLU, (c) batch norm, (d) larger weights?" Quizzes accept one letter. Measured:

*Answer.* (a) helps; (b) only with its own initialisation, else .707 a layer remains; (c) helps, for sigmoid,
but makes a plain ReLU net *explode*, by 1.21 a layer with large batches and 1.23 with our 32; (d) helps only
near ten times the usual scale, four times is not enough. And the fine print of (a): at its critical scale
tanh still loses gradient, as the root of depth, not exponentially.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

sigmoid = pk.Chain(depth=50, width=128, activation="sigmoid", init="lecun_normal")
options = {
    "sigmoid": sigmoid,
    "(a) tanh": sigmoid.replace(activation="tanh"),
    "(b) ReLU, same weights": sigmoid.replace(activation="relu"),
    "(b) ReLU, He weights": sigmoid.replace(activation="relu", init="he_normal"),
    "(c) sigmoid, batch norm": sigmoid.replace(norm="batch"),
    "(c) ReLU, batch norm": sigmoid.replace(activation="relu", norm="batch"),
    "(d) sigmoid, weights x 4": sigmoid.replace(gain=4),
    "(d) sigmoid, weights x 10": sigmoid.replace(gain=10),
}
measured = {name: pk.propagate(chain, batch=32, replicas=10) for name, chain in options.items()}
decades = {name: p.median("signal_end_to_end") for name, p in measured.items()}
for name, p in measured.items():
    print(
        f"{name:26} {decades[name]:+7.2f} decades, "
        f"a factor {10 ** p.median('slope'):.3f} a layer: {p.verdict}"
    )

# %%
# Fine print of (a): the squared gradient of tanh at the edge of chaos falls as 1/L, so the norm loses half a
# decade a decade of depth.

edge = pk.Chain(depth=1000, width=4096, activation="tanh", init="lecun_normal")
layers = np.arange(1, 1001)
gradient = (
    pk.predict(edge).log10_grad_activation,
    pk.propagate(edge, replicas=10).median("log10_grad_activation"),
)
theory, measured_fall = (g[0] - g[1:] for g in gradient)  # what l layers take away
power = np.polyfit(np.log10(layers[99:]), theory[99:], 1)[0]
print(
    f"tanh at variance 1/n: {measured_fall[-1]:+.2f} decades in 1000 layers, "
    f"theory {theory[-1]:+.2f}; gradient ~ depth^{power:.2f}"
)

figure, (ax, fine) = plt.subplots(2, 1, figsize=(5, 6), height_ratios=(3, 2), layout="constrained")
bars = ax.barh(list(decades), list(decades.values()), color="0.7", edgecolor="k")
ax.bar_label(bars, [p.verdict for p in measured.values()], padding=3, fontsize="small")
ax.axvspan(-3, 3, color="0.92", zorder=0)
ax.invert_yaxis()
ax.set(
    xlabel="decades from output to input, 50 layers", xlim=(-52, 24), title="What cures a vanishing gradient?"
)
fine.plot(layers, measured_fall, "-", linewidth=4, color="0.75", label="tanh, variance 1/n, measured")
fine.plot(layers, theory, "k--", label="infinite width: falls as depth$^{-1/2}$")
fine.set(xscale="log", xlabel="depth", ylabel="decades")
fine.legend(fontsize="small", loc="lower left")
plt.show()
