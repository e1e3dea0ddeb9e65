# SPDX-License-Identifier: BSD-3-Clause
"""Lists of weights as chains, and schemes found in weights. Modules of PyTorch and arrays of JAX:
tests/integration/."""

import itertools

import numpy as np
import pytest

import pykernel as pk
from pykernel import inits, stream
from pykernel.bridges import recognise

SEED = 7


def drawn(widths, init, seed=SEED):
    """The weights of a chain of these widths under a scheme."""
    scheme = inits.get(init)
    return [
        scheme.scale(n, m) * stream.matrix(seed, layer, 0, m, n, scheme.distribution).astype(float)
        for layer, (n, m) in enumerate(itertools.pairwise(widths), 1)
    ]


@pytest.mark.parametrize("biased", [False, True])
def test_own_weights_and_a_linear_head_give_the_gradients_of_plain_arithmetic(biased):
    rng = np.random.default_rng(0)
    weights = drawn([6, 7, 5, 3], "he_normal")
    biases = [rng.normal(size=len(w)) if biased else None for w in weights]
    chain = pk.from_jax([(w.T, b) for w, b in zip(weights, biases, strict=True)], activation="tanh")
    x, c = rng.normal(size=(4, 6)), rng.normal(size=(4, 3))
    u, z = [x], []
    for w, b in zip(weights, biases, strict=True):
        z.append(u[-1] @ w.T + (0 if b is None else b))
        u.append(np.tanh(z[-1]))
    delta, norms = c, []
    for i in (1, 0):
        delta = delta @ weights[i + 1] / np.cosh(z[i]) ** 2
        norms.insert(0, np.linalg.norm(delta.T @ u[i]))
    for backend in ("reference", "cpp", "numba"):
        p = pk.propagate(chain, x=x, cotangent=c, batch_first=True, dtype="float64", backend=backend)
        np.testing.assert_allclose(10 ** p.log10_grad_weight[0], norms, rtol=1e-12)  # float64, three layers
        assert p.loss[0] == pytest.approx((c * z[-1]).sum(), rel=1e-12)
    assert pk.propagate(chain, x=x.T).backend == "cpp"  # nothing waits for Numba
    assert pk.weights(chain, layer=1) == pytest.approx(weights[0])
    assert pk.weights(chain, layer=3) == pytest.approx(weights[2])
    # a gain multiplies weights of one's own too
    grads = [
        pk.gradients(chain.replace(gain=g, activation="linear", head=None), x=x.T, cotangent=np.ones((5, 4)))[0]
        for g in (1.0, 2.0)
    ]
    if not biased:
        np.testing.assert_allclose(grads[1], 2 * grads[0], rtol=1e-12)


@pytest.mark.parametrize("call", [pk.propagate, pk.gradients])
def test_a_batch_with_its_inputs_in_rows(call):
    """batch_first is the transpose, also where the batch is as large as a layer and nothing else could tell."""
    chain = pk.Chain(widths=[6, 7, 5], activation="tanh")
    rng = np.random.default_rng(0)
    for batch in (1, 4, 5, 6):
        x, c = rng.normal(size=(batch, 6)), rng.normal(size=(batch, 5))
        rows, columns = call(chain, x=x, cotangent=c, batch_first=True), call(chain, x=x.T, cotangent=c.T)
        if call is pk.propagate:
            rows, columns = rows.log10_grad_weight, columns.log10_grad_weight
        for one, other in zip(rows, columns, strict=True):
            np.testing.assert_array_equal(one, other)
    x, c = rng.normal(size=(4, 6)), rng.normal(size=(4, 5))
    for wrong, message in [
        (
            dict(x=x),
            r"x must have shape \(units, batch\) with 6 units, got \(4, 6\): "
            r"transposed\? Give it with batch_first=True",
        ),
        (dict(x=x.T, cotangent=c), r"cotangent must have shape \(units, batch\) with 5 units"),
        (
            dict(x=x.T, batch_first=True),
            r"x must have shape \(batch, units\) with 6 units, got \(6, 4\).*without batch_first",
        ),
        (dict(x=x[:, :3]), "x must have shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            call(chain, **wrong)
    with pytest.raises(TypeError, match="batch_first must be True or False"):
        call(chain, x=x, batch_first=1)


def test_a_linear_head_is_the_same_in_every_backend():
    chain = pk.Chain(depth=4, width=20, activation="tanh", head=pk.Head("linear", 3), init="lecun_normal")
    runs = [
        pk.propagate(chain, batch=5, replicas=3, backend=b, dtype="float64", engine="dense")
        for b in ("reference", "cpp", "numba")
    ]
    for p in runs[1:]:
        np.testing.assert_allclose(p.log10_grad_weight, runs[0].log10_grad_weight, atol=1e-12)
        np.testing.assert_allclose(p.loss, runs[0].loss, rtol=1e-9)
    # The mean-field value of the last gradient: E |W^T c / B|^2 = outputs / B for weights of variance 1/n.
    wide = pk.Chain(depth=2, width=400, activation="linear", init="lecun_normal", head=pk.Head("linear", 50))
    measured = np.mean(10 ** (2 * pk.propagate(wide, batch=4, replicas=50).log10_grad_activation[:, -1]))
    # 5 sigma of a sum of 50 x 50 x 4 squares
    assert measured == pytest.approx(50 / 4, rel=5 * np.sqrt(2 / (50 * 50 * 4)))
    assert 10 ** (2 * pk.predict(wide, batch=4).log10_grad_activation[-1]) == pytest.approx(50 / 4)


@pytest.mark.parametrize(
    "name", ["he_normal", "he_uniform", "glorot_normal", "glorot_uniform", "lecun_truncated_normal", "lecun_uniform"]
)
@pytest.mark.parametrize("widths", [(64, 128, 32, 96), (32,) * 4])
def test_schemes_are_recognised(name, widths):
    weights = drawn(widths, name)
    found, gain, bias_std = recognise.scheme(weights, [None] * len(weights))
    # Square matrices cannot tell glorot from lecun.
    assert found.name == (name.replace("glorot", "lecun") if len(set(widths)) == 1 else name)
    assert (gain, bias_std) == (1.0, 0.0)


def test_truncated_draws_of_any_variance_are_recognised():
    """The largest weight is at two standard deviations of the law; the sample's variance strays by two percent."""
    for seed in range(60):
        weights = drawn((32,) * 4, "lecun_truncated_normal", seed)
        assert recognise.scheme(weights, [None] * 3)[0].name == "lecun_truncated_normal"


def test_other_schemes_are_recognised():
    widths = (64, 128, 32, 96)
    pairs = list(itertools.pairwise(widths))
    normal = [stream.matrix(SEED, i, 0, m, n).astype(float) for i, (n, m) in enumerate(pairs)]
    assert recognise.scheme([0.02 * w for w in normal], None)[0] == pk.Normal(0.02)
    assert recognise.scheme([np.sqrt(2 / len(w)) * w for w in normal], None)[0] == pk.VarianceScaling(
        2.0, "fan_out", "normal"
    )
    assert recognise.scheme([np.eye(m, n) * 1.5 for n, m in pairs], None)[0] == pk.Identity(1.5)
    chain = pk.Chain(widths=widths, init="orthogonal", gain=1.25)
    found = recognise.scheme([pk.weights(chain, layer=i) for i in (1, 2, 3)], None)
    assert (found[0], found[1]) == (pk.Orthogonal(), 1.25)
    chain = pk.Chain(widths=widths, init="torch_linear_default")
    weights, biases = zip(*((w.T, b) for w, b in pk.init_jax(chain)), strict=True)
    assert recognise.scheme(weights, biases)[0].name == "torch_linear_default"
    mixed = recognise.scheme([np.sqrt(2 / w.shape[1]) * w for w in normal], biases)[0]
    assert (mixed.distribution, mixed.bias_distribution, mixed.scale(8, 1)) == ("normal", "uniform", 0.5)
    assert recognise.scheme(normal, [0.05 * stream.tall(SEED, stream.BIAS, 1, 0, len(w))[:, 0] for w in normal])[
        2
    ] == pytest.approx(0.05, rel=0.3)


def test_bad_arguments():
    for bad in (None, 3, "net"):
        with pytest.raises(TypeError, match="must be a torch"):
            pk.from_torch(bad)
    with pytest.raises(TypeError, match="weights must be True or False"):
        pk.from_torch(None, weights="yes")
    with pytest.raises(ValueError, match="either weights=True"):
        pk.from_torch(None, weights=True, init="he_normal")


def test_jax_lists_there_and_back():
    chain = pk.Chain(widths=[5, 8, 6], activation="gelu", init="torch_linear_default", head=pk.Head("softmax", 4))
    pairs = pk.init_jax(chain, seed=3, replica=2)
    assert [w.dtype.name for w, _ in pairs] == ["float32"] * 3
    for l, (w, _) in enumerate(pairs, 1):
        assert np.array_equal(w.T, pk.weights(chain, layer=l, seed=3, replica=2, dtype="float32"))
    x = np.ones((5, 2))
    tied = pk.from_jax(pairs, activation="gelu", loss="softmax")
    tied = tied.replace(head=pk.Head("softmax", 4, tied.head.init, (0, 3)))
    drawn = chain.replace(head=pk.Head("softmax", 4, targets=(0, 3)))
    expected = [pk.propagate(drawn, x=x, replicas=3, seed=3, dtype="float64", engine="dense").log10_grad_weight[2]]
    # float32 weights: their rounding moves a norm by 1e-7 of it
    np.testing.assert_allclose(pk.propagate(tied, x=x, dtype="float64").log10_grad_weight, expected, atol=1e-6)
    flax = {"params": {f"Dense_{i}": {"kernel": w, "bias": b} for i, (w, b) in enumerate(pairs)}}
    assert pk.from_jax(flax, activation="gelu").init == tied.init
    sorted_by_name = {name: np.full((3, 3), 1.0 + i) for i, name in enumerate(["Dense_1", "Dense_10", "Dense_2"])}
    order = [w[0, 0] for w in pk.from_jax(sorted_by_name, loss=None).init.weights]
    assert order == [1, 3, 2]  # as numbers, whatever order a pytree brought them into
    named = {"one": np.ones((3, 3)), "and_2": 2 * np.ones((3, 3))}
    assert [w[0, 0] for w in pk.from_jax(named, loss=None).init.weights] == [1, 2]
    assert pk.from_jax([w for w, _ in pairs], loss=None).depth == 3
    for bad, message in (
        ([], "list of"),
        ([(np.ones(3), None)], "n_in, n_out"),
        ([np.ones((2, 3)), np.ones((4, 4))], "layer 2 takes 4"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            pk.from_jax(bad)


def test_given_weights_compare_by_their_numbers():
    a, b = (pk.Given([np.eye(3), np.ones((2, 3))]) for _ in range(2))
    assert a == b and hash(a) == hash(b) and a != pk.Given([np.eye(3), np.zeros((2, 3))]) and a != pk.Given([np.eye(3)])
    assert "1 weights" in repr(pk.Given([np.ones((500, 500))]))
    with pytest.raises(ValueError, match=r"shape \(3, 4\)"):
        pk.propagate(pk.Chain(widths=[4, 3, 2], init=a))
    for weights, message in (
        ([np.ones((3, 3)), np.ones((2, 3))], "must be one weight"),
        ([np.ones((3, 2))], r"shape \(2, 3\), got \(3, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            pk.propagate(pk.Chain(depth=1, width=3, head=pk.Head("mse", 2, pk.Given(weights))))
    for weights, error in (
        ("ab", TypeError),
        ([], TypeError),
        ([np.ones(3)], ValueError),
        ([np.full((2, 2), np.nan)], ValueError),
    ):
        with pytest.raises(error, match="weights"):
            pk.Given(weights)
