# SPDX-License-Identifier: BSD-3-Clause
"""`sweep`: from a grid to a labelled Dataset, through a store that survives."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pykernel import checks, machine
from pykernel.sweeps import assemble, blocks, executors, theory, work
from pykernel.sweeps.beside import PATIENCE, Beside
from pykernel.sweeps.blocks import Pace, Piece, Queue
from pykernel.sweeps.frames import Damage, StoreError, split
from pykernel.sweeps.grid import require_single
from pykernel.sweeps.plan import Replicas, StandardError, SweepPlan
from pykernel.sweeps.profiles import Profiles
from pykernel.sweeps.progress import Reporter, Stop, clock
from pykernel.sweeps.reading import goals, recall
from pykernel.sweeps.shelf import Shelf
from pykernel.sweeps.store import LOCK, PLAN, Store
from pykernel.sweeps.tally import Tally

SAID = 5  # failures that are told one by one


class SweepInterrupted(KeyboardInterrupt):
    """The sweep was stopped by Ctrl-C or SIGTERM after saving; `signal` is which, `dataset` the result if only theory
    was left to do."""

    def __init__(self, message: str, number: int, dataset: Any = None) -> None:
        super().__init__(message)
        self.signal, self.dataset = number, dataset


def sweep(
    grid: Mapping | Sequence,
    base: Any = None,
    *,
    batch: int = 1,
    positions: int | tuple[int, ...] = (),
    replicas: int | Replicas = 100,
    seed: int = 0,
    store: Any = None,
    executor: Any = None,
    progress: Any = True,
    until: StandardError | None = None,
    engine: str = "auto",
    backend: str = "auto",
    dtype: str = "float32",
    threads: int | None = None,
    precision: str = "exponent",
    correlation: float = 0.0,
    formats: Any = None,
    profiles: Any = True,
    predict: bool | None = None,
    shard: tuple[int, int] | None = None,
) -> Any:
    """Propagate an ensemble of chains over a grid, and label what comes out.

    Args:
        grid: mapping of words to lists of values, or a list of `Chain`. Words are the fields of `Chain`, or `batch`,
            `positions`, `seed`, `correlation`, `dtype`, `engine`, `backend`, `precision`, `formats`, or the words of
            formats, `weights_format`, `signals_format`, `gradients_format`, `loss_scale`, `overflow`, `rounding`.
            Patterns of blocks bear a name where `blocks` is a mapping:
            `{"blocks": {"pre-norm": [...], "post-norm": [...]}}`. A tuple of words zips them:
            `{("width", "gain"): [(64, 1.0), (128, 1.1)]}`.
        base: the `Chain` that holds the rest, or a mapping of its fields.
        batch: inputs propagated together.
        positions: of one input, an int or one int an axis.
        replicas: independent draws of all weights, for each cell; or a `Replicas` for fewer draws of dear cells.
        seed: key of the random stream. All cells share it: two cells that differ in gain only have the same unit draws,
            so their difference is measured with less noise. Make `seed` an axis for independent cells.
        store: directory to keep results in; a finished sweep is answered from it, an interrupted or a smaller one is
            continued.
        executor: None for this process with all its cores, a number of worker processes, a
            `concurrent.futures.Executor`, or a Dask `Client`.
        progress: True, False, or a function that is given a `Progress` after every block.
        until: `StandardError("slope", 0.001)` adds replicas to a cell until its error is as small.
        engine, backend, dtype, precision, correlation, formats: as in `propagate`.
        threads: threads of one block: by default all cores in process, 1 in workers.
        profiles: profiles over layers: True (see `Profiles`), False, names of rows, "all", "replicas", or a `Profiles`.
        predict: put beside each cell what theory says: `predicted_slope`, `predicted_end_to_end`,
            `predicted_signal_end_to_end` (infinite width) with its `_mean` and `_std` (the finite-width law, where one
            is known), how many standard errors the measured means lie from it (`z_slope`, `z_signal_end_to_end`), and
            `theory`: the law, or why there is none. Kept in the store. It takes from five milliseconds a cell to
            seconds for a deep chain and a batch. It is computed beside the kernels; None does it for grids of up to
            1000 cells, stops half a minute after the last number, and says how many cells are left out; True does it to
            the end.
        shard: (i, N) runs only the i-th of N equal shares (1 .. N), for job arrays; shards may share a store.

    Returns:
        `xarray.Dataset` with the grid's words as dimensions, and `replica`, `layer`, `quantile`. Of a chain of
        blocks place k along `layer` is its k-th weight layer, activation step or block, as the row goes.

    Raises:
        ValueError, TypeError: before any work, naming the cell.
        StoreError: if the store cannot be written, or another sweep is at work in it.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when what was finished is saved; its `dataset` is the result if only
            theory was left.

    Examples:
        >>> import pykernel as pk
        >>> axes = {"depth": [2, 4], "init": ["he_normal", "lecun_normal"]}
        >>> ds = pk.sweep(axes, pk.Chain(depth=2, width=8), replicas=3, progress=False)
        >>> dict(ds.end_to_end.sizes)
        {'depth': 2, 'init': 2, 'replica': 3}
    """
    run = {
        "batch": batch,
        "positions": positions,
        "seed": seed,
        "engine": engine,
        "backend": backend,
        "dtype": dtype,
        "precision": precision,
        "correlation": correlation,
        "formats": formats,
    }
    require_single(run)
    _require_share(shard, store, until)
    if predict is not None and not isinstance(predict, bool):
        raise TypeError(f"predict must be None, True or False, got {predict!r}")
    at = Store(store) if store is not None else None
    reporter = Reporter(progress)
    executors.require(executor)
    if threads is not None:
        machine.cores(threads)
    plan = SweepPlan.make(grid, base, run, replicas, until, Profiles.of(profiles))
    executors.require_sendable((cell.chain for cell in plan.cells), executor)
    try:
        return _Sweep(plan, at, executor, threads, reporter, shard, predict).run()
    finally:
        reporter.close()


def _require_share(shard: Any, store: Any, until: Any) -> None:
    """Refuse a share (i, N) of a sweep that is none, or that nobody could put together again."""
    if shard is None:
        return
    if store is None:
        raise ValueError("shard needs a store: a share of a sweep is of use only where it is kept")
    if until is not None:
        raise ValueError(
            "shard cannot be combined with until: how many replicas a cell needs is known only when all are there"
        )
    if not isinstance(shard, tuple | list) or len(shard) != 2:
        raise TypeError(f"shard must be a pair (i, N) with 1 <= i <= N, got {shard!r}")
    which, of = (checks.integer(f"{word} of shard (i, N)", n, 0, 1 << 32) for word, n in zip("iN", shard, strict=True))
    blocks.shard([], which, of)


class _Sweep:
    """One run of a sweep: the state that its callbacks share."""

    def __init__(
        self,
        plan: SweepPlan,
        store: Store | None,
        executor: Any,
        threads: int | None,
        reporter: Reporter,
        shard: Any,
        predict: bool | None,
    ):
        self.plan, self.store, self.executor, self.threads = plan, store, executor, threads
        self.reporter, self.shard, self.predict = reporter, shard, predict
        self.description = plan.description()
        self.names = {cell.key: cell for cell in plan.cells}
        self.lanes = executor if isinstance(executor, int) else machine.cores(threads) if executor is None else None
        self.shelf, self.pace, self.stop = Shelf(), Pace(), Stop()
        self.failed: dict[str, str] = {}
        self.kept: set[str] = set()  # parts that this run relies on
        self.latest = ""
        self.tally: Any = None  # of the round at work
        self.losses, self.finished = 0, False

    def run(self) -> Any:
        with contextlib.ExitStack() as stack:
            self.stack = stack
            if self.store is not None:
                stack.enter_context(self.store.hold(self.shard))
                stack.enter_context(self._resumable(self.store))
                stack.enter_context(self.stop.listen(self._stopping))
                self._recall(self.store)
            self.begin = time.monotonic()
            theory_beside = self._beside()
            stack.callback(theory_beside.quit.set)
            while not self.stop():
                self.targets = goals(self.description, self.shelf)
                pieces = [piece for piece in self.plan.pieces(self.shelf, self.targets) if piece.key not in self.failed]
                if self.shard is not None:
                    pieces = blocks.shard(self._whole(), *self.shard)
                    pieces = [part for piece in pieces for part in self._unknown(piece)]
                if pieces:
                    self._work(pieces)
                elif self.store is None or not self._vanished(self.store):
                    self.finished = True
                    break
            if self.finished and self.store is None:
                stack.enter_context(self.stop.listen(self._stopping))
            known = self._theory(theory_beside)
        if not self.stop():
            self._conclude(theory_beside.left())
            return self._dataset(known)
        name = signal.Signals(self.stop.signal).name
        if self.finished:
            text = f"stopped by {name} with every number finished; theory of {theory_beside.left()} cells is left out"
            raise SweepInterrupted(text, self.stop.signal, self._dataset(known))
        raise SweepInterrupted(  # without a store nothing listens before the numbers are finished
            f"stopped by {name}; finished blocks are saved in {self.store.directory if self.store else 'memory'}: "
            "run the same sweep again to go on",
            self.stop.signal,
        )

    def _dataset(self, known: theory.Known) -> Any:
        asked = self.predict is not False and not self.unasked
        return assemble.dataset(
            self.description, self.shelf, self.targets, self.failed, known if asked else known or None
        )

    def _beside(self) -> Beside:
        """Theory of every cell that the store has none of; of a shard, its own cells."""
        self.known = self.store.predictions() if self.store is not None and self.predict is not False else {}
        mine = {piece.key for piece in blocks.shard(self._whole(), *self.shard)} if self.shard is not None else None
        cells = [cell for cell in self.plan.cells if mine is None or cell.key in mine]
        self.unasked = (
            len(self.names.keys() - self.known.keys())
            if self.predict is None and len(self.names) > theory.FREELY
            else 0
        )
        return Beside([] if self.unasked or self.predict is False else cells, self.known)

    def _theory(self, made: Beside) -> theory.Known:
        """What theory says, as far as it is asked for or comes soon."""
        found = made.wait(None if self.predict else PATIENCE, self.stop, self.reporter.theory)
        if found and self.store is not None:
            self.store.put_predictions(found)
        return {**self.known, **found}

    def _stopping(self) -> None:
        if self.finished:
            self._say("stopping: every number is finished, only theory is left out")
        else:
            self._say("stopping: the block at work is finished and saved; Ctrl-C again leaves at once")

    @contextlib.contextmanager
    def _resumable(self, store: Store) -> Iterator[None]:
        """Tell whoever left at once what is kept."""
        try:
            yield
        except KeyboardInterrupt:
            text = f"left at once; finished blocks are saved in {store.directory}: run the same sweep again to go on"
            raise SweepInterrupted(text, self.stop.signal or signal.SIGINT) from None

    def _say(self, text: str) -> None:
        if self.reporter.shows:
            self.reporter.say(text)
        else:
            print(f"pykernel: {text}", file=sys.stderr)

    def _recall(self, store: Store) -> None:
        """Read what the store has; name and set aside what is damaged; write the plan."""
        try:
            store.read_plan()
        except Damage:
            self._say(f"{store.directory / 'plan.json'} was damaged and is written anew")
        except StoreError:
            pass
        store.write_plan(self.description)
        self.shelf = recall(store, self.plan, quiet=True)
        for name in store.damaged:
            self._say(f"{store.parts / name} was damaged: set aside as {name}.damaged, and computed again")
        store.set_aside(store.damaged)
        self.kept = set(store.names())

    def _vanished(self, store: Store) -> bool:
        """Whether somebody took parts or the plan out of the store meanwhile; what is gone is then computed again."""
        gone = self.kept - set(store.names())
        if not gone and (store.directory / PLAN).exists():
            return False
        self.losses += 1
        if self.losses > 3:
            raise StoreError(
                f"parts of {store.directory} vanish again and again: is something clearing that directory?"
            )
        self._say(
            f"{len(gone)} finished part{'s' * (len(gone) != 1)} of {store.directory} taken away while the sweep ran: "
            "computed again"
        )
        if not (store.directory / LOCK).exists():
            self.stack.enter_context(store.hold(self.shard))
        self._recall(store)
        return True

    def _whole(self) -> list[Piece]:
        return self.plan.pieces(Shelf(), goals(self.description, Shelf()))

    def _unknown(self, piece: Piece) -> list[Piece]:
        ranges = self.shelf.missing(piece.key, self.targets[piece.key])
        overlaps = [(max(first, piece.first), min(stop, piece.first + piece.count)) for first, stop in ranges]
        return [
            piece._replace(first=first, count=stop - first)
            for first, stop in overlaps
            if stop > first and piece.key not in self.failed
        ]

    def _work(self, pieces: list[Piece]) -> None:
        self.queue = Queue(pieces, self.pace)
        self.tally = Tally(pieces, self.begin, self.pace)
        self._show()
        executors.run(self.queue, self.executor, self.plan.kept, self.threads, self._done, self._fail, self.stop)

    def _done(self, pieces: list[Piece], result: work.Done) -> None:
        if not pieces:
            return
        if self.store is not None:
            self.kept.add(self.store.put(result.content).name)
        self.shelf.add(work.decode(*split(result.content)))
        for piece in pieces:
            self.tally.count(piece)
        last = pieces[-1]
        if self.reporter.shows or self.reporter.callback:
            from pykernel.sweeps import grid

            word = assemble.verdict(self.shelf.scalars(last.key, last.first + last.count), last.run["precision"])
            self.latest = f"{grid.name(self.names[last.key], self.plan.axes)}: {word}"
        self._show()

    def _fail(self, piece: Piece, text: str) -> None:
        from pykernel.sweeps import grid

        name = grid.name(self.names[piece.key], self.plan.axes)
        self.tally.count(piece)
        if piece.key not in self.failed:
            self.failed[piece.key] = text
            last = text.strip().splitlines()[-1]
            if len(self.failed) <= SAID:
                self._say(f"cell {name} failed: {last if len(last) <= 200 else last[:200] + ' ...'}")
            elif len(self.failed) == SAID + 1:
                self._say(
                    "more cells fail; the end says how many"
                    + ("" if self.store is None else ", `pykernel status --failures` why")
                )
            if self.store is not None:
                record = {
                    "cell": name,
                    "error": text.strip().splitlines()[-1],
                    "first": piece.first,
                    "count": piece.count,
                    "traceback": text,
                }
                self.store.fail(piece.key, record)

    def _show(self) -> None:
        self.reporter.update(self.tally.progress(len(self.names), self.latest, self.lanes))

    def _conclude(self, without_theory: int) -> None:
        seconds = time.monotonic() - self.begin
        self.reporter.close()
        if self.store is not None:
            for key in set(self.store.failed()) & set(self.names) - set(self.failed):
                if not self.shelf.missing(key, self.targets[key]):
                    self.store.forgive(key)
        if self.reporter.shows and self.store is not None:
            if self.tally is None:
                self.reporter.say(f"nothing left to do: all {len(self.names)} cells are in {self.store.directory}")
            else:
                self.reporter.say(f"done in {clock(seconds)}; results are in {self.store.directory}")
        if self.reporter.shows and self.shelf.others and self.store is not None:
            self.reporter.say(
                f"{len(self.shelf.others)} cells of earlier grids are kept in this store too, and not shown: "
                f"`pykernel status {self.store.directory}` lists the grids"
            )
        if self.reporter.shows and (without_theory or self.unasked):
            self.reporter.say(
                f"theory of {without_theory or self.unasked} cells is left out; --predict (predict=True) asks for it"
            )
        if self.failed and len(self.failed) == len(self.names):
            first = next(iter(self.failed.values()))
            raise RuntimeError(f"every cell failed; the first:\n{first}")
        if self.failed:
            warnings.warn(
                f"{len(self.failed)} of {len(self.names)} cells failed and are nan; run the sweep again to try them "
                "again",
                stacklevel=4,
            )
