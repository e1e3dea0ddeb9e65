# SPDX-License-Identifier: BSD-3-Clause
"""The faces of chains of blocks: tables, names, sweeps and the command line say the numbers of the rows they stand
for."""

import json

import numpy as np
import pytest
from random_chains import random_chain

import pykernel as pk
from pykernel import observables
from pykernel.cli import main
from pykernel.layers import Block, Gated, Linear, Norm
from pykernel.sweeps import report
from pykernel.sweeps.grid import fields_of
from pykernel.verdict import slopes

PRE = Block(Norm("layer"), Linear(24), "gelu", Linear(8), skip=1.0)
POST = Block(Linear(24), "gelu", Linear(8), skip=1.0, after=Norm("layer"))
GATE = Block(Norm("rms"), Gated(12), Linear(8), skip=1.0)
CHAIN = pk.Chain(depth=4, width=6, first=[Linear(8)], blocks=[PRE, GATE], last=["tanh"])
PATTERNS = {
    "pre-norm": [PRE],
    "post-norm": [POST],
    "both": {"first": [Linear(8)], "blocks": [PRE, POST], "last": ["tanh"]},
}
TOML = """
first = ["linear(8)"]
blocks = [{steps = ["norm(layer)", "linear(24)", "gelu", "linear(8)"], skip = 1.0}]
"""


@pytest.fixture(scope="module")
def p():
    return pk.propagate(CHAIN, batch=2, positions=3, replicas=3)


@pytest.mark.parametrize("seed", range(0, 30, 3))
def test_rows_names_and_places_agree_for_any_chain(seed):
    chain = random_chain(seed)
    p = pk.propagate(chain, batch=2, replicas=2, engine="dense", backend="reference")
    counts = chain.extents
    assert (counts.layer, counts.activation) == (len(p.layers), len(p.activations))
    for row in observables.ROWS:
        assert p.rows[row.name].shape == observables.shape(row, 2, counts)
    ds = p.to_xarray()
    assert all(ds[row.name].shape == p.rows[row.name].shape for row in observables.ROWS if p.rows[row.name].size)
    assert ("attention_entropy" in ds) == bool(p.attentions)
    assert str(p)
    json.dumps(p.to_dict(), allow_nan=False)


def test_a_table_tells_which_layer_of_a_block_has_the_smallest_gradient(p):
    median = np.median(p.log10_grad_weight, axis=0)
    lines = {
        int(line.split()[0]): line.split()
        for line in str(p).splitlines()
        if line.strip()[:1].isdigit() and "replica" not in line
    }
    for block in range(1, 10):
        mine = {
            name.partition(".")[2]: m for name, m in zip(p.layers, median, strict=True) if name.startswith(f"{block}.")
        }
        order = sorted(mine, key=mine.__getitem__)
        assert lines[block][5::2] == list(dict.fromkeys([order[0], order[-1]]))
        assert float(lines[block][4]) == pytest.approx(mine[order[0]], rel=2e-3)
    assert len(lines[10]) == 4  # a block of no layers has none
    assert (
        f"smallest {median.min():.4g} in {p.layers[median.argmin()]}, largest {median.max():.4g} in "
        f"{p.layers[median.argmax()]}" in str(p)
    )
    assert all(len(line) <= 90 for line in str(p).splitlines())


def test_the_slope_is_taken_over_ends_of_repetitions(p):
    ends = p.log10_grad_activation[:, [1, 3, 5, 7, 9]]
    assert np.array_equal(p.slope, slopes(ends))
    assert "decades a repetition" in str(p) and "decades a repetition" in p.diagnose().sentence
    assert p.to_xarray().slope.units == "decades/repetition"


def test_arrays_and_tables_carry_names(p):
    ds = p.to_xarray()
    one = ds.log10_grad_weight.sel(layer="3.gate").values
    assert np.array_equal(one, p.log10_grad_weight[:, p.layers.index("3.gate")])
    assert dict(ds.sizes) == {"replica": 3, "layer": 21, "activation": 9, "block": 10, "node": 11}
    layers, steps, blocks = (p.to_dataframe(of) for of in ("layer", "activation", "block"))
    assert layers.layer.tolist() == [*p.layers] * 3 and layers.block.iloc[1] == 2
    assert np.array_equal(steps.saturated, p.saturated.ravel())
    assert np.array_equal(blocks.log10_grad_activation, p.log10_grad_activation[:, 1:].ravel())
    assert p.to_dict()["names"]["layer"] == [*p.layers]


def test_a_failure_names_the_block():
    chain = pk.Chain(depth=200, width=4, blocks=[Block(Linear(4, init="identity(1000)"), skip=1.0)])
    p = pk.propagate(chain, precision="native", replicas=2)
    assert p.failure.place == "block" and f"from block {p.failure.layer} on" in str(p)
    finite = np.isfinite(p.log10_mean_square_activation).all(axis=0)
    assert p.failure.layer == 1 + int(np.argmin(finite))
    with pytest.raises(AssertionError, match="repetition"):
        pk.propagate(chain).assert_healthy()


def test_weights_by_name_and_gradients_with_positions_are_those_of_the_rows():
    p = pk.propagate(CHAIN, batch=2, positions=(2, 2), dtype="float64", engine="dense")
    weights = [pk.weights(CHAIN, layer=name) for name in CHAIN.layers]
    again = pk.propagate(CHAIN, batch=2, positions=(2, 2), dtype="float64", weights=weights)
    assert np.allclose(again.log10_grad_weight, p.log10_grad_weight, rtol=0, atol=1e-12)
    norms = [np.log10(np.linalg.norm(g)) for g in pk.gradients(CHAIN, batch=2, positions=(2, 2))]
    assert np.allclose(norms, p.log10_grad_weight[0], rtol=0, atol=1e-12)


def test_a_sweep_of_patterns_has_the_numbers_of_single_runs(tmp_path):
    base = pk.Chain(width=8, depth=1)
    ds = pk.sweep(
        {"blocks": PATTERNS, "gain": [0.5, 1.0], "depth": [2, 3]}, base, replicas=5, store=tmp_path, progress=False
    )
    assert ds.blocks.values.tolist() == list(PATTERNS)
    for name, pattern in PATTERNS.items():
        fields = fields_of(pattern if isinstance(pattern, dict) else {"blocks": pattern})
        p = pk.propagate(pk.Chain(depth=3, width=8, gain=0.5, **fields), replicas=5)
        cell = ds.sel(blocks=name, gain=0.5, depth=3)
        for word in ("slope", "end_to_end", "signal_end_to_end"):
            assert np.array_equal(cell[word], getattr(p, word))
        for row, begin in (("log10_grad_weight", 1), ("log10_grad_activation", 0), ("saturated", 1)):
            mean, own = cell[f"{row}_mean"].values, p.rows[row].mean(axis=0)
            assert np.allclose(mean[begin : begin + len(own)], own, rtol=0, atol=1e-12)
            assert np.isnan(mean[begin + len(own) :]).all()
    assert ds.slope.units == "decades per repetition" and "a repetition" in report.table(ds, 100)
    again = pk.sweep(
        {"blocks": PATTERNS, "gain": [0.5, 1.0], "depth": [2, 3]}, base, replicas=5, store=tmp_path, progress=False
    )
    assert again.identical(ds) and pk.open(tmp_path).identical(ds)
    renamed = {"blocks": {"a": [PRE], "b": [POST]}, "gain": [0.5], "depth": [2]}
    before = len(list(tmp_path.glob("parts/*")))
    pk.sweep(renamed, base, replicas=5, store=tmp_path, progress=False)  # another name is no other chain
    assert len(list(tmp_path.glob("parts/*"))) == before


def test_positions_and_lists_by_layer_are_axes():
    ds = pk.sweep({"positions": [1, 3, (2, 2)]}, CHAIN, replicas=3, batch=2, progress=False)
    p = pk.propagate(CHAIN, replicas=3, batch=2, positions=(2, 2))
    assert np.array_equal(ds.slope.sel(positions="(2, 2)"), p.slope)
    ds = pk.sweep(
        {"activation": [["relu", "tanh"], "relu"], "gain": [[1.0, 1.5], 1.0]},
        pk.Chain(depth=2, width=8),
        replicas=2,
        progress=False,
    )
    one = pk.propagate(pk.Chain(depth=2, width=8, activation=["relu", "tanh"], gain=[1.0, 1.5]), replicas=2)
    assert np.array_equal(ds.end_to_end.sel(activation="relu, tanh", gain="1, 1.5"), one.end_to_end)


def test_what_a_block_says_is_swept_from_the_base():
    base = pk.Chain(depth=3, width=8, blocks=[Block(Norm("layer"), Linear(12), "tanh", Linear(8), skip=1.0)])
    grid = {
        "init": ["he_normal", "orthogonal"],
        "bias_std": [0.0, 0.5],
        "norm_eps": [1e-5, 10.0],
        "head": [None, pk.Head("mse", 2)],
    }
    ds = pk.sweep(grid, base, replicas=2, profiles=False, progress=False)
    assert len(np.unique(ds.end_to_end.values)) == ds.end_to_end.size  # every word reaches the numbers
    other = pk.propagate(
        base.replace(init="orthogonal", bias_std=0.5, norm_eps=10.0, head=pk.Head("mse", 2)), replicas=2
    )
    assert np.array_equal(ds.end_to_end.values[1, 1, 1, 1], other.end_to_end)


def test_plans_and_the_command_line_take_patterns(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlp.toml").write_text(TOML)
    (tmp_path / "plain.toml").write_text('blocks = ["linear(6)", "tanh"]\n')
    assert main(["run", "--blocks", "mlp.toml", "--width", "6", "--depth", "3", "--positions", "2,3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    chain = pk.Chain(depth=3, width=6, first=[Linear(8)], blocks=[PRE])
    assert found["slope"] == pk.propagate(chain, positions=(2, 3), replicas=10).median("slope")
    assert main(["predict", "--blocks", "mlp.toml", "--width", "6", "--positions", "4"]) == 0
    words = ["--width", "6", "--depth", "2", "3", "--replicas", "3", "--no-predict", "--quiet", "--store", "out"]
    assert main(["sweep", "--blocks", "mlp.toml", "plain.toml", *words]) == 0
    ds = pk.open("out")
    assert ds.blocks.values.tolist() == ["mlp", "plain"]
    assert np.array_equal(ds.slope.sel(blocks="mlp", depth=3), pk.propagate(chain, replicas=3).slope)
    plan = (
        "replicas = 3\npositions = 2\n[base]\nwidth = 6\n[patterns.mlp]"
        + TOML
        + '[grid]\nblocks = ["mlp"]\ndepth = [2, 3]\n'
    )
    (tmp_path / "plan.toml").write_text(plan)
    assert main(["sweep", "plan.toml", "--quiet", "--store", "other"]) == 0
    assert np.array_equal(
        pk.open("other").slope.sel(blocks="mlp", depth=3), pk.propagate(chain, positions=2, replicas=3).slope
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('blocks = ["linear(8", "tanh"]', ("bad.toml", "blocks", "linear(8")),
        ('blocks = [{linear = 8, int = "he_normal"}]', ("bad.toml", "blocks", "did you mean 'init'")),
        ('block = ["tanh"]', ("bad.toml", "'block'", "did you mean 'blocks'")),
        ('first = ["tanh"]', ("bad.toml", "needs blocks")),
        ('blocks = ["linear()"]\nlast = [3]', ("bad.toml", "last", "3")),
        ("blocks = 3", ("bad.toml", "blocks", "3")),
        ("blocks = [", ("bad.toml", "no TOML")),
    ],
)
def test_a_file_of_blocks_is_refused_by_file_and_key(text, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text(text)
    assert main(["run", "--blocks", "bad.toml", "--width", "8"]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words) and said.count("bad.toml") == 1 and said.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[grid]\nblocks = ["pre"]', "blocks must name patterns of [patterns.NAME] tables (none"),
        ('[patterns.a]\nblocks = ["linear()"]\n[grid]\nblocks = ["b"]', "(a), got 'b'"),
        ("[patterns]\na = 3\n[grid]\ndepth = [1]", "[patterns.a] must be a table"),
        ('[patterns.a]\nblocks = ["linnear()"]\n[grid]\nblocks = ["a"]', "[patterns.a] blocks: "),
        ('[patterns.a]\nblock = ["linear()"]\n[grid]\nblocks = ["a"]', "did you mean 'blocks'"),
        ('[grid]\nfirst = ["a"]', "first"),
        ("positions = 0\n[base]\nwidth = 4\n[grid]\ndepth = [1]", "positions"),
    ],
)
def test_a_plan_is_refused_by_file_and_key(text, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.toml").write_text(text)
    assert main(["sweep", "plan.toml", "--quiet"]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["gradient", "weights", "factors", "distribution"])
def test_figures_show_the_numbers_by_name(p, kind):
    import matplotlib.pyplot as plt

    ax = p.plot(kind=kind)
    labels = ax.get_legend_handles_labels()[1]
    if kind in ("weights", "factors"):
        assert {"1.linear", "1.linear1 of the pattern", "2.gate of the pattern"} <= set(labels)
        line = next(line for line in ax.lines if line.get_label() == "2.gate of the pattern")
        row = p.log10_grad_weight if kind == "weights" else p.log10_weight_factor
        assert np.array_equal(line.get_ydata(), [np.median(row[:, p.layers.index(f"{b}.gate")]) for b in (3, 5, 7, 9)])
    plt.close(ax.figure)


def test_end_to_end_compares_repetitions_with_each_other():
    """The layers of one block differ by decades at any depth: first minus last layer would tell of the pattern."""
    mlp = pk.Block(pk.Norm("layer"), pk.Linear(24, gain=1e3), "tanh", pk.Linear(8, gain=1e-3), skip=1.0)
    chain = pk.Chain(depth=6, width=8, first=[pk.Linear(8)], blocks=[mlp], last=[pk.Linear(3)])
    p = pk.propagate(chain, batch=2, replicas=3)
    total = lambda layers: np.log10(np.sqrt((10.0 ** (2 * p.log10_grad_weight[:, layers])).sum(axis=1)))
    np.testing.assert_allclose(p.end_to_end, total(slice(1, 3)) - total(slice(11, 13)), rtol=1e-12)
    assert abs(np.median(p.log10_grad_weight[:, 1] - p.log10_grad_weight[:, 12])) > 3
    assert p.verdict == pk.predict(chain, batch=2).verdict == "stable"
    ds = pk.sweep({"batch": [2]}, chain, replicas=3, progress=False, predict=False)
    np.testing.assert_array_equal(np.sort(ds.end_to_end.values.ravel()), np.sort(p.end_to_end))
    once = chain.replace(depth=1)
    q = pk.propagate(once, replicas=2)
    np.testing.assert_array_equal(q.end_to_end, q.log10_grad_weight[:, 0] - q.log10_grad_weight[:, -1])
