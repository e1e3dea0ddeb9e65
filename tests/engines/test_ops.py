# SPDX-License-Identifier: BSD-3-Clause
"""Every op and random programs of ops: the backward pass is that of finite differences and the adjoint of the forward
pass."""

import math

import numpy as np
import pytest
from random_chains import random_chain

import pykernel as pk
from pykernel.chain import Chain
from pykernel.conv import Conv, Flatten, Pool
from pykernel.drive import Drive
from pykernel.engines import reference
from pykernel.layers import Attention, Block, Dropout, Gated, Linear, Norm, Scale
from pykernel.lower import lower
from pykernel.ops import OPS
from pykernel.parts import Head, Residual

STEPS = {
    "linear": [Linear(7)],
    "phi": [Linear(6), "tanh"],
    "phi behind a norm": [Linear(6), Norm("layer"), "gelu"],
    "gate": [Gated(9), Linear(5)],
    "norm": [Norm("batch"), Linear(5)],
    "rms norm": [Norm("rms", eps=0.1), Linear(5)],
    "affine": [Norm("layer", weight=[0.5, -1.0, 2.0, 0.1, 0.0], bias=[0.3, 0.0, -1.0, 0.2, 0.1]), Linear(5)],
    "affine of one number": [Linear(4), Norm("rms", weight=0.7, bias=-0.2), "gelu", Linear(5)],
    "scale": [Linear(5), Scale(-0.6)],
    "mask": [Linear(5), Dropout(0.4)],
    "drive": [Linear(5), Drive(7), "tanh", Drive(2)],
    "attention": [Linear(6), Attention(2, bias_std=0.2), Linear(5)],
    "causal attention with shared keys": [Linear(8), Attention(4, kv_heads=2, causal=True, scale=2.0), Linear(5)],
}
# With windows: of positions along one axis or two.
WINDOWS = {
    "one axis": ((7,), [Conv(4, bias_std=0.2), "tanh", Conv(3, 2, stride=2, padding="valid")]),
    "circular, even, wide": ((4, 3), [Conv(4, (4, 5), padding="circular"), Conv(3, 5, padding="circular")]),
    "stride": ((5, 6), [Conv(4, (3, 2), stride=(2, 1)), "gelu", Conv(3, 1, stride=2)]),
    "groups": ((4, 4), [Conv(10, 3, groups=5), "tanh", Conv(6, 1, groups=2), Conv(12, (1, 3), groups=6)]),
    "norm": ((3, 4), [Conv(4), Norm("batch"), "tanh", Conv(3), Norm("layer")]),
    "mean pool": ((6, 5), [Conv(4), Pool("mean", 2), "tanh", Pool("mean", 2, stride=1, padding=1), Pool("mean")]),
    "max pool": ((6, 7), [Conv(4), Pool("max", (2, 3)), "tanh", Conv(5), Pool("max", 2, stride=1, padding=1)]),
    "max of all": ((5,), [Conv(4), Pool("max"), Linear(3)]),
    "flatten": ((3, 2), [Conv(4), "tanh", Flatten(), Linear(6), "tanh", Linear(3)]),
    "attention": ((4,), [Conv(4), Attention(2), Conv(6, 3, stride=2)]),
    "many columns": ((9, 9), [Conv(4), "tanh", Conv(3)]),
}


def reference_run(chain, **arguments):
    return reference.run(lower(chain, dtype="float64", **arguments), 0, 1, keep=reference.Kept.NAMES)


def arrays_of(chain, rng, batch, positions=()):
    """Weights, biases, x and cotangent of a chain's shapes, to be moved by tests."""
    program = lower(chain, positions=positions)
    shapes = [program.shape(layer) for layer in range(1, program.depth + 1)]
    out = {
        "x": rng.normal(size=(program.nodes[0], batch, *positions)),
        "weights": [rng.normal(size=shape) / math.prod(shape[1:]) ** 0.5 for shape in shapes],
        "biases": [0.3 * rng.normal(size=shape[0]) for shape in shapes],
    }
    if chain.head is None:
        out["cotangent"] = rng.normal(size=(program.nodes[-1], batch, *program.positions_out))
    return out


def objective(chain, arrays, positions):
    rows = reference_run(chain, positions=positions, **arrays)
    kept = rows["keep"][0]
    if chain.head is not None:
        return rows["loss"][0], kept
    last = kept["activation"][max(kept["activation"])]
    return (last * arrays["cotangent"].reshape(last.shape)).sum(), kept


def check_gradients(chain, seed, positions=()):
    """Along a random direction in each array, central differences of the objective against the gradients."""
    rng = np.random.default_rng(seed)
    arrays = arrays_of(chain, rng, 3, positions)
    _, kept = objective(chain, arrays, positions)
    h = 1e-6
    targets = [(arrays["x"], kept["grad_activation"][0])]
    targets += [(array, kept["grad_weight"][i]) for i, array in enumerate(arrays["weights"], 1)]
    targets += [(array, kept["grad_bias"][i]) for i, array in enumerate(arrays["biases"], 1)]
    for array, gradient in targets:
        direction = rng.normal(size=array.shape)
        ends = []
        for sign in (1, -1):
            array += sign * h * direction
            ends.append(objective(chain, arrays, positions)[0])
            array -= sign * h * direction
        # Central differences: h^2 J''' and the rounding eps |J| / h, both times the condition of the norms.
        exact = (gradient.reshape(array.shape) * direction).sum()
        assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(exact, rel=2e-5, abs=2e-7 * (1 + np.abs(gradient).max()))


@pytest.mark.parametrize("skip", [None, 1.0, 0.7, "projection"])
@pytest.mark.parametrize("name", STEPS)
def test_each_op_is_differentiated(name, skip):
    skip = [Linear(5)] if skip == "projection" else skip
    block = Block(
        *STEPS[name],
        *([Linear(5)] if skip and name in ("linear", "phi", "phi behind a norm") else []),
        skip=skip,
        scale=0.8,
    )
    check_gradients(Chain(width=5, depth=2 if skip else 1, blocks=[block]), 1, positions=(2,))


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_are_differentiated(name):
    positions, steps = WINDOWS[name]
    check_gradients(Chain(width=5, blocks=[Block(*steps)]), 1, positions=positions)


def test_skips_with_steps_of_their_own_change_positions():
    """Two stages of residual blocks, the first of each with a strided projection, and a head over the mean."""
    stage = lambda channels, stride: Block(
        Conv(channels, stride=stride), Norm("batch"), "tanh", Conv(channels), skip=[Conv(channels, 1, stride=stride)]
    )
    plain = Block(Conv(4), Norm("batch"), "tanh", Conv(4), skip=1.0)
    chain = Chain(
        width=3, first=[stage(4, 1)], depth=2, blocks=[plain], last=[stage(5, 2)], head=Head("softmax", 3, over="mean")
    )
    check_gradients(chain, 3, positions=(4, 4))


def test_a_repeated_stride_gives_each_repetition_positions_of_its_own():
    chain = Chain(width=4, depth=3, blocks=[Conv(4, 3, stride=2), "tanh"])
    program = lower(chain, positions=(9, 5))
    assert program.layers.positions.tolist() == [15, 6, 2]
    assert program.positions_out == (2, 1)
    check_gradients(chain, 3, positions=(9, 5))


def test_a_norm_with_rows_says_what_norms_one_after_another_say():
    """Weights and biases of each repetition, of a pattern whose first repetition has another width, too."""
    rng = np.random.default_rng(3)
    w, b = rng.normal(size=(3, 6)), rng.normal(size=(3, 6))
    parts = lambda weight, bias: Block(
        Linear(6), Norm("layer", weight=weight, bias=bias), "tanh", Norm("rms", weight=2.0)
    )
    rows = Chain(width=4, depth=3, blocks=[parts(w, b)])
    each = Chain(width=4, blocks=[parts(w[i], b[i]) for i in range(3)])
    one, other = (reference.run(lower(chain, batch=3), 0, 2) for chain in (rows, each))
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
    check_gradients(rows, 2)


@pytest.mark.parametrize("seed", range(40))
def test_random_programs_are_differentiated(seed):
    check_gradients(random_chain(seed, smooth=True, attention=seed % 2 == 0), seed, positions=() if seed % 2 else (3,))


def test_every_op_occurs():
    """In the tests above: a new op must take part."""
    seen = set()
    for seed in range(40):
        seen |= {
            op.kind
            for stretch in lower(random_chain(seed, smooth=True, attention=seed % 2 == 1)).stretches
            for op in stretch.ops
        }
    for positions, steps in [*WINDOWS.values(), *(((), steps) for steps in STEPS.values())]:
        stretches = lower(Chain(width=5, blocks=[Block(*steps)]), positions=positions).stretches
        seen |= {op.kind for stretch in stretches for op in stretch.ops}
    assert seen == set(OPS)


def test_keyword_chains_are_chains_of_blocks():
    """The same numbers, whichever way the chain is said."""
    mlp = Block(Norm("rms"), "tanh", Linear(8), skip=1.0, scale=0.5)
    words = Chain(
        depth=5, width=8, activation="tanh", norm="rms", order="norm-activation-linear", residual=Residual(1, 0.5)
    )
    blocks = Chain(depth=5, width=8, blocks=[mlp])
    a, b = (reference.run(lower(chain, batch=3), 0, 2) for chain in (words, blocks))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_a_list_says_what_blocks_say():
    """One value a layer, against the same layers one after another."""
    words = Chain(
        depth=3,
        width=8,
        activation=["relu", "relu", "sigmoid"],
        init=["he_normal", "he_normal", "glorot_normal"],
        gain=[1, 2, 3.0],
    )
    steps = [
        (Linear(8, gain=1.0), "relu"),
        (Linear(8, gain=2.0), "relu"),
        (Linear(8, init="glorot_normal", gain=3.0), "sigmoid"),
    ]
    blocks = Chain(width=8, blocks=[Block(*pair) for pair in steps])
    a, b = (reference.run(lower(chain, batch=3), 0, 2) for chain in (words, blocks))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    assert words.layers == ("1.linear", "2.linear", "3.linear")
    assert blocks.activations == ("1.relu", "2.relu", "3.sigmoid")


def test_dropout_keeps_one_in_so_many_and_backward_sees_the_same():
    """x -> mask of x: signal and gradient are the same entries of their blocks, scaled alike; a share of p is zero."""
    chain = Chain(width=400, blocks=["linear", Dropout(0.25)], last=[Linear(400, init="identity(1)")])
    x, cotangent = np.ones((400, 50)), np.ones((400, 50))
    kept = reference_run(chain, x=x, cotangent=cotangent)["keep"][0]
    out, back = kept["activation"][3], kept["grad_activation"][0]
    np.testing.assert_array_equal(out, back)
    assert set(np.unique(out)) == {0.0, 1 / 0.75}
    assert (out == 0).mean() == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / out.size) ** 0.5)  # five standard deviations


@pytest.mark.parametrize("gain", [3.0, 0.1])
def test_gates_square_magnitudes_until_no_exponent_says_them(gain):
    chain = Chain(depth=70, width=8, blocks=[Gated(8, "linear", gain=gain)])
    t = pk.trace(chain, dtype="float64", against="cpp", tolerance=1e-6)
    assert t.difference is None, str(t)
    forward = [entry.log10_norm for entry in t.entries if entry.direction == "forward"]
    assert max(abs(norm) for norm in forward if math.isfinite(norm)) > 1e16
    assert forward[-1] in ((math.inf, math.nan) if gain > 1 else (-math.inf,)) or math.isnan(forward[-1])


@pytest.mark.parametrize("backend", ["reference", "cpp", "numba"])
@pytest.mark.parametrize("kind", ["batch", "layer", "rms"])
@pytest.mark.parametrize("below", [1e-170, 1e-250, 0.0])
def test_norms_of_columns_far_apart(backend, kind, below):
    """A column (of a batch norm a unit) far below another is normalised by its own size: the squares of neither are
    lost, and a column of zeros, whose norm divides by sqrt(eps), has the largest gradient of all."""
    rng = np.random.default_rng(1)
    n, B, large, eps = 5, 4, 1e250, 1e-5
    x, c, W = rng.normal(size=(n, B)), rng.normal(size=(n, B)), large * rng.normal(size=(n, n))
    if kind == "batch":
        W[1] *= below
    else:
        x[:, 1] *= below
    z, axis = W @ x, 1 if kind == "batch" else 0
    size = np.maximum(np.abs(z).max(axis=axis, keepdims=True), 1.0)  # every group by its own
    mean = lambda y: y.mean(axis=axis, keepdims=True)
    centred = lambda y: y if kind == "rms" else y - mean(y)
    v = centred(z / size)
    r = 1 / np.sqrt(mean(v * v) + (eps**0.5 / size) ** 2)
    wanted = np.log10(np.linalg.norm((centred(c) - v * r * mean(c * v * r)) * r / size))
    chain = pk.Chain(width=n, blocks=[pk.Linear(), pk.Norm(kind, eps=eps)])
    words = {"x": x, "cotangent": c, "weights": [W], "dtype": "float64", "engine": "dense", "backend": backend}
    assert abs(pk.propagate(chain, **words).log10_grad_preactivation[0, 0] - wanted) < 1e-9
