# SPDX-License-Identifier: BSD-3-Clause
"""Gaussian moments, the C-map and batch normalisation against closed forms, an independent quadrature and sampling."""

import math

import numpy as np
import pytest
from combinations import FUNCTIONS
from scipy import special

from pykernel import activations
from pykernel.theory import batch, correlation, quadrature
from pykernel.theory.quadrature import ELASTICITY, LOG_SLOPE2, LOG_VALUE2, MEAN

NAMES = (*FUNCTIONS[1:], "leaky_relu(0.2)", "sin")


@pytest.mark.parametrize("name", NAMES)
def test_moments_against_scipy(name):
    """scipy's adaptive quadrature, told of the kinks: 1e-10 relative."""
    integrate = pytest.importorskip("scipy.integrate")
    row = activations.get(name)

    def check(std):
        density = lambda x: math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        points = sorted({0.0, *(k / std for k in row.kinks)})
        mean = lambda f: integrate.quad(
            lambda x: f(np.array([std * x]))[0] * density(x),
            -12,
            12,
            points=points,
            limit=400,
            epsabs=1e-12,
            epsrel=1e-12,
        )[0]
        value2, slope2 = mean(lambda z: row.value(z) ** 2), mean(lambda z: row.slope(z) ** 2)
        lean, swing = mean(row.value), mean(lambda z: z * row.value(z) * row.slope(z))
        ours = quadrature.measure(row, math.log(std))
        assert math.exp(ours[LOG_VALUE2]) == pytest.approx(value2, rel=1e-10)
        assert math.exp(ours[LOG_SLOPE2]) == pytest.approx(slope2, rel=1e-10)
        assert ours[MEAN] * math.sqrt(value2) == pytest.approx(lean, abs=1e-10)
        assert ours[ELASTICITY] * value2 == pytest.approx(swing, rel=1e-9)

    for std in (0.3, 1.0, 4.0):
        check(std)


@pytest.mark.parametrize("log_std", [-340.0, -30.0, 0.0, 5.0, 30.0, 340.0])
def test_moments_at_any_scale(log_std):
    """ReLU keeps its ratio and erf its closed form 4 / (pi sqrt(1 + 4 q)) from mean squares of 1e-300 to 1e300."""
    relu, erf = activations.get("relu"), activations.get("erf")
    assert quadrature.measure(relu, log_std)[LOG_VALUE2] - 2 * log_std == pytest.approx(-math.log(2), abs=1e-11)
    expected = math.log(4 / math.pi) - 0.5 * np.logaddexp(0, math.log(4) + 2 * log_std)
    assert quadrature.measure(erf, log_std)[LOG_SLOPE2] == pytest.approx(expected, abs=1e-11 * max(1, abs(log_std)))


@pytest.mark.parametrize("name", ["tanh", "gelu", "hardtanh", "softplus"])
def test_table_is_the_quadrature(name):
    """Interpolation loses nothing that matters; the scalar path is the vector path; the asymptote continues it."""
    row = activations.get(name)
    table = quadrature.moments(row)
    t = np.array([-20.3, -3.1, -0.2, 0.4, 1.9, 7.7, 60.2])
    direct = np.array([quadrature.measure(row, s) for s in t]).T
    np.testing.assert_allclose(table(t), direct, rtol=1e-10, atol=1e-10)
    for s, value in zip(t, direct[LOG_VALUE2], strict=True):
        assert table.column(float(s), LOG_VALUE2) == pytest.approx(value, abs=1e-10)
    below = table(np.array([-1000.0, -1001.0]))[LOG_VALUE2]
    slope = {"softplus": 0.0}.get(name, 2.0)
    assert below[0] - below[1] == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("distance", [1e-13, 1e-6, 0.01, 0.3, 1.0, 1.7])
def test_distance_map_closed_forms(distance):
    c = 1 - distance
    relu = (math.sqrt(1 - c * c) + (math.pi - math.acos(c)) * c) / math.pi
    assert correlation.distance_map(activations.get("relu"), 1.7, distance) == pytest.approx(
        1 - relu, abs=1e-14, rel=1e-2 if distance < 1e-9 else 1e-9
    )
    q = 0.9
    erf = math.asin(2 * q * c / (1 + 2 * q)) / math.asin(2 * q / (1 + 2 * q))
    assert correlation.distance_map(activations.get("erf"), math.sqrt(q), distance) == pytest.approx(
        1 - erf, abs=1e-14, rel=1e-2 if distance < 1e-9 else 1e-8
    )


@pytest.mark.parametrize("std", [0.2, 1.0, 4.0, 300.0])
@pytest.mark.parametrize("distance", [1e-3, 0.2, 0.9, 1.0, 1.6])
def test_distance_map_of_smooth_and_kinked_functions(std, distance):
    """1 - c' to 1e-9: erf and sin by closed forms, hardtanh with the closed mean of a clipped normal under a fine
    midpoint rule."""
    q, c = std * std, 1 - distance
    kernel = lambda x: math.asin(2 * q * x / (1 + 2 * q))
    assert correlation.distance_map(activations.get("erf"), std, distance) == pytest.approx(
        1 - kernel(c) / kernel(1), rel=1e-9
    )
    if q > 100:  # sinh overflows, and the midpoint rule is too coarse for the kinks
        return
    assert correlation.distance_map(activations.get("sin"), std, distance) == pytest.approx(
        1 - math.sinh(q * c) / math.sinh(q), rel=1e-9
    )
    x = (np.arange(200_000) + 0.5) * 1e-4 - 10.0
    x, spread = x[np.abs(x) < 9] * std, std * math.sqrt(1 - c * c)
    low, high = (-1 - c * x) / spread, (1 - c * x) / spread
    density = lambda z: np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    below, above = special.ndtr(low), special.ndtr(-high)
    mean = c * x * (special.ndtr(high) - below) + spread * (density(low) - density(high)) - below + above
    w, clipped = density(x / std), np.clip(x, -1, 1)
    expected = 1 - (w @ (clipped * mean)) / (w @ (clipped * clipped))
    # of the midpoint rule
    assert correlation.distance_map(activations.get("hardtanh"), std, distance) == pytest.approx(expected, abs=1e-8)


def test_collapse_of_relu_inputs():
    """On the critical line 1 - c_l -> 9 pi^2 / (2 l^2): 2 percent at l = 2000 (corrections of order log(l) / l)."""
    d, row = 1.0, activations.get("relu")
    for _ in range(2000):
        d = correlation.distance_map(row, 1.0, d)
    assert d * 2000**2 == pytest.approx(9 * math.pi**2 / 2, rel=0.02)


@pytest.mark.parametrize("inputs", [4, 5, 8, 32, 200])
def test_batch_norm_rates(inputs):
    """Yang et al. 2019, Theorems 7 and 8; eps is negligible at a variance of 1e6."""
    B, o = inputs, -1 / (inputs - 1)
    k0, k1 = 1 - math.acos(o) / math.pi, (math.sqrt(1 - o * o) + (math.pi - math.acos(o)) * o) / math.pi
    for name, expected in (("linear", (B - 2) / (B - 3)), ("relu", (k0 + B - 1) / ((B - 3) * (1 - k1)) - 1 / (B - 3))):
        m = batch.batch_table(activations.get(name), B).at(math.log(1e6))
        assert ((1 - o) * m.own + o * m.common) / (m.value2 - m.cross) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["tanh", "hardtanh", "gelu"])
@pytest.mark.parametrize(("inputs", "variance"), [(2, 1e-5), (3, 1e-4), (6, 1e-5), (9, 1.0)])
def test_batch_moments_by_sampling(name, inputs, variance):
    """Means over 200 000 sampled units within 5 standard errors, with eps small and not small."""
    row, B = activations.get(name), inputs
    z = np.random.default_rng(1).normal(size=(200_000, B)) * math.sqrt(variance)
    z -= z.mean(1, keepdims=True)
    sigma2 = (z**2).mean(1, keepdims=True) + 1e-5
    y = z / np.sqrt(sigma2)
    f, phi = row.slope(y), row.value(y)
    shrink = (y**2).mean(1, keepdims=True)
    own = variance * (f**2 * (1 - 1 / B - y**2 / B * (2 - shrink))).mean(1) / sigma2[:, 0]
    moved = f - f.mean(1, keepdims=True) - y * (f * y).mean(1, keepdims=True)
    samples = np.array([(phi**2).mean(1), phi[:, 0] * phi[:, 1], own, variance * (moved**2).mean(1) / sigma2[:, 0]])
    m = batch.batch_table(row, B).at(math.log(variance))
    error = samples.std(1) / math.sqrt(len(z))
    np.testing.assert_array_less(np.abs(samples.mean(1) - [m.value2, m.cross, m.own, m.common]), 5 * error + 1e-12)


def test_dead_units_of_a_batch():
    """Independent inputs: 2^-B; collinear ones: 1/2; in between by sampling within 5 standard errors."""
    flat = correlation.dead_set(activations.get("relu"))
    assert correlation.common_probability(flat, 2.0, 1.0, 3) == pytest.approx(1 / 8)
    assert correlation.common_probability(flat, 2.0, 0.0, 3) == pytest.approx(1 / 2)
    rng = np.random.default_rng(0)
    z = math.sqrt(0.7) * rng.normal(size=(200_000, 1)) + math.sqrt(0.3) * rng.normal(size=(200_000, 4))
    share = (z <= 0).all(1).mean()
    assert correlation.common_probability(flat, 1.0, 0.3, 4) == pytest.approx(share, abs=5 * math.sqrt(share / 200_000))


@pytest.mark.parametrize("name", ["elu", "selu", "gelu", "silu", "softplus", "mish"])
def test_tables_end_where_power_laws_begin(name):
    """Moments at scales far beyond the table are those of the quadrature: 1e-10 of the log (its own rounding of a
    thousand panels)."""
    row = activations.get(name)
    table = quadrature.moments(row)
    assert table.furthest < 100
    for t in (-300.0, -60.0, 60.0, 300.0):
        np.testing.assert_allclose(table(np.array([t]))[:, 0], quadrature.measure(row, t), atol=1e-10)
