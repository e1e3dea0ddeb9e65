# SPDX-License-Identifier: BSD-3-Clause
"""
Published cases, reproduced
===========================

*Question.* He et al. (2015) say: weights of standard deviation 0.01 in a ten-layer VGG give a gradient
1/(1.7e4) of the wanted one, and Xavier's rule costs 30 ReLU layers :math:`(1/\\sqrt 2)^{30}`. Glorot and
Bengio (2010) say: their normalised rule keeps back-propagated gradients equal where the standard one shrinks
them, and yet *weight* gradients are equal under both. Do we get their numbers?

*Answer.* Yes: 1/16 700, :math:`3.05 \\cdot 10^{-5}`, and :math:`1/\\sqrt 3` a layer under the standard rule.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

# A 3 x 3 convolution to d channels sends the gradient back through 9 d weights a unit: that is the width of
# our dense layer.
channels = [
    64,
    64,
    128,
    128,
    256,
    256,
    512,
    512,
    512,
    512,
]  # conv1 .. conv10; the gradient travels from conv10 to conv2
vgg = pk.Chain(widths=[9 * d for d in channels], init=pk.VarianceScaling(2.0, "fan_out"))
wanted = pk.propagate(vgg, replicas=2)
got = pk.propagate(vgg.replace(init=pk.Normal(0.01)), replicas=2)
vgg_ratio = 10 ** np.mean(got.signal_end_to_end - wanted.signal_end_to_end)
print(f"VGG, std 0.01: gradient 1/{1 / vgg_ratio:.0f} of the wanted one (published: 1/(1.7e4))")

thirty = pk.Chain(depth=30, width=256, init="he_normal")
he, xavier = pk.propagate(thirty, replicas=2), pk.propagate(thirty.replace(init="glorot_normal"), replicas=2)
xavier_ratio = 10 ** np.mean(xavier.signal_end_to_end - he.signal_end_to_end)
print(f"30 ReLU layers, Xavier over He: {xavier_ratio:.3g}; (1/sqrt 2)^30 = {2**-15:.3g}")

# %%
# Glorot and Bengio: five tanh layers of 1000 units, 32 x 32 pixels, a softmax of 10, their batch of 10
# (figure 7 of the paper). Inputs are small, as their linear analysis assumes; larger ones cost either rule
# the slope of tanh.

rules = {"standard": pk.VarianceScaling(1 / 3, "fan_in", "uniform"), "normalised": "glorot_uniform"}
images = 0.3 * np.random.default_rng(0).normal(size=(1024, 10))
figure, panels = plt.subplots(2, 1, figsize=(5, 6.5), layout="constrained", sharex=True)
back, weight = {}, {}
for (name, rule), line in zip(rules.items(), ("o--", "s-"), strict=True):
    chain = pk.Chain(
        widths=[1024] + 5 * [1000], activation="tanh", init=rule, head=pk.Head("softmax", 10, init=rule)
    )
    p = pk.propagate(chain, x=images, replicas=5)
    back[name], weight[name] = p.log10_grad_preactivation.mean(axis=0), p.log10_grad_weight.mean(axis=0)
    panels[0].plot(range(1, 6), back[name], line, label=f"{name} initialisation")
    panels[1].plot(range(1, 6), weight[name], line, label=f"{name} initialisation")
    print(
        f"{name}: "
        f"back-propagated gradient times {10 ** (back[name][0] - back[name][-1]):.3f} over four layers"
    )
for ax, title, span in (
    (panels[0], "Back-propagated gradient", (-2.5, 0)),
    (panels[1], "Weight gradient", (-1.5, 1)),
):
    ax.set(ylabel="log10 of the norm", title=title, ylim=span, xticks=range(1, 6))
    ax.legend(fontsize="small", loc="lower right")
panels[1].set(xlabel="layer")
plt.show()
