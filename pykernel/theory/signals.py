# SPDX-License-Identifier: BSD-3-Clause
"""What theory says of the signal and of its gradient: rows over layers, steps and nodes, in natural logs."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

NEAREST = 1e-300  # distance of inputs that batch norm would otherwise find to be one
APART = ("between", "fractions", "peaks", "pooled", "near", "edges")  # of a Signal, no rows


@dataclass
class Signal:
    """The forward pass. A distance is 1 - cosine of two columns, nan where there is one.

    Attributes:
        weight, bias: logs of sigma_w^2 (fan-in times the variance of an entry) and of sigma_b^2, (L,).
        input, preactivation: log mean squares of u[l] and z[l], (L,).  input_distance: of u[l].
        raw: log mean square of what an activation's norm acts on (a gate's: of g), one an activation step.
            raw_distance: its distance.
        preimage: log standard deviation of what phi acts on.  uniform: of a sine behind uniform biases, their share of
            its variance; nan elsewhere.
        value, factor: of a gate, log mean squares of phi(g) and v; value_distance, factor_distance. nan elsewhere.
        norm_raw, norm_mean, norm_level, norm_distance: of a norm that no activation follows: log mean square and
            relative mean of what it acts on, log of what it divides the square by, distance.
        scaled: of a norm's weight and bias, the share of the former in the mean square, were there no means.
        query, key, mixed: log mean squares of query, key and value of each attention, (M,); query_distance,
            key_distance, mixed_distance.  mix_lost: one minus the factor of attention on the value's mean square,
            mix_lean: what of it weights add that pull along the query.
        kept, added: shares of the skip and of the branch in the mean square of their sum, were they without means,
            (J,).
        activation, mean: log mean square of a[i], and its mean over its root mean square, i = 0..N.  distance: of a[i].
        between: the same with the distances of columns of different inputs, where attention sets the positions of one
            input apart from them; the others are then those of two positions of one input. Else None.
        fractions: number of an activation step -> its saturated and dead share, where it acts on entries that are not
            normal (`density`, `population`); None in place of the latter where it acts on normal ones after all.
        peaks: number of a window -> what the largest entries of a max pool are like (`ops.pool.Peak`).  pooled: number
            of an activation step that acts on a max pool of what weights give -> the same behind it.
        near: ("layer", "step" or "window", number) -> `neighbours.Near` of what a layer or a function reads, or of what
            a pool makes, where neighbours have more in common than others.
        edges: where patches see zeros beyond an edge, ("layer", number) -> map of the mean squares of a layer's input
            over `input`; ("step" or "norm", number) -> `edges.Preimage`; ("value", number) -> map of a gate's other
            side.
    """

    weight: Any
    bias: Any
    input: Any
    preactivation: Any
    input_distance: Any
    raw: Any
    raw_distance: Any
    preimage: Any
    uniform: Any
    value: Any
    factor: Any
    value_distance: Any
    factor_distance: Any
    norm_raw: Any
    norm_mean: Any
    norm_level: Any
    norm_distance: Any
    scaled: Any
    query: Any
    key: Any
    mixed: Any
    query_distance: Any
    key_distance: Any
    mixed_distance: Any
    mix_lost: Any
    mix_lean: Any
    kept: Any
    added: Any
    activation: Any
    mean: Any
    distance: Any
    between: Any = None
    fractions: Any = None
    peaks: Any = field(default_factory=dict)
    pooled: Any = field(default_factory=dict)
    near: Any = field(default_factory=dict)
    edges: Any = field(default_factory=dict)

    @property
    def spread(self) -> np.ndarray:
        """log of (variance minus covariance) of what an activation's norm acts on; -inf with one column."""
        with np.errstate(divide="ignore"):
            return np.where(np.isnan(self.raw_distance), -np.inf, np.log(self.raw_distance) + self.raw)


def as_arrays(rows: Signal) -> Signal:
    """A Signal with NumPy's arrays in the place of Python's, which are faster number by number."""
    signal = Signal(*(np.array(getattr(rows, f.name), dtype=float) for f in fields(rows) if f.name not in APART))
    signal.peaks, signal.pooled, signal.near, signal.edges = rows.peaks, rows.pooled, rows.near, rows.edges
    return signal


@dataclass
class Gradient:
    """The backward pass: logs of squared norms summed over units and columns.

    Attributes:
        activation: of dJ/da[i], i = 0..N.
        preactivation: of dJ/dz[l], (L,).
        derivative: factor of phi and its norm, or of a gate, one an activation step.
        coherence: correlation of dJ/dz[l] between two columns, (L,); not 0 only with batch norm, attention or below a
            head.
        lean: log of a factor on the square of dJ/dW[l] beside those Gram matrices, (L,): 0 but for the values of
            attention.
        to_value, to_query, to_key: factors of attention on its output's gradient, (M,).
        between: the same with the correlations of columns of different inputs, as of a Signal.
        inside: number of a layer -> correlations of dJ/dz[l] between neighbours (`neighbours.lookup`), where its input
            has some.
        edges: number of a layer -> mean over positions of the products of both maps, and the same over pairs of
            columns, of roots, over that of the gradient's alone: 1 and 1 where positions are alike.
    """

    activation: Any
    preactivation: Any
    derivative: Any
    coherence: Any
    lean: Any
    to_value: Any
    to_query: Any
    to_key: Any
    between: Any = None
    inside: Any = field(default_factory=dict)
    edges: Any = field(default_factory=dict)
