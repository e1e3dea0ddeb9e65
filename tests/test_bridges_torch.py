# SPDX-License-Identifier: BSD-3-Clause
"""Everyday PyTorch modules read into chains: the gradients of autograd, the pattern that is found, what is refused."""

import numpy as np
import pytest

import pykernel as pk

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch_modules import KINDS, Fused, Mlp, Siren, Sum, SwiGlu  # noqa: E402

from pykernel.bridges.torch_graph import read  # noqa: E402
from pykernel.layers import Block, Dropout, Gated, Linear, Norm, Scale  # noqa: E402

EXACT = 1e-9  # decades, float64: a few layers, sums of tens of terms


def gradients_of_autograd(module, x, c):
    """log10 norms by layer of the chain, as the sources of its network say."""
    module.zero_grad()
    (module(x) * c).sum().backward()
    rows = lambda source, parameter: parameter.grad[slice(*source.rows)].norm().item()
    network = read(module)
    weights = [rows(source, source.weight) for source in network.layers]
    biases = [0.0 if source.bias is None else rows(source, source.bias) for source in network.layers]
    return np.array(weights), np.array(biases), network


def assert_the_gradients_of_autograd(module, inputs, backend="reference", batch=5):
    module = module.double()
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(batch, inputs, dtype=torch.float64, generator=generator, requires_grad=True)
    c = torch.randn(module(x).shape, dtype=torch.float64, generator=generator)
    weights, biases, network = gradients_of_autograd(module, x, c)
    chain = pk.from_torch(module, weights=True)
    p = pk.propagate(chain, x=x, cotangent=c, batch_first=True, dtype="float64", backend=backend)
    np.testing.assert_allclose(p.log10_grad_weight[0], np.log10(weights), atol=EXACT)
    centred = biases < 1e-12 * weights  # behind a batch norm the gradient is rounding
    np.testing.assert_allclose(p.log10_grad_bias[0][~centred], np.log10(biases[~centred]), atol=EXACT)
    np.testing.assert_allclose(p.log10_grad_activation[0, 0], np.log10(x.grad.norm().item()), atol=EXACT)
    return chain


@pytest.mark.parametrize("kind", KINDS)
def test_everyday_modules_have_the_gradients_of_autograd(kind):
    torch.manual_seed(1)
    module = KINDS[kind]()
    assert_the_gradients_of_autograd(module, 5 if kind == "ModuleList" else 6)
