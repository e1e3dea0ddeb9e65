# SPDX-License-Identifier: BSD-3-Clause
"""Theory of convolutions, pools and flattening: closed forms, dense chains that they must equal, and ensembles beside
them."""

import math

import numpy as np
import pytest

import pykernel as pk
from pykernel import Block, Chain, Conv, Flatten, Head, Linear, Norm, Pool

ROWS = ("log10_mean_square_activation", "log10_grad_activation", "similarity", "log10_grad_preactivation")


def circular(*channels, **words):
    return Conv(*channels, padding="circular", **words)


@pytest.mark.parametrize("function", ["relu", "tanh"])
def test_a_circular_convolution_is_a_dense_layer_over_positions(function):
    """Inputs times positions are the batch; dJ/dW has as many times more entries as there are taps."""
    conv = pk.predict(Chain(6, 32, blocks=[circular(), function]), batch=2, positions=(5, 7), correlation=0.2)
    dense = pk.predict(Chain(6, 32, blocks=[Linear(), function]), batch=70, correlation=0.2)
    for row in ROWS:
        np.testing.assert_allclose(conv.rows[row], dense.rows[row], atol=1e-12, err_msg=row)
    shift = 0.5 * math.log10(9)
    np.testing.assert_allclose(conv.log10_grad_weight, dense.log10_grad_weight + shift, atol=1e-12)


def test_delta_orthogonal_is_dense_orthogonal():
    """Xiao et al. 2018: also where channels differ."""
    for units in (32, 48):
        conv = Chain(4, 32, init="delta_orthogonal", blocks=[circular(units), "tanh", circular(32), "tanh"])
        dense = Chain(4, 32, init="orthogonal", blocks=[Linear(units), "tanh", Linear(32), "tanh"])
        one, two = pk.predict(conv, batch=2, positions=9), pk.predict(dense, batch=18)
        for row in ROWS:
            np.testing.assert_allclose(one.rows[row], two.rows[row], atol=1e-12, err_msg=row)


def test_the_published_convolution_of_std_a_tenth():
    """3 x 3 x 64 of std .1 behind ReLU: sqrt(576 .01 / 2) = 1.697 a layer; draws cut at two deviations 1.493."""
    for init, factor in (("normal(0.1)", 1.697), ("truncated_normal(0.1)", 1.493)):
        chain = Chain(4, 64, init=init, blocks=[Block(circular(), "relu")])
        g = pk.predict(chain, positions=(8, 8)).log10_grad_activation
        assert 10 ** (g[0] - g[1]) == pytest.approx(factor, abs=5e-4)


def test_twenty_bare_convolutions_of_default_init_lose_what_was_reported():
    """PyTorch's default is a variance of 1/(3 fan_in), behind ReLU 1/6: sqrt(1/6) = .408 a layer where nothing leaves
    at an edge. A public report of 20 convolutions without norms measured 2.2e-8 from the last to the first, .395 each.
    """
    pad = lambda padding: Chain(20, 64, init="torch_conv_default", blocks=[Block(Conv(64, padding=padding), "relu")])
    assert 10 ** pk.predict(pad("circular"), positions=(16, 16)).slope == pytest.approx(6**-0.5, rel=1e-9)
    for padding, least, most in (("circular", 0.4, 0.416), ("zero", 0.39, 0.404)):
        measured = pk.propagate(pad(padding), positions=(16, 16), replicas=8)
        gradient = np.median(measured.log10_grad_activation, axis=0)
        assert least < 10 ** ((gradient[1] - gradient[20]) / 19) < most
        if padding == "zero":
            assert gradient[1] - gradient[20] == pytest.approx(math.log10(2.2e-8), abs=0.15)


def test_pools_keep_products_and_strides_the_squared_norm():
    """Means of k independent positions: mean square 1/k; of one and the same: 1. A linear layer of stride 2 sends the
    whole squared gradient to the positions that it saw."""
    pool = Chain(1, 16, init="lecun_normal", blocks=[Pool("mean", 4), Linear()])
    for c in (0.0, 0.5, 1.0):
        p = pk.predict(pool, batch=2, positions=16, correlation=c)
        assert 10 ** p.log10_mean_square_activation[0] == pytest.approx((1 + 3 * c) / 4, rel=1e-12)
        assert p.similarity[0] == pytest.approx(4 * c / (1 + 3 * c), abs=1e-12)
        assert 10 ** (2 * p.signal_end_to_end) == pytest.approx(1 / 4, rel=1e-12)
    stride = Chain(1, 16, init="lecun_normal", blocks=[circular(stride=2)])
    assert pk.predict(stride, positions=16).signal_end_to_end == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_linear_convolution_hands_on_the_sum_of_all_gradients(stride):
    """Summed over positions W^T acts on the sum over its outputs: its squared norm, which is that of the bias's
    gradient, stays with variances 1 / fan in, whatever the stride."""
    blocks = [circular(), circular(stride=stride), circular()]
    chain = Chain(1, 16, init="lecun_normal", blocks=blocks, last=[Pool("mean")], head=Head("mse", 3))
    for words in ({"positions": 12}, {"positions": (6, 6), "batch": 3, "correlation": 0.3}):
        rows = pk.predict(chain, **words).log10_grad_bias
        np.testing.assert_allclose(rows, rows[-1], atol=1e-12)


def resnet(n, blocks, conv, **words):
    steps = (conv(), Norm("batch"), "relu", conv(), Norm("batch"))
    block = Block(*steps, skip=1.0, after="relu")
    return Chain(blocks, n, blocks=[block], last=[Pool("mean")], head=Head("softmax", 10), **words)


def stages(n):
    first = Block(circular(), Norm("batch"), "relu", circular(), Norm("batch"), skip=1.0, after="relu")
    skip = [Conv(2 * n, kernel=1, stride=2), Norm("batch")]
    steps = (circular(2 * n, stride=2), Norm("batch"), "relu", circular(), Norm("batch"))
    second = Block(*steps, skip=skip, after="relu")
    return Chain(1, n, blocks=[first, second, first], last=[Pool("mean")], head=Head("softmax", 10))


ENSEMBLES = {
    "ReLU": (lambda n: Chain(5, n, blocks=[circular(), "relu"]), {"positions": 12, "batch": 2}),
    "strides, valid": (
        lambda n: Chain(
            1,
            n,
            init="lecun_normal",
            blocks=[circular(), "tanh", circular(stride=2), "tanh", Conv(padding="valid"), "tanh"],
        ),
        {"positions": (12, 12)},
    ),
    "groups": (lambda n: Chain(4, n, blocks=[circular(groups=4), "relu"]), {"positions": (6, 6), "batch": 2}),
    "mean pool and head": (
        lambda n: Chain(3, n, blocks=[circular(), "relu"], last=[Pool("mean"), Linear(), "relu"], head=Head("mse", 5)),
        {"positions": 12, "batch": 3},
    ),
    "pools beside batch norm": (
        lambda n: Chain(
            2,
            n,
            blocks=[circular(), Norm("batch"), "relu", Pool("mean", 2), circular(), Norm("batch"), "relu"],
            last=[Pool("mean")],
            head=Head("softmax", 10),
        ),
        {"positions": (8, 8), "batch": 4},
    ),
    "flatten": (
        lambda n: Chain(2, n // 3, blocks=[circular(), "relu"], last=[Flatten(), Linear(n), "relu"]),
        {"positions": (6, 6), "batch": 3},
    ),
    "ResNet v1": (lambda n: resnet(n, 3, circular), {"positions": (6, 6), "batch": 4}),
    "zeros beyond the edge, batch norm": (lambda n: resnet(n, 3, Conv), {"positions": (12, 12), "batch": 2}),
    "ResNet v1 in stages": (stages, {"positions": (8, 8), "batch": 2}),
    "ResNet v2": (
        lambda n: Chain(
            3,
            n,
            blocks=[Block(Norm("batch"), "relu", circular(), Norm("batch"), "relu", circular(), skip=1.0)],
            last=[Norm("batch"), "relu", Pool("mean")],
            head=Head("softmax", 10),
        ),
        {"positions": (6, 6), "batch": 4},
    ),
}


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensembles_of_convolutions_lie_beside_the_theory(name):
    """Means of 32 networks of 192 channels: a layer's squared norms vary by 5/n and more where positions are alike:
    .015 decades of standard error over 5 to 8 layers; a head of 10 outputs adds as much."""
    make, words = ENSEMBLES[name]
    chain = make(192)
    p, m = pk.predict(chain, **words), pk.propagate(chain, replicas=32, **words)
    for row in ("log10_mean_square_activation", "log10_grad_activation", "log10_grad_weight"):
        np.testing.assert_allclose(np.mean(m.rows[row], axis=0), p.rows[row], atol=0.065, err_msg=row)
    for row in ("similarity", "saturated"):
        np.testing.assert_allclose(np.mean(m.rows[row], axis=0), p.rows[row], atol=0.04, err_msg=row)
    assert "positions are alike" in " ".join(p.validity) or "edge" in name


def test_advice_reads_convolutions():
    chain = Chain(20, 32, init="lecun_normal", blocks=[circular(), "relu"])
    found = pk.critical_gain(chain, positions=(6, 6))
    assert found.factor == pytest.approx(2**0.5, rel=1e-6)


def test_what_is_not_known_of_windows_is_said():
    for last, head, words in (
        ([pk.Dropout(0.5), Pool("max", 2)], None, "behind a function on what weights give.*dropout"),
        ([Pool("mean", 3, stride=2)], None, "lie side by side"),
        ([], Head("mse", 3, over="mean"), r'put Pool\("mean"\) before the head'),
    ):
        chain = Chain(2, 16, blocks=[circular(), "relu"], last=last, head=head)
        with pytest.raises(ValueError, match=words):
            pk.predict(chain, positions=(8, 8))


def test_batch_norm_of_one_or_two_numbers_is_told():
    """Three strided convolutions of 8 positions leave one an input: of two inputs batch norm keeps signs, of one
    nothing."""
    block = pk.Block(pk.Conv(16, stride=2), pk.Norm("batch"), "relu")
    chain = pk.Chain(depth=3, width=16, blocks=[block])
    for batch, words in ((1, "one number"), (2, "two numbers"), (8, None)):
        for told in (pk.propagate(chain, batch=batch, positions=8, replicas=2), pk.predict(chain, batch, positions=8)):
            said = " ".join(str(told).split())
            assert (words is None and "batch norm sees" not in said) or f"batch norm sees {words}" in said
