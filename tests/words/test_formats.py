# SPDX-License-Identifier: BSD-3-Clause
"""Number formats: their table and their rounding against ml_dtypes, what is refused, and where people meet them."""

import math

import ml_dtypes
import numpy as np
import pytest
from number_formats import LAYERS, TYPES, bits, hard_cases, random_numbers

import pykernel as pk
from pykernel import _core
from pykernel.cli import main
from pykernel.formats import FORMATS, rounded
from pykernel.sweeps import report


def oracle(x, name):
    """What ml_dtypes makes of float32 numbers; beyond the largest of a format without inf, the largest."""
    with np.errstate(all="ignore"):
        stored = x.astype(TYPES[name]).astype(np.float64)
    row = FORMATS[name]
    return stored if row.infinite else np.where(np.isnan(stored), np.copysign(row.largest, x), stored)


@pytest.mark.parametrize("name", FORMATS)
def test_table_has_the_numbers_of_ml_dtypes(name):
    row, told = FORMATS[name], ml_dtypes.finfo(TYPES[name])
    assert (row.bits, row.largest) == (told.bits, float(told.max))
    assert (row.smallest_normal, row.smallest_subnormal) == (
        float(told.smallest_normal),
        float(told.smallest_subnormal),
    )


@pytest.mark.parametrize("name", FORMATS)
def test_rounding_is_that_of_ml_dtypes(name):
    x = hard_cases(name)
    np.testing.assert_array_equal(bits(rounded(x, FORMATS[name])), bits(oracle(x, name)))


def compiled(x, name, isa, dtype, times=1):
    """The C++ loop over a block of 16 columns."""
    row = FORMATS[name]
    block = np.resize(x.astype(dtype), (-(-len(x) // 16), 16))
    function = _core.kernels.round_f32 if dtype == np.float32 else _core.kernels.round_f64
    out = function(isa, block, row.fraction, row.lowest, row.largest, row.infinite, times)
    return out[: len(block)].ravel()[: len(x)]


@pytest.mark.parametrize("isa", _core.kernels.isas())
@pytest.mark.parametrize("name", FORMATS)
def test_compiled_rounding_is_that_of_ml_dtypes(name, isa):
    x = hard_cases(name)
    for dtype in (np.float32, np.float64):
        np.testing.assert_array_equal(bits(compiled(x, name, isa, dtype)), bits(oracle(x, name)))


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_ten_million_random_numbers(name):
    x = random_numbers(10**7)
    told = oracle(x, name)
    np.testing.assert_array_equal(bits(rounded(x, FORMATS[name])), bits(told))
    for isa in _core.kernels.isas():
        np.testing.assert_array_equal(bits(compiled(x, name, isa, np.float32)), bits(told))


@pytest.mark.slow
def test_numba_rounding_is_that_of_ml_dtypes():
    from pykernel.kernels import rounding

    for name, row in FORMATS.items():
        numbers = np.concatenate([hard_cases(name), random_numbers(10**6)])
        for dtype in (np.float32, np.float64):
            x = np.resize(numbers, -(-len(numbers) // 16) * 16).astype(dtype)
            told = oracle(x.astype(np.float32), name)
            rounding.round_all(
                x, len(x), 1.0, row.fraction, row.lowest, row.largest, math.inf if row.infinite else row.largest
            )
            np.testing.assert_array_equal(bits(x), bits(told))


def test_double_is_rounded_once():
    """1 + 2^-8 + 2^-40 lies above bfloat16's midpoint, and float32 would make it the midpoint itself."""
    x = np.array([1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-8])
    assert rounded(x, FORMATS["bfloat16"]).tolist() == [1 + 2.0**-7, 1.0]
    for isa in _core.kernels.isas():
        assert compiled(x, "bfloat16", isa, np.float64).tolist() == [1 + 2.0**-7, 1.0]


# -- faces


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        (dict(weights="fp16"), ValueError, "weights format must be one of .*'float16'.*got 'fp16'"),
        (dict(signals=16), TypeError, "signals format must be one of"),
        (dict(gradients=None), ValueError, "gradients format must be one of"),
        (dict(loss_scale=0), ValueError, "loss_scale must be from"),
        (dict(loss_scale=math.nan), ValueError, "loss_scale must be finite"),
        (dict(loss_scale="1024"), TypeError, "loss_scale must be a number"),
        (dict(overflow="wrap"), ValueError, "overflow must be one of 'inf', 'saturate', got 'wrap'"),
        (dict(rounding="up"), ValueError, "rounding must be one of 'nearest', 'stochastic', got 'up'"),
        (dict(loss_scale="auto"), TypeError, "recommend says which one fits"),
    ],
)
def test_bad_formats_are_refused(words, kind, said):
    with pytest.raises(kind, match=said):
        pk.Formats(**words)


def test_formats_must_be_formats():
    with pytest.raises(TypeError, match=r"formats must be None or a pykernel\.Formats, as in .*, got 'bfloat16'"):
        pk.propagate(LAYERS, formats="bfloat16")


def test_words_of_formats_are_axes_of_sweeps():
    axes = {"signals_format": ["float32", "float8_e4m3fn"], "loss_scale": [1.0, 16.0]}
    ds = pk.sweep(axes, LAYERS, replicas=3, profiles=["gradient_cosine"], progress=False)
    assert ds.signals_format.values.tolist() == ["float32", "float8_e4m3fn"]
    assert ds.sizes["loss_scale"] == 2
    cosine = ds.gradient_cosine_mean.sel(layer=1)
    assert (cosine.sel(signals_format="float32") > 0.9999).all()
    assert (cosine.sel(signals_format="float8_e4m3fn") < 0.999).all()
    whole = pk.sweep(
        {"formats": [None, pk.Formats(signals="bfloat16")]}, LAYERS, replicas=3, progress=False, profiles=False
    )
    assert whole.formats.values.tolist() == ["none", "signals bfloat16"]
    with pytest.raises(ValueError, match="signals format must be one of"):
        pk.sweep({"signals_format": ["fp8"]}, LAYERS, replicas=1, progress=False)


def test_a_sweep_says_unasked_what_formats_cost(tmp_path):
    """The cosine at the input and the worst of what is lost, as rows of runs have them, in the table and in CSV."""
    formats = pk.Formats("float8_e4m3fn", "float8_e4m3fn", "float8_e5m2", loss_scale=2.0**-12)
    ds = pk.sweep({"formats": [None, formats], "depth": [3]}, LAYERS, replicas=3, progress=False)
    p = pk.propagate(LAYERS.replace(depth=3), replicas=3, formats=formats, engine="dense")
    found = ds.sel(depth=3).isel(formats=1)
    shares = [
        p.rows[f"{kind}_{what}"].mean(axis=0) for kind in ("flushed", "overflowed") for what in ("signal", "gradient")
    ]
    assert float(found.gradient_cosine_first) == pytest.approx(p.gradient_cosine[:, 0].mean(), abs=1e-12)
    assert float(found.lost) == pytest.approx(np.max(shares), abs=1e-12) and found.lost > 0.01
    assert np.isnan(ds.lost.isel(formats=0)).all()
    assert {"cosine", "lost"} <= set(report.table(ds, 120).splitlines()[0].split())
    report.export(ds, tmp_path / "all.csv")
    assert "gradient_cosine_first,lost" in (tmp_path / "all.csv").read_text()
    plain = pk.sweep({"depth": [2]}, LAYERS, replicas=1, progress=False)
    assert "lost" not in plain and "lost" not in report.table(plain, 120)
    whole = pk.sweep({"formats": [formats]}, LAYERS, replicas=1, profiles="all", progress=False)
    assert "log10_error_signal_mean" in whole
    with pytest.raises(ValueError, match="gradient_cosine, and this sweep has no formats"):
        pk.sweep({"depth": [2]}, LAYERS, replicas=1, profiles="gradient_cosine", progress=False)


def test_a_dry_run_knows_of_formats_and_of_a_stop_rule(capsys, tmp_path):
    """It counts what the store holds of the same cells, which have formats; and says what it cannot count."""
    words = ["sweep", "--depth", "2", "3", "--width", "8", "--replicas", "4", "--gradients-format", "float16"]
    assert main([*words, "--store", str(tmp_path), "--quiet"]) == 0
    capsys.readouterr()
    assert main([*words, "--store", str(tmp_path), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "chains   8, 0 of them still to run" in told and "until" not in told
    assert main([*words, "--until", "slope:0.001", "--dry-run"]) == 0
    assert "until    adds chains, up to 400 a cell" in capsys.readouterr().out


def test_formats_in_plans_are_tables(tmp_path):
    """One for all cells or an axis of them; what is none is refused with the word that is wrong."""
    from pykernel.cli import plans

    path = tmp_path / "study.toml"
    plan = "{0}\n[base]\nwidth = 8\n[grid]\ndepth = [2]\n{1}\n"
    path.write_text(plan.format("", 'formats = ["none", {signals = "bfloat16"}]'))
    assert plans.read(str(path))["grid"]["formats"] == [None, pk.Formats(signals="bfloat16")]
    path.write_text(plan.format('formats = {gradients = "float16", loss_scale = 8}', ""))
    assert plans.read(str(path))["formats"] == pk.Formats(gradients="float16", loss_scale=8)
    for above, inside, said in (
        ('formats = "bfloat16"', "", "formats must be a table such as"),
        ("", 'formats = {signals = "bfloat16"}', "formats in the grid must be a list"),
        ("", "formats = [3]", "formats must be a table such as"),
        ("", "blocks = [{}]", "blocks must name patterns"),
    ):
        path.write_text(plan.format(above, inside))
        with pytest.raises(ValueError, match=said):
            plans.read(str(path))


def test_keys_without_formats_do_not_name_them():
    """So older stores stay known; sweeps/test_old_store reads one."""
    from pykernel.sweeps.grid import axes, cells

    run = {"batch": 1, "formats": None}
    (plain,) = cells(axes({"depth": [3]}), {"width": 8}, run, 2)
    (rounded_cell,) = cells(axes({"depth": [3]}), {"width": 8}, {**run, "formats": pk.Formats("bfloat16")}, 2)
    assert "formats" not in plain.run and rounded_cell.run["formats"] == pk.Formats("bfloat16")


def test_command_line_takes_formats(capsys):

    words = ["--depth", "4", "--width", "16", "--replicas", "2"]
    assert (
        main(["run", *words, "--signals-format", "bfloat16", "--gradients-format", "float16", "--loss-scale", "8"]) == 0
    )
    said = capsys.readouterr().out
    assert "rounded to: signals bfloat16, gradients float16, loss scale 8" in said and "flushed to zero" in said
    assert main(["predict", *words[:4], "--weights-format", "bfloat16", "--json"]) == 0
    assert "gradient_cosine" in capsys.readouterr().out
    assert main(["run", *words, "--signals-format", "half"]) == 2


def test_tables_and_datasets_have_the_rows():
    p = pk.propagate(LAYERS, replicas=2, formats=pk.Formats(signals="bfloat16"))
    ds, frame = p.to_xarray(), p.to_dataframe()
    assert ds.gradient_cosine.dims == ("replica", "layer") and ds.attrs["formats"] == "signals bfloat16"
    assert frame.gradient_cosine.shape == (12,) and "gradient_cosine" in p.to_dict()["layers"]
    plain = pk.propagate(LAYERS, replicas=2)
    assert "gradient_cosine" not in plain.to_xarray() and "gradient_cosine" not in plain.to_dataframe()
