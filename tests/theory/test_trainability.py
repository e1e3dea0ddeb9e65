# SPDX-License-Identifier: BSD-3-Clause
"""What advice says of the pace of training: it is so when networks are trained, and it is said where it is so."""

import numpy as np
import pytest

import pykernel as pk
from pykernel.theory import trainability as t

# depth in the ordered phase: inputs become one, and their gradients with them
ALIKE = pk.Chain(depth=20, width=128, activation="tanh", init="lecun_normal", bias_std=0.5)
APART = pk.Chain(depth=8, width=128)


def test_the_rate_bound_and_the_slowest_errors_are_those_of_descent():
    """At a quarter of the bound (of the sum; the mean over inputs lets pass as many times more) nothing diverges. Fast
    networks lose their loss within a few times the steps that are said, slow ones keep most of it: beyond the mean of
    their targets they learn nothing."""
    for chain, slow in ((ALIKE, True), (APART, False)):
        found = t.trainability(chain)
        trained = pk.train(
            chain.replace(head=pk.Head("mse", 1)),
            steps=40,
            rate=0.25 * t.INPUTS * found.rate_bound,
            batch=t.INPUTS,
            replicas=5,
        )
        left = np.median(trained.loss[:, -1] / trained.loss[:, 0])
        assert (trained.diverged < 0).all() and found.slow is slow
        assert left > 0.3 if slow else left < 0.05
    assert found.steps < 40


def test_it_is_the_condition_of_the_measured_kernel():
    p = pk.propagate(ALIKE, batch=t.INPUTS, replicas=t.NETWORKS, cotangent="common", backend="cpp")
    values = np.linalg.eigvalsh(p.tangent_kernel)
    found = t.trainability(ALIKE)
    assert found.condition == pytest.approx(np.median(values[:, -1] / values[:, 0]), rel=1e-6)
    assert found.rate_bound == pytest.approx(np.median(2 / values[:, -1]), rel=1e-6)


def test_advice_says_so_in_one_sentence():
    said = pk.recommend(ALIKE, replicas=6)
    assert (
        said.original.healthy and said.slowly == str(said.trainability) and said.slowly in " ".join(str(said).split())
    )
    assert f"{said.trainability.rate_bound:.3g}" in said.slowly and "condition number" in said.slowly
    fine = pk.recommend(APART, replicas=6)
    assert fine.slowly == "" and not fine.trainability.slow and "slowly" not in str(fine)


@pytest.mark.parametrize(
    "chain",
    [APART.replace(norm="batch"), APART.replace(tied=True), APART.replace(width=6000, depth=400, init="he_uniform")],
)
def test_what_is_not_measured_is_not_said(chain):
    """Inputs that see each other, shared weights (the reference alone), and what takes longer than it is worth."""
    assert t.trainability(chain) is None


def test_a_combination_that_is_not_learned_at_all_is_named():
    assert "some errors are not learned at all" in str(t.Trainability(0.1, np.inf, 8, 8))
