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
    expected = Twin(chain, seed=SEED, replica=REPLICA, batch=BATCH).gradients(x, end)
    given = {"cotangent": end} if chain.head is None or chain.head.loss == "linear" else {}
    p = pk.propagate(
        chain, x=x, batch_first=True, seed=SEED, replicas=REPLICA + 1, dtype="float64", engine="dense", backend=backend, **given
    )
    found = p.log10_grad_weight[REPLICA]
    # what is zero in exact arithmetic (all units dead, or a norm that sees nothing) is rounding in both
    told = expected > expected.max() - 12
    np.testing.assert_allclose(found[told], expected[told], atol=EXACT)
    assert (found[~told] < expected.max() - 11).all()


@pytest.mark.parametrize("backend", ["reference", "cpp"])
@pytest.mark.parametrize("seed", range(60))
def test_random_chains_have_the_gradients_of_autograd(seed, backend):
    check(random_chain(seed), seed, backend)


@pytest.mark.parametrize("seed", [3, 8, 21])
def test_random_chains_in_numba_have_the_gradients_of_autograd(seed):
    check(random_chain(seed), seed, "numba")
