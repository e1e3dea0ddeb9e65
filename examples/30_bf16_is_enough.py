# SPDX-License-Identifier: BSD-3-Clause
r"""
bf16 is enough?
===============

*Question.* A network runs in bfloat16 and its loss looks the same. Is its gradient the same, too?

*Answer.* Its signal is: after 100 ReLU layers it lies 2 percent off, since each rounding adds little and
layers of ReLU pull nearby signals together. Its gradient is not. Where rounding flips a gate, a whole path is
switched on or off, and of a distance d between two signals that costs the square root: each layer keeps
:math:`1 - \sqrt{2d}/\pi` of the gradient's direction. After 100 layers the bfloat16 gradient has a cosine of
about .6 with that of the same weights in float32. Smooth functions lose of order d only: tanh keeps .999.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

depth, width = 100, 512
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.5), layout="constrained")
cosine, error, theory = {}, {}, {}
for activation, init in (("relu", "he_normal"), ("tanh", "lecun_normal")):
    for name, line in (("float16", "--"), ("bfloat16", "-")):
        chain = pk.Chain(depth=depth, width=width, activation=activation, init=init)
        formats = pk.Formats(weights=name, signals=name, gradients=name, loss_scale=64)
        p = pk.propagate(chain, formats=formats, replicas=8)
        told = pk.predict(chain, formats=formats)
        what = f"{activation}, {name}"
        cosine[what], error[what] = p.gradient_cosine.mean(axis=0), p.median("log10_error_signal")
        theory[what] = told.gradient_cosine
        color = "C0" if activation == "relu" else "C1"
        right.plot(np.arange(1, depth + 1), cosine[what], line, color=color, label=what)
        right.plot(np.arange(1, depth + 1), theory[what], ":", color="black", linewidth=1)
        left.plot(np.arange(1, depth + 1), error[what], line, color=color, label=what)
        off, left_over, expected = 10 ** error[what][-1], cosine[what][0], theory[what][0]
        print(
            f"{what:15} signal off by {off:.1%}, gradient at layer 1: cosine {left_over:.3f} ({expected:.3f})"
        )

left.set(xlabel="layer", ylabel="log10 of the relative error", title="The signal stays")
right.set(xlabel="layer", ylabel="cosine with float32", title="the gradient turns (dots: theory)")
right.legend(frameon=False, fontsize="small", loc="lower right")
plt.show()
