# SPDX-License-Identifier: BSD-3-Clause
"""A broad table of chains, each with the arguments of a run: what `bits.py` holds one commit's numbers against
another's on."""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
from typing import NamedTuple

import numpy as np
from combinations import CASES, ORDERS

import pykernel as pk
from pykernel import activations, inits


class Case(NamedTuple):
    """A chain and the arguments of `propagate`. `long`: worth threads. `skip`: backends that would take minutes."""

    chain: pk.Chain
    arguments: dict
    long: bool = False
    skip: tuple = ()


def cases() -> dict[str, Case]:
    """All cases by name."""
    groups = (layers, schemes, callers, clips, gains, heads, deep, wide, batches, attention, tied, images, formats)
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
    for i, (name, norm, order, residual, head) in enumerate(CASES):
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
    for name, norm, order in itertools.product(("relu", "gelu", "sigmoid"), (None, "layer"), ORDERS):
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
    for order in ORDERS:
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
    chain = base.replace(clip=pk.Clip(value=0.001), head=pk.Head("softmax", 5), order=ORDERS[1])
    yield "value and head", Case(chain, dict(batch=3, replicas=3))


def gains():
    """Magnitudes far beyond float range, within float64 exponents of 2^53."""
    for name in activations.ROWS:
        for gain, order in zip((1e-300, 1e-6, 30.0, 1e6, 1e150), itertools.cycle(ORDERS), strict=False):
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
        order=ORDERS[1],
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
        yield f"{heads} {kv_heads} {d} x {positions}", Case(chain, arguments, long=positions > 100)


def tied():
    """One weight for all layers, or for all repetitions of a pattern; sums of uses by products and by Gram matrices;
    an input at every step."""
    rng = np.random.default_rng(3)
    rnn = pk.Chain(depth=90, width=33, activation="tanh", bias_std=0.3, tied=True)
    driven = rnn.replace(depth=20, width=40, blocks=[pk.Block(pk.Linear(bias_std=0.1), pk.Drive(7), "tanh")])
    for name, chain, arguments in (
        ("one input", rnn, {}),
        ("batch 3", rnn, dict(batch=3, replicas=2)),
        ("few uses", rnn.replace(width=150, depth=5), dict(batch=2)),
        ("wide", rnn.replace(width=1040, depth=3), dict(batch=8)),
        ("vanishing", rnn.replace(activation="linear", gain=1e-9, depth=40), dict(batch=2)),
        ("exploding", rnn.replace(activation="relu", gain=1e9, depth=30), dict(batch=7)),
        ("orthogonal", rnn.replace(init="orthogonal", bias_std=0.0), dict(batch=2)),
        ("batch norm", rnn.replace(norm="batch", bias_std=0.0), dict(batch=9)),
        ("clipped entries", rnn.replace(clip=pk.Clip(value=0.01)), dict(batch=2)),
        ("branches", rnn.replace(residual=pk.Residual(2, 0.5), head=pk.Head("softmax", 5)), dict(batch=2)),
        ("driven", driven, dict(batch=2, replicas=2)),
        ("driven, given", driven, dict(batch=2, drive=list(rng.normal(size=(20, 7, 2))))),
    ):
        yield name, Case(chain, arguments, long="wide" in name or "batch" in name)
    steps = [
        pk.Block(pk.Norm("layer"), pk.Attention(4, causal=True), skip=1.0),
        pk.Block(pk.Norm("rms"), pk.Gated(17, "silu"), pk.Linear(24, init="orthogonal"), skip=0.5),
    ]
    looped = pk.Chain(depth=3, width=24, tied=True, first=[pk.Linear(24)], blocks=steps, last=[pk.Linear(9)])
    yield "looped blocks", Case(looped, dict(batch=2, positions=5))
    conv = pk.Chain(depth=3, width=6, tied=True, blocks=[pk.Block(pk.Conv(6, kernel=3), "relu")])
    yield "convolutions", Case(conv, dict(batch=2, positions=(5, 4)))


def images():
    """Strides, groups, dilation, kernels without padding, pools of every kind, delta-orthogonal weights."""
    for name, steps, positions in (
        ("strided", [pk.Conv(8, kernel=3, stride=2), "tanh", pk.Conv(6, kernel=(1, 3))], (7, 6)),
        ("grouped", [pk.Conv(8, kernel=3, groups=2), "relu", pk.Conv(8, kernel=3, groups=8, dilation=2)], (6, 5)),
        ("circular", [pk.Conv(6, kernel=3, padding="circular", init="delta_orthogonal"), "tanh"], (5,)),
        ("pooled", [pk.Conv(9, kernel=3), pk.Norm("batch"), "relu", pk.Pool("max", 2), pk.Conv(7, kernel=3)], (8, 6)),
        ("averaged", [pk.Conv(9, kernel=3), "gelu", pk.Pool("mean", 2), pk.Conv(7, kernel=1)], (6, 8)),
    ):
        chain = pk.Chain(depth=1, width=6, first=[pk.Conv(6, kernel=1)], blocks=[pk.Block(*steps)])
        yield name, Case(chain, dict(batch=2, positions=positions, replicas=2))


def formats():
    """Numbers rounded to the nearest, by chance, and beyond what a format holds."""
    chain = pk.Chain(depth=6, width=40, activation="tanh", bias_std=0.2)
    for name, words in (
        ("nearest", dict(weights="bfloat16", signals="float8_e4m3fn", gradients="float8_e5m2", loss_scale=64)),
        ("by chance", dict(weights="bfloat16", signals="float8_e4m3fn", gradients="bfloat16", rounding="stochastic")),
        ("overflow", dict(signals="float4_e2m1fn", gradients="float16", loss_scale=2.0**20)),
    ):
        arguments = dict(batch=3, replicas=2, formats=pk.Formats(**words))
        yield name, Case(chain, arguments)
