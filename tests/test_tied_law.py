# SPDX-License-Identifier: BSD-3-Clause
"""Tied chains without weights have the law of drawn ones, jointly over uses; theory holds while depth is small beside
the root of the width."""

import numpy as np
import pytest
from test_matrix_free import smallest_p

import pykernel as pk
from pykernel import oracle, stream
from pykernel.engines import reference, reference_matrix_free
from pykernel.lower import lower

REPLICAS = 700
ROWS = ("log10_grad_weight", "log10_mean_square_activation", "log10_weight_factor", "log10_grad_weight_total")
TANH = pk.Chain(depth=4, width=8, activation="tanh", init="lecun_normal", gain=1.6, bias_std=0.2, tied=True)
CHAINS = {
    "recurrent": TANH,
    "relu": TANH.replace(activation="relu", init="he_normal", gain=1.0),
    "more columns than units": TANH.replace(width=5, depth=5),
    "orthogonal": TANH.replace(init="orthogonal"),
    "looped": pk.Chain(
        depth=3, width=6, blocks=[pk.Block(pk.Norm("rms"), pk.Linear(9), "gelu", pk.Linear(6), skip=1.0)], tied=True
    ),
}


class FreshEachTime(reference_matrix_free.Conditioned):
    """Blind: every use has a weight of its own."""

    def oracle(self, layer):
        layers = self.program.layers
        return self.oracles.setdefault(
            layer,
            oracle.Gaussian(
                int(layers.units[layer - 1]),
                int(layers.columns[layer - 1]),
                oracle.normals_at(self.program.seed, 1000 + layer, self.replica),
            ),
        )


class Forgetful(reference_matrix_free.Conditioned):
    """Blind: the backward pass asks a weight that the forward pass has not seen."""

    def backward(self, layer, delta):
        rows, columns = int(self.program.layers.units[layer - 1]), int(self.program.layers.columns[layer - 1])
        return stream.matrix(self.program.seed + 1, 1, self.replica, rows, columns).T @ delta


@pytest.fixture
def fast_draws(monkeypatch):
    """The stream's definition is slow, and the law is all that matters here."""
    rng = np.random.default_rng(11)

    def tall(seed, purpose, layer, replica, units, columns=1, distribution="normal", first=0):
        return rng.normal(size=(units, columns))

    def matrix(seed, layer, replica, rows, columns, *rest):  # the same for every use and both passes
        return np.random.default_rng([seed, layer, replica]).normal(size=(rows, columns))

    monkeypatch.setattr(stream, "tall", tall)
    monkeypatch.setattr(stream, "matrix", matrix)


def statistics(chain, operator, batch=2):
    """Every row at every use, the total, and what ties uses and passes together: <a, dJ/da> at every node, and how much
    of the sum over uses is cancelled."""
    plan = lower(chain, batch=batch, dtype="float64", seed=3)
    rows = reference.run_operators(plan, 0, REPLICAS, operator, keep=("activation", "grad_activation"))
    # factors of orthogonal weights are one but for rounding
    names = [name for name in ROWS if name != "log10_weight_factor" or plan.draw(1).distribution != "haar"]
    found = [rows[name][:, i] for name in names for i in range(rows[name].shape[1])]
    kept = rows["keep"]
    for l in range(plan.counts.node):
        found.append(np.array([(k["activation"][l] * k["grad_activation"][l]).sum() for k in kept]))
    with np.errstate(invalid="ignore"):  # dead chains
        found.append(rows["log10_grad_weight_total"][:, 0] - rows["log10_grad_weight"].max(axis=1))
    return found


@pytest.mark.parametrize("name", CHAINS)
def test_the_law_is_that_of_one_drawn_weight(name, fast_draws):
    free = statistics(CHAINS[name], reference_matrix_free.Conditioned)
    dense = statistics(CHAINS[name], reference.Dense)
    assert smallest_p(dense, free) * len(CHAINS) > 0.01


@pytest.mark.parametrize("blind", [FreshEachTime, Forgetful])
def test_an_oracle_that_forgets_is_found_out(blind, fast_draws):
    wrong = statistics(CHAINS["recurrent"], blind)
    assert smallest_p(statistics(CHAINS["recurrent"], reference.Dense), wrong) < 1e-4
