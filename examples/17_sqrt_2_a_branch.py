# SPDX-License-Identifier: BSD-3-Clause
"""
Does every branch multiply the gradient by the root of 2?
==========================================================

*Question.* "A residual block adds the branch's variance to the skip's: the squared gradient doubles with
every block, 2^32 over 64 blocks." Always?

*Answer.* Only where nothing normalises. With a norm at the beginning of the branch, or at its end, a branch
*adds* one to a mean square that keeps growing: 65 after 64 blocks, not 2^64, and the gradient's norm grows by
the root of 65, as 8.06. Dividing the sum by the root of 2, or normalising it, keeps the gradient; dividing
branches by the root of their number leaves at most the root of e.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk
from pykernel import Block, Linear, Norm

n, blocks = 256, 64
half = 0.5**0.5
branches = {
    "x + f": Block(Linear(), skip=1.0),
    "x + f(norm(x))": Block(Norm("layer"), Linear(), skip=1.0),
    "x + norm(f)": Block(Linear(), Norm("layer"), skip=1.0),
    "x + f / sqrt(blocks)": Block(Linear(), skip=1.0, scale="inverse_sqrt_depth"),
    "(x + f) / sqrt(2)": Block(Linear(), skip=half, scale=half),
    "norm(x + f)": Block(Linear(), skip=1.0, after=Norm("layer")),
}
figure, ax = plt.subplots(figsize=(5, 4.4), layout="constrained")
measured, theory, square = {}, {}, {}
lines = ("-", "--", ":", "-.", "--", ":")
for (name, block), line in zip(branches.items(), lines, strict=True):
    chain = pk.Chain(depth=blocks, width=n, init="lecun_normal", blocks=[block])
    p = pk.propagate(chain, replicas=20)
    profile = p.median("log10_grad_activation")
    measured[name], theory[name] = p.median("signal_end_to_end"), pk.predict(chain).signal_end_to_end
    square[name] = 10 ** p.median("log10_mean_square_activation")[-1]
    print(
        f"{name:22} gradient {measured[name]:+6.2f} decades (theory {theory[name]:+6.2f}), "
        f"mean square at the end {square[name]:.3g}"
    )
    ax.plot(np.arange(blocks, -1, -1), profile - profile[-1], linestyle=line, linewidth=2, label=name)

# Branches end in a linear layer here. ReLU in the branch, at He's scale, does the same; where a branch *ends*
# in ReLU its outputs add up to a mean, and the gradient grows by more (the page on 152 layers).

ax.set_yscale("symlog", linthresh=1)
ax.set_yticks([-0.5, 0, 0.5, 1, 3, 10], ["-0.5", "0", "0.5", "1", "3", "10"])
ax.set(xlabel="blocks travelled backwards", ylabel="decades over the output's gradient", xlim=(0, blocks))
ax.set_title("Six ways to add a branch")
figure.legend(frameon=False, fontsize="small", loc="outside lower center", ncols=2)
plt.show()
