# SPDX-License-Identifier: BSD-3-Clause
"""Seeded random chains of blocks, for tests that must hold for every chain: all steps, skips, projections, norms before
and after."""

import numpy as np

from pykernel import activations
from pykernel.chain import Chain
from pykernel.layers import Attention, Block, Dropout, Gated, Linear, Norm, Scale
from pykernel.parts import Head

INITS = ("he_normal", "glorot_uniform", "lecun_normal", "orthogonal", "torch_linear_default")


def random_chain(seed, *, width=6, smooth=False, dropout=True, inits=INITS, head=True, attention=False):
    """A small chain of blocks.

    Args:
        seed: which one.
        width: about the units of a layer.
        smooth: only activation functions without kinks, for finite differences.
        dropout, head, attention: whether these may occur.  inits: schemes that layers draw from.
    """
    rng = np.random.default_rng(seed)
    pick = lambda *options: options[rng.integers(len(options))]
    names = [n for n, row in activations.ROWS.items() if not (smooth and activations.get(n).kinks)]

    def linear(units):
        return Linear(units, init=pick(None, *inits), gain=float(rng.uniform(0.7, 1.3)), bias_std=pick(None, 0.0, 0.3))

    def norm():
        return Norm(pick("batch", "layer", "rms"), eps=pick(None, 0.1))

    def steps(units_out):
        out = []
        for _ in range(rng.integers(1, 3)):
            out += [norm()] if rng.random() < 0.4 else []
            if rng.random() < 0.3:
                out.append(Gated(int(rng.integers(3, 2 * width)), pick(*names), gain=float(rng.uniform(0.7, 1.3))))
            elif attention and rng.random() < 0.5:
                heads, kv_heads = pick((1, 1), (2, 1), (2, 2), (4, 2))
                out += [linear(heads * int(rng.integers(1, width // heads + 2)))]
                scale = pick(None, 0.0, 1.5, 40.0)
                out += [
                    Attention(heads, kv_heads=kv_heads, causal=pick(False, True), scale=scale, bias_std=pick(None, 0.3))
                ]
            else:
                out += [linear(int(rng.integers(3, 2 * width)))]
                out += [norm()] if rng.random() < 0.3 else []
                out += [pick(*names)]
            out += [Dropout(0.3)] if dropout and rng.random() < 0.2 else []
            out += [Scale(float(rng.normal()))] if rng.random() < 0.2 else []
        return [*out, linear(units_out)]

    def after():
        return pick((), (), (norm(),), (pick(*names),), (norm(), pick(*names)))

    def block(units_in, units_out):
        kind = rng.integers(3)
        if kind == 0 or (units_in != units_out and kind == 1):
            return Block(*steps(units_out), scale=pick(1.0, 0.7), after=after())
        if kind == 1:
            return Block(
                *steps(units_out),
                skip=pick(1.0, 0.8, "inverse_sqrt_depth"),
                scale=pick(1.0, 0.5, "inverse_sqrt_depth"),
                after=after(),
            )
        return Block(*steps(units_out), skip=[linear(units_out)], scale=pick(1.0, 0.5), after=after())

    n_in, n = int(rng.integers(3, 2 * width)), int(rng.integers(3, 2 * width))
    return Chain(
        depth=int(rng.integers(1, 4)),
        width=n_in,
        init=pick(*inits),
        gain=float(rng.uniform(0.8, 1.2)),
        first=[block(n_in, n)] if rng.random() < 0.7 or n_in != n else [],
        blocks=[block(n, n) for _ in range(rng.integers(1, 3))],
        last=[pick(norm(), pick(*names), linear(int(rng.integers(3, width + 3))))] if rng.random() < 0.6 else [],
        head=pick(None, None, Head("softmax", 4), Head("mse", 3), Head("sigmoid", 2), Head("linear", 3))
        if head
        else None,
    )
