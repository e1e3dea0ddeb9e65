# SPDX-License-Identifier: BSD-3-Clause
"""
Ten thousand layers without skips
=================================

*Question.* Xiao et al. (2018) trained a tanh convolutional network of 10 000 layers without skips and without
norms, by weights that begin *delta-orthogonal*: an orthogonal matrix at the kernel's centre, zeros beside it.
Weights of variance 1/fan_in are critical as well, and mean-field theory gives both the same gradient. Does it
matter which?

*Answer.* Theory is of infinite width. Every wave number of an image sees its own random matrix of so many
channels; a Gaussian one of n channels shrinks the typical signal by :math:`e^{-1/4n}` a layer, and 10 000
layers of 32 channels take 32 decades of the gradient. An orthogonal one keeps every length: what is left is
tanh itself, whose mean square sinks as :math:`1/2l` and whose gradient as :math:`1/\\sqrt{L}`, two decades.
Rows that are orthogonal over the whole kernel, as common code flattens it, do not help: 28 decades.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

L, n = 10_000, 32
schemes = {
    "delta-orthogonal": "delta_orthogonal",
    "orthogonal rows": "orthogonal",
    "Gaussian": "lecun_normal",
}
blocks = [pk.Block(pk.Conv(kernel=3, padding="circular"), "tanh")]

figure, ax = plt.subplots(figsize=(5.5, 4), layout="constrained")
decades, size = {}, {}
for (name, init), line in zip(schemes.items(), ("-", "--", ":"), strict=True):
    chain = pk.Chain(depth=L, width=n, init=init, blocks=blocks)
    p = pk.propagate(chain, positions=(4, 4), replicas=5)
    profile = p.median("log10_grad_activation")
    decades[name] = p.signal_end_to_end
    size[name] = p.median("log10_mean_square_activation")[-1]
    ax.plot(np.arange(L, -1, -1)[::100], (profile - profile[-1])[::100], line, color="black", label=name)
    print(f"{name:16} {np.median(decades[name]):+6.1f} decades: {p.verdict}")
theory = pk.predict(chain, positions=(4, 4)).signal_end_to_end
print(f"infinite width   {theory:+6.1f} decades, whichever it is")

ax.set(xlabel="layers travelled backwards", ylabel="decades of the gradient", xlim=(0, L))
ax.legend(frameon=False)
plt.show()
