# SPDX-License-Identifier: BSD-3-Clause
"""
SwiGLU has no stable variance
=============================

*Question.* He's rule gives ReLU the weights that keep its signals. Which weights keep those of a gated layer,
silu(G u) * (V u)?

*Answer.* None. A product of two layers squares the scale: a signal that is x percent too large leaves a
block 2.17 x percent too large, and soon its logarithm doubles with every block, upwards or downwards. The
gain that keeps a mean square of exactly 1, 1.677 over LeCun's, is a tightrope: finite networks of 256 units
fall from it at once, to 10^-244 after twelve blocks; 25 percent more weight, and they end at 10^750. A norm
in front of every gate keeps the signal (not the gradient, which still grows by 1.44 a block); a skip beside
it keeps both.
"""

import math

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

n, depth = 256, 12
gain = 1 / math.sqrt(0.3557755)  # 1 / sqrt(E silu(Z)^2)


def swiglu(factor=1.0, norm=(), **skip):
    return [pk.Block(*norm, pk.Gated(n, "silu"), pk.Linear(n, gain=gain * factor), **skip)]


norm = [pk.Norm("rms")]
patterns = {
    "0.8 of the gain": swiglu(0.8),
    "the gain": swiglu(),
    "1.25 of it": swiglu(1.25),
    "norm": swiglu(norm=norm),
    "norm and skip": swiglu(norm=norm, skip=1.0),
}
figure, ax = plt.subplots(figsize=(5, 4), layout="constrained")
square, decades, verdict = {}, {}, {}
for (name, blocks), marker in zip(patterns.items(), "v^soD", strict=True):
    p = pk.propagate(pk.Chain(depth=depth, width=n, init="lecun_normal", blocks=blocks), replicas=20)
    square[name] = p.median("log10_mean_square_activation")
    decades[name], verdict[name] = p.median("signal_end_to_end"), p.verdict
    ax.plot(np.arange(depth + 1), [0, *square[name]], f"{marker}-", label=name)
    said = f"mean square 10^{square[name][-1]:+.1f}, gradient {decades[name]:+.1f} decades"
    print(f"{name:16} {said}: {p.verdict}")


# How a small excess grows in one block at infinite width: d ln q' / d ln q at q = 1.


def passed(excess):
    scaled = pk.Chain(width=n, init="lecun_normal", first=[pk.Scale(math.sqrt(1 + excess))], blocks=swiglu())
    return math.log(10) * pk.predict(scaled).log10_mean_square_activation[-1]


elasticity = (passed(0.001) - passed(-0.001)) / (math.log1p(0.001) - math.log1p(-0.001))
print(f"an excess grows by {elasticity:.3f} a block")

ax.set_yscale("symlog", linthresh=1)
ax.set_yticks([-100, -10, -1, 0, 1, 10, 100], ["-100", "-10", "-1", "0", "1", "10", "100"])
ax.set(xlabel="block", ylabel="log10 mean square of the signal", title="Twelve gated blocks")
ax.legend(frameon=False, fontsize="small", loc="lower left")
plt.show()
