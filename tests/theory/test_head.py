# SPDX-License-Identifier: BSD-3-Clause
"""Gradients below a head over a batch: alike where inputs are, against sampled chains, closed forms and drawn
normals."""

import math

import numpy as np
import pytest

import pykernel as pk
from pykernel.theory.coherence import kept_share
from pykernel.theory.correlation import pair_loss

ROWS = ("log10_grad_weight", "log10_grad_bias", "log10_grad_preactivation", "log10_grad_activation")
CHAINS = {
    "linear": {"activation": "linear", "init": "orthogonal", "gain": 1.5},
    "tanh": {"activation": "tanh", "init": "lecun_normal", "gain": 1.2, "bias_std": 0.1},
    "relu": {"activation": "relu"},
    "gelu": {"activation": "gelu"},
    "rms": {"activation": "gelu", "norm": "rms"},
    "skip": {"activation": "relu", "residual": pk.Residual(1, 0.5)},
    "skip of 2 behind a norm": {
        "activation": "tanh",
        "residual": pk.Residual(2, 0.7),
        "norm": "layer",
        "order": "norm-activation-linear",
    },
    "batch norm": {"activation": "tanh", "norm": "batch"},
    "batch norm first": {"activation": "softplus", "norm": "batch", "order": "norm-activation-linear"},
}


def agree(chain, batch, correlation, replicas):
    """Log of the mean square over draws within 4 standard errors, and what grows as depth and outputs over the
    width."""
    p = pk.predict(chain, batch, correlation=correlation)
    m = pk.propagate(chain, batch=batch, correlation=correlation, replicas=replicas, engine="matrix_free")
    for name in ROWS:
        square = 10 ** (2 * getattr(m, name))
        mean = square.mean(axis=0)
        error = square.std(axis=0, ddof=1) / math.sqrt(replicas) / np.maximum(mean, 1e-300) / (2 * math.log(10))
        expected = 10 ** getattr(p, name)
        seen = expected > 0  # behind batch norm a bias has no gradient
        off = np.abs(0.5 * np.log10(mean[seen]) - np.log10(expected[seen])) - 4 * error[seen]
        assert off.max(initial=0) < (chain.depth + chain.head.outputs) / chain.width / 2, (
            f"{name} {chain} {correlation}"
        )


@pytest.mark.parametrize("loss", ["mse", "sigmoid", "softmax"])
@pytest.mark.parametrize("kind", CHAINS)
def test_sampled_heads_over_a_batch(kind, loss):
    """Without the coherence the weights' gradients lie 0.2 to 0.45 decades below, behind batch norm 0.1 above."""
    chain = pk.Chain(depth=6, width=2000, head=pk.Head(loss, 20), **CHAINS[kind])
    for correlation in (0.0, 0.5, 0.95):
        agree(chain, 8, correlation, 24)


def test_given_targets_over_a_batch():
    """Targets of the caller's are as alike as they are: all equal, all different, opposite; and the plain read-out."""
    for loss, targets in (
        ("mse", np.ones((20, 4))),
        ("linear", np.ones((20, 4)) + np.arange(4)),
        ("sigmoid", np.tile([0.0, 1.0, 0.0, 1.0], (20, 1))),
        ("softmax", np.array([3, 3, 3, 3])),
        ("softmax", np.full((20, 4), 0.05)),
    ):
        chain = pk.Chain(4, 2000, activation="tanh", init="lecun_normal", head=pk.Head(loss, 20, targets=targets))
        agree(chain, 4, 0.5, 24)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh", "gelu", "selu", "sin", "hardtanh"])
@pytest.mark.parametrize("distance", [1e-6, 0.1, 1.0, 1.6])
def test_kept_share_against_drawn_normals(name, distance):
    """Four standard errors of 4e5 pairs; a step of the slope keeps the root of the distance, a smooth one all of it."""
    row, std = pk.Chain(1, 1, activation=name).activation, 1.3
    z = np.random.default_rng(1).standard_normal((2, 400_000))
    first, second = std * z[0], std * ((1 - distance) * z[0] + math.sqrt(distance * (2 - distance)) * z[1])
    lost = (row.slope(first) - row.slope(second)) ** 2 / 2
    square = np.mean(np.square(row.slope(first)))
    error = (
        4 * lost.std() / math.sqrt(lost.size) / square
        + 4 * np.square(row.slope(first)).std() / math.sqrt(lost.size) / square
    )
    assert 1 - kept_share(row, std, distance) == pytest.approx(
        lost.mean() / square, abs=error if distance > 0.01 else 0.3 * lost.mean() + 1e-8
    )


def test_pair_loss_closed_forms():
    """E u1 u2 and E u1^3 u2^3 = 9 c + 6 c^3 of a unit pair; of signs 2/pi asin c. At any distance, small ones to as
    many digits."""
    for d in (0.0, 1e-9, 0.3, 1.0, 1.4, 2.0):
        assert pair_loss(lambda z: z, 1.0, d) == pytest.approx((d, 1), rel=1e-9)
        assert pair_loss(lambda z: z**3, 1.0, d) == pytest.approx(((27 * d - 18 * d * d + 6 * d**3) / 15, 15), rel=1e-7)
        angle = 2 * math.asin(math.sqrt(d / 2))
        assert pair_loss(np.sign, 1.0, d, rough=True) == pytest.approx((2 / math.pi * angle, 1), rel=1e-7)


def test_equal_inputs_have_equal_gradients():
    """Correlation 1 and targets that are equal: a batch of 8 has the parameter gradients of one input."""
    for loss in ("mse", "sigmoid", "linear"):
        one, eight = (
            pk.predict(
                pk.Chain(5, 300, activation="gelu", head=pk.Head(loss, 10, targets=np.ones((10, B)))),
                B,
                correlation=1.0,
            )
            for B in (1, 8)
        )
        for name in ("log10_grad_weight", "log10_grad_bias"):
            np.testing.assert_allclose(getattr(eight, name), getattr(one, name), atol=1e-9)


def test_layers_looked_at_are_enough():
    """A long chain, looked at where it has moved on, keeps the coherence that it has layer by layer: 1e-3."""
    from pykernel.lower import lower
    from pykernel.theory.coherence import kept_shares
    from pykernel.theory.mean_field import forward

    program = lower(
        pk.Chain(300, 100, activation="gelu", init="lecun_normal", gain=1.3, bias_std=0.2), batch=4, correlation=0.2
    )
    signal = forward(program)
    gap = signal.spread - signal.raw
    found = kept_shares(program, signal.preimage, gap)
    each = np.array(
        [
            kept_share(program.activations[0], math.exp(t), math.exp(g))
            for t, g in zip(signal.preimage, gap, strict=True)
        ]
    )
    assert np.log(found).sum() == pytest.approx(np.log(each).sum(), abs=1e-3 * (1 + abs(np.log(each).sum())))
