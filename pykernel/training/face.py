# SPDX-License-Identifier: BSD-3-Clause
"""train: full-batch gradient descent from a fresh network, and what is measured at every step."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pykernel import checks, machine, observables
from pykernel.chain import Chain
from pykernel.dtypes import Floats
from pykernel.engines import BACKENDS, ENGINES, matrix_free_refusal, run
from pykernel.engines.choice import choose
from pykernel.program import MAX_REPLICAS, Op, Program
from pykernel.training.descent import Plan, descend
from pykernel.training.parametrizations import TABLE, Row, rates
from pykernel.training.result import Training

if TYPE_CHECKING:  # takes time and memory to load
    from numpy.typing import ArrayLike

MAX_STEPS = 10**6
PAYS = 4  # times as many columns in all as units: an oracle that was asked for more knows a matrix as well as a draw
LARGE = 2**16  # entries of a block from which on NumPy leaves its lock long enough for replicas side by side

Found = TypeVar("Found")


def train(
    chain: Chain,
    *,
    steps: int = 10,
    rate: float = 0.1,
    batch: int = 1,
    replicas: int = 1,
    momentum: float = 0.0,
    parametrization: str = "standard",
    positions: int | tuple[int, ...] = (),
    seed: int = 0,
    engine: str = "auto",
    backend: str = "auto",
    dtype: str = "float32",
    threads: int | None = None,
    correlation: float = 0.0,
    x: ArrayLike | None = None,
    drive: Sequence[ArrayLike] | None = None,
    weights: Sequence[ArrayLike] | None = None,
    biases: Sequence[ArrayLike | None] | None = None,
    batch_first: bool = False,
) -> Training:
    """Train fresh networks by full-batch gradient descent on the loss of their head, and measure every step.

    The inputs and the targets are drawn once, or the caller's (`x`; targets in the `Head`), and stay. Trained are the
    weights of all layers, the head's, and the biases that the chain has; not the scales and shifts of norms. With g the
    gradient of a parameter, v = momentum * v + g and w -= rate * v, as torch.optim.SGD does. A chain's `clip` acts on
    the gradients of what its layers train (not of its head). Masks of dropout are drawn anew at every step.

    Nothing of the size of a weight is stored: the dense engine draws W by its address wherever it is multiplied and
    keeps the pairs (delta, u) of past steps beside it, the matrix-free one asks an oracle (docs/matrix-free.md), with
    which finite-width training is exact in law without weights.

    Args:
        chain: a chain with a `Head`; "linear" is the random read-out.
        steps: of descent. Measured are steps + 1 networks, the fresh one first.
        rate: what the parametrization multiplies.
        batch, positions, replicas, seed, threads, correlation, x, drive, weights, biases, batch_first: as in
            `propagate`.
        momentum: from 0 to 1, without 1.
        parametrization: "standard", "ntk" or "mup", see below.
        engine: "dense", "matrix_free" (Gaussian and orthogonal weights) or "auto": the latter where all columns that
            will be asked are fewer than a quarter of the units.
        backend: "cpp" or "auto" (draws and dense products compiled) or "reference" (all in NumPy).
        dtype: "float32" or "float64", of products with weights and of what is kept; the rest is float64.

    Returns:
        Training: `loss` (replicas, steps + 1), the rows of `propagate` with an axis of steps behind that of replicas,
            and `diverged` (replicas,), the step from which a loss grows without bound, -1 where none does: it is inf
            from there on.

    Raises:
        ValueError, TypeError: before any work, saying what was given and what is allowed.
        TooLarge (a ValueError and MemoryError): the job does not fit in memory.

    Notes:
        Parametrizations, by the role of a layer: *input* (reads the input of a `Drive`, or the chain's, where the first
        block does not end in as many units as come in, so that it does not grow with the width), *output* (the head),
        *hidden* (all others). They multiply the rate, and the standard deviation of a drawn head:

        - standard: rate for all weights and biases;
        - ntk: rate / fan_in for input, hidden and output weights, rate for biases;
        - mup: rate fan_out for input weights, rate for hidden ones, rate / fan_in for the output, whose std is over
          sqrt(fan_in), rate fan_out for biases.

        "ntk": Jacot, Gabriel, Hongler 2018, arXiv 1806.07572, weights w / sqrt(fan_in) with w trained at `rate`, which
        is W trained at rate / fan_in; the scheme's standard deviation stays. "mup": Yang and Hu 2021, arXiv 2011.14522,
        in the form of Yang et al. 2022, arXiv 2203.03466, table 3, the column of SGD; attention that names no scale of
        its own divides scores by the units of a head instead of their root (ibid., definition 4.1).

    Examples:
        >>> import pykernel as pk
        >>> chain = pk.Chain(depth=3, width=64, activation="tanh", init="lecun_normal", head=pk.Head("mse", 1))
        >>> t = pk.train(chain, steps=5, rate=0.02, batch=4, replicas=3)
        >>> t.loss.shape, bool((t.loss[:, -1] < t.loss[:, 0]).all()), t.log10_grad_weight.shape
        ((3, 6), True, (3, 6, 3))
    """
    words: dict[str, Any] = dict(batch=batch, positions=positions, seed=seed, dtype=dtype, correlation=correlation, x=x)
    words |= dict(drive=drive, weights=weights, biases=biases, batch_first=batch_first)
    replicas = checks.integer("replicas", replicas, 1, MAX_REPLICAS)
    plan, engine, backend = planned(chain, steps, rate, momentum, parametrization, engine, backend, threads, words)
    program = plan.program
    needed = 8 * (plan.steps + 1) * observables.entries(replicas, program.counts)
    machine.require_memory(
        needed + memory(plan), f"{plan.steps} steps of training", "ask for fewer steps, replicas or a smaller width"
    )
    rows = {
        row.name: np.full(
            (replicas, plan.steps + 1, *observables.shape(row, replicas, program.counts)[1:]), np.nan, order="C"
        )
        for row in observables.ROWS
    }
    start = time.perf_counter()
    one = lambda r: descend(plan, r, {name: array[r] for name, array in rows.items()})
    with np.errstate(all="ignore"):
        diverged = np.array(for_each(one, replicas, plan))
    return Training(
        chain=chain,
        rows=rows,
        diverged=diverged,
        steps=plan.steps,
        rate=float(rate),
        momentum=plan.momentum,
        parametrization=parametrization,
        batch=program.batch,
        positions=program.positions,
        seed=program.seed,
        engine=engine,
        backend=backend,
        dtype=program.dtype,
        correlation=program.correlation,
        given=tuple(name for name in ("x", "drive", "weights", "biases") if words[name] is not None),
        seconds=time.perf_counter() - start,
    )


def planned(
    chain: Chain,
    steps: int,
    rate: float,
    momentum: float,
    parametrization: str,
    engine: str,
    backend: str,
    threads: int | None,
    words: dict[str, Any],
    grows: bool | None = None,
) -> tuple[Plan, str, str]:
    """The plan of a training with all its words checked, and the names of its engine and backend.

    Args:
        words: those of `lower`.  grows: whether the input grows with the width; None: as its units say.
    """
    steps = checks.integer("steps", steps, 0, MAX_STEPS)
    rate, momentum = checks.not_negative("rate", rate), checks.within("momentum", momentum, 0.0, 1.0)
    if momentum == 1.0:
        raise ValueError("momentum must be below 1, got 1.0")
    checks.choice("parametrization", parametrization, tuple(TABLE))
    checks.choice("engine", engine, ("auto", *ENGINES))
    checks.choice("backend", backend, ("auto", *BACKENDS))
    threads = machine.cores(threads)
    if backend == "numba":
        raise ValueError('backend="numba" does not train; backend="cpp" and backend="reference" do')
    program = run.lowered(chain, **words)
    if program.head.loss is None:
        raise ValueError('training needs a loss: give the chain a Head, Head("linear") for a random read-out')
    if program.has_groups:
        raise ValueError("grouped convolutions are not trained: groups=1 are")
    refusal = matrix_free_refusal(program)
    if engine == "matrix_free" and refusal is not None:
        raise ValueError(refusal)
    if engine == "auto":
        few = PAYS * program.columns * (steps + 1) < int(program.layers.units.max())
        engine = "matrix_free" if few and refusal is None else "dense"
    choose(program, engine, "reference")  # says what the interpreter cannot run
    program = _scaled(program, TABLE[parametrization])
    backend = "cpp" if backend == "auto" else backend
    all_rates = rates(program, parametrization, rate, grows)
    return (
        Plan(program, chain.clip, steps, momentum, all_rates, engine, backend == "cpp", threads),
        engine,
        backend,
    )


def _scaled(program: Program, row: Row) -> Program:
    """The program at a parametrization's initialisation."""
    head, mixes = program.head, program.mixes
    if head.weight is None:
        head = head._replace(scale=head.scale * float(program.nodes[-1]) ** row.init)
    if len(mixes.scale):
        units = _units_of_a_head(program)
        own = mixes.scale == units**-0.5  # where no other scale is given
        mixes = mixes._replace(scale=np.where(own, mixes.scale * units**row.scores, mixes.scale))
    return dataclasses.replace(program, head=head, mixes=mixes)


def _units_of_a_head(program: Program) -> Floats:
    """Of each attention, float64 (mixes,)."""
    units = np.zeros(len(program.mixes.heads))
    for stretch in program.stretches:
        repetition = np.arange(stretch.count)
        made_by = dict[int, Op | None]()
        for op in stretch.ops:
            made_by[op.out] = op if op.kind == "linear" else made_by.get(op.ins[0])
            if op.kind == "mix" and (source := made_by[op.ins[0]]) is not None:
                query = stretch.number("layer", source, repetition)
                units[stretch.number("mix", op, repetition)] = program.layers.units[query]
    return units / program.mixes.heads


def memory(plan: Plan) -> int:
    """Bytes that training one replica keeps: what the ops keep of a pass, and of every layer the columns that were
    asked."""
    program = plan.program
    units, columns = (a.astype(object) for a in (program.layers.units, program.layers.columns))
    one_pass = 8 * 8 * program.columns * int(units.sum() + int(program.nodes[0]))
    size, asked = np.dtype(program.dtype).itemsize, program.columns * (plan.steps + 1)
    most = np.minimum(asked, columns) if plan.engine == "matrix_free" else asked
    kept = (2 if plan.engine == "matrix_free" else 1) * size * int(((units + columns) * most).sum())
    return one_pass + kept


def for_each(work: Callable[[int], Found], count: int, plan: Plan) -> list[Found]:
    """work(0) .. work(count - 1), on threads where blocks are large enough that NumPy works outside its lock."""
    large = int(plan.program.nodes.max()) * plan.program.columns >= LARGE
    if plan.threads == 1 or count == 1 or not large:
        return [work(i) for i in range(count)]
    with ThreadPoolExecutor(min(plan.threads, count)) as pool:
        return list(pool.map(_quietly(work), range(count)))


def _quietly(work: Callable[[int], Found]) -> Callable[[int], Found]:
    """Of threads each has its own floating point state."""

    def quiet(i: int) -> Found:
        with np.errstate(all="ignore"):
            return work(i)

    return quiet
