# SPDX-License-Identifier: BSD-3-Clause
"""A chain as every backend and the theory run it: stretches of ops over registers, and the numbers of their layers in
arrays.

A register names a running block (units x columns); register 0 is the signal a from repetition to repetition, all others
are dead between them.
Ops name registers, tables and the place of their number within one repetition; nothing but the arrays depends on depth.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np

from pykernel.dtypes import Floats, Ints
from pykernel.formats import Formats
from pykernel.window import Window, kernel_shape

Found = TypeVar("Found")
Turn = TypeVar("Turn", int, np.ndarray)
A = 0  # the register of the signal
CENTRED = ("no", "columns", "positions")
BIASES = ("zero", "normal", "uniform", "given")
MAX_REPLICAS = 2**32
# -log2 of the smallest attention weight that gradients flow through: exponents of many layers add up to an int64.
FAINTEST_WEIGHT = 2.0**52
FEW_COLUMNS = 64  # below, Gram matrices of the columns cost next to nothing


class Counts(NamedTuple):
    """How many there are of each thing that has numbers of its own: weight layers, activation steps, norms that no
    activation follows, scales and shifts by unit, sums with a skip, factors, masks, attentions, windows (patches and
    pools), inputs that arrive on the way, nodes (block ends), and nodes where signals are rounded and compared: all in
    a run with formats, else none; distinct weights where layers share some, else none."""

    layer: int = 0
    activation: int = 0
    norm: int = 0
    affine: int = 0
    join: int = 0
    factor: int = 0
    mask: int = 0
    mix: int = 0
    window: int = 0
    drive: int = 0
    node: int = 0
    rounded: int = 0
    weight: int = 0

    def plus(self, other: Counts, times: int = 1) -> Counts:
        """These and `times` the others."""
        return Counts(*[a + times * b for a, b in zip(self, other, strict=True)])


class Op(NamedTuple):
    """One step: which registers it reads and writes, and the place of its number among those of its kind in one
    repetition.

    Attributes:
        kind: a key of `pykernel.ops.TABLES`.
        out: the register that is written; it may be one of `ins`.
        ins: the registers that are read.
        at: 0-based place in its table, from the beginning of the repetition.
    """

    kind: str
    out: int
    ins: tuple[int, ...]
    at: int


class Stretch(NamedTuple):
    """`count` repetitions of the same ops. The number of an op in repetition i is first + i * each + op.at, of its
    table."""

    ops: tuple[Op, ...]
    count: int  # type: ignore[assignment]  # hides a method of tuple that nobody calls
    first: Counts
    each: Counts

    def number(self, table: str, op: Op, repetition: Turn) -> Turn:
        """0-based number of an op in its table."""
        return getattr(self.first, table) + repetition * getattr(self.each, table) + op.at


class Draw(NamedTuple):
    """A distribution of unit draws, with its parameter (density, degrees of freedom or alpha; else 0)."""

    distribution: str
    parameter: float


NORMAL = Draw("normal", 0.0)


class NormRow(NamedTuple):
    """A norm: None, "batch", "layer" or "rms", and what it adds to the variance."""

    kind: str | None
    eps: float


class AffineRow(NamedTuple):
    """Scale and shift of every unit, weight * x + bias: (units,) float64 each."""

    weight: np.ndarray
    bias: np.ndarray


class Layers(NamedTuple):
    """Numbers of the weight layers 1 .. L, arrays (L,).

    Attributes:
        units, columns: int64, rows and columns of W[l].
        groups: int64, parts that its units are cut into, each a product of its own: columns are those of one.
        kernel: int64, index into `Program.kernels`; taps: int64, how many it has: units of its input stand tap by tap,
            and so do the columns of W[l].
        positions: int64, of one input where W[l] acts.
        weight: int64, its number among the distinct weights, from 0 in order of first use.
        address: int64, its layer in the stream, from 1; uses of one tied weight share it.
        draw: int64, index into `Program.draws`.
        scale: float64, W[l] = scale[l] * unit draw (a power of two for "given": what takes the caller's array into
            float32).
        bias_draw: int64, index into BIASES; bias_scale: float64, a factor on the draws or on the caller's array.
        centred: int64, index into CENTRED: over what delta sums to zero, so that a mean of u over the same is not seen;
            all columns where the output goes straight into a batch norm, the positions of each input where it is an
            attention's key (adding one vector to every key changes no softmax).
    """

    units: np.ndarray
    columns: np.ndarray
    groups: np.ndarray
    kernel: np.ndarray
    taps: np.ndarray
    positions: np.ndarray
    weight: np.ndarray
    address: np.ndarray
    draw: np.ndarray
    scale: np.ndarray
    bias_draw: np.ndarray
    bias_scale: np.ndarray
    centred: np.ndarray


class Activations(NamedTuple):
    """Of each activation step (phi or gate): `row`, index into `Program.activations`; `norm`, index into
    `Program.norms` of the norm that acts on its input (0: none; gates have none). int64."""

    row: np.ndarray
    norm: np.ndarray


class Joins(NamedTuple):
    """Of each sum a = skip * a + branch * v: both factors, float64."""

    skip: np.ndarray
    branch: np.ndarray


class Mixes(NamedTuple):
    """Of each attention: heads of query, heads of key and value, int64; whether it is causal; the factor on the scores,
    float64."""

    heads: np.ndarray
    kv_heads: np.ndarray
    causal: np.ndarray
    scale: np.ndarray


class Head(NamedTuple):
    """One more weight layer behind the last node, and a loss.

    Attributes:
        loss: a name of `chain.LOSSES`, None for no head (then J = sum(cotangent * a[N])).
        outputs: rows of its weight; draw, scale: as of a layer.
        weight, bias: the caller's (outputs, n[N]), to be multiplied by `scale`, and (outputs,) float64, or None.
        targets: (outputs, columns that it reads) float64 or None: drawn (for softmax one-hot columns).
        over: what it reads, a name of `chain.OVER`: every column, or one an input.
    """

    loss: str | None = None
    outputs: int = 0
    draw: Draw = NORMAL
    scale: float = 0.0
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    targets: np.ndarray | None = None
    over: str = "positions"


@dataclass(eq=False)
class Program:
    """What a backend runs.

    Attributes:
        stretches: the ops, in order.  plain_counts: how many there are of everything without formats.  registers: how
            many they name.  widest: units of the widest block, in or out of a layer.
        nodes: (N + 1,) int64, units of a[0] .. a[N].
        batch: inputs propagated together.  positions, positions_out: of one input, along each axis, of a[0] and a[N];
            () for one.
        layers, steps, norm_steps, affine_steps, joins, factors, masks, mixes, window_steps: the numbers of the ops, by
            table (see Counts); norm_steps (index into norms), affine_steps (into affines), factors, masks
            (probabilities) and window_steps (into windows) are plain arrays.
        kernels: the taps along each axis that convolutions have, () for other layers.
        draws, activations, norms, affines, windows: the rows that the arrays name; norms[0] is none.
        weights, biases: tuples over layers of the caller's float64 arrays (None where a layer has none), or None.
        samplers: a tuple over layers of the inits whose sampler draws W[l], None where there is none; or None. Resolved
            to `weights`, a replica at a time, before a run.
        x, cotangent: the caller's (n0, columns), (nN, columns_out) float64 arrays, or None: drawn.  correlation: of the
            drawn inputs.
        drives: (drives,) int64, units of the inputs that arrive on the way.  drive: the caller's, a tuple of (units,
            columns) float64 arrays, or None: drawn.
        head: see Head.
        clip_value: bound on every entry of the parameter gradients, or 0 for none.
        seed: the key of the stream.  dtype: "float32" or "float64", the arithmetic.
        exponent: True for blocks with exponents, False for plain arithmetic (precision="native").
        common: one drawn cotangent for all columns, iid N(0, 1/n[N]), and a tangent kernel measured with it.
        formats: what weights, signals and gradients are rounded to, or None. Rounded is what every op hands on, but for
            nodes, whose input is; and the gradient of each of those.
    """

    stretches: tuple[Stretch, ...]
    plain_counts: Counts
    registers: int
    widest: int
    nodes: np.ndarray
    batch: int
    positions: tuple[int, ...]
    positions_out: tuple[int, ...]
    layers: Layers
    steps: Activations
    norm_steps: np.ndarray
    affine_steps: np.ndarray
    joins: Joins
    factors: np.ndarray
    masks: np.ndarray
    mixes: Mixes
    window_steps: np.ndarray
    windows: tuple[Window, ...]
    kernels: tuple[tuple[int, ...], ...]
    draws: tuple[Draw, ...]
    activations: tuple[Any, ...]
    norms: tuple[NormRow, ...]
    affines: tuple[AffineRow, ...]
    weights: tuple | None
    biases: tuple | None
    samplers: tuple | None
    x: np.ndarray | None
    cotangent: np.ndarray | None
    correlation: float
    head: Head
    clip_value: float
    seed: int
    dtype: str
    exponent: bool
    drives: np.ndarray
    drive: tuple | None = None
    formats: Formats | None = None
    common: bool = False

    @property
    def depth(self) -> int:
        """L, the number of weight layers."""
        return len(self.layers.units)

    @property
    def columns(self) -> int:
        """Columns of a[0], and of every block without windows between: inputs times positions."""
        return self.batch * math.prod(self.positions)

    @property
    def columns_out(self) -> int:
        """Columns of a[N]."""
        return self.batch * math.prod(self.positions_out)

    @property
    def most_columns(self) -> int:
        """Of the block that has the most."""
        fields = (self.positions, *(window.out for window in self.windows))
        return self.batch * max(math.prod(field) for field in fields)

    @property
    def read_columns(self) -> int:
        """Columns that the head reads: all of a[N], or one an input."""
        return self.columns_out if self.head.over == "positions" else self.batch

    @property
    def counts(self) -> Counts:
        """How many there are of everything."""
        return self.plain_counts if self.formats is None else self.plain_counts._replace(rounded=self.plain_counts.node)

    @property
    def has_groups(self) -> bool:
        """Whether some convolution is cut into groups."""
        return len(self.kernels) > 1 and bool((self.layers.groups > 1).any())

    @property
    def op_count(self) -> int:
        """How many ops run, of all repetitions."""
        return sum(stretch.count * len(stretch.ops) for stretch in self.stretches)

    @cached_property
    def first_uses(self) -> np.ndarray:
        """Of each distinct weight the place, from 0, of the layer that uses it first, int64."""
        weight = self.layers.weight
        return np.unique(weight, return_index=True)[1] if self.counts.weight else weight

    @cached_property
    def norms_used(self) -> tuple[NormRow, ...]:
        """The norms of activation steps, and those that no activation follows; none among them where some step has
        none."""
        return tuple(self.norms[i] for i in distinct(np.concatenate([self.steps.norm, self.norm_steps])))

    @property
    def has_batch_norm(self) -> bool:
        """Whether inputs see each other in a norm."""
        return any(norm.kind == "batch" for norm in self.norms_used)

    @cached_property
    def passes_formats(self) -> np.ndarray:
        """Of each activation step whether it makes numbers of a format from such, bool (P,): the identity and ReLU,
        without a norm.

        What comes in is then rounded behind it, to the same numbers, so that a node sees them as they were.
        """
        exact = np.array([row.builtin and row.name in ("linear", "relu") for row in self.activations], bool)
        bare = np.array([norm.kind is None for norm in self.norms], bool)
        return exact[self.steps.row] & bare[self.steps.norm]

    def taps(self, layer: int) -> tuple[int, ...]:
        """Of the weight of layer 1 .. L: () where it is no convolution."""
        return self.kernels[self.layers.kernel[layer - 1]]

    def shape(self, layer: int) -> tuple[int, ...]:
        """Of the weight of layer 1 .. L, as callers give and get it: (units out, units in), or (channels, channels in /
        groups, *kernel)."""
        return kernel_shape(self.layers.units[layer - 1], self.layers.columns[layer - 1], self.taps(layer))

    def draw(self, layer: int) -> Draw:
        """The distribution of layer 1 .. L."""
        return self.draws[self.layers.draw[layer - 1]]


def once(function: Callable[[Program], Found]) -> Callable[[Program], Found]:
    """A function of a program alone, which keeps what it finds with the program."""

    @functools.wraps(function)
    def found(program: Program) -> Found:
        kept = vars(program)
        key = f"{function.__module__}.{function.__qualname__}"
        if key not in kept:
            kept[key] = function(program)
        return kept[key]

    return found


def distinct(rows: Ints) -> list[int]:
    """Which rows of a table an array of their numbers names, in order."""
    return np.flatnonzero(np.bincount(rows)).tolist()


def forms_gradient(layers: Layers, number: Any, columns: Any) -> Any:
    """Whether the norm of dJ/dW is taken of dJ/dW itself, of layer `number` from 0, or of many: where that costs less
    than two Gram matrices of the columns, and always with groups.
    """
    rows, width = layers.units[number].astype(float), layers.columns[number] * layers.groups[number]
    cheaper = columns * (rows + width) > 2 * rows * width
    return (layers.groups[number] > 1) | ((columns > FEW_COLUMNS) & cheaper)


def query_layers(stretches: Sequence[Stretch]) -> np.ndarray:
    """Numbers from 0 of the layers that make the query of each attention, (mixes,) int64."""
    out = [np.zeros(0, np.int64)]
    for stretch in stretches:
        made_by, repetition, found = dict[int, Op | None](), np.arange(stretch.count), []
        for op in stretch.ops:
            made_by[op.out] = op if op.kind == "linear" else made_by.get(op.ins[0])
            if op.kind == "mix" and (query := made_by[op.ins[0]]) is not None:
                found.append(stretch.number("layer", query, repetition))
        out += [np.stack(found, axis=-1).ravel()] if found else []
    return np.concatenate(out)


def by_powers_of_two(arrays: Sequence[Floats | None], exponent: bool) -> tuple[tuple[Floats | None, ...], Floats]:
    """The caller's arrays as order-one numbers times a power of two where they would leave float32, and those powers,
    float64.

    An entry None stays, with a power of 1. Without `exponent` nothing is taken out.
    """
    powers = [0 if a is None or not exponent else int(np.frexp(np.abs(a).max())[1]) for a in arrays]
    powers = [p if abs(p) > 40 else 0 for p in powers]
    taken = tuple(a if a is None or not p else np.ldexp(a, -p) for a, p in zip(arrays, powers, strict=True))
    return taken, np.ldexp(1.0, np.array(powers, dtype=np.int64))
