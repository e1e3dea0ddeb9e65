# SPDX-License-Identifier: BSD-3-Clause
"""The random stream: Philox's published answers, the map from addresses to counters, and the compiled draws bit for
bit."""

import numpy as np
import pytest

from pykernel import stream
from pykernel.distributions import INDEPENDENT

kernels = pytest.importorskip("pykernel._core").kernels

CASES = [
    ("normal", 0),
    ("uniform", 0),
    ("truncated", 0),
    ("sparse", 0.25),
    ("sparse", 1.0),
    ("student", 1.0),
    ("student", 3.5),
]
CASES += [("stable", 0.5), ("stable", 1.0), ("stable", 1.7), ("stable", 2.0)]
TALL = ["normal", "uniform", "bit"]


def words(counter, seed):
    return [f"{int(w):08x}" for w in stream.philox(counter, seed)]


def test_philox_gives_the_published_answers():
    assert words((0, 0, 0, 0), 0) == ["5f6fb709", "0d893f64", "4f121f81", "4f730a48"]
    assert words((0xFFFFFFFF,) * 4, 2**64 - 1) == ["5207ddc2", "45165e59", "4d8ee751", "8c52f662"]
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert words(pi, 0x299F31D0 << 32 | 0xA4093822) == ["4dfccaba", "190a87f0", "c47362ba", "b6b5242a"]


@pytest.mark.parametrize("isa", kernels.isas())
@pytest.mark.parametrize(("distribution", "parameter"), CASES)
def test_compiled_draws_have_the_bits_of_the_definition(isa, distribution, parameter):
    # shapes around the 16 rows of a panel, the 4 columns of a block, the 64 columns of a tile; the largest seed, layer
    # and replica
    for rows, columns, seed, layer, replica in [
        (1, 1, 0, 1, 0),
        (17, 67, 2**64 - 1, 2**24 - 1, 2**32 - 1),
        (40, 130, 12345 << 20, 7, 9),
    ]:
        want = stream.matrix(seed, layer, replica, rows, columns, distribution, parameter)
        got = kernels.draws(isa, INDEPENDENT.index(distribution), parameter, seed, layer, replica, rows, columns)
        np.testing.assert_array_equal(got.view(np.uint32), np.ascontiguousarray(want).view(np.uint32))


@pytest.mark.parametrize("isa", kernels.isas())
def test_compiled_tall_arrays_have_the_bits_of_the_definition(isa):
    for units, columns in [(1, 1), (64, 2), (130, 3)]:
        for purpose in (stream.BIAS, stream.FORWARD):
            for kind in ("normal", "uniform"):
                got = kernels.tall(isa, TALL.index(kind), 2**63 + 5, purpose, 11, 3, units, columns)
                np.testing.assert_array_equal(got[:units], stream.tall(2**63 + 5, purpose, 11, 3, units, columns, kind))
                assert not got[units:].any()
        got = kernels.tall(isa, TALL.index("bit"), 2**63 + 5, stream.TARGET, 11, 3, units, columns)
        np.testing.assert_array_equal(got[:units], stream.bits(2**63 + 5, 11, 3, units, columns))


def test_addresses_do_not_share_counters():
    """Every word of a matrix, a tall array and their neighbours (layer, replica, purpose) is its own: 32-bit collisions
    stay at chance."""
    seen = [
        stream.matrix_words(3, stream.WEIGHT, layer, replica, 40, 40).ravel() for layer in (1, 2) for replica in (0, 1)
    ]
    seen += [
        stream.tall_words(3, purpose, 1, 0, 200, 8).ravel()
        for purpose in (stream.BIAS, stream.FORWARD, stream.BACKWARD)
    ]
    every = np.concatenate(seen)
    # n^2 / 2^33 = 0.01 pairs are expected by chance among the 11 200 words; a shared block would repeat four
    assert every.size - np.unique(every).size < 3


def test_moments_of_unit_draws():
    """Mean and mean square within 5 standard errors of their laws; the truncated normal's standard deviation is .87963
    (Johnson, Kotz)."""
    n = 512
    laws = {
        "normal": (1.0, 3.0),
        "uniform": (1 / 3, 1 / 5),
        "truncated": (0.7737413, 1.4164884),
        "sparse": (0.25, 0.75),
    }
    for distribution, (square, fourth) in laws.items():
        x = kernels.draws(kernels.isas()[0], INDEPENDENT.index(distribution), 0.25, 99, 1, 0, n, n).astype(float)
        assert abs(x.mean()) < 5 * np.sqrt(square) / n
        assert abs((x**2).mean() - square) < 5 * np.sqrt(fourth - square**2) / n
