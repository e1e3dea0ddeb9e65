# SPDX-License-Identifier: BSD-3-Clause
"""Activation rows against 50-digit arithmetic: values, slopes, tails beyond float range, and the facts that engines
rely on."""

import pickle

import mpmath
import numpy as np
import pytest

import pykernel as pk
from pykernel import Block, Chain, Formats, Linear, Scale, activations, propagate
from pykernel.activation import Activation

mpmath.mp.dps = 50
exp, erf, erfc, sqrt, pi, tanh, log = (
    mpmath.exp,
    mpmath.erf,
    mpmath.erfc,
    mpmath.sqrt,
    mpmath.pi,
    mpmath.tanh,
    mpmath.log,
)
ALPHA, LAMBDA = mpmath.mpf("1.6732632423543772"), mpmath.mpf("1.0507009873554805")

# The textbook definitions, in arithmetic that does not round.
EXACT = {
    "linear": lambda z: z,
    "sigmoid": lambda z: 1 / (1 + exp(-z)),
    "tanh": tanh,
    "relu": lambda z: max(z, 0),
    "leaky_relu": lambda z: z if z > 0 else mpmath.mpf(0.01) * z,
    "elu": lambda z: z if z > 0 else exp(z) - 1,
    "selu": lambda z: LAMBDA * (z if z > 0 else ALPHA * (exp(z) - 1)),
    "gelu": lambda z: z * erfc(-z / sqrt(2)) / 2,
    "gelu_tanh": lambda z: z / 2 * (1 + tanh(sqrt(2 / pi) * (z + mpmath.mpf("0.044715") * z**3))),
    "silu": lambda z: z / (1 + exp(-z)),
    "softplus": lambda z: log(1 + exp(z)),
    "mish": lambda z: z * tanh(log(1 + exp(z))),
    "hardtanh": lambda z: max(-1, min(1, z)),
    "softsign": lambda z: z / (1 + abs(z)),
    "erf": erf,
    "arctan": mpmath.atan,
    "sin": mpmath.sin,
}
POINTS = np.array([-25.0, -12.3, -5.5, -2.2, -1.3, -0.7, -0.2, -1e-3, 1e-3, 0.3, 0.9, 1.7, 3.1, 6.6, 13.0, 25.0])


def test_every_row_has_an_exact_definition():
    assert set(EXACT) == set(activations.ROWS)


@pytest.mark.parametrize("name", activations.ROWS)
def test_values_and_slopes_match_fifty_digits(name):
    row = activations.get(name)
    # 1e-13: a few roundings, and the condition of exp at |z| = 25 (25 eps), of erfc at -25/sqrt 2 (600 eps).
    mpmath.mp.dps = 400  # tails cancel: tanh(log(1 + exp(-25))) needs the digits
    value = np.array([float(EXACT[name](mpmath.mpf(z))) for z in POINTS])
    slope = np.array([float(mpmath.diff(EXACT[name], mpmath.mpf(z), h=mpmath.mpf(10) ** -60)) for z in POINTS])
    np.testing.assert_allclose(row.value(POINTS), value, rtol=3e-13, atol=0)
    np.testing.assert_allclose(row.slope(POINTS), slope, rtol=3e-13, atol=1e-300)


@pytest.mark.parametrize("name", [n for n in activations.ROWS if activations.get(n).log2_slope])
def test_log2_slope_goes_on_where_the_slope_rounds_to_zero(name):
    row = activations.get(name)
    z = mpmath.mpf(-40)
    # gelu_tanh is 1e-2000 there, and 1 + tanh cancels as many digits; the others are 1e-695 (erf) and more.
    digits, step = (4000, 1500) if name == "gelu_tanh" else (1500, 700)
    with mpmath.workdps(digits):
        slope = mpmath.diff(EXACT[name], z, h=mpmath.mpf(10) ** -step)
        expected = float(log(abs(slope)) / log(2))
    sign, log2 = (np.broadcast_to(v, (1,))[0] for v in row.log2_slope(np.array([-40.0])))
    assert sign == np.sign(slope)
    assert log2 == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", activations.ROWS)
def test_log2_forms_join_the_plain_ones(name):
    row = activations.get(name)
    z = np.linspace(-35, 35, 701) + 1e-3
    for kind in ("value", "slope"):
        function = getattr(row, f"log2_{kind}")
        if function is not None:
            sign, log2 = function(z)
            plain = getattr(row, kind)(z)
            held = np.abs(plain) > 1e-280
            # |log2| reaches 900, so its last bit is 1e-13 of the number; the Gaussian tail's series adds 2e-12.
            np.testing.assert_allclose((sign * np.exp2(log2))[held], plain[held], rtol=5e-12)


@pytest.mark.parametrize("name", activations.ROWS)
def test_facts_of_the_row(name):
    row = activations.get(name)
    z = np.linspace(-40, 40, 160001)
    slope = row.slope(z)
    assert np.abs(slope).max() == pytest.approx(row.max_slope, rel=1e-3)
    np.testing.assert_allclose(row.slope(np.array([-1e-20, 1e-20])), [row.before_zero, row.after_zero], rtol=1e-12)
    assert row.value(np.zeros(1))[0] == pytest.approx(row.at_zero, abs=1e-16)
    if name != "sin":
        np.testing.assert_allclose(row.slope(np.array([-1e9, 1e9])), [row.left, row.right], atol=1e-8)
    assert row.flat == bool(((slope[1:] == 0) & (slope[:-1] == 0) & (np.abs(z[1:]) < 3)).any())


@pytest.mark.parametrize("name", activations.ROWS)
def test_nothing_becomes_nan_at_the_ends_of_float_range(name):
    row = activations.get(name)
    z = np.array([-1e308, -1e200, -1e30, -750.0, 750.0, 1e30, 1e200, 1e308])
    with np.errstate(all="ignore"):
        assert not np.isnan(row.value(z)).any()
        assert np.isfinite(row.slope(z)).all()
        for form in (row.log2_value, row.log2_slope):
            assert form is None or not any(np.isnan(part).any() for part in form(z))


def test_rows_compare_hash_and_pickle():
    for name in activations.ROWS:
        row = activations.get(name)
        assert pickle.loads(pickle.dumps(row)) == row
        assert hash(activations.get(name)) == hash(row)
    assert activations.leaky_relu(0.2) == activations.get("leaky_relu(0.2)") != activations.get("leaky_relu")
    assert str(activations.elu(2)) == "elu(2)"


def test_a_users_function_is_measured_and_checked():
    row = Activation(
        value=lambda z: np.where(z > 0, z, 0.3 * z),
        slope=lambda z: np.where(z > 0, 1.0, 0.3),
        name="mine",
        kinks=(0.0,),
    )
    assert (row.left, row.right, row.before_zero, row.after_zero, row.at_zero, row.max_slope) == (
        0.3,
        1.0,
        0.3,
        1.0,
        0.0,
        1.0,
    )
    with pytest.raises(ValueError, match=r"at z = .* belong in kinks"):
        Activation(value=lambda z: np.abs(z), slope=lambda z: np.sign(z) * (np.abs(z) > 1))


@pytest.mark.parametrize("name", [name for name in activations.ROWS if name != "sin"])  # which far out is noise
def test_far_out_the_engine_agrees_with_the_definition(name):
    """What a square of z inside a formula would make inf, in single numbers."""
    chain = pk.Chain(depth=3, width=16, activation=name, init="normal(1e25)")
    got, defined = (pk.propagate(chain, batch=2, seed=3, backend=backend) for backend in ("cpp", "reference"))
    for row in ("log10_grad_weight", "log10_mean_square_activation"):
        # decades; 1e-4: three layers of rounding, and slopes in the tails amplify that of z a hundredfold
        np.testing.assert_allclose(got.rows[row], defined.rows[row], rtol=1e-4, atol=1e-4, err_msg=row)


# -- at infinity

NAMES_AND_EDGES = [*activations.ROWS, "leaky_relu(0)", "leaky_relu(-0.5)", "elu(0)", "elu(-1)"]


def limits(row):
    """Values and slopes at -inf and inf: the limits, nan where there is none. What is infinite follows from the slopes;
    of the rest the value far out is the limit to the last bits."""
    if row.name == "sin":
        return np.full(2, np.nan), np.full(2, np.nan)
    far = row.value(np.array([-1e25, 1e25]))
    sides = np.array([row.left, row.right])
    with np.errstate(invalid="ignore"):
        return np.where(sides == 0, far, sides * [-np.inf, np.inf]), sides


@pytest.mark.parametrize("name", NAMES_AND_EDGES)
def test_at_infinity_a_function_is_its_limit(name):
    """softsign is 1 and gelu 0, not inf / inf and 0 inf; a value at nan is nan."""
    row = activations.get(name)
    value, slope = limits(row)
    np.testing.assert_allclose(row.limits("value"), value, rtol=1e-15, atol=0)
    np.testing.assert_allclose(row.limits("slope"), slope, rtol=1e-15, atol=0)
    with np.errstate(all="ignore"):
        assert np.isnan(row.value(np.array([np.nan]))).all()


def at_infinity(name, x, backend, dtype):
    """Value and magnitude of the slope at what overflows to x, one unit in a run with formats; nan is inf minus inf."""
    nan = Block(Scale(1.0), skip=-1.0)
    chain = Chain(depth=1, width=1, init="identity", first=[nan] * bool(np.isnan(x)), blocks=[Block(name, Linear(1))])
    p = propagate(
        chain,
        x=np.full((1, 1), np.copysign(1e6, x)),
        cotangent=np.ones((1, 1)),
        formats=Formats(signals="float16"),
        backend=backend,
        dtype=dtype,
        engine="dense",
    )
    return np.array([p.mean_activation[0, -1], 10 ** p.log10_grad_activation[0, -2]])


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [("cpp", "float32"), ("cpp", "float64"), pytest.param("numba", "float64", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("name", NAMES_AND_EDGES)
def test_what_overflows_has_the_limits_in_every_backend(name, backend, dtype):
    value, slope = limits(activations.get(name))
    held = Formats(signals="float16").rounded("signals", value)
    for x, wanted in zip((-np.inf, np.inf), zip(held, np.abs(slope), strict=True), strict=True):
        for run in ((backend, dtype), ("reference", "float64")):
            np.testing.assert_allclose(at_infinity(name, x, *run), wanted, rtol=1e-6, atol=0, err_msg=f"{x} {run}")
    told, reference = at_infinity(name, np.nan, backend, dtype), at_infinity(name, np.nan, "reference", "float64")
    assert np.isnan(told[0]) and np.isnan(reference[0])
    np.testing.assert_allclose(told[1], reference[1], rtol=1e-6)
