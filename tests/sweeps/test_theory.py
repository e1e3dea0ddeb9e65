# SPDX-License-Identifier: BSD-3-Clause
"""The theory that a sweep puts beside its measurements: the same numbers as `predict`, kept, joined, and never in the
way."""

import signal
import threading
import time

import numpy as np
import pytest

import pykernel as pk
from pykernel.sweeps.store import Store, merge


def test_theory_stands_beside_the_measurement(tmp_path):
    """He-ReLU, exact law: z is standard normal, so 4 bounds it; what has no theory has a reason; stores keep and join
    all of it."""
    grid = {"init": ["he_normal", "lecun_normal", pk.Constant(0.1)], "depth": [5, 20]}
    ds = pk.sweep(grid, pk.Chain(depth=1, width=16), replicas=30, store=tmp_path / "a", progress=False)
    expected = pk.predict(pk.Chain(depth=20, width=16))
    he = ds.isel(init=0, depth=1)
    assert float(he.predicted_slope) == expected.slope_mean
    assert float(he.predicted_signal_end_to_end_std) == expected.signal_end_to_end_std
    law = expected.signal_end_to_end_std, he.signal_end_to_end.values.std(ddof=1)
    z = (he.signal_end_to_end.values.mean() - expected.signal_end_to_end_mean) / (max(law) / 30**0.5)
    assert float(he.z_signal_end_to_end) == pytest.approx(z)
    assert (np.abs(ds.z_slope.isel(init=[0, 1])) < 4).all()
    assert str(he.theory.values).startswith("exact")
    assert ds.theory.isel(init=2, depth=0).item().startswith("none: mean field needs")
    assert np.isnan(ds.predicted_slope.isel(init=2)).all()
    assert "predicted_slope" not in pk.sweep(
        grid, pk.Chain(depth=1, width=16), replicas=2, predict=False, progress=False
    )
    for share in (1, 2):
        pk.sweep(
            grid,
            pk.Chain(depth=1, width=16),
            replicas=30,
            store=tmp_path / f"s{share}",
            shard=(share, 2),
            progress=False,
        )
    merge(Store(tmp_path / "both"), [Store(tmp_path / "s1"), Store(tmp_path / "s2")])
    assert pk.open(tmp_path / "both").identical(ds)


def test_a_function_that_theory_cannot_take_costs_no_sweep(monkeypatch):
    def fails(*args, **words):
        raise OverflowError("too steep")

    monkeypatch.setattr("pykernel.theory.predict.predict", fails)
    ds = pk.sweep({"depth": [2]}, pk.Chain(depth=2, width=4), replicas=2, progress=False)
    assert ds.theory.item() == "none: OverflowError: too steep"
    assert np.isfinite(ds.slope).all()


def _slow(*args, **words):
    time.sleep(0.3)
    raise ValueError("slow")


def test_theory_that_takes_long_is_left_out_and_said(monkeypatch, tmp_path, capsys):
    """The numbers do not wait for theory that nobody asked for; the next run goes on with it."""
    monkeypatch.setattr("pykernel.theory.predict.predict", _slow)
    monkeypatch.setattr("pykernel.sweeps.drive.PATIENCE", 0.1)
    grid = {"depth": list(range(1, 9))}
    ds = pk.sweep(grid, {"width": 4}, replicas=2, store=tmp_path, progress=True)
    left = int(np.char.startswith(ds.theory.values.astype(str), "not computed").sum())
    assert left >= 6  # of eight, in a second at the most
    assert f"theory of {left} cells is left out; --predict (predict=True) asks for it" in capsys.readouterr().err
    assert (ds.replicas == 2).all()
    all_of_it = pk.sweep(grid, {"width": 4}, replicas=2, store=tmp_path, predict=True, progress=False)
    assert (all_of_it.theory == "none: slow").all()


@pytest.mark.parametrize("kept", [False, True])
def test_stopped_while_theory_is_computed_the_numbers_are_there(monkeypatch, tmp_path, kept):
    monkeypatch.setattr("pykernel.theory.predict.predict", _slow)
    threading.Timer(1.0, signal.raise_signal, [signal.SIGINT]).start()
    grid = {"depth": list(range(1, 21))}
    base = {"width": 4, "activation": "tanh"}  # of which no unit dies
    with pytest.raises(KeyboardInterrupt, match=r"every number finished; theory of .* cells is left out") as stopped:
        pk.sweep(grid, base, replicas=2, store=tmp_path if kept else None, predict=True, progress=False)
    assert np.isfinite(stopped.value.dataset.slope.isel(depth=slice(1, None))).all()
    assert (stopped.value.dataset.replicas == 2).all()
