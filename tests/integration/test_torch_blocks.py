# SPDX-License-Identifier: BSD-3-Clause
"""Random chains of blocks against PyTorch's automatic differentiation, backend by backend."""

import numpy as np
import pytest
from random_chains import random_chain
from torch_twin import Twin

import pykernel as pk

BATCH = 4
EXACT = 1e-9  # decades in float64; sums of tens of terms, a few layers one after another
SEED, REPLICA = 11, 2


def arguments(chain, seed):
    """x (batch, n[0]) and what stands at the end: a cotangent, or targets in the head; the chain with these."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(BATCH, chain.width))
    head = chain.head
    if head is None or head.loss == "linear":
        return chain, x, rng.normal(size=(BATCH, chain.layer_widths[-1] if head is None else head.outputs))
    targets = {
        "mse": lambda: rng.normal(size=(BATCH, head.outputs)),
        "sigmoid": lambda: rng.uniform(size=(BATCH, head.outputs)),
        "softmax": lambda: rng.integers(head.outputs, size=BATCH),
    }[head.loss]()
    return chain.replace(head=pk.Head(head.loss, head.outputs, head.init, targets.T)), x, targets


def check(chain, seed, backend):
    chain, x, end = arguments(chain, seed)
    twin = Twin(chain, seed=SEED, replica=REPLICA, batch=BATCH)
    inputs, weights, biases = twin.gradients(x, end)
    given = {"cotangent": end} if chain.head is None or chain.head.loss == "linear" else {}
    p = pk.propagate(
        chain,
        x=x,
        batch_first=True,
        seed=SEED,
        replicas=REPLICA + 1,
        dtype="float64",
        engine="dense",
        backend=backend,
        **given,
    )
    assert_told(p.log10_grad_weight[REPLICA], weights, weights.max())
    # the program has a bias where a layer drew none, too, with a gradient of its own
    has = np.array([part.bias is not None for part in twin.linears])
    assert_told(p.log10_grad_bias[REPLICA][has], biases[has], weights.max())
    assert_told(p.log10_grad_activation[REPLICA, :1], inputs[None], weights.max())


def assert_told(found, expected, largest):
    """Equal but where exact arithmetic has a zero (dead units, what a norm takes away): there both are rounding."""
    told = expected > largest - 12
    np.testing.assert_allclose(found[told], expected[told], atol=EXACT)
    assert (found[~told] <= largest - 11).all()  # all are zero in a network that is dead


@pytest.mark.parametrize("backend", ["reference", "cpp"])
@pytest.mark.parametrize("seed", range(60))
def test_random_chains_have_the_gradients_of_autograd(seed, backend):
    check(random_chain(seed), seed, backend)


@pytest.mark.parametrize("seed", [3, 8, 21])
def test_random_chains_in_numba_have_the_gradients_of_autograd(seed):
    check(random_chain(seed), seed, "numba")


def test_random_chains_have_every_step():
    parts = [
        block
        for seed in range(60)
        for chain in [random_chain(seed)]
        for block in (*chain.first, *chain.blocks, *chain.last)
    ]
    assert {type(step).__name__ for block in parts for step in block.steps} >= {
        "Linear",
        "Gated",
        "Norm",
        "Scale",
        "Dropout",
    }
    assert {type(block.skip) for block in parts} == {type(None), float, str, tuple}


@pytest.mark.parametrize("seed", range(60))
def test_the_module_of_a_random_chain_is_read(seed):
    """From its module alone: other blocks, where a sum says less than words, and the same gradients."""
    chain = random_chain(seed, dropout=False)
    twin = Twin(chain, seed=SEED)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(BATCH, chain.width))
    c = rng.normal(size=(BATCH, chain.layer_widths[-1] if chain.head is None else chain.head.outputs))
    inputs, weights, _ = twin.gradients(x, c, "linear")
    read = pk.from_torch(twin.module, weights=True)
    p = pk.propagate(read, x=x, cotangent=c, batch_first=True, dtype="float64")
    read_out = 1 if read.head is not None and chain.head is None else 0  # a last Linear is a head
    assert_told(p.log10_grad_weight[0], weights[: len(weights) - read_out], weights.max())
    assert_told(p.log10_grad_activation[0, :1], inputs[None], weights.max())
