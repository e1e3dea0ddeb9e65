# SPDX-License-Identifier: BSD-3-Clause
"""How far a round of work is: counted by chains, timed by what they cost."""

from __future__ import annotations

import time
from collections import Counter

from pykernel.sweeps.blocks import Pace, Piece
from pykernel.sweeps.progress import Progress

EARLY = 0.1  # of a sweep's cost: before, its own pace tells less of the time left than the cost model


class Tally:
    """Counts the pieces of one round.

    Args:
        pieces: all of the round.
        begin: when the sweep began, by `time.monotonic`.
        pace: knows what pieces cost.
    """

    def __init__(self, pieces: list[Piece], begin: float, pace: Pace) -> None:
        self.pace = pace
        self.total = sum(piece.count for piece in pieces)
        self.left: Counter[str] = Counter()
        for piece in pieces:
            self.left[piece.key] += piece.count
        self.cost = max(sum(pace.nominal(piece) * piece.count for piece in pieces), 1e-9)
        self.begin, self.round = begin, time.monotonic()
        self.spent, self.done = 0.0, 0

    def count(self, piece: Piece) -> None:
        self.left[piece.key] -= piece.count
        self.done += piece.count
        self.spent += self.pace.nominal(piece) * piece.count

    def progress(self, cells: int, latest: str, lanes: int | None) -> Progress:
        """What to show, of so many cells in all.

        Args:
            lanes: blocks that run side by side, None where nobody knows.
        """
        now = time.monotonic()
        in_round = now - self.round
        fraction = min(self.spent / self.cost, 1.0)
        if fraction > EARLY or (fraction > 0 and lanes is None):  # the model's rest, as fast as the round has gone
            left = in_round * (1 - fraction) / fraction
        else:  # workers that start and kernels that load say little of the rest
            left = (1 - fraction) * self.cost * self.pace.factor("all") / (lanes or 1)
        return Progress(
            cells - sum(count > 0 for count in self.left.values()),
            cells,
            self.done,
            self.total,
            fraction if self.done < self.total else 1.0,
            now - self.begin,
            left,
            self.done / max(in_round, 1e-9),
            latest,
        )
