# SPDX-License-Identifier: BSD-3-Clause
"""Holds one commit's numbers against another's: every row of a broad table of chains, on every way to run them.

    python tests/bits.py --write golden.npz          # before a change
    python tests/bits.py --against golden.npz        # after it: prints what differs, exit code 1
    python tests/bits.py --backend cpp --quick       # a SHA-256 a case; --engine and --case select, too

Compiled backends are compared bit for bit: on every instruction set, for 1, 2, 3 and 7 threads, with little and with
much memory (which must agree among each other as well). `reference` multiplies by NumPy's BLAS and `theory` sums in
NumPy: both within 1e-13.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import ctypes.util
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import conftest  # noqa: F401  # a Numba cache of these sources
import numpy as np
import test_reference

import pykernel as pk
from pykernel import activations, inits, observables

BACKENDS = ("cpp", "reference", "theory", "numba")
EXACT = ("cpp", "numba")
ENGINES = ("dense", "matrix_free")
TOLERANCE = 1e-13  # relative, or absolute for numbers below one: a few roundings of float64
MUCH, SOME, NONE = None, 60_000, 0  # bytes for stored blocks: all, some layers, checkpoints only
# A short call runs on the caller's thread whatever was asked, so its threads and memory need not be crossed.
SHORT = ((1, MUCH), (3, NONE), (2, SOME), (7, MUCH))
LONG = tuple(itertools.product((1, 2, 3, 7), (MUCH, SOME, NONE)))


class Case(NamedTuple):
    """A chain and the arguments of `propagate`. `long`: worth threads. `skip`: backends that would take minutes."""

    chain: pk.Chain
    arguments: dict
    long: bool = False
    skip: tuple = ()


# -- the table


def cases() -> dict[str, Case]:
    """All cases by name."""
    groups = (layers, schemes, callers, clips, gains, heads, deep, wide, batches, attention)
    return {f"{group.__name__}: {name}": case for group in groups for name, case in group()}


SCHEMES = (
    *inits.SCHEMES,
    "normal(0.2)",
    "uniform(0.3)",
    "truncated_normal(0.2)",
    "constant(0.1)",
    "identity(1.5)",
    "sparse(0.3)",
    "student_t(3)",
    "student_t(1)",
    "stable(1.5)",
    "stable(0.7)",
)


def layers():
    """Every activation with every norm and order; tanh with every residual and head."""
    for i, (name, norm, order, residual, head) in enumerate(test_reference.CASES):
        chain = pk.Chain(
            widths=[21] * 6 if residual else [20, 37, 16, 35, 21, 33],
            activation=name,
            norm=norm,
            norm_eps=(1e-5, 0.3, 1e-20)[i % 3],
            order=order,
            residual=residual,
            head=head,
            bias_std=0.1 * (i % 3 == 0),
            init=("he_normal", "orthogonal", "glorot_normal", "lecun_normal", "keras_he_normal")[i % 5],
        )
        yield (
            f"{i} {name} {norm} {order[:6]}",
            Case(chain, dict(batch=(1, 3, 8)[i % 3], seed=i, correlation=(0.0, 0.3)[i % 2], replicas=2)),
        )


def schemes():
    for name, batch in itertools.product(SCHEMES, (1, 9)):
        residual = pk.Residual(2) if name == "fixup" else None
        widths = [24] * 5 if residual else [20, 37, 16, 50, 18]
        yield (
            f"{name} batch {batch}",
            Case(pk.Chain(widths=widths, activation="tanh", init=name, residual=residual), dict(batch=batch, seed=3)),
        )
    own = pk.Init(distribution="uniform", scale=lambda fan_in, fan_out: 2 / (fan_in + fan_out) ** 0.5, name="own")
    yield "own", Case(pk.Chain(widths=[20, 37, 16], init=own), dict(batch=2, replicas=2))
    sampler = pk.Init(
        sampler=lambda rows, columns, seed: np.random.default_rng(seed).normal(size=(rows, columns)) / columns**0.5
    )
    yield "sampler", Case(pk.Chain(widths=[20, 37, 16], init=sampler), dict(batch=2, replicas=2))


def callers():
    """Arrays and functions of the caller's own."""
    rng = np.random.default_rng(1)
    widths, batch = [12, 19, 33, 10], 4
    x, cotangent = rng.normal(size=(12, batch)), rng.normal(size=(10, batch))
    weights = [rng.normal(size=(m, k)) / k**0.5 for k, m in itertools.pairwise(widths)]
    biases = [rng.normal(size=m) for m in widths[1:]]
    given = dict(x=x, cotangent=cotangent, weights=weights, biases=biases)
    for name, norm, order in itertools.product(("relu", "gelu", "sigmoid"), (None, "layer"), test_reference.ORDERS):
        chain = pk.Chain(widths=widths, activation=name, norm=norm, order=order)
        yield f"all {name} {norm} {order[:6]}", Case(chain, given)
    for key, value in given.items():
        yield f"{key} only", Case(pk.Chain(widths=widths, activation="silu"), {key: value, "replicas": 2})
    linear = pk.Chain(widths=widths, activation="linear")
    for power in (200, -200):
        yield f"weights 2^{power}", Case(linear, dict(weights=[w * 2.0**power for w in weights]))
        yield f"biases 2^{power}", Case(linear, dict(biases=[b * 2.0**power for b in biases], batch=2))
        yield f"x 2^{power}", Case(linear.replace(activation="tanh"), dict(x=x * 2.0**power))
    columns = x.copy()
    columns[:, 0] *= 2.0**-90
    columns[:, 1] = columns[:, 2]
    columns[:, 3] = 0
    yield (
        "uneven and equal columns",
        Case(pk.Chain(widths=[12, *[40] * 20], activation="elu", gain=2.0), dict(x=columns)),
    )
    yield (
        "given in the chain",
        Case(pk.Chain(widths=widths, activation="tanh", init=pk.Given(weights, biases), gain=0.7), dict(batch=3)),
    )
    maths = ctypes.CDLL(ctypes.util.find_library("m"))
    function = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)
    own = pk.Activation(value=function(("sin", maths)), slope=function(("cos", maths)))
    for order in test_reference.ORDERS:
        chain = pk.Chain(depth=5, width=21, activation=own, norm="rms", order=order)
        yield f"C functions {order[:6]}", Case(chain, dict(batch=3), skip=("numba", "theory"))
    own = pk.Activation(value=np.arctan, slope=lambda z: 1 / (1 + z * z), name="own")
    yield (
        "Python functions",
        Case(pk.Chain(depth=5, width=21, activation=own), dict(batch=3), skip=("cpp",)),
    )  # where Numba compiles it


def clips():
    base = pk.Chain(widths=[20, 37, 16, 33], activation="gelu", bias_std=0.1)
    for clip in (pk.Clip(norm=0.01), pk.Clip(norm=0.01, per_layer=True), pk.Clip(value=0.001)):
        for norm in (None, "batch"):
            yield f"{clip} {norm}", Case(base.replace(clip=clip, norm=norm), dict(batch=3, replicas=3))
    chain = base.replace(clip=pk.Clip(value=0.001), head=pk.Head("softmax", 5), order=test_reference.ORDERS[1])
    yield "value and head", Case(chain, dict(batch=3, replicas=3))


def gains():
    """Magnitudes far beyond float range, within float64 exponents of 2^53."""
    for name in activations.ROWS:
        for gain, order in zip((1e-300, 1e-6, 30.0, 1e6, 1e150), itertools.cycle(test_reference.ORDERS), strict=False):
            chain = pk.Chain(depth=12, width=17, activation=name, gain=gain, order=order)
            yield f"{name} {gain:g}", Case(chain, dict(batch=2, seed=5))
        for norm in ("batch", "layer", "rms"):
            chain = pk.Chain(
                depth=6, width=17, activation=name, gain=1e40, norm=norm, residual=pk.Residual(2, "inverse_sqrt_depth")
            )
            yield f"{name} {norm} 1e40", Case(chain, dict(batch=3))


def heads():
    rng = np.random.default_rng(2)
    base = pk.Chain(widths=[20, 37, 16], activation="tanh", init="lecun_normal")
    given = {
        "mse": rng.normal(size=(3, 4)),
        "sigmoid": rng.uniform(size=(3, 4)),
        "softmax": np.array([0, 2, 2, 1]),
        "linear": rng.normal(size=(3, 4)),
    }
    for loss, targets in given.items():
        yield f"{loss} targets", Case(base.replace(head=pk.Head(loss, 3, targets=targets)), {})
        yield (
            f"{loss} huge",
            Case(base.replace(activation="linear", gain=1e30, head=pk.Head(loss, 3)), dict(batch=2, replicas=2)),
        )
    for init in ("uniform(0.3)", "truncated_normal(0.2)", "sparse(0.5)", "student_t(3)", "stable(1.5)"):
        yield f"init {init}", Case(base.replace(head=pk.Head("softmax", 130, init=init)), dict(batch=2, replicas=2))
    own = pk.Given([rng.normal(size=(3, 16))], [rng.normal(size=3)])
    yield "own weight and bias", Case(base.replace(head=pk.Head("softmax", 3, init=own)), dict(batch=2))
    yield "cotangent", Case(base.replace(head=pk.Head("linear", 3)), dict(cotangent=rng.normal(size=(3, 4))))


def deep():
    slow = ("reference",)
    yield "identity", Case(pk.Chain(depth=3000, width=3, activation="linear", init="identity(1.5)"), {}, long=True)
    yield "sigmoid", Case(pk.Chain(depth=4000, width=16, activation="sigmoid", init="lecun_normal"), {}, long=True)
    yield (
        "tanh",
        Case(pk.Chain(depth=3000, width=20, activation="tanh", gain=1.5, bias_std=0.1), dict(batch=2), True, slow),
    )
    chain = pk.Chain(
        depth=3001, width=20, activation="relu", residual=pk.Residual(3, 0.5), norm="layer", head=pk.Head("softmax", 3)
    )
    yield "residual", Case(chain, dict(batch=2), True, slow)
    yield "batch norm", Case(pk.Chain(depth=500, width=20, activation="relu", norm="batch"), dict(batch=4), long=True)
    yield "gelu", Case(pk.Chain(depth=3000, width=16, activation="gelu", gain=3.0), {}, True, slow)
    yield (
        "clipped",
        Case(pk.Chain(depth=300, width=20, activation="elu", clip=pk.Clip(value=1e-3)), dict(batch=2), long=True),
    )
    chain = pk.Chain(depth=60, width=16, activation="tanh", init="orthogonal", gain=1.2, residual=pk.Residual(7))
    yield "orthogonal", Case(chain, dict(batch=20), long=True)


def wide():
    slow = ("reference",)
    for batch in (1, 3, 8, 20):
        yield (
            f"batch {batch}",
            Case(pk.Chain(widths=[1030, 1100, 1024, 1041], activation="gelu"), dict(batch=batch), True, slow),
        )
    chain = pk.Chain(
        depth=4,
        width=1040,
        norm="layer",
        residual=pk.Residual(3),
        order=test_reference.ORDERS[1],
        head=pk.Head("softmax", 10),
    )
    yield "everything", Case(chain.replace(activation="tanh"), dict(batch=5), True, slow)
    chain = pk.Chain(depth=3, width=1100, activation="relu", norm="batch", clip=pk.Clip(value=1e-3))
    yield "clipped batch norm", Case(chain, dict(batch=12), True, slow)
    yield (
        "orthogonal",
        Case(pk.Chain(widths=[200, 150, 230], activation="relu", init="orthogonal"), dict(batch=6), True),
    )
    yield (
        "replicas",
        Case(pk.Chain(depth=10, width=70, activation="tanh", init="lecun_normal"), dict(batch=2, replicas=9), True),
    )
    yield "one input", Case(pk.Chain(depth=3, width=2100, activation="tanh"), dict(replicas=2), True, slow)
    yield "taller than a chunk", Case(pk.Chain(widths=[2100, 40, 2100], activation="relu"), dict(batch=33), True, slow)


def batches():
    for width, batch in itertools.product((1, 2, 15, 16, 17, 64, 65), (1, 2, 6, 7, 16, 40)):
        chain = pk.Chain(
            depth=4, width=width, activation="relu", norm=(None, "batch", "layer", "rms")[(width + batch) % 4]
        )
        yield f"{width} x {batch}", Case(chain, dict(batch=batch, seed=2**64 - 1 - width))
    for correlation in (0.0, 0.5, 1.0):
        chain = pk.Chain(widths=[9, 30, 40, 7], activation="tanh")
        yield f"correlation {correlation}", Case(chain, dict(batch=12, correlation=correlation))


def attention():
    """Heads of every size, shared keys, long inputs, one-hot weights, plain arithmetic."""
    for i, (heads, kv_heads, d, positions) in enumerate(
        ((1, 1, 5, 3), (2, 1, 16, 17), (4, 2, 24, 7), (8, 8, 16, 40), (1, 1, 40, 130), (4, 1, 3, 1))
    ):
        step = pk.Attention(heads, kv_heads=kv_heads, causal=i % 2 == 0, scale=(None, 40.0, 0.0)[i % 3])
        chain = pk.Chain(depth=2, width=heads * d, blocks=[pk.Block(pk.Norm("layer"), step, skip=1.0)])
        arguments = dict(batch=1 + i % 3, positions=positions, seed=i, precision=("exponent", "native")[i == 1])
        yield f"{heads} {kv_heads} {d} x {positions}", Case(chain, arguments, long=positions > 100, skip=("theory",))


# -- running it


@contextlib.contextmanager
def memory_of(bytes_):
    """So many bytes for what the backward pass needs of the forward one; None: what the backends take by themselves."""
    if bytes_ is None:
        yield
        return
    from pykernel.engines import cpp

    places = [(cpp, "MEMORY")]
    if "pykernel.engines.numba_dense" in sys.modules:
        numba = sys.modules["pykernel.engines.numba_dense"]
        places += [(numba, "KEPT_BYTES"), (numba, "TAPE_BYTES")]
    before = [getattr(module, name) for module, name in places]
    for module, name in places:
        setattr(module, name, bytes_)
    try:
        yield
    finally:
        for (module, name), value in zip(places, before, strict=True):
            setattr(module, name, value)


def ways(backend, case):
    """(threads, memory) of the runs whose numbers must be the same."""
    if backend == "reference":
        return ((1, MUCH),)
    if backend == "numba":
        return ((1, MUCH), (7, NONE)) if case.long else ((1, MUCH),)
    return LONG if case.long else SHORT


def table_of(rows, depth) -> np.ndarray:
    """Rows by name as one array (names, replicas, L + 1), nan behind the shorter ones, one kind of nan."""
    out = np.full((len(observables.NAMES), np.atleast_2d(rows["mean_activation"]).shape[0], depth + 1), np.nan)
    for place, name in zip(out, observables.NAMES, strict=True):
        row = np.asarray(rows[name])
        row = row.reshape(place.shape[0], -1)
        place[:, : row.shape[1]] = np.where(np.isnan(row), np.nan, row)
    return out


def rows_of(case, **arguments) -> np.ndarray:
    """What `propagate` measures; an empty array where it refuses."""
    try:
        p = pk.propagate(case.chain, **{**case.arguments, **arguments})
    except ValueError:
        return np.empty(0)
    return table_of({name: getattr(p, name) for name in observables.NAMES}, case.chain.extent)


def predicted(case) -> np.ndarray:
    """What `predict` says for the same chain; an empty array where it has no answer."""
    arguments = {key: value for key, value in case.arguments.items() if key in ("batch", "correlation")}
    try:
        p = pk.predict(case.chain, **arguments)
    except ValueError:
        return np.empty(0)
    return table_of({name: getattr(p, name) for name in observables.NAMES}, case.chain.extent)


def measure(backend, engines, wanted):
    """(key, array, [ways whose bits differ from the first's]) of every case."""
    for name, case in wanted.items():
        if backend in case.skip:
            continue
        if backend == "theory":
            yield f"theory | {name}", predicted(case), []
            continue
        for engine, dtype, precision in itertools.product(engines, ("float32", "float64"), ("exponent", "native")):
            if precision == "native" and (
                engine != "dense" or (backend == "numba" and not name.startswith(NATIVE_NUMBA))
            ):
                continue
            first, odd = None, []
            for threads, memory in ways(backend, case):
                with memory_of(memory):
                    got = rows_of(
                        case, engine=engine, backend=backend, dtype=dtype, precision=precision, threads=threads
                    )
                if first is None:
                    first = got
                elif got.tobytes() != first.tobytes():
                    odd.append(f"threads {threads}, memory {memory}")
                if not got.size:
                    break
            yield f"{backend} {engine} {dtype} {precision} | {name}", first, odd


# Numba compiles value and slope of each function anew for plain arithmetic.
NATIVE_NUMBA = ("clips", "wide: everything", "callers: all relu", "callers: all sigmoid", "deep: sigmoid")


def work(arguments) -> None:
    """A worker's part: one backend on one instruction set, into a file."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    warnings.simplefilter("ignore")
    found, odd = {}, []
    for key, array, others in measure(arguments.backend[0], arguments.engine, selected(arguments)):
        found[key] = array
        odd += [f"{key}: {way}" for way in others]
    save(arguments.worker, found, odd)


def selected(arguments) -> dict[str, Case]:
    """The cases that were asked for; --quick takes every seventh short one."""
    every = {name: case for name, case in cases().items() if any(part in name for part in arguments.case)}
    if not arguments.quick:
        return every
    return {name: case for i, (name, case) in enumerate(every.items()) if i % 7 == 0 and not case.long}


def save(path, found, odd=()) -> None:
    """Arrays by key, in one file."""
    shapes = {key: array.shape for key, array in found.items()}
    data = np.concatenate([np.ravel(array) for array in found.values()]) if found else np.empty(0)
    about = json.dumps({"names": observables.NAMES, "shapes": shapes, "odd": list(odd)})
    np.savez_compressed(path, data=data, about=np.array(about))


def load(path):
    """(names of the rows, arrays by key, what differs between ways) of a file."""
    with np.load(path) as file:
        about, data = json.loads(str(file["about"])), file["data"]
    found, at = {}, 0
    for key, shape in about["shapes"].items():
        size = int(np.prod(shape))
        found[key] = data[at : at + size].reshape(shape)
        at += size
    return about["names"], found, about["odd"]


def in_a_process(path, backend, isa=None, passed=()):
    """What `load` gives of one backend on one instruction set, measured by a process of its own into a file."""
    command = [sys.executable, __file__, "--worker", str(path), "--backend", backend, *passed]
    subprocess.run(command, check=True, env={**os.environ, **({"PYKERNEL_ISA": isa} if isa else {})})
    return load(path)


def run(arguments):
    """[(label of the worker, arrays by key, what differs)], each worker a process of its own."""
    from pykernel import _core

    isas = _core.kernels.isas() if arguments.isa is None else arguments.isa
    jobs = [(b, isa) for b in arguments.backend for isa in (isas if b == "cpp" else [None])]
    passed = ["--case", *arguments.case, "--engine", *arguments.engine, *(["--quick"] if arguments.quick else [])]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:

        def one(job):
            backend, isa = job
            path = Path(folder) / f"{backend}-{isa}.npz"
            return (f"{backend} {isa}" if isa else backend, *in_a_process(path, backend, isa, passed)[1:])

        return list(pool.map(one, jobs))


# -- comparing


def difference(names, expected, got, exact) -> str | None:
    """How two arrays differ, in words, or None."""
    if bool(expected.size) != bool(got.size):
        return "refused now" if expected.size else "no longer refused"
    got = got[[observables.NAMES.index(name) for name in names]] if got.size else got
    if expected.shape != got.shape:
        return f"shape {got.shape} for {expected.shape}"
    same = (expected == got) & (np.signbit(expected) == np.signbit(got)) | (np.isnan(expected) & np.isnan(got))
    if same.all():
        return None
    with np.errstate(all="ignore"):
        size = np.where(same, 0, np.abs(got - expected) / np.maximum(1, np.abs(expected)))
        size[np.isnan(size)] = np.inf  # a number in the place of none, or the other way round
    if not exact and (size <= TOLERANCE).all():
        return None
    rows = [name for name, s in zip(names, same, strict=True) if not s.all()]
    return f"{size.max():.1e} in {', '.join(rows)}"


def compare(path, found, arguments) -> int:
    """Print what differs from the file's numbers; how many cases do."""
    names, golden, _ = load(path)
    count = 0
    for label, arrays, _ in found:
        backend = label.split()[0]
        for key in sorted(arrays.keys() - golden.keys()):
            print(f"new       {label} | {key}")
        for key, array in arrays.items():
            if key in golden and (how := difference(names, golden[key], array, backend in EXACT)) is not None:
                print(f"differs   {label} | {key}: {how}")
                count += 1
        if not arguments.quick:
            asked = [f"{backend} {engine} " for engine in arguments.engine] if backend != "theory" else ["theory "]
            lost = [
                key
                for key in golden.keys() - arrays.keys()
                if key.startswith(tuple(asked)) and any(part in key.partition(" | ")[2] for part in arguments.case)
            ]
            print(*(f"missing   {label} | {key}" for key in sorted(lost)), sep="\n", end="\n" if lost else "")
            count += len(lost)
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", metavar="FILE", help="keep the numbers of this commit")
    parser.add_argument("--against", metavar="FILE", help="print the cases that differ from a file; exit code 1")
    parser.add_argument("--backend", nargs="+", choices=BACKENDS, default=list(BACKENDS[:3]))
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--isa", nargs="+", help="instruction sets of cpp; all that this machine has")
    parser.add_argument("--case", nargs="+", default=[""], help="parts of names of cases")
    parser.add_argument("--quick", action="store_true", help="a seventh of the short cases")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
        return 0
    found = run(arguments)
    wrong = 0
    first = {}
    for label, arrays, odd in found:
        for way in odd:
            print(f"unlike    {label} | {way}")
        wrong += len(odd)
        for key, array in arrays.items():
            if label.startswith("cpp") and array.tobytes() != first.setdefault(key, array).tobytes():
                print(f"unlike    {label} | {key}: another instruction set")
                wrong += 1
            first.setdefault(key, array)
    if arguments.against:
        wrong += compare(arguments.against, found, arguments)
    elif not arguments.write:
        for key, array in first.items():
            print(hashlib.sha256(array.tobytes()).hexdigest(), key)
    if arguments.write:
        save(arguments.write, first)
    print(f"{len(first)} cases, {wrong} wrong", file=sys.stderr)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
