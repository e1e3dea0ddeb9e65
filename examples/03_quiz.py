# SPDX-License-Identifier: BSD-3-Clause
"""
The quiz: what cures a vanishing gradient?
==========================================

*Question.* "A network of 50 sigmoid layers does not learn: its gradients vanish. Which helps: (a) tanh, (b) ReLU, (c) batch norm,
(d) larger weights?" Quizzes accept one letter. Measured:

*Answer.* (a) helps; (b) only with its own initialisation, else .707 a layer remains; (c) helps, for sigmoid, but makes a plain
ReLU net *explode* by 1.21 a layer; (d) helps only near ten times the usual scale, four times is not enough. And (a) in the fine
print: at its critical scale tanh still loses gradient, as a power of depth, not exponentially.
"""

import sys
from pathlib import Path

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
measured = {name: pk.propagate(chain, batch=32, replicas=10, engine="dense") for name, chain in options.items()}
decades = {name: float(np.median(p.signal_end_to_end)) for name, p in measured.items()}
for name, p in measured.items():
    print(f"{name:26} {decades[name]:+7.2f} decades, a factor {10 ** np.median(p.slope):.3f} a layer: {p.verdict}")

# %%
# Fine print of (a): the squared gradient of tanh at the edge of chaos falls as 1/L, so the norm loses half a decade a decade of depth.

depths = [10, 30, 100, 300, 1000]
tanh = [pk.predict(pk.Chain(depth=L, width=4096, activation="tanh", init="lecun_normal")).signal_end_to_end for L in depths]
power = np.polyfit(np.log10(depths), tanh, 1)[0]
print(f"tanh at variance 1/n, infinitely wide: gradient ~ depth^{power:.2f}")

figure, ax = plt.subplots(layout="constrained")
bars = ax.barh(list(decades), list(decades.values()), color="0.7", edgecolor="k")
ax.bar_label(bars, [p.verdict for p in measured.values()], padding=3, fontsize="small")
ax.axvspan(-3, 3, color="0.92", zorder=0)
ax.invert_yaxis()
ax.set(xlabel="decades from output to input, 50 layers", xlim=(-42, 14), title="What cures a vanishing gradient?")
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
folder.mkdir(exist_ok=True)
figure.savefig(folder / "03_quiz.png")
