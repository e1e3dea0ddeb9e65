# SPDX-License-Identifier: BSD-3-Clause
"""predict, finite width, critical points and depth scales: published numbers, exact laws, and sampled chains."""

import math

import numpy as np
import pytest
from combinations import FUNCTIONS

import pykernel as pk
from pykernel import observables
from pykernel.theory import laws

LECUN = "lecun_normal"


def sampled(chain, replicas, **how):
    return pk.propagate(chain, replicas=replicas, engine="dense", **how)


def test_shapes_and_determinism():
    p, q = (pk.predict(pk.Chain(depth=3, width=8), batch=2) for _ in range(2))
    for row in observables.ROWS:
        shapes = {"layer": (3,), "activation": (3,), "mix": (0,), "rounded": (0,), "input": (4,), "replica": ()}
        assert np.shape(getattr(p, row.name)) == shapes.get(row.extent, (3,))
        np.testing.assert_array_equal(getattr(p, row.name), getattr(q, row.name))
    assert p.log10_grad_activation[-1] == 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_backward_against_hermite(name):
    """Half the sum over layers of log10(sigma_w^2 E phi'^2), q from the recursion, by 400 Gauss-Hermite nodes, each
    half-line its own: 1e-3 decades.
    """
    from pykernel import activations

    row = activations.get(name)
    x, w = np.polynomial.legendre.leggauss(200)
    edges = np.array([-12.0, -3.0, -1.0, 0.0, 1.0, 3.0, 12.0])
    for sigma2 in (0.5, 1.0, 2.0, 4.0):
        second, total, decades = 1.0, 0.0, {}
        for layer in range(1, 101):
            q = sigma2 * second
            cuts = np.unique(
                np.concatenate([edges, [k / math.sqrt(q) for k in row.kinks if abs(k) < 12 * math.sqrt(q)]])
            )
            half = np.diff(cuts)[:, None] / 2
            nodes = (cuts[:-1, None] + half * (1 + x)).ravel()
            weight = (half * w).ravel() * np.exp(-(nodes**2) / 2) / math.sqrt(2 * math.pi)
            z = math.sqrt(q) * nodes
            second = weight @ row.value(z) ** 2
            total += 0.5 * math.log10(sigma2 * (weight @ row.slope(z) ** 2))
            decades[layer] = total
        for depth in (10, 30, 100):
            p = pk.predict(pk.Chain(depth=depth, width=64, activation=name, init=LECUN, gain=math.sqrt(sigma2)))
            assert p.signal_end_to_end == pytest.approx(decades[depth], abs=1e-3)


@pytest.mark.parametrize(
    "fields",
    [
        {"activation": "tanh", "init": LECUN, "gain": 1.3, "bias_std": 0.3},
        {"activation": "gelu", "norm": "rms"},
        {"activation": "relu", "norm": "layer", "order": "norm-activation-linear"},
        {"activation": "tanh", "init": "orthogonal", "gain": 1.2},
        {"activation": "hardtanh", "init": "lecun_uniform", "gain": 1.5, "order": "norm-activation-linear"},
        {"activation": "softplus", "init": LECUN, "gain": 1.2},
        {"activation": "relu", "init": "he_truncated_normal"},
    ],
)
def test_sampled_chains_have_the_predicted_law(fields):
    """Mean within 4 standard errors plus second order (L/n)^2; deviation within 4 / sqrt(2 R) of its value plus 10
    percent."""
    chain, R = pk.Chain(depth=8, width=96, **fields), 800
    p, m = pk.predict(chain), sampled(chain, R)
    values = m.signal_end_to_end
    assert values.mean() == pytest.approx(p.signal_end_to_end_mean, abs=4 * values.std() / math.sqrt(R) + (8 / 96) ** 2)
    assert values.std(ddof=1) == pytest.approx(p.signal_end_to_end_std, rel=4 / math.sqrt(2 * R) + 0.1)
    # rows: the finite-width shift is of order L / n decades
    for name in (
        "log10_grad_weight",
        "log10_grad_bias",
        "log10_mean_square_preactivation",
        "log10_mean_square_activation",
    ):
        np.testing.assert_allclose(np.mean(getattr(m, name), axis=0), getattr(p, name), atol=0.12)
    for name in ("saturated", "dead"):  # five standard errors of shares that scatter by .055
        np.testing.assert_allclose(getattr(m, name).mean(axis=0), getattr(p, name), atol=0.01)


@pytest.mark.parametrize("order", ["linear-norm-activation", "norm-activation-linear"])
@pytest.mark.parametrize("residual", [None, pk.Residual(2, 0.7)])
def test_sampled_batches(order, residual):
    """Similarity, dead units, batch norm and skip connections of a wide chain: within 0.1 decades (one deviation of a
    replica's log at this width).
    """
    for norm in (None, "batch"):
        chain = pk.Chain(depth=6, width=400, norm=norm, order=order, residual=residual)
        p, m = pk.predict(chain, 12, correlation=0.3), sampled(chain, 6, batch=12, correlation=0.3)
        for name in (
            "log10_grad_weight",
            "log10_grad_activation",
            "log10_mean_square_activation",
            "similarity",
            "dead",
        ):
            np.testing.assert_allclose(
                np.mean(getattr(m, name), axis=0), getattr(p, name), atol=0.1, err_msg=f"{name} {norm}"
            )


def test_head_gradients():
    """The gradient at a[L] under a head, in decades: 0.05 at width 500, 40 replicas."""
    for loss in ("mse", "sigmoid", "softmax", "linear"):
        chain = pk.Chain(depth=2, width=500, activation="tanh", init=LECUN, head=pk.Head(loss=loss, outputs=8))
        p, m = pk.predict(chain, 4), sampled(chain, 40, batch=4)
        assert 0.5 * np.log10(np.mean(10 ** (2 * m.log10_grad_activation[:, -1]))) == pytest.approx(
            p.log10_grad_activation[-1], abs=0.05
        )
        # four standard errors of a sum of 8 products over batches of 4
        assert m.loss.mean() == pytest.approx(p.loss, rel=0.1, abs=0.6)


def test_far_beyond_float_range():
    p = pk.predict(pk.Chain(depth=20_000, width=64, activation="gelu"))
    assert np.isfinite(p.log10_grad_activation).all()
    assert p.slope == pytest.approx(0.5 * math.log10(0.5), rel=2e-3)  # small signals: phi'(0)^2 sigma_w^2 = 1/2
    linear = pk.predict(pk.Chain(depth=1000, width=8, activation="linear", init=pk.Identity(1.5)))
    assert linear.signal_end_to_end == pytest.approx(1000 * math.log10(1.5), rel=1e-12)


def test_tanh_falls_as_a_power():
    """sigma_w = 1: squared gradient as 1/L, so half a decade for each factor ten; q_l -> 1 / (2 l)."""
    p = pk.predict(pk.Chain(depth=10_000, width=64, activation="tanh", init=LECUN))
    assert p.log10_grad_activation[1000] - p.log10_grad_activation[100] == pytest.approx(0.5, abs=0.02)
    assert 10 ** p.log10_mean_square_preactivation[-1] * 2 * 10_000 == pytest.approx(1, rel=0.01)


def test_residual_growth():
    """He-ReLU branches: (1 + alpha^2)^L; pre-RMSNorm ReLU: L + 1 (squared; eps leaves 1e-4)."""
    pre = {"order": "norm-activation-linear", "depth": 50, "width": 64}
    p = pk.predict(pk.Chain(residual=pk.Residual(1, 0.3), **pre))
    assert p.signal_end_to_end == pytest.approx(25 * math.log10(1.09), rel=1e-12)
    p = pk.predict(pk.Chain(residual=pk.Residual(1, "inverse_sqrt_depth"), **pre))
    assert 10 ** (2 * p.signal_end_to_end) <= math.e
    p = pk.predict(pk.Chain(residual=pk.Residual(), norm="rms", **pre))
    assert 10 ** (2 * p.signal_end_to_end) == pytest.approx(51, rel=1e-3)


def test_means_of_skips_over_selu():
    """SELU has no mean at scale 1 and one at every other: sums over skips carry it. By 100 Gauss-Legendre nodes on
    either side: 1e-9."""
    x, w = np.polynomial.legendre.leggauss(100)
    x, w = np.concatenate([6 * x - 6, 6 * x + 6]), 6 * np.concatenate([w, w])
    w = w * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    row, square, mean, total = pk.activations.get("selu"), 1.0, 0.0, 0.0
    for _ in range(60):
        z = math.sqrt(0.3 * square) * x
        total += 0.5 * math.log10(1 + 0.25 * 0.3 * (w @ row.slope(z) ** 2))
        value = row.value(z)
        square += 0.25 * (w @ value**2) + 2 * 0.5 * mean * (w @ value)
        mean += 0.5 * (w @ value)
    p = pk.predict(
        pk.Chain(depth=60, width=64, activation="selu", init=LECUN, gain=0.3**0.5, residual=pk.Residual(1, 0.5))
    )
    assert p.signal_end_to_end == pytest.approx(total, abs=1e-9)


def test_selu_and_torch_default():
    p = pk.predict(pk.Chain(depth=200, width=64, activation="selu", init=LECUN))
    assert 10 ** p.log10_mean_square_activation[-1] == pytest.approx(1, abs=1e-6)
    assert 10 ** (2 * p.slope) == pytest.approx(1.0716, abs=1e-4)
    p = pk.predict(pk.Chain(depth=30, width=4096, init="glorot_normal"))
    # He et al. 2015: Xavier on 30 ReLU layers
    assert p.signal_end_to_end == pytest.approx(-30 * math.log10(math.sqrt(2)), abs=1e-9)
    p = pk.predict(pk.Chain(depth=100, width=64, init="torch_linear_default"))
    assert p.slope == pytest.approx(0.5 * math.log10(1 / 6), abs=1e-6)


def test_laws_of_one_layer():
    """digamma, trigamma and the binomial mixtures against scipy and their expansions."""
    special = pytest.importorskip("scipy.special")
    for x in (0.5, 1.0, 7.3, 50.0, 1e4):
        assert laws.digamma(x) == pytest.approx(special.digamma(x), rel=1e-13, abs=1e-13)
        assert laws.trigamma(x) == pytest.approx(special.polygamma(1, x), rel=1e-13)
    n = 1000
    assert laws.haar_relu(n)[1] == pytest.approx(3 / n, rel=0.01)
    p = pk.predict(pk.Chain(depth=40, width=n))
    assert p.signal_end_to_end_mean == pytest.approx(-0.543 * 40 / n, rel=0.01)  # trap 1
    assert (2 * math.log(10) * p.signal_end_to_end_std) ** 2 == pytest.approx(5 * 40 / n, rel=0.01)  # Hanin, Nica
    assert pk.predict(pk.Chain(depth=9, width=5)).dead_chance == pytest.approx(1 - (1 - 2**-5) ** 9)


@pytest.mark.parametrize(
    ("activation", "init"),
    [
        ("linear", LECUN),
        ("relu", "he_normal"),
        ("relu", "orthogonal"),
        ("leaky_relu(0.2)", "he_normal"),
        ("leaky_relu(-0.5)", "orthogonal"),
    ],
)
def test_exact_laws_by_sampling(activation, init):
    """4 standard errors of mean and variance at 1500 replicas, n = 12, L = 5."""
    gain = math.sqrt(2) if init == "orthogonal" else 1.0
    chain = pk.Chain(depth=5, width=12, activation=activation, init=init, gain=gain)
    values = sampled(chain, 1500 if init != "orthogonal" else 400).signal_end_to_end
    values = values[np.isfinite(values)]
    p = pk.predict(chain)
    assert p.law.startswith("exact")
    assert values.mean() == pytest.approx(p.signal_end_to_end_mean, abs=4 * values.std() / math.sqrt(len(values)))
    assert values.var(ddof=1) == pytest.approx(p.signal_end_to_end_std**2, rel=4 * math.sqrt(3 / len(values)))


def test_shares_of_two_slopes():
    """The law of slopes by fair coins: that of ReLU where one is next to nothing, none where they are equal, and drawn
    ones (4 errors)."""
    assert laws.leaky_share(16, 1.0, 1.0) == pytest.approx((0, 0), abs=1e-12)
    mean, variance = laws.haar_relu(1000)
    assert laws.leaky_share(1000, 1e-9, 1.0) == pytest.approx((mean - math.log(2), variance), rel=1e-9)
    rng = np.random.default_rng(0)
    g, d = rng.standard_normal((200_000, 6)) ** 2, np.where(rng.random((200_000, 6)) < 0.5, 0.09, 1.0)
    x = np.log((g * d).sum(axis=1) / g.sum(axis=1))
    mean, variance = laws.leaky_share(6, 0.3, 1.0)
    assert x.mean() == pytest.approx(mean, abs=4 * math.sqrt(variance / len(x)))
    assert x.var() == pytest.approx(variance, rel=4 * math.sqrt(3 / len(x)))


def test_relu_with_small_biases_has_nearly_its_exact_law():
    """12 layers of 64 units: the general law and the exact one without biases agree to 1 percent of the deviation, 1e-3
    decades of the mean (a third of L / n^2); to first order alone 3 percent and 3e-3.
    """
    exact, general = (pk.predict(pk.Chain(depth=12, width=64, bias_std=b)) for b in (0.0, 1e-9))
    assert general.law.startswith("first order")
    assert general.signal_end_to_end_mean == pytest.approx(exact.signal_end_to_end_mean, abs=1e-3)
    assert general.signal_end_to_end_std == pytest.approx(exact.signal_end_to_end_std, rel=0.01)


def test_softplus_part_along_the_signal():
    """Trap 3: softplus with He weights at L = 30 stays above its infinite-width value by .17 decades at n = 256, .03 at
    8192."""
    shift = {}
    for n in (256, 8192):
        p = pk.predict(pk.Chain(depth=30, width=n, activation="softplus"))
        shift[n] = p.signal_end_to_end_mean - p.signal_end_to_end
    assert shift[256] == pytest.approx(0.17, abs=0.06)  # first order in 1/n, where the effect is of order one
    assert shift[8192] == pytest.approx(0.03, abs=0.02)


def test_published_critical_points():
    assert pk.critical_gain("relu").gain == pytest.approx(math.sqrt(2), abs=1e-9)
    tanh = pk.critical_gain("tanh", bias_std=math.sqrt(0.05))
    assert tanh.gain**2 == pytest.approx(1.7610, abs=1e-4)
    assert tanh.stable and tanh.chi_par < 1
    gelu = pk.critical_gain("gelu", bias_std=math.sqrt(0.17292239))
    assert gelu.gain**2 == pytest.approx(1.98305826, abs=1e-5)
    assert gelu.chi_par == pytest.approx(1, abs=1e-4)
    assert not pk.critical_gain("gelu", bias_std=0.3).stable
    assert not pk.critical_gain("silu", bias_std=0.6).stable
    assert pk.critical_gain("silu", bias_std=0.8).stable
    sigmoid = pk.critical_gain("sigmoid")
    assert sigmoid.gain == pytest.approx(10.15, abs=0.01)
    assert "large" in sigmoid.note
    softplus = pk.critical_gain("softplus")
    assert not softplus.exists
    assert "no critical gain" in softplus.note
    assert not pk.critical_gain("relu", norm="batch").exists
    assert pk.critical_gain("relu", norm="batch").chi_perp == pytest.approx(math.pi / (math.pi - 1), rel=1e-9)


def test_critical_points_are_fixed_points():
    """At the returned gain the recursion itself ends with chi_perp = 1: 1e-4 in sigma_w."""
    for name in ("tanh", "erf", "hardtanh", "selu", "arctan", "softsign", "sin", "elu"):
        c = pk.critical_gain(name, bias_std=0.2)
        p = pk.predict(pk.Chain(depth=3000, width=64, activation=name, init=LECUN, gain=c.gain, bias_std=0.2))
        last = p.log10_grad_activation[-2] - p.log10_grad_activation[-1]
        assert 10 ** (2 * last) == pytest.approx(1, abs=1e-5)


def test_phase_diagram_and_depth_scales():
    d = pk.phase_diagram("tanh", [0.5, math.sqrt(1.7610), 3.0], [math.sqrt(0.05)])
    assert d.phase[0, 0] == "ordered"
    assert d.phase[0, 2] == "chaotic"
    assert d.chi_perp[0, 1] == pytest.approx(1, abs=1e-4)
    assert pk.phase_diagram("relu", [2.0], [0.1]).phase[0, 0] == "unbounded"
    chain = pk.Chain(depth=60, width=64, activation="tanh", init=LECUN, gain=0.9, bias_std=0.2)
    s = pk.depth_scales(chain)
    p = pk.predict(chain, 2)
    assert s.xi_grad == pytest.approx(s.xi_c)
    gap = 1 - p.similarity[20:22]
    assert math.log(gap[0] / gap[1]) == pytest.approx(1 / s.xi_c, rel=1e-3)
    chaotic = pk.depth_scales(chain.replace(gain=2.5))
    assert chaotic.xi_grad < 0
    of_outputs = 1 - (1 - chaotic.c) / (1 - 0.2**2 / chaotic.q)  # c* is that of z, which shares its bias
    assert pk.predict(chain.replace(gain=2.5), 2).similarity[-1] == pytest.approx(of_outputs, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: pk.predict("relu"), TypeError, "Chain"),
        (lambda: pk.predict(pk.Chain(depth=2, width=4, init=pk.StudentT(1.5))), ValueError, "propagate"),
        (lambda: pk.critical_gain("tanh", bias_std=-1), ValueError, "bias_std"),
        (lambda: pk.phase_diagram("tanh", [-1.0]), ValueError, "sigma_w"),
        (lambda: pk.depth_scales(pk.Chain(depth=2, width=4, norm="batch")), ValueError, "batch norm"),
        (lambda: pk.jacobian_spectrum(pk.Chain(depth=2, width=4, norm="batch")), ValueError, "batch"),
        (lambda: pk.recommend(pk.Chain(depth=2, width=4), target=-1), ValueError, "target"),
    ],
)
def test_refusals(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


@pytest.mark.parametrize("order", ["linear-norm-activation", "norm-activation-linear"])
@pytest.mark.parametrize(("name", "gain"), [("tanh", 1.0), ("gelu", 1.5), ("sin", 1.0)])
def test_many_layers_at_once_are_layer_by_layer(name, gain, order):
    """The fast recursion against the quadrature itself, layer by layer, at criticality and away from it: 1e-9 decades
    after 300 layers."""
    from pykernel.theory import quadrature

    row, w = pk.activations.get(name), 2 * math.log(gain)
    x, product = 0.0, 0.0
    for _ in range(300):
        t = (x + (w if order == "linear-norm-activation" else 0.0)) / 2
        found = quadrature.measure(row, t)
        product += w + found[quadrature.LOG_SLOPE2]
        x = found[quadrature.LOG_VALUE2] + (0.0 if order == "linear-norm-activation" else w)
    p = pk.predict(pk.Chain(depth=300, width=64, activation=name, init=LECUN, gain=gain, order=order))
    assert p.signal_end_to_end == pytest.approx(product / 2 / math.log(10), abs=1e-9)


def test_theory_is_the_same_whatever_was_asked_before():
    """Tables are made where they are asked for: what is read from them must not depend on the order of asking."""
    from pykernel.theory import quadrature

    chain = pk.Chain(depth=200, width=64, activation="tanh", init=LECUN)
    one = pk.predict(chain, 2)
    quadrature._tables.clear()
    pk.predict(chain.replace(gain=1.3), 2)
    np.testing.assert_array_equal(pk.predict(chain, 2).log10_grad_weight, one.log10_grad_weight)


def test_homogeneous_chains_have_no_rounding_dust():
    p = pk.predict(pk.Chain(depth=1000, width=64))
    assert abs(p.signal_end_to_end) < 1e-13
    assert not np.any(p.log10_mean_square_preactivation - p.log10_mean_square_preactivation[0])


@pytest.mark.parametrize("norm", [None, "rms", "layer"])
@pytest.mark.parametrize(
    ("name", "gain"), [("tanh", 1.5), ("sin", 1.5), ("softplus", 1.0), ("elu", 1.2), ("sigmoid", 3.0)]
)
def test_law_of_deep_narrow_chains(name, gain, norm):
    """160 layers of 64 units: four standard errors of the mean plus second order, L / n^2; 15 percent of the deviation
    (4 / sqrt(2 R) and second order). Without the terms for vectors of fixed length the mean under a norm is off by .4
    decades.
    """
    chain = pk.Chain(depth=160, width=64, activation=name, init=LECUN, gain=gain, bias_std=0.1, norm=norm)
    values = pk.propagate(chain, replicas=400, engine="matrix_free", seed=3).signal_end_to_end
    p = pk.predict(chain)
    assert values.mean() == pytest.approx(p.signal_end_to_end_mean, abs=4 * values.std() / 20 + 160 / 64**2)
    assert values.std(ddof=1) == pytest.approx(p.signal_end_to_end_std, rel=0.15)


def test_no_law_where_draws_fall_into_different_phases():
    """GELU at its doubly critical point, mish between two fixed points: measured spreads are 3 times off first order
    there."""
    gelu = {"activation": "gelu", "init": LECUN, "gain": 1.98305826**0.5, "bias_std": 0.17292239**0.5, "width": 64}
    assert "first order" in pk.predict(pk.Chain(depth=10, **gelu)).law
    p = pk.predict(pk.Chain(depth=160, **gelu))
    assert "infinite width only" in p.law
    assert math.isnan(p.signal_end_to_end_mean)
    assert math.isnan(
        pk.predict(pk.Chain(depth=160, width=64, activation="mish", init=LECUN, gain=1.5)).signal_end_to_end_mean
    )
    saturated = pk.predict(pk.Chain(depth=5, width=9, activation="hardtanh", gain=1e8, bias_std=0.1))
    assert math.isnan(saturated.signal_end_to_end_mean)


def test_a_users_function_without_a_slope_at_0():
    """phi ~ z^(3/2): no critical point in the limit of small signals, and a double exponential fall that no number
    holds."""
    root = lambda z: np.abs(z) ** 0.5
    mine = pk.Activation(
        value=lambda z: z * root(z) / (1 + root(z)),
        slope=lambda z: (1.5 * root(z) + np.abs(z)) / (1 + root(z)) ** 2,
        name="mine",
    )
    assert not pk.critical_gain(mine).exists
    assert pk.predict(pk.Chain(depth=30, width=64, activation=mine, init=LECUN), 3).verdict == "vanishing"


def test_functions_that_grow_as_a_power_have_no_edge_at_infinity():
    """z^3 without biases: every fixed point has chi_perp = 27/15, and none draws an input of mean square 1."""
    cube = pk.Activation(value=lambda z: z**3, slope=lambda z: 3 * z * z, name="cube")
    point = pk.critical_gain(cube)
    assert not point.exists and math.isnan(point.gain)
    assert "no critical gain" in point.note


@pytest.mark.parametrize(
    ("fields", "batch", "correlation"),
    [
        ({"activation": "relu"}, 2, 0.0),
        ({"activation": "relu", "order": "norm-activation-linear"}, 16, 0.5),
        ({"activation": "linear", "init": LECUN}, 8, 0.0),
        ({"activation": "leaky_relu(0.3)"}, 8, 0.9),
        ({"activation": "relu", "widths": [40, 90, 60, 30, 80, 64, 48, 50]}, 8, 0.0),
    ],
)
def test_law_of_a_batch(fields, batch, correlation):
    """A sum over inputs fluctuates less than one: deviation within 15 percent and its error, mean within its error and
    a fifth of the deviation; that of one input is larger by a quarter and more.
    """
    shape = {} if "widths" in fields else {"depth": 16, "width": 64}
    chain, R = pk.Chain(**{"init": "he_normal"} | shape | fields), 400
    values = pk.propagate(chain, batch=batch, correlation=correlation, replicas=R, seed=1).signal_end_to_end
    p, one = pk.predict(chain, batch, correlation=correlation), pk.predict(chain)
    assert p.law_batch == batch
    assert values.std(ddof=1) == pytest.approx(p.signal_end_to_end_std, rel=0.15 + 4 / math.sqrt(2 * R))
    assert values.mean() == pytest.approx(
        p.signal_end_to_end_mean, abs=4 * values.std() / math.sqrt(R) + 0.2 * values.std()
    )
    assert one.signal_end_to_end_std > 1.1 * p.signal_end_to_end_std
    deep = pk.predict(pk.Chain(depth=20_000, width=16), 4)  # gradients of all inputs have fallen together
    assert deep.signal_end_to_end_std == pytest.approx(pk.predict(deep.chain).signal_end_to_end_std, rel=0.01)
