# SPDX-License-Identifier: BSD-3-Clause
"""Theory of max pools: closed forms of the largest of normal numbers, limits, orders that commute, ensembles beside it,
the presets."""

import math
from collections import Counter

import numpy as np
import pytest

import pykernel as pk
from pykernel import Block, Chain, Conv, Head, Norm, Pool, activations
from pykernel.theory.largest import Overlap, Windows, largest, peaks
from pykernel.theory.ops.pool import occurrences
from pykernel.window import Window

ROWS = ("log10_mean_square_activation", "log10_grad_activation", "similarity")


def circular(*channels, **words):
    return Conv(*channels, padding="circular", **words)


def alike(m, shared=0):
    """Windows of m entries, every two of which share so many."""
    pair = ((Overlap(m, m, shared), 1.0),)
    return Windows(((m, 1.0),), pair, (), pair if shared else ())


@pytest.mark.parametrize(
    ("m", "mean", "square"),
    [
        (1, 0.0, 1.0),
        (2, 1 / math.sqrt(math.pi), 1.0),
        (3, 1.5 / math.sqrt(math.pi), 1 + math.sqrt(3) / (2 * math.pi)),
        (4, 1.0293753730, 1 + math.sqrt(3) / math.pi),
    ],
)
def test_largest_of_independent_normals(m, mean, square):
    """Closed forms up to four (Jones 1948, Annals of Mathematical Statistics 19, 270); with a correlation c the mean
    square is c + (1 - c) times that, and two windows have the product c + (1 - c) mean^2."""
    assert largest(((m, 1.0),)) == pytest.approx((mean, square - mean**2), abs=1e-9)
    for c in (0.0, 0.3, 1.0):
        found, expected = peaks(activations.get("linear"), 0.0, c, alike(m)), c + (1 - c) * square
        assert math.exp(found.log_square) == pytest.approx(expected, rel=1e-9)
        assert 1 - found.distance == pytest.approx((c + (1 - c) * mean**2) / expected, abs=1e-9)
        assert found.slope2 == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("m", [1, 2, 4, 9, 49])
def test_relu_lives_where_one_of_m_does(m):
    """1 - 2^-m, and two windows that share r are dead together with 2^-(2 m - r)."""
    shared = m // 2
    found, dead = peaks(activations.get("relu"), 0.0, 0.0, alike(m, shared)), 2.0**-m
    assert found.slope2 == pytest.approx(1 - dead, abs=1e-6)
    assert found.slopes == pytest.approx(1 - 2 * dead + 2.0 ** -(2 * m - shared), abs=2e-4)
    assert found.same == pytest.approx(shared / (2 * m - shared))


@pytest.mark.parametrize(
    ("name", "std", "c", "m", "shared", "first"),
    [
        ("relu", 1.0, 0.5, 9, 3, "function"),
        ("tanh", 2.0, 0.2, 9, 1, "function"),
        ("gelu", 1.5, 0.4, 4, 2, "function"),  # not monotone: the largest value is not the largest entry's
        ("silu", 3.0, 0.1, 9, 3, "function"),
        ("sin", 3.0, 0.1, 4, 0, "function"),
        ("silu", 3.0, 0.1, 9, 3, "pool"),
        ("sin", 1.0, 0.6, 4, 2, "pool"),
    ],
)
def test_two_windows_are_what_draws_say(name, std, c, m, shared, first):
    """200 000 pairs of windows: means within five standard errors."""
    row, count = activations.get(name), 200_000
    found = peaks(row, math.log(std), c, alike(m, shared), first)
    draws, every = np.random.default_rng(1), np.arange(count)
    z = math.sqrt(c) * draws.standard_normal((count, 1))
    z = std * (z + math.sqrt(1 - c) * draws.standard_normal((count, 2 * m - shared)))
    value, slope = row.value(z), row.slope(z)
    by = value if first == "function" else z
    one, two = by[:, :m].argmax(axis=1), m - shared + by[:, m - shared :].argmax(axis=1)
    a, b, f, g = value[every, one], value[every, two], slope[every, one], slope[every, two]
    y, v = z[every, one] / std, z[every, two] / std
    square = math.exp(found.log_square)
    for samples, expected in (
        (a * a, square),
        (a, found.mean * math.sqrt(square)),
        ((a - b) ** 2 / 2, found.distance * square),
        (f * f, found.slope2),
        (f * g, found.slopes),
        ((f * y) ** 2, found.pull2),
        (f * y * g * v, found.pulls),
        (f * f * (one == two), found.shared),
    ):
        assert abs(samples.mean() - expected) < 5 * samples.std() / math.sqrt(count) + 1e-9


@pytest.mark.parametrize(
    ("window", "batch"),
    [
        (Window((16, 16), (3, 3), (2, 2), (1, 1), largest=True), 2),
        (Window((7, 5), (3, 2), (1, 2), (1, 0), largest=True), 3),
        (Window((1, 9), (1, 4), (1, 3), (0, 2), largest=True), 1),
        (Window((4, 4), (2, 2), (2, 2), largest=True), 2),
    ],
)
def test_windows_and_pairs_are_counted(window, batch):
    """Against the sets of positions themselves."""
    seen = [frozenset(column[column >= 0].tolist()) for column in window.sources().T]
    pairs: Counter = Counter()
    every = [(b, i) for b in range(batch) for i in range(len(seen))]
    for one, i in every:
        for two, j in every:
            if (one, i) != (two, j):
                pairs[len(seen[i]), len(seen[j]), len(seen[i] & seen[j]) * (one == two)] += 1
    found = occurrences(window, batch)
    sizes = Counter(map(len, seen))
    assert dict(found.sizes) == pytest.approx({m: count / len(seen) for m, count in sizes.items()})
    assert dict(found.pairs) == pytest.approx({pair: count / pairs.total() for pair, count in pairs.items()})
    near = {pair: count / len(every) for pair, count in pairs.items() if pair[2]}
    assert dict(found.partners) == pytest.approx(near)


@pytest.mark.parametrize("function", ["relu", "tanh", "softplus"])
def test_a_rising_function_may_come_before_the_pool_or_behind_it(function):
    """max phi(z) = phi(max z), and so with their gradients: what enters and leaves both is the same."""
    build = lambda *steps: Chain(
        1, 16, blocks=[circular(), *steps, circular()], last=[Pool("mean")], head=Head("mse", 4)
    )
    before = pk.predict(build(function, Pool("max", 3, stride=2)), 2, positions=(9, 9))
    behind = pk.predict(build(Pool("max", 3, stride=2), function), 2, positions=(9, 9))
    for row in ROWS:
        kept = np.array([0, 1, 3, 4, 5]) - (row != "log10_grad_activation")
        kept = np.unique(np.maximum(kept, 0))
        np.testing.assert_allclose(before.rows[row][kept], behind.rows[row][kept], atol=2e-3, err_msg=row)


def test_windows_of_one_position_are_strides():
    """The largest of one: a stride of the function's outputs, and of the convolution before it."""
    pool = Chain(1, 16, blocks=[Block(circular(), "relu", Pool("max", 1, stride=2)), circular(), "relu"])
    stride = Chain(1, 16, blocks=[Block(circular(stride=2), "relu"), circular(), "relu"])
    one, two = (pk.predict(chain, 2, positions=(8, 8), correlation=0.2) for chain in (pool, stride))
    for row in ROWS:
        np.testing.assert_allclose(one.rows[row], two.rows[row], atol=1e-6, err_msg=row)


def test_of_equal_positions_a_pool_takes_any():
    """Inputs of one and the same column: the signal passes, the first entry takes the gradient."""
    pool = Chain(2, 16, blocks=[circular(), "relu", Pool("max", 2)])
    plain = Chain(2, 16, blocks=[circular(), "relu", pk.Scale(1.0)])
    one, two = (pk.predict(chain, 2, positions=(8, 8), correlation=1.0) for chain in (pool, plain))
    for row in (*ROWS, "log10_grad_preactivation"):
        np.testing.assert_allclose(one.rows[row], two.rows[row], atol=1e-5, err_msg=row)


def stage(*steps, norm="batch", **words):
    return Block(circular(**words), *([Norm(norm)] if norm else []), *steps)


def net(n, *blocks, **words):
    return Chain(1, n, blocks=blocks, last=[Pool("mean")], head=Head("softmax", 10), **words)


TWO, THREE = Pool("max", 2), Pool("max", 3, stride=2, padding=1)
ENSEMBLES = {
    "VGG": (
        lambda n: Chain(1, n, blocks=[stage("relu", norm=None), stage("relu", TWO, norm=None)] * 2),
        {"positions": (8, 8), "batch": 2},
    ),
    "VGG with batch norm": (lambda n: net(n, *[stage("relu", TWO)] * 2, stage("relu")), {"positions": 16, "batch": 8}),
    "tanh, correlated": (
        lambda n: Chain(1, n, init="lecun_normal", blocks=[stage("tanh", TWO, norm=None)] * 2 + [circular()]),
        {"positions": (8, 8), "batch": 2, "correlation": 0.5},
    ),
    "not monotone": (
        lambda n: Chain(1, n, blocks=[stage("gelu", TWO, norm="rms"), stage("silu", TWO, norm="layer"), circular()]),
        {"positions": (8, 8), "batch": 2},
    ),
    "stem": (
        lambda n: net(n, Block(circular(stride=2), Norm("batch"), "relu", THREE), stage("relu"), stage("relu")),
        {"positions": (32, 32), "batch": 2},
    ),
    "stem without norm": (
        lambda n: net(n, Block(circular(), "relu", THREE), stage("relu", norm=None)),
        {"positions": (12, 12), "batch": 2},
    ),
    "stem and a skip that begins with the pool": (
        lambda n: net(n, Block(circular(), Norm("batch"), "relu", THREE), *[residual()] * 2),
        {"positions": (16, 16), "batch": 2},
    ),
    "three that overlap": (
        lambda n: net(
            n,
            Block(circular(kernel=5), "relu", Pool("max", 3, stride=2)),
            stage("relu", Pool("max", 3, stride=2)),
            stage("relu", norm=None),
            Block(circular(), Pool("max", 3, stride=2), "relu"),
        ),
        {"positions": (33, 33), "batch": 2},
    ),
    "pool before the function": (
        lambda n: net(n, Block(circular(), TWO, "relu"), Block(circular(), TWO, "gelu"), gain=1.5),
        {"positions": (12, 12), "batch": 2},
    ),
    "pool before batch norm": (
        lambda n: net(n, Block(circular(), TWO, Norm("batch"), "relu"), Block(circular(), TWO, Norm("batch"), "tanh")),
        {"positions": (16, 16), "batch": 2},
    ),
    "of all positions": (
        lambda n: Chain(1, n, blocks=[circular(), "relu"] * 2, last=[Pool("max")], head=Head("softmax", 10)),
        {"positions": (8, 8), "batch": 4},
    ),
    "of the input": (lambda n: Chain(1, n, blocks=[TWO, circular(), "relu"]), {"positions": (8, 8)}),
    "mean pool behind": (
        lambda n: net(n, stage("relu", TWO, norm=None), Block(Pool("mean", 2), circular(), "relu")),
        {"positions": (8, 8), "batch": 4},
    ),
    "a skip beside the pool": (
        lambda n: net(n, stage("relu"), Block(TWO, circular(), skip=[circular(stride=2)]), "tanh"),
        {"positions": (8, 8), "batch": 4},
    ),
}


def residual():
    return Block(circular(), Norm("batch"), "relu", circular(), Norm("batch"), skip=1.0, after="relu")


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensembles_of_max_pools_lie_beside_the_theory(name):
    """Means of 32 networks of 192 channels, within what other convolutions show: .015 decades of standard error over 5
    layers, .04 with a head of 10 outputs."""
    make, words = ENSEMBLES[name]
    chain = make(192)
    p, m = pk.predict(chain, **words), pk.propagate(chain, replicas=32, **words)
    for row in (
        "log10_mean_square_activation",
        "log10_grad_activation",
        "log10_grad_weight",
        "log10_derivative_factor",
    ):
        np.testing.assert_allclose(np.mean(m.rows[row], axis=0), p.rows[row], atol=0.065, err_msg=row)
    for row in ("similarity", "saturated", "dead"):
        known = np.isfinite(p.rows[row])  # of dead units on sums nothing is said
        np.testing.assert_allclose(np.mean(m.rows[row], axis=0)[known], p.rows[row][known], atol=0.04, err_msg=row)


def test_what_is_not_known_of_max_pools_is_said():
    for steps, words in (
        ([circular(), "relu", pk.Dropout(0.5), TWO], "behind a function on what weights give.*dropout"),
        ([circular(), "relu", TWO, TWO], "behind a function on what weights give.*a max pool"),
        ([Block(circular(), TWO, Norm("layer"), "relu")], "put the norm before the pool"),
        ([circular(), "sin", TWO], "largest of sin"),
        ([Block(circular(), TWO, Norm("batch"), circular())], "with a function behind it in one Block"),
    ):
        gain = 100.0 if "sin" in steps else 1.0
        with pytest.raises(ValueError, match=words):
            pk.predict(Chain(1, 16, blocks=steps, gain=gain), positions=(8, 8))


def test_limits_of_sizes():
    """A small tanh is its argument at any size; equal columns behind batch norm, and one column alone, are no pool."""
    chain = lambda name: Chain(1, 16, gain=1e-200, blocks=[circular(), name, TWO, circular()])
    one, two = (pk.predict(chain(name), positions=(4, 4)) for name in ("tanh", "linear"))
    for row in ROWS:
        np.testing.assert_allclose(one.rows[row], two.rows[row], rtol=1e-12, atol=1e-9, err_msg=row)
    single = Chain(1, 16, blocks=[circular(kernel=1), "relu", Pool("max", 3, stride=1, padding=1), circular(kernel=1)])
    assert pk.predict(single, positions=1).signal_end_to_end == pytest.approx(math.log10(2) / 2, abs=1e-12)


def test_formats_beside_pools():
    """How far pools turn gradients is not said; what flushes and overflows is."""
    formats = pk.Formats(signals="bfloat16", gradients="float8_e5m2")
    for pool in (TWO, Pool("mean", 2)):
        p = pk.predict(Chain(1, 16, blocks=[circular(), "relu", pool]), positions=(4, 4), formats=formats)
        assert np.isnan(p.gradient_cosine).all()
        assert np.isfinite(p.flushed_gradient).all()


@pytest.mark.slow
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize(
    ("name", "make", "batch"),
    [
        ("vgg", lambda: pk.blocks.vgg(16), 2),
        ("vgg with batch norm", lambda: pk.blocks.vgg(16, norm="batch"), 4),
        ("resnet 18", lambda: pk.blocks.resnet(18), 4),
        ("resnet 50", lambda: pk.blocks.resnet(50), 4),
    ],
)
def test_presets_lie_beside_their_predictions(name, make, batch, size):
    """Signals within .1 decades of the mean square (.08 found), gradients within .1 all the way back (.08 found), but
    for a VGG with batch norm over fields of two by two positions, where what pairs of positions have in common is not
    known well enough (.15 found; without maps of positions .59 for the VGG, here .3)."""
    chain, words = make(), {"positions": (size, size), "batch": batch * (64 // size) ** 2}
    p, m = pk.predict(chain, **words), pk.propagate(chain, replicas=4, **words)
    square = np.mean(m.log10_mean_square_activation, axis=0) - p.log10_mean_square_activation
    assert np.abs(square).max() < 0.1
    gradient = np.mean(m.log10_grad_activation, axis=0) - p.log10_grad_activation
    assert np.abs(gradient).max() < (0.2 if name == "vgg with batch norm" else 0.1)
    assert abs(np.median(m.end_to_end) - p.end_to_end) < (0.25 if name == "vgg with batch norm" else 0.12)
