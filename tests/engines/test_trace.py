# SPDX-License-Identifier: BSD-3-Clause
"""trace gives exponent and norm op by op, alike in two backends, and names the op at which they part."""

import numpy as np
import pytest
from random_chains import random_chain

import pykernel as pk
from pykernel.ops import OPS

MLP = pk.Block(pk.Norm("layer"), pk.Linear(12), "tanh", pk.Dropout(0.2), pk.Linear(8), skip=1.0)
GATED = pk.Block(pk.Norm("rms"), pk.Gated(10, "silu"), pk.Scale(0.5), pk.Linear(8), skip=0.7, after="relu")
BLOCKS = pk.Chain(depth=3, width=8, blocks=[MLP, GATED], head=pk.Head("mse", 2))


def test_norms_are_those_of_the_rows():
    t = pk.trace(BLOCKS, batch=3, dtype="float64")
    p = pk.propagate(BLOCKS, batch=3, dtype="float64", backend="reference", engine="dense")
    nodes = [entry.log10_norm for entry in t.entries if entry.direction == "forward" and entry.op.endswith(".node")]
    squares = 2 * np.array(nodes) - np.log10(8 * 3)
    np.testing.assert_allclose(squares, p.log10_mean_square_activation[0], rtol=0, atol=1e-12)
    assert t.entries[-1].log10_norm == pytest.approx(p.log10_grad_activation[0, 0], abs=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_two_backends_agree_op_by_op(seed):
    t = pk.trace(random_chain(seed), batch=3, dtype="float64", against="cpp")
    assert t.difference is None, str(t)
    assert len({entry.direction for entry in t.entries}) == 2


FORMATS = (
    pk.Formats("bfloat16", "float16"),
    pk.Formats("float16", "bfloat16", "float8_e5m2", loss_scale=16),
    pk.Formats(signals="float8_e4m3fn", gradients="float16", loss_scale=1024),
)


@pytest.mark.parametrize("seed", range(30))
def test_two_backends_agree_op_by_op_in_formats(seed):
    """What every op stores; every other chain has attention. Sums of thirds in which the last bit decides a tie (see
    words/test_formats) occur in two of these chains, backward through attention."""
    attention = seed % 2 == 0 and seed not in (12, 24)
    chain = random_chain(seed, attention=attention)
    for formats in FORMATS:
        words = dict(batch=3, positions=4 if attention else (), dtype="float64", formats=formats)
        t = pk.trace(chain, against="cpp", **words)
        assert t.difference is None, str(t)


def test_entries_are_what_is_stored_and_without_the_loss_scale():
    formats = FORMATS[1]
    t = pk.trace(BLOCKS, batch=3, dtype="float64", formats=formats)
    p = pk.propagate(BLOCKS, batch=3, dtype="float64", backend="reference", engine="dense", formats=formats)
    nodes = [entry.log10_norm for entry in t.entries if entry.direction == "forward" and entry.op.endswith(".node")]
    np.testing.assert_allclose(2 * np.array(nodes) - np.log10(8 * 3), p.log10_mean_square_activation[0], atol=1e-12)
    assert t.entries[-1].log10_norm == pytest.approx(p.log10_grad_activation[0, 0], abs=1e-12)


@pytest.mark.parametrize("engine", ["dense", "matrix_free"])
def test_exponents_beyond_float_range_and_the_matrix_free_engine(engine):
    t = pk.trace(pk.Chain(depth=40, width=8, gain=1e30), engine=engine, dtype="float64", against="cpp")
    assert t.difference is None, str(t)
    assert t.entries[-1].exponent > 3000


@pytest.mark.parametrize(
    ("kind", "way", "op"),
    [
        ("phi", "forward", "1.tanh"),
        ("gate", "forward", "2.silu"),
        ("phi", "backward", "6.after.relu"),
        ("add", "forward", "1.add"),
    ],
)
def test_a_fault_is_found_at_its_op(monkeypatch, kind, way, op):
    right = getattr(OPS[kind], way)

    def wrong(run, op, *rest):
        found = right(run, op, *rest)
        blocks, register = (run.registers, op.out) if way == "forward" else (run.gradients, op.ins[0])
        blocks[register] = blocks[register].times(1.01)
        return found

    monkeypatch.setattr(OPS[kind], way, wrong)
    t = pk.trace(BLOCKS, batch=3, dtype="float64", against="cpp")
    mine, other = t.difference
    assert (mine.op, mine.direction) == (op, way)
    assert mine.log10_norm - other.log10_norm == pytest.approx(np.log10(1.01), abs=1e-9)
    assert f"differ first in {op}, {way}" in str(t)
    assert list(t.to_dataframe().columns[-2:]) == ["exponent_cpp", "log10_norm_cpp"]


def test_the_caller_learns_what_has_no_trace():
    with pytest.raises(ValueError, match='backend="numba" keeps no trace'):
        pk.trace(pk.Chain(depth=2, width=4), backend="numba")
    with pytest.raises(ValueError, match="replica"):
        pk.trace(pk.Chain(depth=2, width=4), replica=-1)


def test_long_traces_are_told_short():
    t = pk.trace(pk.Chain(depth=100, width=4), against="cpp")
    assert len(str(t).splitlines()) < 60
    assert "..." in str(t)
