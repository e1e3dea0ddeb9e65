# SPDX-License-Identifier: BSD-3-Clause
"""How a sweep tells how far it is, and how it is stopped: a bar on a terminal or in a notebook, plain lines elsewhere,
a callback."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

PLAIN_EVERY = 30.0  # seconds between lines where nobody watches a bar


class Progress(NamedTuple):
    """How far a sweep is: given to a `progress=` callback after every block."""

    cells_done: int
    cells: int
    chains_done: int
    chains: int
    fraction: float
    seconds: float
    seconds_left: float
    chains_per_second: float
    latest: str

    def __str__(self) -> str:
        left = f"{clock(self.seconds_left)} left" if self.chains_done < self.chains else f"in {clock(self.seconds)}"
        latest = f", {self.latest}" if self.latest else ""
        return (
            f"{self.cells_done} of {self.cells} cells, {100 * self.fraction:.0f} %, "
            f"{rate(self.chains_per_second)} chains/s, {left}{latest}"
        )


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    whole = int(seconds + 0.5)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rate(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


class Reporter:
    """Shows `Progress`: a bar, plain lines, a callback, or nothing.

    Args:
        progress: True, False, or a function of one Progress.
    """

    def __init__(self, progress: Any) -> None:
        if not isinstance(progress, bool) and not callable(progress):
            raise TypeError(f"progress must be True, False or a function of a Progress, got {progress!r}")
        self.callback: Callable[[Progress], None] | None = progress if callable(progress) else None
        self.shows = progress is True
        self.bar: Any = None
        self.phase = "numbers"
        self.last = time.monotonic()

    def update(self, now: Progress) -> None:
        if self.callback is not None:
            self.callback(now)
        if not self.shows:
            return
        if self.bar is None and (_in_notebook() or _on_screen()):
            self.bar = self._bar(1000)
        if self.bar is not None:
            text = f"{now.cells_done}/{now.cells} cells, {rate(now.chains_per_second)} chains/s, "
            text += f"{clock(now.seconds_left)} left" if now.chains_done < now.chains else f"in {clock(now.seconds)}"
            # A bar of a quarter of the line is kept; notebooks have room.
            room = 96 if _in_notebook() else max(shutil.get_terminal_size((80, 24)).columns * 3 // 4 - 8, 10)
            whole = f"{text}, {now.latest}" if now.latest else text
            self.bar.set_description_str(whole if len(whole) <= room else text[:room], refresh=False)
            self.bar.n = int(1000 * now.fraction)
            self.bar.refresh()
        elif time.monotonic() - self.last >= PLAIN_EVERY:
            self.last = time.monotonic()
            self.say(str(now))

    def theory(self, done: int, wanted: int, seconds_left: float) -> None:
        """How far theory is, once every number is finished: a second bar, or lines."""
        if not self.shows:
            return
        if self.phase != "theory":
            self.phase, self.last = "theory", time.monotonic()
            if self.bar is None:
                self.say(f"every number is finished; theory of {wanted - done} cells is still computed")
            else:
                self.bar.close()
                self.bar = self._bar(wanted)
        text = f"{done} of {wanted} cells, {clock(seconds_left)} left"
        if self.bar is not None:
            self.bar.set_description_str(f"theory {text}", refresh=False)
            self.bar.n = done
            self.bar.refresh()
        elif time.monotonic() - self.last >= PLAIN_EVERY:
            self.last = time.monotonic()
            self.say(f"theory: {text}")

    @staticmethod
    def _bar(total: int) -> Any:
        with warnings.catch_warnings():  # that without ipywidgets the bar of a notebook is one of text
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm

        return tqdm(total=total, bar_format="{percentage:3.0f}% |{bar}| {desc}", leave=True, dynamic_ncols=True)

    def say(self, text: str) -> None:
        """A line of its own, beside the bar."""
        if self.bar is not None:
            self.bar.write(f"pykernel: {text}", file=sys.stderr)
        elif self.shows:
            print(f"pykernel: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    with contextlib.suppress(Exception):
        return shell is not None and "IPKernelApp" in shell.get_ipython().config
    return False


def _on_screen() -> bool:
    """Whether somebody sees a bar: a terminal of no lines, as some programs give to what they start, shows none."""
    with contextlib.suppress(OSError, ValueError):
        return sys.stderr.isatty() and min(os.get_terminal_size(sys.stderr.fileno())) > 0
    return False


class Stop:
    """Whether the user asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal = 0

    def __call__(self) -> bool:
        return self.signal != 0

    @contextlib.contextmanager
    def listen(self, tell: Callable[[], None]) -> Iterator[None]:
        """Answer Ctrl-C and SIGTERM by finishing what is begun; the second Ctrl-C leaves at once. Only the main thread
        can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, _frame: Any) -> None:
            if self.signal:
                raise KeyboardInterrupt
            self.signal = number
            tell()

        before = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, handle)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
