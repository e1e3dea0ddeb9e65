# SPDX-License-Identifier: BSD-3-Clause
"""
Clipping: what it changes, and what it cannot
=============================================

*Question.* Gradient clipping is the cure for exploding gradients. What does it do to a deep chain, and does it help a vanishing
one?

*Answer.* Clipping by norm multiplies all layers by one number: the step becomes finite, but the ratio between first and last
layer stays what it was, so the last layers get next to nothing. Clipping layer by layer or by value flattens the profile where it
explodes. None makes a gradient larger: what has vanished stays vanished.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

exploding = pk.Chain(depth=60, width=64, activation="tanh", init="lecun_normal", gain=2.5)
vanishing = pk.Chain(depth=60, width=64, activation="sigmoid", init="lecun_normal")
clips = {
    "none": None,
    "norm 1, all together": pk.Clip(norm=1.0),
    "norm 1, each layer": pk.Clip(norm=1.0, per_layer=True),
    "value 0.01": pk.Clip(value=0.01),
}
after, ratio = {}, {}
for kind, chain in (("exploding", exploding), ("vanishing", vanishing)):
    for name, clip in clips.items():
        p = pk.propagate(chain.replace(clip=clip), batch=4, replicas=5, engine="dense")
        after[kind, name] = p.log10_grad_weight
        ratio[kind, name] = float(np.median(p.end_to_end))
        print(f"{kind}, clip {name:21}: first over last weight gradient {ratio[kind, name]:+7.2f} decades")

# %%
# Weight gradients of each layer, before and after.

figure, panels = plt.subplots(2, 1, figsize=(5, 7), layout="constrained", sharex=True)
for ax, kind in zip(panels, ("exploding", "vanishing"), strict=True):
    for (name, line), width in zip(zip(clips, ("-", "--", "-.", ":"), strict=True), (4, 2, 2, 2), strict=True):
        middle = np.median(after[kind, name], axis=0)
        ax.plot(np.arange(1, 61), middle, line, linewidth=width, color="0.75" if name == "none" else None, label=f"clip: {name}")
    ax.set(ylabel="log10 of the weight gradient", title=kind.capitalize())
panels[0].legend(fontsize="small")
panels[1].set(xlabel="layer")
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
folder.mkdir(exist_ok=True)
figure.savefig(folder / "12_clipping.png")
