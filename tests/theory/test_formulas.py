# SPDX-License-Identifier: BSD-3-Clause
"""Formulas and traps of the literature, one by one, as docs/theory.md lists them."""

import math

import numpy as np
import pytest
from combinations import FUNCTIONS

import pykernel as pk
from pykernel import activations
from pykernel.theory import quadrature

LECUN = "lecun_normal"


def slope(**fields):
    return pk.predict(pk.Chain(**{"depth": 1, "width": 64, **fields})).slope


def test_he_published_case():
    """He et al. 2015, section 2.2: std 0.01 in VGG leaves 1 / (1.7e4) of the gradient over nine 3 x 3 layers (fan 9
    d)."""
    channels = [64, 128, 128, 256, 256, 512, 512, 512, 512]
    decades = sum(slope(width=9 * d, init=pk.Normal(0.01)) for d in channels)
    assert 10**-decades == pytest.approx(1.7e4, rel=0.02)  # two digits published


def test_glorot_weight_gradients_hide_a_geometric_signal():
    """Glorot, Bengio 2010, eqs. 12-14: equal widths, linear: dJ/dW has one norm at all layers while delta is
    geometric."""
    p = pk.predict(pk.Chain(depth=20, width=64, activation="linear", init="glorot_normal", gain=0.8))
    np.testing.assert_allclose(p.log10_grad_weight, p.log10_grad_weight[0], atol=1e-12)
    np.testing.assert_allclose(np.diff(p.log10_grad_preactivation), -math.log10(0.8), atol=1e-12)


@pytest.mark.parametrize("s", [0.01, 0.2, 0.5])
def test_leaky_slope_enters_the_variance(s):
    """(1/2)(1 + s^2) n Var W = 1."""
    assert pk.critical_gain(f"leaky_relu({s})").gain == pytest.approx(math.sqrt(2 / (1 + s * s)), abs=1e-9)


def test_selu_moment_map():
    """Klambauer et al. 2017, eq. 6: the Jacobian at (0, 1) is [[0, .088834], [0, .782648]]."""
    table, h = quadrature.moments(activations.get("selu")), 1e-4
    assert table(np.zeros(1))[quadrature.ELASTICITY, 0] == pytest.approx(0.782648, abs=1e-6)
    mean = lambda variance: (
        float(np.exp(table(np.array([0.5 * math.log(variance)]))[quadrature.LOG_VALUE2, 0] / 2))
        * float(table(np.array([0.5 * math.log(variance)]))[quadrature.MEAN, 0])
    )
    assert (mean(1 + h) - mean(1 - h)) / (2 * h) == pytest.approx(0.088834, abs=1e-6)


def test_erf_and_relu_closed_forms():
    erf, relu = quadrature.moments(activations.get("erf")), quadrature.moments(activations.get("relu"))
    for q in (1e-3, 0.7, 30.0):
        t = np.array([0.5 * math.log(q)])
        assert math.exp(erf(t)[quadrature.LOG_VALUE2, 0]) == pytest.approx(
            2 / math.pi * math.asin(2 * q / (1 + 2 * q)), rel=1e-11
        )
        assert math.exp(erf(t)[quadrature.LOG_SLOPE2, 0]) == pytest.approx(
            4 / (math.pi * math.sqrt(1 + 4 * q)), rel=1e-11
        )
        assert math.exp(relu(t)[quadrature.LOG_VALUE2, 0]) == pytest.approx(q / 2, rel=1e-13)


def test_depth_scales_are_rates_of_the_recursion():
    """xi_q, xi_grad and chi_par = sigma_w^2 E[phi'^2 + phi phi''] (Schoenholz et al. 2017), the last by another
    quadrature."""
    integrate = pytest.importorskip("scipy.integrate")
    chain = pk.Chain(depth=60, width=64, activation="tanh", init=LECUN, gain=1.2, bias_std=0.4)
    s, p = pk.depth_scales(chain), pk.predict(chain)
    q = 10**p.log10_mean_square_preactivation
    assert math.log((q[9] - s.q) / (q[10] - s.q)) == pytest.approx(1 / s.xi_q, rel=1e-3)
    ratio = p.log10_grad_activation[-2] - p.log10_grad_activation[-1]
    assert -2 * ratio * math.log(10) == pytest.approx(1 / s.xi_grad, rel=1e-6)

    def curve(x):
        t = math.tanh(math.sqrt(s.q) * x)
        return ((1 - t * t) ** 2 - 2 * t * t * (1 - t * t)) * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    assert 1.44 * integrate.quad(curve, -12, 12)[0] == pytest.approx(s.chi_par, rel=1e-9)


def test_hanin_nica_weights_that_are_not_normal():
    """Theorem 1 with mu_4 = 9/5, all of the input in one unit: beta = (2 + mu_4 - 3) / n. Five standard errors at R =
    2000."""
    n, R = 64, 2000
    x = np.zeros((n, 1))
    x[0] = 1
    p = pk.propagate(pk.Chain(depth=1, width=n, activation="linear", init="lecun_uniform"), x=x, replicas=R)
    measured = np.var(p.log10_mean_square_activation[:, 0] * math.log(10))
    assert measured == pytest.approx(0.8 / n, rel=5 * math.sqrt(2 / R) + 2 / n)


def test_norms_and_branches():
    """Layer or RMS norm before phi: E phi'^2 / E phi^2 (exactly 1 for ReLU and linear, up to eps); scale 0: the
    identity."""
    for name in ("relu", "linear"):
        for norm in ("layer", "rms"):
            p = pk.predict(pk.Chain(depth=50, width=64, activation=name, norm=norm, init=LECUN, gain=3.0))
            # the input is not an output of phi
            np.testing.assert_allclose(np.diff(p.log10_grad_activation[1:]), 0, atol=1e-5)
    t = quadrature.moments(activations.get("tanh"))(np.zeros(1))
    ratio = t[quadrature.LOG_SLOPE2, 0] - t[quadrature.LOG_VALUE2, 0]
    p = pk.predict(pk.Chain(depth=40, width=64, activation="tanh", norm="rms", init=LECUN, gain=30.0))
    np.testing.assert_allclose(-np.diff(p.log10_grad_activation[1:]), ratio / 2 / math.log(10), atol=1e-5)
    chain = pk.Chain(depth=30, width=16, order="norm-activation-linear", residual=pk.Residual(1, 0.0))
    assert pk.predict(chain).signal_end_to_end == 0
    assert np.all(pk.propagate(chain, replicas=2).signal_end_to_end == 0)


@pytest.mark.parametrize(("norm", "batch"), [("batch", 8), ("layer", 1), ("rms", 1)])
def test_an_eps_that_matters(norm, batch):
    """Beside the variance of a small gain: the size of signals and gradients as measured, to 0.03 decades in 12 layers
    of 1500 units."""
    chain = pk.Chain(
        depth=12, width=1500, activation="tanh", init=LECUN, gain=0.7, bias_std=0.1, norm=norm, norm_eps=0.5
    )
    p, q = pk.propagate(chain, batch=batch, replicas=6, seed=1), pk.predict(chain, batch=batch)
    for row in ("log10_grad_activation", "log10_mean_square_activation"):
        np.testing.assert_allclose(np.median(getattr(p, row), 0), np.ravel(getattr(q, row)), atol=0.05)
    assert abs(q.signal_end_to_end) > 0.7  # with the default eps: 0.1


def test_residual_tanh_is_sub_exponential():
    """Yang, Schoenholz 2017: exp(O(sqrt L)): four times the depth doubles the decades; an exponential would make them
    fourfold."""
    deep = [
        pk.predict(pk.Chain(depth=L, width=64, activation="tanh", init=LECUN, residual=pk.Residual())).signal_end_to_end
        for L in (1000, 4000)
    ]
    assert deep[1] / deep[0] == pytest.approx(2, abs=0.15)


def test_trap_2_a_readout_that_knows_the_signal():
    """J = mean(a[L]): an odd function keeps to theory, softplus leaves it (by chi_par^2 for chi_perp a layer, from the
    first on)."""
    off = {}
    for name in ("tanh", "softplus"):
        chain = pk.Chain(depth=12, width=1024, activation=name, init=LECUN, gain=1.5)
        p = pk.propagate(chain, cotangent=np.ones((1024, 1)), replicas=20, engine="matrix_free")
        off[name] = p.signal_end_to_end.mean() - pk.predict(chain).signal_end_to_end
    assert abs(off["tanh"]) < 0.1
    assert abs(off["softplus"]) > 0.3


def test_trap_4_the_factors_that_are_right():
    """ReLU .7071 and sigmoid .236 at variance 1/n, not .5 and .25."""
    assert 10 ** slope(depth=30, init=LECUN) == pytest.approx(0.7071, abs=1e-4)
    assert 10 ** slope(depth=60, activation="sigmoid", init=LECUN) == pytest.approx(0.236, abs=1e-3)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_wide_chains_as_sampled(name):
    """2048 units, four weight variances, depths 10, 30 and 100: four standard errors of the mean over 12 draws plus L /
    n decades.

    softplus keeps a part along the signal at any width (trap 3): its finite-width mean is the one compared.
    """
    for variance in (0.5, 1.0, 2.0, 4.0):
        for depth in (10, 30, 100):
            chain = pk.Chain(depth=depth, width=2048, activation=name, init=LECUN, gain=math.sqrt(variance))
            p, values = pk.predict(chain), pk.propagate(chain, replicas=12, engine="matrix_free").signal_end_to_end
            expected = p.signal_end_to_end_mean if name == "softplus" else p.signal_end_to_end
            assert values.mean() == pytest.approx(
                expected, abs=4 * values.std(ddof=1) / math.sqrt(12) + depth / 2048
            ), (variance, depth)
