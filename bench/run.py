# SPDX-License-Identifier: BSD-3-Clause
"""`make bench`: runs the asv suite in the environment of this interpreter, keeps the results for asv, and prints them
as tables.

A benchmark that fails is a cell that says so; the exit code is then 2. Nothing is written outside the checkout.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parent
RESULTS = BENCH / "results"  # as asv.conf.json says: the history, to keep and to share
GROWTH = BENCH.parent / "docs" / "_static" / "growth.svg"
OWN = BENCH / ".asv" / "home"  # what asv and the benchmarks keep for themselves


def asv(*arguments: str, env: dict | None = None) -> int:
    """Run asv with our configuration and pass its progress on, without questions and tables; its exit code (2: a
    benchmark failed)."""
    command = [sys.executable, "-m", "asv", *arguments, "--config", str(BENCH / "asv.conf.json")]
    with subprocess.Popen(
        command, cwd=BENCH, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        for line in running.stdout:
            if line[0] in "[·" and not line.rstrip().endswith("="):
                print(line, end="", flush=True)
    return running.returncode


def newest_results() -> dict:
    """{benchmark: (parameter lists, values)} of the last run."""
    files = [path for path in RESULTS.glob("*/*.json") if path.name != "machine.json"]
    stored = json.loads(max(files, key=lambda path: path.stat().st_mtime).read_text())
    columns = stored["result_columns"]
    found = {}
    for name, row in stored["results"].items():
        fields = dict(zip(columns, row, strict=False))
        found[name] = (fields["params"], values_of(fields["params"], fields["result"]))
    return found


def values_of(params: list[list[str]], result: list | None) -> list:
    """One value a combination of parameters: asv keeps none at all of a benchmark that failed as a whole."""
    count = math.prod(len(values) for values in params)
    return result if result is not None and len(result) == count else [None] * count


def unit_of(name: str) -> str:
    """The unit that asv noted when it discovered the benchmark."""
    return json.loads((RESULTS / "benchmarks.json").read_text()).get(name, {}).get("unit", "")


def text(value: float | None, unit: str) -> str:
    """A number with a unit that reads well."""
    if value is None:
        return "failed"
    if value != value:
        return "n/a"
    if unit == "seconds":
        scale, symbol = next((pair for pair in ((1.0, "s"), (1e-3, "ms")) if value >= pair[0]), (1e-6, "us"))
        return f"{value / scale:.3g} {symbol}"
    if unit == "bytes":
        return f"{value / 2**20:.1f} MiB"
    return f"{value:.4g}"


def table(name: str, params: list[list[str]], values: list, unit: str) -> str:
    """One benchmark: rows are all parameters but the last, columns the last."""
    heading = name + (f" [{unit}]" if unit not in ("", "seconds", "bytes") else "")
    cells = [text(value, unit) for value in values]
    if not params:
        return f"{heading}: {cells[0]}"
    *outer, last = params
    columns = [str(value).strip("'") for value in last]
    names = [" ".join(str(value).strip("'") for value in row) for row in itertools.product(*outer)]
    rows = [["", *columns]] + [[row, *cells[i * len(columns) : (i + 1) * len(columns)]] for i, row in enumerate(names)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        row[0].ljust(widths[0])
        + "".join(cell.rjust(width + 2) for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    return "\n".join([heading, *lines])


def draw_growth(found: dict) -> None:
    """The figure of docs/guides/benchmarks.md: cost as width and depth grow, from the results of MatrixFree."""
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "growth"
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
    for axis, grows in zip(axes, ("width", "depth"), strict=True):
        name = f"matrix_free.MatrixFree.track_{grows}"
        (columns, sizes), values = found[name]
        for i, count in enumerate(columns):
            line = [math.nan if v is None else v for v in values[i * len(sizes) : (i + 1) * len(sizes)]]
            axis.loglog([float(size) for size in sizes], line, "o-", label=str(count))
        axis.set_xlabel(f"{grows}" + (" (4 layers)" if grows == "width" else " (256 units)"))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(unit_of(name).replace("ns/", "ns a "))
    axes[1].legend(*axes[0].get_legend_handles_labels(), title="columns", loc="upper right")  # where no line is
    figure.savefig(GROWTH, metadata={"Date": None})
    print(f"\n{GROWTH}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--effort",
        choices=("smallest", "quick", "full"),
        default="quick",
        help="sizes to run (quick: under ten minutes)",
    )
    parser.add_argument(
        "--bench", action="append", default=[], metavar="REGEX", help="run only benchmarks whose names match"
    )
    parser.add_argument("--figure", action="store_true", help="draw cost as work grows into the docs")
    arguments = parser.parse_args()

    shutil.rmtree(OWN, ignore_errors=True)  # Numba does not notice every edit of what it keeps
    (OWN / "tmp").mkdir(parents=True)
    env = dict(
        os.environ,
        PYKERNEL_BENCH=arguments.effort,
        HOME=str(OWN),
        TMPDIR=str(OWN / "tmp"),
        NUMBA_CACHE_DIR=str(OWN / "numba"),
    )
    # NumPy's ceiling is the kernel that it chooses for this processor
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        env.pop(name, None)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=BENCH, capture_output=True, text=True, check=True
    ).stdout.strip()

    # Without a machine file asv asks; without a commit it throws the results of an existing environment away.
    asv("machine", "--yes", env=env)
    selection = [word for regex in arguments.bench for word in ("--bench", regex)]
    code = asv("run", "-E", f"existing:{sys.executable}", "--set-commit-hash", commit, *selection, env=env)

    for name, (params, values) in newest_results().items():
        print("\n" + table(name, params, values, unit_of(name)))
    if arguments.figure:
        draw_growth(newest_results())
    return code


if __name__ == "__main__":
    sys.exit(main())
