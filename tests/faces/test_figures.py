# SPDX-License-Identifier: BSD-3-Clause
"""Every figure that Python can ask for: it shows, it composes, its title says what is constant, and it drops nothing in
silence."""

import contextlib
import itertools
import re

import matplotlib
import numpy as np
import pytest

import pykernel as pk
from pykernel.plot import sweeps as figures

matplotlib.use("Agg")  # no screen
plt = pytest.importorskip("matplotlib.pyplot")
GRID = {"depth": [4, 8, 12], "gain": [0.5, 1.0, 2.0], "init": ["he_normal", "lecun_normal"]}


@pytest.fixture(scope="module")
def measured():
    return pk.propagate(pk.Chain(depth=12, width=16, activation="tanh"), batch=2, replicas=6, correlation=0.25)


@pytest.fixture(scope="module")
def low():
    formats = pk.Formats(signals="float8_e4m3fn", gradients="float8_e5m2", loss_scale=2.0**4)
    return pk.propagate(pk.Chain(depth=12, width=64, gain=0.8), formats=formats, replicas=4)


@pytest.fixture(scope="module")
def swept():
    return pk.sweep(GRID, {"width": 16, "norm": "layer", "bias_std": 0.1}, batch=3, replicas=5, progress=False)


@pytest.fixture(scope="module")
def calls(measured, low, swept):
    """name -> a call of every public figure, with the axes to draw on and keywords of the main line or area."""
    one = swept.sel(init="he_normal")
    diagram = pk.phase_diagram("tanh", np.linspace(0.5, 2, 7), np.linspace(0, 0.5, 5))
    return {
        **{
            f"plot {kind}": lambda ax, kind=kind, **line: measured.plot(ax, kind, **line)
            for kind in ("gradient", "factors", "distribution")
        },
        **{f"plot {kind}": lambda ax, kind=kind, **line: low.plot(ax, kind, **line) for kind in ("magnitudes", "lost")},
        "phase diagram": diagram.plot,
        **{
            f"sweep {kind}": lambda ax, kind=kind: figures.plot_sweep(_fit(one, kind), kind, ax)
            for kind in figures.KINDS
        },
    }


def _fit(ds, kind):
    return ds if kind in ("heat", "spread") else ds.sel(gain=1.0)


NAMES = [
    "plot gradient",
    "plot factors",
    "plot distribution",
    "plot magnitudes",
    "plot lost",
    "phase diagram",
    *(f"sweep {kind}" for kind in figures.KINDS),
]


@pytest.fixture(autouse=True)
def closed():
    plt.close("all")
    yield
    plt.close("all")


@pytest.mark.parametrize("name", NAMES)
def test_without_axes_one_figure_is_open_for_a_notebook_or_show(calls, name):
    axes = calls[name](None)
    (number,) = plt.get_fignums()
    assert np.ravel(axes)[0].figure is plt.figure(number)
    plt.figure(number).canvas.draw()
    title = plt.figure(number).get_suptitle() + np.ravel(axes)[0].get_title()
    assert title


@pytest.mark.parametrize("name", NAMES)
def test_on_the_callers_axes_title_and_labels_stay(calls, name):
    figure, (left, right) = plt.subplots(1, 2)
    left.set(title="mine", xlabel="my x", ylabel="my y")
    axes = calls[name](left)
    assert np.ravel(axes)[0] is left and plt.get_fignums() == [figure.number]
    assert left.get_title() == "mine" and figure.get_suptitle() == ""
    if not name.startswith("sweep"):
        assert (left.get_xlabel(), left.get_ylabel()) == ("my x", "my y")
        calls[name](right)
        assert right.get_title() == "" and right.get_xlabel() and right.get_ylabel()
    assert left.has_data() and not (right.has_data() and name.startswith("sweep"))


@pytest.mark.parametrize("name", NAMES[:5])
def test_colour_and_label_are_the_callers(calls, name):
    _, ax = plt.subplots()
    for colour, label in (("tab:red", "first"), ("tab:green", "second")):
        calls[name](ax, color=colour, label=label)
    handles, labels = ax.get_legend_handles_labels()
    assert {"first", "second"} <= set(labels) and len(labels) == len(set(labels))
    handle = handles[labels.index("first")]
    drawn = handle.get_facecolor() if hasattr(handle, "get_facecolor") else handle.get_color()
    assert matplotlib.colors.to_rgb(drawn) == matplotlib.colors.to_rgb("tab:red")
    calls[name](ax, label="third")  # colours take turns where none is given
    assert [text.get_text() for text in ax.get_legend().get_texts()].count("third") == 1


def test_figures_of_formats_show_the_rows_and_where_the_formats_end(low):
    """Ends of gradients divided by the loss scale; none that would make all else flat; refused without formats."""
    ax = low.plot(kind="magnitudes")
    (area,) = ax.collections
    reached = area.get_paths()[0].vertices[:, 1]
    assert reached.min() == pytest.approx(low.median("log10_smallest_gradient").min())
    assert reached.max() == pytest.approx(low.median("log10_largest_gradient").max())
    ends = [line.get_ydata()[0] for line in ax.lines[2:]]
    np.testing.assert_allclose(ends, np.log10([448, 2.0**-9, 57344 / 16, 2.0**-20]))
    wide = pk.propagate(low.chain, formats=pk.Formats(signals="bfloat16"), replicas=2).plot(kind="magnitudes")
    assert len(wide.lines) == 2  # the signal's: bfloat16 ends 38 decades away
    ax = low.plot(kind="lost")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), low.median("flushed_gradient"))
    told = pk.predict(low.chain, formats=low.formats)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), told.flushed_gradient)
    for kind in ("magnitudes", "lost"):
        with pytest.raises(ValueError, match=f"kind='{kind}' is for runs with formats, and this one has none"):
            pk.propagate(low.chain).plot(kind=kind)


def test_keywords_reach_matplotlib(measured):
    for given in (dict(c="tab:red", ls=":", lw=3), dict(color="tab:red", linestyle=":", linewidth=3)):
        ax = measured.plot(plt.figure().subplots(), **given)
        assert any(
            line.get_color() == "tab:red" and line.get_linestyle() == ":" and line.get_linewidth() == 3
            for line in ax.lines
        )
    mesh = pk.phase_diagram("tanh", np.linspace(0.5, 2, 7), np.linspace(0, 0.5, 5)).plot(cmap="viridis").collections[0]
    assert mesh.get_cmap().name == "viridis"
    with pytest.raises(ValueError, match="did you mean 'factors'"):
        measured.plot(kind="factor")


@pytest.mark.parametrize("kind", ["gradient", "factors", "distribution"])
def test_titles_of_a_chain_say_what_is_constant(measured, kind):
    title = measured.plot(kind=kind).get_title().replace("\n", " ")
    for word in ("12 layers of 16 units", "tanh", "he_normal", "batch 2", "correlation 0.25"):
        assert word in title


@pytest.mark.parametrize("kind", figures.KINDS)
def test_titles_of_a_sweep_say_what_is_constant(kind):
    base = pk.Chain(
        depth=2,
        width=16,
        activation="tanh",
        norm="layer",
        bias_std=0.125,
        residual=pk.Residual(scale=0.5),
        head=pk.Head("mse", 3),
    )
    grid = {"depth": [4, 8], "gain": [0.5, 1.0]}
    ds = pk.sweep(grid, base, batch=3, correlation=0.25, replicas=4, progress=False)
    title = np.ravel(figures.plot_sweep(ds, kind))[0].figure.get_suptitle().replace("\n", " ")
    for words in (
        "width 16",
        "tanh",
        "he_normal",
        "layer norm",
        "bias_std 0.125",
        "residual every 1, scale 0.5",
        "head mse (3 outputs)",
    ):
        assert words in title
    assert "batch 3" in title and "correlation 0.25" in title


def cells_said(title):
    """Cells that a title counts as not shown."""
    return sum(map(int, re.findall(r"(\d+) (?:cells|chains)", title.partition("not shown:")[2].replace("\n", " "))))


GRIDS = {
    "numbers that are none": (
        {"depth": [3, 6], "activation": ["relu", "tanh"], "gain": [1.0, 1e3]},
        {"width": 8},
        {"precision": "native"},
    ),
    "no spread": (
        {"depth": [3, 6, 9], "init": ["he_normal", "identity(0.9)"]},
        {"width": 8, "activation": "linear"},
        {},
    ),
    "zeros": ({"depth": [3, 6], "gain": [0.0, 1.0]}, {"width": 8}, {}),
    "dead by chance": ({"depth": [40, 80], "width": [2, 16]}, {}, {}),
}


@pytest.mark.parametrize("name", GRIDS)
def test_every_cell_is_shown_or_counted(name):
    grid, base, run = GRIDS[name]
    ds = pk.sweep(grid, base, replicas=6, progress=False, **run)
    page = figures.gradient(ds)
    drawn = 0
    for panel in page.panels.flat:
        for line in panel.lines:
            if line.get_marker() not in ("", "None", None):  # measured points; lines without are theory
                drawn += int(np.isfinite(np.asarray(line.get_ydata(), float)).sum())
    assert drawn + cells_said(page.figure.get_suptitle()) == ds.verdict.size
    with contextlib.suppress(ValueError):  # no cell has a spread
        page = figures.spread(ds)
        points = sum(
            len(line.get_xdata())
            for panel in page.panels.flat
            for line in panel.lines
            if line.get_linestyle() == "None"
        )
        assert points + cells_said(page.figure.get_suptitle()) == ds.verdict.size
    page = figures.verdict(ds)
    shades = sum(
        image.get_array().shape[0] * image.get_array().shape[1] for panel in page.panels.flat for image in panel.images
    )
    assert shades == ds.verdict.size


@pytest.mark.parametrize("count", [2, 15, 45])
@pytest.mark.parametrize("kind", figures.KINDS)
def test_every_swept_value_is_shown_or_said(kind, count):
    """Of an axis longer than a figure has room for, the title says how many of its values are shown."""
    for word, values in {
        "gain": list(np.linspace(0.5, 1.5, count)),
        "batch": list(range(1, count + 1)),
        "depth": list(range(2, count + 2)),
    }.items():
        grid = {"depth": [2, 3], "gain": [0.9, 1.1]} | {word: values}
        base = {"width": 4, "activation": "tanh", "init": "lecun_normal"}
        ds = pk.sweep(grid, base, replicas=4, progress=False, predict=False, profiles=False)
        page = figures._FIGURES[kind](ds, None)
        said = page.figure.get_suptitle().replace("\n", " ")
        page.figure.canvas.draw()
        if f"values of {word}" in said:
            assert re.search(rf"\d+ of {count} values of {word}", said)
            continue
        seen = [
            text.get_text()
            for panel in page.figure.axes
            for text in (*panel.get_xticklabels(), *panel.get_yticklabels(), *panel.texts, panel.title)
        ]
        seen += [text.get_text() for legend in page.figure.legends for text in legend.get_texts()]
        places = [line.get_xdata() for panel in page.panels.flat for line in panel.lines] + [
            mesh.get_coordinates()[..., k].ravel()
            for panel in page.panels.flat
            for mesh in panel.collections
            if hasattr(mesh, "get_coordinates")
            for k in (0, 1)
        ]
        numbers = {float(x) for xs in places for x in np.ravel(xs)}
        for value in values:
            inside = min(numbers) <= value <= max(numbers) if numbers and kind in ("heat", "gradient") else False
            named = any(re.search(rf"(?<![\d.]){re.escape(f'{value:.3g}')}(?![\d.])", text) for text in seen)
            assert named or inside or (kind == "spread" and word == "depth" and value / 4 in numbers), (
                word,
                value,
                said,
            )
        plt.close("all")


def test_saving_opens_nothing(swept, tmp_path):
    assert len(figures.save(swept, tmp_path)) == len(figures.KINDS)
    assert plt.get_fignums() == []


def test_axes_that_do_not_do_are_refused(swept):
    figure, ax = plt.subplots()
    with pytest.raises(ValueError, match=r"ax= is one: choose from the sweep by ds.sel"):
        figures.plot_sweep(swept, "heat", ax)
    with pytest.raises(ValueError, match="kind must be one of"):
        pk.plot_sweep(swept, "hot")
    assert not ax.has_data() and plt.get_fignums() == [figure.number]


def test_small_sweeps_of_every_pair_of_words_have_a_figure():
    values = {
        "depth": [2, 4],
        "width": [4, 8],
        "activation": ["relu", "tanh"],
        "init": ["he_normal", "orthogonal"],
        "gain": [0.9, 1.1],
    }
    values |= {"batch": [2, 3], "seed": [0, 1], "norm": [None, "layer"], "correlation": [0.0, 0.5]}
    for one, other in itertools.combinations(values, 2):
        ds = pk.sweep(
            {one: values[one], other: values[other]},
            {"depth": 3, "width": 4} if one != "depth" else {"width": 4},
            replicas=4,
            progress=False,
            predict=False,
        )
        for kind in ("gradient", "verdict"):
            pk.plot_sweep(ds, kind)
        plt.close("all")
