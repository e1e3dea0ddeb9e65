# SPDX-License-Identifier: BSD-3-Clause
"""Theory by a population of units (columns tied together on entries that are not normal): closed forms, and ensembles
at width 1024 beside it."""

import math

import numpy as np
import pytest

import pykernel as pk
from pykernel import Block, Chain, Dropout, Gated, Linear, Norm


def resnet(n, depth, **words):
    """ResNet v1 of dense layers: relu(x + BN(W relu(BN(W x))))."""
    block = Block(Linear(), Norm("batch"), "relu", Linear(), Norm("batch"), skip=1.0, after="relu")
    return Chain(depth, n, blocks=[block], **words)


ENSEMBLES = {
    "ResNet v1": lambda n: resnet(n, 8),
    "its head": lambda n: resnet(n, 8, head=pk.Head("softmax", 10)),
    "its norms with weights and biases": lambda n: Chain(
        6,
        n,
        blocks=[
            Block(
                *(Linear(), Norm("batch", weight=0.5, bias=0.3), "relu", Linear(), Norm("batch", weight=0.2)),
                skip=1.0,
                after="relu",
            )
        ],
    ),
    "projections": lambda n: Chain(
        5,
        n,
        blocks=[
            Block(
                *(Linear(), Norm("batch"), "relu", Linear(), Norm("batch")),
                skip=[Linear(), Norm("batch")],
                after="relu",
            )
        ],
    ),
    "batch norm on sums of batch norms": lambda n: Chain(
        8, n, blocks=[Block(Norm("batch"), "relu", Linear(), Norm("batch"), skip=1.0)]
    ),
    "batch norm and ReLU on sums": lambda n: Chain(
        6, n, blocks=[Block(Linear(), "relu", Linear(), skip=1.0, after=[Norm("batch"), "relu"])]
    ),
    "a head": lambda n: Chain(
        8,
        n,
        blocks=[Block(Linear(), "relu", Linear(), skip=0.7, scale=0.7, after="relu")],
        head=pk.Head("softmax", 10, init="normal(0.02)"),
    ),
    "dropout": lambda n: Chain(
        8, n, blocks=[Block(Linear(), "relu", Dropout(0.3), Linear(), Dropout(0.2), skip=1.0, after="tanh")]
    ),
    "gates": lambda n: Chain(6, n, blocks=[Block(Gated(n, "silu"), Norm("rms"), skip=1.0, after="gelu")]),
}


@pytest.mark.parametrize("name", ENSEMBLES)
def test_populations_as_sampled(name):
    """Means of 16 networks of 1024 units, batch 8: up to .012 decades of standard error over 8 blocks, as much of
    shift, and .01 of the population's; shares of units to .012."""
    chain = ENSEMBLES[name](1024)
    p, m = pk.predict(chain, batch=8, correlation=0.3), pk.propagate(chain, batch=8, correlation=0.3, replicas=16)
    for row in ("log10_mean_square_activation", "log10_grad_activation", "log10_grad_weight"):
        np.testing.assert_allclose(np.mean(m.rows[row], axis=0), p.rows[row], atol=0.045, err_msg=row)
    np.testing.assert_allclose(np.mean(m.log10_derivative_factor, axis=0), p.log10_derivative_factor, atol=0.015)
    for row in ("saturated", "dead", "similarity"):
        np.testing.assert_allclose(np.mean(m.rows[row], axis=0), p.rows[row], atol=0.012, err_msg=row)
    assert "a population of units" in " ".join(p.validity)


def test_more_columns_than_are_followed():
    """Of batch norm of normal entries over 100 columns eight are followed; four networks of 1024 units."""
    chain = resnet(1024, 6)
    p, m = pk.predict(chain, batch=100), pk.propagate(chain, batch=100, replicas=4)
    for row in ("log10_mean_square_activation", "log10_grad_activation", "log10_grad_weight"):
        np.testing.assert_allclose(np.mean(m.rows[row], axis=0), p.rows[row], atol=0.03, err_msg=row)
    np.testing.assert_allclose(np.mean(m.similarity, axis=0), p.similarity, atol=0.01)


@pytest.mark.parametrize("name", ["ReLU", "small branches", "tanh", "norm and ReLU"])
def test_similarity_of_functions_on_sums_as_sampled(name):
    """One column at a time by its density, pairs by the population: 24 networks of 1024 units."""
    chain = {
        "ReLU": Chain(12, 1024, blocks=[Block(Linear(), "relu", Linear(), skip=1.0, after="relu")]),
        "small branches": Chain(12, 1024, blocks=[Block(Linear(), skip=0.8, scale=0.3, after="relu")]),
        "tanh": Chain(12, 1024, init="lecun_normal", blocks=[Block(Linear(gain=1.5), skip=1.0, after="tanh")]),
        "norm and ReLU": Chain(
            12,
            1024,
            init="lecun_normal",
            blocks=[Block(Linear(), "tanh", Linear(), skip=1.0, after=[Norm("layer"), "relu"])],
        ),
    }[name]
    p, m = pk.predict(chain, batch=4, correlation=0.4), pk.propagate(chain, batch=4, correlation=0.4, replicas=24)
    # a cosine of 1024 units has a spread of .03, of which 24 networks leave .006; the population's is .01
    np.testing.assert_allclose(np.mean(m.similarity, axis=0), p.similarity, atol=0.022)
    np.testing.assert_allclose(np.mean(m.dead, axis=0), p.dead, atol=0.015)
    alone = pk.predict(chain)
    np.testing.assert_array_equal(p.log10_grad_activation, alone.log10_grad_activation)


def test_first_sum_is_the_arc_cosine_kernel():
    """The first ReLU acts on a normal sum: Cho, Saul 2009; 1/sqrt(units) of the population."""
    chain = Chain(1, 64, init="lecun_normal", blocks=[Block(Linear(), skip=1.0, after="relu")])
    for c in (0.0, 0.5, 0.9):
        kernel = (math.sqrt(1 - c * c) + (math.pi - math.acos(c)) * c) / math.pi
        longer = chain.replace(depth=2)  # the second sum is followed
        assert pk.predict(chain, batch=2, correlation=c).similarity[0] == pytest.approx(kernel, abs=0.01)
        assert pk.predict(longer, batch=2, correlation=c).similarity[0] == pytest.approx(kernel, abs=0.01)


def test_population_and_density_say_the_same_of_one_column():
    """A random linear read-out ties nothing, but is a head: rows by a population and by the density."""
    chain = Chain(30, 64, blocks=[Block(Linear(), "relu", Linear(), skip=0.8, scale=0.6, after="relu")])
    chain = chain.replace(head=pk.Head("linear", 10))
    one, many = pk.predict(chain), pk.predict(chain, batch=4)
    for row in ("log10_mean_square_activation", "log10_grad_activation", "log10_derivative_factor", "saturated"):
        shift = 0.5 * math.log10(4) if row == "log10_grad_activation" else 0.0  # J is a mean over the batch
        np.testing.assert_allclose(many.rows[row] + shift, one.rows[row], atol=0.015, err_msg=row)


def test_batch_norm_behind_linear_sums_keeps_the_gradient_at_large_batches():
    """x' = BN(x + W x): at B -> infinity the norm divides every unit by sqrt 2, and skip and branch bring back two
    gradients of size 1/2; at finite B a block adds of order 1/B, and columns are 1/(1 - B) alike at once."""
    for batch in (16, 64):
        chain = Chain(12, 64, init="lecun_normal", blocks=[Block(Linear(), skip=1.0, after=Norm("batch"))])
        p = pk.predict(chain, batch=batch)
        np.testing.assert_allclose(p.similarity, -1 / (batch - 1), rtol=1e-3)
        growth = math.log(10) * 2 * p.signal_end_to_end / 12
        assert 0 < growth < 4 / batch


def test_batch_norm_leaves_no_gain():
    """Weights before a batch norm have no size: every row of the gradient's ratios stays, and nothing is critical."""
    chain = resnet(64, 6)
    ends = [pk.predict(chain.replace(gain=gain), batch=8).signal_end_to_end for gain in (1.0, 7.0)]
    assert ends[0] == pytest.approx(ends[1], abs=0.01)  # the population's error
    assert not pk.critical_gain(chain, batch=8).exists


def test_what_a_population_does_not_follow_is_said():
    sums = Chain(3, 16, blocks=[Block(Linear(), skip=1.0, after=Norm("batch"))])
    with pytest.raises(ValueError, match="for up to 256 columns"):
        pk.predict(sums, batch=300)
    attention = Block(pk.Attention(2), skip=1.0, after="relu")
    with pytest.raises(ValueError, match="tells the positions of one input from other inputs"):
        pk.predict(Chain(3, 16, blocks=[attention]), batch=2, positions=4)
    with pytest.raises(ValueError, match=r"over 16384 activation steps and norms at most"):
        pk.predict(resnet(16, 20_000), batch=8)
