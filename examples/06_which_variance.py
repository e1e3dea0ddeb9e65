# SPDX-License-Identifier: BSD-3-Clause
"""
1/n, 2/n, 2/(n_in + n_out): which for which activation?
=======================================================

*Question.* LeCun, He, Glorot: three rules for the variance of the weights. Which belongs to which activation,
and how exact must it be?

*Answer.* 2/n for ReLU and leaky ReLU; 1/n for functions of slope 1 at 0 (tanh, softsign, arctan, linear,
SELU), most of which forgive 2/n; mish and softplus get by with 2/n, GELU and SiLU need more, the sigmoid much
more. Glorot's rule is LeCun's where widths are equal; PyTorch's default, 1/(3n), suits none. How exact: for
ReLU the best multiplier is 1 at every depth, and depth L stays within three decades in a window of
:math:`10^{\\pm 3/L}`: a factor 2 at depth 10, 7 percent at depth 100. Tanh likes 1.4 at depth 10 and less the
deeper it is, 1.14 at depth 100, and forgives far more above than below.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

schemes = ["lecun_normal", "glorot_normal", "he_normal", "orthogonal", "torch_linear_default"]
functions = ["linear", "tanh", "erf", "arctan", "softsign", "hardtanh", "sin", "selu", "elu"]
functions += ["relu", "leaky_relu", "gelu", "silu", "mish", "softplus", "sigmoid"]
ds = pk.sweep(
    {"activation": functions, "init": schemes},
    pk.Chain(depth=50, width=256),
    replicas=20,
    profiles=False,
    progress=False,
)
decades, verdict = ds.signal_end_to_end.median("replica"), ds.verdict.to_pandas()
print(verdict.to_string())

# %%
# The multiplier as a hyperparameter, for two functions on their own rule: where the gradient keeps its size,
# and how far off is allowed.

figure, axes = plt.subplot_mosaic("aa;bc", figsize=(5, 8), height_ratios=(5, 2), layout="constrained")
depths, gains, window = [10, 30, 100], np.geomspace(0.4, 2.5, 25), {}
for name, rule, ax in (("relu", "he_normal", axes["b"]), ("tanh", "lecun_normal", axes["c"])):
    base = pk.Chain(depth=1, width=256, activation=name, init=rule)
    tuned = pk.sweep({"depth": depths, "gain": gains}, base, replicas=20, profiles=False, progress=False)
    for depth, line in zip(depths, ("-", "--", ":"), strict=True):
        curve = tuned.signal_end_to_end.median("replica").sel(depth=depth)
        window[name, depth] = np.exp(np.interp([-3, 0, 3], curve, np.log(gains), left=-np.inf, right=np.inf))
        ax.plot(gains, curve, line, label=f"depth {depth}")
        print(
            f"{name}, depth {depth}: best multiplier {window[name, depth][1]:.3f}, "
            f"stable from {window[name, depth][0]:.3f} to",
            end=" ",
        )
        print(f"{window[name, depth][2]:.3f} (inf: beyond 2.5)")
    ax.axhspan(-3, 3, color="0.9", zorder=0)
    ax.set(xscale="log", xlabel=f"times {rule}", title=name, ylim=(-10, 10), xlim=(0.45, 2.2))
    ax.set_xticks([0.5, 1, 2], ["0.5", "1", "2"])
    ax.minorticks_off()
axes["b"].set(ylabel="decades")
axes["c"].legend(fontsize="x-small", loc="lower right")
axes["a"].imshow(-np.clip(abs(decades), 0, 12), cmap="gray", vmin=-14, vmax=0, aspect="auto")
for i, j in np.ndindex(decades.shape):
    mark = {"vanishing": "\N{DOWNWARDS ARROW}", "exploding": "\N{UPWARDS ARROW}"}.get(verdict.iloc[i, j], "")
    shade = "white" if abs(decades.values[i, j]) > 7 else "black"
    axes["a"].text(
        j, i, f"{decades.values[i, j]:+.1f} {mark}", ha="center", va="center", fontsize="small", color=shade
    )
axes["a"].set(yticks=range(16), yticklabels=functions, title="Decades over 50 layers, arrow: not stable")
axes["a"].set_xticks(range(5), ["LeCun\n1/n", "Glorot\n1/n", "He\n2/n", "ortho-\ngonal", "PyTorch\n1/3n"])
plt.show()
