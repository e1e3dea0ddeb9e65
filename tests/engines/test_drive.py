# SPDX-License-Identifier: BSD-3-Clause
"""Inputs that arrive on the way: what makes a tied chain a recurrent network."""

import numpy as np
import pytest

import pykernel as pk
from pykernel import stream
from pykernel.lower import lower

Block, Linear, Drive = pk.Block, pk.Linear, pk.Drive
ELMAN = pk.Chain(
    depth=6, width=21, blocks=[Block(Linear(bias_std=0.2), Drive(5), "tanh")], tied=True, init="lecun_normal", gain=1.2
)
CHAINS = {
    "Elman": ELMAN,
    "with a skip": pk.Chain(depth=3, width=9, blocks=[Block(Drive(40), "gelu", Linear(), skip=1.0)], tied=True),
    "two, and a norm": pk.Chain(
        depth=2, width=9, first=[Drive(3)], blocks=[Block(Linear(), Drive(4), pk.Norm("layer"), "silu")]
    ),
    "head": ELMAN.replace(head=pk.Head("softmax", 3)),
}


def rows_of(chain, backend, **words):
    return pk.propagate(chain, engine="dense", backend=backend, replicas=2, seed=5, **words).rows


def test_it_is_the_recurrence():
    rng = np.random.default_rng(0)
    x, drive = rng.normal(size=(21, 3)), rng.normal(size=(6, 5, 3))
    W, U = (pk.weights(ELMAN, layer=name) for name in ELMAN.tied_layers)
    b = rng.normal(size=21)
    p = pk.propagate(
        ELMAN,
        x=x,
        drive=drive,
        weights=[W, U],
        biases=[b, None],
        backend="reference",
        engine="dense",
        dtype="float64",
        keep=("activation",),
    )
    a = x
    for k, arrives in enumerate(drive, 1):
        a = np.tanh(W @ a + b[:, None] + U @ arrives)
        np.testing.assert_allclose(p.kept[0]["activation"][k], a, atol=1e-13)
    swapped = pk.propagate(
        ELMAN, x=x.T, drive=drive.swapaxes(1, 2), batch_first=True, weights=[W, U], biases=[b, None], engine="dense"
    )
    np.testing.assert_allclose(swapped.log10_grad_weight, p.log10_grad_weight, atol=1e-4)
    assert p.given == ("x", "drive", "weights", "biases")


def test_the_gradient_is_the_derivative():
    chain = ELMAN.replace(head=pk.Head("mse", 2))
    rng = np.random.default_rng(1)
    words = dict(
        x=rng.normal(size=(21, 2)),
        drive=rng.normal(size=(6, 5, 2)),
        biases=[None, None],
    )
    weights = [pk.weights(chain, layer=name) for name in chain.tied_layers]
    gradients = pk.gradients(chain, weights=weights, **words)
    loss = lambda *arrays: pk.propagate(
        chain, engine="dense", backend="reference", dtype="float64", weights=arrays, **words
    ).loss[0]
    direction, h = rng.normal(size=weights[1].shape), 1e-5
    change = (loss(weights[0], weights[1] + h * direction) - loss(weights[0], weights[1] - h * direction)) / (2 * h)
    assert change == pytest.approx((gradients[1] * direction).sum(), rel=1e-6)


@pytest.mark.parametrize(
    ("backend", "name"), [*(("cpp", name) for name in CHAINS), ("numba", "Elman"), ("numba", "with a skip")]
)
def test_backends_agree(name, backend):
    chain = CHAINS[name]
    rng = np.random.default_rng(2)
    given = [rng.normal(size=(n, 3)) * 1e30 ** (k % 2) for k, n in enumerate(lower(chain).drives)]
    for words in (dict(batch=3), dict(batch=2, correlation=0.4), dict(drive=given)):
        expected = rows_of(chain, "reference", dtype="float64", **words)
        for dtype, tolerance in (("float64", 1e-9), ("float32", 2e-3)):
            found = rows_of(chain, backend, dtype=dtype, **words)
            for row, values in expected.items():
                np.testing.assert_allclose(
                    found[row], values, rtol=tolerance, atol=tolerance, err_msg=row, equal_nan=True
                )


def test_drawn_inputs_have_addresses():
    program = lower(ELMAN, seed=5, batch=2)
    given = [stream.tall(5, stream.INPUT, k + 1, 1, 5, 2).astype(float) for k in range(6)]
    one, other = rows_of(ELMAN, "reference", batch=2), rows_of(ELMAN, "reference", drive=given, batch=2)
    assert len(program.drives) == 6
    np.testing.assert_allclose(one["log10_grad_weight"][1], other["log10_grad_weight"][1], atol=1e-12)
    assert (one["log10_grad_weight"][0] != other["log10_grad_weight"][0]).any()


def test_theory_knows_it():
    """Medians of 100 networks: a mean square over 200 units, and of what 100 entries of an input bring, strays by a
    tenth, the median of 100 by a hundredth; what is left is of order 1/width."""
    step = Block(Linear(bias_std=0.2), Drive(100), "tanh")
    chain = ELMAN.replace(width=200, blocks=[step])
    measured = pk.propagate(chain, batch=2, replicas=100, engine="dense")
    predicted = pk.predict(chain, batch=2)
    for row in ("log10_mean_square_preactivation", "log10_grad_activation", "log10_grad_weight_total", "similarity"):
        np.testing.assert_allclose(measured.median(row), getattr(predicted, row), atol=0.05, err_msg=row)


def test_it_is_spelled_in_files():
    from pykernel import spelling

    (block,) = spelling.pattern([{"steps": ["linear()", {"drive": 5, "gain": 2.0}, "tanh"]}])
    assert block == Block(Linear(), Drive(5, gain=2.0), "tanh")
    assert spelling.pattern([spelling.plain(block)]) == (block,)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: Drive(0), ValueError, "drive units must be"),
        (
            lambda: pk.propagate(ELMAN, drive=np.ones((5, 5, 2))),
            ValueError,
            "one array a use of a Drive step, 6, got 5",
        ),
        (lambda: pk.propagate(ELMAN, drive=np.ones((6, 4, 2))), ValueError, r"drive\[0\] must have shape \(5, 2\)"),
        (lambda: pk.propagate(ELMAN, drive="x"), TypeError, "drive must be a sequence of arrays"),
        (lambda: pk.propagate(pk.Chain(depth=2, width=3), drive=[]), ValueError, "this one has none"),
        (lambda: pk.propagate(ELMAN, batch=3, drive=np.ones((6, 5, 2))), ValueError, "batch=3 contradicts"),
    ],
)
def test_bad_input(make, kind, message):
    with pytest.raises(kind, match=message):
        make()
