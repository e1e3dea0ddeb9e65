# SPDX-License-Identifier: BSD-3-Clause
"""propagate, weights and gradients: from a chain to numbers, through whichever engine fits."""

from __future__ import annotations

import dataclasses
import math
import time
import warnings

import numpy as np

from pykernel import checks, engines, machine, observables, stream
from pykernel.chain import Chain
from pykernel.engines import cost
from pykernel.plan import MAX_REPLICAS, Plan, lower, sampled, with_samples
from pykernel.propagation import Propagation

# log10 of a mean square whose largest entries reach 2^60 in layers of up to a million units
FAR = 2 * (60 - 10) * np.log10(2)
UNEVEN = 2.0**80
LOG10_CLIP = ("log10_grad_weight", "log10_grad_bias")
LONG = 600.0  # seconds after which a run that was not asked for by name is announced


def propagate(
    chain: Chain,
    *,
    batch: int = 1,
    replicas: int = 1,
    seed: int = 0,
    engine: str = "auto",
    backend: str = "auto",
    dtype: str = "float32",
    threads: int | None = None,
    precision: str = "exponent",
    correlation: float = 0.0,
    x=None,
    cotangent=None,
    weights=None,
    biases=None,
    batch_first: bool = False,
    keep=(),
) -> Propagation:
    """Run a chain forward and backward for many independent draws of its weights, and measure every layer.

    Args:
        chain: what to simulate.
        batch: inputs propagated together, B.
        replicas: independent draws of all weights, R. Replica r is the same however many are asked for.
        seed: int in [0, 2^64), the key of the random stream.
        engine: "dense" draws every weight; "matrix_free" (Gaussian and orthogonal weights) is exact in law without drawing any;
            "auto" takes the latter; for an activation of your own, which C++ does not have, whichever is cheaper.
        backend: "cpp", "numba", "reference" or "auto".
        dtype: "float32" or "float64", the arithmetic; the weights are the same numbers in both.
        threads: by default PYKERNEL_NUM_THREADS, OMP_NUM_THREADS or all cores. Results do not depend on it.
        precision: "exponent" keeps magnitudes exact beyond float range; "native" shows what plain arithmetic of the dtype does.
        correlation: pairwise correlation of the drawn inputs, 0 to 1.
        x: the caller's input, (n[0], B); drawn iid standard normal without.
        cotangent: dJ/da[L], (n[L], B); drawn iid N(0, 1/(n[L] B)) without.
        weights, biases: the caller's arrays, one a layer, (n[l], n[l-1]) and (n[l],).
        batch_first: True where x and cotangent have one input a row, (B, units), as PyTorch and JAX keep them.
        keep: names of arrays to keep for small chains, from "activation", "preactivation", "grad_activation", "grad_preactivation",
            "grad_weight", "grad_bias" (reference backend).

    Returns:
        Propagation: rows of `pykernel.observables.ROWS`, float64, (replicas, depth), and what follows from them.

    Raises:
        ValueError, TypeError: before any work, saying what was given and what is allowed.
        TooLarge (a ValueError and MemoryError): the job does not fit in memory, or would take more than a year.

    Examples:
        >>> p = propagate(Chain(depth=20, width=32, activation="sigmoid", init="lecun_normal"), replicas=4)
        >>> p.verdict
        'vanishing'
    """
    _require_chain(chain)
    x, cotangent = _columns(chain, x, cotangent, batch_first)
    replicas = checks.integer("replicas", replicas, 1, MAX_REPLICAS)
    threads = machine.cores(threads)
    keep = _keep(keep)
    plan = lower(
        chain,
        batch=batch,
        seed=seed,
        dtype=dtype,
        precision=precision,
        correlation=correlation,
        x=x,
        cotangent=cotangent,
        weights=weights,
        biases=biases,
    )
    asked = engine
    engine, backend, module = engines.choose(plan, engine, backend, keep)
    _require_memory(plan, module, replicas, threads)
    _require_time(plan, engine, backend, replicas, threads)
    if asked == "auto":
        _warn_long(plan, engine, backend, replicas, threads)
    start = time.perf_counter()
    rows = _run(module, plan, 0, replicas, threads, keep)
    kept = rows.pop("keep", None)
    _warn_beyond(plan, rows)
    clip_by_norm(chain.clip, rows)
    return Propagation(
        chain=chain,
        rows=rows,
        batch=plan.batch,
        seed=plan.seed,
        engine=engine,
        backend=backend,
        dtype=dtype,
        precision=precision,
        correlation=plan.correlation,
        given=tuple(
            name for name, array in (("x", x), ("cotangent", cotangent), ("weights", weights), ("biases", biases)) if array is not None
        ),
        seconds=time.perf_counter() - start,
        kept=kept,
    )


def run_rows(
    chain: Chain,
    *,
    first: int,
    count: int,
    batch=1,
    seed=0,
    engine="auto",
    backend="auto",
    dtype="float32",
    threads=None,
    correlation=0.0,
    precision="exponent",
) -> dict[str, np.ndarray]:
    """Rows of replicas first .. first + count - 1: what a block of a sweep computes. The bits do not depend on how blocks are cut."""
    plan = lower(chain, batch=batch, seed=seed, dtype=dtype, precision=precision, correlation=correlation)
    _, _, module = engines.choose(plan, engine, backend)
    threads = machine.cores(threads)
    _require_memory(plan, module, count, threads)
    rows = _run(module, plan, first, count, threads)
    _warn_beyond(plan, rows)
    clip_by_norm(chain.clip, rows)
    return rows


def _warn_long(plan: Plan, engine: str, backend: str, replicas: int, threads: int) -> None:
    """Say beforehand that a run which nobody chose to be dense takes more than ten minutes."""
    if engine != "dense":
        return
    one = cost.seconds(engine, backend, plan.widths, plan.batch, plan.distribution)
    teams = min(replicas, threads) if backend == "numba" else threads  # C++ shares one network among threads
    estimate = one * replicas / max(1 if backend == "reference" else teams, 1)
    if estimate > LONG:
        time_needed = f"{estimate / 3600:.2g} hours" if estimate > 7200 else f"{estimate / 60:.0f} minutes"
        warnings.warn(
            f"every weight is drawn (dense engine, {plan.distribution} weights), which may take about {time_needed}; the matrix_free "
            "engine draws none, for Gaussian or orthogonal weights: he_normal, glorot_normal, lecun_normal, normal(std), orthogonal; "
            'engine="dense" asks for this run without a warning',
            UserWarning,
            stacklevel=3,
        )


def _warn_beyond(plan: Plan, rows) -> None:
    """Say where a function that grows faster than linearly met arguments beyond 2^60, where engines continue it by a line."""
    row = plan.activation
    if not plan.exponent or plan.norm or not row.is_superlinear:
        return
    name = "log10_mean_square_activation" if plan.order else "log10_mean_square_preactivation"
    beyond = np.flatnonzero((rows[name] > FAR).any(axis=0))
    if beyond.size:
        warnings.warn(
            f"activation {row.name!r} grows faster than linearly, and from layer {beyond[0] + 1} on its arguments are so large (2^60) that "
            'a straight line continues it: numbers from there on are not its own; precision="native" shows plain arithmetic',
            RuntimeWarning,
            stacklevel=3,
        )


def _run(module, plan: Plan, first: int, count: int, threads: int, keep=()) -> dict:
    """The module's rows; a user's sampler is asked for one replica's weights at a time."""
    if plan.sampler is None:
        if plan.dtype == "float32" and plan.exponent and (_uneven(plan.x) or _uneven(plan.cotangent)):
            plan = dataclasses.replace(plan, dtype="float64")
        rows = module.run(plan, first, count, threads=threads, keep=keep)
        _look_again(module, plan, first, rows, threads)
        return rows
    parts = [_run(module, with_samples(plan, r), r, 1, threads, keep) for r in range(first, first + count)]
    rows = {name: np.concatenate([p[name] for p in parts]) for name in observables.NAMES}
    return rows | ({"keep": [p["keep"][0] for p in parts]} if keep else {})


def _uneven(columns) -> bool:
    """Whether the caller's columns differ so much in size that float32, with one exponent for all, would lose digits of some."""
    if columns is None:
        return False
    sizes = np.abs(columns).max(axis=0)
    sizes = sizes[sizes > 0]
    return bool(sizes.size) and sizes.max() / UNEVEN > sizes.min()


def _look_again(module, plan: Plan, first: int, rows, threads: int) -> None:
    """Where float32 says that a gradient is exactly zero although every layer passes something, float64 is asked, replica by replica.

    A block has one exponent: an input or unit 2^-149 below the block's largest is zero in float32, and so may be all that reaches a weight.
    """
    if plan.dtype != "float32" or not plan.exponent or not np.all(plan.residual_scale):
        return
    gradients = ("log10_grad_weight", "log10_grad_activation")
    zero = {name: np.isneginf(rows[name]) for name in gradients}
    for i in np.flatnonzero(np.any([z.any(axis=1) for z in zero.values()], axis=0)):
        if not np.isfinite(rows["log10_mean_square_activation"][i]).all() or not (rows["dead"][i] < 1).all():
            continue
        again = module.run(dataclasses.replace(plan, dtype="float64"), first + int(i), 1, threads=threads)
        if any((zero[name][i] & np.isfinite(again[name][0])).any() for name in gradients):
            for name in observables.NAMES:
                rows[name][i] = again[name][0]


def clip_by_norm(clip, rows) -> None:
    """Apply clipping by norm to the rows of the parameter gradients, in place: g -> g min(1, bound / norm), in decades."""
    if clip is None or clip.norm is None:
        return
    bound = np.log10(clip.norm)
    with np.errstate(all="ignore"):
        squares = np.stack([2 * rows[name] for name in LOG10_CLIP])
        if not clip.per_layer:  # one after the other: the order of np.sum depends on the number of replicas
            squares = squares.transpose(0, 2, 1).reshape(-1, squares.shape[1], 1)
        top = squares.max(axis=0)
        top = np.where(np.isfinite(top), top, 0.0)
        norm = 0.5 * (np.log10(np.cumsum(10.0 ** (squares - top), axis=0)[-1]) + top)
        for name in LOG10_CLIP:
            rows[name] = rows[name] + np.minimum(0.0, bound - norm)


def weights(chain: Chain, *, layer: int, replica: int = 0, seed: int = 0, dtype: str = "float64") -> np.ndarray:
    """The weight matrix that the dense engine uses at a layer of a replica.

    Args:
        chain: as for `propagate`.
        layer: 1 .. depth (depth + 1 for the head's weight).
        replica, seed: its address.
        dtype: of the returned array, "float32" or "float64".

    Returns:
        (n[l], n[l-1]) array, the gain multiplied in.

    Raises:
        ValueError, TypeError: a layer, replica, seed or dtype that there is not, named with what is allowed.

    Examples:
        >>> weights(Chain(depth=3, width=8), layer=3).shape
        (8, 8)
    """
    from pykernel.engines import reference

    _require_chain(chain)
    plan = lower(chain, seed=seed)
    checks.choice("dtype", dtype, ("float32", "float64"))
    replica = checks.integer("replica", replica, 0, MAX_REPLICAS - 1)
    layer = checks.integer("layer", layer, 1, plan.depth + bool(plan.loss))
    rows = plan.outputs if layer > plan.depth else int(plan.widths[layer])
    columns = int(plan.widths[layer - 1])
    machine.require_memory(200 * rows * columns, f"a {rows} x {columns} weight matrix", "ask for a smaller layer")
    if layer > plan.depth and plan.head_weight is not None:
        return (plan.head_scale * plan.head_weight).astype(dtype)
    if layer > plan.depth:
        draw = stream.matrix(plan.seed, layer, replica, rows, columns, plan.head_distribution, plan.head_parameter)
        return (plan.head_scale * draw.astype(np.float64)).astype(dtype)
    if plan.sampler is not None:
        return sampled(plan, layer, replica).astype(dtype)
    return (plan.scale[layer - 1] * reference.Dense(plan, replica).matrix(layer)).astype(dtype)


def gradients(
    chain: Chain,
    *,
    x=None,
    cotangent=None,
    weights=None,
    biases=None,
    batch_first: bool = False,
    batch: int = 1,
    seed: int = 0,
    replica: int = 0,
) -> list[np.ndarray]:
    """The gradients dJ/dW[l] themselves, for checks and small nets.

    Args:
        chain, x, cotangent, weights, biases, batch_first, batch, seed: as in `propagate`.
        replica: which draw of the weights.

    Returns:
        L arrays (n[l], n[l-1]) float64, l = 1 first; entries beyond float64 are 0 or inf.

    Raises:
        ValueError, TypeError: as `propagate`.
        TooLarge: the matrices do not fit in memory.

    Examples:
        >>> grads = gradients(Chain(depth=3, width=8), x=np.ones((8, 2)), cotangent=np.ones((8, 2)))
        >>> len(grads), grads[0].shape
        (3, (8, 8))
    """
    _require_chain(chain)
    x, cotangent = _columns(chain, x, cotangent, batch_first)
    plan = lower(chain, batch=batch, seed=seed, dtype="float64", x=x, cotangent=cotangent, weights=weights, biases=biases)
    replica = checks.integer("replica", replica, 0, MAX_REPLICAS - 1)
    needed = 16 * chain.weight_count + 8 * 4 * plan.batch * int(plan.widths.sum())
    machine.require_memory(needed, "every gradient matrix of this chain", "propagate() gives their norms in far less")
    _, _, module = engines.choose(plan, "dense", "reference")
    rows = _run(module, plan, replica, 1, 1, ("grad_weight", "grad_bias"))
    kept = rows.pop("keep")[0]
    grads = [kept["grad_weight"][layer] for layer in range(1, plan.depth + 1)]
    if chain.clip is None or chain.clip.norm is None:
        return grads
    before = rows["log10_grad_weight"].copy()
    clip_by_norm(chain.clip, rows)
    change = np.where(np.isfinite(before), rows["log10_grad_weight"] - before, 0.0)[0]
    return [g * 10.0**c for g, c in zip(grads, change, strict=True)]


def _require_chain(chain):
    if not isinstance(chain, Chain):
        raise TypeError(f"chain must be a pykernel.Chain, got {type(chain).__name__}")


def _columns(chain, x, cotangent, batch_first):
    """The caller's x and cotangent with one input a column."""
    if not isinstance(batch_first, bool):
        raise TypeError(f"batch_first must be True or False, got {batch_first!r}")
    n = chain.layer_widths
    last = n[-1] if chain.head is None else chain.head.outputs
    out = []
    for name, given, units in (("x", x, n[0]), ("cotangent", cotangent, last)):
        given = given.detach().cpu().double().numpy() if hasattr(given, "detach") else given  # a tensor that a gradient is asked of
        shape = () if given is None else np.shape(given)
        axis = 1 if batch_first else 0
        if len(shape) == 2 and shape[1 - axis] == units != shape[axis]:
            wanted, other = ("(batch, units)", "without batch_first") if batch_first else ("(units, batch)", "with batch_first=True")
            raise ValueError(f"{name} must have shape {wanted} with {units} units, got {shape}: transposed? Give it {other}, or its .T")
        out.append(np.transpose(given) if batch_first and len(shape) == 2 else given)
    return out


def _keep(keep):
    from pykernel.engines.reference import Trace

    if isinstance(keep, str) or not hasattr(keep, "__iter__"):
        raise TypeError(f"keep must be a sequence of names, got {keep!r}; write keep=({keep!r},)")
    return tuple(checks.choice("keep", name, Trace.NAMES) for name in keep)


def _require_time(plan: Plan, engine: str, backend: str, replicas: int, threads: int) -> None:
    """Refuse what nobody will wait for."""
    years = cost.seconds(engine, backend, plan.widths, plan.batch, plan.distribution) * replicas / threads / (365 * 86400)
    if years > 1:
        size = f"{replicas} replicas of {plan.depth} layers of up to {int(plan.widths.max())} units with a batch of {plan.batch}"
        raise machine.TooLarge(f"{size} would take about {years:.2g} years on {threads} threads, at most 1 is allowed: ask for less")


def _require_memory(plan: Plan, module, replicas: int, threads: int) -> None:
    if plan.sampler is not None:
        weights = sum(int(m) * int(k) for m, k in zip(plan.widths[1:], plan.widths[:-1], strict=True))
        machine.require_memory(16 * weights, "keeping the weights of the init's sampler", "an Init with a distribution keeps none")
    answer = sum(8 * math.prod(observables.shape(row, replicas, plan.depth)) for row in observables.ROWS)
    machine.require_memory(
        answer,
        f"the answer of {replicas} replicas at depth {plan.depth}",
        "ask for fewer replicas, or use a sweep, which keeps statistics only",
    )
    size = f"{plan.depth} layers of up to {int(plan.widths.max())} units with a batch of {plan.batch}"
    needed = answer + int(module.memory(plan, 1))
    if needed > machine.free_memory():
        instead = engines.smaller(plan, module, machine.free_memory() - answer) or "ask for a smaller width, depth or batch"
        machine.require_memory(needed, size, instead)
