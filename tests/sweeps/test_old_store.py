# SPDX-License-Identifier: BSD-3-Clause
"""A store outlives new words: `data/store-1` was written by version 0.1.0 under stream 1, `data/store-2` with the first
commit of stream 2. Both open and are merged for ever; what was drawn from today's stream is not computed again.
"""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from places import DATA

import pykernel as pk
from pykernel.sweeps import identity, work
from pykernel.sweeps.store import Store, merge

OLD = DATA / "store-2"


def chains():
    """One of everything that a key may describe; functions of NumPy, as the code of others depends on the version of
    Python."""
    base = pk.Chain(depth=3, width=4)
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(5, 3)).round(3), rng.normal(size=(2, 5)).round(3)]
    schemes = (
        "lecun_normal",
        "orthogonal",
        "torch_linear_default",
        "keras_he_normal",
        "identity(1.5)",
        "constant(0.1)",
        "uniform(0.3)",
    )
    drawn = ("sparse(0.5)", "student_t(3)", "stable(1.5)", "truncated_normal(0.2)")
    return [
        base,
        pk.Chain(widths=[3, 5, 2], activation="tanh"),
        *(base.replace(init=init) for init in schemes + drawn),
        base.replace(init=pk.VarianceScaling(1.5, "fan_avg", "uniform"), gain=1.2, bias_std=0.1),
        base.replace(init="fixup", residual=pk.Residual(2)),
        pk.Chain(widths=[3, 5, 2], init=pk.Given(weights, [np.ones(5), np.ones(2)])),
        *(base.replace(activation=name) for name in ("leaky_relu(0.2)", "gelu", "sigmoid")),
        base.replace(activation=pk.Activation(value=np.sin, slope=np.cos, flat=False)),
        base.replace(residual=pk.Residual(1, "inverse_sqrt_depth"), norm="layer", order="norm-activation-linear"),
        base.replace(norm="batch", norm_eps=1e-3),
        *(
            base.replace(clip=clip)
            for clip in (pk.Clip(norm=0.1), pk.Clip(norm=0.1, per_layer=True), pk.Clip(value=0.01))
        ),
        base.replace(head=pk.Head("softmax", 3)),
        base.replace(head=pk.Head("mse", 2, init="uniform(0.5)", targets=[[0.5, 1.0], [0.25, 2.0]])),
    ]


def sweep(grid, store=None, **rest):
    kept = pk.Profiles(rows=("log10_grad_weight",), quantiles=())
    return pk.sweep(grid, batch=2, seed=7, store=store, profiles=kept, backend="reference", progress=False, **rest)


def test_one_of_an_older_stream_opens_and_keeps_what_it_holds(tmp_path, ran):
    """Its cells are not those of today, so a sweep into it computes them beside the old ones."""
    older = Path(shutil.copytree(DATA / "store-1", tmp_path / "older"))
    before = pk.open(older)
    assert before.attrs["complete"] == 1 and before.sizes["chain"] == len(chains())
    parts = {path.name: path.read_bytes() for path in (older / "parts").iterdir()}
    assert_close(sweep(chains(), older, replicas=3), sweep(chains(), replicas=3))
    assert len(ran) == 2 * 3 * len(chains())
    assert all((older / "parts" / name).read_bytes() == held for name, held in parts.items())


@pytest.fixture
def old(tmp_path):
    """A copy that a test may write to."""
    return Path(shutil.copytree(OLD, tmp_path / "old"))


@pytest.fixture
def ran(monkeypatch):
    """(chain, replica) of everything that is computed from here on."""
    found = []
    run = work.run_rows

    def counting(piece, first, count, *rest):
        found.extend((piece.chain, replica) for replica in range(first, first + count))
        return run(piece, first, count, *rest)

    monkeypatch.setattr(work, "run_rows", counting)
    return found


def assert_close(got, expected):
    """The sums of another machine's NumPy differ by roundings, 1e-16 each: hundreds of them stay below 1e-12. What the
    store keeps of theory of a softmax head was a sample, 1 percent from the integral of today."""
    heads = [chain.head.loss if chain.head else None for chain in chains()]
    sampled = np.arange(got.sizes["chain"]) == heads.index("softmax")
    assert set(got.variables) == set(expected.variables)
    for name in expected.data_vars:
        if expected[name].dtype.kind != "f":
            continue
        theory = str(name).startswith(("predicted_", "z_"))  # z is measured less predicted
        a, b = (ds[name].isel(chain=~sampled) if theory else ds[name] for ds in (got, expected))
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12, err_msg=str(name))


def test_it_opens(old):
    ds = pk.open(old)
    assert ds.attrs["complete"] == 1 and ds.sizes["chain"] == len(chains())
    assert_close(ds, sweep(chains(), replicas=3))


def test_it_is_continued_and_nothing_is_computed_again(old, ran):
    assert_close(sweep(chains(), old, replicas=3), pk.open(OLD))
    assert ran == []
    new = pk.Chain(depth=5, width=4)
    continued = sweep([*chains(), new], old, replicas=4)
    assert sorted(r for _, r in ran) == [0, 1, 2] + [3] * (len(chains()) + 1)
    assert {chain for chain, r in ran if r < 3} == {new}
    assert_close(continued, sweep([*chains(), new], replicas=4))


def test_it_is_merged_with_a_store_of_today(old, tmp_path, ran):
    both = [*chains(), pk.Chain(depth=5, width=4)]
    sweep(both[-2:], tmp_path / "new", replicas=3)
    report = merge(Store(tmp_path / "new"), [Store(old)])
    assert report["copied"] > 0 and not report["damaged"]
    ran.clear()
    assert_close(sweep(both, tmp_path / "new", replicas=3), sweep(both, replicas=3))
    assert len(ran) == 3 * len(both)  # those of the sweep without a store


def test_a_new_word_at_its_default_leaves_keys_alone():
    """The same chain described by a class with one more field has the same key, until the field says something."""

    @dataclasses.dataclass(frozen=True)
    class Chain(pk.Chain):
        gate: str | None = None

    Chain.__module__, Chain.__qualname__ = "pykernel.chain", "Chain"
    key = lambda chain: identity.Keys().key(chain, identity.words(seed=0))
    words = dict(depth=3, width=4, residual=pk.Residual(2), head=pk.Head("mse", 1))
    assert key(Chain(**words)) == key(pk.Chain(**words)) != key(Chain(**words, gate="swish"))
    assert (
        identity.describe(Chain(**words))
        == identity.describe(pk.Chain(**words))
        != identity.describe(Chain(**words, gate="swish"))
    )
