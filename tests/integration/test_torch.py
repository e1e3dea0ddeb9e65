# SPDX-License-Identifier: BSD-3-Clause
"""PyTorch's own modules as chains: against its automatic differentiation, every activation, norm, order and sum that is
read."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import pykernel as pk
from pykernel import inits

ACTIVATIONS = {
    **{
        kind: getattr(nn, kind)()
        for kind in ("ReLU", "Sigmoid", "Tanh", "SELU", "SiLU", "Mish", "Softsign", "Softplus", "Hardtanh", "GELU")
    },
    "LeakyReLU": nn.LeakyReLU(0.2),
    "PReLU": nn.PReLU(init=0.3),
    "ELU": nn.ELU(1.7),
    "CELU": nn.CELU(),
    "GELU, tanh": nn.GELU(approximate="tanh"),
}
FUNCTIONS = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "erf": torch.erf,
    "atan": torch.atan,
    "sin": torch.sin,
    "selu": nn.functional.selu,
    "silu": nn.functional.silu,
    "mish": nn.functional.mish,
    "softsign": nn.functional.softsign,
    "softplus": nn.functional.softplus,
    "hardtanh": nn.functional.hardtanh,
    "gelu": lambda x: nn.functional.gelu(x, approximate="tanh"),
    "elu": lambda x: nn.functional.elu(x, 1.7),
    "leaky_relu": lambda x: nn.functional.leaky_relu(x, 0.2),
    "dropout at test time": lambda x: nn.functional.dropout(torch.relu(x), 0.5, False),
}
NORMS = {"none": lambda n: nn.Identity(), "batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "rms": nn.RMSNorm}


def linears(module):
    return [part for part in module.modules() if isinstance(part, nn.Linear)]


def assert_the_gradients_of_autograd(module, inputs, batch, outputs=None, tolerance=1e-11):
    """Of every Linear's weight and bias, and of the input, in float64: a chain of few layers, sums of tens of terms."""
    module = module.double()
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(batch, inputs, dtype=torch.float64, generator=generator, requires_grad=True)
    y = module(x)
    c = torch.randn(y.shape, dtype=torch.float64, generator=generator)
    (y * c).sum().backward()
    chain = pk.from_torch(module, weights=True)
    p = pk.propagate(chain, x=x, cotangent=c, batch_first=True, dtype="float64")
    layers = linears(module)[: chain.depth]
    expected = [part.weight.grad.norm().item() for part in layers]
    np.testing.assert_allclose(10 ** p.log10_grad_weight[0], expected, rtol=tolerance)
    if layers[0].bias is not None and chain.norm != "batch":  # behind batch norm both are rounding
        np.testing.assert_allclose(
            10 ** p.log10_grad_bias[0], [part.bias.grad.norm().item() for part in layers], rtol=tolerance
        )
    np.testing.assert_allclose(10 ** p.log10_grad_activation[0, 0], x.grad.norm().item(), rtol=tolerance)
    return chain


def stack(widths, between, last=True, bias=True):
    """Linear layers with what `between(units)` makes behind each (behind the last where `last`)."""
    parts = []
    for i, (n, m) in enumerate(itertools.pairwise(widths), 2):
        parts.append(nn.Linear(n, m, bias=bias))
        parts += between(m) if last or i < len(widths) else []
    return nn.Sequential(*parts)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("last", [True, False], ids=["activation last", "read out"])
def test_every_activation_module(name, last):
    torch.manual_seed(1)
    module = stack([9, 17, 8, 12, 5], lambda n: [ACTIVATIONS[name]], last)
    chain = assert_the_gradients_of_autograd(module, 9, 4)
    assert (chain.head is None) == last


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_in_a_forward_of_ones_own(name):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(9, 17), nn.Linear(17, 8)

        def forward(self, x):
            return FUNCTIONS[name](self.second(FUNCTIONS[name](self.first(x))))

    torch.manual_seed(1)
    assert_the_gradients_of_autograd(Net(), 9, 4)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bias", [True, False])
def test_every_norm_in_both_orders(norm, bias):
    torch.manual_seed(1)
    after = stack([9, 17, 8, 3], lambda n: [NORMS[norm](n), nn.Tanh()], False, bias)
    assert_the_gradients_of_autograd(after, 9, 5)
    before = [part for _ in range(3) for part in (NORMS[norm](9), nn.ReLU(), nn.Linear(9, 9, bias=bias))]
    chain = assert_the_gradients_of_autograd(nn.Sequential(nn.Sequential(*before[:3]), *before[3:]), 9, 5)
    assert chain.order == "norm-activation-linear"


class Block(nn.Module):
    def __init__(self, width, branch, scale, in_place):
        super().__init__()
        self.body = nn.Sequential(
            *(part for _ in range(branch) for part in (nn.RMSNorm(width), nn.GELU(), nn.Linear(width, width)))
        )
        self.scale, self.in_place = scale, in_place

    def forward(self, x):
        if self.in_place:
            return x.add(self.body(x), alpha=self.scale)
        return x - -self.scale * self.body(x)


@pytest.mark.parametrize(
    ("branch", "scale", "in_place"), [(1, 1.0, True), (1, -0.3, False), (2, 0.5, True), (3, 0.7, False)]
)
def test_sums_at_equal_distances(branch, scale, in_place):
    torch.manual_seed(0)
    module = nn.Sequential(*(Block(9, branch, scale, in_place) for _ in range(2)), nn.Linear(9, 3))
    chain = assert_the_gradients_of_autograd(module, 9, 5)
    assert (chain.residual.every, chain.residual.scale, chain.norm_eps) == (branch, scale, 2.0**-52)


def test_a_batch_as_wide_as_the_input_is_read_by_rows():
    torch.manual_seed(0)
    assert_the_gradients_of_autograd(stack([8, 8, 8], lambda n: [nn.Tanh()]), 8, 8)


def test_the_first_answer_needs_no_compiler(tmp_path):
    """In a process whose cache of compiled functions is empty: nothing of Numba is imported."""
    program = (
        "import sys, torch, pykernel as pk; from torch import nn; torch.manual_seed(0);"
        "net = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10));"
        "p = pk.propagate(pk.from_torch(net, weights=True), x=torch.randn(32, 64), batch_first=True);"
        "assert 'numba' not in sys.modules; print(p.backend)"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    assert (
        subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        ).stdout
        == "cpp\n"
    )


@pytest.mark.parametrize("loss", ["mse", "sigmoid", "softmax"])
def test_losses_have_the_gradients_of_autograd(loss):
    torch.manual_seed(0)
    module = stack([9, 17, 4], lambda n: [nn.Tanh()], False).double()
    x = torch.randn(5, 9, dtype=torch.float64)
    classes = torch.tensor([0, 3, 1, 1, 2])
    hot = nn.functional.one_hot(classes, 4).double()
    y = module(x)
    value = {
        "mse": lambda: 0.5 * (y - hot).square().sum(1).mean(),
        "sigmoid": lambda: nn.functional.binary_cross_entropy_with_logits(y, hot, reduction="none").sum(1).mean(),
        "softmax": lambda: nn.functional.cross_entropy(y, classes),
    }[loss]()
    value.backward()
    chain = pk.from_torch(module, weights=True, loss=loss)
    chain = chain.replace(head=pk.Head(loss, 4, chain.head.init, targets=hot.T.numpy()))
    p = pk.propagate(chain, x=x, batch_first=True, dtype="float64")
    assert p.loss[0] == pytest.approx(value.item(), rel=1e-12)
    np.testing.assert_allclose(10 ** p.log10_grad_weight[0], [module[0].weight.grad.norm().item()], rtol=1e-11)


def filled(module, init):
    """The module with weights drawn under a scheme, and its chain."""
    return pk.init_torch_(module, init, seed=7)


def test_a_scheme_is_found_and_goes_to_the_head():
    module = stack([40, 50, 60, 5], lambda n: [nn.LayerNorm(n), nn.LeakyReLU(0.2)], False)
    filled(module, "he_normal")
    for part in linears(module):
        part.bias = None
    chain = pk.from_torch(module)
    assert (tuple(chain.layer_widths), chain.activation, chain.norm) == ((40, 50, 60), pk.leaky_relu(0.2), "layer")
    assert (chain.init, chain.head.loss, chain.head.outputs, chain.head.init) == (
        inits.get("he_normal"), "linear", 5, inits.get("he_normal"),
    )  # fmt: skip
    assert pk.from_torch(stack([64] * 4, lambda n: [nn.Tanh()])).init.name == "torch_linear_default"


def trained():
    module = stack([64] * 4, lambda n: [nn.Tanh()], bias=False)
    filled(module, "he_normal")
    with torch.no_grad():
        module[2].weight *= 1.5
    return module


def small(*parts):
    return lambda: nn.Sequential(*(part() if isinstance(part, type) else part for part in parts))


def with_slopes():
    return nn.Sequential(nn.Linear(4, 4), nn.PReLU(4))


def evaluated():
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh()).eval()


L = lambda n=4, m=4: nn.Linear(n, m)
REFUSED = [
    (small(L(), nn.Softmax(1)), "layer 1 (Softmax) is not known"),
    (small(L(4, 5), nn.Tanh, L(), nn.Tanh), "layer 2 (Linear) takes 4 numbers, but layer 0 (Linear) gives 5"),
    (small(nn.Tanh), "no Linear layer"),
    (small(L(), nn.RMSNorm(4, 0.0), nn.Tanh), "has eps 0; a chain's norms have one from 1e-30"),
    (small(L(), nn.LayerNorm(3), nn.Tanh), "normalises over shape (3,)"),
    (trained, "layer 2 has "),
    (small(nn.Linear(4, 4, bias=False), nn.Tanh), "16 weights are too few to tell a scheme"),
    (with_slopes, "a slope of its own for every unit"),
    (evaluated, "is in eval mode and normalises by running statistics"),
    (small(nn.LazyLinear(6), nn.Tanh), "has no weight yet"),
    (small(nn.Linear(4, 4, device="meta"), nn.Tanh), "on the meta device"),
    (small(nn.Conv3d(1, 1, 3)), "is not known: a chain's convolutions are over one axis of positions or two"),
    (small(nn.TransformerEncoderLayer(4, 2, 4)), "drops attention weights, which a chain cannot"),
    (small(L(), nn.Dropout(1.0), nn.Tanh), "drops everything"),
]


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_what_is_no_chain_is_refused(make, message):
    with pytest.raises(ValueError) as caught:
        pk.from_torch(make())
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.register_forward_hook(lambda *a: a[2] * 2), "has a hook"),
        (nn.utils.parametrizations.weight_norm, "by a parametrization"),
    ],
)
def test_what_computes_something_else_than_it_says_is_refused(change, message):
    module = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
    change(module[0])
    with pytest.raises(ValueError, match=message):
        pk.from_torch(module, weights=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "scheme", ["he_normal", "glorot_uniform", "orthogonal", "torch_linear_default", "student_t(3)"]
)
def test_modules_take_the_bits_of_the_stream(scheme, dtype):
    module = stack([9, 17, 8, 3], lambda n: [nn.Tanh()], False).to(dtype)
    chain = pk.init_torch_(module, scheme, seed=5, replica=3, gain=1.5)
    for l, part in enumerate(linears(module), 1):
        expected = torch.from_numpy(pk.weights(chain, layer=l, seed=5, replica=3, dtype="float32")).to(dtype)
        assert torch.equal(part.weight, expected)
    assert module[0].bias.abs().max() > 0 or scheme != "torch_linear_default"


def test_a_recommendation_fills_the_module():
    module = stack([64] * 31, lambda n: [nn.Sigmoid()])
    found = pk.from_torch(module)
    assert pk.propagate(found, replicas=5).verdict == "vanishing"
    advice = pk.recommend(found)
    for wanted in (advice.best, advice.best.chain):
        chain = pk.init_torch_(module, wanted, seed=2)
        assert (chain.init, chain.gain, chain.bias_std) == (
            advice.best.chain.init,
            advice.best.chain.gain,
            advice.best.chain.bias_std,
        )
    measured = pk.propagate(pk.from_torch(module, weights=True), batch=4)
    assert measured.verdict == "stable"
    assert torch.equal(module[0].weight, torch.from_numpy(pk.weights(chain, layer=1, seed=2, dtype="float32")))
    changed = next(c for c in advice if c.chain.activation != chain.activation or c.chain.norm != chain.norm)
    before = module[0].weight.clone()
    for wrong, error, message in [
        (changed, ValueError, "weights alone cannot make up for it"),
        (pk.Chain(depth=3, width=64, activation="sigmoid"), ValueError, "the recommended chain has 3 layers"),
        (None, TypeError, "no healthy candidate"),
    ]:
        with pytest.raises(error, match=message):
            pk.init_torch_(module, wrong)
    with pytest.raises(ValueError, match="give it alone"):
        pk.init_torch_(module, advice.best, gain=2.0)
    assert torch.equal(before, module[0].weight)
