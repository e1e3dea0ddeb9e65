# SPDX-License-Identifier: BSD-3-Clause
"""
Pre-norm or post-norm
=====================

*Question.* "Post-norm makes gradients vanish or explode in deep networks, pre-norm has a clean path." Which
of the two does what, before any training?

*Answer.* Neither vanishes, neither explodes. Behind a post-norm block the norm divides by nearly what skip
and branch together multiply: 1.011 a block, 0.3 decades over 64. In a pre-norm chain the signal grows as the
root of the number of blocks, so a branch adds less and less, and the gradient falls by the same root on its
way into the last blocks. The difference is in the *weights*: those of the last block get a gradient that in
a post-norm chain does not depend on depth, and in a pre-norm chain shrinks as one over the root of depth
(Xiong et al. 2020, arXiv 2002.04745): 4.4 times smaller at 64 blocks than at 1. They make that, not an
explosion, the reason why post-norm networks want a warm-up.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

n, deepest = 256, 64
branch = pk.Linear(4 * n), "gelu", pk.Linear(n)
pre = {
    "blocks": [pk.Block(pk.Norm("layer"), *branch, skip=1.0)],
    "last": [pk.Norm("layer")],  # as every pre-norm network ends
}
post = {"blocks": [pk.Block(*branch, skip=1.0, after=pk.Norm("layer"))]}
base = {"width": n, "init": "lecun_normal"}

# The last weight's gradient at four depths, in decades over that of one block.

grid = {"blocks": {"pre-norm": pre, "post-norm": post}, "depth": [1, 4, 16, 64]}
ds = pk.sweep(grid, base, replicas=20, progress=False)
last = ds.log10_grad_weight_last.median("replica")
last = last - last.sel(depth=1)
print("last weight's gradient over that of a chain of one block, in decades")
for name in last.blocks.values:
    print(
        f"  {name:10}", *(f"{v:+.2f}" for v in last.sel(blocks=name).values), "at depth", *last.depth.values
    )

# And block by block at depth 64: the second weight of every block.

figure, ax = plt.subplots(figsize=(5, 4), layout="constrained")
rise, theory, factor = {}, {}, {}
for (name, pattern), line in zip((("pre-norm", pre), ("post-norm", post)), ("-", "--"), strict=True):
    chain = pk.Chain(depth=deepest, **base, **pattern)
    p, expected = pk.propagate(chain, replicas=20), pk.predict(chain)
    mine = [p.layers.index(f"{i}.linear2") for i in range(1, deepest + 1)]
    block = np.arange(1, deepest + 1)
    ax.plot(block, p.median("log10_grad_weight")[mine], line, linewidth=2, label=name)
    dots = expected.log10_grad_weight[mine]
    ax.plot(block[::6], dots[::6], "k.", label="theory, infinite width" if name == "post-norm" else None)
    signal = p.median("log10_grad_activation")
    rise[name] = signal[0] - signal[deepest]  # over the blocks, without the norm at the end
    theory[name] = expected.log10_grad_activation[0] - expected.log10_grad_activation[deepest]
    factor[name] = 10**expected.slope
    print(f"{name:10} signal's gradient {rise[name]:+.2f} decades, theory {theory[name]:+.2f}")

ax.set(xlabel="block", ylabel="log10 norm of the gradient of its second weight")
ax.set_title("64 blocks")
ax.legend(frameon=False)
plt.show()
