# SPDX-License-Identifier: BSD-3-Clause
"""The dense engine in Numba: threads over replicas, or over the panels of one large network's products."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from pykernel import observables
from pykernel.block import Block
from pykernel.dtypes import Floats, Ints
from pykernel.engines import heads, numba_records, numba_threads
from pykernel.kernels import blocks, callbacks, records, rounding
from pykernel.kernels import run as loop
from pykernel.kernels.ops import OPS
from pykernel.ops import TABLES
from pykernel.program import Op, Program

# Weights kept between the passes, a worker: where they fit it costs less to keep them than to draw them twice.
KEPT_BYTES = 64 << 20
# What the backward pass needs of the forward one, a worker: beyond it, repetitions are computed twice, from
# checkpoints.
TAPE_BYTES = 512 << 20
# One network is cut among threads where a layer has at least this many weights: below, handing out work costs more than
# it gains.
SPLIT_WEIGHTS = 1 << 18


def refusal(program: Program) -> str | None:
    """Why this module cannot run the program, or None."""
    if program.formats is not None and program.formats.stochastic:
        return 'backend="numba" rounds to nearest only; backend="cpp" and backend="reference" round stochastically'
    if program.common:
        return 'backend="numba" has no tangent kernel; backend="cpp" and backend="reference" do'
    if program.counts.weight and (len(program.window_steps) or program.has_groups):
        return (
            'backend="numba" sums no gradients of convolutions that share a weight; '
            'backend="cpp" does, without groups, and backend="reference"'
        )
    return None


def memory(program: Program, threads: int) -> int:
    """Bytes of workspace for so many replicas at a time."""
    found, _, _ = numba_records.sizes(program, 1, (TAPE_BYTES, KEPT_BYTES))
    workspace = sum(int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize for shape, dtype in found.values())
    return threads * (workspace + heads.memory(program))


def run(program: Program, first: int, count: int, *, threads: int = 1, keep: Sequence[str] = ()) -> dict[str, Any]:
    """Rows of replicas first .. first + count - 1, see docs/design.md section 5."""
    if keep:
        raise ValueError('backend="numba" keeps no arrays; backend="reference" does')
    out, stop = _rows(program, count), np.zeros(1, np.int64)
    make = partial(numba_records.workspace, program, bounds=(TAPE_BYTES, KEPT_BYTES))
    plain = "float64" if program.exponent else program.dtype
    with contextlib.ExitStack() as stack:
        functions = [stack.enter_context(callbacks.Row(activation, plain)) for activation in program.activations]
        compares = rounding.NEITHER if program.formats is None else rounding.COMPARED
        spec = numba_records.specify(program, functions, out, stop, compares)
        passes = [(program, spec.record, out)]
        if program.formats is not None:  # the same weights without formats first
            beside, unwanted = dataclasses.replace(program, formats=None), _rows(program, count)
            kept = numba_records.specify(beside, functions, unwanted, stop, rounding.KEPT)
            passes.insert(0, (beside, kept.record, unwanted))
        if count < threads and int((program.layers.units * program.layers.columns).max(initial=0)) >= SPLIT_WEIGHTS:
            work = make(threads)
            with numba_threads.Team(threads, stop) as team:
                for index in range(count):
                    for of, record, rows in passes:
                        _Split(of, record, work, first + index, index, team, rows).run()
        else:
            _in_pieces(partial(_replicas, passes, first), lambda: make(1), count, threads, stop)
        for function in functions:
            function.check()
    return _named(program, out)


def _rows(program: Program, count: int) -> Floats:
    """What kernels write rows into: (rows, count, numbers of the longest) float64."""
    counts = program.counts
    return np.full(
        (len(observables.ROWS), count, max(counts.node + 1, counts.layer, counts.activation, counts.mix)), np.nan
    )


def _named(program: Program, out: Floats) -> dict[str, Any]:
    """Rows by name from that array."""
    counts = program.counts
    shapes = [observables.shape(row, out.shape[1], counts) for row in observables.ROWS]
    return {
        row.name: out[i, :, 0].copy() if len(shape) == 1 else out[i, :, : shape[1]]
        for i, (row, shape) in enumerate(zip(observables.ROWS, shapes, strict=True))
    }


def _in_pieces(
    work_off: Callable[[Any, int, int], None],
    make: Callable[[], numba_records.Filled],
    count: int,
    threads: int,
    stop: Ints,
) -> None:
    """work_off(workspace, start, end) over pieces of range(count), a thread each with its own workspace from `make`."""
    workers = min(threads, count)
    step = max(1, -(-count // (4 * workers)))
    starts = iter(range(0, count, step))

    def worker() -> None:
        work = make()
        for start in starts:
            work_off(work, start, min(start + step, count))

    with numba_threads.Team(workers, stop) as team:
        team.run([worker] * workers)


def _replicas(
    passes: list[tuple[Program, np.void, Floats]], first: int, work: numba_records.Filled, start: int, end: int
) -> None:
    """Replicas first + start .. first + end - 1 into rows start .. end - 1: of each pass (program, spec, rows), one
    replica after the other where there are two."""
    together = end - start if len(passes) == 1 else 1
    for index in range(start, end, together):
        for program, spec, out in passes:
            _some_replicas(program, spec, out, first, work, index, index + together)


def _some_replicas(
    program: Program, spec: np.void, out: Floats, first: int, work: numba_records.Filled, start: int, end: int
) -> None:
    if program.head.loss is None:
        loop.replicas(spec, work.record, first, start, end, 7)
        return
    for index in range(start, end):
        loop.replicas(spec, work.record, first, index, index + 1, 1)
        _head(program, work, first + index, out, index)
        loop.replicas(spec, work.record, first, index, index + 1, 4)


class _Split:
    """One replica, the products of its layers cut among a team: the loop of `kernels.run` once more, in Python."""

    def __init__(
        self,
        program: Program,
        spec: np.void,
        work: numba_records.Filled,
        replica: int,
        index: int,
        team: numba_threads.Team,
        out: Floats,
    ) -> None:
        self.program, self.spec, self.work, self.replica, self.index, self.team, self.out = (
            program,
            spec,
            work,
            replica,
            index,
            team,
            out,
        )
        self.starts = np.cumsum([0, *(stretch.count for stretch in program.stretches)])

    def run(self) -> None:
        segments = len(self.work.cuts) - 1
        self.alone(loop.begin, self.replica)
        for s in range(segments):
            if segments > 1:
                self.alone(loop.save, s)
            self.forward(s)
        if self.program.head.loss is None:
            self.alone(loop.cotangent, self.replica)
        else:
            _head(self.program, self.work, self.replica, self.out, self.index)
        for s in reversed(range(segments)):
            if s < segments - 1:
                self.alone(loop.resume, s)
                self.forward(s)
                self.alone(loop.restore, s)
            for op, address, number, _ in reversed(list(self.ops(s))):
                if self.program.formats is not None and op.kind != "node":
                    self.alone(rounding.store_gradient, address)
                self.step(
                    OPS[op.kind].BACKWARD, address, number, lambda l: -(-int(self.program.layers.columns[l]) // 64)
                )
        self.alone(loop.finish, self.index)

    def forward(self, s: int) -> None:
        for op, address, number, repetition in self.ops(s):
            self.step(OPS[op.kind].FORWARD, address, number, lambda l: -(-int(self.program.layers.units[l]) // 16))
            if self.program.formats is not None and op.kind != "node":
                self.alone(rounding.store_signal, address, repetition)

    def ops(self, s: int) -> Iterator[tuple[Op, int, int, int]]:
        """The ops of segment s in order, the addresses of their rows, their numbers and repetitions."""
        for q in range(self.work.cuts[s], self.work.cuts[s + 1]):
            t = int(np.searchsorted(self.starts, q, side="right")) - 1
            stretch, at = self.program.stretches[t], sum(len(before.ops) for before in self.program.stretches[:t])
            for o, op in enumerate(stretch.ops):
                number = stretch.number(TABLES[op.kind], op, int(q - self.starts[t]))
                yield op, int(self.spec["ops"]) + 8 * records.OP * (at + o), number, int(q - self.starts[t])

    def step(
        self, kernels: tuple[Callable[..., None], ...], address: int, number: int, panels: Callable[[int], int]
    ) -> None:
        self.alone(kernels[0], address, number, self.replica, self.index)
        if len(kernels) > 1:
            self.share(kernels[1], panels(number), address, number, self.replica)
            self.alone(kernels[2], address, number, self.replica, self.index)

    def alone(self, kernel: Callable[..., None], *numbers: int) -> None:
        self.team.run([lambda: kernel(self.spec, self.work.record, *numbers)])

    def share(self, kernel: Callable[..., None], total: int, *numbers: int) -> None:
        cuts = np.linspace(0, total, self.team.size + 1).astype(int)
        pieces = zip(range(self.team.size), cuts[:-1], cuts[1:], strict=True)
        self.team.run([partial(kernel, self.spec, self.work.record, *numbers, *piece) for piece in pieces])


def _head(program: Program, work: numba_records.Filled, replica: int, out: Floats, index: int) -> None:
    """dJ/da[N] of a head as the gradient of register 0: small, so the reference's NumPy does it."""
    n, columns = int(program.nodes[-1]), program.columns_out
    signal, x = numba_records.slot(work, 0)
    count = -(-n // 16) * 16 * columns
    dtype = np.float64 if program.exponent else program.dtype
    last = Block(blocks.unpack(x[:count], n, columns).astype(dtype), int(signal[records.E]), program.exponent)
    with np.errstate(all="ignore"):
        g, out[observables.NAMES.index("loss"), index, 0] = heads.objective(program, replica, last)
        mantissas, e = g.x, g.e
        if program.exponent and mantissas.any():
            power = int(np.frexp(np.abs(mantissas).max())[1])
            mantissas, e = np.ldexp(mantissas, -power), e + power
        x[:count] = blocks.pack(mantissas, program.dtype)
    signal[records.E] = blocks.renormalise(x, count, e, numba_records.BOUNDS[program.dtype] if program.exponent else 0)
    signal[records.HELD] = 1
