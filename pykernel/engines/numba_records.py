# SPDX-License-Identifier: BSD-3-Clause
"""A program and a workspace as the records that Numba kernels take; a run's memory follows from its ops."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from pykernel.dtypes import Floats, Ints
from pykernel.kernels import (
    activate,
    activation_lanes,
    blocks,
    callbacks,
    draws,
    norms,
    ops,
    product,
    records,
    rounding,
    totals,
)
from pykernel.kernels.ops import KINDS, OPS, linear, mix
from pykernel.kernels.run import kernels
from pykernel.ops import TABLES
from pykernel.program import FEW_COLUMNS, Program, forms_gradient

# log2 of the largest magnitude a block may have, see docs/design.md section 4.
BOUNDS = {"float32": 40, "float64": 200}


class Filled:
    """A record whose addresses point into arrays that live as long as it does; the arrays are attributes."""

    cuts: Ints  # these four of a workspace
    slots: Ints
    facts: Ints
    blocks: np.ndarray

    def __init__(self, record: np.void, arrays: dict[str, np.ndarray]) -> None:
        self.record = record
        self.__dict__.update(arrays)


def record(dtype: np.dtype, **fields: Any) -> Filled:
    """A record of numbers and of the addresses of arrays."""
    records.record_type(dtype)  # before a kernel meets it
    box = np.zeros(1, dtype)
    arrays = {name: np.ascontiguousarray(value) for name, value in fields.items() if isinstance(value, np.ndarray)}
    for name, value in fields.items():
        if value is not None:
            box[0][name] = arrays[name].ctypes.data if name in arrays else value
    return Filled(box[0], arrays)


# -- the program


def specify(
    program: Program, functions: Sequence[callbacks.Row], out: Floats, stop: Ints, compares: int = rounding.NEITHER
) -> Filled:
    """The program in the kernels' numbers.

    Args:
        functions: a `callbacks.Row` of each activation.  out: the rows.  stop: the flag that ends a run.
        compares: what nodes do, see `rounding`.
    """
    dtype = np.dtype(program.dtype)
    stretches, order = _ops(program)
    x, x_exponent = _own(program, program.x)
    cotangent, cotangent_exponent = _own(program, program.cotangent)
    facts, calls = _functions(program, functions)
    return record(
        ops.spec_dtype(dtype),
        count=out.shape[1],
        stride=out.shape[2],
        registers=program.registers,
        units=int(program.nodes[0]),
        columns=program.columns,
        depth=program.depth,
        item=dtype.itemsize,
        bound=BOUNDS[program.dtype] if program.exponent else 0,
        correlation=float(program.correlation),
        clip=float(program.clip_value),
        key0=np.uint32(program.seed & 0xFFFFFFFF),
        key1=np.uint32(program.seed >> 32),
        stretches=stretches,
        ops=order,
        kernels=_kernels(program.dtype, tuple(sorted(_kinds(program)))),
        rows=out,
        stop=stop,
        facts=facts,
        calls=calls,
        norm_kind=norms.kinds(program.norms),
        norm_eps=np.array([norm.eps for norm in program.norms], np.float64),
        x=x,
        x_exponent=x_exponent,
        cotangent=cotangent,
        cotangent_exponent=cotangent_exponent,
        formats=rounding.table(program.formats),
        compares=compares,
        nodes=program.counts.node,
        node_kind=KINDS.index("node"),
        phi_kind=KINDS.index("phi"),
        passes=program.passes_formats.astype(np.int64),
        weights=program.counts.weight,
        zero=0.0,
        **ops.numbers(program),
    )


def _kinds(program: Program) -> set[str]:
    return {op.kind for stretch in program.stretches for op in stretch.ops}


@functools.cache
def _kernels(dtype: str, kinds: tuple[str, ...]) -> Ints:
    return kernels(np.dtype(dtype), kinds)


def _ops(program: Program) -> tuple[Ints, Ints]:
    """Tables of the stretches (see `records.STRETCH`) and of their ops (`records.OP`), int64."""
    stretches, order, start = [], [], 0
    for stretch in program.stretches:
        stretches.append((len(order), len(stretch.ops), start))
        start += stretch.count
        for op in stretch.ops:
            table, ins = TABLES[op.kind], (*op.ins, 0, 0)[:3]
            number = getattr(stretch.first, table) + op.at
            order.append((KINDS.index(op.kind), op.out, *ins, number, getattr(stretch.each, table)))
    stretches.append((len(order), 0, start))
    return np.array(stretches, np.int64), np.array(order, np.int64)


def _functions(program: Program, functions: Sequence[callbacks.Row]) -> tuple[Floats, Ints]:
    """Facts and calls of each activation function, see `activate`."""
    facts, calls = [], []
    for activation, function in zip(program.activations, functions, strict=True):
        row, parameter = activation_lanes.number(activation)
        if not program.exponent and row != activation_lanes.PIECEWISE:
            row = activation_lanes.OTHER
        kernels_of_row = activation_lanes.addresses(row) if row > 0 else (0, 0)
        facts.append(activate.facts(activation, parameter, program.formats is not None))
        calls.append((row, *kernels_of_row, function.compiled, function.address))
    return np.array(facts, np.float64), np.array(calls, np.int64)


def _own(program: Program, array: Floats | None) -> tuple[Floats | None, int]:
    """The caller's (n, columns) array as a block and its exponent, so that 1e308 fits in float32."""
    if array is None:
        return None, 0
    power = int(np.frexp(np.abs(array).max())[1])
    power = power if program.exponent and abs(power) > 40 else 0
    with np.errstate(over="ignore", under="ignore"):  # what native arithmetic does with them
        return blocks.pack(np.ldexp(array, -power), program.dtype), power


# -- the workspace


def workspace(program: Program, workers: int, bounds: tuple[int, ...]) -> Filled:
    """The record (records.WORK) of one replica at a time, products cut among so many workers; bounds: see `sizes`."""
    found, cuts, kept_at = sizes(program, workers, bounds)
    arrays = {name: np.empty(shape, dtype) for name, (shape, dtype) in found.items()}
    arrays["cuts"][:], arrays["kept_at"][:] = cuts, kept_at
    owned = {name: arrays.pop(name) for name in ("blocks", "facts")}
    owned["facts"][:] = 0
    owned["facts"][:, records.BLOCK] = _rows_of(owned["blocks"])
    arrays["slots"][:] = _rows_of(owned["facts"])
    room = record(
        records.work_dtype(), **arrays, segments=len(cuts) - 1, checkpoint_size=arrays["checkpoints"].shape[1]
    )
    room.__dict__.update(owned)
    return room


def _rows_of(array: np.ndarray) -> Ints:
    """The address of each row of an array."""
    return array.ctypes.data + array.strides[0] * np.arange(len(array))


def slot(room: Filled, s: int) -> tuple[Ints, np.ndarray]:
    """The facts of a slot and its block, as arrays."""
    i = (room.slots[s] - room.facts.ctypes.data) // room.facts.strides[0]
    return room.facts[i], room.blocks[i]


def sizes(program: Program, workers: int, bounds: tuple[int, ...]) -> tuple[dict[str, tuple[Any, str]], Ints, Ints]:
    """What a workspace is made of.

    Args:
        bounds: bytes of the tape beyond which it is cut into segments, and bytes of drawn weights that are kept between
        the passes.

    Returns:
        Shape and dtype of its arrays by name; the repetitions at which its segments begin, and their end; where the
        drawn tiles of each layer are kept (-1: they are not).
    """
    tape_bytes, kept_bytes = bounds
    T, item = program.dtype, np.dtype(program.dtype).itemsize
    units, layers = _padded(program.layers.units), program.layers
    tape, largest = _walk(program)
    B, block, node, gram = (int(largest[name]) for name in ("columns", "block", "node", "gram"))
    top = int(max(_padded(largest["units"]), _padded(program.drives).max(initial=0)))
    cuts = _cuts(tape, tape_bytes, node * item)
    segments = len(cuts) - 1
    draw = linear.drawn_by(program)
    tiles = units * _padded(layers.columns) * ((draw < draws.COUNT) | (draw == product.HAAR))
    tiles[np.setdiff1d(np.arange(program.depth), program.first_uses)] = 0  # those of the weight's first use
    kept_at = _kept(np.where(layers.groups > 1, 0, tiles), kept_bytes // item)[program.first_uses[layers.weight]]
    piecewise = all(activation_lanes.number(a)[0] == activation_lanes.PIECEWISE for a in program.activations)
    whole = 0 if piecewise and program.exponent else block
    haar = int(tiles.max(initial=1, where=draw == product.HAAR))
    found = {
        "blocks": ((program.registers + records.ROOM, block), T),
        "facts": ((program.registers + records.ROOM, records.SLOT), "int64"),
        "slots": (program.registers + records.ROOM, "int64"),
        "state": (records.STATE, "int64"),
        "tape": (int(np.add.reduceat(tape, cuts[:-1]).max()), "uint8"),
        "vector": (top, T),
        "tiles": ((workers, 4 * product.CHUNK * 16), T),
        "mixed": ((workers, 64 * B), T),
        "wide0": (whole, "float64"),
        "wide1": (block, "float64"),
        "wide2": (whole, "float64"),
        **dict.fromkeys(("gram", "gram_delta", "gram_u"), (gram, "float64")),
        "mix": (mix.room(program), "float64"),
        "kept": (int(tiles[kept_at >= 0].sum()), T),
        "kept_at": (len(kept_at), "int64"),
        **dict.fromkeys(("matrix", "scratch0", "scratch1"), (haar, "float64")),
        "line": (64, "float32"),
        "cuts": (segments + 1, "int64"),
        "checkpoints": ((segments if segments > 1 else 0, node), T),
        "checkpoint_facts": ((segments, 3), "int64"),
        "nodes": ((2 * program.counts.rounded, node), T),
        "node_exponents": (2 * program.counts.rounded, "int64"),
        **totals.sizes(program),
    }
    return found, cuts, kept_at


def _padded(n: Any) -> Any:
    return (n + 15) // 16 * 16


def _offsets(lengths: Ints) -> Ints:
    return np.cumsum(lengths) - lengths


def _kept(tiles: Ints, most: int) -> Ints:
    """Where the drawn tiles of each layer are kept, the last layers' first as far as `most` numbers go; else -1."""
    behind = np.cumsum(tiles[::-1].astype(np.float64))[::-1]
    kept = (behind <= most) & (tiles > 0)
    return np.where(kept, _offsets(np.where(kept, tiles, 0)), -1)


def _walk(program: Program) -> tuple[Floats, dict[str, Any]]:
    """Bytes that each repetition keeps on the tape: the sum of what its ops say, float64, since asking must not
    overflow; and the most of units and columns, of numbers in a block, in a node's and in a Gram matrix."""
    item, out = np.dtype(program.dtype).itemsize, []
    size = lambda shape: _padded(shape[0]) * shape[1]
    begin = (program.nodes[:1], np.array([float(program.columns)]))
    largest = dict.fromkeys(("units", "columns", "block", "node", "gram"), 1.0)

    def grow(**sizes: Any) -> None:
        for name, values in sizes.items():
            largest[name] = max(largest[name], float(np.max(values)))

    columns_at = _columns_of_nodes(program)
    for stretch in program.stretches:
        repetition = np.arange(stretch.count)
        node = stretch.first.node + repetition * stretch.each.node
        shapes = {0: (program.nodes[node], columns_at[node])}
        total = np.zeros(stretch.count)
        for op in stretch.ops:
            module, number, shape = OPS[op.kind], stretch.number(TABLES[op.kind], op, repetition), shapes[op.ins[0]]
            if hasattr(module, "tape"):
                total += module.tape(program, number, *shape, item) + 8 * records.FOOT
            shapes[op.out] = module.result(program, number, *shape) if hasattr(module, "result") else shape
            for one in (shape, shapes[op.out]):
                grow(units=one[0], columns=one[1], block=size(one))
            if op.kind == "node":
                grow(node=size(shape))
            square = shape[1] ** 2
            if op.kind == "linear":
                grow(gram=np.where(forms_gradient(program.layers, number, shape[1]), 1, square))
            elif op.kind == "node":
                grow(gram=np.where(shape[1] > np.maximum(shape[0], FEW_COLUMNS), 1, square))
        out.append(total)
    grow(node=size(begin))
    return np.concatenate(out), largest


def _columns_of_nodes(program: Program) -> Floats:
    """Columns of a[0] .. a[N], float64."""
    out = np.full(len(program.nodes), float(program.columns))
    if not len(program.window_steps):
        return out
    shapes = {0: (program.nodes[0], program.columns)}
    for stretch in program.stretches:
        for i in range(stretch.count):
            for op in stretch.ops:
                number, shape = stretch.number(TABLES[op.kind], op, i), shapes[op.ins[0]]
                result = getattr(OPS[op.kind], "result", None)
                shapes[op.out] = shape if result is None else result(program, number, *shape)
                if op.kind == "node":
                    out[number + 1] = shape[1]
    return out


def _cuts(tape: Floats, most: int, checkpoint: int) -> Ints:
    """The repetitions at which segments begin, and their end: one if the tape fits, else what needs least memory."""
    total = int(tape.sum())
    if total <= most or len(tape) == 1:
        return np.array([0, len(tape)])
    length = max((total * float(checkpoint)) ** 0.5, float(tape.max()), 1.0)
    segment = (np.cumsum(tape) - tape) // length
    return np.concatenate([[0], 1 + np.flatnonzero(np.diff(segment)), [len(tape)]])
