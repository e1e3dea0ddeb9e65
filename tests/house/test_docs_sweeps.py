# SPDX-License-Identifier: BSD-3-Clause
"""The page on sweeps says what runs."""

import re

import numpy as np
import pytest
import stand_in
from places import ROOT

import pykernel as pk
from pykernel.cli import plans
from pykernel.sweeps import work

PAGE = (ROOT / "docs" / "sweeps.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_python_on_the_page_runs(monkeypatch):
    monkeypatch.setattr(work, "run_rows", stand_in.run_rows)
    ran = 0
    for block in blocks("python"):
        if "import pykernel as pk" in block:
            exec(compile(block, "docs/sweeps.md", "exec"), {})
            ran += 1
    assert ran == 2


def test_the_toml_on_the_page_is_a_sweep(tmp_path, monkeypatch):
    monkeypatch.setattr(work, "run_rows", stand_in.run_rows)
    (block,) = blocks("toml")
    (tmp_path / "study.toml").write_text(block)
    given = plans.read(str(tmp_path / "study.toml"))
    assert given["until"] == pk.StandardError("slope", 0.001) and len(given["grid"]["gain"]) == 16
    given.update(store=None, until=None, replicas=2)
    given["grid"] |= {"depth": [2], "gain": [1.0]}
    ds = pk.sweep(**given, progress=False)
    assert dict(ds.verdict.sizes) == {"depth": 1, "gain": 1, "init": 3, "bias_std_correlation": 2}


def test_every_profile_of_every_replica_can_be_kept(monkeypatch):
    monkeypatch.setattr(work, "run_rows", stand_in.run_rows)
    ds = pk.sweep(
        {"depth": [2, 3], "batch": [1, 2]},
        {"width": 4},
        replicas=5,
        profiles="replicas",
        progress=False,
        backend="reference",
    )
    each = ds.log10_grad_weight_replica
    assert each.dims == ("depth", "batch", "replica", "layer")
    np.testing.assert_array_equal(each.sel(depth=3, layer=3).values, ds.log10_grad_weight_last.sel(depth=3).values)
    np.testing.assert_allclose(each.mean("replica").values, ds.log10_grad_weight_mean.values, rtol=1e-13)
    assert np.isnan(each.sel(layer=0)).all() and np.isnan(each.sel(depth=2, layer=3)).all()


@pytest.mark.filterwarnings("ignore:All-NaN")
def test_quantiles_of_any_row_can_be_kept(monkeypatch):
    monkeypatch.setattr(work, "run_rows", stand_in.run_rows)
    words = {"replicas": 7, "progress": False, "backend": "reference"}
    grid = {"depth": [2, 3], "batch": [1, 2]}
    ds = pk.sweep(grid, {"width": 4}, profiles=["similarity", "saturated"], **words)
    each = pk.sweep(
        grid, {"width": 4}, profiles=pk.Profiles(rows=("saturated",), replicas=True), **words
    ).saturated_replica
    expected = each.quantile([0.05, 0.25, 0.5, 0.75, 0.95], "replica", method="hazen").transpose(
        *ds.saturated_quantile.dims
    )
    # interpolation in another order
    np.testing.assert_allclose(ds.saturated_quantile.values, expected.values, rtol=1e-12)
    assert np.isnan(ds.saturated_quantile.sel(layer=0)).all()  # a row of layers has no value at the input
    assert np.isnan(ds.similarity_quantile.sel(batch=1)).all()
    assert set(pk.Profiles(rows=("dead",)).quantiles) == {"dead"} and len(pk.Profiles.of("all").quantiles) == 2
