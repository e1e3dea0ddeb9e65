# SPDX-License-Identifier: BSD-3-Clause
"""`python -m pykernel`: the command line; or, with --includes, --cmakedir, --library, --cflags, --libs, what a build needs to know."""

import sys

from pykernel.embed import get_flags

BUILD = {f"--{what}": what for what in ("includes", "cmakedir", "library", "cflags", "libs")}


def main() -> int:
    """Answer build questions here and leave everything else to the command line."""
    asked = sys.argv[1:]
    if asked and all(word in BUILD for word in asked):
        print(*(get_flags(BUILD[word]) for word in asked))
        return 0
    from pykernel.cli import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
