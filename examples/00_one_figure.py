# SPDX-License-Identifier: BSD-3-Clause
"""
One figure that says it all
===========================

The gradient of 200 layers under seven choices of activation, weights and normalisation: from the output (right) back to the input (left). Lines are medians of
ten networks of 256 units, dots the theory of infinite width; white is what float32 can hold.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

base = pk.Chain(depth=200, width=256)
chains = {
    "ReLU, He x 1.5": base.replace(gain=1.5),
    "ReLU, batch norm": base.replace(norm="batch"),
    "ReLU, He (2/n)": base,
    "tanh, LeCun (1/n)": base.replace(activation="tanh", init="lecun_normal"),
    "ReLU, LeCun (1/n)": base.replace(init="lecun_normal"),
    "tanh, half of LeCun": base.replace(activation="tanh", init="lecun_normal", gain=0.5),
    "sigmoid, LeCun": base.replace(activation="sigmoid", init="lecun_normal"),
}
verdicts, ends = {}, {}
figure, ax = plt.subplots(figsize=(5, 4.6), layout="constrained")
ax.axhspan(38.5, 80, color="0.85")
ax.axhspan(-140, -45, color="0.85")
ax.annotate("beyond float32", (100, -138), color="0.3", ha="center", va="bottom")

for (name, chain), line in zip(chains.items(), ("-", "--", "-", ":", "-.", "--", "-"), strict=True):
    p = pk.propagate(chain, batch=32 if chain.norm else 1, replicas=10)
    theory = pk.predict(chain, batch=p.batch).log10_grad_activation
    (curve,) = ax.plot(np.median(p.log10_grad_activation, axis=0), linestyle=line, label=name)
    ax.plot(np.arange(0, 201, 20), theory[::20], ".", color=curve.get_color(), markersize=6)
    verdicts[name], ends[name] = p.verdict, (float(np.median(p.signal_end_to_end)), theory[0] - theory[-1])
    print(f"{name:20} {ends[name][0]:+8.2f} decades, theory {ends[name][1]:+8.2f}: {p.verdict}")

ax.set(xlabel="layer", ylabel="log10 of the gradient", ylim=(-140, 80), xlim=(0, 200), title="Gradients of 200 layers")
ax.legend(fontsize="small", loc="lower right", bbox_to_anchor=(1, 0.08))
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
folder.mkdir(exist_ok=True)
figure.savefig(folder / "00_one_figure.png")
