# SPDX-License-Identifier: BSD-3-Clause
"""Bad input to a sweep: named, with what was given and what is allowed, before anything is written."""

import os
import subprocess
import sys

import numpy as np
import pytest

import pykernel as pk
from pykernel.cli import main
from pykernel.sweeps import StoreError, grid, identity

SMALL = ["--depth", "2", "--width", "4"]


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        ({"grid": 3}, TypeError, "grid must be a mapping of words to values or a list of Chain, got 3"),
        ({"grid": "depth"}, TypeError, "grid must be a mapping"),
        ({"grid": {"depth": 3}}, TypeError, r"grid\['depth'\] must be a list of values, got 3"),
        ({"grid": {"wdith": [3]}}, ValueError, "did you mean 'width'"),
        ({"grid": {"depth": range(10**12)}}, ValueError, "holds more than 1000000 values"),
        (
            {"grid": {"depth": range(1, 5000), "width": range(1, 5000)}},
            ValueError,
            "at most 1000000 cells, got 24990001",
        ),
        ({"base": 3}, TypeError, "base must be None, a Chain or a mapping of its fields, got 3"),
        ({"store": 3}, TypeError, "store must be the path of a directory, got 3"),
        ({"store": ""}, ValueError, "store must be the path of a directory"),
        ({"profiles": 3}, TypeError, "profiles must be names of rows, got 3"),
        ({"profiles": ["slop"]}, ValueError, "profiles must be rows among"),
        ({"shard": 3}, TypeError, r"shard must be a pair \(i, N\) with 1 <= i <= N, got 3"),
        ({"shard": ("a", 2)}, TypeError, r"i of shard \(i, N\) must be an int, got 'a'"),
        ({"shard": (0, 2)}, ValueError, "1 <= i <= N, got 0/2"),
        ({"executor": "dask"}, TypeError, "executor must be None, a number of processes"),
        ({"executor": True}, TypeError, "executor must be None, a number of processes"),
        ({"executor": 0}, ValueError, "positive number of worker processes, at most 1024, got 0"),
        ({"threads": "all"}, TypeError, "threads must be an int, got 'all'"),
        ({"predict": 3}, TypeError, "predict must be None, True or False, got 3"),
        ({"until": "slope"}, TypeError, "until must be None or a StandardError, got 'slope'"),
        ({"replicas": 2.5}, TypeError, "replicas must be an int, got 2.5"),
        ({"seed": -1}, ValueError, "seed must be an int from 0"),
        ({"seed": np.array(3)}, TypeError, "seed must be an int"),
        ({"batch": {}}, TypeError, "batch must be an int, got {}"),
        (
            {"replicas": 10**400},
            ValueError,
            "replicas must be an int from 1 to 4294967296, got an int of about 400 digits",
        ),
        ({"profiles": np.array([1.0, 2.0])}, ValueError, "profiles must be rows among"),
        ({"profiles": np.array(3)}, TypeError, "profiles must be names of rows"),
        ({"grid": np.array(3)}, TypeError, "grid must be a mapping of words to values or a list of Chain"),
        ({"grid": {"depth": [2], "batch": [np.array([1, 2])]}}, TypeError, "batch must be an int"),
        ({"grid": {"depth": [np.array(["a"])]}}, TypeError, "depth must be an int"),
    ],
)
def test_arguments(words, kind, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=said):
        pk.sweep(
            **{"grid": {"depth": [2]}, "base": {"width": 4}, "replicas": 2, "store": "out", "progress": False, **words}
        )
    assert not list(tmp_path.iterdir())


def test_positions_are_ints_of_any_kind(tmp_path):
    """And one cell in a store, however they are written."""
    block = pk.Chain(depth=1, width=4, blocks=[pk.Attention(2)])
    found = [
        pk.sweep({"depth": [1]}, block, positions=T, replicas=1, store=tmp_path / str(i), progress=False).attrs["plan"]
        for i, T in enumerate((3, np.int64(3), [3], np.array([3]), (3,)))
    ]
    assert len(set(found[:2])) == len(set(found[2:])) == 1
    none = pk.sweep({"depth": [1]}, block, positions=np.zeros(0), replicas=1, progress=False)
    assert "run_positions" not in none.attrs


def test_profiles_fields():
    for fields in ({"rows": 3}, {"quantiles": 3}, {"replicas": 3}, {"layers": 2.5}):
        with pytest.raises(TypeError, match="profiles"):
            pk.Profiles(**fields)


def test_an_axis_of_as_many_values_as_a_grid_may_hold_is_a_grid():
    (axis,) = grid.axes({"depth": range(1, 2001)})
    assert len(axis.values) == 2000


@pytest.mark.parametrize("name", ["plan.json", "driver.lock"])
def test_a_directory_where_a_file_belongs_is_named(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(StoreError, match=rf"{name} cannot be (read|opened).*Is a directory"):
        pk.sweep({"depth": [2]}, {"width": 4}, replicas=2, store=tmp_path, progress=False)


def test_a_directory_where_a_part_belongs_is_damage(tmp_path):
    pk.sweep({"depth": [2]}, {"width": 4}, replicas=2, store=tmp_path, progress=False)
    (tmp_path / "parts" / "odd.part").mkdir()
    with pytest.warns(UserWarning, match=r"odd\.part"):
        assert pk.open(tmp_path).attrs["complete"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--depth", "1:1000000000000:1000000000000", "--width", "4"],
            "a range of depth needs at most 100000 values, got 1000000000000",
        ),
        (["--depth", "2", "--width", "4", "--gain", "nan:2:3"], "a range of gain needs finite ends"),
        ([*SMALL, "--shard", "a"], "--shard must be i/N, as in 1/20, got 'a'"),
        ([*SMALL, "--until", "slope"], "--until must be SCALAR:ERROR, as in slope:0.001, got 'slope'"),
        ([*SMALL, "--until", "slope:x"], "--until's error must be a number, got 'x'"),
        ([*SMALL, "--residual", "x"], "residual every must be an int, got 'x'"),
        ([*SMALL, "--residual", "1:2:3"], "residual must be K or K:SCALE, got '1:2:3'"),
        (
            [*SMALL, "--head", "mse:3:last:4"],
            "head must be LOSS, LOSS:OUTPUTS or LOSS:OUTPUTS:OVER, got 'mse:3:last:4'",
        ),
        ([*SMALL, "--head", "mse:x"], "head outputs must be an int, got 'x'"),
        ([*SMALL, "--clip", "value:x"], "clip must be a number, got 'x'"),
        (["--widths", "3,x"], "widths must be an int, got 'x'"),
        ([*SMALL, "--workers", "0"], "positive number of worker processes"),
    ],
)
def test_flags(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flag", "meant"), [("--wdith", "--width"), ("--replcas=3", "--replicas"), ("--sotre", "--store")]
)
def test_a_mistyped_flag_is_answered_with_the_nearest(flag, meant, capsys):
    with pytest.raises(SystemExit):
        main(["sweep", "--depth", "2", flag])
    assert f"did you mean {meant}?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grid = 3 = 4", "is no TOML"),
        ("[[zip]]\nwidth = [1, 2]\ngain = [1.0]", "lists of equal length"),
        ("grid = 3", "[grid] must be a table of words and their values, got 3"),
        ("base = 3", "[base] must be a table"),
        ("zip = 3", "[[zip]] must be a table"),
        ("depth = 3", "'depth' belongs under [base]"),
        ("replica = 3", "unknown key 'replica' of a sweep (did you mean 'replicas'?)"),
        ("[grid]\nwdith = [3]", "unknown key 'wdith' of the grid (did you mean 'width'?)"),
        ("[grid]\ndepth = 3", "depth in the grid must be a list of values or a range, got 3"),
        ("[grid]\ngain = {start = 0, stop = 1}", "a range of gain needs start, stop and count; count is missing"),
        ("[grid]\ngain = {start = 0, stop = 1, cuont = 3}", "'cuont' of the range of gain (did you mean 'count'?)"),
        ("[grid]\ngain = {start = 'a', stop = 1, count = 3}", "start of the range of gain must be a number, got 'a'"),
        ("[grid]\ngain = {start = 0, stop = 1, count = 2.5}", "count of the range of gain must be an int, got 2.5"),
        ("[grid]\ngain = {start = 0, stop = 1, count = 10000000000}", "from 2 to 100000"),
        ("[base]\nwidths = 3", "widths must be a list of ints, input first, got 3"),
        ("[base]\nclip = {foo = 3}", "unknown key 'foo' of clip; allowed are norm, per_layer, value"),
        ("[base]\nresidual = {evry = 1}", "did you mean 'every'"),
        ("[base]\nhead = 3", "head must be LOSS, LOSS:OUTPUTS or LOSS:OUTPUTS:OVER, got 3"),
        ("until = {of = 'slope'}", "until needs 'below', got only of"),
        ("until = {of = 'slope', blow = 3}", "did you mean 'below'"),
        ("profiles = {row = ['dead']}", "did you mean 'rows'"),
    ],
)
def test_toml(text, said, capsys, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    assert main(["sweep", str(path)]) == 2
    error = capsys.readouterr().err
    assert said in error and "bad.toml" in error
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.toml"]


def test_a_toml_file_that_is_not_utf8_is_named(capsys, tmp_path):
    (tmp_path / "bad.toml").write_bytes(b"seed = 1 # \xff")
    assert main(["sweep", str(tmp_path / "bad.toml")]) == 2
    assert "bad.toml is no TOML: it must be UTF-8, and byte 11 is not" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"), [("nowhere/figure.png", "'nowhere' is not a folder"), ("figure.foo", "must end in .png, .svg or")]
)
def test_a_figure_that_cannot_be_drawn_is_refused_before_the_run(name, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["run", *SMALL, "--plot", name])
    printed = capsys.readouterr()
    assert left.value.code == 2 and not printed.out and said in printed.err


def test_a_figure_that_cannot_be_written_costs_no_table(capsys, tmp_path):
    (tmp_path / "figure.png").mkdir()
    assert main(["run", *SMALL, "--plot", str(tmp_path / "figure.png")]) == 3
    printed = capsys.readouterr()
    assert "verdict:" in printed.out and "no figure in " in printed.err


def _reader():
    return lambda z: FACTOR * _helper(z)


FACTOR = 2.0


def _helper(z):
    return z if FACTOR > 0 else _reader()(z)


def test_the_key_of_a_function_holds_what_it_reads(monkeypatch):
    """By its code alone, functions of other constants, defaults or helpers would have one key, and one the other's
    numbers."""
    keys = [identity.digest(identity.describe(_reader()))]
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    keys.append(identity.digest(identity.describe(_reader())))
    monkeypatch.setitem(globals(), "_helper", lambda z: z + 1)
    keys.append(identity.digest(identity.describe(_reader())))
    keys += [identity.digest(identity.describe(lambda z, k=k: k * z)) for k in (1, 2)]
    assert len(set(keys)) == 5


def test_the_key_of_a_function_is_the_same_in_every_process(tmp_path):
    """A set among a function's constants stands in another order in every process."""
    code = (
        "import known; from pykernel.sweeps import identity; print(identity.digest(identity.describe(known.is_known)))"
    )
    (tmp_path / "known.py").write_text("def is_known(z):\n    return z in {'a', 'b', 'c', 'd', 'e', 'f'}\n")
    keys = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True
        ).stdout
        for seed in "123"
    }
    assert len(keys) == 1 and keys != {b""}


def test_weights_in_the_chain_may_be_swept_at_any_depth():
    """A grid is lowered at few depths, but these matrices are as many as the layers."""
    ones = pk.Given([np.ones((4, 4))] * 3)
    ds = pk.sweep(
        {"gain": [1.0, 2.0]}, pk.Chain(depth=3, width=4, init=ones, activation="linear"), replicas=1, progress=False
    )
    assert float(ds.signal_end_to_end[1, 0] - ds.signal_end_to_end[0, 0]) == pytest.approx(3 * np.log10(2), rel=1e-12)


def test_run_words_of_several_values_are_axes(capsys, tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(
        "replicas = 2\nbatch = 4\n[base]\nwidth = 4\n[grid]\ndepth = [2, 3]\n[[zip]]\ngain = [1.0, 2.0]\nbias_std = "
        "[0.0, 0.1]\n"
    )
    assert main(["sweep", *SMALL, "--batch", "1", "2", "--seed", "0:2:3", "--dry-run"]) == 0
    assert "cells    6: 2 batch x 3 seed" in capsys.readouterr().out
    assert main(["sweep", "--dry-run", "--batch", "1", "2", str(path)]) == 0
    assert "cells    8: 2 depth x 2 gain_bias_std x 2 batch" in capsys.readouterr().out
    for words, said in (
        (["--replicas", "2", "3", *SMALL], "--replicas takes one value, got 2"),
        (["--batch", "2", "3"], "the default sweep has its own grid"),
        ([str(path), "--gain", "1"], "--gain cannot replace one of them"),
    ):
        assert main(["sweep", "--dry-run", *words]) == 2
        assert said in capsys.readouterr().err
