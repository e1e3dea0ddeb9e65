# SPDX-License-Identifier: BSD-3-Clause
"""Every benchmark runs, at its smallest size: a benchmark that nobody has run this month measures nothing."""

import importlib.util
import inspect
import itertools
import os
import subprocess
import sys

import pytest
from places import ROOT

BENCH = ROOT / "bench"
MODULES = sorted(path.stem for path in (BENCH / "benchmarks").glob("*.py") if path.stem not in ("__init__", "points"))
KINDS = ("time_", "timeraw_", "peakmem_", "track_")


@pytest.fixture(scope="module")
def suite():
    """The package of benchmarks, imported as asv does, at the smallest sizes."""
    os.environ["PYKERNEL_BENCH"] = "smallest"
    spec = importlib.util.spec_from_file_location("benchmarks", BENCH / "benchmarks" / "__init__.py")
    package = importlib.util.module_from_spec(spec)
    sys.modules["benchmarks"] = package
    spec.loader.exec_module(package)
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        del sys.modules[name]
    del os.environ["PYKERNEL_BENCH"]


@pytest.mark.filterwarnings("ignore:Creating scratch directories:UserWarning")  # of Dask, where that takes a second
@pytest.mark.parametrize("module", MODULES)
def test_benchmarks_run(suite, module):
    found = importlib.import_module(f"benchmarks.{module}")
    ran = 0
    for _, kind in inspect.getmembers(found, inspect.isclass):
        if kind.__module__ != found.__name__:
            continue
        cache = [kind().setup_cache()] if hasattr(kind, "setup_cache") else []
        for name, method in inspect.getmembers(kind, inspect.isfunction):
            if not name.startswith(KINDS):
                continue
            params = getattr(method, "params", getattr(kind, "params", []))
            params = [params] if params and not isinstance(params[0], (list, tuple)) else params
            for values in itertools.product(*params):
                bench = kind()
                try:
                    getattr(bench, "setup", lambda *_: None)(*cache, *values)
                except NotImplementedError:  # asv's way to say that there is nothing to measure
                    continue
                result = getattr(bench, name)(*cache, *values)
                if name.startswith("timeraw_"):
                    subprocess.run([sys.executable, "-c", result], check=True)
                if name.startswith("track_"):
                    assert isinstance(result, float)
                ran += 1
    assert ran


def test_the_report_goes_on_where_a_benchmark_failed():
    """asv keeps no value of a benchmark that failed as a whole, None for a combination of parameters that did."""
    spec = importlib.util.spec_from_file_location("bench_run", BENCH / "run.py")
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    params = [["'a'", "'b'"], ["1", "2"]]
    for result, failed in ((None, 4), ([1.0, None, 3.0, 4.0], 1), ([None], 4), ([1.0, 2.0, float("nan"), 4.0], 0)):
        text = run.table("suite.name", params, run.values_of(params, result), "seconds")
        assert text.count("failed") == failed and len(text.splitlines()) == 4
    assert run.table("suite.name", [], run.values_of([], None), "") == "suite.name: failed"
    assert run.table("suite.name", [], run.values_of([], [2.0]), "seconds") == "suite.name: 2 s"
