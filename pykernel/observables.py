# SPDX-License-Identifier: BSD-3-Clause
"""The table of what every backend measures at every layer: name, shape, unit and meaning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np


class Row(NamedTuple):
    """One measured quantity.

    `extent`: "layer" (R, L) for each weight layer, "activation" (R, P) for each activation step, "mix" (R, M) for each
    attention, "node" (R, N) for the end of each block, "rounded" the same in a run with formats and (R, 0) without,
    "input" (R, N + 1) for the input and the end of each block, "weight" (R, W) for each distinct weight, in order of
    first use, where layers share some and (R, 0) where each has its own, "replica" (R,). In a chain of equal layers
    L = P = N and M = 0.
    """

    name: str
    extent: str
    unit: str
    meaning: str


ROWS = (
    Row("log10_grad_weight", "layer", "decades", "Frobenius norm of dJ/dW[l]"),
    Row("log10_grad_bias", "layer", "decades", "2-norm of dJ/db[l]; rounding noise where batch norm makes it 0"),
    Row("log10_grad_weight_total", "weight", "decades", "Frobenius norm of dJ/dW of a shared weight, the sum of uses"),
    Row("log10_grad_bias_total", "weight", "decades", "2-norm of dJ/db of a shared bias, the sum of uses"),
    Row("log10_grad_preactivation", "layer", "decades", "Frobenius norm of dJ/dz[l]"),
    Row("log10_grad_activation", "input", "decades", "Frobenius norm of dJ/da[l], the input's first"),
    Row("log10_mean_square_preactivation", "layer", "decades", "mean of z[l]^2 over units and batch"),
    Row("log10_mean_square_activation", "node", "decades", "mean of a[l]^2 over units and batch"),
    Row("mean_activation", "node", "1", "mean of a[l] over units and batch"),
    Row("saturated", "activation", "fraction", "(unit, input) pairs with a slope below 1 percent of the largest"),
    Row("dead", "activation", "fraction", "units whose slope is 0 for the whole batch"),
    Row("similarity", "node", "1", "mean pairwise cosine of the inputs' activations"),
    Row("log10_weight_factor", "layer", "decades", "norm of W[l]^T delta[l] over norm of delta[l]"),
    Row(
        "log10_derivative_factor",
        "activation",
        "decades",
        "norm after over norm before the step back through phi and Norm",
    ),
    Row("attention_entropy", "mix", "nats", "entropy of the attention weights, mean over inputs, heads and queries"),
    Row("score_std", "mix", "1", "standard deviation of the scores that queries see, over inputs, heads and queries"),
    Row("flushed_signal", "rounded", "fraction", "entries of a[l] that rounding to a format makes zero"),
    Row("flushed_gradient", "rounded", "fraction", "entries of dJ/da[l] that rounding to a format makes zero"),
    Row("overflowed_signal", "rounded", "fraction", "entries of a[l] that rounding makes inf or the largest number"),
    Row("overflowed_gradient", "rounded", "fraction", "entries of dJ/da[l] that rounding makes inf or the largest"),
    Row("log10_error_signal", "rounded", "decades", "norm of a[l]'s error over its norm without formats"),
    Row("log10_error_gradient", "rounded", "decades", "norm of dJ/da[l]'s error over its norm without formats"),
    Row("gradient_cosine", "rounded", "1", "cosine of dJ/da[l] with what it is without formats"),
    Row("log10_smallest_signal", "rounded", "decades", "smallest magnitude in a[l] that is not zero"),
    Row("log10_largest_signal", "rounded", "decades", "largest magnitude in a[l]"),
    Row("log10_smallest_gradient", "rounded", "decades", "smallest magnitude in dJ/da[l] that is not zero"),
    Row("log10_largest_gradient", "rounded", "decades", "largest magnitude in dJ/da[l]"),
    Row("loss", "replica", "1", "the objective, with a head"),
)
NAMES = tuple(row.name for row in ROWS)
_OF_EXTENT = {
    extent: sum(row.extent == extent for row in ROWS)
    for extent in ("layer", "activation", "mix", "node", "rounded", "weight")
}
# of rows over distinct weights those that they are where each layer has its own
OF_USES = {"log10_grad_weight_total": "log10_grad_weight", "log10_grad_bias_total": "log10_grad_bias"}
# of rows that have a value of the gradient, those that the loss scale is divided out of
SCALED = (
    "log10_grad_weight",
    "log10_grad_bias",
    *OF_USES,
    "log10_grad_preactivation",
    "log10_grad_activation",
    "log10_smallest_gradient",
    "log10_largest_gradient",
)
_OF_INPUT, _OF_REPLICA = (sum(row.extent == extent for row in ROWS) for extent in ("input", "replica"))


class Rows:
    """What has `rows`, a mapping, and gives them as attributes; the annotations are for type checkers and editors."""

    rows: dict[str, Any]
    log10_grad_weight: np.ndarray
    log10_grad_bias: np.ndarray
    log10_grad_weight_total: np.ndarray
    log10_grad_bias_total: np.ndarray
    log10_grad_preactivation: np.ndarray
    log10_grad_activation: np.ndarray
    log10_mean_square_preactivation: np.ndarray
    log10_mean_square_activation: np.ndarray
    mean_activation: np.ndarray
    saturated: np.ndarray
    dead: np.ndarray
    similarity: np.ndarray
    log10_weight_factor: np.ndarray
    log10_derivative_factor: np.ndarray
    attention_entropy: np.ndarray
    score_std: np.ndarray
    flushed_signal: np.ndarray
    flushed_gradient: np.ndarray
    overflowed_signal: np.ndarray
    overflowed_gradient: np.ndarray
    log10_error_signal: np.ndarray
    log10_error_gradient: np.ndarray
    gradient_cosine: np.ndarray
    log10_smallest_signal: np.ndarray
    log10_largest_signal: np.ndarray
    log10_smallest_gradient: np.ndarray
    log10_largest_gradient: np.ndarray
    loss: np.ndarray

    def __getattr__(self, name: str) -> np.ndarray:
        if name != "rows" and name in self.__dict__.get("rows", {}):
            return of_weights(self.rows, name)
        rows = ", ".join(other for other in NAMES if other != name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}; rows that it may have: {rows}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *NAMES]


# of each extent the name of its axis
AXES = {
    "layer": "layer",
    "activation": "activation",
    "mix": "attention",
    "node": "block",
    "rounded": "block",
    "input": "node",
    "weight": "weight",
}
# where layer, function and block are one
AXES_OF_LAYERS = {**AXES, "activation": "layer", "node": "layer", "rounded": "layer"}


def axes(chain: Any) -> dict[str, str]:
    """Of each extent but "replica" the name of the axis that its rows run along."""
    return AXES_OF_LAYERS if chain.blocks is None else AXES


def labels(chain: Any, extent: str) -> np.ndarray:
    """What the columns of its rows of an extent are called: numbers, of blocks names where there are any."""
    nodes = chain.extents.node
    if extent == "input":
        return np.arange(nodes + 1)
    if extent != "weight" and (chain.blocks is None or extent in ("node", "rounded")):
        return np.arange(1, nodes + 1)
    names = {
        "layer": chain.layers,
        "activation": chain.activations,
        "mix": chain.attentions,
        "weight": chain.tied_layers,
    }
    return np.array(names[extent], dtype=str)


def blocks_of(names: Iterable[str]) -> np.ndarray:
    """The block, from 1, that each named layer or activation step lies in."""
    return np.array([int(name.partition(".")[0]) for name in names], dtype=int)


def shape(row: Row, replicas: int, counts: Any) -> tuple[int, ...]:
    """The shape of a row's array for so many replicas of a program with these `program.Counts`."""
    if row.extent == "replica":
        return (replicas,)
    return (replicas, counts.node + 1 if row.extent == "input" else getattr(counts, row.extent))


def of_weights(rows: dict, name: str) -> Any:
    """A row by its name; what is measured over the uses of shared weights is, where each layer has its own, that of the
    layer."""
    return rows[name if name not in OF_USES or rows[name].size else OF_USES[name]]


def entries(replicas: int, counts: Any) -> int:
    """Numbers in all rows together, for so many replicas of a program with these `program.Counts`."""
    each = sum(getattr(counts, extent) * many for extent, many in _OF_EXTENT.items())
    return replicas * (each + _OF_INPUT * (counts.node + 1) + _OF_REPLICA)
