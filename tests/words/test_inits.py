# SPDX-License-Identifier: BSD-3-Clause
"""Init schemes: the law of the weights that the kernel uses, against each scheme's formula."""

import pickle

import numpy as np
import pytest
import scipy.stats

import pykernel as pk
from pykernel import inits

N_IN, N_OUT = 600, 400
COUNT = N_IN * N_OUT


def drawn(init, gain=1.0, seed=7):
    return pk.weights(pk.Chain(widths=[N_IN, N_OUT], init=init, gain=gain), layer=1, seed=seed)


# name -> variance of a weight, by the formula of its paper or framework
VARIANCES = {
    "he_normal": 2 / N_IN,
    "he_uniform": 2 / N_IN,
    "he_truncated_normal": 2 / N_IN,
    "glorot_normal": 2 / (N_IN + N_OUT),
    "glorot_uniform": 2 / (N_IN + N_OUT),
    "glorot_truncated_normal": 2 / (N_IN + N_OUT),
    "lecun_normal": 1 / N_IN,
    "lecun_uniform": 1 / N_IN,
    "lecun_truncated_normal": 1 / N_IN,
    "torch_linear_default": 1 / (3 * N_IN),
    "keras_he_normal": 2 / N_IN,
    "keras_glorot_uniform": 2 / (N_IN + N_OUT),
    "sparse(0.1)": 1 / N_IN,
    "student_t(8)": 1 / N_IN,
    "stable(2)": 1 / N_IN,
    "normal(0.01)": 1e-4,
    "uniform(0.3)": 0.09 / 3,
    "truncated_normal(0.1)": 0.01 * 0.8796256610342398**2,
}


@pytest.mark.parametrize("name", VARIANCES)
def test_variance_and_mean(name):
    w = drawn(name)
    kurtosis = np.mean(w**4) / np.mean(w**2) ** 2
    # 5 standard errors of a sample variance: sqrt((kurtosis - 1) / count); of a mean: 1 / sqrt(count).
    assert w.var() / VARIANCES[name] == pytest.approx(1, abs=5 * np.sqrt((kurtosis - 1) / COUNT))
    assert abs(w.mean()) < 5 * w.std() / np.sqrt(COUNT)


LAWS = {
    "normal(1)": scipy.stats.norm.cdf,
    "uniform(1)": scipy.stats.uniform(-1, 2).cdf,
    "truncated_normal(1)": scipy.stats.truncnorm(-2, 2).cdf,
    "student_t(1, 1)": scipy.stats.t(1).cdf,
    "student_t(3, 1)": scipy.stats.t(3).cdf,
    "student_t(1000, 1)": scipy.stats.t(1000).cdf,
    "stable(1, 1)": scipy.stats.cauchy.cdf,
    "stable(2, 1)": scipy.stats.norm(0, 2**0.5).cdf,
}


@pytest.mark.parametrize("name", LAWS)
def test_law(name):
    # Fixed seed; a wrong law of 240 000 draws has p below 1e-9 (a shift of 0.01 standard deviations already has).
    assert scipy.stats.kstest(drawn(name).ravel(), LAWS[name]).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.5, 1.5])
def test_law_of_stable_weights(alpha):
    """S1 parameterisation, unit scale: characteristic function exp(-|t|^alpha)."""
    w = drawn(f"stable({alpha}, 1)").ravel()
    t = np.array([0.1, 0.5, 1.0, 2.0])
    # Re of the empirical characteristic function: each term is bounded by 1, 5 standard errors are at most 5 /
    # sqrt(count).
    np.testing.assert_allclose(np.cos(np.outer(t, w)).mean(axis=1), np.exp(-(t**alpha)), atol=5 / np.sqrt(COUNT))


def test_sparse_density():
    assert (drawn("sparse(0.1)") != 0).mean() == pytest.approx(0.1, abs=5 * np.sqrt(0.1 * 0.9 / COUNT))
    assert (drawn("sparse(1)") != 0).mean() == 1


@pytest.mark.parametrize("widths", [[40, 40], [60, 25], [25, 60], [7, 1], [1, 7]])
def test_orthogonal_is_semi_orthogonal_and_uniform(widths):
    chain = pk.Chain(widths=widths, init="orthogonal", gain=1.5)
    w = pk.weights(chain, layer=1) / 1.5
    small = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(small, np.eye(min(widths)), atol=1e-13)
    # Haar: an entry has mean 0 and variance 1/max(n). Without the sign fix of QR the diagonal's mean is far from 0.
    corner = np.array([pk.weights(chain, layer=1, replica=r)[0, 0] / 1.5 for r in range(400)])
    assert abs(corner.mean()) < 5 * np.sqrt(1 / max(widths) / 400)
    assert np.mean(corner**2) == pytest.approx(1 / max(widths), rel=5 * np.sqrt(2 / 400))


def test_identity_constant_and_gain():
    np.testing.assert_array_equal(
        pk.weights(pk.Chain(widths=[3, 2], init=pk.Identity(1.5)), layer=1), 1.5 * np.eye(2, 3)
    )
    np.testing.assert_array_equal(
        pk.weights(pk.Chain(widths=[3, 2], init=pk.Constant(0.5)), layer=1), np.full((2, 3), 0.5)
    )
    np.testing.assert_allclose(drawn("he_uniform", gain=3.0), 3 * drawn("he_uniform"), rtol=1e-15)


def test_fixup_scales_and_zeroes_branches():
    """Zhang, Dauphin, Ma 2019: m = 3, 4 branches: factor 4^(-1/4), last layer of each branch 0."""
    chain = pk.Chain(depth=12, width=200, init="fixup", residual=pk.Residual(every=3))
    stds = [pk.weights(chain, layer=layer).std() for layer in range(1, 13)]
    assert stds[2::3] == [0] * 4
    expected = 4**-0.25 * np.sqrt(2 / 200)
    np.testing.assert_allclose([s for i, s in enumerate(stds) if i % 3 != 2], expected, rtol=5 / np.sqrt(2 * 200**2))


def test_schemes_compare_hash_and_pickle():
    for name, scheme in inits.SCHEMES.items():
        assert pickle.loads(pickle.dumps(scheme)) == scheme
        assert isinstance(hash(scheme), int)
        assert inits.get(name) is scheme
    assert inits.get("kaiming_uniform") == inits.get("he_uniform")
    assert pk.Normal(0.1) != pk.Normal(0.2)


def test_torch_default_bias_is_uniform():
    """torch.nn.Linear: bias uniform on +-1/sqrt(fan_in); a tanh chain of zero input shows it as its first
    preactivation."""
    chain = pk.Chain(widths=[100, 5000], activation="linear", init="torch_linear_default")
    p = pk.propagate(chain, x=np.zeros((100, 1)), engine="dense", backend="reference", keep=("preactivation",))
    b = p.kept[0]["preactivation"][1][:, 0]
    assert scipy.stats.kstest(b * 10, scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-3


def test_a_users_sampler_is_asked_by_address():
    def signs(rows, columns, seed):
        return np.where(np.random.default_rng(seed).random((rows, columns)) < 0.5, -1.0, 1.0)

    init = pk.Init(sampler=signs, scale=lambda fan_in, fan_out: fan_in**-0.5, name="signs")
    chain = pk.Chain(widths=[6, 5, 4], activation="tanh", init=init, gain=2.0)
    np.testing.assert_allclose(np.abs(pk.weights(chain, layer=2)), 2 / np.sqrt(5))
    three = pk.propagate(chain, replicas=3, backend="reference")
    assert len(np.unique(three.log10_grad_weight[:, 0])) == 3
    given = [pk.weights(chain, layer=layer, replica=2) for layer in (1, 2)]
    again = pk.propagate(chain, replicas=3, weights=given, backend="reference")
    np.testing.assert_array_equal(again.log10_grad_weight[2], three.log10_grad_weight[2])
    with pytest.raises(ValueError, match=r"sampler's answer for layer 1 must have shape \(5, 6\)"):
        pk.propagate(chain.replace(init=pk.Init(sampler=lambda rows, columns, seed: np.ones((columns, rows)))))
