# SPDX-License-Identifier: BSD-3-Clause
"""
A deep linear net with W = 1.5 I, and with W = 0.5 I
====================================================

*Question.* With all weights equal to 1.5 times the identity, activations grow as :math:`1.5^L` and gradients
with them; with 0.5 they shrink as :math:`0.5^L`. At which layer does a computer give up?

*Answer.* float32 can follow 218 layers upwards and 149 downwards, float64 1750 and 1074: signals on their way
forward and gradients on their way back alike. A separate exponent for each block of numbers never gives up:
at depth 100 000 the gradient is multiplied by :math:`10^{17609}`, or by :math:`10^{-30103}`.
"""

import matplotlib.pyplot as plt
import numpy as np

import pykernel as pk

deep, shown = 100_000, 3400
ones = np.ones((2, 1))  # one input, two units, all ones: every activation of layer l is exactly c^l
figure, ax = plt.subplots(figsize=(5, 4), layout="constrained")
decades, forward, backward = {}, {}, {}

for c, line in ((1.5, "-"), (0.5, "--")):
    chain = pk.Chain(depth=deep, width=2, activation="linear", init=pk.Identity(c))
    p = pk.propagate(chain, x=ones, cotangent=ones)
    decades[c] = p.signal_end_to_end[0]
    ax.plot(p.log10_mean_square_activation[0, :shown] / 2, line, color="0.4")
    ax.annotate(f"W = {c} I: 10$^{{{decades[c]:.0f}}}$ at layer {deep}", (40, 520 if c > 1 else -950))
    print(f"W = {c} I, with exponent: signal and gradient times 10^{decades[c]:+.1f} over {deep} layers")
    for dtype, marker in (("float32", "s"), ("float64", "o")):
        plain = pk.propagate(
            chain.replace(depth=2000), x=ones, cotangent=ones, dtype=dtype, precision="native"
        )
        end = forward[c, dtype] = plain.failure.layer
        backward[c, dtype] = int(
            np.isfinite(plain.log10_grad_activation[0, ::-1]).sum()
        )  # the output's own gradient counts as layer 0
        ax.plot(end, end * np.log10(c), marker, color="tab:red" if c > 1 else "tab:blue")
        ax.annotate(f"   {dtype} ends: {end}", (end, end * np.log10(c)), va="center")
        print(
            f"W = {c} I, plain {dtype}: {plain.failure}; "
            f"the gradient after {backward[c, dtype]} layers backwards"
        )

# In a linear chain with W = c I the gradient is multiplied by c a layer on its way back, as the signal is on
# its way forward.

ax.set(
    xlabel="layers travelled", ylabel="log10 of signal, or of gradient", xlim=(0, shown), ylim=(-1050, 650)
)
ax.set_title("Where plain arithmetic ends")
plt.show()
