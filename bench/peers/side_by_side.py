# SPDX-License-Identifier: BSD-3-Clause
"""`make bench-peers`: times pykernel and the tools of contenders.py on the same deep chains, in one run, and prints a
table.

Rows are points WIDTHxDEPTHxBATCH and schemes; a point that ends in "matrix_free" is run by that engine. The contenders
take turns; a ratio is one turn's time of theirs by the same turn's of ours: median and quartiles over the turns, by the
clock and by processor time. The best framework, and the best of all, are those of the smallest median by the clock.
"""

from __future__ import annotations

from turns import arguments_of, median, ratio, say, seconds_in_turns, show  # first: it clears the environment

from contenders import COMPOSED, FRAMEWORKS, pykernel_with  # isort: skip

POINTS = (
    *("64x64x1", "128x128x16", "256x64x1", "256x64x32", "1024x32x1", "1024x32x32", "2048x16x32"),
    *("4096x16x16 matrix_free", "3000x24x24 matrix_free"),
)
INITS = ("he_normal", "he_uniform")


def replicas_at(n: int, L: int, B: int) -> int:
    """An even number of networks, at most 64, that keeps a framework busy for a second or so; one where it is more."""
    wanted = int(2e8 / (n * n * L * (1 + B / 8)))
    return min(64, max(2, wanted + wanted % 2)) if n * n * L < 1e8 else 1


def rows(arguments, peers: dict):
    """One list of cells for each point and scheme."""
    for text in arguments.points:
        point, _, engine = text.partition(" ")
        n, L, B = (int(number) for number in point.split("x"))
        R = replicas_at(n, L, B)
        contenders = {**peers, "pykernel": pykernel_with(engine or "dense", arguments.backend)}
        for init in arguments.init:
            if engine and init != "he_normal":  # the law without weights is that of normal ones
                continue
            taken = seconds_in_turns(contenders, (n, L, B, R, init), (R, L), arguments.turns, arguments.budget)
            medians = {name: median(seconds) for name, seconds in taken.items()}
            framework = min((name for name in peers if name in FRAMEWORKS), key=medians.get)
            strongest = min(peers, key=medians.get)
            say(f"{text} {init}: {medians}")
            yield [
                point.replace("x", " x ") + engine.replace("matrix_free", ", matrix-free"),
                init,
                f"{medians['pykernel'] / (R * L * n * n) * 1e9:.3g}",
                f"{ratio(taken[framework], taken['pykernel'])} ({framework})",
                f"{ratio(taken[strongest], taken['pykernel'])} ({strongest})",
            ]


def add(parser) -> None:
    """What this table has of its own."""
    parser.add_argument("--init", nargs="+", default=INITS, choices=INITS)
    parser.add_argument("--backend", default="cpp", choices=("cpp", "numba"))


def main() -> None:
    arguments = arguments_of(__doc__, POINTS, "POINT", add)
    peers = {name: run for name, run in {**FRAMEWORKS, **COMPOSED}.items() if name not in arguments.without}
    heads = [
        "width x depth x batch",
        "weights",
        "ns a weight",
        "times slower: the best framework",
        "the strongest of all",
    ]
    show("peers", heads, rows(arguments, peers), arguments.write)


if __name__ == "__main__":
    main()
