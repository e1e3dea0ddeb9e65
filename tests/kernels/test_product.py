# SPDX-License-Identifier: BSD-3-Clause
"""Dense products against NumPy in float64, and their bits: the same for drawn, kept and given weights, any split, any
instruction set."""

import numpy as np
import pytest

from pykernel import stream

kernels = pytest.importorskip("pykernel._core").kernels

MULTIPLY = {np.float32: kernels.multiply_f32, np.float64: kernels.multiply_f64}
GRAM = {np.float32: kernels.gram_f32, np.float64: kernels.gram_f64}
# (rows, columns, batch) around panels of 16, tiles of 4 panels and 64 columns, groups of 6 inputs, 128 panels at a
# time, and tiles turned from 256 inputs on, or 64 with 64 rows at most
SHAPES = [
    (1, 1, 1),
    (16, 16, 2),
    (17, 15, 3),
    (5, 70, 4),
    (100, 129, 5),
    (64, 64, 6),
    (33, 200, 7),
    (65, 66, 33),
    (2070, 33, 8),
    (20, 40, 100),
    (64, 70, 64),
    (140, 75, 256),
    (1, 300, 1),
]
SEED, LAYER, REPLICA, SCALE = 11, 3, 2, 0.75


def case(rows, columns, batch, transposed, dtype):
    x = np.random.default_rng(rows + columns).standard_normal((rows if transposed else columns, batch)).astype(dtype)
    W = stream.matrix(SEED, LAYER, REPLICA, rows, columns).astype(float)
    return x, W.T if transposed else W


def multiply(isa, rows, columns, x, transposed, source="drawn", parts=1):
    return MULTIPLY[x.dtype.type](isa, 0, 0.0, SEED, LAYER, REPLICA, rows, columns, SCALE, x, transposed, source, parts)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_product(shape, transposed, dtype):
    rows, columns, batch = shape
    x, A = case(rows, columns, batch, transposed, dtype)
    outputs = columns if transposed else rows
    z = {isa: multiply(isa, rows, columns, x, transposed) for isa in kernels.isas()}
    first = next(iter(z.values()))
    # a sum of n products, each rounded once: n eps / 2 of the sum of magnitudes (Higham, 2002, eq. 3.5), and the scale
    bound = (A.shape[1] / 2 + 1) * np.finfo(dtype).eps * SCALE * (np.abs(A) @ np.abs(x.astype(float)))
    assert (np.abs(first[:outputs] - SCALE * (A @ x.astype(float))) <= bound).all()
    assert not first[outputs:].any(), "padding is zero"
    for isa, other in z.items():
        np.testing.assert_array_equal(other, first, err_msg=isa)
    for source in ("kept", "given"):
        np.testing.assert_array_equal(
            multiply(kernels.isas()[0], rows, columns, x, transposed, source), first, err_msg=source
        )
    for parts in (2, 3, 1000):
        np.testing.assert_array_equal(
            multiply(kernels.isas()[0], rows, columns, x, transposed, "drawn", parts), first, err_msg=f"{parts} parts"
        )


def test_order_of_summation_is_the_promised_one():
    """Forward: k in order, one accumulator. Backward: panels in order in 16 lanes, then lane j + 8, + 4, + 2, + 1 (one
    input)."""
    rows, columns = 75, 90
    u, W = case(rows, columns, 1, False, np.float32)
    W = W.astype(np.float32)
    z = np.zeros(rows, np.float32)
    for k in range(columns):
        z = stream.fma(W[:, k], np.broadcast_to(u[k], rows), z)
    np.testing.assert_array_equal(multiply(kernels.isas()[0], rows, columns, u, False)[:rows, 0], z * np.float32(SCALE))
    delta, _ = case(rows, columns, 1, True, np.float32)
    padded, d = np.zeros((80, columns), np.float32), np.zeros((80, 1), np.float32)
    padded[:rows], d[:rows] = W, delta
    lanes = np.zeros((16, columns), np.float32)
    for p in range(5):
        lanes = stream.fma(padded[16 * p : 16 * p + 16], np.broadcast_to(d[16 * p : 16 * p + 16], (16, columns)), lanes)
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    np.testing.assert_array_equal(
        multiply(kernels.isas()[0], rows, columns, delta, True)[:columns, 0], lanes[0] * np.float32(SCALE)
    )


def test_order_of_summation_of_many_inputs():
    """Backward with a batch of 7 or more: rows in order, one accumulator; tiles turned or not."""
    rows, columns = 75, 90
    for batch in (7, 11, 33, 260):
        delta, transposed = case(rows, columns, batch, True, np.float32)
        W = transposed.T.astype(np.float32)
        du = np.zeros((columns, batch), np.float32)
        for i in range(rows):
            du = stream.fma(np.repeat(W[i][:, None], batch, 1), np.repeat(delta[i][None], columns, 0), du)
        np.testing.assert_array_equal(
            multiply(kernels.isas()[0], rows, columns, delta, True)[:columns], du * np.float32(SCALE)
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("units", "batch"), [(1, 1), (16, 2), (100, 7), (1024, 33), (50, 16)])
def test_gram(units, batch, dtype):
    x = np.random.default_rng(units).standard_normal((units, batch)).astype(dtype)
    grams = [GRAM[dtype](isa, x) for isa in kernels.isas()]
    exact = x.astype(float)
    # 64 panels in a lane, then four levels of the tree
    bound = (units / 32 + 6) * np.finfo(dtype).eps * (np.abs(exact).T @ np.abs(exact))
    assert (np.abs(grams[0] - exact.T @ exact) <= bound).all()
    for other in grams:
        np.testing.assert_array_equal(other, grams[0])
        np.testing.assert_array_equal(other, other.T)


def test_the_ceiling_of_reads_reads_all():
    x = np.random.default_rng(0).standard_normal(1280).astype(np.float32)
    assert kernels.peak_read(x, 3) == pytest.approx(3 * x.sum(dtype=float), abs=1e-3)
    assert kernels.peak_read(np.eye(1, 1280, 1279, dtype=np.float32)[0], 1) == 1
