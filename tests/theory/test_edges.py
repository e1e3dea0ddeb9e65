# SPDX-License-Identifier: BSD-3-Clause
"""Theory of zeros beyond the edge: closed forms by counting taps, the recursion written out position by position, and
ensembles beside it."""

import math

import numpy as np
import pytest

import pykernel as pk
from pykernel import Block, Chain, Conv, Flatten, Head, Linear, Norm, Pool
from pykernel.lower import lower
from pykernel.theory import edges
from pykernel.window import Window


def taps(n, kernel=3, stride=1, dilation=1):
    """How often a tap of each window along one axis sees each position, (windows, positions)."""
    window = Window((1, n), (1, kernel), (1, stride), (0, dilation * (kernel - 1) // 2))._replace(
        dilation=(1, dilation)
    )
    at = window.sources()
    return np.array([[np.sum(at[:, w] == p) for p in range(n)] for w in range(at.shape[1])], float)


def linear(depth, *steps, **words):
    """Linear convolutions of variance 1 / fan in: what comes in is what goes out, but for the edge."""
    return Chain(depth, 32, init="lecun_normal", blocks=[Block(*(steps or (Conv(**words),)))])


@pytest.mark.parametrize(("positions", "share"), [((1, 1), 1 / 9), ((2, 2), 4 / 9), (1, 1 / 3), (2, 2 / 3)])
def test_small_fields_keep_the_share_of_taps_inside(positions, share):
    """One position sees its middle tap only, two along an axis two of three: every layer, forward and backward."""
    p = pk.predict(linear(20), 2, positions=positions)
    np.testing.assert_allclose(p.log10_mean_square_activation, np.arange(1, 21) * math.log10(share), atol=1e-12)
    assert p.signal_end_to_end == pytest.approx(10 * math.log10(share), abs=1e-12)


@pytest.mark.parametrize("n", [3, 5, 8])
@pytest.mark.parametrize("words", [{}, {"kernel": 5}, {"dilation": 2}])
def test_deep_fields_shrink_by_the_largest_eigenvalue(n, words):
    """The matrix of taps has one largest eigenvalue, whose vector every map comes to; over two axes its square."""
    kernel = words.get("kernel", 3)
    rate = np.linalg.eigvalsh(taps(n, **words) / kernel)[-1]
    p = pk.predict(linear(200, **words), positions=(n, n))
    assert np.diff(p.log10_mean_square_activation)[-1] == pytest.approx(2 * math.log10(rate), abs=1e-9)
    assert np.diff(p.log10_grad_activation)[0] == pytest.approx(-math.log10(rate), abs=1e-9)


@pytest.mark.parametrize("n", [7, 8])
def test_strides_go_back_by_the_transpose(n):
    """Forward squares go by the matrix of taps, backward by its transpose, which with a stride is another: a window at
    an edge has two taps, and a position between two windows is seen twice. The weight gradient is the sum over
    positions of products of both."""
    a, b = taps(n, stride=2) / 3, taps((n + 1) // 2) / 3
    chain = linear(1, Conv(stride=2), Conv())
    p = pk.predict(chain, positions=n)
    first, second = a @ np.ones(n), b @ a @ np.ones(n)
    assert 10**p.log10_mean_square_preactivation == pytest.approx([first.mean(), second.mean()], rel=1e-12)
    top = np.full(len(second), 1 / len(second))
    below = b.T @ top
    assert 10 ** (2 * p.log10_grad_preactivation) == pytest.approx([below.sum(), 1], rel=1e-12)
    assert 10 ** (2 * p.log10_grad_activation[0]) == pytest.approx((a.T @ below).sum(), rel=1e-12)
    fan_in = 3 * 32
    weight = [fan_in * below @ first, fan_in * top @ second]
    assert 10 ** (2 * p.log10_grad_weight) == pytest.approx(weight, rel=1e-12)


@pytest.mark.parametrize("function", ["relu", "tanh", "gelu", "sigmoid"])
@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_functions_act_on_every_position_alone(function, bias):
    """The recursion of mean squares and squared gradients written out, with means of phi by quadrature."""
    n, depth, gain = 5, 4, 1.7
    x, w = np.polynomial.hermite_e.hermegauss(150)
    w = w / w.sum()
    row = pk.activations.get(function)
    chain = Chain(depth, 32, init="lecun_normal", gain=gain, bias_std=bias, blocks=[Conv(), function])
    p = pk.predict(chain, positions=n)
    a, q = taps(n) / 3, np.ones(n)
    slopes, inputs, made = [], [], []
    for _ in range(depth):
        inputs.append(a @ q)
        z = np.sqrt(gain**2 * inputs[-1] + bias**2)[:, None] * x
        made.append((z**2) @ w)
        q, slope = (np.asarray(f(z), float) ** 2 @ w for f in (row.value, row.slope))
        slopes.append(slope)
    close = {"rel": 3e-3 if function == "relu" else 1e-5}  # ReLU bends where no node lies
    assert 10**p.log10_mean_square_preactivation == pytest.approx([m.mean() for m in made], **close)
    assert 10 ** p.log10_mean_square_activation[-1] == pytest.approx(q.mean(), **close)
    g, weight = np.full(n, 1 / n), []
    for slope, u in zip(slopes[::-1], inputs[::-1], strict=True):
        g = g * slope
        weight.append(3 * 32 * g @ u)
        g = gain**2 * (a.T @ g)
    assert 10 ** (2 * p.log10_grad_activation[0]) == pytest.approx(g.sum(), **close)
    assert 10 ** (2 * p.log10_grad_weight) == pytest.approx(weight[::-1], **close)


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_norms_of_each_position_make_them_alike(norm):
    """Behind them squares are those of a circular convolution; backward a position divides by its own deviation."""
    n = 6
    make = lambda padding: linear(3, Conv(padding=padding), Norm(norm))
    zero, circular = (pk.predict(make(padding), positions=n) for padding in ("zero", "circular"))
    np.testing.assert_allclose(
        zero.log10_mean_square_activation, circular.log10_mean_square_activation, atol=1e-5
    )  # eps counts where the variance is two thirds
    a, g = taps(n) / 3, np.full(n, 1 / n)
    for _ in range(3):
        g = a.T @ (g / a.sum(axis=1))
    assert 10 ** (2 * zero.log10_grad_activation[0]) == pytest.approx(g.sum(), rel=1e-4)


def test_delta_orthogonal_weights_lose_nothing():
    """Only the middle tap has weights; gradients of the others see zeros at the edge."""
    n = 6
    make = lambda padding: Chain(4, 32, init="delta_orthogonal", blocks=[Conv(padding=padding), "tanh"])
    zero, circular = (pk.predict(make(padding), 2, positions=n) for padding in ("zero", "circular"))
    for row in ("log10_mean_square_activation", "log10_grad_activation", "similarity"):
        np.testing.assert_allclose(zero.rows[row], circular.rows[row], atol=1e-12, err_msg=row)
    lost = 0.5 * math.log10(taps(n).sum() / (3 * n))
    np.testing.assert_allclose(zero.log10_grad_weight, circular.log10_grad_weight + lost, atol=1e-12)


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_products_of_all_positions_add_up(layers):
    """Two positions have in common what the taps hand on that both have inside. Of linear layers on one number
    everywhere that is known exactly; the mean over a field is the sum of all of it."""
    n, products = 5, np.ones((5, 5))
    shifts = [np.eye(n, k=k) for k in (-1, 0, 1)]
    for _ in range(layers):
        products = sum(shift @ products @ shift.T for shift in shifts) / 3
    chain = Chain(1, 32, init="lecun_normal", blocks=[Conv()] * layers, last=[Pool("mean")])
    p = pk.predict(chain, positions=n, correlation=1.0)
    assert 10 ** p.log10_mean_square_activation[-1] == pytest.approx(products.mean(), rel=1e-10)


def test_what_sees_an_edge_is_found():
    for blocks, found in (
        ([Conv(padding="circular")], False),
        ([Conv(padding="valid")], False),
        ([Conv(kernel=1)], False),
        ([Linear(), Pool("max", 3, stride=2, padding=1)], False),
        ([Conv()], True),
    ):
        program = lower(Chain(1, 8, blocks=blocks), positions=(6, 6))
        assert (edges.edged(program) is not None) == found
    said = " ".join(pk.predict(Chain(2, 8, blocks=[Conv()]), positions=8).validity)
    assert "zeros beyond the edge: each position" in said and "positions are alike" not in said
    assert "edge" not in " ".join(pk.predict(Chain(2, 8, blocks=[Conv(padding="circular")]), positions=8).validity)


def test_the_critical_gain_is_that_of_the_field():
    """Of a deep ReLU chain sqrt(2) over the root of the largest eigenvalue, but for the first and last layers."""
    rate = np.linalg.eigvalsh(taps(4) / 3)[-1]
    chain = Chain(60, 32, init="lecun_normal", blocks=[Conv(), "relu"])
    assert pk.critical_gain(chain, positions=(4, 4)).factor == pytest.approx(2**0.5 / rate, rel=2e-4)


ENSEMBLES = {
    "ReLU, 50 layers": (lambda n: Chain(50, n, blocks=[Conv(), "relu"]), {"positions": (8, 8)}),
    "kernel of five": (lambda n: Chain(8, n, blocks=[Conv(kernel=5), "relu"]), {"positions": (8, 8), "batch": 2}),
    "dilation": (lambda n: Chain(8, n, blocks=[Conv(dilation=2), "relu"]), {"positions": (8, 8), "batch": 2}),
    "strides, GELU": (
        lambda n: Chain(1, n, blocks=[Conv(), "gelu", Conv(stride=2), "gelu", Conv(stride=2), "gelu", Conv(), "gelu"]),
        {"positions": (15, 13), "batch": 2},
    ),
    "biases, one axis": (
        lambda n: Chain(8, n, init="lecun_normal", gain=1.3, bias_std=0.3, blocks=[Conv(), "tanh"]),
        {"positions": 8, "batch": 3},
    ),
    "batch norm": (lambda n: Chain(8, n, blocks=[Conv(), Norm("batch"), "relu"]), {"positions": (6, 6), "batch": 4}),
    "sums of ReLU": (
        lambda n: Chain(8, n, blocks=[Block("relu", Conv(), skip=1.0, scale=0.5)]),
        {"positions": (6, 6), "batch": 2},
    ),
    "ResNet v1": (
        lambda n: Chain(
            4, n, blocks=[Block(Conv(), Norm("batch"), "relu", Conv(), Norm("batch"), skip=1.0, after="relu")]
        ),
        {"positions": (6, 6), "batch": 4},
    ),
    "ResNet v2 below a head": (
        lambda n: Chain(
            3,
            n,
            blocks=[Block(Norm("batch"), "relu", Conv(), Norm("batch"), "relu", Conv(), skip=1.0)],
            last=[Norm("batch"), "relu", Pool("mean")],
            head=Head("softmax", 10),
        ),
        {"positions": (6, 6), "batch": 4},
    ),
    "pools and flattening": (
        lambda n: Chain(
            1,
            n,
            blocks=[Conv(), "relu", Pool("mean", 2), Conv(), "relu", Pool("max", 2), Conv(), "relu"],
            last=[Flatten(), Linear(n), "relu"],
        ),
        {"positions": (12, 12), "batch": 2},
    ),
    "stem": (
        lambda n: Chain(
            1,
            n,
            blocks=[
                Block(Conv(kernel=7, stride=2), Norm("batch"), "relu", Pool("max", 3, stride=2, padding=1)),
                Block(Conv(), Norm("batch"), "relu"),
            ],
        ),
        {"positions": (24, 24), "batch": 2},
    ),
}


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensembles_lie_beside_the_theory(name):
    """Roots of means of 24 networks of 128 channels. A layer's squared norm varies by 5/n and more where positions are
    alike: of 50 layers .03 decades of standard error, of the others about .015; without maps of positions these
    networks are off by .1 to 4 decades."""
    make, words = ENSEMBLES[name]
    chain = make(128)
    p, m = pk.predict(chain, **words), pk.propagate(chain, replicas=24, **words)
    for row in ("log10_mean_square_activation", "log10_grad_activation", "log10_grad_weight"):
        power = 1 if "square" in row else 2
        top = m.rows[row].max()
        measured = np.log10(np.mean(10 ** (power * (m.rows[row] - top)), axis=0)) / power + top
        np.testing.assert_allclose(measured, p.rows[row], atol=0.1 if "50" in name else 0.06, err_msg=row)
    for row in ("similarity", "saturated"):
        np.testing.assert_allclose(np.mean(m.rows[row], axis=0), p.rows[row], atol=0.06, err_msg=row)
