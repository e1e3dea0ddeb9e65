# SPDX-License-Identifier: BSD-3-Clause
"""trace: exponent and norm of every op's result, forward and backward, and the first op at which two backends part."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pykernel import checks
from pykernel.chain import Chain
from pykernel.engines import BACKENDS, run
from pykernel.ops import OPS
from pykernel.program import MAX_REPLICAS, Program
from pykernel.samplers import with_samples
from pykernel.tables import Shown, Strong, Table

# Decades by which norms may differ: roundings of the dtype, grown over some hundred layers.
TOLERANCE = {"float32": 1e-3, "float64": 1e-9}
ROUNDING = 1e-14  # of norms of more decades than float64 tells apart
SHOWN = 20  # lines of a table at either end, and around the difference


class Entry(NamedTuple):
    """What an op wrote: forward its result, backward the gradient of a register that it read (of all so far).

    In a run with formats both are as they are stored, rounded, and the loss scale is divided out; what waits to be
    rounded stochastically, as it lies.

    Attributes:
        direction: "forward" or "backward".
        op: what it is of the chain, as "3.linear".
        register: which running block; 0 is the signal.
        exponent: power of two that the block carries.
        log10_norm: of its Frobenius norm, in decades.
    """

    direction: str
    op: str
    register: int
    exponent: int
    log10_norm: float


@dataclass(frozen=True)
class Trace(Shown):
    """One replica op by op.

    Attributes:
        chain, replica, engine, backend, dtype: what ran.
        entries: an `Entry` for every op forward, then for every register that an op backward gave to.
        against: the same of another backend, or None; tolerance: decades by which norms may differ.
    """

    chain: Chain
    replica: int
    engine: str
    backend: str
    dtype: str
    entries: list[Entry] = field(repr=False)
    against: Trace | None = None
    tolerance: float = 0.0

    @property
    def difference(self) -> tuple[Entry, Entry] | None:
        """The first entries whose norms differ by more than `tolerance`, or None."""
        place = self._place()
        return None if place is None or self.against is None else (self.entries[place], self.against.entries[place])

    def _place(self) -> int | None:
        if self.against is None:
            return None
        mine, other = (np.array([entry.log10_norm for entry in t.entries]) for t in (self, self.against))
        with np.errstate(invalid="ignore"):
            room = self.tolerance + ROUNDING * np.abs(mine)
            near = np.isfinite(mine) & (np.abs(mine - other) <= room)
            apart = ~(near | (mine == other) | (np.isnan(mine) & np.isnan(other)))
        return int(apart.argmax()) if apart.any() else None

    def to_dataframe(self) -> Any:
        """A pandas.DataFrame, one line an entry; with another backend its exponent and norm beside."""
        import pandas

        frame = pandas.DataFrame(self.entries, columns=list(Entry._fields))
        if self.against is not None:
            for name in ("exponent", "log10_norm"):
                frame[f"{name}_{self.against.backend}"] = [getattr(entry, name) for entry in self.against.entries]
        return frame

    def shown(self) -> list[str | Table]:
        """What ran, its first and last entries, and those around the first difference."""
        place, count = self._place(), len(self.entries)
        shown = {*range(min(SHOWN, count)), *range(max(0, count - SHOWN), count)}
        if place is not None:
            shown |= set(range(max(0, place - 2), min(count, place + 3)))
        titles = ["direction", "op", "register", "exponent", "log10 norm"]
        titles += [] if self.against is None else [self.against.backend, "which"]
        lines: list[list[str]] = []
        before = -1
        for i in sorted(shown):
            if i != before + 1:
                lines.append(["..."] + [""] * (len(titles) - 1))
            entry = self.entries[i]
            line = [entry.direction, entry.op, str(entry.register), str(entry.exponent), f"{entry.log10_norm:.6g}"]
            if self.against is not None:
                line += [f"{self.against.entries[i].log10_norm:.6g}", "<- differs" if i == place else ""]
            lines.append(line)
            before = i
        what = f"{self.chain}: replica {self.replica}, {self.engine}, {self.backend}, {self.dtype}"
        return [Strong(what), Table(titles, lines, left=("direction", "op", "which")), *self._sentence()]

    def _sentence(self) -> list[str]:
        if self.against is None:
            return []
        found = self.difference
        names = f"{self.backend} and {self.against.backend}"
        if found is None:
            return [f"{names} agree within {self.tolerance:g} decades"]
        mine, other = found
        return [
            f"{names} differ first in {mine.op}, {mine.direction}: log10 of the norm {mine.log10_norm:.9g} and "
            f"{other.log10_norm:.9g}"
        ]


def trace(
    chain: Chain,
    *,
    replica: int = 0,
    engine: str = "dense",
    backend: str = "reference",
    against: str | None = None,
    tolerance: float | None = None,
    batch: int = 1,
    positions: Any = (),
    seed: int = 0,
    dtype: str = "float32",
    precision: str = "exponent",
    correlation: float = 0.0,
    x: Any = None,
    cotangent: Any = None,
    weights: Any = None,
    biases: Any = None,
    batch_first: bool = False,
    formats: Any = None,
) -> Trace:
    """Exponent and norm of what every op of one replica wrote, forward and backward.

    Args:
        chain: what to run, of a size that the backends can.
        replica: which draw of the weights.
        engine: "dense" or "matrix_free".
        backend: "reference" or "cpp".
        against: another backend, whose norms are held against these.
        tolerance: decades by which norms may differ; by default what roundings of the dtype come to.
        batch, positions, seed, dtype, precision, correlation, x, cotangent, weights, biases, batch_first, formats: as
            for `propagate`.

    Returns:
        Trace: entries, the first difference, and a table as its text.

    Raises:
        ValueError, TypeError: what was given and what is allowed.

    Examples:
        >>> t = trace(Chain(depth=2, width=8, activation="tanh"), against="cpp")
        >>> [entry.op for entry in t.entries[:3]], t.difference
        (['1.linear', '1.tanh', '1.node'], None)
        >>> print(str(t).splitlines()[-1])
        reference and cpp agree within 0.001 decades
    """
    replica = checks.integer("replica", replica, 0, MAX_REPLICAS - 1)
    if tolerance is not None:
        tolerance = checks.positive("tolerance", tolerance)
    words = dict(
        batch=batch,
        positions=positions,
        seed=seed,
        dtype=dtype,
        precision=precision,
        correlation=correlation,
        x=x,
        cotangent=cotangent,
        weights=weights,
        biases=biases,
        batch_first=batch_first,
        formats=formats,
    )
    made = _traced(chain, replica, engine, backend, words)
    if against is None:
        return made
    other = _traced(chain, replica, engine, against, words)
    return dataclasses.replace(made, against=other, tolerance=tolerance or TOLERANCE[made.dtype])


def _traced(chain: Chain, replica: int, engine: str, backend: str, words: dict) -> Trace:
    checks.choice("backend", backend, BACKENDS)
    job = run.prepare(chain, engine=engine, backend=backend, **words)
    if not hasattr(job.choice.module, "trace"):
        raise ValueError(f'backend="{backend}" keeps no trace of its ops; backend="cpp" and backend="reference" do')
    run.require_memory(job, 1)
    program = job.program if job.program.samplers is None else with_samples(job.program, replica)
    found = job.choice.module.trace(program, replica)
    ops = list(_ops(chain, program))
    places = [("forward", op, out) for op, out, _ in ops]
    places += [("backward", op, register) for op, _, ins in reversed(ops) for register in dict.fromkeys(ins)]
    if program.formats is not None:
        found[len(ops) :, 1] -= math.log10(program.formats.loss_scale)
    entries = [Entry(*place, int(e), norm) for place, (e, norm) in zip(places, found.tolist(), strict=True)]
    return Trace(chain, replica, job.choice.engine, backend, program.dtype, entries)


def _ops(chain: Chain, program: Program) -> Any:
    """(what it is of the chain, the register it writes, those it reads) of every op in order."""
    layers, steps = chain.layers, chain.activations
    block = 1
    for stretch in program.stretches:
        for repetition in range(stretch.count):
            for op in stretch.ops:
                table = OPS[op.kind].TABLE
                names = {"layer": layers, "activation": steps}.get(table)
                number = stretch.number(table, op, repetition)
                yield f"{block}.{op.kind}" if names is None else names[number], op.out, op.ins
                block += op.kind == "node"
