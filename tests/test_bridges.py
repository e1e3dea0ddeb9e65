# SPDX-License-Identifier: BSD-3-Clause
"""Networks of other libraries as chains: read from stand-ins everywhere, from PyTorch itself where it is installed."""

import importlib.util
import itertools

import numpy as np
import pytest

import pykernel as pk
from pykernel import inits, stream
from pykernel.bridges import recognise

SEED = 7
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")


class Linear:
    """As torch.nn.Linear looks to the reader; so the others."""

    def __init__(self, n, m, init="he_normal", layer=1, bias=None):
        scheme = inits.get(init)
        self.weight = scheme.scale(n, m) * stream.matrix(SEED, layer, 0, m, n, scheme.distribution).astype(float)
        self.bias = bias


class Tanh:
    pass


class ReLU:
    pass


class Softmax:
    pass


class LeakyReLU:
    negative_slope = 0.2


class Dropout:
    p, training = 0.5, True


class LayerNorm:
    eps = 1e-5

    def __init__(self, n):
        self.normalized_shape, self.weight, self.bias = (n,), np.ones(n), np.zeros(n)


class RMSNorm(LayerNorm):
    def __init__(self, n, eps=None):
        super().__init__(n)
        self.eps = eps


class Sequential:
    def __init__(self, *parts):
        self.parts = parts

    def children(self):
        return self.parts


def mlp(widths, act, init="he_normal", norm=None, last=False):
    parts = []
    for layer, (n, m) in enumerate(itertools.pairwise(widths), 1):
        parts.append(Linear(n, m, init, layer))
        if last or layer < len(widths) - 1:
            parts += [norm(m)] if norm else []
            parts.append(act())
    return parts


def test_a_sequence_of_layers_is_a_chain():
    parts = mlp([40, 50, 60, 5], LeakyReLU, norm=LayerNorm)
    chain = pk.from_torch(Sequential(Sequential(*parts[:4]), *parts[4:]))
    assert tuple(chain.layer_widths) == (40, 50, 60)
    assert (chain.activation, chain.norm, chain.init) == (pk.leaky_relu(0.2), "layer", inits.get("he_normal"))
    assert (chain.head.loss, chain.head.outputs, chain.head.init) == ("linear", 5, inits.get("he_normal"))
    assert pk.from_torch(Sequential(*mlp([30] * 4, Tanh, last=True))).head is None
    before = [part for _ in range(3) for part in (LayerNorm(30), ReLU(), Linear(30, 30))]
    assert pk.from_torch(Sequential(*before), init="orthogonal").order == "norm-activation-linear"


def test_own_weights_and_a_linear_head_give_the_gradients_of_plain_arithmetic():
    parts = mlp([6, 7, 5, 3], Tanh)
    rng = np.random.default_rng(0)
    for p in parts[::2]:
        p.bias = rng.normal(size=len(p.weight))
    chain = pk.from_torch(Sequential(*parts), weights=True)
    x, c = rng.normal(size=(6, 4)), rng.normal(size=(3, 4))
    u, z = [x], []
    for p in parts[::2]:
        z.append(p.weight @ u[-1] + p.bias[:, None])
        u.append(np.tanh(z[-1]))
    delta, norms = c, []
    for i in (1, 0):
        delta = parts[2 * i + 2].weight.T @ delta / np.cosh(z[i]) ** 2
        norms.insert(0, np.linalg.norm(delta @ u[i].T))
    for backend in ("reference", "cpp", "numba"):
        p = pk.propagate(chain, x=x, cotangent=c, dtype="float64", backend=backend)
        np.testing.assert_allclose(10 ** p.log10_grad_weight[0], norms, rtol=1e-12)  # float64, three layers
        assert p.loss[0] == pytest.approx((c * z[-1]).sum(), rel=1e-12)
    assert pk.propagate(chain, x=x).backend == "cpp"  # nothing waits for Numba
    assert pk.weights(chain, layer=1) == pytest.approx(parts[0].weight)
    assert pk.weights(chain, layer=3) == pytest.approx(parts[4].weight)
    # a gain multiplies weights of one's own too
    doubled = pk.gradients(chain.replace(gain=2.0, activation="linear", head=None), x=x, cotangent=np.ones((5, 4)))[0]
    single = pk.gradients(chain.replace(activation="linear", head=None), x=x, cotangent=np.ones((5, 4)))[0]
    np.testing.assert_allclose(doubled, 2 * single, rtol=1e-12)


def test_a_linear_head_is_the_same_in_every_backend():
    chain = pk.Chain(depth=4, width=20, activation="tanh", head=pk.Head("linear", 3), init="lecun_normal")
    runs = [pk.propagate(chain, batch=5, replicas=3, backend=b, dtype="float64", engine="dense") for b in ("reference", "cpp", "numba")]
    for p in runs[1:]:
        np.testing.assert_allclose(p.log10_grad_weight, runs[0].log10_grad_weight, atol=1e-12)
        np.testing.assert_allclose(p.loss, runs[0].loss, rtol=1e-9)
    # The mean-field value of the last gradient: E |W^T c / B|^2 = outputs / B for weights of variance 1/n.
    wide = pk.Chain(depth=2, width=400, activation="linear", init="lecun_normal", head=pk.Head("linear", 50))
    measured = np.mean(10 ** (2 * pk.propagate(wide, batch=4, replicas=50).log10_grad_activation[:, -1]))
    assert measured == pytest.approx(50 / 4, rel=5 * np.sqrt(2 / (50 * 50 * 4)))  # 5 sigma of a sum of 50 x 50 x 4 squares
    assert 10 ** (2 * pk.predict(wide, batch=4).log10_grad_activation[-1]) == pytest.approx(50 / 4)


@pytest.mark.parametrize("name", ["he_normal", "he_uniform", "glorot_normal", "glorot_uniform", "lecun_truncated_normal", "lecun_uniform"])
@pytest.mark.parametrize("widths", [(64, 128, 32, 96), (32,) * 4])
def test_schemes_are_recognised(name, widths):
    weights = [p.weight for p in mlp(widths, Tanh, name, last=True)[::2]]
    found, gain, bias_std = recognise.scheme(weights, [None] * len(weights))
    # Square matrices cannot tell glorot from lecun.
    assert found.name == (name.replace("glorot", "lecun") if len(set(widths)) == 1 else name)
    assert (gain, bias_std) == (1.0, 0.0)


def test_other_schemes_are_recognised():
    widths = (64, 128, 32, 96)
    pairs = list(itertools.pairwise(widths))
    normal = [stream.matrix(SEED, i, 0, m, n).astype(float) for i, (n, m) in enumerate(pairs)]
    assert recognise.scheme([0.02 * w for w in normal], None)[0] == pk.Normal(0.02)
    assert recognise.scheme([np.sqrt(2 / len(w)) * w for w in normal], None)[0] == pk.VarianceScaling(2.0, "fan_out", "normal")
    assert recognise.scheme([np.eye(m, n) * 1.5 for n, m in pairs], None)[0] == pk.Identity(1.5)
    chain = pk.Chain(widths=widths, init="orthogonal", gain=1.25)
    found = recognise.scheme([pk.weights(chain, layer=i) for i in (1, 2, 3)], None)
    assert (found[0], found[1]) == (pk.Orthogonal(), 1.25)
    chain = pk.Chain(widths=widths, init="torch_linear_default")
    weights, biases = zip(*((w.T, b) for w, b in pk.init_jax(chain)), strict=True)
    assert recognise.scheme(weights, biases)[0].name == "torch_linear_default"
    mixed = recognise.scheme([np.sqrt(2 / w.shape[1]) * w for w in normal], biases)[0]
    assert (mixed.distribution, mixed.bias_distribution, mixed.scale(8, 1)) == ("normal", "uniform", 0.5)
    assert recognise.scheme(normal, [0.05 * stream.tall(SEED, stream.BIAS, 1, 0, len(w))[:, 0] for w in normal])[2] == pytest.approx(
        0.05, rel=0.3
    )


def trained():
    parts = mlp([64] * 4, Tanh, last=True)
    parts[2].weight = parts[2].weight * 1.5
    return parts


REFUSED = [
    (lambda: [Linear(4, 4), Softmax()], "layer 1 (Softmax) is not known"),
    (lambda: [Linear(4, 5), Tanh(), Linear(4, 4), Tanh()], "layer 2 (Linear) takes 4 numbers, but layer 0 (Linear) gives 5"),
    (lambda: [Linear(4, 4), Tanh(), Linear(4, 4), ReLU()], "layer 0 (Linear) has tanh and that of layer 2 (Linear) has relu"),
    (lambda: [Linear(4, 4), Tanh(), LayerNorm(4), Linear(4, 4)], "layer 2 (LayerNorm) stands where a chain has none"),
    (lambda: [Tanh(), Linear(4, 4), Tanh()], "comes after the last Linear"),
    (lambda: [Tanh()], "no Linear layer"),
    (lambda: [Linear(4, 4), Dropout(), Tanh()], "call .eval() on it"),
    (lambda: [Linear(4, 4), RMSNorm(4, 0.0), Tanh()], "has eps 0; a chain's norms have one from 1e-30"),
    (lambda: [Linear(4, 4), RMSNorm(4, 0.1), Tanh(), Linear(4, 4), RMSNorm(4, 0.2), Tanh()], "has rms with eps 0.1 and that of layer 3"),
    (lambda: [Linear(4, 4), LayerNorm(3), Tanh()], "normalises over shape (3,)"),
    (lambda: [p := Linear(64, 64), Tanh(), p, Tanh()], "share one weight"),
    (trained, "layer 2 has "),
    (lambda: [Linear(4, 4), Tanh()], "16 weights are too few to tell a scheme"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_what_is_no_chain_is_refused(make, message):
    with pytest.raises(ValueError) as caught:
        pk.from_torch(Sequential(*make()))
    assert message in str(caught.value)


def test_bad_arguments():
    for bad in (None, 3, "net"):
        with pytest.raises(TypeError, match="must be a torch"):
            pk.from_torch(bad)
    with pytest.raises(ValueError, match="either weights=True"):
        pk.from_torch(Sequential(Linear(4, 4)), weights=True, init="he_normal")
    with pytest.raises(TypeError, match="weights must be True or False"):
        pk.from_torch(Sequential(Linear(4, 4)), weights="yes")


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
    assert pk.from_jax([w for w, _ in pairs], loss=None).depth == 3
    for bad, message in (([], "list of"), ([(np.ones(3), None)], "n_in, n_out"), ([np.ones((2, 3)), np.ones((4, 4))], "layer 2 takes 4")):
        with pytest.raises((ValueError, TypeError), match=message):
            pk.from_jax(bad)


def test_given_weights_compare_by_their_numbers():
    a, b = (pk.Given([np.eye(3), np.ones((2, 3))]) for _ in range(2))
    assert a == b and hash(a) == hash(b) and a != pk.Given([np.eye(3), np.zeros((2, 3))]) and a != pk.Given([np.eye(3)])
    assert "1 weights" in repr(pk.Given([np.ones((500, 500))]))
    with pytest.raises(ValueError, match=r"shape \(3, 4\)"):
        pk.propagate(pk.Chain(widths=[4, 3, 2], init=a))
    for weights, error in (("ab", TypeError), ([], TypeError), ([np.ones(3)], ValueError), ([np.full((2, 2), np.nan)], ValueError)):
        with pytest.raises(error, match="weights"):
            pk.Given(weights)


def test_norms_bring_their_eps():
    """None, RMSNorm's default, is the rounding of the dtype."""
    single = np.ones(40, np.float32)
    for eps, weight, expected in [(0.02, None, 0.02), (None, None, 2.0**-52), (None, single, 2.0**-23)]:
        parts = mlp([40, 40, 5], Tanh, norm=lambda n, eps=eps: RMSNorm(n, eps))
        parts[1].weight = parts[1].weight if weight is None else weight
        chain = pk.from_torch(Sequential(*parts))
        assert (chain.norm, chain.norm_eps) == ("rms", expected)


@needs_torch
def test_torch_modules_have_the_gradients_of_autograd():
    import torch
    from torch import nn

    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(9, 17), nn.BatchNorm1d(17), nn.ELU(1.7), nn.Linear(17, 8), nn.BatchNorm1d(8), nn.ELU(1.7), nn.Linear(8, 3)
    )
    module = module.double()
    x, c = torch.randn(5, 9, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    (module(x) * c).sum().backward()
    p = pk.propagate(pk.from_torch(module, weights=True), x=x.T.numpy(), cotangent=c.T.numpy(), dtype="float64")
    expected = [module[i].weight.grad.norm().item() for i in (0, 3)]
    np.testing.assert_allclose(10 ** p.log10_grad_weight[0], expected, rtol=1e-12)


@needs_torch
def test_blocks_before_a_read_out_and_a_branch_taken_off():
    """Pre-activation blocks x - 0.3 f(x) with RMSNorm's own eps, then the Linear that is read out."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.linear = nn.RMSNorm(9), nn.Linear(9, 9)

        def forward(self, x):
            return x - 0.3 * self.linear(nn.functional.gelu(self.norm(x)))

    torch.manual_seed(0)
    module = nn.Sequential(Block(), Block(), nn.Linear(9, 3)).double()
    x, c = torch.randn(5, 9, dtype=torch.float64, requires_grad=True), torch.randn(5, 3, dtype=torch.float64)
    (module(x) * c).sum().backward()
    chain = pk.from_torch(module, weights=True)
    assert (chain.residual.scale, chain.head.outputs, chain.norm_eps) == (-0.3, 3, 2.0**-52)
    p = pk.propagate(chain, x=x.detach().T.numpy(), cotangent=c.T.numpy(), dtype="float64")
    np.testing.assert_allclose(10 ** p.log10_grad_activation[0, 0], x.grad.norm().item(), rtol=1e-12)


@needs_torch
def test_what_computes_something_else_than_it_says_is_refused():
    from torch import nn

    for change, message in [
        (lambda m: m.register_forward_hook(lambda *a: a[2] * 2), "has a hook"),
        (nn.utils.parametrizations.weight_norm, "by a parametrization"),
    ]:
        module = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
        change(module[0])
        with pytest.raises(ValueError, match=message):
            pk.from_torch(module, weights=True)
    with pytest.raises(ValueError, match="has no weight yet"):
        pk.from_torch(nn.Sequential(nn.LazyLinear(6), nn.Tanh()))


@needs_torch
@pytest.mark.parametrize("scheme", ["he_normal", "glorot_uniform", "orthogonal", "torch_linear_default", "student_t(3)"])
def test_torch_modules_take_the_bits_of_the_stream(scheme):
    from torch import nn

    module = nn.Sequential(nn.Linear(9, 17), nn.Tanh(), nn.Linear(17, 8), nn.Tanh(), nn.Linear(8, 3))
    chain = pk.init_torch_(module, scheme, seed=5, replica=3, gain=1.5)
    for l, i in enumerate((0, 2, 4), 1):
        expected = pk.weights(chain, layer=l, seed=5, replica=3, dtype="float32")
        assert np.array_equal(module[i].weight.detach().numpy().view(np.uint32), expected.view(np.uint32))
    assert module[0].bias.abs().max() > 0 or scheme != "torch_linear_default"
