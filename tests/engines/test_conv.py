# SPDX-License-Identifier: BSD-3-Clause
"""Convolution, pooling and flattening: the compiled backends against the definition, what convolutions of one position
are, memory and threads, and what is refused."""

import numpy as np
import pytest
from memory import peaks

import pykernel as pk
from pykernel.engines import cpp, cpp_matrix_free, reference_matrix_free, run
from pykernel.lower import lower
from pykernel.spelling import pattern, plain

DOWN = pk.Block(
    pk.Conv(32, stride=2), pk.Norm("batch"), "relu", pk.Conv(32), pk.Norm("batch"), skip=[pk.Conv(32, 1, stride=2)]
)
STAGES = {
    "residual stages": pk.Chain(
        width=3,
        first=[pk.Block(pk.Conv(16, 7, stride=2), "relu", pk.Pool("max", 3, stride=2, padding=1))],
        depth=3,
        blocks=[pk.Block(pk.Conv(16), pk.Norm("batch"), "relu", pk.Conv(16, groups=4), skip=1.0, after="relu")],
        last=[DOWN, pk.Pool("mean")],
        head=pk.Head("softmax", 10),
    ),
    "depthwise": pk.Chain(
        width=16,
        depth=2,
        blocks=[
            pk.Block(pk.Conv(None, groups=16, bias_std=0.1), pk.Norm("layer"), pk.Conv(32, 1), "gelu", pk.Conv(16, 1))
        ],
    ),
    "odd sizes": pk.Chain(
        width=5,
        init="orthogonal",
        blocks=[pk.Block(pk.Conv(19, (3, 2)), "tanh", pk.Pool("mean", 2), pk.Conv(7, 2), pk.Flatten(), pk.Linear(4))],
    ),
    "dilated": pk.Chain(
        width=16,
        depth=2,
        blocks=[
            pk.Block(pk.Conv(16, dilation=(2, 3)), pk.Norm("batch"), "relu", skip=1.0),
            pk.Block(pk.Conv(16, (3, 2), padding="circular", dilation=2, groups=2), "tanh"),
        ],
        last=[pk.Conv(8, 3, stride=2, padding="valid", dilation=(3, 1))],
    ),
    "circular": pk.Chain(
        width=16,
        depth=3,
        blocks=[pk.Block(pk.Conv(16, 3, padding="circular"), "relu")],
        head=pk.Head("mse", 3, over="mean"),
    ),
}
POSITIONS, BATCH = (20, 18), 2
SCALED = ("log10_grad_bias",)  # rounding, where a batch norm makes it zero


def rows(name, backend, dtype, **words):
    job = run.prepare(
        STAGES[name], engine="dense", backend=backend, batch=BATCH, positions=POSITIONS, dtype=dtype, **words
    )
    return run.execute(job, 0, 2, 1)


def assert_alike(expected, found, atol):
    for row in expected:
        if row not in SCALED:
            np.testing.assert_allclose(found[row], expected[row], atol=atol, err_msg=row)


@pytest.mark.parametrize("precision", ["exponent", "native"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", STAGES)
def test_compiled_against_the_definition(name, dtype, precision):
    # float32: some thousand terms a sum, 2^-24 each, and ten layers one after another
    atol = 1e-9 if dtype == "float64" else 2e-4
    words = {"precision": precision}
    assert_alike(rows(name, "reference", "float64", **words), rows(name, "cpp", dtype, **words), atol)


@pytest.mark.parametrize("name", ["depthwise", "circular"])
def test_magnitudes_beyond_the_range_of_numbers(name):
    """Gains of 2^70 on convolutions: exponents go through patches, pools and groups. (Batch norm takes them away.)"""
    chain = STAGES[name].replace(gain=2.0**70)
    words = {"engine": "dense", "batch": BATCH, "positions": POSITIONS, "replicas": 2}
    a = pk.propagate(chain, backend="reference", dtype="float64", **words)
    b = pk.propagate(chain, backend="cpp", dtype="float32", **words)
    for row in ("log10_grad_weight", "log10_grad_activation", "log10_mean_square_activation"):
        np.testing.assert_allclose(b.rows[row], a.rows[row], atol=2e-3, err_msg=row)


def test_numba_against_the_definition():
    pytest.importorskip("numba")
    for name in STAGES:
        assert_alike(rows(name, "reference", "float64"), rows(name, "numba", "float64"), 1e-9)


@pytest.mark.parametrize("name", STAGES)
def test_clipped_and_rounded(name):
    clipped = STAGES[name].replace(clip=pk.Clip(value=1e-3))
    words = {"engine": "dense", "batch": BATCH, "positions": POSITIONS, "dtype": "float64"}
    a, b = (pk.propagate(clipped, backend=backend, **words) for backend in ("reference", "cpp"))
    np.testing.assert_allclose(a.log10_grad_weight, b.log10_grad_weight, atol=1e-9)
    formats = pk.Formats(weights="bfloat16", signals="bfloat16", gradients="bfloat16")
    a, b = (pk.propagate(STAGES[name], backend=e, **words, formats=formats) for e in ("reference", "cpp"))
    # a rounding that falls on the other side changes an entry by 2^-8, and there are few before a head
    np.testing.assert_allclose(a.log10_grad_activation, b.log10_grad_activation, atol=0.02)
    np.testing.assert_allclose(a.log10_error_gradient, b.log10_error_gradient, atol=0.3)


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_depend_neither_on_threads_nor_on_memory(name, dtype):
    program = lower(STAGES[name], batch=BATCH, positions=POSITIONS, dtype=dtype)
    first = cpp.run(program, 0, 3, threads=1)
    for words in ({"threads": 2}, {"threads": 3}, {"threads": 7}, *({"threads": 2, "memory": m} for m in (1, 1 << 20))):
        again = cpp.run(program, 0, 3, **words)
        for row in first:
            assert again[row].tobytes() == first[row].tobytes(), (row, words)


def test_a_convolution_of_one_position_is_a_dense_chain_of_inputs_times_positions():
    """The same weights, drawn at the same addresses; truth of theory, and of the code paths around it."""
    conv = pk.Chain(width=12, depth=3, blocks=[pk.Block(pk.Norm("batch"), "tanh", pk.Conv(12, 1), skip=1.0)])
    dense = pk.Chain(width=12, depth=3, blocks=[pk.Block(pk.Norm("batch"), "tanh", pk.Linear(12), skip=1.0)])
    x = np.random.default_rng(0).normal(size=(12, 2, 3, 5))
    c = np.random.default_rng(1).normal(size=(12, 2, 3, 5))
    for backend in ("reference", "cpp"):
        a = pk.propagate(conv, x=x, cotangent=c, positions=(3, 5), engine="dense", backend=backend)
        b = pk.propagate(dense, x=x.reshape(12, 30), cotangent=c.reshape(12, 30), engine="dense", backend=backend)
        for row in a.rows:
            np.testing.assert_array_equal(a.rows[row], b.rows[row], err_msg=row)


@pytest.mark.parametrize("backend", ["reference", "cpp", "numba"])
def test_a_delta_orthogonal_convolution_is_a_dense_chain_of_inputs_times_positions(backend):
    """Truth of theory; the gradient of its kernel has all taps, so that its norm is larger."""
    if backend == "numba":
        pytest.importorskip("numba")
    blocks = lambda step: [pk.Block("tanh", step)]
    conv = pk.Chain(width=20, depth=3, init="delta_orthogonal", blocks=blocks(pk.Conv(20, 3, padding="circular")))
    dense = pk.Chain(width=20, depth=3, init="orthogonal", blocks=blocks(pk.Linear(20)))
    words = {"dtype": "float64", "engine": "dense", "replicas": 2, "backend": backend}
    x, c = np.random.default_rng(0).normal(size=(2, 20, 2, 3, 4))
    a = pk.propagate(conv, x=x, cotangent=c, positions=(3, 4), **words)
    b = pk.propagate(dense, x=x.reshape(20, 24), cotangent=c.reshape(20, 24), **words)
    for row in a.rows:
        if row != "log10_grad_weight":
            np.testing.assert_allclose(a.rows[row], b.rows[row], atol=1e-12, err_msg=row)
    assert (a.log10_grad_weight > b.log10_grad_weight).all()
    w = pk.weights(conv, layer=1, positions=(3, 4))
    np.testing.assert_allclose(w[:, :, 1, 1] @ w[:, :, 1, 1].T, np.eye(20), atol=1e-12)
    assert np.count_nonzero(w) == 400


def test_a_window_of_all_positions_is_a_dense_layer():
    """Conv with a kernel of the whole field: one position is left, and its weight is that of a flattened input."""
    conv = pk.Chain(width=3, blocks=[pk.Conv(5, (4, 2), padding="valid")])
    dense = pk.Chain(width=3, blocks=[pk.Block(pk.Flatten(), pk.Linear(5))])
    x = np.random.default_rng(0).normal(size=(3, 2, 4, 2))
    weight = pk.weights(conv, layer=1, positions=(4, 2))
    assert weight.shape == (5, 3, 4, 2)
    words = {"x": x, "dtype": "float64", "engine": "dense"}
    a = pk.propagate(conv, positions=(4, 2), weights=[weight], cotangent=np.ones((5, 2, 1, 1)), **words)
    b = pk.propagate(dense, positions=(4, 2), weights=[weight.reshape(5, 24)], cotangent=np.ones((5, 2)), **words)
    np.testing.assert_allclose(a.log10_grad_weight, b.log10_grad_weight, atol=1e-12)
    np.testing.assert_allclose(a.log10_mean_square_preactivation, b.log10_mean_square_preactivation, atol=1e-12)


def test_fans_are_those_of_pytorch_and_keras():
    """He: variance 2 / (channels in / groups * taps); Glorot: the mean of both fans, groups in both."""
    for groups in (1, 4):
        chain = pk.Chain(width=64, init="he_normal", blocks=[pk.Conv(128, 5, groups=groups)])
        w = pk.weights(chain, layer=1, positions=(8, 8))
        assert w.shape == (128, 64 // groups, 5, 5)
        fan_in, fan_out = 64 // groups * 25, 128 // groups * 25
        assert w.var() == pytest.approx(2 / fan_in, rel=5 * (2 / w.size) ** 0.5)
        w = pk.weights(chain.replace(init="glorot_normal"), layer=1, positions=(8, 8))
        assert w.var() == pytest.approx(2 / (fan_in + fan_out), rel=5 * (2 / w.size) ** 0.5)


# -- matrix-free, through patches

PATCHES = pk.Chain(
    width=24,
    depth=2,
    init="lecun_normal",
    blocks=[pk.Block(pk.Norm("batch"), "tanh", pk.Conv(24, 3), skip=1.0)],
    last=[pk.Conv(16, 2, stride=2), pk.Block(pk.Flatten(), "tanh", pk.Linear(4))],
)


def test_matrix_free_is_the_same_in_both_backends():
    program = lower(PATCHES, batch=2, positions=(4,), dtype="float64")
    a, b = reference_matrix_free.run(program, 0, 3), cpp_matrix_free.run(program, 0, 3, threads=2)
    for row in a:
        np.testing.assert_allclose(b[row], a[row], atol=1e-9, err_msg=row)


def test_matrix_free_has_the_law_of_drawn_kernels():
    """Means and standard deviations of every row over 4000 replicas, and of products of rows, within 4.5 standard
    errors."""
    R = 4000
    program = lower(PATCHES, batch=2, positions=(4,))
    dense, free = cpp.run(program, 0, R, threads=2), cpp_matrix_free.run(program, R, R, threads=2)
    names = ("log10_grad_weight", "log10_grad_activation", "log10_mean_square_preactivation", "log10_weight_factor")
    sides = [np.hstack([side[name] for name in names]) for side in (dense, free)]
    sides = [side[:, np.ptp(sides[0], axis=0) > 1e-6] for side in sides]
    centre = sides[0].mean(axis=0)
    for of in (lambda s: s, lambda s: (s - centre) ** 2, lambda s: (s - centre) * np.roll(s - centre, 1, axis=1)):
        a, b = of(sides[0]), of(sides[1])
        z = (a.mean(axis=0) - b.mean(axis=0)) / np.sqrt((a.var(axis=0) + b.var(axis=0)) / R)
        assert np.abs(z).max() < 4.5


@pytest.mark.parametrize("backend", ["reference", "cpp", pytest.param("numba", marks=pytest.mark.slow)])
@pytest.mark.parametrize("padding", ["zero", "circular", "valid"])
def test_dilation_is_a_kernel_with_zeros_between_its_taps(padding, backend):
    """The same signals and gradients of signals; of the weights' gradients those of the taps."""
    draws = np.random.default_rng(3)
    weights = [draws.standard_normal((6, 4, 3, 2)), draws.standard_normal((5, 6, 2, 3))]
    wide = [np.zeros((6, 4, 5, 4)), np.zeros((5, 6, 2, 7))]
    wide[0][:, :, ::2, ::3], wide[1][:, :, :, ::3] = weights[0], weights[1]
    words = {"padding": padding, "bias_std": 0.0}
    sparse = [pk.Conv(6, (3, 2), dilation=(2, 3), **words), "tanh", pk.Conv(5, (2, 3), dilation=(1, 3), **words)]
    full = [pk.Conv(6, (5, 4), **words), "tanh", pk.Conv(5, (2, 7), **words)]
    run = {"positions": (11, 12), "batch": 2, "dtype": "float64", "backend": backend, "engine": "dense"}
    one = pk.propagate(pk.Chain(width=4, blocks=sparse), weights=weights, **run)
    two = pk.propagate(pk.Chain(width=4, blocks=full), weights=wide, **run)
    for row in ("log10_grad_activation", "log10_mean_square_activation", "similarity"):
        np.testing.assert_allclose(one.rows[row], two.rows[row], atol=1e-12, err_msg=row)


def test_auto_asks_patches_only_where_that_pays_whatever_the_backend():
    wide = pk.Chain(width=512, blocks=[pk.Conv(512)])
    for backend in ("auto", "cpp", "reference"):
        engine = lambda *positions, b=backend: run.prepare(wide, positions=positions, backend=b).choice.engine
        assert engine(2, 2) == "matrix_free"
        assert engine(32, 32) == "dense"


# -- words


def test_steps_are_plain_data():
    steps = (
        pk.Conv(8, (3, 1), stride=2, padding="circular", groups=2, dilation=(2, 1)),
        pk.Conv(),
        pk.Pool("max", 3, stride=2, padding=1),
    )
    block = pk.Block(*steps, pk.Pool("mean"), pk.Flatten(), skip=[pk.Conv(8, 1, stride=4)])
    assert pattern([plain(block)]) == (block,)
    assert pattern(["conv(8, 3)", "pool(mean)", "flatten()"]) == (pk.Conv(8, 3), pk.Pool("mean"), pk.Flatten())
    assert eval(repr(block), {"Block": pk.Block, "Conv": pk.Conv, "Pool": pk.Pool, "Flatten": pk.Flatten}) == block


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (lambda: pk.Conv(0), ValueError, "conv channels must be a positive int"),
        (lambda: pk.Conv(8, (3, 3, 3)), ValueError, "one or two, one an axis"),
        (lambda: pk.Conv(8, padding="same"), ValueError, "conv padding must be one of 'zero', 'circular', 'valid'"),
        (lambda: pk.Conv(8, dilation=0), ValueError, "conv dilation must be a positive int"),
        (lambda: pk.Conv(8, groups=3), ValueError, "conv groups must divide channels"),
        (lambda: pk.Pool("min"), ValueError, "pool kind must be one of 'mean', 'max'"),
        (lambda: pk.Pool("mean", stride=2), ValueError, "go with a size"),
        (lambda: pk.Chain(width=4, blocks=[pk.Conv(8)]).layer_widths, ValueError, "needs positions"),
        (lambda: pk.propagate(pk.Chain(width=4, blocks=[pk.Conv(8)])), ValueError, "needs positions"),
        (lambda: pk.propagate(pk.Chain(width=4, blocks=[pk.Conv(8, (3, 3))]), positions=9), ValueError, "has 2 axes"),
        (
            lambda: pk.propagate(pk.Chain(width=4, init="delta_orthogonal", blocks=[pk.Conv(4, 2)]), positions=9),
            ValueError,
            "needs kernels with a middle",
        ),
        (
            lambda: pk.propagate(pk.Chain(width=4, init="identity", blocks=[pk.Conv(4)]), positions=9),
            ValueError,
            "says nothing of a convolution",
        ),
        (
            lambda: pk.propagate(pk.Chain(width=4, blocks=[pk.Conv(8, groups=8)]), positions=9),
            ValueError,
            "must divide",
        ),
        (
            lambda: pk.propagate(pk.Chain(width=4, blocks=[pk.Conv(4, 7, padding="valid")]), positions=5),
            ValueError,
            "as many positions as its window has",
        ),
        (
            lambda: pk.propagate(pk.Chain(width=4, blocks=[pk.Block(pk.Conv(4, stride=2), skip=1.0)]), positions=8),
            ValueError,
            "a skip needs as many positions as its branch",
        ),
        (
            lambda: pk.propagate(pk.Chain(width=4, blocks=[pk.Conv(4, groups=2)]), positions=8, engine="matrix_free"),
            ValueError,
            "not those of convolutions in groups",
        ),
        (
            lambda: pk.propagate(
                pk.Chain(width=4, blocks=[pk.Conv(4)]), positions=8, weights=[np.ones((4, 12))], engine="dense"
            ),
            ValueError,
            r"must have shape \(4, 4, 3\)",
        ),
    ],
)
def test_what_does_not_fit_is_said(make, kind, said):
    with pytest.raises(kind, match=said):
        make()


MEMORY = """
conv = lambda c, k=3, s=1: (pk.Conv(c, k, stride=s), pk.Norm("batch"))
def bottleneck(c, s, first):
    skip = [*conv(4 * c, 1, s)] if first else 1.0
    return pk.Block(*conv(c, 1), "relu", *conv(c, 3, s), "relu", *conv(4 * c, 1), skip=skip, after="relu")
first = [pk.Block(*conv(64, 7, 2), "relu", pk.Pool("max", 3, stride=2, padding=1))]
blocks = [bottleneck(64 << i, 2 if i and not j else 1, not j) for i, n in enumerate((3, 8, 36, 3)) for j in range(n)]
chain = pk.Chain(width=3, first=first, blocks=blocks, last=[pk.Pool("mean")], head=pk.Head("softmax", 1000))
p = pk.propagate(chain, positions=(224, 224), engine="dense", backend="cpp", threads=1)
assert len(p.layers) == 155
"""


def test_152_layers_of_224_by_224_fit_in_a_gibibyte():
    """With all of Python 0.68 GiB: inputs of layers are kept, patches and all, and no matrix of pairs of columns."""
    assert peaks(MEMORY)[1] < 1024  # MiB


def test_a_chain_shows_itself_and_is_advised_where_sizes_depend_on_positions():
    chain = pk.Chain(depth=30, width=4, gain=0.3, blocks=[pk.Conv(4), "relu"])
    assert "30 weight layers" in chain._repr_html_()
    found = pk.recommend(chain, positions=5, replicas=8)
    assert found.original.verdict == "vanishing"
    assert any("convolutions" in reason for reason in found.left_out)


def test_long_patterns_are_said_in_a_few_lines_and_square_kernels_in_one_way():
    """ResNet-152 has 50 blocks; a reader sees the first and the last of them, and how many lie between."""
    said = str(pk.blocks.resnet(152))
    assert "... 47 more blocks ..." in said
    assert "2 times (a + (conv 512 (1)" in said
    assert len(said) < 600
    assert str(pk.Conv(16, (3, 3), stride=(2, 2))) == str(pk.Conv(16, 3, stride=2)) == "conv 16 (3, stride 2)"
    assert str(pk.Conv(16, (3, 1))) == "conv 16 (3 x 1)"
