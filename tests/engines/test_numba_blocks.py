# SPDX-License-Identifier: BSD-3-Clause
"""Chains of blocks in the Numba backend: ops against the reference, at any magnitude, the same bits on every way."""

import numpy as np
import pytest
from random_chains import random_chain

from pykernel.chain import Chain
from pykernel.engines import numba_dense, numba_records, reference
from pykernel.kernels import ops as kernel_ops
from pykernel.layers import Block, Dropout, Gated, Linear, Norm, Scale
from pykernel.lower import lower
from pykernel.ops import OPS

SEED = (3 << 33) + 7
# Ways to run one network: the tape in segments, weights drawn again, products cut among threads.
WAYS = {
    "from checkpoints": {"TAPE_BYTES": 0},
    "a few repetitions at a time": {"TAPE_BYTES": 3000},
    "drawn again": {"KEPT_BYTES": 0},
    "some kept": {"KEPT_BYTES": 4000},
    "cut among threads": {"SPLIT_WEIGHTS": 1},
    "cut, from checkpoints": {"SPLIT_WEIGHTS": 1, "TAPE_BYTES": 0},
}


def compare(program, tolerance):
    """Every row against the reference, relative, or absolute below 1.

    Biases that a batch norm cancels are rounding noise; factors are differences of logs, of whatever size those are.
    """
    found, expected = numba_dense.run(program, 1, 2), reference.run(program, 1, 2)
    logs = max(np.abs(a[np.isfinite(a)]).max(initial=0) for name, a in expected.items() if name.startswith("log10"))
    for name, a in expected.items():
        assert found[name].shape == a.shape, name
        noise = a < expected["log10_grad_preactivation"] - 12 if name == "log10_grad_bias" else np.zeros(a.shape, bool)
        rounding = 4e-16 * logs if name.endswith("factor") else 0.0
        b, a = (np.where(noise, 0, array) for array in (found[name], a))
        np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance + rounding, err_msg=name)


def test_the_tables_of_ops_agree():
    assert list(kernel_ops.OPS) == list(OPS)


@pytest.mark.parametrize("seed", range(30))
def test_random_chains_agree_with_the_reference(seed):
    program = lower(random_chain(seed), batch=3, positions=() if seed % 2 else (2,), seed=SEED, dtype="float64")
    compare(program, 1e-11)  # some twenty layers of a few eps, norms of 18 columns among them


@pytest.mark.parametrize("seed", range(0, 30, 3))
def test_bits_of_blocks_do_not_depend_on_what_is_kept(seed, monkeypatch):
    program = lower(random_chain(seed), batch=3, seed=SEED)
    base = numba_dense.run(program, 1, 2)
    for way, constants in WAYS.items():
        with monkeypatch.context() as patch:
            for name, value in constants.items():
                patch.setattr(numba_dense, name, value)
            found = numba_dense.run(program, 1, 2, threads=3)
        for name, array in base.items():
            assert np.array_equal(found[name], array, equal_nan=True), (way, name)


FAR = {
    "gates explode": (100, [Block(Gated(9, "silu"), Linear(8))]),
    "gates collapse": (0.01, [Block(Gated(9, "silu"), Linear(8))]),
    "gates beyond the slope of a sigmoid": (1000, [Block(Gated(9, "sigmoid"), Linear(8))]),
    "gates beside a skip": (3, [Block(Gated(9, "gelu"), Linear(8), skip=1.0)]),
    "factors": (1, [Block(Linear(8), "tanh", Scale(1e30), skip=1e-20, scale=1e10), Block(Linear(8), Scale(1e-200))]),
    "norms": (
        1,
        [
            Block(Norm("layer"), Linear(8, gain=1e40), skip=1e20),
            Block(Linear(8, gain=1e-30), Norm("layer", eps=1e-25), skip=1.0, after=Norm("rms")),
        ],
    ),
    "trained norms": (
        1,
        [Block(Norm("layer", weight=[1e30, -2e200] * 4, bias=[1e30, 0.0] * 4), Linear(8), Norm("rms", weight=1e-270))],
    ),
    "dropout": (1, [Block(Linear(8), "relu", Dropout(0.2), Scale(1e-20), skip=1e-21)]),
    "nothing is left": (1, [Block(Linear(8), Scale(0.0), Gated(8), skip=1.0)]),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FAR)
def test_blocks_at_any_magnitude(name, dtype):
    """One input: columns of very different size would lose digits, see docs/design.md section 4."""
    gain, blocks = FAR[name]
    program = lower(Chain(width=8, depth=14, gain=gain, blocks=blocks), seed=SEED, dtype=dtype)
    # A gate doubles the relative error of what comes in: 2^14 eps, of the mean's value as well.
    compare(program, 3e-3 if dtype == "float32" else 1e-9)


def test_more_gates_than_an_exponent_can_follow():
    """Each squares the magnitude: beyond 2^(2^61) it is inf (then nan), with a small gain 0, never a wrong number."""
    for gain, end in ((100, np.inf), (0.01, -np.inf)):
        program = lower(Chain(width=4, depth=70, gain=gain, blocks=[Block(Gated(4, "linear"))]), seed=SEED)
        row = numba_dense.run(program, 0, 1)["log10_mean_square_activation"][0]
        beyond = int(np.argmax(~np.isfinite(row)))
        assert 50 < beyond < 65 and row[beyond] == end and not np.isfinite(row[beyond:]).any()
        assert (np.diff(np.sign(gain - 1) * row[:beyond]) > 0).all()


def test_memory_follows_from_what_ops_keep():
    """A norm alone keeps its block, dropout and factors nothing; checkpoints replace a tape that is too long."""
    tape = lambda *steps: int(np.prod(sizes(Chain(width=64, depth=100, blocks=[Block(*steps)]))["tape"][0]))
    bare = tape(Linear(64))
    assert tape(Linear(64), Dropout(0.1), Scale(2.0)) == bare
    assert tape(Linear(64), Norm("rms")) > bare + 100 * 64 * 4
    long = lower(Chain(width=64, depth=10**5, blocks=[Block(Gated(64), Linear(64), skip=1.0)]), batch=64)
    huge = lower(Chain(width=2**31 - 64, depth=1000), batch=2**31 - 1)
    assert numba_dense.memory(huge, 1) > 2**64
    assert numba_dense.memory(long, 1) < 2**30  # of 10^5 blocks of three inputs and two gates of 64 x 64 numbers, 8 GiB


def sizes(chain):
    return numba_records.sizes(lower(chain), 1, (2**40, 0))[0]
