# SPDX-License-Identifier: BSD-3-Clause
"""`pykernel` on the command line: the same words as the Python API. Heavy imports wait for their command, so that `run`
answers at once."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Sequence
from typing import Any

from pykernel import embed
from pykernel.cli import pages, single, stores, sweeps, training

EXIT_CODES = """\
exit codes:
  0    done
  1    it ran, but some cells failed; or an error that is ours
  2    wrong words: the message says what was given and what is allowed
  3    a store or file cannot be used: the message names it
  4    status: the sweep is not complete
  5    run --check: the verdict is not "stable"; train --check: the loss does
       not fall
  130  stopped by Ctrl-C (143 by SIGTERM); what was finished is saved
"""

DESCRIPTION = """\
Signals forward and gradients backward through very deep random chains:
how gradient magnitude scales with depth under each initialisation scheme."""

EXAMPLES = """\
examples:
  pykernel run --depth 152 --width 512 --activation relu --init he_normal
  pykernel train --depth 10 --width 256 --head mse:1 --steps 20 --rate 0.02
  pykernel sweep                           the default sweep, into results/
  pykernel sweep --depth 10 100 --width 64 --init he_normal orthogonal
  pykernel status out
  pykernel plot out
  pykernel report out
  pykernel predict --depth 100 --width 512 --activation tanh --init lecun_normal
  pykernel recommend --depth 100 --width 512 --activation gelu
  pykernel critical --activation tanh --bias-std 0.05
"""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=80)


class _Parser(argparse.ArgumentParser):
    """A grammar that knows what a mistyped flag may have meant."""

    def parse_known_args(self, *words: Any, **rest: Any) -> Any:
        found, unknown = super().parse_known_args(*words, **rest)
        if unknown:  # said here, where the command's flags are known, and not by the parser above it
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._hint(unknown)}")
        return found, unknown

    def _hint(self, unknown: list[str]) -> str:
        """What flags that are not there may have meant."""
        import difflib

        flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        given = [word.partition("=")[0] for word in unknown if word.startswith("--")]
        within = lambda word: [flag for flag in flags if word.strip("-").removesuffix("s") in flag.split("-")]
        near = lambda word: within(word) or difflib.get_close_matches(word, flags, 1, 0.6)
        hints = dict.fromkeys(flag for word in given for flag in near(word))
        return f"; did you mean {', '.join(hints)}?" if hints else ""


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = _Parser("pykernel", description=DESCRIPTION, epilog=EXAMPLES + "\n" + EXIT_CODES, formatter_class=_Formatter)
    top.add_argument("--version", action="store_true", help="print the version and leave")
    build = top.add_argument_group("building against this installation", "print and leave")
    for what, words in embed.FLAGS.items():
        build.add_argument(f"--{what}", action="append_const", dest="flags", const=what, help=words)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for room in (single, training, sweeps, stores, pages):
        room.add(functools.partial(commands.add_parser, formatter_class=_Formatter))
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    grammar = parser()
    given = grammar.parse_args(arguments)
    if given.version:
        import pykernel

        print(pykernel.__version__)
        return 0
    if given.flags:
        print(*map(embed.get_flags, given.flags))
        return 0
    if given.command is None:
        grammar.print_help()
        return 2
    try:
        code = given.call(given)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError) as error:
        print(f"pykernel {given.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(f"pykernel: {error}" if str(error) else "pykernel: stopped", file=sys.stderr)
        return 128 + getattr(error, "signal", 2)
    except (OSError, RuntimeError) as error:
        print(f"pykernel {given.command}: {error}", file=sys.stderr)
        return 3 if isinstance(error, OSError) or type(error).__name__ in ("StoreError", "Damage") else 1
