# SPDX-License-Identifier: BSD-3-Clause
"""Layers that share weights: they compute what layers with equal weights compute, and their gradient is the sum over
uses."""

import numpy as np
import pytest

import pykernel as pk
from pykernel import observables
from pykernel.engines import cpp
from pykernel.lower import lower
from pykernel.ops import linear

Block, Linear, Norm = pk.Block, pk.Linear, pk.Norm
TOTALS = tuple(observables.OF_USES)
LOOPED = pk.Chain(
    depth=3,
    width=24,
    tied=True,
    bias_std=0.2,
    first=[Linear(24)],
    blocks=[
        Block(Norm("layer"), Linear(40), "gelu", Linear(24), skip=1.0),
        Block(Norm("rms"), pk.Attention(4, causal=True), skip=0.5),
        Block(pk.Gated(17, "silu"), Linear(24, init="orthogonal"), skip=1.0),
    ],
    last=[Linear(9)],
)
RNN = pk.Chain(depth=7, width=33, activation="tanh", bias_std=0.3, tied=True)
# chain, words: sums of many uses and of few, fewer columns than units and more, magnitudes hundreds of decades apart
CASES = {
    "recurrent": (RNN, dict(batch=3)),
    "one input, many uses": (RNN.replace(depth=90), {}),
    "few uses beside the width": (RNN.replace(width=150, depth=5), dict(batch=2)),
    "vanishing": (RNN.replace(activation="linear", gain=1e-9, depth=40), dict(batch=2)),
    "exploding": (RNN.replace(activation="linear", gain=1e9, depth=30), dict(batch=2)),
    "vanishing, wide": (RNN.replace(activation="linear", gain=1e-9, depth=8, width=150), dict(batch=2)),
    "batch norm": (RNN.replace(norm="batch", bias_std=0.0), dict(batch=9)),
    "orthogonal": (RNN.replace(init="orthogonal"), dict(batch=2)),
    "branches": (RNN.replace(residual=pk.Residual(2, 0.5), head=pk.Head("softmax", 5)), dict(batch=2)),
    "clipped entries": (RNN.replace(clip=pk.Clip(value=0.01)), dict(batch=2)),
    "clipped norm": (RNN.replace(clip=pk.Clip(norm=0.01, per_layer=True)), dict(batch=2)),
    "looped blocks": (LOOPED, dict(batch=2, positions=5)),
    "dropout": (pk.Chain(depth=4, width=12, blocks=[Linear(), "tanh", pk.Dropout(0.3)], tied=True), dict(batch=2)),
    "plain arithmetic": (RNN, dict(batch=2, precision="native")),
    "formats": (RNN, dict(batch=2, formats=pk.Formats("bfloat16", "bfloat16", "float16"))),
}


def rows_of(chain, backend, **words):
    return pk.propagate(chain, engine="dense", backend=backend, replicas=2, seed=5, **words).rows


def assert_rows(found, expected, tolerance):
    """Equal within a tolerance in decades (or relative); bias gradients that are rounding noise aside."""
    for name, row in expected.items():
        noise = row < expected["log10_grad_weight"].max() - 11 if name.startswith("log10_grad_bias") else False
        a, b = np.where(noise, 0, found[name]), np.where(noise, 0, row)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=name, equal_nan=True)


def arrays_of(chain, replica=1):
    """Weights and biases of a replica, one a use."""
    program = lower(chain, seed=5)
    own = program.layers.bias_draw != 0
    biases = [linear.bias(program, replica, l + 1)[:, 0] if own[l] else None for l in range(program.depth)]
    return [pk.weights(chain, layer=l + 1, seed=5, replica=replica) for l in range(program.depth)], biases


@pytest.mark.parametrize("case", CASES)
def test_tied_layers_are_layers_of_equal_weights(case):
    """No row of a use may differ from that of an untied chain which was given the same weight for every use."""
    chain, words = CASES[case]
    chain = chain.replace(clip=None)  # it clips what is the gradient, and that is another
    weights, biases = arrays_of(chain)
    words = {**words, "dtype": "float64", "weights": weights, "biases": biases}
    found = rows_of(chain, "reference", **{**words, "weights": None, "biases": None})
    untied = rows_of(chain.replace(tied=False), "reference", **words)
    given = rows_of(chain, "reference", **words)
    replica = lambda rows: {name: row[1:] for name, row in rows.items()}  # the one whose weights were given
    assert_rows(replica(given), replica(found), 1e-9)
    assert not any(untied.pop(name).size for name in TOTALS)
    assert_rows(replica(untied), {name: row[1:] for name, row in found.items() if name not in TOTALS}, 1e-9)


# what Numba compiles takes seconds a case, and what differs from case to case is in few places
WITH_NUMBA = ("recurrent", "vanishing", "batch norm", "orthogonal", "clipped entries", "looped blocks", "formats")


@pytest.mark.parametrize(
    ("backend", "case"), [*(("cpp", case) for case in CASES), *(("numba", case) for case in WITH_NUMBA)]
)
def test_backends_agree(case, backend):
    chain, words = CASES[case]
    expected = rows_of(chain, "reference", dtype="float64", **words)
    assert_rows(rows_of(chain, backend, dtype="float64", **words), expected, 1e-8 if "formats" in words else 1e-10)
    if not {"formats", "precision"} & set(words) and "normal" not in case:
        assert_rows(rows_of(chain, backend, dtype="float32", **words), expected, 2e-3)


@pytest.mark.parametrize("case", [case for case in CASES if not {"formats", "precision"} & set(CASES[case][1])])
def test_totals_are_the_norms_of_sums_over_uses(case):
    chain, words = CASES[case]
    names = ("grad_weight", "grad_bias", "grad_weight_total", "grad_bias_total")
    p = pk.propagate(
        chain.replace(clip=None), engine="dense", backend="reference", dtype="float64", keep=names, seed=5, **words
    )
    kept, weight = p.kept[0], lower(chain).layers.weight
    for what in ("weight", "bias"):
        for w in range(weight.max() + 1):
            uses = [kept[f"grad_{what}"][l + 1] for l in np.flatnonzero(weight == w)]
            top = max(np.abs(use).max() for use in uses)  # uses of 1e-300 and less have no squares
            size = np.log10(np.linalg.norm(sum(uses) / top)) + np.log10(top)
            found = getattr(p, f"log10_grad_{what}_total")[0, w]
            noise = p.log10_grad_weight.max() - 11  # biases before batch norm, or of keys, have no gradient
            assert found == pytest.approx(size, abs=1e-9) or max(found, size) < noise
            np.testing.assert_allclose(kept[f"grad_{what}_total"][w + 1], sum(uses), rtol=1e-9, atol=1e-12 * top)


def test_the_total_is_the_derivative_with_respect_to_the_weight():
    """One weight changed in all its uses at once, by central differences of the loss."""
    chain = LOOPED.replace(head=pk.Head("mse", 3))
    words = dict(x=np.random.default_rng(1).normal(size=(24, 2, 3)), positions=3)
    weights = [pk.weights(chain, layer=name) for name in chain.tied_layers]
    gradients = pk.gradients(chain, weights=weights, biases=[None] * len(weights), **words)
    assert [g.shape for g in gradients] == [w.shape for w in weights]
    rng = np.random.default_rng(0)
    loss = lambda arrays: pk.propagate(
        chain, backend="reference", dtype="float64", weights=arrays, biases=[None] * len(arrays), **words
    ).loss[0]
    for w, gradient in enumerate(gradients):
        direction, h = rng.normal(size=weights[w].shape), 1e-5
        moved = [[*weights[:w], weights[w] + step * direction, *weights[w + 1 :]] for step in (h, -h)]
        change = (loss(moved[0]) - loss(moved[1])) / (2 * h)
        assert change == pytest.approx((gradient * direction).sum(), rel=1e-6)


def test_first_last_and_the_head_keep_their_own():
    assert LOOPED.layers[:3] == ("1.linear", "2.linear1", "2.linear2")
    first, *shared, last = LOOPED.tied_layers
    assert (first, last) == ("1.linear", "11.linear") and len(shared) == 9 and set(shared) <= set(LOOPED.layers[1:10])
    layers = lower(LOOPED).layers
    np.testing.assert_array_equal(layers.address, [1, *np.tile(np.arange(2, 11), 3), 29])
    p = pk.propagate(LOOPED.replace(head=pk.Head("mse", 4)), engine="dense", replicas=2)
    assert p.log10_grad_weight_total.shape == (2, 11)
    for place, use in ((0, 0), (10, 28)):
        np.testing.assert_allclose(p.log10_grad_weight_total[:, place], p.log10_grad_weight[:, use], atol=1e-6)
    assert LOOPED.weight_count == sum(pk.weights(LOOPED, layer=name).size for name in LOOPED.tied_layers)


def test_without_sharing_a_total_is_the_layers_own():
    p = pk.propagate(pk.Chain(depth=3, width=8), engine="dense", replicas=2)
    assert p.log10_grad_weight_total is p.log10_grad_weight and p.log10_grad_bias_total is p.log10_grad_bias
    assert pk.Chain(depth=1, width=8, tied=True).tied_layers == ()
    assert "log10_grad_weight_total" not in p.to_xarray()


def test_clipping_acts_on_totals():
    uses = pk.propagate(RNN, engine="dense", backend="reference", dtype="float64")
    for backend in ("reference", "cpp"):
        clipped = pk.propagate(RNN.replace(clip=pk.Clip(norm=1e-3)), engine="dense", backend=backend, dtype="float64")
        norm = np.hypot(10**clipped.log10_grad_weight_total, 10**clipped.log10_grad_bias_total)
        np.testing.assert_allclose(norm, 1e-3, rtol=1e-9)
        np.testing.assert_allclose(clipped.log10_grad_weight, uses.log10_grad_weight, atol=1e-9)
        np.testing.assert_allclose(
            clipped.log10_grad_weight_total - uses.log10_grad_weight_total,
            clipped.log10_grad_bias_total - uses.log10_grad_bias_total,
            atol=1e-9,
        )
    (gradient,) = pk.gradients(RNN.replace(clip=pk.Clip(value=0.01)))
    assert np.abs(gradient).max() == 0.01


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", ["recurrent", "few uses beside the width", "looped blocks", "formats"])
def test_bits_do_not_depend_on_threads_or_memory(case, dtype):
    chain, words = CASES[case]
    program = lower(chain, dtype=dtype, seed=3, **words)
    first = cpp.run(program, 0, 3, threads=1)
    for threads, memory in ((2, None), (3, 0), (7, 60_000)):
        again = cpp.run(program, 0, 3, threads=threads, memory=memory)
        for name, row in first.items():
            np.testing.assert_array_equal(again[name], row, err_msg=name)


def test_a_wide_weight_is_split_among_threads_without_a_trace():
    program = lower(pk.Chain(depth=70, width=700, activation="tanh", tied=True), batch=2)
    one, many = (cpp.run(program, 0, 1, threads=threads) for threads in (1, 3))
    for name, row in one.items():
        np.testing.assert_array_equal(many[name], row, err_msg=name)


@pytest.mark.parametrize("backend", ["reference", "cpp", "numba"])
def test_a_users_sampler_is_asked_once_a_weight(backend):
    asked = []

    def draw(rows, columns, seed):
        asked.append(seed)
        return np.random.default_rng(seed).normal(size=(rows, columns)) / np.sqrt(columns)

    init = pk.Init(sampler=draw, scale=lambda *fans: 1.0, name="own")
    p = pk.propagate(RNN.replace(init=init), backend=backend, replicas=2, engine="dense")
    assert len(asked) == 2 and p.log10_grad_weight_total.shape == (2, 1)


def test_it_is_an_axis_of_sweeps(tmp_path):
    words = dict(base={"width": 24, "depth": 6, "activation": "tanh"}, replicas=3, progress=False)
    ds = pk.sweep({"tied": [False, True]}, store=tmp_path / "s", profiles=("log10_grad_weight_total",), **words)
    assert ds.tied.values.tolist() == ["False", "True"]
    assert np.isfinite(ds.log10_grad_weight_total_mean.values).sum(axis=1).tolist() == [6, 1]
    chain = pk.Chain(depth=6, width=24, activation="tanh", tied=True)
    alone = pk.propagate(chain, replicas=3)
    np.testing.assert_array_equal(alone.slope.mean(), ds.slope.values[1].mean())
    again = pk.sweep([chain.replace(tied=False)], store=tmp_path / "t", replicas=3, progress=False)
    np.testing.assert_array_equal(again.slope.values[0], ds.slope.values[0])


@pytest.mark.parametrize("positions", [3, 40])
def test_tied_convolutions_sum_over_uses(positions):
    """Fewer columns than units and more, where norms are taken of dJ/dW itself; Numba says who can."""
    chain = pk.Chain(depth=3, width=6, tied=True, blocks=[pk.Conv(6, kernel=3), "tanh"])
    words = dict(batch=2, positions=positions, seed=1)
    kernel = pk.weights(chain, layer=1, seed=1, positions=positions)
    uses = pk.gradients(chain.replace(tied=False), weights=[kernel] * 3, **words)
    (total,) = pk.gradients(chain, **words)
    np.testing.assert_allclose(total, sum(uses), rtol=0, atol=1e-13)
    run = dict(engine="dense", backend="reference", dtype="float64", **words)
    row = pk.propagate(chain, **run).log10_grad_weight_total
    np.testing.assert_allclose(row, [[np.log10(np.linalg.norm(total))]], rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match='backend="cpp" does, without groups'):
        pk.propagate(chain, **{**run, "backend": "numba"})
    grouped = chain.replace(blocks=[pk.Conv(6, kernel=3, groups=2), "tanh"])
    with pytest.raises(ValueError, match='in groups that share a weight; backend="reference" does'):
        pk.propagate(grouped, **{**run, "backend": "cpp"})


CONVOLUTIONS = {
    "equal": (pk.Chain(depth=5, width=6, tied=True, blocks=[pk.Conv(6, kernel=3), "tanh"]), 7),
    "many columns": (pk.Chain(depth=5, width=6, tied=True, blocks=[pk.Conv(6, kernel=3, bias_std=0.2), "relu"]), 90),
    # uses of one weight see fewer and fewer positions
    "shrinking": (pk.Chain(depth=3, width=8, tied=True, blocks=[pk.Conv(8, kernel=3, stride=2), "gelu"]), 40),
    "planes": (
        pk.Chain(
            depth=2,
            width=5,
            tied=True,
            first=[pk.Conv(16, kernel=3)],
            blocks=[pk.Block(pk.Norm("batch"), "relu", pk.Conv(16, kernel=3), skip=1.0), pk.Pool("mean", 2)],
            last=[pk.Flatten(), pk.Linear(3)],
            head=pk.Head("softmax", 3),
        ),
        (8, 8),
    ),
}


@pytest.mark.parametrize("engine", ["dense", "matrix_free"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_compiled_tied_convolutions_agree_with_the_definition(name, engine):
    """To rounding over the uses; matrix-free, patches are columns that an oracle is asked for."""
    chain, positions = CONVOLUTIONS[name]
    words = dict(engine=engine, batch=2, positions=positions, replicas=2, seed=3)
    expected = pk.propagate(chain, backend="reference", dtype="float64", **words).rows
    for dtype, tolerance in (("float64", 1e-7 if engine == "matrix_free" else 1e-10), ("float32", 5e-3)):
        found = pk.propagate(chain, backend="cpp", dtype=dtype, **words).rows
        assert_rows(found, expected, tolerance)
    program = lower(chain, **{word: words[word] for word in ("batch", "positions", "seed")})
    if engine == "dense":
        for threads, memory in ((1, None), (3, 0)):
            again = cpp.run(program, 0, 2, threads=threads, memory=memory)
            np.testing.assert_array_equal(again["log10_grad_weight_total"], found["log10_grad_weight_total"])
