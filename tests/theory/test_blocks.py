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
    scaled = Block(Linear(2), Scale([1.0, 0.5]), skip=1.0)
    for block in (Block(Linear(2), own, skip=1.0), Block(own, "tanh", Linear(2)), behind, scaled):
        with pytest.raises(ValueError, match="has numbers of its own for each unit"):
            pk.predict(Chain(width=2, depth=2, blocks=[block]))
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


def siren(n, L, w0=30.0, **words):
    """SIREN's hidden layers with the reference code's biases: w0 times uniform +-1/sqrt(n)."""
    limit = (6 / n) ** 0.5 / w0
    init = {"distribution": "uniform", "scale": lambda n, m: limit, "bias_distribution": "uniform"}
    return Chain(
        depth=L,
        width=n,
        init=pk.Init(**init, bias_scale=lambda n, m: n**-0.5, name="siren"),
        blocks=[Block(Linear(), Scale(w0), "sin")],
        **words,
    )


def test_uniform_biases_of_a_siren_are_not_normal_ones():
    """Biases of the same variance in sin(30 z) at 256 units: chi of the norm 1.0067 where they are normal, .9900 for
    the reference code's uniform ones, which spread the phase more evenly."""
    uniform = siren(256, 60)
    normal = uniform.replace(init=f"uniform({(6 / 256) ** 0.5 / 30!r})", bias_std=(3 * 256) ** -0.5)
    for chain, factor in ((uniform, 0.9900), (normal, 1.0067)):
        g = pk.predict(chain).log10_grad_activation
        assert 10 ** (g[-3] - g[-2]) == pytest.approx(factor, abs=6e-5)  # the digits that are given
        p = pk.propagate(chain, replicas=40, engine="dense")
        # at n = 256 the mean log of a layer's squared factor lies half its variance, (2 + 3 kappa - 3) / 2n, kappa 3/2,
        # below, .0015 decades of the norm, and as much again by what the mean square's fluctuation does; the two kinds
        # of biases are .007 apart
        slope = np.mean(p.signal_end_to_end) / 60
        assert slope == pytest.approx(pk.predict(chain).signal_end_to_end / 60, abs=0.003)


@pytest.mark.parametrize(("variance", "share", "distance"), [(1.0, 0.5, 0.3), (3.9, 0.6, 0.5), (0.01, 0.9, 0.1)])
def test_sines_behind_uniform_biases_against_draws(variance, share, distance):
    """Means over 2 million draws of g and b, b in both columns: four standard errors of a bounded mean, .0015."""
    from pykernel.theory import uniform

    rng, N = np.random.default_rng(0), 2_000_000
    c, p = math.sqrt(3 * share * variance), (1 - share) * variance
    near = 1 - distance * variance / p  # correlation of the normal parts
    first, second = rng.standard_normal((2, N))
    second = near * first + math.sqrt(1 - near**2) * second
    b = rng.uniform(-c, c, N)
    u, v = math.sqrt(p) * first + b, math.sqrt(p) * second + b
    t = 0.5 * math.log(variance)
    assert math.exp(uniform.value(t, share)) == pytest.approx(np.mean(np.sin(u) ** 2), abs=0.0015)
    assert math.exp(uniform.slope(t, share)) == pytest.approx(np.mean(np.cos(u) ** 2), abs=0.0015)
    square = np.mean(np.sin(u) ** 2)
    apart = 1 - np.mean(np.sin(u) * np.sin(v)) / square
    assert uniform.apart(t, share, distance) == pytest.approx(apart, abs=0.003)
    kept = np.mean(np.cos(u) * np.cos(v)) / np.mean(np.cos(u) ** 2)
    assert uniform.kept(t, share, distance) == pytest.approx(kept, abs=0.003)


def test_sines_behind_vanishing_uniform_biases_are_plain_sines():
    from pykernel import activations
    from pykernel.theory import uniform
    from pykernel.theory.coherence import kept_share
    from pykernel.theory.correlation import distance_map

    sin = activations.get("sin")
    for std in (1e-150, 1e-5, 0.1, 1.0, 3.0, 50.0):
        t = math.log(std)
        assert uniform.apart(t, 0.0, 0.4) == pytest.approx(distance_map(sin, std, 0.4), rel=1e-12)
        assert uniform.kept(t, 0.0, 0.4) == pytest.approx(kept_share(sin, std, 0.4), rel=1e-12)
        assert uniform.value(t, 1e-14) == pytest.approx(uniform.value(t, 0.0), abs=1e-10)


def test_sirens_with_their_biases_as_sampled():
    """Rows of three inputs below a head, at 1024 units: as for the ensembles below."""
    chain = siren(1024, 8, head=pk.Head("softmax", 10))
    p = pk.propagate(chain, batch=3, correlation=0.5, replicas=24, engine="dense")
    theory = pk.predict(chain, batch=3, correlation=0.5)
    for row in ("log10_mean_square_preactivation", "log10_grad_weight", "log10_grad_bias", "log10_grad_activation"):
        np.testing.assert_allclose(np.median(p.rows[row], axis=0), theory.rows[row], atol=0.04, err_msg=row)
    np.testing.assert_allclose(np.median(p.similarity, axis=0), theory.rows["similarity"], atol=0.03)


def test_sums_and_gates_of_wide_uniform_biases_are_refused():
    """What a sine sees of several of them is not known."""
    wide = siren(256, 3)
    summed = [Block(Linear(), skip=[Linear()]), Scale(30.0), "sin"]
    with pytest.raises(ValueError, match=r"a sum as normal, and a sine tells uniform ones as wide as 1\.88"):
        pk.predict(wide.replace(blocks=summed))
    gate = pk.Init(
        distribution="normal", scale=lambda n, m: n**-0.5, bias_distribution="uniform", bias_scale=lambda n, m: 2.0
    )
    with pytest.raises(ValueError, match=r"a gate as normal, and a sine tells uniform ones as wide as 2"):
        pk.predict(wide.replace(init=gate, blocks=[Gated(256, "sin")]))
    assert "theory" not in str(pk.propagate(wide.replace(blocks=summed), replicas=2).diagnose().sentence)
    pk.predict(wide.replace(blocks=[Block(Linear(), "sin")]))
    pk.predict(wide.replace(blocks=[Block(Linear(), Scale(30.0), "tanh")]))


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


FINITE = {
    "linear skips": ("exact", lambda n: lecun(n, 30, [Block(Linear(), skip=1.0, scale=0.5)])),
    "two layers a branch": ("taken as", lambda n: lecun(n, 30, [Block(Linear(32), Linear(n), skip=0.7, scale=0.8)])),
    "ReLU branches": ("taken as", lambda n: Chain(30, n, blocks=[Block(Linear(2 * n), "relu", Linear(n), skip=1.0)])),
    "projections": ("taken as", lambda n: lecun(n, 20, [Block(Linear(), Linear(), skip=[Linear()], scale=0.7)])),
    "bare steps": ("exact", lambda n: Chain(40, n, blocks=[Linear(), "relu"])),
    "orthogonal": ("exact", lambda n: Chain(40, n, init="orthogonal", blocks=["relu", Scale(2**0.5), Linear()])),
    "two slopes": ("exact", lambda n: lecun(n, 20, [Block(Linear(90), "leaky_relu(0.2)", Linear(n)), "relu"])),
}


@pytest.mark.parametrize("name", FINITE)
def test_finite_width_laws_of_blocks(name):
    """Mean and deviation of the log gradient at every node, 64 units, 4000 draws: four standard errors; .005 decades
    and 3 percent more where inner factors are taken as log-normal and the gradient as independent of the signal."""
    said, make = FINITE[name]
    chain = make(64)
    p, m = pk.predict(chain), pk.propagate(chain, replicas=4000, seed=2)
    assert said in p.law
    assert abs(p.signal_end_to_end_mean - p.signal_end_to_end) > 0.02  # the law is not infinite width
    ratio = m.log10_grad_activation - m.log10_grad_activation[:, -1:]
    mean, std = p.log10_grad_activation_mean - p.log10_grad_activation_mean[-1], p.log10_grad_activation_std
    error, more = std / 4000**0.5, 0.005 * ("exact" not in p.law)
    assert np.all(np.abs(ratio.mean(axis=0) - mean) <= 4 * error + more + 1e-6)  # float32
    np.testing.assert_allclose(ratio.std(axis=0), std, rtol=4 / 8000**0.5 + 6 * more, atol=1e-6)
    assert m.slope.std() == pytest.approx(p.slope_std, rel=0.08)


def test_chains_without_a_finite_width_law_say_of_what():
    for chain, words in (
        (lecun(16, 3, [mlp(16, 32)]), "norms beside sums"),
        (lecun(16, 3, [Gated(16), Linear()]), "gates"),
        (lecun(16, 3, [Block(Linear(), Dropout(0.5))]), "dropout"),
    ):
        assert f"no finite-width law is known of {words}" in pk.predict(chain).law
    assert "infinite width only" in pk.predict(Chain(3, 16, order="norm-activation-linear", residual=pk.Residual())).law


AFTER_SUMS = {
    "ReLU": lambda n: Chain(12, n, blocks=[Block(Linear(), "relu", Linear(), skip=1.0, after="relu")]),
    "small branches": lambda n: Chain(12, n, blocks=[Block(Linear(), skip=0.8, scale=0.3, after="relu")]),
    "tanh": lambda n: lecun(n, 12, [Block(Linear(gain=1.5), skip=1.0, after="tanh")]),
    "norm and ReLU": lambda n: lecun(
        n, 12, [Block(Linear(), "tanh", Linear(), skip=1.0, after=[Norm("layer"), "relu"])]
    ),
    "functions first": lambda n: Chain(
        8, n, blocks=[Block("relu", Linear(), skip=1.0, after="relu"), Block("gelu", Linear(), skip=-0.5)]
    ),
}


@pytest.mark.parametrize("name", AFTER_SUMS)
def test_functions_on_sums_as_sampled(name):
    """Means of 160 networks of 1024 units: four standard errors, and the shift of a lognormal's mean logarithm, in
    decades s^2 ln(10) / 2 of a square that scatters by s and twice that of its root; shares of units to .01."""
    chain, R = AFTER_SUMS[name](1024), 160
    p, m = pk.predict(chain), pk.propagate(chain, replicas=R, seed=1)
    for row in (
        "log10_mean_square_activation",
        "log10_grad_activation",
        "log10_grad_weight",
        "log10_derivative_factor",
    ):
        scatter = np.std(m.rows[row], axis=0)
        shift = scatter**2 * math.log(10) / (2 if "square" in row else 1)
        error = np.abs(np.mean(m.rows[row], axis=0) - p.rows[row])
        assert (error <= 4 * scatter / math.sqrt(R) + shift + 1e-3).all(), row
    for row in ("saturated", "dead"):
        np.testing.assert_allclose(np.mean(m.rows[row], axis=0), p.rows[row], atol=0.01, err_msg=row)
    size = np.sqrt(10 ** np.mean(m.log10_mean_square_activation, axis=0))
    np.testing.assert_allclose(np.mean(m.mean_activation, axis=0) / size, p.mean_activation / size, atol=0.02)


def test_relu_after_sums_is_a_queue():
    """x' = max(0, x + z), z of one size: Lindley's recursion, x after l steps the maximum of a random walk of l steps.

    Spitzer: E x = sum over k of E max(0, S_k) / k = sum of sqrt(v / (2 pi k)), S_k of variance k v; here the branch is
    behind a norm, so that v = 1, and the input is 0, of gain 0.
    """
    L = 30
    branch = Block(Norm("rms", eps=1e-12), Linear(init="lecun_normal"), skip=1.0, after="relu")
    first = [Linear(gain=1e-4)]  # a start that is small beside one step
    p = pk.predict(Chain(depth=L, width=64, first=first, blocks=[branch], init="lecun_normal"))
    expected = np.cumsum(1 / np.sqrt(2 * np.pi * np.arange(1, L + 1)))
    np.testing.assert_allclose(p.mean_activation[1:], expected, atol=2e-4)
    # and P(x = 0) after l steps: P(S_1 <= 0, ..., S_l <= 0) = C(2l, l) / 4^l (Sparre Andersen)
    dead = [math.comb(2 * l, l) / 4**l for l in range(1, L + 1)]
    np.testing.assert_allclose(p.dead, dead, atol=2e-4)


def test_relu_of_relu_is_relu():
    """Branches of scale 0: the first ReLU halves the squared gradient, the others let pass what the first did."""
    for scale, near in ((0.0, 1e-9), (0.01, 0.01)):
        chain = Chain(30, 64, blocks=[Block(Linear(), skip=1.0, scale=scale, after="relu")])
        assert pk.predict(chain).signal_end_to_end == pytest.approx(-0.5 * math.log10(2), abs=near)


def test_functions_on_sums_that_are_not_followed_say_so():
    block = Block(Linear(), "relu", Linear(), skip=1.0, after="relu")
    chain = Chain(4, 32, blocks=[block])
    with pytest.raises(ValueError, match=r"at least 0\.005 of it"):
        pk.predict(chain.replace(blocks=[Block(Linear(), skip=1.0, scale=1e-3, after="relu")]))


def test_the_gradient_along_the_signal_overtakes_behind_relu_after_sums():
    """He ReLU sums: the signal grows by .374 / 2 decades of amplitude a block, the gradient by .155 and its part along
    the signal by as much as the signal: 200 blocks of 256 units have 36.4 decades, not 31."""
    chain = Chain(200, 256, blocks=[Block(Linear(), "relu", Linear(), skip=1.0, after="relu")])
    p, m = pk.predict(chain), pk.propagate(chain, replicas=20)
    assert p.overtaken and not pk.predict(chain.replace(depth=12)).overtaken
    along = 0.5 * (p.log10_mean_square_activation[-1] - math.log10(256))
    assert f"grows to about {along:+.3g} decades" in " ".join(p.validity)
    assert np.median(m.signal_end_to_end) == pytest.approx(along, abs=1.0)
    assert "theory" not in m.diagnose().sentence


@pytest.mark.parametrize("gain", [1e-300, 1e300])
def test_gates_at_gains_whose_squares_no_float_holds(gain):
    """The signal behind each step is a known power of the gain times what it is at a gain of 1."""
    chain = Chain(depth=4, width=6, blocks=[Gated(7, "relu"), Linear(6)])
    powers = np.array([2, 3, 8, 9, 20, 21, 44, 45])  # p becomes 2 (p + 1) in a gate, p + 1 in a layer
    moved = pk.predict(chain.replace(gain=gain)).log10_mean_square_activation
    expected = pk.predict(chain).log10_mean_square_activation + 2 * powers * np.log10(gain)
    np.testing.assert_allclose(moved, expected, rtol=1e-12)


def test_what_is_advised_for_functions_behind_functions_is_critical():
    """No sums, and a distribution that is not normal: chi is 1 at the factor. Catches a walk that counts on sums."""
    chain = pk.Chain(width=64, depth=3, blocks=[pk.Linear(), "sigmoid", "mish"], init="he_normal")
    found = pk.critical_gain(chain)
    again = pk.critical_gain(chain.replace(gain=found.factor * chain.gain))
    assert again.factor == pytest.approx(1, rel=1e-6)
