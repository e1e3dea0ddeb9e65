# SPDX-License-Identifier: BSD-3-Clause
"""The definition: a program forward and backward in plain NumPy, float64, op by op. Every other backend is tested
against it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, Protocol

import numpy as np

from pykernel import observables, stream
from pykernel.block import Block
from pykernel.dtypes import Floats
from pykernel.engines import heads
from pykernel.engines.rounding import Rounding, stored, stored_weight
from pykernel.ops import OPS, drive, linear
from pykernel.ops.linear import by_group, from_groups
from pykernel.program import Op, Program
from pykernel.seen import Operator
from pykernel.tangent import Tangent
from pykernel.totals import Total


def refusal(program: Program) -> str | None:
    """Why this module cannot run the program, or None."""
    return None


def run(program: Program, first: int, count: int, *, threads: int = 1, keep: Sequence[str] = ()) -> dict:
    """Rows of replicas first .. first + count - 1; with `keep`, also lists of the named arrays a replica (see
    Kept)."""
    return run_operators(program, first, count, Dense, keep)


def run_operators(
    program: Program, first: int, count: int, operator: Callable[[Program, int], Weights], keep: Sequence[str] = ()
) -> dict:
    """Run with the weights that `operator(program, replica)` stands for."""
    counts = program.counts
    out: dict[str, Any] = {row.name: np.full(observables.shape(row, count, counts), np.nan) for row in observables.ROWS}
    traces, kernels = [], []
    for index in range(count):
        kept = Kept(keep)
        rows = {name: array[index : index + 1] for name, array in out.items()}
        with np.errstate(all="ignore"):
            tangent = _replica(program, first + index, operator, rows, kept)
        traces.append(kept.arrays)
        if tangent is not None:
            kernels.append(tangent.kernel())
    if keep:
        out["keep"] = traces
    if kernels:
        out["tangent_kernel"] = np.stack(kernels)
    return out


def _replica(
    program: Program,
    replica: int,
    operator: Callable[[Program, int], Weights],
    rows: dict[str, np.ndarray],
    kept: Kept,
    traced: list | None = None,
) -> Tangent | None:
    """One replica, and its Tangent where there is one; in a run with formats the same weights beside without them, op
    by op."""
    weights = operator(program, replica)
    if program.formats is None:
        run = Run(program, replica, weights, rows, kept, traced=traced)
        run.forward()
        run.backward()
        return run.tangent
    unused = {name: np.empty_like(array) for name, array in rows.items()}
    plain = Run(dataclasses.replace(program, formats=None), replica, weights.beside(), unused, Kept(()))
    run = Run(program, replica, weights, rows, kept, beside=plain, traced=traced)
    for way in ("_forward", "_backward"):  # op by op: oracles' draws go by the order of questions
        for _ in zip_longest(*(getattr(r, way)() for r in (plain, run))):
            pass
    return None


def trace(program: Program, replica: int, operator: Callable[[Program, int], Weights] | None = None) -> Floats:
    """(exponent, log10 of the norm) of what every op of a replica wrote: forward the ops in order, backward the
    registers that each read."""
    rows = {row.name: np.full(observables.shape(row, 1, program.counts), np.nan) for row in observables.ROWS}
    traced: list = []
    with np.errstate(all="ignore"):
        _replica(program, replica, operator or Dense, rows, Kept(()), traced)
    return np.array(traced)


class Weights(Operator, Protocol):
    """The weights of a replica, and the same without formats."""

    def beside(self) -> Weights:
        """For the run beside."""


class Kept:
    """Arrays kept on request, true values in float64, by layer; "activation" and "grad_activation" by node, the input's
    at 0; totals by distinct weight, from 1. Beside NAMES, for training: "input" of each layer, and "head_input",
    "logits", "grad_logits" at 0."""

    NAMES = (
        *("activation", "preactivation", "grad_activation", "grad_preactivation", "grad_weight", "grad_bias"),
        *("grad_weight_total", "grad_bias_total"),
    )

    def __init__(self, keep: Sequence[str]) -> None:
        self.arrays: dict[str, dict[int, Any]] = {name: {} for name in keep}

    def keep(self, name: str, number: int, make: Callable[[], Any]) -> None:
        if name in self.arrays:
            self.arrays[name][number] = make()


class Dense:
    """Unit draws D[l] of every weight as matrices: forward D u, backward D^T delta; the layer's scale is applied by the
    caller. What is rounded is the weight itself: then that stands for D, and the scale is 1."""

    def __init__(self, program: Program, replica: int) -> None:
        self.program, self.replica = program, replica

    def matrix(self, layer: int) -> np.ndarray:
        """The unit draw of W[layer], (n[l], n[l-1]) float64, or the caller's own weight."""
        program = self.program
        rows, columns, address = (
            int(a[layer - 1]) for a in (program.layers.units, program.layers.columns, program.layers.address)
        )
        draw = program.draw(layer)
        if program.weights is not None and program.weights[layer - 1] is not None:
            return program.weights[layer - 1]
        if draw.distribution == "identity":
            return np.eye(rows, columns)
        if draw.distribution == "constant":
            return np.ones((rows, columns))
        if draw.distribution == "haar":
            taps = int(program.layers.taps[layer - 1]) if draw.parameter else 1  # all but the middle one are zero
            whole, each = np.zeros((rows, columns)), columns // taps
            at = taps // 2 * each
            normals = stream.matrix(program.seed, address, self.replica, rows, each).astype(np.float64)
            whole[:, at : at + each] = haar(normals)
            return whole
        return stream.matrix(program.seed, address, self.replica, rows, columns, *draw).astype(np.float64)

    def beside(self) -> Dense:
        """The same weights without formats."""
        return Dense(dataclasses.replace(self.program, formats=None), self.replica)

    def rounds(self) -> bool:
        """Whether weights are rounded."""
        return self.program.formats is not None and self.program.formats.row("weights") is not None

    def scale(self, layer: int) -> float:
        """What products are multiplied with."""
        return 1.0 if self.rounds() else self.program.layers.scale[layer - 1]

    def stored(self, layer: int) -> np.ndarray:
        """The matrix of products."""
        if not self.rounds():
            return self.matrix(layer)
        weight = self.program.layers.scale[layer - 1] * self.matrix(layer)
        address = int(self.program.layers.address[layer - 1])
        return stored_weight(self.program, self.replica, address, weight.astype(self.program.dtype))

    def forward(self, layer: int, u: np.ndarray) -> np.ndarray:
        weight = self._by_group(layer, u.dtype)
        return (weight @ by_group(self.program, layer - 1, u)).reshape(-1, u.shape[1])

    def backward(self, layer: int, delta: np.ndarray) -> np.ndarray:
        weight = self._by_group(layer, delta.dtype)
        du = weight.swapaxes(1, 2) @ delta.reshape(len(weight), -1, delta.shape[1])
        return from_groups(self.program, layer - 1, du)

    def _by_group(self, layer: int, dtype: np.dtype) -> np.ndarray:
        """The weight as (groups, rows, columns)."""
        weight = self.stored(layer).astype(dtype)
        return weight.reshape(int(self.program.layers.groups[layer - 1]), -1, weight.shape[1])


def haar(normals: Floats) -> Floats:
    """Orthonormal rows or columns, whichever are fewer, uniform: QR with a positive diagonal (Mezzadri 2007)."""
    if normals.shape[0] < normals.shape[1]:
        return haar(normals.T).T
    q, r = np.linalg.qr(normals)
    return q * np.where(np.diag(r) < 0, -1.0, 1.0)


class Run:
    """One replica: what the ops see of it.

    Attributes:
        program, replica: what runs.  operator: who multiplies by the weights.
        registers: register -> Block, forward.  gradients: the same, backward.
        trace: keeps arrays on request.  traced: list of what ops wrote, or None.
        rounding: rounds what is stored, or None.
        at: the number of the op whose turn it is, in the order in which all run, from 1; 0 at the input.
        turn: which pass over the network this is, of several in training; masks are drawn anew in each.
    """

    def __init__(
        self,
        program: Program,
        replica: int,
        operator: Operator,
        rows: dict[str, np.ndarray],
        trace: Kept,
        beside: Run | None = None,
        traced: list | None = None,
    ) -> None:
        self.program, self.replica, self.operator, self.rows, self.trace = program, replica, operator, rows, trace
        self.registers: dict[int, Block] = {}
        self.gradients: dict[int, Block] = {}
        self.tape: list[tuple[Op, int, Any]] = []
        self.tangent = Tangent(program) if program.common else None
        self.totals: dict[
            int, Total
        ] = {}  # of each shared weight its gradient and its bias's, summed over the uses so far
        self.traced, self.at, self.turn = traced, 0, 0
        self.rounding = None if beside is None else Rounding(self, beside)
        self.nodes: dict[tuple[str, int], Block] = {}  # of a run beside another: its signals and gradients at nodes

    def put(self, name: str, number: int, value: Any) -> None:
        """An entry of a row."""
        self.rows[name][0, number] = value

    def take(self, register: int) -> Block:
        """The gradient of a register as it is stored; the register has none then."""
        gradient = self.gradients.pop(register)
        return gradient if self.rounding is None else self.rounding.stored("gradients", gradient)

    def give(self, register: int, gradient: Block) -> None:
        """Add to the gradient of a register."""
        known = self.gradients.get(register)
        self.gradients[register] = gradient if known is None else gradient.plus(known)

    def steps(self) -> Iterator[tuple[Op, int]]:
        """Every op in order, with its number."""
        for stretch in self.program.stretches:
            for repetition in range(stretch.count):
                for op in stretch.ops:
                    yield op, stretch.number(OPS[op.kind].TABLE, op, repetition)

    def note(self, word: str, blocks: dict[int, Block], registers: Iterable[int]) -> None:
        """What an op wrote of "signals" or "gradients", as it is stored, where somebody asks; what is to be rounded by
        chance as it lies."""
        if self.traced is not None:
            found = [blocks.get(register) for register in dict.fromkeys(registers)]
            if self.program.formats is not None and not self.program.formats.stochastic:
                found = [None if b is None else stored(self.program, self.replica, word, b, 0) for b in found]
            self.traced += [(0, np.nan) if b is None else (b.e, b.log10_norm()) for b in found]

    def forward(self) -> None:
        """From the input to dJ/da[N]."""
        self.at = 0
        for _ in self._forward():
            pass

    def _forward(self) -> Iterator[None]:
        """The same, an op at a time."""
        self.registers[0] = self.store(0, input_block(self.program, self.replica))
        self.trace.keep("activation", 0, self.registers[0].true)
        steps = list(self.steps())
        for (op, number), (following, step) in zip(steps, [*steps[1:], (None, 0)], strict=True):
            self.at += 1
            self.tape.append((op, number, OPS[op.kind].forward(self, op, number)))
            later = following is not None and following.kind == "phi" and following.ins[0] == op.out
            if op.kind != "node" and not (later and self.program.passes_formats[step]):
                self.registers[op.out] = self.store(op.out, self.registers[op.out])
            self.note("signals", self.registers, (op.out,))
            yield
        self.gradients[0], self.rows["loss"][0] = _objective(
            self.program, self.replica, self.registers[0], self.trace.keep
        )

    def store(self, register: int, block: Block) -> Block:
        """What is left of a block when it is stored."""
        return block if self.rounding is None else self.rounding.signal(register, block)

    def backward(self) -> None:
        """Back to dJ/da[0]."""
        for _ in self._backward():
            pass

    def _backward(self) -> Iterator[None]:
        """The same, an op at a time."""
        while self.tape:
            op, number, kept = self.tape.pop()
            OPS[op.kind].backward(self, op, number, kept)
            self.at -= 1
            self.note("gradients", self.gradients, op.ins)
            yield
        linear.finish(self)
        g = self.take(0)
        self.put("log10_grad_activation", 0, g.log10_norm())
        self.trace.keep("grad_activation", 0, g.true)


def input_block(program: Program, replica: int, tall: Callable[..., np.ndarray] = stream.tall) -> Block:
    """a[0] of a replica, drawn (by the stream's definition or what has its bits) or the caller's."""
    if program.x is not None:
        return Block.of(program, program.x)
    return Block.of(program, drive.drawn(program, replica, 0, int(program.nodes[0]), tall))


def _objective(program: Program, replica: int, last: Block, keep: heads.Keep) -> tuple[Block, float]:
    """dJ/da[N], times the loss scale where there is one, and J."""
    if program.head.loss is not None:
        return heads.objective(program, replica, last, keep)
    if program.cotangent is not None:
        c = program.cotangent
    elif program.common:
        n, columns = last.x.shape
        c = stream.tall(program.seed, stream.COTANGENT, program.depth, replica, n).astype(np.float64)
        c = np.broadcast_to(c / math.sqrt(n), (n, columns))
    else:
        n, columns = last.x.shape
        c = stream.tall(program.seed, stream.COTANGENT, program.depth, replica, n, columns).astype(np.float64)
        c = c / math.sqrt(n * columns)
    g = Block.of(program, c)
    return g if program.formats is None else g.times(program.formats.loss_scale), math.nan


def memory(program: Program, threads: int = 1) -> int:
    """Bytes of one replica: what the ops keep, about four blocks a layer, and the draw of one matrix with its
    intermediates."""
    layers = program.layers
    rows, columns, taps = (a.astype(object) for a in (layers.units, layers.columns, layers.taps))
    blocks = program.batch * (layers.positions.astype(object) * (rows + (taps > 1) * columns * layers.groups)).sum()
    draw = 200 * (rows * columns).max()
    return int(8 * 6 * (blocks + program.columns * int(program.nodes[0])) + max(draw, heads.memory(program)))
