# SPDX-License-Identifier: BSD-3-Clause
"""Theory of a sweep's cells, computed in a thread beside the kernels, which leave Python alone, and for a bounded time
after them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from pykernel.sweeps import theory
from pykernel.sweeps.grid import Cell

PATIENCE = 30.0  # seconds after the last number that theory may take without being asked for


class Beside:
    """The thread, and what it has made so far.

    Args:
        cells: whose theory is asked for; cheap ones come first, so that a bound in time leaves out few.
        known: what is known already, by key of cell.
    """

    def __init__(self, cells: Sequence[Cell], known: theory.Known) -> None:
        self.wanted = {cell.key: theory.weight(cell) for cell in cells if cell.key not in known}
        self.made: theory.Known = {}
        self.error: BaseException | None = None
        self.over, self.quit = threading.Event(), threading.Event()
        self.todo = sorted((cell for cell in cells if cell.key in self.wanted), key=theory.weight)
        self.begin = time.monotonic()
        if self.todo:
            threading.Thread(target=self._run, daemon=True).start()
        else:
            self.over.set()

    def _run(self) -> None:
        try:
            for key, row in theory.predict(self.todo):
                self.made[key] = row
                if self.quit.is_set():
                    break
        except BaseException as error:  # raised again in the sweep's own thread
            self.error = error
        finally:
            self.over.set()

    def left(self) -> int:
        """Cells that have no theory yet."""
        return len(self.wanted) - len(self.made)

    def seconds_left(self) -> float:
        """What the rest takes at the pace so far, by the nominal weight of cells."""
        done = sum(self.wanted[key] for key in list(self.made))
        return (time.monotonic() - self.begin) * (sum(self.wanted.values()) / max(done, 1) - 1)

    def wait(
        self, patience: float | None, stop: Callable[[], bool], tell: Callable[[int, int, float], None]
    ) -> theory.Known:
        """Wait for the rest, telling how many of how many are done and the seconds left; what was made when patience or
        `stop` ends it."""
        end = time.monotonic() + (float("inf") if patience is None else patience)
        told = False
        while not self.over.wait(0.2) and not stop() and time.monotonic() < end:
            tell(len(self.made), len(self.wanted), min(self.seconds_left(), end - time.monotonic()))
            told = True
        if told and self.over.is_set():
            tell(len(self.made), len(self.wanted), 0.0)
        self.quit.set()
        if self.error is not None:
            raise self.error
        return dict(self.made)
