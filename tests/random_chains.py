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

    def norm(units, repetitions):
        words = {}
        for key, size in (
            ("weight", 1.5),
            ("bias", 0.3),
        ):  # much bias makes inputs alike, and their rows ill-conditioned
            rows = rng.uniform(-size, size, (repetitions, units))
            words[key] = pick(None, None, float(rows[0, 0]), rows[0], rows)
        return Norm(pick("batch", "layer", "rms"), eps=pick(None, 0.1), **words)

    def steps(units, units_out, repetitions):
        out = []
        for _ in range(rng.integers(1, 3)):
            out += [norm(units, repetitions)] if rng.random() < 0.4 else []
            units = int(rng.integers(3, 2 * width))
            if rng.random() < 0.3:
                out.append(Gated(units, pick(*names), gain=float(rng.uniform(0.7, 1.3))))
            elif attention and rng.random() < 0.5:
                heads, kv_heads = pick((1, 1), (2, 1), (2, 2), (4, 2))
                units = heads * int(rng.integers(1, width // heads + 2))
                scale = pick(None, 0.0, 1.5, 40.0)
                out += [
                    linear(units),
                    Attention(
                        heads, kv_heads=kv_heads, causal=pick(False, True), scale=scale, bias_std=pick(None, 0.3)
                    ),
                ]
            else:
                out += [linear(units)]
                out += [norm(units, repetitions)] if rng.random() < 0.3 else []
                out += [pick(*names)]
            out += [Dropout(0.3)] if dropout and rng.random() < 0.2 else []
            out += [Scale(pick(float(rng.normal()), rng.normal(size=units)))] if rng.random() < 0.2 else []
        return [*out, linear(units_out)]

    def after(units, repetitions):
        normed = norm(units, repetitions)
        return pick((), (), (normed,), (pick(*names),), (normed, pick(*names)))

    def block(units_in, units_out, repetitions=1):
        kind, run = rng.integers(3), steps(units_in, units_out, repetitions)
        behind = after(units_out, repetitions)
        if kind == 0 or (units_in != units_out and kind == 1):
            return Block(*run, scale=pick(1.0, 0.7), after=behind)
        if kind == 1:
            return Block(
                *run,
                skip=pick(1.0, 0.8, "inverse_sqrt_depth"),
                scale=pick(1.0, 0.5, "inverse_sqrt_depth"),
                after=behind,
            )
        return Block(*run, skip=[linear(units_out)], scale=pick(1.0, 0.5), after=behind)

    n_in, n = int(rng.integers(3, 2 * width)), int(rng.integers(3, 2 * width))
    depth = int(rng.integers(1, 4))
    return Chain(
        depth=depth,
        width=n_in,
        init=pick(*inits),
        gain=float(rng.uniform(0.8, 1.2)),
        first=[block(n_in, n)] if rng.random() < 0.7 or n_in != n else [],
        blocks=[block(n, n, depth) for _ in range(rng.integers(1, 3))],
        last=[pick(norm(n, 1), pick(*names), linear(int(rng.integers(3, width + 3))))] if rng.random() < 0.6 else [],
        head=pick(None, None, Head("softmax", 4), Head("mse", 3), Head("sigmoid", 2), Head("linear", 3))
        if head
        else None,
    )
