# SPDX-License-Identifier: BSD-3-Clause
"""Commands about one chain: run, predict, recommend, critical."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from pykernel.cli import words

_RUN = """\
Run one chain forward and backward for many independent draws of its weights;
print medians by layer, the verdict, and why."""
_RUN_EXAMPLES = """\
examples:
  pykernel run --depth 152 --width 512 --activation relu --init he_normal
  pykernel run --depth 50 --width 128 --activation sigmoid --batch 8
  pykernel run --depth 300 --width 64 --init "identity(0.5)" --json
  pykernel run --depth 200 --width 64 --gain 3 --precision native
  pykernel run --depth 50 --width 64 --check
  pykernel run --blocks mlp.toml --width 64 --depth 12 --positions 16
"""
_PREDICT = """\
What theory says of a chain, without drawing a weight: infinite width (mean
field), and the spread at finite width."""
_RECOMMEND = """\
Changes that keep this chain's gradient, each predicted and measured: gains,
inits, skip factors, branch scales, norms; what they preserve and cost."""
_CRITICAL = """\
The gain at which the squared gradient keeps its size (chi = 1): of an
activation function in an endless plain chain, as a factor on lecun_normal; with
--depth, --widths or --blocks of that chain over its own depth, as a factor on
its gain."""
_CRITICAL_EXAMPLES = """\
examples:
  pykernel critical --activation tanh --bias-std 0.05
  pykernel critical --depth 100 --width 512 --activation gelu --init he_normal
  pykernel critical --blocks mlp.toml --width 64 --depth 12
"""

FIGURES = (".png", ".svg", ".pdf")


def add(command: Any) -> None:
    run = command(
        "run", help="one chain: measure every layer", description=_RUN, epilog=_RUN_EXAMPLES + "\n" + words.BLOCKS
    )
    words.add_flags(run.add_argument_group("chain"), words.CHAIN, many=False, defaults=words.USUAL)
    words.add_flags(run.add_argument_group("run"), words.RUN, many=False, defaults=words.USUAL)
    run.add_argument("--json", action="store_true", help="print numbers as JSON, medians by layer")
    run.add_argument("--plot", metavar="FILE", type=figure, help="draw gradient against layer into a PNG, SVG or PDF")
    run.add_argument(
        "--check", action="store_true", help="exit with code 5 unless the verdict is stable: for a test of your own"
    )
    run.set_defaults(call=_run)

    predict = command("predict", help="one chain: what theory says", description=_PREDICT)
    words.add_flags(predict.add_argument_group("chain"), words.CHAIN, many=False)
    words.add_flags(predict.add_argument_group("run"), ("batch", "positions", *words.FORMATS), many=False)
    predict.add_argument("--json", action="store_true", help="print numbers as JSON")
    predict.set_defaults(call=_predict)

    recommend = command("recommend", help="one chain: a better init", description=_RECOMMEND)
    words.add_flags(recommend.add_argument_group("chain"), words.CHAIN, many=False)
    words.add_flags(recommend.add_argument_group("run"), ("batch", "positions", "replicas", "seed"), many=False)
    words.add_flags(recommend.add_argument_group("formats"), tuple(words.FORMATS), many=False)
    recommend.set_defaults(call=_recommend)

    critical = command(
        "critical",
        help="the gain at which gradients keep their size",
        description=_CRITICAL,
        epilog=_CRITICAL_EXAMPLES + "\n" + words.BLOCKS,
    )
    words.add_flags(critical.add_argument_group("chain"), words.CHAIN, many=False)
    words.add_flags(critical.add_argument_group("run"), ("batch", "positions"), many=False)
    critical.set_defaults(call=_critical)


def figure(path: str) -> str:
    """The path of a figure, refused before any work where nothing can be drawn into it."""
    if Path(path).suffix.lower() not in FIGURES:
        raise argparse.ArgumentTypeError(f"must end in {', '.join(FIGURES[:-1])} or {FIGURES[-1]}, got {path!r}")
    if not Path(path).absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{str(Path(path).parent)!r} is not a folder")
    return path


def _run(given: argparse.Namespace) -> int:
    import pykernel as pk

    result = pk.propagate(words.chain(given), **{"replicas": words.REPLICAS, **words.run(given)})
    return show(given, result) or (5 if given.check and result.verdict != "stable" else 0)


def show(given: argparse.Namespace, result: Any) -> int:
    """A result in print or as JSON, and its figure in a file; the exit code."""
    print(_json(result.to_dict()) if given.json else result, flush=True)
    if not given.plot:
        return 0
    try:
        _save(result, given.plot)
    except (OSError, ValueError) as error:
        print(f"pykernel {given.command}: no figure in {given.plot}: {error}", file=sys.stderr)
        return 3 if isinstance(error, OSError) else 2
    return 0


def _predict(given: argparse.Namespace) -> int:
    import pykernel as pk

    result = pk.predict(words.chain(given), **words.run(given, ("batch", "positions", *words.FORMATS)))
    print(_json(result.to_dict()) if given.json else result)
    return 0


def _recommend(given: argparse.Namespace) -> int:
    import pykernel as pk

    print(
        pk.recommend(words.chain(given), **words.run(given, ("batch", "positions", "replicas", "seed", *words.FORMATS)))
    )
    return 0


def _critical(given: argparse.Namespace) -> int:
    import pykernel as pk

    run = words.run(given, ("batch", "positions"))
    if any(getattr(given, word) is not None for word in ("depth", "width", "widths", "blocks")):
        print(pk.critical_gain(words.chain(given), **run))
        return 0
    known = ("activation", "bias_std", "norm", "order", "norm_eps")
    named = {name: words.value(name, getattr(given, name)) for name in words.CHAIN if getattr(given, name) is not None}
    other = next((name for name in (*named, *run) if name not in known), None)
    if other:
        raise ValueError(f"--{other.replace('_', '-')} is of a chain: give --depth and --width or --blocks, too")
    print(pk.critical_gain(**named))
    return 0


def _json(numbers: dict) -> str:
    import json

    return json.dumps(numbers, indent=1, allow_nan=False)


def _save(result: Any, path: str) -> None:
    from matplotlib.figure import Figure

    result.plot(Figure()).figure.savefig(path, dpi=150, bbox_inches="tight")
