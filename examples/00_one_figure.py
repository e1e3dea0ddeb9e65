# SPDX-License-Identifier: BSD-3-Clause
"""
One figure that says it all
===========================

The gradient of 200 layers under seven choices of activation, weights and normalisation, on its way from the
output back to the input. Lines are medians of ten networks of 256 units, dots the theory of infinite width;
white is what float32 can hold.
"""

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
ax.axhspan(38.5, 80, color="0.87")
ax.axhspan(-140, -45, color="0.87")
ax.annotate("beyond float32", (4, -136), color="0.3")

for (name, chain), line in zip(chains.items(), ("-", "--", "-", ":", "-.", "--", "-"), strict=True):
    p = pk.propagate(chain, batch=32 if chain.norm else 1, replicas=10)
    back = np.median(p.log10_grad_activation, axis=0)[::-1]  # from the output to the input
    theory = pk.predict(chain, batch=p.batch).log10_grad_activation[::-1]
    (curve,) = ax.plot(back, linestyle=line)
    ax.plot(np.arange(0, 201, 20), theory[::20], ".", color=curve.get_color(), markersize=6)
    ax.annotate(
        name,
        (204, back[-1] + {"ReLU, He (2/n)": 4, "tanh, LeCun (1/n)": -4}.get(name, 0)),
        va="center",
        annotation_clip=False,
    )
    verdicts[name], ends[name] = p.verdict, (float(back[-1] - back[0]), theory[-1] - theory[0])
    print(f"{name:20} {ends[name][0]:+8.2f} decades, theory {ends[name][1]:+8.2f}: {p.verdict}")

ax.set(
    xlabel="layers travelled backwards",
    ylabel="log10 of the gradient",
    ylim=(-140, 80),
    xlim=(0, 200),
    title="Gradients of 200 layers",
)
plt.show()
