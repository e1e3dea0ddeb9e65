# SPDX-License-Identifier: BSD-3-Clause
"""
Does ReLU increase the danger of exploding? Does it still vanish?
=================================================================

*Question.* ReLU does not saturate, so it "solves vanishing but risks exploding". Is either half true?

*Answer.* It does both, with equal ease: the gradient is multiplied by gain per layer, on either side of He's
scale, without end. Tanh vanishes in the same way below its critical scale, but explodes far more slowly above
it, because its units saturate: at twice the critical weights by 1.16 a layer, where ReLU doubles.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

gains = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0])
figure, ax = plt.subplots(figsize=(5, 4), layout="constrained")
factor = {}

for activation, init, line in (("relu", "he_normal", "o-"), ("tanh", "lecun_normal", "s--")):
    base = pk.Chain(depth=50, width=256, activation=activation, init=init)
    ds = pk.sweep({"gain": gains}, base, replicas=30, profiles=False, progress=False)
    factor[activation] = 10 ** ds.slope.mean("replica").values
    ax.plot(gains, factor[activation], line, linewidth=2)
    print(
        f"{activation}: "
        f"factor a layer {dict(zip(gains.tolist(), factor[activation].round(3).tolist(), strict=True))}"
    )
    print(f"  verdicts at depth 50: {' '.join(ds.verdict.values.tolist())}")

# In a wide net the line of ReLU is exactly *factor = gain*: scaling all weights by g scales every signal and
# every gradient by g a layer.

ax.axhline(1, color="0.5", linewidth=1)
ax.axvline(1, color="0.5", linewidth=1)
ax.annotate("ReLU: factor = gain", (1.48, 1.52), ha="right")
ax.annotate("tanh", (1.8, 1.17))
ax.annotate("critical line", (1.02, 0.5))
ax.annotate("explodes", (0.55, 1.25), fontweight="bold")
ax.annotate("vanishes", (1.5, 0.75), fontweight="bold")
ax.set(
    xlabel="gain over the critical weights (He's; LeCun's for tanh)", ylabel="factor on the gradient a layer"
)
ax.set_title("Below 1 alike, above 1 not")
plt.show()
