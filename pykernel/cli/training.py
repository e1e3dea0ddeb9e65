# SPDX-License-Identifier: BSD-3-Clause
"""The command `train`: first steps of gradient descent."""

from __future__ import annotations

import argparse
from typing import Any

from pykernel.cli import words
from pykernel.cli.single import figure, show

_TEXT = """\
Train fresh networks of one chain, which has a head, by full-batch gradient
descent; print loss and gradients step by step, medians over draws."""
_EXAMPLES = """\
examples:
  pykernel train --depth 10 --width 256 --activation tanh --init lecun_normal \\
      --head mse:1 --steps 20 --rate 0.02 --batch 8
  pykernel train --depth 3 --width 65536 --head mse:1 --parametrization mup
  pykernel train --depth 30 --width 64 --activation tanh --tied true \\
      --head softmax:10 --batch 16 --clip 1 --check
"""
_RUN = ("batch", "positions", "replicas", "seed", "engine", "backend", "dtype", "threads", "correlation")
_DESCENT = ("steps", "rate", "momentum", "parametrization")


def add(command: Any) -> None:
    train = command(
        "train",
        help="one chain: first steps of gradient descent",
        description=_TEXT,
        epilog=_EXAMPLES + "\n" + words.BLOCKS,
    )
    words.add_flags(train.add_argument_group("chain"), words.CHAIN, many=False, defaults=words.USUAL)
    words.add_flags(
        train.add_argument_group("descent"),
        _DESCENT,
        many=False,
        defaults={"steps": 10, "rate": 0.1, "momentum": 0, "parametrization": "standard"},
    )
    words.add_flags(train.add_argument_group("run"), _RUN, many=False, defaults=words.USUAL)
    train.add_argument("--json", action="store_true", help="print numbers as JSON, medians by step and layer")
    train.add_argument(
        "--plot", metavar="FILE", type=figure, help="draw the loss against the step into a PNG, SVG or PDF"
    )
    train.add_argument("--check", action="store_true", help="exit with code 5 unless the loss falls")
    train.set_defaults(call=_train)


def _train(given: argparse.Namespace) -> int:
    import pykernel as pk

    run = words.run(given, (*_DESCENT, *_RUN))
    result = pk.train(words.chain(given), **{"replicas": words.REPLICAS, **run})
    return show(given, result) or (5 if given.check and not result.falls else 0)
