# SPDX-License-Identifier: BSD-3-Clause
"""
Clipping: what it changes, and what it cannot
=============================================

*Question.* Gradient clipping is the cure for exploding gradients. What does it do to a deep chain, and does
it help a vanishing one?

*Answer.* Clipping by norm multiplies all layers by one number: the step becomes finite, but the ratio between
first and last layer stays what it was, so the last layers get next to nothing. Clipping layer by layer or by
value flattens the profile where it explodes. None makes a gradient larger: what has vanished stays vanished.
"""

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
runs, ratio = {}, {}
for kind, chain in (("exploding", exploding), ("vanishing", vanishing)):
    for name, clip in clips.items():
        p = runs[kind, name] = pk.propagate(
            chain.replace(clip=clip), batch=4, replicas=5, engine="dense"
        )  # the same networks
        ratio[kind, name] = p.median("end_to_end")
        print(
            f"{kind}, clip {name:21}: first over last weight gradient {ratio[kind, name]:+7.2f} decades",
            end="; ",
        )
        print(f"first layer's 10^{p.median('log10_grad_weight')[0]:.2f}")

# %%
# Weight gradients of each layer, before and after.

figure, panels = plt.subplots(2, 1, figsize=(5, 7), layout="constrained", sharex=True)
for ax, kind in zip(panels, ("exploding", "vanishing"), strict=True):
    for (name, line), width in zip(zip(clips, ("-", "--", "-", ":"), strict=True), (4, 2, 2, 2), strict=True):
        middle = runs[kind, name].median("log10_grad_weight")
        ax.plot(np.arange(1, 61), middle, line, linewidth=width, color="0.75" if name == "none" else None)
    ax.set(ylabel="log10 of the weight gradient's norm", title=f"{kind.capitalize()} chain")
texts = {
    "not clipped": (28, 4.5),
    "norm 1, each layer": (1, 0.25),
    "value 0.01 (dotted)": (33, -1),
    "norm 1, all together": (2, -4),
}
for text, at in texts.items():
    panels[0].annotate(text, at)
panels[1].annotate("all four alike", (5, -20))
panels[1].set(xlabel="layer")
plt.show()
