# SPDX-License-Identifier: BSD-3-Clause
"""The directory that a sweep lives in: immutable part files and one plan file, each with a checksum over all its bytes.

A file (`frames`) is written under another name,
synced, and renamed: so a file is whole or absent. What does not match its checksum is named, set aside and computed
again; it is never believed. Only this module writes into a store.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import numpy as np

from pykernel._core import version
from pykernel.sweeps.frames import Damage, StoreError, decode, frame, unframe
from pykernel.sweeps.grid import PlanCell

PLAN, LOCK = "plan.json", "driver.lock"


class Store:
    """One directory. Opening it to read creates nothing; `hold` is for the driver that writes.

    Args:
        directory: where it is, or shall be.
    """

    def __init__(self, directory: str | os.PathLike) -> None:
        if not isinstance(directory, str | os.PathLike):
            raise TypeError(f"store must be the path of a directory, got {directory!r}")
        if not os.fspath(directory) or "\0" in os.fspath(directory):
            raise ValueError(f"store must be the path of a directory, got {directory!r}")
        self.directory = Path(directory)
        self.parts = self.directory / "parts"
        self.failures = self.directory / "failures"
        self.theory = self.directory / "theory"
        self.damaged: list[str] = []

    # writing

    @contextlib.contextmanager
    def hold(self, shard: tuple[int, int] | None = None) -> Iterator[None]:
        """Be the one driver of this store (or of this shard of it) for a while.

        Raises:
            StoreError: if another driver is at work here, or the directory cannot be written.
        """
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
            probe = self.parts / f".probe-{os.getpid()}.tmp"
            probe.write_bytes(b"x")
            probe.unlink()
        except OSError as error:
            raise StoreError(f"store {self.directory} cannot be written: {error.strerror or error}") from error
        with contextlib.ExitStack() as stack:
            # A whole run excludes every shard; shards share the store and exclude only themselves.
            stack.enter_context(self._lock(LOCK, shared=shard is not None))
            if shard is not None:
                stack.enter_context(self._lock(f"driver-{shard[0]}-of-{shard[1]}.lock", shared=False))
            if shard is None:
                for leftover in [*self.parts.glob(".*.tmp"), *self.directory.glob(".*.tmp")]:
                    leftover.unlink(missing_ok=True)
            yield

    @contextlib.contextmanager
    def _lock(self, name: str, shared: bool) -> Iterator[None]:
        import fcntl

        path = self.directory / name
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(f"{path} cannot be opened: {error.strerror or error}") from error
        owner, held = os.getpid(), True
        try:
            for attempt in range(5):
                try:
                    fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    # `is_running` holds the lock for an instant when it looks
                    if attempt < 4:
                        time.sleep(0.05)
                        continue
                    raise StoreError(
                        f"store {self.directory} is in use by {self.driver(name)}; wait for it or stop it "
                        f"(`pykernel status {self.directory}` shows how far it is)"
                    ) from None
                except OSError as error:
                    print(
                        f"pykernel: {path}: no file locks here ({error.strerror}): run one driver at a time",
                        file=sys.stderr,
                    )
                    break
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            with contextlib.suppress(OSError):  # a full disk costs the name of the driver, not the lock
                os.ftruncate(handle, 0)
                os.pwrite(handle, json.dumps(holder).encode(), 0)
            # The kernel frees the lock when its holder dies, so a stale one cannot be; a forked child must not keep it.
            os.register_at_fork(after_in_child=lambda: _close_quietly(handle) if held else None)
            yield
        finally:
            held = False
            if os.getpid() == owner:
                _close_quietly(handle)

    def driver(self, name: str = LOCK) -> str:
        """Who holds a lock, in words."""
        try:
            holder = json.loads((self.directory / name).read_bytes())
            return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        except (OSError, ValueError, KeyError):
            return "another process"

    def is_running(self) -> bool:
        """Whether some driver holds the store now."""
        import fcntl

        try:
            handle = os.open(self.directory / LOCK, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            os.close(handle)
        return False

    def write(self, path: Path, content: bytes) -> None:
        """Put a file in place, whole or not at all.

        Raises:
            StoreError: if the disk refuses; what was there before stays.
        """
        temporary = path.parent / f".{path.name}-{os.getpid()}.tmp"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o644)
            try:
                rest = memoryview(content)
                while rest:
                    rest = rest[os.write(handle, rest) :]
                os.fsync(handle)
            finally:
                os.close(handle)
            os.rename(temporary, path)
            directory = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise StoreError(
                f"{path} could not be written ({error.strerror or error}); finished parts in {self.directory} are "
                "kept: "
                "make room or mend the path, and run the same sweep again"
            ) from error

    def put(self, content: bytes) -> Path:
        """Write a part; its name is its checksum, so writing it twice is writing it once."""
        checksum = content.partition(b"\n")[0].split(b" ")[3]
        path = self.parts / f"{checksum[:32].decode()}.part"
        if not path.exists():
            self.write(path, content)
        return path

    def put_predictions(self, known: dict[str, list]) -> None:
        """Keep what theory says of cells, by key; the version of pykernel is told, as theory may come to say more."""
        content = frame(
            "theory", json.dumps({"pykernel": version, "cells": known}, separators=(",", ":"), allow_nan=True).encode()
        )
        self.write(self.theory / f"{hashlib.sha256(content).hexdigest()[:32]}.json", content)

    def write_plan(self, plan: dict) -> None:
        """Replace the plan; the one before is kept as plan-<hash>.json, so that a store's history can be read."""
        content = frame("plan", json.dumps(plan, separators=(",", ":"), allow_nan=True).encode())
        path = self.directory / PLAN
        try:
            before = path.read_bytes()
        except FileNotFoundError:
            before = None
        except OSError as error:
            raise StoreError(
                f"{path} cannot be read ({error.strerror or error}); move it away and run the same sweep again"
            ) from error
        if before == content:
            return
        if before is not None:
            self.write(self.directory / f"plan-{hashlib.sha256(before).hexdigest()[:12]}.json", before)
        self.write(path, content)

    def fail(self, key: str, record: dict) -> None:
        """Record why a cell failed; it is tried again when the sweep is run again."""
        self.write(self.failures / f"{key}.json", json.dumps(record, indent=1).encode())

    def forgive(self, key: str) -> None:
        (self.failures / f"{key}.json").unlink(missing_ok=True)

    def set_aside(self, names: list[str]) -> None:
        """Rename damaged parts, so that they are kept for whoever wants to look but never read again."""
        for name in names:
            with contextlib.suppress(OSError):
                os.rename(self.parts / name, self.parts / f"{name}.damaged")

    # reading

    def read_plan(self) -> dict:
        """The plan in this directory.

        Raises:
            StoreError: if there is none, or it is damaged.
        """
        path = self.directory / PLAN
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise StoreError(f"{self.directory} holds no sweep: there is no {PLAN}") from None
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
        try:
            return _plan(content, path)
        except Damage as error:
            raise Damage(f"{error}; run the same sweep again to write it anew: finished parts are kept") from None

    def earlier_plans(self) -> list[dict]:
        """The plans before this one that can be read."""
        plans = []
        for path in sorted(self.directory.glob("plan-*.json"), key=lambda path: path.stat().st_mtime):
            with contextlib.suppress(StoreError, OSError, ValueError):
                plans.append(_plan(path.read_bytes(), path))
        return plans

    def names(self) -> list[str]:
        """The names of all parts."""
        try:
            return sorted(entry.name for entry in os.scandir(self.parts) if entry.name.endswith(".part"))
        except FileNotFoundError:
            return []

    def read(self, skip: Set[str] = frozenset()) -> Iterator[tuple[str, dict, np.ndarray]]:
        """Every sound part: name, header, numbers. Damaged ones are named in `damaged` and skipped."""
        self.damaged = []
        for name in self.names():
            if name in skip:
                continue
            path = self.parts / name
            try:
                yield name, *decode(path.read_bytes(), path)
            except Damage:
                self.damaged.append(name)
            except FileNotFoundError:
                continue  # set aside by a driver meanwhile
            except IsADirectoryError:
                self.damaged.append(name)
            except OSError as error:
                raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error

    def failed(self) -> dict[str, dict]:
        """The recorded failures by key of cell."""
        records: dict[str, dict] = {}
        for path in sorted(self.failures.glob("*.json")) if self.failures.is_dir() else []:
            try:
                records[path.stem] = json.loads(path.read_bytes())
            except (OSError, ValueError):
                records[path.stem] = {"error": f"{path} is damaged", "traceback": ""}
        return records

    def predictions(self) -> dict[str, list]:
        """What theory says of cells, by key; damaged files and other versions' count as missing: they are cheap to make
        again."""
        known: dict[str, list] = {}
        for path in sorted(self.theory.glob("*.json")) if self.theory.is_dir() else []:
            with contextlib.suppress(OSError, ValueError, Damage):
                found = json.loads(unframe("theory", path.read_bytes(), path))
                if found["pykernel"] == version:
                    known.update(found["cells"])
        return known

    def size(self) -> int:
        """Bytes of all parts."""
        return sum((self.parts / name).stat().st_size for name in self.names())


def _plan(content: bytes, path: Path) -> dict:
    """The plan of a file's bytes, its cells named."""
    plan = json.loads(unframe("plan", content, path))
    return {**plan, "cells": [PlanCell(*cell) for cell in plan["cells"]]}


def merge(target: Store, sources: list[Store]) -> dict[str, Any]:
    """Copy the sound parts of other stores into one; a plan comes with them where the target has none.

    Returns:
        {"copied": number, "known": number, "damaged": [paths], "foreign": {directory: cells that the target's plan does
        not show}}.

    Raises:
        StoreError: for a source without a sweep, or a target in use.
    """
    report: dict[str, Any] = {"copied": 0, "known": 0, "damaged": [], "foreign": {}}
    plans = {}
    for source in sources:
        if not source.directory.is_dir():
            raise StoreError(f"{source.directory} is no directory")
        with contextlib.suppress(Damage):
            plans[source.directory] = source.read_plan()
    with target.hold():
        known = set(target.names())
        for source in sources:
            for name in source.names():
                path = source.parts / name
                content = path.read_bytes()
                try:
                    decode(content, path)
                except Damage:
                    report["damaged"].append(str(path))
                    continue
                if name in known:
                    report["known"] += 1
                    continue
                target.write(target.parts / name, content)
                known.add(name)
                report["copied"] += 1
            if source.theory.is_dir():
                for path in source.theory.glob("*.json"):
                    target.write(target.theory / path.name, path.read_bytes())
        if not (target.directory / PLAN).exists() and plans:
            target.write_plan(next(iter(plans.values())))
        with contextlib.suppress(StoreError):
            shown = {cell.key for cell in target.read_plan()["cells"]}
            for directory, plan in plans.items():
                if foreign := len({cell.key for cell in plan["cells"]} - shown):
                    report["foreign"][str(directory)] = foreign
    return report


def _close_quietly(handle: int) -> None:
    with contextlib.suppress(OSError):
        os.close(handle)
