# SPDX-License-Identifier: BSD-3-Clause
"""The command line: words in, tables and exit codes out; figures that are drawn and read."""

import inspect
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import stand_in
from matplotlib.figure import Figure

import pykernel as pk
from pykernel import embed
from pykernel.cli import main, words
from pykernel.sweeps import default, executors, report, work
from pykernel.sweeps.store import Store

SMALL = [
    "--depth",
    "2",
    "3",
    "--width",
    "4",
    "--init",
    "he_normal",
    "lecun_normal",
    "--replicas",
    "6",
    "--backend",
    "reference",
]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(work, "run_rows", stand_in.run_rows)


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["run"],
        ["train"],
        ["sweep"],
        ["status"],
        ["merge"],
        ["export"],
        ["plot"],
        ["report"],
        ["predict"],
        ["recommend"],
        ["critical"],
    ],
)
def test_help_fits_80_columns(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([*command, "--help"])
    assert left.value.code == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_every_example_in_the_help_is_understood(capsys):
    from pykernel.cli import parser

    for command in ([], ["run"], ["train"], ["sweep"]):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        text = capsys.readouterr().out.replace("\\\n", " ").replace('"', "")
        examples = re.findall(r"^  pykernel (\w.*?)(?:   .*)?$", text.partition("examples:")[2], flags=re.MULTILINE)
        assert examples
        for example in examples:
            parser().parse_args(example.split())


def test_python_dash_m_lists_what_it_answers(capsys):
    """Every word of the top level is in its help, and answered."""
    said = subprocess.run(
        [sys.executable, "-m", "pykernel", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert all(f"--{what}" in said for what in (*embed.FLAGS, "version")) and "recommend" in said
    for what in embed.FLAGS:
        assert main([f"--{what}"]) == 0
        assert capsys.readouterr().out.strip() == embed.get_flags(what)
    assert main(["--cflags", "--libs"]) == 0
    assert capsys.readouterr().out.strip() == f"{embed.get_flags('cflags')} {embed.get_flags('libs')}"


@pytest.mark.parametrize(
    ("chain", "code"),
    [
        (["--depth", "20"], 0),
        (["--depth", "60", "--activation", "sigmoid"], 5),
        (["--depth", "60", "--gain", "3"], 5),
        (["--depth", "60", "--gain", "0"], 5),
        (["--depth", "0"], 2),
    ],
    ids=["stable", "vanishing", "exploding", "dead", "wrong"],
)
def test_check_passes_only_what_is_stable(chain, code, capsys):
    words = ["run", "--width", "64", "--replicas", "3", *chain]
    assert main([*words, "--check"]) == code
    assert main(words) == (2 if code == 2 else 0)


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("pyarrow", lambda store: ["export", store, "--format", "parquet"]),
        ("distributed", lambda store: ["sweep", *SMALL, "--store", store, "--dask", "tcp://nowhere:1"]),
    ],
)
def test_a_missing_package_is_named_with_how_to_install_it(package, command, tmp_path, capsys, monkeypatch, quick):
    store = tmp_path / "out"
    assert main(["sweep", *SMALL, "--store", str(store), "--quiet"]) == 0
    before = sorted(store.rglob("*"))
    monkeypatch.setitem(sys.modules, package, None)
    capsys.readouterr()
    assert main(command(str(store))) == 2
    assert f"needs {package}: pip install {package}" in capsys.readouterr().err
    assert sorted(store.rglob("*")) == before


def test_run_prints_a_table_and_json(capsys):
    assert main(["run", "--depth", "3", "--width", "32", "--replicas", "2"]) == 0
    table = capsys.readouterr().out
    assert "verdict:" in table and max(map(len, table.splitlines())) <= 80
    assert main(["run", "--depth", "3", "--width", "32", "--replicas", "2", "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    p = pk.propagate(pk.Chain(depth=3, width=32), replicas=2)  # at width 4 a layer may be dead
    assert numbers["verdict"] == str(p.verdict) and numbers["slope"] == np.median(p.slope)
    assert len(numbers["layers"]["log10_grad_weight"]) == 3


def test_help_says_what_stands_in_the_place_of_words_left_out():
    chain, run = pk.Chain(depth=2, width=4), inspect.signature(pk.propagate).parameters
    stands = {word: getattr(chain, word) for word in ("activation", "init", "gain")}
    stands |= {word: run[word].default for word in ("batch", "seed", "dtype")}
    assert set(stands) == set(words.USUAL) - {"replicas"}  # the command line's own
    assert all(words.USUAL[word] in (value, str(value)) for word, value in stands.items())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--format", "bfloat16"], "did you mean --weights-format, --signals-format, --gradients-format?"),
        (
            ["train", "--steps", "3", "--rat", "1", "--momentun", "0.5"],
            "unrecognized arguments: --momentun 0.5; did you",
        ),
        (
            ["status", "out", "--blocks", "x"],
            "unrecognized arguments: --blocks x\n",
        ),  # flags of other commands do not help
    ],
)
def test_a_flag_that_is_not_there_is_answered_by_its_command(arguments, said, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    error = capsys.readouterr().err
    assert left.value.code == 2 and error.startswith(f"usage: pykernel {arguments[0]}") and said in error


TRAIN = ["train", "--depth", "3", "--width", "16", "--activation", "tanh", "--head", "mse:1", "--batch", "4"]


def test_train_prints_what_the_call_finds(capsys, tmp_path):
    chain = pk.Chain(depth=3, width=16, activation="tanh", head=pk.Head("mse", 1))
    t = pk.train(chain, steps=4, rate=0.02, momentum=0.5, parametrization="mup", batch=4, replicas=2)
    command = [*TRAIN, "--steps", "4", "--rate", ".02", "--momentum", ".5", "--parametrization", "mup"]
    command += ["--replicas", "2"]
    assert main(command) == 0
    table = capsys.readouterr().out
    assert table.strip() == str(t).strip() and max(map(len, table.splitlines())) <= 80
    assert main([*command, "--json", "--plot", str(tmp_path / "loss.svg")]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["loss"] == np.median(t.loss, axis=0).tolist() and numbers["falls"] is t.falls is True
    np.testing.assert_array_equal(
        numbers["layers"]["log10_grad_weight"], np.median(t.log10_grad_weight, axis=0).astype(float)
    )
    assert "step" in (tmp_path / "loss.svg").read_text()
    (tmp_path / "loss.png").mkdir()
    assert main([*command, "--plot", str(tmp_path / "loss.png")]) == 3


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--rate", "0.02", "--check"], 0, "the loss falls"),
        (["--rate", "1e4", "--check", "--steps", "30"], 5, "grows without bound"),
        (["--rate", "1e4", "--steps", "30", "--json"], 0, '"inf"'),
        (["--rate", "fast"], 2, "rate must be a number, got 'fast'"),
        (["--backend", "numba"], 2, 'backend="numba" does not train'),
        (["--head", "none"], 2, "training needs a loss"),
    ],
)
def test_train_says_how_the_loss_went(more, code, said, capsys):
    assert main([*TRAIN, *more]) == code
    out, err = capsys.readouterr()
    assert said in (err if code == 2 else out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--depth", "0", "--width", "4"], "depth must be a positive int, got 0"),
        (["run", "--depth", "two", "--width", "4"], "depth must be an int, got 'two'"),
        (["run", "--depth", "2", "--width", "4", "--gain", "x"], "gain must be a number, got 'x'"),
        (["run", "--depth", "2", "--width", "4", "--init", "he_norml"], "did you mean 'he_normal'"),
        (["run", "--depth", "2", "--width", "4", "--clip", "all:3"], "clip must be a norm"),
        (["sweep", "--depth", "2", "--width", "4", "--gain", "1:2:1"], "at least 2 values"),
        (["sweep", "--depth", "2", "--width", "4", "--gain", "0:2:3:log"], "positive ends"),
        (["sweep", "--depth", "2", "--width", "4", "--until", "slop:0.1"], "a scalar among"),
        (["sweep", "--depth", "2", "--width", "4", "--shard", "1/2"], "shard needs a store"),
        (["sweep", "--depth", "2", "--width", "4", "--shard", "3/2", "--store", "x"], "1 <= i <= N"),
        (["sweep", "--default", "--depth", "2"], "has its own grid"),
        (["sweep", "--workers", "2", "--dask", "x", "--depth", "2", "--width", "4"], "not both"),
    ],
)
def test_wrong_words_are_answered_with_code_2(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_directory_without_a_sweep_is_code_3(tmp_path, capsys):
    for command in ("status", "export", "plot"):
        assert main([command, str(tmp_path)]) == 3
        assert f"{tmp_path} holds no sweep" in capsys.readouterr().err


def test_sweep_status_export_plot_and_merge(tmp_path, capsys, quick):
    store = str(tmp_path / "out")
    assert main(["sweep", *SMALL, "--store", store]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 84 and "he_normal" in out and "verdict" in out
    assert main(["sweep", *SMALL, "--store", store]) == 0
    assert "nothing left to do" in capsys.readouterr().err
    assert main(["status", store]) == 0
    assert "4 of 4 complete" in capsys.readouterr().out
    for form in ("csv", "parquet", "nc"):
        assert main(["export", store, "--format", form]) == 0
    import pandas
    import xarray

    ds = pk.open(store)
    table = pandas.read_csv(tmp_path / "out" / "sweep.csv")
    assert len(table) == 4
    row = table[(table.depth == 3) & (table.init == "lecun_normal")].iloc[0]
    cell = ds.sel(depth=3, init="lecun_normal")
    assert row.slope_median == pytest.approx(float(cell.slope.median()))
    assert row.end_to_end_stderr == pytest.approx(float(cell.end_to_end.std(ddof=1)) / 6**0.5)
    assert row.verdict == cell.verdict.item()
    assert len(pandas.read_parquet(tmp_path / "out" / "sweep.parquet")) == 4
    with xarray.open_dataset(tmp_path / "out" / "sweep.nc", engine="h5netcdf") as again:
        np.testing.assert_array_equal(again.slope.values, ds.slope.values)
        assert again.verdict.values.tolist() == ds.verdict.values.tolist()
    assert main(["export", store, "--replicas", "--output", str(tmp_path / "each.csv")]) == 0
    assert len(pandas.read_csv(tmp_path / "each.csv")) == 24
    capsys.readouterr()
    assert main(["plot", store, "--format", "svg", "--output", str(tmp_path / "figures")]) == 0
    drawn = [Path(line) for line in capsys.readouterr().out.split()]
    assert {path.name for path in drawn} >= {"gradient.svg", "verdict.svg"} and all(
        path.stat().st_size > 1000 for path in drawn
    )
    assert main(["merge", str(tmp_path / "joined"), store]) == 0
    assert main(["status", str(tmp_path / "joined")]) == 0


def test_a_toml_file_says_what_the_api_says(tmp_path, quick, capsys):
    path = tmp_path / "study.toml"
    path.write_text(
        """
        replicas = 5
        seed = 3
        store = "STORE"
        [base]
        activation = "tanh"
        residual = {every = 1, scale = 0.5}
        [grid]
        depth = [2, 4]
        gain = {start = 0.5, stop = 2.0, count = 3}
        [[zip]]
        width = [4, 5]
        bias_std = [0.0, 0.1]
        """.replace("STORE", str(tmp_path / "out"))
    )
    assert main(["sweep", str(path), "--backend", "reference"]) == 0
    assert main(["sweep", str(path), "--backend", "reference", "--dry-run"]) == 0
    assert "60, 0 of them still to run" in capsys.readouterr().out
    ds = pk.open(tmp_path / "out")
    grid = {"depth": [2, 4], "gain": [0.5, 1.25, 2.0], ("width", "bias_std"): [(4, 0.0), (5, 0.1)]}
    base = {"activation": "tanh", "residual": pk.Residual(1, 0.5)}
    same = pk.sweep(grid, base, replicas=5, seed=3, backend="reference", progress=False)
    assert ds.drop_attrs().identical(same.drop_attrs())


def test_ranges():
    assert words.values("gain", ["0.5:2:4"]) == [0.5, 1.0, 1.5, 2.0]
    assert words.values("depth", ["10:1000:3:log", "7"]) == [10, 100, 1000, 7]
    assert words.values("gain", {"start": 1, "stop": 2, "count": 2}) == [1.0, 2.0]
    assert words.values("norm", ["none", "rms"]) == [None, "rms"]


def test_the_default_sweep_covers_what_it_promises():
    assert min(default.DEPTHS) == 10 and max(default.DEPTHS) == 1000
    assert min(default.WIDTHS) == 32 and max(default.WIDTHS) == 1024
    assert set(default.GRID["activation"]) == {"linear", "sigmoid", "tanh", "relu", "leaky_relu", "gelu"}
    assert len(default.INITS) == 9


@pytest.fixture(scope="module")
def large():
    """A grid as large as the default's, of made-up chains."""
    kernels, work.run_rows = work.run_rows, stand_in.run_rows
    try:
        grid = {
            "activation": ["relu", "tanh"],
            "init": list(default.INITS),
            "width": [8, 32],
            "depth": [10, 30, 100],
            "gain": [0.9, 1.1],
        }
        return pk.sweep(grid, replicas=4, backend="reference", engine="dense", progress=False)
    finally:
        work.run_rows = kernels


def test_the_table_of_a_large_sweep_fits_80_columns_and_says_all_verdicts(large):
    text = report.table(large)
    assert max(map(len, text.splitlines())) <= 80
    letters = "".join(re.findall(r"\b[svEd]{3}\b", text))
    counts = {word: int((large.verdict.values == word).sum()) for word in report.LETTERS}
    for word in ("stable", "vanishing", "exploding"):
        assert letters.count(report.LETTERS[word]) == counts[word]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_table_fits_the_page_and_says_what_is_left_out(large, width):
    few = large.isel(activation=[0], init=[4, 5], depth=[0, 1])
    lines = report.table(few, width).splitlines()
    assert max(map(len, lines)) <= width
    assert (
        len([line for line in lines if line.endswith(("stable", "vanishing", "exploding"))]) >= few.verdict.size
        or width == 40
    )
    assert ("no room for" in " ".join(lines)) == (width <= 80)
    assert "slope: decades of gradient" in " ".join(lines) and "verdict: by the larger of" in " ".join(lines).replace(
        "  ", " "
    )


def test_what_a_figure_cannot_show_is_said(large):
    from pykernel.plot import sweeps as figures

    many = large.isel(gain=np.zeros(30, dtype=int)).assign_coords(gain=np.linspace(1, 2, 30))
    figure = figures.gradient(many, Figure()).figure
    assert "of 30 values of gain" in figure._suptitle.get_text().replace("\n", " ")
    assert len(figure.axes) <= 48  # of 6 rows and 8 columns
    figure.draw_without_rendering()
    inside = figure.bbox.padded(2)
    for text in (*figure.legends, figure._suptitle):
        box = text.get_window_extent()
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1  # what is cut off says nothing
    half = large.assign_attrs(complete=0)
    assert "UNFINISHED" in figures.verdict(half, Figure()).figure.get_suptitle()


def test_figures_of_a_large_sweep(large, tmp_path):
    from pykernel.plot import sweeps as figures

    for kind in figures.KINDS:
        (path,) = figures.save(large.isel(activation=[0], init=[4, 5]), tmp_path, kind)
        assert path.stat().st_size > 10_000
    with pytest.raises(ValueError, match="gain and depth as axes"):
        figures.save(large.isel(gain=0), tmp_path, "heat")


def test_profiles_of_one_depth_show_theory_at_the_input():
    """A cross below the output's mean by what theory says; none for student_t, which has no theory here."""
    from pykernel.plot import sweeps as figures

    ds = pk.sweep({"depth": [30], "init": ["he_normal", "student_t(1.5)"]}, {"width": 32}, replicas=40, progress=False)
    figure = figures.gradient(ds, Figure()).figure
    assert "theory at the input" in figure.legends[0].texts[-1].get_text()
    (cross,) = (line for line in figure.axes[0].lines if line.get_marker() == "x")
    top = ds.log10_grad_activation_mean.sel(init="he_normal").isel(layer=-1).item()
    assert cross.get_ydata()[0] == pytest.approx(top + pk.predict(pk.Chain(30, 32)).signal_end_to_end_mean)
    assert cross.get_xdata()[0] == 0


def test_heat_map_marks_the_critical_gain(large):
    from pykernel.plot import sweeps as figures

    figure = figures.heat(large.sel(activation=["relu"], init=["he_normal"], width=[32]), Figure()).figure
    lines = [line.get_xdata()[0] for line in figure.axes[0].lines]
    assert lines == [pytest.approx(1.0)]


def test_the_command_itself_interrupted_and_gone_on_with(tmp_path):
    command = [sys.executable, "-m", "pykernel.cli", "sweep", *SMALL, "--replicas", "2000", "--store", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not Store(tmp_path).names() and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143 and "run the same sweep again to go on" in said
    assert main(["status", str(tmp_path)]) == 4


def test_progress_tells_the_truth_to_a_callback(monkeypatch, quick):
    monkeypatch.setattr(executors, "IN_PROCESS", 1e-3)
    monkeypatch.setattr(executors, "FIRST", 1e-3)
    seen = []
    pk.sweep({"depth": [2, 3]}, {"width": 4}, replicas=50, backend="reference", progress=seen.append)
    assert [now.chains_done for now in seen] == sorted(now.chains_done for now in seen)
    assert seen[0].chains_done == 0 and seen[-1].chains_done == seen[-1].chains == 100
    assert seen[-1].cells_done == 2 and seen[-1].fraction == 1.0 and seen[-1].latest.startswith("depth=3: ")
    with pytest.raises(TypeError, match="progress must be"):
        pk.sweep({"depth": [2]}, {"width": 4}, progress="yes")


def test_cells_of_earlier_grids_in_a_store_are_not_hidden(tmp_path, capsys):
    for depths in (["2", "3"], ["3", "4"], ["7"]):
        assert main(["sweep", "--depth", *depths, "--width", "4", "--replicas", "2", "--store", str(tmp_path)]) == 0
    assert "3 cells of earlier grids are kept in this store too" in capsys.readouterr().err
    assert main(["status", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "1 of 1 complete" in told and "others   3 cells of earlier grids" in told
    assert "depth 2, 3\n" in told and "depth 3, 4\n" in told and "depth 7" not in told


def test_what_is_wrong_with_a_file_or_a_zipped_cell_is_named(tmp_path, capsys):
    assert main(["sweep", str(tmp_path / "no.toml")]) == 3
    assert (
        capsys.readouterr().err == f"pykernel sweep: {tmp_path / 'no.toml'} cannot be read: no such file or directory\n"
    )
    with pytest.raises(ValueError, match=r"cell bias_std=-1, correlation=0.5: bias_std"):
        pk.sweep({("bias_std", "correlation"): [(-1, 0.5)]}, {"depth": 2, "width": 4}, progress=False)
