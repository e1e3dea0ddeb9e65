# SPDX-License-Identifier: BSD-3-Clause
"""
Can gradients explode with a sigmoid at all?
============================================

*Question.* The sigmoid's derivative is at most 1/4, so its gradients can only vanish. Or can they explode, and how large must the
weights be?

*Answer.* They can, above a standard deviation of about :math:`10/\\sqrt{n}` (mean field: 10.15): ten times LeCun's, seven times
He's. Units then saturate, most derivatives are tiny, but the few that are not meet huge weights. No scheme in use comes near.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

gains = np.geomspace(1, 40, 13)
depths = [10, 20, 40, 80]
base = pk.Chain(depth=1, width=256, activation="sigmoid", init="lecun_normal")
ds = pk.sweep({"depth": depths, "gain": gains}, base, replicas=30, profiles=False, progress=False)
decades = ds.signal_end_to_end.median("replica")

# %%
# The gain at which the deepest chain's gradient neither grows nor shrinks, by interpolation, beside the theory.

measured = float(np.interp(0, decades.sel(depth=80), gains))
theory = pk.critical_gain("sigmoid").gain
print(f"sigmoid: gradients explode above a weight standard deviation of {measured:.1f}/sqrt(n); mean field says {theory:.2f}/sqrt(n)")
print("verdicts at depth 80:", dict(zip(gains.round(1).tolist(), ds.verdict.sel(depth=80).values.tolist(), strict=True)))

figure, ax = plt.subplots(layout="constrained")
for depth, line in zip(depths, ("o-", "s--", "^-.", "v:"), strict=True):
    ax.plot(gains, decades.sel(depth=depth), line, markersize=4, label=f"depth {depth}")
ax.axvline(theory, color="k", linestyle="--", label=f"critical, theory: {theory:.1f}")
ax.axhspan(-3, 3, color="0.92", zorder=0)
ax.set(xscale="log", xlabel="weight scale: standard deviation times sqrt(n)", ylabel="decades, input over output", ylim=(-30, 30))
ax.set_title("Sigmoid: from vanishing to exploding")
ax.set_xticks([1, 2, 5, 10, 20, 40], ["1", "2", "5", "10", "20", "40"])
ax.legend(fontsize="small")
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
folder.mkdir(exist_ok=True)
figure.savefig(folder / "04_sigmoid_explodes.png")
