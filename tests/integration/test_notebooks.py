# SPDX-License-Identifier: BSD-3-Clause
"""Notebooks in a real Jupyter kernel: those of the gallery as downloaded, every figure that Python can ask for,
progress of a sweep."""

import re

import nbformat
import pytest
from nbclient import NotebookClient
from places import ROOT

# Jupyter's clients leave sockets and an event loop to the collector, which finds them during whichever test comes next.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
DOWNLOADS = ROOT / "docs" / "_build" / "html" / "_downloads"
NOTEBOOKS = sorted(DOWNLOADS.rglob("*.ipynb"), key=lambda path: path.name)
FIGURES = """
import numpy as np, pykernel as pk
p = pk.propagate(pk.Chain(depth=20, width=32), replicas=5)
ds = pk.sweep({"depth": [5, 10], "gain": [0.9, 1.1]}, {"width": 16}, replicas=4, progress=False)
===
p.plot()
===
p.plot(kind="factors");
===
p.plot(kind="distribution", color="tab:red", label="mine")
===
pk.phase_diagram("tanh", np.linspace(0.5, 2, 9), np.linspace(0, 0.5, 5)).plot();
===
pk.plot_sweep(ds)
===
pk.plot_sweep(ds, "heat");
===
pk.plot_sweep(ds, "spread")
===
pk.plot_sweep(ds, "verdict");
===
import matplotlib.pyplot as plt
figure, (left, right) = plt.subplots(1, 2)
p.plot(ax=left)
pk.plot_sweep(ds.sel(gain=1.1), ax=right);
"""


def run(notebook, folder):
    """The notebook, executed in a kernel of its own in an empty folder."""
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return notebook


def of_cells(text):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in text.split("===")])


def figures(cell):
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


def said(cell, name):
    """What a cell printed: "stdout" or "stderr"."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == name)


def test_the_gallery_offers_its_notebooks():
    assert len(NOTEBOOKS) == len(list((ROOT / "examples").glob("[0-9]*.py"))), "make docs builds them first"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_downloaded_notebook_runs_and_shows_its_figure(path, tmp_path):
    cells = run(nbformat.read(path, 4), tmp_path).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert sum(map(figures, code)) == 1
    assert "".join(said(cell, "stdout") for cell in code)
    assert re.sub(r"compiling the Numba kernels: .*\n", "", "".join(said(cell, "stderr") for cell in code)) == ""
    assert list(tmp_path.iterdir()) == []


def test_every_figure_shows_once(tmp_path):
    first, *cells = run(of_cells(FIGURES), tmp_path).cells
    assert figures(first) == 0
    assert [figures(cell) for cell in cells] == [1] * len(cells)
    assert not any(said(cell, "stderr") for cell in cells)


@pytest.mark.parametrize("widgets", [True, False])
def test_progress_of_a_sweep(widgets, tmp_path):
    """A bar: a widget where Jupyter has them, else a line of text; at its end it says that all is done, and nobody is
    warned."""
    cells = of_cells(
        ("" if widgets else "import sys; sys.modules['ipywidgets'] = None")
        + "\nimport pykernel as pk\n===\n"
        + 'ds = pk.sweep({"depth": [5, 10]}, {"width": 16}, replicas=4, backend="reference")'
    )
    cell = run(cells, tmp_path).cells[1]
    bars = [output for output in cell.outputs if "application/vnd.jupyter.widget-view+json" in output.get("data", {})]
    text = said(cell, "stderr")
    assert "Warning" not in text
    if widgets:
        assert len(bars) == 1
        parts = [
            part["state"]
            for part in cells.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"].values()
        ]
        (bar,) = (part for part in parts if part.get("bar_style"))
        assert (bar["bar_style"], bar["value"]) == ("success", bar["max"])
        assert "2/2 cells" in " ".join(str(part.get("value")) for part in parts).replace("\u2007", " ")
    else:
        assert not bars and re.search(r"100%.*2/2 cells", text)


def test_a_sweep_is_stopped_by_the_kernel_and_goes_on(tmp_path):
    """The stop button sends SIGINT to the kernel: what is finished is kept, and the same cell goes on from there."""
    cells = of_cells("""
import os, signal, threading, pykernel as pk
words = dict(grid={"depth": [50, 100]}, base={"width": 64}, replicas=400, engine="dense", store="out", progress=False)
===
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    pk.sweep(**{**words, "replicas": 10**6})
except KeyboardInterrupt as stopped:
    print("stopped")
===
kept = int(pk.open("out").replicas.sum())
print(kept > 0, (pk.sweep(**words).replicas >= 400).all().item())
""")
    _, stopped, after = run(cells, tmp_path).cells
    assert said(stopped, "stdout") == "stopped\n" and said(after, "stdout") == "True True\n"
