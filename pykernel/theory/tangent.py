# SPDX-License-Identifier: BSD-3-Clause
"""The tangent kernel in theory: of wide chains its two numbers, and how far single networks lie from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pykernel.chain import Chain
from pykernel.dtypes import Bools
from pykernel.program import BIASES, Head, Program
from pykernel.theory import density, mean_field
from pykernel.theory.refusals import structure
from pykernel.theory.rows import predicted
from pykernel.theory.structure import NoTheory

# Of one layer at width n the second moment of its factor on a squared norm is 1 + SPREAD/n, and the mean of its forward
# times its backward factor 1 + SHARED/n, to first order: (2/n) chi^2_K, K of n units alive, for "relu".
SPREAD, SHARED = {"relu": 5.0, "linear": 2.0}, {"relu": 1.0, "linear": 0.0}


def kernel(program: Program) -> np.ndarray:
    """The kernel at infinite width, (B, B) float64: drawn inputs are all as correlated, so it has two numbers.

    Raises:
        NoTheory: several positions, batch norm, shared weights, or functions on sums, where pairs are not followed.
    """
    if program.counts.weight:
        raise NoTheory("the tangent kernel has a theory for weights that are used once only: measure it")
    if program.has_batch_norm:
        raise NoTheory("batch norm mixes the inputs of a batch: there is no tangent kernel of single inputs")
    if program.columns != program.batch:
        raise NoTheory("the tangent kernel has a theory for inputs of one position only: measure it")
    if program.batch > 1 and structure(program).follows:
        raise NoTheory("what two inputs' gradients share is not followed where functions act on sums: measure it")
    own = _total(replace(program, batch=1, head=Head()), 0.0)
    if program.batch == 1:
        return np.full((1, 1), own)
    # of two inputs with one read-out, each with half of its square, the sum of the four entries is 2 own + 2 other
    other = _total(replace(program, batch=2, head=Head()), 1.0) - own
    return np.where(np.eye(program.batch, dtype=bool), own, other)


def _total(program: Program, coherence: float) -> float:
    """Of the gradients of all inputs together, with a read-out of square one shared among them."""
    with np.errstate(all="ignore"):
        follows = structure(program).follows
        if follows not in ("", "density"):
            raise NoTheory("the tangent kernel has no theory for functions on entries that are a sample: measure it")
        if follows:
            walk, signal = density.forward(program)
            gradient = density.backward(walk, signal, 0.0)
        else:
            signal = mean_field.forward(program)
            gradient = mean_field.backward(program, signal, 0.0, coherence)
        rows = predicted(program, signal, gradient, np.nan)
        biases = 10.0 ** (2 * rows["log10_grad_bias"])
        return float((10.0 ** (2 * rows["log10_grad_weight"])).sum() + biases[with_biases(program)].sum())


def with_biases(program: Program) -> Bools:
    """Which layers have a bias, bool (L,)."""
    return program.layers.bias_draw != BIASES.index("zero")


def second_moment(chain: Chain, program: Program) -> float | None:
    """E K^2 / (E K)^2 of one input over networks of finite width, to first order in depth over width; None where it is
    not known.

    K is a sum over layers l = 0 .. L - 1 of products of l forward and L - l backward factors, all of one mean. Two
    terms share the forward factors of layers up to the smaller l and the backward factors from the larger on, whose
    second moment is 1 + 5/n for ReLU, and meet crosswise between, 1 + 1/n. The drawn input has
    1 + 2/n[0]. Hanin and Nica 2020, arXiv 1909.05989, bound
    the same moment for Gaussian ReLU chains.
    """
    if chain.blocks is not None or chain.has_lists or chain.norm or chain.residual or chain.tied:
        return None
    name = chain.activation.name
    gaussian = program.draw(1).distribution == "normal" and not with_biases(program).any()
    if name not in SPREAD or not chain.activation.builtin or not gaussian:
        return None
    n = program.nodes[1:].astype(float)
    depth = len(n)
    same, cross = np.log1p(SPREAD[name] / n), np.log1p(SHARED[name] / n)
    less = np.concatenate([[0.0], np.cumsum(same - cross)])  # of the layers that two terms meet crosswise in
    between = np.abs(less[:depth, None] - less[None, :depth])
    return float((1 + 2 / program.nodes[0]) * np.exp(same.sum() - between).mean())
