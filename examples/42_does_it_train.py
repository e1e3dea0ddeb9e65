# SPDX-License-Identifier: BSD-3-Clause
"""
Does a stable verdict mean it trains?
=====================================

*Question.* "My gradients neither vanish nor explode, but the loss does not move." Is that possible, and
how deep may a network be?

*Answer.* It is. In a tanh network of 70 layers and weights of 1.2 / sqrt(n) the gradient is stable, but
all inputs have become nearly one direction, and what cannot be told apart cannot be fitted: 25 steps at
a quarter of the largest stable rate leave more than a third of the loss. Networks train while they are
not deeper than some multiple of the correlation depth xi, over which two inputs fall together (small
gains) or part (large ones): up to one xi all lose more than nine tenths of their loss, beyond the 6 xi
of Schoenholz et al. 2017 all keep more than a third. The tangent kernel says so before any training: its
largest eigenvalue sets the rate, its condition number how slow the slowest mode is.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

n, batch, steps = 64, 8, 25
gains, depths = [1.0, 1.2, 1.5, 1.9, 2.4], [5, 10, 20, 40, 70]

left, condition = np.empty((len(depths), len(gains))), np.empty((len(depths), len(gains)))
verdict, xi = {}, np.empty(len(gains))
for j, gain in enumerate(gains):
    for i, depth in enumerate(depths):
        chain = pk.Chain(
            depth=depth, width=n, activation="tanh", init="lecun_normal", gain=gain, bias_std=0.2
        )
        p = pk.propagate(chain, batch=batch, correlation=0.5, replicas=10, cotangent="common")
        rate = 0.25 * batch * np.median(p.tangent_rate_bound)  # Head("mse") is a mean over the batch
        net = chain.replace(head=pk.Head("mse", 1, init="lecun_normal"))
        t = pk.train(net, steps=steps, rate=rate, batch=batch, correlation=0.5, replicas=2)
        left[i, j] = np.median(t.loss[:, -1] / t.loss[:, 0])
        condition[i, j], verdict[depth, gain] = np.median(p.tangent_condition), str(p.verdict)
    xi[j] = pk.depth_scales(chain).xi_c

for depth, row, slow in zip(depths, left, condition, strict=True):
    print(
        f"{depth:3} layers: ",
        "  ".join(f"{share:7.1e} ({c:.0e})" for share, c in zip(row, slow, strict=True)),
    )
print("xi:", " ".join(f"{x:.1f}" for x in xi))
print(f"gain 1.2, 70 layers: {verdict[70, 1.2]}, {left[-1, 1]:.0%} of the loss is left")

figure, ax = plt.subplots(figsize=(5.5, 4), layout="constrained")
drawn = ax.scatter(
    *np.meshgrid(gains, depths), c=np.log10(np.minimum(left, 1)), s=160, cmap="Greys", edgecolor="k"
)
figure.colorbar(drawn, ax=ax, label="decades that the loss has fallen")
fine = np.linspace(gains[0], gains[-1], 60)
scale = [pk.depth_scales(chain.replace(gain=gain)).xi_c for gain in fine]
ax.plot(fine, 6 * np.array(scale), "k--", label="6 xi, Schoenholz et al. 2017")
ax.set(xlabel="gain", ylabel="layers", yscale="log", ylim=(4, 120))
ax.legend(frameon=False, fontsize=8)
plt.show()
