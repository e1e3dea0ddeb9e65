# SPDX-License-Identifier: BSD-3-Clause
"""Where blocks run: in this process, in any `concurrent.futures.Executor`, or on a Dask cluster; and what happens when
a worker dies.

A dead worker costs its block, which is run again. A block that kills its worker twice, alone, is halved until one chain
is left; that chain is recorded as failed, and the rest goes on.
"""

from __future__ import annotations

import concurrent.futures as futures
import contextlib
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pykernel import machine
from pykernel.sweeps import work
from pykernel.sweeps.blocks import Piece, Queue, halve
from pykernel.sweeps.profiles import Profiles

# Seconds of one block: short enough in process that Ctrl-C is answered soon, long enough elsewhere that sending it
# costs nothing.
IN_PROCESS, ELSEWHERE, FIRST = 1.5, 5.0, 0.5
TRIES = 2  # a block may kill a worker once by bad luck
NOTICED = 3.0  # seconds in which a pool notices the death of a worker, unless it is stuck
MAX_PROCESSES = 1024
STRIKES = 25  # failures in a row, without one block done, after which the executor is given up

OnDone = Callable[[list[Piece], work.Done], None]
OnFailure = Callable[[Piece, str], None]


class ExecutorError(RuntimeError):
    """The executor cannot go on; finished blocks are kept."""


def run(
    queue: Queue,
    executor: Any,
    kept: Profiles,
    threads: int | None,
    done: OnDone,
    failed: OnFailure,
    stop: Callable[[], bool],
) -> None:
    """Run all pieces of a queue, or until `stop()`; every finished block is given to `done` at once.

    Raises:
        TypeError: for an executor that is none.
        ExecutorError: when the executor breaks and cannot be replaced.
    """
    if executor is None:
        _run_here(queue, kept, machine.cores(threads), done, failed, stop)
        return
    with _pool(executor) as pool:
        _check(pool)
        _Driver(queue, pool, kept, threads or 1, done, failed, stop).run()


def _run_here(
    queue: Queue, kept: Profiles, threads: int, done: OnDone, failed: OnFailure, stop: Callable[[], bool]
) -> None:
    seconds = FIRST
    while queue and not stop():
        block = queue.take(seconds * threads, threads)
        result = work.run_block(block, kept, threads, stop)
        _learn(queue, block, result)
        for place, text in result.failures.items():
            failed(block[place], text)
        queue.put_back(block[len(result.seconds) :])
        done(
            [piece for place, piece in enumerate(block[: len(result.seconds)]) if place not in result.failures], result
        )
        seconds = IN_PROCESS


def _learn(queue: Queue, block: list[Piece], result: work.Done) -> None:
    for place, seconds in enumerate(result.seconds):
        if place not in result.failures:
            queue.pace.learn(block[place], seconds)


def require(executor: Any) -> None:
    """Refuse what is no executor.

    Raises:
        TypeError, ValueError: saying what is allowed.
    """
    if executor is None or (
        not isinstance(executor, int) and (hasattr(executor, "get_executor") or hasattr(executor, "submit"))
    ):
        return
    if isinstance(executor, bool) or not isinstance(executor, int):
        raise TypeError(
            "executor must be None, a number of processes, a concurrent.futures.Executor or a Dask Client, got "
            f"{executor!r}"
        )
    if not 1 <= executor <= MAX_PROCESSES:
        raise ValueError(
            f"executor must be a positive number of worker processes, at most {MAX_PROCESSES}, got {executor}"
        )


def require_sendable(chains: Iterable[Any], executor: Any) -> None:
    """Refuse chains that the workers of a process pool could not read, before blocks are blamed for it.

    Raises:
        TypeError: naming the part that stays at home.
    """
    own = isinstance(executor, int)
    if not (own or isinstance(executor, futures.ProcessPoolExecutor)):
        return
    forks = not own and executor._mp_context.get_start_method() == "fork"  # what it was made with is private
    # a notebook or a prompt, which workers cannot import
    nameless = not forks and not hasattr(sys.modules["__main__"], "__file__")
    parts = {id(part): part for chain in chains for part in (chain.activation, chain.init, chain.head)}
    for part in parts.values():
        try:
            sent = pickle.dumps(part)
        except Exception as error:
            why = str(error)
        else:
            if not (nameless and b"__main__" in sent):
                continue
            why = "it is defined in this session"
        raise TypeError(
            f"{part} cannot be sent to worker processes ({why}): put its functions into a file that they can import, "
            "or run with executor=None or a Dask client"
        )


class _Pool:
    """An executor behind one face: how many workers, and a new one for a broken one."""

    def __init__(self, executor: Any, workers: int, renew: Callable[[], Any] | None) -> None:
        self.executor, self.workers, self._renew = executor, workers, renew
        self._dead_since: float | None = None

    def attend(self) -> bool:
        """Let a process pool notice a worker that died in the middle of its answer; False where it will never notice
        anything again.

        CPython's pool waits for ever for the rest of that answer, as the pipe stays open on its own side.
        """
        pool = self.executor
        if not isinstance(pool, futures.ProcessPoolExecutor):
            return True
        manager = getattr(pool, "_executor_manager_thread", None)
        if manager is not None and not manager.is_alive():
            _kill(pool)
            return False
        processes = (getattr(pool, "_processes", None) or {}).values()
        if all(process.exitcode in (None, 0) for process in list(processes)):
            self._dead_since = None
        elif self._dead_since is None:
            self._dead_since = time.monotonic()
        elif time.monotonic() - self._dead_since > NOTICED:
            # Without workers, and without this copy of their end of the pipe, the pool reads the end of the file.
            _kill(pool)
            with contextlib.suppress(Exception):
                pool._result_queue._writer.close()  # type: ignore[attr-defined]
            self._dead_since = None
        return True

    def renew(self, error: BaseException) -> None:
        if self._renew is None:
            raise ExecutorError(
                f"the executor {type(self.executor).__name__} broke ({error}) and cannot be started again"
            ) from error
        if getattr(self.executor, "_broken", False):
            # CPython ends the workers that it knows as it breaks, not one that a call was starting just then.
            _kill(self.executor)
        with contextlib.suppress(Exception):
            self.executor.shutdown(wait=False, cancel_futures=True)
        self.executor, self._dead_since = self._renew(), None


@contextlib.contextmanager
def _pool(given: Any) -> Iterator[_Pool]:
    """What the caller gave, as a pool: a number of processes, an Executor, or a Dask client."""
    if isinstance(given, int):
        pool = _Pool(own_pool(given), given, lambda: own_pool(given))
        try:
            yield pool
        except BaseException:  # whoever leaves in a hurry must not wait for blocks at work when the process ends
            _kill(pool.executor)
            raise
        finally:
            pool.executor.shutdown(wait=False, cancel_futures=True)
        return
    if hasattr(given, "get_executor"):  # a Dask client
        workers = max(1, sum(given.ncores().values()))
        yield _Pool(given.get_executor(pure=False), workers, None)
        return
    workers = getattr(given, "_max_workers", None) or 8
    pool = _Pool(given, workers, _cloner(given))
    try:
        yield pool
    finally:
        if pool.executor is not given:
            pool.executor.shutdown(wait=False, cancel_futures=True)


def _check(pool: _Pool) -> None:
    """Refuse a process pool whose workers cannot even start, before blocks are blamed for it; one may die by bad
    luck."""
    for left in reversed(range(TRIES + 1)):
        if not isinstance(pool.executor, futures.ProcessPoolExecutor):
            return
        try:
            pool.executor.submit(os.getpid).result()
            return
        except futures.BrokenExecutor as error:
            if not left:
                raise ExecutorError(
                    "worker processes do not start; a script that uses them must be a file (not standard input), "
                    'and keep its own work under `if __name__ == "__main__":`'
                ) from error
            pool.renew(error)


def own_pool(workers: int) -> futures.ProcessPoolExecutor:
    """A pool of fresh processes (spawn: a fork would inherit locks and threads) that end when this process does."""
    import multiprocessing

    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ExecutorError(
            'a script that uses worker processes must keep its own work under `if __name__ == "__main__":`'
        )
    return futures.ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_settle)


def _kill(pool: Any) -> None:
    for process in list((getattr(pool, "_processes", None) or {}).values()):
        with contextlib.suppress(Exception):
            process.kill()


def _cloner(pool: Any) -> Callable[[], Any] | None:
    if not isinstance(pool, futures.ProcessPoolExecutor):
        return None

    how: Any = pool  # what it was made with is private

    def clone() -> futures.ProcessPoolExecutor:
        return futures.ProcessPoolExecutor(
            how._max_workers, mp_context=how._mp_context, initializer=how._initializer, initargs=how._initargs
        )

    return clone


def _settle() -> None:
    """In a worker: leave Ctrl-C to the driver, and do not outlive it."""
    import multiprocessing
    import multiprocessing.connection

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            multiprocessing.connection.wait([parent.sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


class _Driver:
    """Keeps an executor busy and takes in what comes back."""

    def __init__(
        self,
        queue: Queue,
        pool: _Pool,
        kept: Profiles,
        threads: int,
        done: OnDone,
        failed: OnFailure,
        stop: Callable[[], bool],
    ):
        self.queue, self.pool, self.kept, self.threads = queue, pool, kept, threads
        self.done, self.failed, self.stop = done, failed, stop
        self.pending: dict[futures.Future, tuple[list[Piece], int, bool]] = {}
        self.suspects: deque[tuple[list[Piece], int]] = deque()
        self.strikes = 0
        self.finished = 0

    def run(self) -> None:
        try:
            while (self.queue or self.suspects or self.pending) and not (self.stop() and self._calm()):
                if not self.stop():
                    self._fill()
                for future in futures.wait(self.pending, timeout=0.25, return_when=futures.FIRST_COMPLETED).done:
                    if future in self.pending:
                        self._take(future)
                if not self.pool.attend() and not any(future.done() for future in self.pending):
                    error = futures.BrokenExecutor("the pool's own thread ended")
                    self._strike(error)
                    self._break(error)
        finally:
            for future in self.pending:
                future.cancel()

    def _calm(self) -> bool:
        """After a stop: give back what has not begun; true once nothing runs."""
        for future in [future for future in self.pending if future.cancel()]:
            self.queue.put_back(self.pending.pop(future)[0])
        return not self.pending

    def _fill(self) -> None:
        if self.suspects:
            # Alone, so that whoever dies now is the one to blame.
            if not self.pending:
                pieces, tries = self.suspects.popleft()
                self._submit(pieces, tries, alone=True)
            return
        if any(alone for _, _, alone in self.pending.values()):
            return
        while self.queue and len(self.pending) < 2 * self.pool.workers:
            seconds = ELSEWHERE if self.finished >= self.pool.workers else FIRST
            if len(self.pending) >= self.pool.workers or self.finished:
                seconds = min(seconds, max(FIRST, self.queue.seconds() / (3 * self.pool.workers)))
            self._submit(self.queue.take(seconds * self.threads, self.threads), 0, alone=False)

    def _submit(self, pieces: list[Piece], tries: int, alone: bool) -> None:
        for _ in range(3):
            try:
                self.pending[self.pool.executor.submit(work.run_block, pieces, self.kept, self.threads)] = (
                    pieces,
                    tries,
                    alone,
                )
                return
            except (futures.BrokenExecutor, RuntimeError) as error:
                self._break(error)
        raise ExecutorError("the executor refuses work")

    def _take(self, future: futures.Future) -> None:
        pieces, tries, alone = self.pending.pop(future)
        try:
            result = future.result()
        except futures.CancelledError as error:
            self._strike(error)
            self.queue.put_back(pieces)
        except futures.BrokenExecutor as error:
            self._strike(error)
            self._suspect(pieces, tries + alone, alone, error)
            self._break(error)
        except Exception as error:
            # Dask names the block that killed its workers (KilledWorker); anything else is the block's own trouble,
            # too.
            self._strike(error)
            self._suspect(pieces, TRIES, True, error)
        else:
            self.strikes = 0
            self.finished += 1
            _learn(self.queue, pieces, result)
            for place, text in result.failures.items():
                self.failed(pieces[place], text)
            self.done([piece for place, piece in enumerate(pieces) if place not in result.failures], result)

    def _break(self, error: BaseException) -> None:
        """The whole pool is gone: every block in flight is a suspect; start a new pool."""
        for future, (pieces, tries, alone) in list(self.pending.items()):
            if future.done() and not future.cancelled() and future.exception() is None:
                continue  # finished before the pool broke: `run` takes it next
            del self.pending[future]
            self.suspects.append((pieces, tries + alone))
        self.pool.renew(error)

    def _suspect(self, pieces: list[Piece], tries: int, alone: bool, error: BaseException) -> None:
        if not alone or tries < TRIES:
            self.suspects.append((pieces, tries))
        elif len(pieces) > 1:
            self.suspects.extendleft((half, 0) for half in reversed(halve(pieces)))
        else:
            text = "".join(traceback.format_exception(error))
            self.failed(pieces[0], text)

    def _strike(self, error: BaseException) -> None:
        self.strikes += 1
        if self.strikes > STRIKES and self.finished == 0:
            raise ExecutorError(
                f"the executor failed {self.strikes} times without finishing a block; the last time: {error}"
            ) from error
