# SPDX-License-Identifier: BSD-3-Clause
"""The command `report`: a store, or an object in a Python file, as one HTML file."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

from pykernel.cli import words

_REPORT = """\
Write one HTML file that works offline: the verdict in words, advice, figures
to explore (verdicts, gradient against depth with theory, layer by layer, phase
diagram), numbers to copy, and how to run it again. Of a sweep's store, also
while it runs; or of a network in a Python file: a PyTorch module, a
pykernel.Chain, or a function without arguments that returns one."""
_EXAMPLES = """\
examples:
  pykernel report results
  pykernel report out --output study.html
  pykernel report net.py:net --batch 8
  pykernel report my.package.models:make_net --positions 128
  pykernel report trained.py:net --weights
"""
_FLAGS = ("batch", "positions", "replicas", "seed", "dtype", "threads", "precision", "correlation")


def add(command: Any) -> None:
    report = command("report", help="a store or a network as one HTML file", description=_REPORT, epilog=_EXAMPLES)
    report.add_argument("of", metavar="DIR|FILE.py:NAME", help="a sweep's store, or where a network stands")
    report.add_argument("--output", metavar="FILE", help="default DIR/report.html, or NAME.html")
    report.add_argument(
        "--weights", action="store_true", help="measure a module's own weights, not the scheme they are a draw of"
    )
    words.add_flags(
        report.add_argument_group("run, of a network"),
        _FLAGS,
        many=False,
        defaults={**words.USUAL, "replicas": "20, of large networks fewer"},
    )
    report.set_defaults(call=_report)


def _report(given: argparse.Namespace) -> int:
    import pykernel as pk

    run = words.run(given, _FLAGS)
    if _is_network(given.of):
        name = given.of.rpartition(":")[2].rpartition(".")[2]
        output = given.output or f"{name}.html"
        found = load(given.of)
        if given.weights and isinstance(found, pk.Chain):
            raise ValueError("--weights is for PyTorch modules; a Chain has its weights in its init")
        print(pk.report(found, output, weights=given.weights, source=given.of, **run))
        return 0
    if given.weights:
        raise ValueError(f"--weights is for networks, FILE.py:NAME, and {given.of} is none")
    print(pk.report(given.of, given.output, **run))
    return 0


def _is_network(of: str) -> bool:
    return not Path(of).is_dir() and bool(re.search(r"(\.py|^[\w.]+):[\w.]+$", of))


def load(where: str) -> Any:
    """The object that "FILE.py:NAME" or "package.module:NAME" names; a function or class without arguments is called.

    Raises:
        ValueError: the file, the name, or what it raised.
        OSError: there is no file.
    """
    place, _, name = where.rpartition(":")
    path = Path(place)
    if place.endswith(".py") and not path.is_file():
        raise FileNotFoundError(f"{place} cannot be read: no such file")
    folder = str(path.parent.resolve() if place.endswith(".py") else Path.cwd())
    sys.path.insert(0, folder)
    try:
        found: Any = _module(path) if place.endswith(".py") else importlib.import_module(place)
        for part in name.split("."):
            if not hasattr(found, part):
                raise ValueError(f"{place} has no {name}")
            found = getattr(found, part)
        if isinstance(found, type) or (callable(found) and not hasattr(found, "named_modules")):
            found = found()
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:  # another's code may raise anything
        if isinstance(error, ValueError) and str(error) == f"{place} has no {name}":
            raise
        raise ValueError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
    return found


def _module(path: Path) -> Any:
    """A file as a module, under a name that hides no other's."""
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_of_report"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and pickles look for it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
