# SPDX-License-Identifier: BSD-3-Clause
"""Magnitudes that no float32 holds, in every place where a caller can put them, and exact zeros: the same answer from
every backend."""

import numpy as np
import pytest

import pykernel as pk
from pykernel import engines

BACKENDS = ("cpp", "numba", "reference")


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_a_samplers_size_is_a_factor(size):
    """ReLU is homogeneous: weights c times as large shift log10 |dJ/dW| by (L - 1) log10 c."""
    draw = lambda c: pk.Init(
        sampler=lambda rows, columns, seed: c * np.random.default_rng(seed).standard_normal((rows, columns))
    )
    run = lambda c: pk.propagate(pk.Chain(3, 8, init=draw(c)), replicas=2, backend="cpp")
    np.testing.assert_allclose(run(size).log10_grad_weight, run(1.0).log10_grad_weight + 2 * np.log10(size), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_callers_own_arrays_may_be_huge(backend, dtype):
    run = lambda **own: pk.propagate(
        pk.Chain(3, 8, activation="tanh", bias_std=own.pop("std", 0)), backend=backend, dtype=dtype, **own
    )
    biased = run(biases=[np.full(8, 1e300)] * 3, engine="dense")
    np.testing.assert_allclose(biased.log10_mean_square_preactivation, 600, atol=1e-5)
    drawn = run(std=1e300, engine="dense").log10_mean_square_preactivation
    np.testing.assert_allclose(
        drawn, 600 + run(std=1e9, engine="dense").log10_mean_square_preactivation - 18, atol=1e-5
    )
    far = run(x=np.full((8, 1), 1e308), engine="dense").log10_mean_square_preactivation[0, 0]
    assert far == pytest.approx(
        600 + run(x=np.full((8, 1), 1e8), engine="dense").log10_mean_square_preactivation[0, 0], abs=1e-5
    )


@pytest.mark.parametrize("activation", ["gelu", "mish", "silu", "softplus"])
def test_exponents_beyond_int32(activation):
    chain = pk.Chain(6, 1, activation=activation, init="lecun_normal", gain=1e8)
    words = {"batch": 2, "replicas": 3, "seed": 1, "engine": "dense", "dtype": "float64"}
    ours, compiled = (pk.propagate(chain, backend=b, **words).log10_grad_weight for b in ("reference", "cpp"))
    assert ours[np.isfinite(ours)].min() < -1e14
    both = np.isfinite(ours) & np.isfinite(compiled)  # how far below 10^-10^15 a zero begins is each backend's own
    assert both.any() and not np.isnan(ours).any()
    np.testing.assert_allclose(ours[both], compiled[both], rtol=1e-6)


@pytest.mark.filterwarnings("error")
def test_a_singular_jacobian_says_its_rank():
    """Singular values beyond the fewest live units of any layer are exact zeros, not rounding; a layer norm loses the
    mean."""
    chain = pk.Chain(widths=[6, 10, 11, 11, 15, 8, 13, 13], order="norm-activation-linear")
    s = pk.jacobian_spectrum(chain, replicas=20)
    live = (1 - pk.propagate(chain, replicas=20, engine="dense").dead) * chain.widths[:-1]
    assert np.isfinite(s.log10_singular).sum(axis=1).tolist() == live.min(axis=1).round().tolist()
    assert live.min() < 2.5  # most units are dead somewhere
    assert (s.log10_singular[np.isfinite(s.log10_singular)] > -5).all()
    normed = pk.jacobian_spectrum(pk.Chain(3, 8, norm="layer", activation="tanh"))
    assert np.isfinite(normed.log10_singular[0]).tolist() == [True] * 7 + [False]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["elu", "selu"])
def test_a_block_that_is_all_on_the_flat_side(activation, dtype, backend):
    """phi(-1e90) is -1, also where nothing of the block is near: the layer behind it sees a constant."""
    chain = pk.Chain(2, 1, activation=activation)
    p = pk.propagate(chain, x=[[-1e90, -1e91]], backend=backend, dtype=dtype, weights=[[[1.0]], [[1e30]]])
    low = {"elu": -1.0, "selu": -1.7580993408473766}[activation]
    np.testing.assert_allclose(p.mean_activation, [[low, low]], rtol=1e-6)
    assert p.similarity[0, 0] == pytest.approx(1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("engine", "backend"), engines.TABLE)
def test_nothing_beside_something_tiny(engine, backend, dtype):
    """A zero block has no exponent: added to numbers near 10^-150 it leaves them as they are, in every sum of a
    chain."""
    run = lambda chain, **own: pk.propagate(chain, engine=engine, backend=backend, dtype=dtype, **own)
    skipped = pk.Chain(2, 4, activation="tanh", order="norm-activation-linear", residual=pk.Residual(1, 0.0))
    through = run(skipped, cotangent=np.full((4, 2), 1e-150)).log10_grad_activation
    np.testing.assert_allclose(through, np.log10(np.sqrt(8)) - 150, atol=1e-5)
    biased = run(pk.Chain(2, 4, activation="tanh", bias_std=1e-150), x=np.zeros((4, 2)))
    usual = run(pk.Chain(2, 4, activation="tanh", bias_std=1e-4), x=np.zeros((4, 2)))  # tanh is linear here to 1e-7
    np.testing.assert_allclose(biased.log10_mean_square_activation + 292, usual.log10_mean_square_activation, atol=1e-5)
    joined = run(pk.Chain(2, 4, activation="tanh", bias_std=1e-150, residual=pk.Residual(1, 1.0)), x=np.zeros((4, 2)))
    np.testing.assert_allclose(
        joined.log10_mean_square_activation[:, 0], biased.log10_mean_square_activation[:, 0], atol=1e-5
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bias_that_no_exponent_reaches_is_nothing(backend):
    """Biases of 1e-5 beside 1e600: zero, and a unit at zero is off, whatever the bias's sign."""
    x = np.array([[0.0, 1e300]] * 8)
    p = pk.propagate(pk.Chain(2, 8, bias_std=1e-5, gain=1e300), x=x, backend=backend, dtype="float64")
    assert (p.saturated >= 0.5).all()


def test_similarity_of_columns_whose_squares_multiply_to_nothing():
    """|a1|^2 |a2|^2 = 10^-600 of their unit: the cosine is 1, not left out."""
    x = np.array([[1.0], [2.0]]) * [1.0, 1e-140, 1e-140]
    p = pk.propagate(pk.Chain(2, 2, activation="linear"), x=x, dtype="float64", backend="cpp")
    np.testing.assert_allclose(p.similarity, 1, atol=1e-6)
    y = x * [1, 1, -1]
    np.testing.assert_allclose(
        pk.propagate(pk.Chain(2, 2, activation="linear"), x=y, dtype="float64").similarity, -1 / 3, atol=1e-6
    )


def test_targets_say_the_batch():
    chain = pk.Chain(3, 8, head=pk.Head("softmax", 3, targets=(0, 1, 2, 1)))
    assert pk.propagate(chain).batch == 4
    assert pk.weights(chain, layer=4).shape == (3, 8)
    assert pk.jacobian_spectrum(chain).complete
    assert pk.depth_scales(chain) == pk.depth_scales(chain.replace(head=None))
    assert pk.recommend(chain, batch=4).batch == 4
    with pytest.raises(ValueError, match="batch=3 contradicts head targets of 4 inputs"):
        pk.propagate(chain, batch=3)
    with pytest.raises(ValueError, match="give the sweep batch=4"):
        pk.sweep([chain], replicas=2)


def _late(change):
    """sin, well behaved where an Activation looks at it, and not for the arrays of a chain of 7 units."""

    def value(z):
        return change(z) if np.size(z) in (7, 16, 14, 32) else np.sin(z)

    return pk.Activation(value, np.cos, name="late")


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_an_activation_that_turns_bad_is_named(backend):
    def fail(z):
        raise KeyError("later")

    run = lambda change: pk.propagate(pk.Chain(2, 7, activation=_late(change)), backend=backend, engine="dense")
    with pytest.raises(RuntimeError, match="activation 'late': value raised KeyError: 'later'"):
        run(fail)
    with pytest.raises(ValueError, match="activation 'late': value must return the shape it is given"):
        run(lambda z: np.ravel(z)[:1])
