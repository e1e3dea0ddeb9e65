# SPDX-License-Identifier: BSD-3-Clause
"""Reports: what is in the file, that nothing in it can break out or ask for anything, and that it is written whole."""

import html
import json
import re

import numpy as np
import pytest
import stand_in

import pykernel as pk
from pykernel.cli import main
from pykernel.sweeps import default, work
from pykernel.webpage import again, document, findings, grids, phases, write

EVIL = "</script><b onload=x>&\"'"
PATTERN = [pk.Block(pk.Norm("layer"), pk.Linear(8), "gelu", pk.Linear(4), skip=1.0)]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(work, "run_rows", stand_in.run_rows)


def swept(grid, base=None, **words):
    return pk.sweep(grid, base or {"width": 4}, **{"replicas": 4, "progress": False, "predict": False, **words})


def data_of(page):
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def test_the_data_are_the_datasets_numbers():
    grid = {"init": ["he_normal", "orthogonal"], "depth": [2, 5, 9]}
    ds = swept(grid, {"width": 32}, predict=True)  # too wide for a layer to die
    told = data_of(write.sweep_page(ds))["grid"]
    assert [axis["name"] for axis in told["axes"]] == ["init", "depth"] and told["x"] == 1
    assert [told["verdicts"][i] for i in told["verdict"]] == ds.verdict.values.ravel().tolist()
    signal = next(q for q in told["quantities"] if q["name"] == "signal_end_to_end")
    middle = np.sort(ds.signal_end_to_end.values, axis=-1)[..., 2].ravel()  # the order statistic at round(1.5)
    np.testing.assert_allclose(signal["mid"], middle, rtol=1e-4)
    np.testing.assert_allclose(
        signal["theory"], ds.predicted_signal_end_to_end_mean.values.ravel(), rtol=1e-4, atol=1e-9
    )
    row = next(row for row in told["profiles"]["rows"] if row["name"] == "log10_grad_activation")
    for cell, where in enumerate(np.ndindex(2, 3)):
        layers = told["profiles"]["layers"][told["profiles"]["group"][cell]]
        assert layers == list(range(grid["depth"][where[1]] + 1))
        found = ds.log10_grad_activation_quantile.values[where][2, : len(layers)]
        np.testing.assert_allclose(row["values"][cell][: len(layers)], found, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("grid", "base"),
    [
        ({"gain": [0.5, 2.0]}, {"width": 4, "depth": 3}),
        ({"activation": ["relu"]}, {"width": 4, "depth": 3}),
        ({("width", "init"): [(4, "he_normal"), (8, "orthogonal")], "depth": [2, 3]}, {}),
        ([pk.Chain(depth=2, width=4), pk.Chain(depth=3, width=4, activation="tanh")], None),
        ({"blocks": {EVIL: PATTERN, "plain": [pk.Linear(4), "tanh"]}, "depth": [1, 2]}, None),
        ({"norm": [None, "layer"], "depth": [2, 3]}, None),
    ],
    ids=["numbers", "one cell", "zipped", "chains", "blocks", "norms"],
)
def test_any_grid_has_a_page(grid, base):
    ds = swept(grid, base if base is not None or not isinstance(grid, dict) else {"width": 4})
    page = write.sweep_page(ds)
    told = data_of(page)["grid"]
    assert np.prod([len(axis["words"]) for axis in told["axes"]]) == len(told["verdict"]) == ds.verdict.size
    for name in ("verdict", "advice", "map", "curve", "cells", "again"):
        assert f'<section id="{name}"' in page and f'href="#{name}"' in page


def test_critical_scales_are_sentences():
    page = write.sweep_page(swept({"activation": ["gelu", "sigmoid"], "depth": [2, 3]}))
    for name in ("gelu", "sigmoid"):
        assert f"Theory, any depth, no biases: {pk.critical_gain(name).note}." in page
    assert "chi_perp chi_par" not in page


def test_labels_stay_text():
    """A pattern's name that would end the script, in HTML and in the data."""
    page = write.sweep_page(swept({"blocks": {EVIL: PATTERN, "plain": [pk.Linear(4), "tanh"]}, "depth": [1, 2]}))
    assert EVIL not in page and html.escape(EVIL) in page
    assert data_of(page)["grid"]["axes"][0]["words"][0] == EVIL
    assert page.count("</script>") == 2 and "<b onload" not in page
    failed = {"key": {"cell": EVIL, "error": EVIL, "traceback": ""}}
    page = write.sweep_page(swept({"depth": [1, 2]}), failed=failed)
    assert EVIL not in page and html.escape(f"{EVIL}: {EVIL}") in page


def test_the_page_asks_for_nothing_and_allows_nothing():
    page = write.sweep_page(swept({"depth": [1, 2]}))
    without_names = page.replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    assert "http" not in without_names.replace("http-equiv", "") and "//" in page
    assert not re.search(r"<(img|iframe|object|embed)\b|@import|url\(|\bsrc=", page)
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', page)
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert document._hash(text) in policy


def test_the_same_numbers_make_the_same_file():
    assert write.sweep_page(swept({"depth": [1, 2]})) == write.sweep_page(swept({"depth": [1, 2]}))


def test_large_grids_are_thinned_and_it_is_said(quick, monkeypatch):
    monkeypatch.setattr(grids, "MOST_CELLS", 50)
    ds = swept({"gain": np.linspace(0.5, 2, 20).tolist(), "depth": [1, 2, 3, 4, 5]}, profiles=False)
    page = write.sweep_page(ds)
    told = data_of(page)["grid"]
    assert len(told["verdict"]) <= 50 and len(told["quantities"][0]["mid"]) == len(told["verdict"])
    assert "10 of 20 values of gain" in page and "kept no profiles" in page
    for room, said in ((1000, "there is no room for"), (400, "have no room here")):
        monkeypatch.setattr(grids, "MOST_NUMBERS", room)
        page = write.sweep_page(swept({"gain": np.linspace(0.5, 2, 20).tolist()}, {"width": 4, "depth": 9}))
        assert said in page


def test_numbers_of_json():
    assert document.plain([1.0, np.nan, np.inf, -np.inf, 0.123456789, 1e300]) == [
        1,
        None,
        "inf",
        "-inf",
        0.12346,
        1e300,
    ]
    assert document.plain([[1.5], [2.0]]) == [[1.5], [2]]


def test_what_it_says_to_run_runs_again(tmp_path, monkeypatch):
    """The command of a page makes the same numbers, and so does its Python."""
    monkeypatch.chdir(tmp_path)
    grid = {"init": ["he_normal", "normal(0.1)"], "depth": [2, 3]}
    ds = swept(grid, {"width": 4, "activation": "tanh", "gain": 0.5}, seed=3, store="out", batch=2)
    command = again.command(ds, "again").replace("\\\n", "").split()
    assert main([word.strip("'") for word in command[1:]] + ["--quiet", "--no-predict"]) == 0
    found = pk.open("again").slope.transpose(*ds.slope.dims)  # flags have an order of their own
    np.testing.assert_array_equal(found.values, ds.slope.values)
    room = {}
    exec(again.python(ds, None), room)
    np.testing.assert_array_equal(room["ds"].slope.values, ds.slope.values)
    zipped = swept({("width", "init"): [(4, "he_normal"), (8, "orthogonal")]}, {"depth": 3})
    assert again.command(zipped, None) == ""
    exec(again.python(zipped, None), room)
    np.testing.assert_array_equal(room["ds"].slope.values, zipped.slope.values)


def test_what_labels_do_not_spell_is_said_and_not_typed():
    ds = swept({"blocks": {"pre": PATTERN, "plain": [pk.Linear(4), "tanh"]}, "depth": [1, 2]})
    assert again.unspelled(ds) == ["blocks"] and again.command(ds, None) == "" and again.one_cell(ds) is None
    assert "Of blocks a sweep keeps names, not objects" in write.sweep_page(ds)


def test_the_default_sweep_is_known(quick):
    ds = swept({name: values[:2] for name, values in default.GRID.items()}, {})
    assert not again.is_default(ds) and again.command(ds, None).startswith("pykernel sweep --activation linear sigmoid")


def test_findings_count_the_cells():
    """W = g I in a linear chain: g^20 is beyond a factor of 1000 for g = 1/2 and 2, g^4 is not."""
    base = {"width": 4, "activation": "linear", "init": "identity"}
    ds = swept({"gain": [0.5, 1.0, 2.0], "depth": [4, 20]}, base)
    said = findings.verdict(ds)
    assert "Of 6 chains 4 keep their gradient, 1 make it vanish and 1 make it explode." in said
    lines = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", line) for line in re.findall(r"<tr>(.*?)</tr>", said)]
    reach, shares = lines[:4], lines[4:]
    assert reach == [["gain", "depth"], ["0.5", "4"], ["1", "20"], ["2", "4"]]
    assert shares[1:] == [
        ["gain 0.5", "50 %", "50 %", "0 %", "0 %"],
        ["gain 1", "100 %", "0 %", "0 %", "0 %"],
        ["gain 2", "50 %", "0 %", "50 %", "0 %"],
        ["depth 4", "100 %", "0 %", "0 %", "0 %"],
        ["depth 20", "33 %", "33 %", "33 %", "0 %"],
    ]
    assert "gain: most cells are stable with 1 (100% of them)." in findings.advice(ds)
    schemes = swept({"init": ["identity(0.5)", "identity(1)", "identity(2)"], "depth": [20, 40]}, base)
    assert "identity(1) keeps the gradient everywhere." in findings.advice(schemes)


@pytest.mark.parametrize(
    ("init", "gain", "scale"),
    [
        ("he_normal", 1.0, 2**0.5),
        ("he_uniform", 1.0, 2**0.5),
        ("orthogonal", 1.5, 1.5),
        ("normal(0.01)", 1.0, 0.08),
        ("torch_linear_default", 1.0, 3**-0.5),
        ("identity(0.5)", 1.0, None),
        ("a user's own", 1.0, None),
    ],
)
def test_weight_scales_of_schemes(init, gain, scale):
    """sigma_w is the standard deviation of a weight times the root of fan in (64)."""
    assert phases.weight_scale(init, 64, gain) == (None if scale is None else pytest.approx(scale))


def test_the_phase_diagram_crosses_where_theory_says():
    (told,) = phases.diagrams(["tanh"], [("he_normal", 2**0.5, 0.0, "he_normal")])
    at_no_bias = [x for line in told["line"] for x, y in line if y < 0.02]
    assert at_no_bias and np.allclose(at_no_bias, pk.critical_gain("tanh").gain, atol=0.1)
    row = told["values"][0]
    assert row[0] < 0 < row[-1] and told["points"][0]["values"][0] > 0


def test_a_network_with_theory_and_chains_around(tmp_path):
    p = pk.propagate(pk.Chain(depth=8, width=16), replicas=5)
    page = pk.report(p, tmp_path / "net.html").read_text()
    told = data_of(page)
    row = told["network"]["rows"][0]
    (line,) = row["series"]
    assert row["name"] == "log10_grad_activation" and line["x"] == list(range(9))
    np.testing.assert_allclose(line["mid"], p.median("log10_grad_activation"), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(line["theory"], pk.predict(p.chain).log10_grad_activation_mean, rtol=1e-3, atol=1e-4)
    assert {axis["name"] for axis in told["grid"]["axes"]} == {"depth", "gain"} and told["phases"][0]["name"] == "relu"
    assert html.escape(p.diagnose().sentence[1:].replace("+-", "±")) in page and "pk.Chain(depth=8" in page


def test_layers_of_blocks_have_their_names(tmp_path):
    chain = pk.Chain(depth=2, width=4, blocks=PATTERN)
    told = data_of(pk.report(chain, tmp_path / "net.html", replicas=3).read_text())["network"]
    weight = next(row for row in told["rows"] if row["name"] == "log10_grad_weight")
    assert [line["name"] for line in weight["series"]] == ["linear1", "linear2"] and told["place"] == "block"


def test_stores_interrupted_and_failed(tmp_path, quick, capsys):
    store = tmp_path / "out"
    ds = swept({"depth": [1, 2]}, store=store)
    for part in (store / "parts").glob("*.part"):
        part.unlink()
    assert main(["report", str(store)]) == 0
    assert capsys.readouterr().out.strip() == str(store / "report.html")
    page = (store / "report.html").read_text()
    assert "The sweep is not finished: 2 cells have no numbers yet" in page and ds.attrs["complete"]


def test_the_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    ds = swept({"depth": [1, 2]})
    target = tmp_path / "here.html"
    target.write_text("before")
    monkeypatch.setattr(write.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match=r"here\.html could not be written"):
        pk.report(ds, target)
    assert [path.name for path in tmp_path.iterdir()] == ["here.html"] and target.read_text() == "before"


@pytest.mark.parametrize(
    ("text", "where", "error"),
    [
        ("net = 3", "net", "needs a store's directory"),
        ("net = 3", "other", "net.py has no other"),
        ("1 / 0", "net", "cannot be loaded: ZeroDivisionError"),
        ("def net(n): return n", "net", "cannot be loaded: TypeError"),
    ],
)
def test_files_that_hold_no_network(tmp_path, monkeypatch, capsys, text, where, error):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(text)
    assert main(["report", f"net.py:{where}"]) == 2
    assert error in capsys.readouterr().err and not list(tmp_path.glob("*.html"))


def test_a_network_in_a_file(tmp_path, monkeypatch, capsys):
    """A function of a file that imports its neighbour; flags reach the run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "neighbour_of_net.py").write_text("DEPTH = 3\n")
    (tmp_path / "net_of_test.py").write_text(
        "import pykernel as pk\nfrom neighbour_of_net import DEPTH\ndef make(): return pk.Chain(depth=DEPTH, width=4)\n"
    )
    assert main(["report", "net_of_test.py:make", "--replicas", "3"]) == 0
    assert capsys.readouterr().out == "make.html\n"
    page = (tmp_path / "make.html").read_text()
    assert data_of(page)["network"]["replicas"] == 3 and "pykernel report net_of_test.py:make --replicas 3" in page
    assert main(["report", "nowhere.py:net"]) == 3 and "no such file" in capsys.readouterr().err
    assert main(["report", "nowhere"]) == 3 and "holds no sweep" in capsys.readouterr().err


CHAIN = pk.Chain(depth=2, width=4)


@pytest.mark.parametrize(("chain", "draws"), [(CHAIN, write.REPLICAS), (pk.Chain(10_000, 10_000), write.FEWEST)])
def test_large_networks_are_drawn_fewer_times(chain, draws):
    """10^12 weights take a thousand seconds a draw, dense; a small network all draws."""
    assert write._replicas(chain, {"engine": "dense", "threads": 1}) == draws


@pytest.mark.parametrize(
    ("of", "words", "error", "said"),
    [
        (3, {}, TypeError, "report needs a store's directory"),
        (CHAIN, {"batsch": 1}, TypeError, "batsch"),
        (CHAIN, {"batch": "two"}, TypeError, "batch must be an int, got 'two'"),
        (CHAIN, {"positions": 2.5}, TypeError, "positions must be"),
        (CHAIN, {"engine": "matrix"}, ValueError, "engine must be one of"),
        ("nowhere", {"batch": 2}, ValueError, "batch"),
    ],
)
def test_bad_input(of, words, error, said, tmp_path):
    with pytest.raises(error, match=said):
        pk.report(of, tmp_path / "x.html", **words)
    assert not list(tmp_path.iterdir())
