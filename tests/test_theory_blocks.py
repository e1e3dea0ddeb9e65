# SPDX-License-Identifier: BSD-3-Clause
"""Theory of chains of blocks: closed forms that it must give, and ensembles at width 1024 beside it."""

import math

import numpy as np
import pytest

import pykernel as pk
from pykernel import Block, Chain, Dropout, Gated, Linear, Norm, Scale

# E silu(Z)^2 and E gelu(Z)^2, Z standard normal, by quadrature elsewhere.
SILU2, GELU2 = 0.3557755, 0.4252215


def mlp(n, inside, *, norm="layer", function="gelu", **block):
    """Pre-norm branch: norm, up, function, down; variance 1/fan_in."""
    return Block(Norm(norm), Linear(inside), function, Linear(n), skip=1.0, **block)


def lecun(n, depth, blocks, **words):
    return Chain(depth=depth, width=n, init="lecun_normal", blocks=blocks, **words)


def test_normalised_linear_branches_add_one_each():
    """x + norm(W x): the mean square is 65 after 64 branches; norm first gives the same. The gradient grows by its
    root, 8.06."""
    for steps in ((Linear(), Norm("rms", eps=1e-30)), (Norm("rms", eps=1e-30), Linear())):
        p = pk.predict(lecun(512, 64, [Block(*steps, skip=1.0)]))
        np.testing.assert_allclose(10**p.log10_mean_square_activation, 2 + np.arange(64), rtol=1e-9)
        assert 10**p.signal_end_to_end == pytest.approx(65**0.5, rel=1e-9)


def test_sums_times_root_half_keep_the_mean_square():
    p = pk.predict(lecun(256, 24, [Block(Linear(), skip=0.5**0.5, scale=0.5**0.5)]))
    np.testing.assert_allclose(p.log10_mean_square_activation, 0, atol=1e-12)
    assert p.signal_end_to_end == pytest.approx(0, abs=1e-12)


def test_the_branch_of_gpt_2():
    """Both weights of std .02 at 768 and 3072 units behind a layer norm: z .3072, branch .1308; with .02 / sqrt(24)
    .00545."""
    for std, variance in ((0.02, 0.1308), (0.02 / 24**0.5, 0.00545)):
        steps = (Norm("layer"), Linear(3072, init="normal(0.02)"), "gelu", Linear(768, init=f"normal({std!r})"))
        p = pk.predict(Chain(width=768, blocks=[Block(*steps)]))
        assert 10 ** p.log10_mean_square_preactivation[0] == pytest.approx(0.3072, rel=2e-5)  # eps of the norm: 1e-5
        # the digits that are given
        assert 10 ** p.log10_mean_square_preactivation[1] == pytest.approx(variance, rel=1e-3)


@pytest.mark.parametrize(
    ("function", "square"), [("silu", SILU2), ("gelu", GELU2), ("sigmoid", 0.2933790), ("relu", 0.5)]
)
def test_gates_multiply_mean_squares(function, square):
    """phi(g) v at q = 1: E phi^2, and the next layer keeps it."""
    p = pk.predict(lecun(512, 1, [Gated(512, function), Linear(512)]))
    assert 10 ** p.log10_mean_square_activation[0] == pytest.approx(square, rel=2e-7)
    assert 10 ** p.log10_mean_square_preactivation[-1] == pytest.approx(square, rel=2e-7)


@pytest.mark.parametrize(("function", "exponent"), [("silu", 2.17), ("gelu", 2.14), ("relu", 2.0), ("sigmoid", 1.11)])
def test_a_gate_has_no_stable_mean_square(function, exponent):
    """d ln q' / d ln q at q = 1 is above 1: an excess grows."""
    ends = []
    for factor in (0.999, 1.001):
        chain = lecun(512, 1, [Gated(512, function)], first=[Linear(gain=factor**0.5)])
        ends.append(math.log(10) * pk.predict(chain).log10_mean_square_activation[-1])
    assert (ends[1] - ends[0]) / math.log(1.001 / 0.999) == pytest.approx(exponent, abs=0.01)


@pytest.mark.parametrize("drop", [0.1, 0.5])
def test_dropout_without_correction_adds_to_signal_and_gradient(drop):
    """He ReLU with dropout: both mean squares by 1 / (1 - drop) a layer, .1505 decades of the norm at one half."""
    n, L = 256, 10
    p = pk.predict(Chain(depth=L, width=n, blocks=[Linear(), Block("relu", Dropout(drop))]))
    assert p.signal_end_to_end == pytest.approx(-0.5 * L * math.log10(1 - drop), abs=1e-9)
    assert p.log10_mean_square_activation[-1] == pytest.approx(-L * math.log10(1 - drop), abs=1e-9)


def test_one_weight_for_all_units_is_a_factor():
    """Norm(weight=w) and Norm, Scale(w): the same rows; weight 0 leaves the skip alone (SkipInit)."""
    n, steps = 64, (Linear(), "tanh", Linear())
    say = lambda *norm: pk.predict(lecun(n, 5, [Block(*steps, *norm, skip=1.0)]), batch=3)
    one, two = say(Norm("rms", weight=-0.6)), say(Norm("rms"), Scale(-0.6))
    for name in ("log10_grad_weight", "log10_grad_activation", "log10_mean_square_activation", "similarity"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), atol=1e-12)
    np.testing.assert_allclose(say(Norm("layer", weight=0.0)).log10_grad_activation, 0, atol=1e-12)


AFFINE = {
    "a number": (Norm("layer", weight=0.7, bias=0.4),),
    "behind a mean": (Linear(), "relu", Norm("rms", weight=0.7, bias=-0.4)),
    "own numbers": (Norm("layer", weight=np.linspace(-0.5, 2, 1024), bias=np.linspace(-1, 0.5, 1024)),),
    "own numbers behind a mean": (Linear(), "relu", Norm("rms", weight=np.linspace(0, 2, 1024), bias=[-0.3] * 1024)),
}


@pytest.mark.parametrize("name", AFFINE)
def test_weights_and_biases_of_norms_beside_an_ensemble(name):
    """Signal, similarity and gradient, of branches whose norm is read by weights; 8 networks of width 1024."""
    chain = lecun(1024, 4, [Block(*AFFINE[name], Linear(1024), "tanh", Linear(1024), skip=1.0)])
    p = pk.propagate(chain, batch=8, replicas=8, seed=2)
    theory = pk.predict(chain, batch=8)
    # The spread of a mean over 1024 units and 8 replicas: 2 / sqrt(1024 * 8) in the square, .005 decades, a few layers.
    for row in ("log10_mean_square_activation", "log10_grad_activation", "log10_grad_weight"):
        np.testing.assert_allclose(p.median(row), getattr(theory, row), atol=0.02, err_msg=row)
    # A cosine's own spread is 1/32, and there are 28 pairs and 8 networks.
    np.testing.assert_allclose(p.median("similarity"), theory.similarity, atol=0.01)


def test_norms_of_own_numbers_are_refused_where_units_then_differ():
    own = Norm("layer", weight=[0.5, 1.5])
    behind = Block(Linear(2), skip=1.0, after=own)
    for block in (Block(Linear(2), own, skip=1.0), Block(own, "tanh", Linear(2)), behind):
        with pytest.raises(ValueError, match="units have a weight or bias of their own"):
            pk.predict(Chain(width=2, depth=2, blocks=[block]))
    with pytest.raises(ValueError, match="output of a norm with a bias"):
        pk.predict(Chain(width=2, depth=2, blocks=[Block(Norm("layer", bias=0.1), "tanh", Linear(2))]))
    assert pk.predict(Chain(width=2, depth=2, blocks=["tanh", Linear(2)], last=[own])).verdict


def test_siren_without_biases_grows_by_1_0969_a_layer():
    """W uniform +-sqrt(6/n)/w0 inside sin(w0 z): var z .796812, chi 1.203188, whatever w0."""
    n, w0, L = 512, 30.0, 60
    limit = (6 / n) ** 0.5 / w0
    p = pk.predict(Chain(depth=L, width=n, init=f"uniform({limit!r})", blocks=[Block(Linear(), Scale(w0), "sin")]))
    g = p.log10_grad_activation
    assert 10 ** (g[0] - g[1]) != pytest.approx(1.0969, abs=1e-4)  # the first layers are on their way
    assert 10 ** (g[L - 2] - g[L - 1]) == pytest.approx(1.0969, abs=1e-4)
    assert w0**2 * 10 ** p.log10_mean_square_preactivation[-1] == pytest.approx(0.796812, rel=1e-5)


def test_sines_tell_wide_uniform_biases_from_normal_ones():
    """SIREN's biases smear the phase: the factor is .990 at width 256, not the 1.0067 of normal ones; narrow ones are
    taken."""
    limit = (6 / 256) ** 0.5 / 30
    words = {"distribution": "uniform", "scale": lambda n, m: limit, "bias_distribution": "uniform"}
    wide = pk.Init(**words, bias_scale=lambda n, m: 1 / 16, name="siren")
    chain = Chain(depth=5, width=256, init=wide, blocks=[Block(Linear(), Scale(30.0), "sin")])
    with pytest.raises(ValueError, match=r"sin tells uniform ones as wide as 1\.88"):
        pk.predict(chain)
    assert "theory" not in str(pk.propagate(chain, replicas=2).diagnose().sentence)
    pk.predict(chain.replace(blocks=[Block(Linear(), "sin")]))
    pk.predict(chain.replace(blocks=[Block(Linear(), Scale(30.0), "tanh")]))


ENSEMBLES = {
    "pre-norm": lambda n: lecun(n, 6, [mlp(n, 2 * n)]),
    "rms norm, tanh": lambda n: lecun(n, 6, [mlp(n, n, norm="rms", function="tanh", scale=0.5)]),
    "post-norm": lambda n: lecun(n, 6, [Block(Linear(2 * n), "tanh", Linear(n), skip=1.0, after=Norm("layer"))]),
    "DeepNorm": lambda n: lecun(
        n, 6, [Block(Linear(n), "tanh", Linear(n, gain=0.5), skip=12**0.25, after=Norm("layer"))]
    ),
    "1/sqrt(depth)": lambda n: lecun(n, 6, [mlp(n, n, scale="inverse_sqrt_depth")]),
    "projection": lambda n: lecun(n, 2, [Block(Linear(n), "tanh", Linear(n), skip=[Linear(n)], scale=0.7)]),
    "SwiGLU": lambda n: lecun(n, 4, [Block(Norm("rms"), Gated(n, "silu"), Linear(n), skip=1.0)]),
    "dropout": lambda n: Chain(depth=4, width=n, blocks=[Block(Linear(), "relu", Dropout(0.2))]),
    "lists": lambda n: Chain(depth=4, width=n, activation=["relu", "tanh", "gelu", "sigmoid"], gain=[1, 1.2, 1, 0.8]),
}


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensembles_lie_beside_the_theory(name):
    """Every row of gradient and mean square against the median of 24 networks of 1024 units.

    A layer's squared norms vary by some 5/n, and the median lies 5/(2n) of a factor below the mean: .002 decades a
    layer, 12 layers; the median of 24 has a standard error of .3 times sqrt(12 * 5/n) / 4.6 = .016 decades. Three of
    these and the shift: .08.
    """
    chain = ENSEMBLES[name](1024)
    p = pk.propagate(chain, batch=4, replicas=24, seed=3, correlation=0.4)
    theory = pk.predict(chain, batch=4, correlation=0.4)
    for row in (
        "log10_mean_square_preactivation",
        "log10_mean_square_activation",
        "log10_grad_preactivation",
        "log10_grad_weight",
    ):
        np.testing.assert_allclose(np.median(p.rows[row], axis=0), theory.rows[row], atol=0.08, err_msg=row)
    np.testing.assert_allclose(np.median(p.log10_grad_activation, axis=0), theory.log10_grad_activation, atol=0.08)
    # 1/sqrt(n) of a cosine
    np.testing.assert_allclose(np.median(p.similarity, axis=0), theory.rows["similarity"], atol=0.03)
