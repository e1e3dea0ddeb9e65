# SPDX-License-Identifier: BSD-3-Clause
"""
Sigmoid rounds to exactly 1
===========================

*Question.* Beyond which z is the sigmoid exactly 1 for a computer, and what does that do to gradient and loss?

*Answer.* Beyond 36.7 in float64, 16.6 in float32, 7.6 in float16 (:math:`\\ln(2/\\epsilon)`). From there the plain derivative
:math:`s(1-s)` is zero and the plain cross-entropy nan or inf; the same happens to a softmax whose logits overflow exp at 88. The
derivative as :math:`s(z)\\,s(-z)` and a loss computed from logits stay right; the gradient never dies of rounding.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

edge = {}
for dtype in (np.float16, np.float32, np.float64):
    z = np.arange(0, 40, 1 / 256).astype(dtype)
    s = 1 / (1 + np.exp(-z))
    edge[dtype.__name__] = float(z[np.argmax(s == 1)])
    print(f"{dtype.__name__}: 1 / (1 + exp(-z)) is exactly 1 from z = {edge[dtype.__name__]:.2f} on")

z = np.linspace(0, 40, 401).astype(np.float32)
s = 1 / (1 + np.exp(-z))
plain, stable = s * (1 - s), s / (1 + np.exp(z))

# %%
# Heads on a chain of three tanh layers; the standard deviation of the logits grows from 1 to 1000.

scales, logits = np.geomspace(1, 1000, 13), {}
for loss in ("sigmoid", "softmax"):
    for precision in ("native", "exponent"):
        heads = [pk.Head(loss, outputs=10, init=pk.VarianceScaling(float(s) ** 2)) for s in scales]
        chains = [pk.Chain(depth=3, width=64, activation="tanh", init="lecun_normal", gain=2, head=head) for head in heads]
        runs = [pk.propagate(chain, batch=64, precision=precision, engine="dense") for chain in chains]
        logits[loss, precision] = np.array([p.loss[0] for p in runs])
        bad = scales[~np.isfinite(logits[loss, precision])]
        outcome = f"nan or inf from logits of {bad[0]:.0f} on" if bad.size else "finite everywhere"
        print(f"{loss} head, {precision}: loss {outcome}")

figure, (top, bottom) = plt.subplots(2, 1, figsize=(5, 7), layout="constrained")
top.plot(z, np.log10(np.maximum(plain, 1e-20)), "--", label="s (1 - s), float32")
top.plot(z, np.log10(stable), "-", label="s(z) s(-z), float32")
top.set(xlabel="z", ylabel="log10 of the derivative", title="The derivative dies of rounding", ylim=(-18, 0))
for (loss, precision), line in zip(logits, ("o", "-", "s", "--"), strict=True):
    bottom.plot(scales, logits[loss, precision], line, label=f"{loss}, {'plain float32' if precision == 'native' else 'stable'}")
bottom.set(xscale="log", yscale="log", xlabel="scale of the logits", ylabel="loss", title="and the loss with it (missing: nan or inf)")
top.legend(fontsize="small")
bottom.legend(fontsize="small")
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
folder.mkdir(exist_ok=True)
figure.savefig(folder / "10_rounding_to_one.png")
