# SPDX-License-Identifier: BSD-3-Clause
"""PyTorch modules in bfloat16 and float16 against runs with formats of the same weights: signals and gradients, node by
node."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import pykernel as pk
from pykernel.formats import FORMATS, rounded

WIDTH, BATCH, DEPTH = 64, 16, 6
TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
# Functions whose slope PyTorch takes, as we do, from the stored preimage; of tanh it is 1 - y^2 of the rounded y.
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


def module_of(activation):
    torch.manual_seed(5)
    parts = []
    for _ in range(DEPTH):
        layer = nn.Linear(WIDTH, WIDTH, bias=False)
        nn.init.kaiming_normal_(layer.weight)
        parts += [layer, ACTIVATIONS[activation]()]
    return nn.Sequential(*parts)


def low_precision_run(module, kind, x, c):
    """Every stored signal of a module in its own number format, input first, and the gradient of each, float64."""
    low = copy.deepcopy(module).to(kind)
    signals = [x.to(kind).requires_grad_()]
    for part in low:
        signals.append(part(signals[-1]))
        signals[-1].retain_grad()
    signals[-1].backward(c.to(kind))
    numbers = lambda tensors: [t.detach().double().numpy() for t in tensors]
    return low, numbers(signals), numbers(s.grad for s in signals)


def given():
    generator = torch.Generator().manual_seed(9)
    return [torch.randn(BATCH, WIDTH, generator=generator) for _ in range(2)]


def assert_rounded_sum(stored, left, right, name):
    """The product, rounded: PyTorch's sum of WIDTH products in float32 is off by at most WIDTH units of 2^-24 of the
    sum of magnitudes, so it lies between what the two ends round to."""
    exact, slack = left @ right, WIDTH * 2.0**-24 * (np.abs(left) @ np.abs(right))
    low, high = (rounded(exact + sign * slack, FORMATS[name]) for sign in (-1, 1))
    assert ((low <= stored) & (stored <= high)).all()
    # one of equality nearly everywhere; units of float16 are only 2^13 of those 2^-24, shared by WIDTH terms
    assert (low == high).mean() > (0.75 if name == "float16" else 0.95)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", TYPES)
def test_modules_round_where_we_do(name, activation):
    """Each product of a module, forward and backward, from its own stored numbers: rounded once, of the sum."""
    low, signals, gradients = low_precision_run(module_of(activation), TYPES[name], *given())
    for l in range(DEPTH):
        w = low[2 * l].weight.detach().double().numpy()
        assert_rounded_sum(signals[2 * l + 1], signals[2 * l], w.T, name)
        assert_rounded_sum(gradients[2 * l], gradients[2 * l + 1], w, name)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", TYPES)
def test_a_run_with_formats_is_the_module_in_that_format(name, activation):
    """Norms of stored signals and gradients at every node. Sums in another order meet another side of a midpoint once
    in some hundred numbers, and what follows parts by single units: a tenth of what rounding itself moves."""
    module, (x, c) = module_of(activation), given()
    _, signals, gradients = low_precision_run(module, TYPES[name], x, c)
    chain = pk.from_torch(module, weights=True)
    run = dict(x=x, cotangent=c, batch_first=True)
    p = pk.propagate(chain, formats=pk.Formats(name, name, name), **run)
    plain = pk.propagate(chain, **run)
    told = {
        "log10_mean_square_activation": [np.log10(np.square(s).mean()) for s in signals[2::2]],
        "log10_grad_activation": [np.log10(np.linalg.norm(g)) for g in gradients[::2]],
        "log10_grad_preactivation": [np.log10(np.linalg.norm(g)) for g in gradients[1::2]],
    }
    for row, wanted in told.items():
        apart, moved = (np.linalg.norm(q.rows[row][0] - wanted) for q in (p, plain))
        assert apart < 0.1 * moved, row


class SwiGLU(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.norm, self.out = nn.RMSNorm(n, eps=1e-5), nn.Linear(2 * n, n, bias=False)
        self.gate, self.value = (nn.Linear(n, 2 * n, bias=False) for _ in range(2))

    def forward(self, x):
        h = self.norm(x)
        return x + self.out(nn.functional.silu(self.gate(h)) * self.value(h))


class Attention(nn.Module):
    def __init__(self, n, heads):
        super().__init__()
        self.norm, self.qkv, self.out, self.heads = nn.LayerNorm(n), nn.Linear(n, 3 * n), nn.Linear(n, n), heads

    def forward(self, x):
        B, T, n = x.shape
        q, k, v = self.qkv(self.norm(x)).split(n, dim=2)
        q, k, v = (t.view(B, T, self.heads, n // self.heads).transpose(1, 2) for t in (q, k, v))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.out(y.transpose(1, 2).reshape(B, T, n))


def encoder(**words):
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, **words)
    return nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)


MODULES = {
    "norms": (
        lambda: nn.Sequential(*[m for _ in range(4) for m in (nn.Linear(32, 32), nn.LayerNorm(32), nn.Tanh())]),
        (),
    ),
    "gates": (lambda: nn.Sequential(*[SwiGLU(32) for _ in range(4)]), ()),
    "GPT": (lambda: nn.Sequential(*[m for _ in range(3) for m in (Attention(32, 4), SwiGLU(32))]), (9,)),
    "post-norm encoder": (lambda: encoder(activation="gelu"), (9,)),
    "pre-norm encoder": (lambda: encoder(norm_first=True), (9,)),
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(32, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.SiLU(), nn.AvgPool2d(2)
        ),
        (8, 8),
    ),
}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("which", MODULES)
def test_modules_of_all_kinds_err_as_much_as_the_run_says(which, name):
    """The module beside itself in float64: the error of what comes out, and the norm of the input's gradient. Within
    steps PyTorch rounds more often (a mean, an exponential, a product of a gate), which is some percent of the error;
    the run's row is taken before the last rounding, whose noise is added here."""
    make, positions = MODULES[which]
    torch.manual_seed(0)
    low = make().to(TYPES[name])
    x = torch.randn(6, *((32, *positions) if len(positions) == 2 else (*positions, 32))).to(TYPES[name])
    results = []
    for module, kind in ((low, TYPES[name]), (copy.deepcopy(low).double(), torch.float64)):
        leaf = x.to(kind, copy=True).requires_grad_()
        out = module(leaf)
        c = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(TYPES[name])
        out.backward(c.to(kind))
        results.append([t.detach().double().numpy() for t in (out, leaf.grad)])
    (out, gradient), (truth, plain) = results
    norm = np.linalg.norm
    ours = lambda t: (t.transpose(1, 2) if len(positions) == 1 else t).double().numpy()
    p = pk.propagate(
        pk.from_torch(low, weights=True),
        x=ours(x),
        cotangent=ours(c),
        positions=positions,
        batch_first=True,
        formats=pk.Formats(name, name, name),
        engine="dense",
    )
    error = norm(out - truth) / norm(truth)
    told = np.hypot(10 ** p.log10_error_signal[0, -1], FORMATS[name].noise)
    assert np.log10(error) == pytest.approx(np.log10(told), abs=0.12)
    moved = abs(np.log10(norm(gradient) / norm(plain)))
    assert p.log10_grad_activation[0, 0] == pytest.approx(np.log10(norm(gradient)), abs=moved + error)
