# SPDX-License-Identifier: BSD-3-Clause
"""Runs a chain through the engine that fits: chosen once, memory and time checked, float64 where float32 loses digits,
gradients clipped.

The one way from a chain to its rows, for `propagate`, sweeps, advice and bridges.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pykernel import checks, machine, observables
from pykernel.chain import Chain
from pykernel.engines.choice import Choice, choose, smaller
from pykernel.lower import lower
from pykernel.measured import Measured
from pykernel.parts import Clip
from pykernel.program import MAX_REPLICAS, Program
from pykernel.samplers import with_samples

# log10 of a mean square whose largest entries reach 2^60 in layers of up to a million units
FAR = 2 * (60 - 10) * np.log10(2)
UNEVEN = 2.0**80
CLIPPED = ("log10_grad_weight", "log10_grad_bias")  # of shared weights the sums over uses
BRIEF = 2**24  # multiply-adds: some 10 ms, and less numbers than 16 MiB hold
NARROW = 64  # units that cost as much as one: layers have costs of their own
LONG = 600.0  # seconds after which a run that was not asked for by name is announced
STACK = 4  # of a warning: this module twice, its caller, and whom the warning is for
YEAR = 365 * 86400.0  # seconds: nobody waits longer
TANGENT = ("tangent_kernel",)  # beside the rows, of a run that asks for it
GIVEN = ("x", "cotangent", "drive", "weights", "biases")


class Job(NamedTuple):
    """A chain lowered, and what runs it."""

    chain: Chain
    program: Program
    choice: Choice


def lowered(chain: Chain, **words: Any) -> Program:
    """The program of a chain under the arguments of `propagate`; refuses what is no chain."""
    if not isinstance(chain, Chain):
        raise TypeError(f"chain must be a pykernel.Chain, got {type(chain).__name__}")
    return lower(chain, **words)


def prepare(
    chain: Chain, *, engine: str = "auto", backend: str = "auto", keep: str | Sequence[str] = (), **words: Any
) -> Job:
    """A chain lowered, with its engine and backend chosen.

    Raises:
        ValueError, TypeError: what was given and what is allowed.
    """
    program = lowered(chain, **words)
    return Job(chain, program, choose(program, engine, backend, keep))


def measure(
    chain: Chain,
    *,
    first: int = 0,
    replicas: int = 1,
    engine: str = "auto",
    threads: int | None = None,
    keep: str | Sequence[str] = (),
    **words: Any,
) -> Measured:
    """Rows of replicas first .. first + replicas - 1. The bits do not depend on how replicas are cut into calls.

    Args:
        chain, replicas, engine, threads, keep: as in `propagate`.
        words: its other arguments: backend, batch, positions, seed, dtype, precision, correlation, x, cotangent,
            drive, weights, biases, formats.

    Raises:
        ValueError, TypeError, TooLarge: as `propagate`, before any work.
    """
    replicas = checks.integer("replicas", replicas, 1, MAX_REPLICAS)
    threads = machine.cores(threads)
    keep = _keep(keep)
    job = prepare(chain, engine=engine, keep=keep, **words)
    program, choice = job.program, job.choice
    if not _is_brief(program, replicas):
        require_memory(job, replicas)
        require_time(job, replicas, threads)
        if engine == "auto":
            announce(job, replicas, threads)
    start = time.perf_counter()
    rows = execute(job, first, replicas, threads, keep)
    kept, tangent_kernel = rows.pop("keep", None), rows.pop("tangent_kernel", None)
    _warn_beyond(program, rows)
    clip_by_norm(chain.clip, rows)
    return Measured(
        chain=chain,
        rows=rows,
        batch=program.batch,
        positions=program.positions,
        seed=program.seed,
        engine=choice.engine,
        backend=choice.backend,
        dtype=program.dtype,
        precision="exponent" if program.exponent else "native",
        correlation=program.correlation,
        formats=program.formats,
        given=tuple(name for name in GIVEN if words.get(name) is not None and not isinstance(words[name], str)),
        seconds=time.perf_counter() - start,
        kept=kept,
        tangent_kernel=tangent_kernel,
    )


def execute(job: Job, first: int, count: int, threads: int, keep: Sequence[str] = ()) -> dict:
    """The rows of replicas before any clipping by norm, with float64 where it must be; "keep" where asked for."""
    program, module = job.program, job.choice.module
    if program.samplers is not None:  # a user's sampler is asked for one replica's weights at a time
        parts = [
            execute(job._replace(program=with_samples(program, r)), r, 1, threads, keep)
            for r in range(first, first + count)
        ]
        names = (*observables.NAMES, *TANGENT) if program.common else observables.NAMES
        rows = {name: np.concatenate([p[name] for p in parts]) for name in names}
        return rows | ({"keep": [p["keep"][0] for p in parts]} if keep else {})
    if program.dtype == "float32" and program.exponent and (_uneven(program.x) or _uneven(program.cotangent)):
        program = dataclasses.replace(program, dtype="float64")
    rows = module.run(program, first, count, threads=threads, keep=keep)
    formats = program.formats
    if formats is None or not (formats.row("signals") or formats.row("gradients")):  # else zeros may be the formats'
        _look_again(module, program, first, rows, threads)
    if formats is not None:
        _divide_loss_scale(formats.loss_scale, rows)
    return rows


def _divide_loss_scale(scale: float, rows: dict) -> None:
    """Take the loss scale out of the rows of gradients, in place."""
    if scale != 1:
        for name in observables.SCALED:
            rows[name] -= np.log10(scale)


def _uneven(columns: np.ndarray | None) -> bool:
    """Whether the caller's columns differ so much in size that float32, with one exponent for all, would lose digits of
    some."""
    if columns is None:
        return False
    sizes = np.abs(columns).max(axis=0)
    sizes = sizes[sizes > 0]
    return bool(sizes.size) and sizes.max() / UNEVEN > sizes.min()


def _look_again(module: Any, program: Program, first: int, rows: dict, threads: int) -> None:
    """Where float32 says that a gradient is exactly zero although every layer passes something, float64 is asked,
    replica by replica.

    A block has one exponent: an input or unit 2^-149 below the block's largest is zero in float32, and so may be all
    that reaches a weight.
    """
    if program.dtype != "float32" or not program.exponent:
        return
    gradients = ("log10_grad_weight", "log10_grad_activation")
    if all(rows[name].min(initial=0) > -np.inf for name in gradients) or not program.joins.branch.all():
        return
    zero = {name: np.isneginf(rows[name]) for name in gradients}
    for i in np.flatnonzero(np.any([z.any(axis=1) for z in zero.values()], axis=0)):
        if not np.isfinite(rows["log10_mean_square_activation"][i]).all() or not (rows["dead"][i] < 1).all():
            continue
        again = module.run(dataclasses.replace(program, dtype="float64"), first + int(i), 1, threads=threads)
        if any((zero[name][i] & np.isfinite(again[name][0])).any() for name in gradients):
            for name in again:
                rows[name][i] = again[name][0]


def clip_by_norm(clip: Clip | None, rows: dict) -> None:
    """Apply clipping by norm to the rows of the parameter gradients, in place: g -> g min(1, bound / norm), in
    decades."""
    if clip is None or clip.norm is None:
        return
    bound = np.log10(clip.norm)
    names = observables.OF_USES if rows["log10_grad_weight_total"].size else CLIPPED
    with np.errstate(all="ignore"):
        squares = np.stack([2 * rows[name] for name in names])
        if not clip.per_layer:  # one after the other: the order of np.sum depends on the number of replicas
            squares = squares.transpose(0, 2, 1).reshape(-1, squares.shape[1], 1)
        top = squares.max(axis=0)
        top = np.where(np.isfinite(top), top, 0.0)
        norm = 0.5 * (np.log10(np.cumsum(10.0 ** (squares - top), axis=0)[-1]) + top)
        for name in names:
            rows[name] = rows[name] + np.minimum(0.0, bound - norm)


def _is_brief(program: Program, replicas: int) -> bool:
    """Whether no engine needs so much time or memory that it is worth the question."""
    return (
        replicas * program.depth * (program.widest + program.head.outputs + program.most_columns + NARROW) ** 3 < BRIEF
    )


def require_memory(job: Job, replicas: int) -> None:
    """Refuse what does not fit in memory.

    Raises:
        TooLarge: saying what is needed, what is free, and what would fit.
    """
    program, choice = job.program, job.choice
    if program.samplers is not None:
        weights = int((program.layers.units.astype(object) * program.layers.columns).sum())
        machine.require_memory(
            16 * weights, "keeping the weights of the init's sampler", "an Init with a distribution keeps none"
        )
    answer = 8 * observables.entries(replicas, program.counts)
    free = machine.free_memory()
    if answer + choice.most_bytes < free:
        return
    machine.require_memory(
        answer,
        f"the answer of {replicas} replicas at depth {program.depth}",
        "ask for fewer replicas, or use a sweep, which keeps statistics only",
    )
    needed = answer + choice.bytes
    if needed > free:
        size = (
            f"{program.depth} layers of up to {int(program.layers.units.max())} units with a batch of {program.batch}"
        )
        instead = smaller(choice, free - answer) or "ask for a smaller width, depth or batch"
        machine.require_memory(needed, size, instead)


def require_time(job: Job, replicas: int, threads: int) -> None:
    """Refuse what nobody will wait for.

    Raises:
        TooLarge: saying how long it would take.
    """
    program = job.program
    years = job.choice.seconds * replicas / threads / YEAR
    if years > 1:
        widest = int(program.layers.units.max())
        size = f"{replicas} replicas of {program.depth} layers of up to {widest} units with a batch of {program.batch}"
        raise machine.TooLarge(
            f"{size} would take about {years:.2g} years on {threads} threads, at most 1 is allowed: ask for less"
        )


def announce(job: Job, replicas: int, threads: int) -> None:
    """Say beforehand that a run which nobody chose to be dense takes more than ten minutes."""
    choice = job.choice
    if choice.engine != "dense":
        return
    teams = min(replicas, threads) if choice.backend == "numba" else threads  # C++ shares one network among threads
    estimate = choice.seconds * replicas / max(1 if choice.backend == "reference" else teams, 1)
    if estimate > LONG:
        time_needed = f"{estimate / 3600:.2g} hours" if estimate > 7200 else f"{estimate / 60:.0f} minutes"
        warnings.warn(
            f"every weight is drawn (dense engine, {_distributions(job.program)} weights), which may take about "
            f"{time_needed}; the "
            "matrix_free engine draws none, for Gaussian or orthogonal weights: he_normal, glorot_normal, "
            "lecun_normal, normal(std), "
            "orthogonal; "
            'engine="dense" asks for this run without a warning',
            UserWarning,
            stacklevel=STACK,
        )


def _distributions(program: Program) -> str:
    """Which distributions the weights have, in words."""
    return " and ".join(dict.fromkeys(program.draws[i].distribution for i in program.layers.draw.tolist()))


def _warn_beyond(program: Program, rows: dict) -> None:
    """Say where a function that grows faster than linearly met arguments beyond 2^60, where engines continue it by a
    line."""
    if not program.exponent or not any(row.is_superlinear for row in program.activations):
        return
    steps = program.steps
    bare = [program.activations[i] for i in np.unique(steps.row[steps.norm == 0])]
    row = next((row for row in bare if row.is_superlinear), None)
    if row is None:
        return
    first = program.stretches[-1].ops[0].kind == "phi"
    name = "log10_mean_square_activation" if first else "log10_mean_square_preactivation"
    beyond = np.flatnonzero((rows[name] > FAR).any(axis=0))
    if beyond.size:
        warnings.warn(
            f"activation {row.name!r} grows faster than linearly, and from layer {beyond[0] + 1} on its arguments "
            "are so large (2^60) that "
            "a straight line continues it: numbers from there on are not its own; "
            'precision="native" shows plain arithmetic',
            RuntimeWarning,
            stacklevel=STACK,
        )


def _keep(keep: str | Sequence[str]) -> tuple[str, ...]:
    if not checks.iterable(keep):
        raise TypeError(f"keep must be a sequence of names, got {keep!r}; write keep=({keep!r},)")
    names = tuple(keep)
    if not names:
        return ()
    from pykernel.engines.reference import Kept

    return tuple(checks.choice("keep", name, Kept.NAMES) for name in names)
