# SPDX-License-Identifier: BSD-3-Clause
"""Random chains of blocks against PyTorch's automatic differentiation of the same network, every weight and bias."""

import math

import numpy as np
import pytest
from random_chains import random_chain

import pykernel as pk
from pykernel.activation import Activation
from pykernel.layers import Gated, Linear, Norm, Scale
from pykernel.lower import lower

torch = pytest.importorskip("torch")

FUNCTIONS = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "linear": lambda x: x,
    "erf": torch.erf,
    "sin": torch.sin,
    "arctan": torch.atan,
    "selu": torch.nn.functional.selu,
    "silu": torch.nn.functional.silu,
    "mish": torch.nn.functional.mish,
    "softsign": torch.nn.functional.softsign,
    "softplus": torch.nn.functional.softplus,
    "hardtanh": torch.nn.functional.hardtanh,
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
}


class Twin:
    """A chain of blocks in PyTorch, read from its words alone; inputs in columns."""

    def __init__(self, chain, weights, biases):
        self.chain, self.weights, self.biases = chain, weights, biases

    def __call__(self, a):
        self.layer = 0
        blocks = (*self.chain.first, *self.chain.blocks * self.chain.depth, *self.chain.last)
        factor = lambda f: self.chain.branches**-0.5 if isinstance(f, str) else f
        for block in blocks:
            v = factor(block.scale) * self.steps(block.steps, a)
            if isinstance(block.skip, tuple):
                v = v + self.steps(block.skip, a)
            elif block.skip is not None:
                v = v + factor(block.skip) * a
            a = self.steps(block.after, v)
        return a

    def steps(self, steps, a):
        for step in steps:
            a = self.step(step, a)
        return a

    def linear(self, a):
        i, self.layer = self.layer, self.layer + 1
        return self.weights[i] @ a + self.biases[i][:, None]

    def step(self, step, a):
        if isinstance(step, Linear):
            return self.linear(a)
        if isinstance(step, Gated):
            gate = self.linear(a)
            return FUNCTIONS[step.activation.name](gate) * self.linear(a)
        if isinstance(step, Activation):
            return FUNCTIONS[step.name](a)
        if isinstance(step, Scale):
            return step.s * a
        assert isinstance(step, Norm)
        axis = 1 if step.kind == "batch" else 0
        centred = a if step.kind == "rms" else a - a.mean(axis, keepdim=True)
        return centred / torch.sqrt(centred.square().mean(axis, keepdim=True) + (self.chain.norm_eps if step.eps is None else step.eps))


def steps_of(chain):
    for block in (*chain.first, *chain.blocks, *chain.last):
        for row in (block.steps, block.after, block.skip if isinstance(block.skip, tuple) else ()):
            yield from row


def twinned(seeds):
    """Seeds of chains whose activation functions PyTorch has."""
    for seed in seeds:
        chain = random_chain(seed, dropout=False, head=False)
        rows = [getattr(step, "activation", step) for step in steps_of(chain) if isinstance(step, Gated | Activation)]
        if all(row.name in FUNCTIONS for row in rows):
            yield seed


SEEDS = list(twinned(range(60)))
BACKENDS = [(backend, seed) for backend, count in (("reference", 60), ("cpp", 60), ("numba", 4)) for seed in SEEDS[:count]]


def test_there_are_enough_of_them():
    assert len(SEEDS) >= 20
    kinds = {type(step).__name__ for seed in SEEDS for step in steps_of(random_chain(seed, dropout=False, head=False))}
    assert {"Linear", "Gated", "Norm", "Scale"} <= kinds


@pytest.mark.parametrize(("backend", "seed"), BACKENDS)
def test_random_chains_have_the_gradients_of_autograd(backend, seed):
    chain = random_chain(seed, dropout=False, head=False)
    layers = lower(chain).layers
    rng = np.random.default_rng(seed)
    tensor = lambda *shape: torch.tensor(rng.normal(size=shape), requires_grad=True)
    weights = [tensor(n, m) for n, m in zip(layers.units, layers.columns, strict=True)]
    biases = [tensor(n) for n in layers.units]
    with torch.no_grad():
        for w in weights:
            w /= math.sqrt(w.shape[1])
    nodes = chain.layer_widths
    x, c = tensor(nodes[0], 4), tensor(nodes[-1], 4)
    (Twin(chain, weights, biases)(x) * c).sum().backward()
    numbers = lambda tensors: [t.detach().numpy() for t in tensors]
    p = pk.propagate(
        chain, x=x, cotangent=c, weights=numbers(weights), biases=numbers(biases), dtype="float64", backend=backend, engine="dense"
    )
    largest = max(w.grad.norm().item() for w in weights)
    for measured, tensors in ((p.log10_grad_weight[0], weights), (p.log10_grad_bias[0], biases)):
        exact = np.array([t.grad.norm().item() for t in tensors])
        own = exact > 1e-10 * largest  # what a norm takes away is rounding
        np.testing.assert_allclose(measured[own], np.log10(exact[own]), atol=1e-9)  # decades
        assert (measured[~own] < np.log10(1e-9 * largest)).all()
    with np.errstate(divide="ignore"):  # a saturated hardtanh hands nothing back
        np.testing.assert_allclose(p.log10_grad_activation[0, 0], np.log10(x.grad.norm().item()), atol=1e-9)
