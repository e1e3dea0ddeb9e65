# SPDX-License-Identifier: BSD-3-Clause
"""Outputs of layers laid out over heads in a PyTorch graph: which rows of which layer stand along which axis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from pykernel.bridges.values import Value

# what shuffles axes, or takes some
LAYOUTS: tuple[str, ...] = (
    "view",
    "reshape",
    "unflatten",
    "flatten",
    "permute",
    "transpose",
    "swapaxes",
    "unsqueeze",
    "squeeze",
    "expand",
)
LAYOUTS += ("repeat_interleave", "chunk", "split", "unbind", "getitem", "moveaxis", "movedim")


class Atom(NamedTuple):
    """Part of an axis: inputs "B", positions "T", rows of a layer "unit" (`stride` apart), or repetitions "again"."""

    what: str
    size: int
    stride: int = 0


class Rows(NamedTuple):
    """Rows of a layer's output (or of mixed values) from `offset` on, laid out over axes of atoms, times `factor`."""

    value: Value
    axes: tuple[tuple[Atom, ...], ...]
    offset: int = 0
    factor: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(math.prod(atom.size for atom in axis) for axis in self.axes)


def reshaped(rows: Rows, shape: Iterable[int], where: str) -> Rows:
    """Rows under another shape: whole atoms side by side, units cut where it says so."""
    shape = list(shape)
    if -1 in shape:
        rest = -math.prod(shape)
        shape[shape.index(-1)] = math.prod(rows.shape) // max(rest, 1)
    atoms = [atom for axis in rows.axes for atom in axis if atom.size > 1]
    axes = []
    for size in shape:
        axis: list[Atom] = []
        while size > 1:
            if not atoms:
                raise ValueError(f"{where} asks for a shape {tuple(shape)} that attention does not need")
            atom = atoms.pop(0)
            if size % atom.size == 0:
                axis.append(atom)
                size //= atom.size
            elif atom.what == "unit" and atom.size % size == 0:
                axis.append(Atom("unit", size, atom.stride * (atom.size // size)))
                atoms.insert(0, Atom("unit", atom.size // size, atom.stride))
                size = 1
            else:
                raise ValueError(f"{where} asks for a shape {tuple(shape)} that mixes positions, heads or units")
        axes.append(tuple(axis))
    return rows._replace(axes=tuple(axes))


def settled(rows: Rows) -> Rows | Value:
    """The value itself where rows are all of it in its own order (B, T, units)."""
    if len(rows.axes) != 3 or rows.offset or rows.factor != 1.0:
        return rows
    (b, t, u) = rows.axes
    own = kinds(b) <= {"B"} and kinds(t) <= {"T"} and is_run(u) and rows.shape[2] == rows.value.units
    return rows.value if own else rows


def layout(rows: Rows, name: str, given: Sequence[Any], where: str) -> Any:
    """What one of LAYOUTS makes of rows; `given`: its arguments in order."""
    n = len(rows.axes)
    if name in ("view", "reshape"):
        shape = given[0] if len(given) == 1 and not isinstance(given[0], int) else given
        return settled(reshaped(rows, shape, where))
    if name == "flatten":
        begin, end = given[0] % n if given else 0, given[1] % n if len(given) > 1 else n - 1
        shape = (*rows.shape[:begin], math.prod(rows.shape[begin : end + 1]), *rows.shape[end + 1 :])
        return settled(reshaped(rows, shape, where))
    if name == "unflatten":
        axis = given[0] % n
        return reshaped(rows, (*rows.shape[:axis], *given[1], *rows.shape[axis + 1 :]), where)
    if name in ("transpose", "swapaxes", "movedim", "moveaxis", "permute"):
        return settled(rows._replace(axes=tuple(rows.axes[i] for i in _order(name, given, n, where))))
    if name == "unsqueeze":
        at = given[0] % (n + 1)
        return rows._replace(axes=(*rows.axes[:at], (), *rows.axes[at:]))
    if name == "squeeze":
        gone = {i % n for i in given} if given else set(range(n))
        return settled(rows._replace(axes=tuple(a for i, a in enumerate(rows.axes) if i not in gone or a)))
    if name == "expand":
        shape = given[0] if len(given) == 1 and not isinstance(given[0], int) else given
        new = zip(rows.axes, shape, strict=True)
        return rows._replace(axes=tuple(a or ((Atom("again", s),) if s > 1 else ()) for a, s in new))
    if name == "repeat_interleave":
        count, at = given[0], (given[1] if len(given) > 1 else 0) % n
        more = (*rows.axes[at], Atom("again", count)) if count > 1 else rows.axes[at]
        return rows._replace(axes=(*rows.axes[:at], more, *rows.axes[at + 1 :]))
    if name == "getitem":
        return _item(rows, given[0] if isinstance(given[0], tuple) else (given[0],), where)
    dim = (given[1] if len(given) > 1 else 0) if name in ("chunk", "split") else (given[0] if given else 0)
    size = rows.shape[dim % n]
    if name == "unbind":
        return tuple(_taken(rows, dim % n, i, 1, True, where) for i in range(size))
    sizes = list(given[0]) if name == "split" and not isinstance(given[0], int) else None
    each = -(-size // given[0]) if name == "chunk" else given[0]
    sizes = [each] * (size // each) if sizes is None else sizes
    begins = itertools.accumulate(sizes, initial=0)
    return tuple(_taken(rows, dim % n, b, s, False, where) for b, s in zip(begins, sizes, strict=False))


def _order(name: str, given: Sequence[Any], n: int, where: str) -> list[int]:
    if name == "permute":
        order = given[0] if len(given) == 1 and not isinstance(given[0], int) else given
        return [i % n for i in order]
    if not all(isinstance(i, int) for i in given):
        raise ValueError(f"{where} moves several axes at once; write it as permute")
    a, b = (i % n for i in given)
    order = list(range(n))
    if name in ("transpose", "swapaxes"):
        order[a], order[b] = b, a
    else:
        order.insert(b, order.pop(a))
    return order


def _item(rows: Rows, index: tuple, where: str) -> Rows:
    """Indexing by numbers, slices, None and Ellipsis."""
    if Ellipsis in index:
        at = index.index(Ellipsis)
        missing = len(rows.axes) - sum(i is not None for i in index) + 1
        index = (*index[:at], *[slice(None)] * missing, *index[at + 1 :])
    axis = 0
    for part in index:
        if part is None:
            rows = rows._replace(axes=(*rows.axes[:axis], (), *rows.axes[axis:]))
        elif isinstance(part, int):
            rows = _taken(rows, axis, part % max(rows.shape[axis], 1), 1, True, where)
            continue
        elif part != slice(None):
            begin, end, step = part.indices(rows.shape[axis])
            if step != 1:
                raise ValueError(f"{where} takes every {step}-th number of a layer: its rows lie apart")
            rows = _taken(rows, axis, begin, end - begin, False, where)
        axis += 1
    return rows


def _taken(rows: Rows, axis: int, begin: int, size: int, drop: bool, where: str) -> Rows:
    """Numbers `begin` .. begin + size of one axis of units."""
    atoms = rows.axes[axis]
    if len(atoms) != 1 or atoms[0].what != "unit":
        if size == rows.shape[axis]:
            return rows._replace(axes=(*rows.axes[:axis], *rows.axes[axis + 1 :])) if drop else rows
        raise ValueError(
            f"{where} takes something apart: some positions or heads, and leaves others; a chain keeps all"
        )
    (atom,) = atoms
    new = () if drop else ((atom._replace(size=size),),)
    offset = rows.offset + begin * atom.stride
    return rows._replace(axes=(*rows.axes[:axis], *new, *rows.axes[axis + 1 :]), offset=offset)


def kinds(axis: tuple[Atom, ...]) -> set[str]:
    return {atom.what for atom in axis}


def is_run(atoms: Sequence[Atom]) -> bool:
    """Whether atoms of units count rows one by one."""
    stride = 1
    for atom in reversed(atoms):
        if atom.what != "unit" or atom.stride != stride:
            return False
        stride *= atom.size
    return True
