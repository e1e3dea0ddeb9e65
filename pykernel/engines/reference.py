# SPDX-License-Identifier: BSD-3-Clause
"""The definition: a program forward and backward in plain NumPy, float64, op by op. Every other backend is tested
against it."""

from __future__ import annotations

import math

import numpy as np

from pykernel import observables, stream
from pykernel.block import Block
from pykernel.engines import heads
from pykernel.ops import OPS
from pykernel.program import Program


def refusal(program: Program) -> str | None:
    """Why this module cannot run the program, or None."""
    return None


def run(program: Program, first: int, count: int, *, threads: int = 1, keep=()) -> dict:
    """Rows of replicas first .. first + count - 1; with `keep`, also lists of the named arrays a replica (see
    Kept)."""
    return run_operators(program, first, count, Dense, keep)


def run_operators(program, first, count, operator, keep=()):
    """Run with the weights that `operator(program, replica)` stands for."""
    counts = program.counts
    out = {row.name: np.full(observables.shape(row, count, counts), np.nan) for row in observables.ROWS}
    traces = []
    for index in range(count):
        kept = Kept(keep)
        rows = {name: array[index : index + 1] for name, array in out.items()}
        with np.errstate(all="ignore"):
            Run(program, first + index, operator(program, first + index), rows, kept).replica_run()
        traces.append(kept.arrays)
    if keep:
        out["keep"] = traces
    return out


def trace(program, replica, operator=None):
    """(exponent, log10 of the norm) of what every op of a replica wrote: forward the ops in order, backward the
    registers that each read."""
    rows = {row.name: np.full(observables.shape(row, 1, program.counts), np.nan) for row in observables.ROWS}
    run = Run(program, replica, (operator or Dense)(program, replica), rows, Kept(()))
    run.traced = []
    with np.errstate(all="ignore"):
        run.replica_run()
    return np.array(run.traced)


class Kept:
    """Arrays kept on request, true values in float64, by layer; "activation" and "grad_activation" by node, the input's
    at 0."""

    NAMES = ("activation", "preactivation", "grad_activation", "grad_preactivation", "grad_weight", "grad_bias")

    def __init__(self, keep):
        self.arrays = {name: {} for name in keep}

    def keep(self, name, number, make):
        if name in self.arrays:
            self.arrays[name][number] = make()


class Dense:
    """Unit draws D[l] of every weight as matrices: forward D u, backward D^T delta; the layer's scale is applied by the
    caller."""

    def __init__(self, program, replica):
        self.program, self.replica = program, replica

    def matrix(self, layer):
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
            return haar(stream.matrix(program.seed, address, self.replica, rows, columns).astype(np.float64))
        return stream.matrix(program.seed, address, self.replica, rows, columns, *draw).astype(np.float64)

    def forward(self, layer, u):
        return self.matrix(layer).astype(u.dtype) @ u

    def backward(self, layer, delta):
        return self.matrix(layer).T.astype(delta.dtype) @ delta


def haar(normals):
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
    """

    def __init__(self, program, replica, operator, rows, trace):
        self.program, self.replica, self.operator, self.rows, self.trace = program, replica, operator, rows, trace
        self.registers, self.gradients = {}, {}
        self.traced = None

    def put(self, name, number, value):
        """An entry of a row."""
        self.rows[name][0, number] = value

    def take(self, register):
        """The gradient of a register, which then has none."""
        return self.gradients.pop(register)

    def give(self, register, gradient):
        """Add to the gradient of a register."""
        known = self.gradients.get(register)
        self.gradients[register] = gradient if known is None else gradient.plus(known)

    def steps(self):
        """Every op in order, with its number."""
        for stretch in self.program.stretches:
            for repetition in range(stretch.count):
                for op in stretch.ops:
                    yield op, stretch.number(OPS[op.kind].TABLE, op, repetition)

    def note(self, blocks, registers):
        """What an op wrote, where somebody asks."""
        if self.traced is not None:
            found = [blocks.get(register) for register in dict.fromkeys(registers)]
            self.traced += [(0, np.nan) if b is None else (b.e, b.log10_norm()) for b in found]

    def replica_run(self):
        """Forward, objective, backward."""
        self.registers[0] = input_block(self.program, self.replica)
        self.trace.keep("activation", 0, self.registers[0].true)
        tape = []
        for op, number in self.steps():
            tape.append((op, number, OPS[op.kind].forward(self, op, number)))
            self.note(self.registers, (op.out,))
        self.gradients[0], self.rows["loss"][0] = _objective(self.program, self.replica, self.registers[0])
        while tape:
            op, number, kept = tape.pop()
            OPS[op.kind].backward(self, op, number, kept)
            self.note(self.gradients, op.ins)
        g = self.take(0)
        self.put("log10_grad_activation", 0, g.log10_norm())
        self.trace.keep("grad_activation", 0, g.true)


def input_block(program, replica):
    """a[0] of a replica, drawn or the caller's."""
    n, columns, c = int(program.nodes[0]), program.columns, program.correlation
    if program.x is not None:
        return Block.of(program, program.x)
    own = stream.tall(program.seed, stream.INPUT, 0, replica, n, columns).astype(np.float64)
    if c == 0:
        return Block.of(program, own)
    common = stream.tall(program.seed, stream.INPUT_COMMON, 0, replica, n).astype(np.float64)
    return Block.of(program, math.sqrt(c) * common + math.sqrt(1 - c) * own)


def _objective(program, replica, last):
    """dJ/da[N] and J."""
    if program.head.loss is not None:
        return heads.objective(program, replica, last)
    if program.cotangent is not None:
        return Block.of(program, program.cotangent), math.nan
    n, columns = last.x.shape
    normals = stream.tall(program.seed, stream.COTANGENT, program.depth, replica, n, columns).astype(np.float64)
    return Block.of(program, normals / math.sqrt(n * columns)), math.nan


def memory(program: Program, threads: int = 1) -> int:
    """Bytes of one replica: what the ops keep, about four blocks a layer, and the draw of one matrix with its
    intermediates."""
    rows, columns = (a.astype(object) for a in (program.layers.units, program.layers.columns))
    return int(8 * 6 * program.columns * (rows.sum() + int(program.nodes[0])) + 200 * (rows * columns).max())
