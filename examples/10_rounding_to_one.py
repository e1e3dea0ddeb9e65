# SPDX-License-Identifier: BSD-3-Clause
"""
Sigmoid rounds to exactly 1
===========================

*Question.* Beyond which z is the sigmoid exactly 1 for a computer, and what does that do to gradient and
loss?

*Answer.* Beyond 36.7 in float64, 16.6 in float32, 7.6 in float16 and 5.5 in bfloat16
(:math:`\\ln(2/\\epsilon)`). From there the plain derivative :math:`s(1-s)` is zero, and the plain loss of a
sigmoid head inf or nan, with all gradients behind it; a softmax head follows where exp overflows, at 88 in
float32. The derivative as :math:`s(z)\\,s(-z)` and a loss from logits, :math:`\\ln(1+e^{-|y|})` and
log-sum-exp, stay right: no gradient dies of rounding.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

rounding = {
    "bfloat16": lambda x: np.ldexp(
        np.rint(np.ldexp(np.frexp(x)[0], 8)), np.frexp(x)[1] - 8
    ),  # NumPy has none: eight bits of a float64
    "float16": np.float16,
    "float32": np.float32,
    "float64": np.float64,
}
edge = {}
for name, r in rounding.items():
    z = r(np.arange(0, 40, 1 / 32))
    s = r(1 / r(1 + r(np.exp(-z))))
    edge[name] = float(z[np.argmax(s == 1)])
    print(f"{name}: 1 / (1 + exp(-z)) is exactly 1 from z = {edge[name]:.2f} on, and s (1 - s) exactly 0")

z = np.linspace(0, 40, 401).astype(np.float32)
s = 1 / (1 + np.exp(-z))
# Heads on a chain of three tanh layers, float32, the same networks each time; the standard deviation of the
# logits grows to 1000.

chain = pk.Chain(depth=3, width=64, activation="tanh", init="lecun_normal", gain=2)
scales, loss = np.geomspace(1, 1000, 13), {}
for head in ("sigmoid", "softmax"):
    heads = [pk.Head(head, outputs=10, init=pk.VarianceScaling(float(s) ** 2)) for s in scales]
    for precision in ("native", "exponent"):
        runs = [
            pk.propagate(chain.replace(head=h), batch=64, precision=precision, engine="dense") for h in heads
        ]
        loss[head, precision] = np.array([p.loss[0] for p in runs])
        for what, v in (
            ("loss", loss[head, precision]),
            ("gradient", np.array([p.log10_grad_weight[0, 0] for p in runs])),
        ):
            bad = scales[~np.isfinite(v)]
            print(
                f"{head} head, {precision}: {what}",
                f"inf or nan from logits of {bad[0]:.0f} on" if bad.size else "finite everywhere",
            )

figure, (top, bottom) = plt.subplots(2, 1, figsize=(5, 7), layout="constrained")
top.plot(z, np.log10(np.maximum(s * (1 - s), 1e-20)), "k--", label="s (1 - s), float32: 0 from 16.6 on")
top.plot(z, np.log10(s / (1 + np.exp(z))), "-", linewidth=3, alpha=0.5, label="s(z) s(-z), float32")
top.set(xlabel="z", ylabel="log10 of the derivative", title="The derivative dies of rounding", ylim=(-18, 2))
for (head, precision), mark in zip(loss, ("o", "-", "s", "--"), strict=True):
    bottom.loglog(
        scales,
        loss[head, precision],
        mark,
        label=f"{head}, {'plain' if precision == 'native' else 'from logits'}",
    )
bottom.set(
    xlabel="standard deviation of the logits",
    ylabel="loss (nats)",
    title="and the loss with it (no mark: inf or nan)",
)
top.legend(fontsize="small"), bottom.legend(fontsize="small")
plt.show()
