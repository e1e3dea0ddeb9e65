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
