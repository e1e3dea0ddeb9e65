# SPDX-License-Identifier: BSD-3-Clause
"""
Can gradients explode with a sigmoid at all?
============================================

*Question.* The sigmoid's derivative is at most 1/4, so its gradients can only vanish. Or can they explode,
and how large must the weights be?

*Answer.* They can, above a standard deviation of about :math:`10/\\sqrt{n}` (mean field: 10.15): ten times
LeCun's, seven times He's. Units then saturate, most derivatives are tiny, but the few that are not meet huge
weights. No scheme in use comes near.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

gains = np.geomspace(1, 40, 13)
depths = [5, 10, 20, 40, 80, 160]
base = pk.Chain(depth=1, width=256, activation="sigmoid", init="lecun_normal")
ds = pk.sweep({"depth": depths, "gain": gains}, base, replicas=20, profiles=False, progress=False)
decades = ds.signal_end_to_end.median("replica")

# %%
# The gain at which a deep chain's gradient neither grows nor shrinks, by interpolation, beside the theory.

measured = {
    depth: float(np.exp(np.interp(0, decades.sel(depth=depth), np.log(gains)))) for depth in (40, 80, 160)
}
theory = pk.critical_gain("sigmoid").gain
for depth, scale in measured.items():
    print(
        f"{depth} layers: gradients grow above a standard deviation of {scale:.1f}/sqrt(n); "
        f"mean field: {theory:.2f}/sqrt(n)"
    )
print(
    "verdicts at depth 80:",
    dict(zip(gains.round(1).tolist(), ds.verdict.sel(depth=80).values.tolist(), strict=True)),
)

figure, ax = plt.subplots(figsize=(5, 4), layout="constrained")
ax.contourf(gains, depths, decades, levels=[-1000, -3, 3, 1000], colors=["0.72", "1", "0.86"])
lines = ax.contour(
    gains, depths, decades, levels=[-30, -10, -3, 3, 10, 30], colors="k", linestyles="-", linewidths=1
)
ax.clabel(lines, fmt="%+.0f", fontsize="small")
ax.axvline(theory, color="k", linestyle="--")
ax.annotate(f"theory: {theory:.2f}", (theory * 0.99, 5.3), ha="right")
ax.annotate("vanishing", (1.1, 115), fontweight="bold")
ax.annotate("stable", (2.2, 6.5), fontweight="bold")
ax.annotate("exploding", (20.5, 27), fontweight="bold")
ax.set(xscale="log", yscale="log", xlabel="weight scale: standard deviation times sqrt(n)", ylabel="depth")
ax.set_title("Sigmoid: decades from output to input")
ax.set_xticks([1, 2, 5, 10, 20, 40], ["1", "2", "5", "10", "20", "40"])
ax.set_yticks(depths, depths)
ax.minorticks_off()
plt.show()
