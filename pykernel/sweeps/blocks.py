# SPDX-License-Identifier: BSD-3-Clause
"""What a block of work costs, and how a sweep is cut into blocks and shards. A cut never changes a number, only the
time."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from pykernel.engines import cost


class Piece(NamedTuple):
    """Replicas first .. first + count of one chain: the unit that blocks are made of."""

    key: str
    chain: Any
    run: dict
    first: int
    count: int  # type: ignore[assignment]


def seconds_per_replica(chain: Any, run: dict) -> float:
    """Nominal seconds of one replica on one core (AVX2, 2026); `Pace` learns the factor between this and the machine at
    hand."""
    return cost.seconds_of(chain, run)


OVERHEAD = 1e-3  # seconds for one piece, whatever its size: lowering, statistics
UNMEASURED = 0.02  # nominal seconds at most of a piece whose family was never timed: nominal may be far off


def family(piece: Piece) -> tuple:
    """What shares one factor between nominal and measured time."""
    chain, run = piece.chain, piece.run
    function = str(chain.activation) if chain.blocks is None else "blocks"
    formats = str(run.get("formats"))  # two runs, and roundings
    return (
        run["engine"],
        run["backend"],
        run["dtype"],
        formats,
        getattr(chain.init, "distribution", "several"),
        function,
    )


class Pace:
    """The measured cost model: nominal seconds times a factor for each family, learned from finished pieces."""

    def __init__(self) -> None:
        self.sums: dict[Any, list[float]] = {}
        self.times: dict[Any, int] = {}
        self.known: dict[str, float] = {}

    def nominal(self, piece: Piece) -> float:
        """Nominal seconds of one replica, asked once of each chain, whose pattern they need."""
        if piece.key not in self.known:
            self.known[piece.key] = seconds_per_replica(piece.chain, piece.run)
        return self.known[piece.key]

    def per_replica(self, piece: Piece) -> float:
        return self.nominal(piece) * self.factor(family(piece))

    def factor(self, kind: Any) -> float:
        own = self.sums.get(kind) or self.sums.get("all")
        return own[0] / own[1] if own else 1.0

    def of(self, piece: Piece) -> float:
        return OVERHEAD + piece.count * self.per_replica(piece)

    def learn(self, piece: Piece, seconds: float) -> None:
        """Take in the measured core seconds of a piece; old figures fade, so that a machine that slows down is
        noticed."""
        nominal = self.nominal(piece) * piece.count
        for kind in (family(piece), "all"):
            self.times[kind] = self.times.get(kind, 0) + 1
            if self.times[kind] <= 2:
                self.sums[kind] = [0.0, 0.0]  # the first time loads libraries and compiles
            total = self.sums[kind]
            total[0] = 0.9 * total[0] + max(seconds - OVERHEAD, 1e-5)
            total[1] = 0.9 * total[1] + nominal


class Queue:
    """The pieces still to do, in order, handed out as blocks of about so many seconds."""

    def __init__(self, pieces: Iterable[Piece], pace: Pace, probes: bool = True) -> None:
        self.pieces = deque(pieces)
        self.pace = pace
        self.probes = probes

    def __bool__(self) -> bool:
        return bool(self.pieces)

    def put_back(self, pieces: Iterable[Piece]) -> None:
        self.pieces.extendleft(reversed(list(pieces)))

    def seconds(self) -> float:
        """Core seconds left, as far as the model knows."""
        return sum(self.pace.of(piece) for piece in self.pieces)

    def take(self, seconds: float, threads: int = 1) -> list[Piece]:
        """The next block: about `seconds` of core time, at least one replica a thread."""
        block: list[Piece] = []
        room = seconds
        while self.pieces and (room > 0 or not block):
            piece = self.pieces.popleft()
            cost = self.pace.of(piece)
            probe = self.probes and family(piece) not in self.pace.sums
            here = min(room, UNMEASURED) if probe else room
            if cost > here and piece.count > 1:
                room = 0.0 if probe else room  # learn before more of the like
                each = self.pace.per_replica(piece)
                fits = max(int((here - OVERHEAD) / each), 0)
                if block and fits < threads:
                    self.pieces.appendleft(piece)
                    break
                piece, rest = _split(piece, max(fits, threads))
                if rest is not None:
                    self.pieces.appendleft(rest)
                cost = self.pace.of(piece)
            elif cost > room and block:
                self.pieces.appendleft(piece)
                break
            block.append(piece)
            room -= cost
        return block


def _split(piece: Piece, count: int) -> tuple[Piece, Piece | None]:
    """Cut a piece near `count` replicas, where few nodes of the tree of replicas are cut."""
    granule = 1 << (max(count, 1).bit_length() - 1)
    stop = (piece.first // granule + 1) * granule
    taken = min(stop - piece.first, piece.count)
    if taken == piece.count:
        return piece, None
    return piece._replace(count=taken), piece._replace(first=piece.first + taken, count=piece.count - taken)


def halve(pieces: list[Piece]) -> list[list[Piece]]:
    """A block in two: by pieces, and one piece by replicas. A block of one replica stays one."""
    if len(pieces) > 1:
        return [pieces[: len(pieces) // 2], pieces[len(pieces) // 2 :]]
    first, rest = _split(pieces[0], max(pieces[0].count // 2, 1))
    return [[first]] if rest is None else [[first], [rest]]


def shard(pieces: list[Piece], which: int, of: int) -> list[Piece]:
    """The share of shard `which` (1 .. of): the same on every machine, of about equal nominal cost.

    Raises:
        ValueError: unless 1 <= which <= of.
    """
    if not 1 <= which <= of:
        raise ValueError(f"shard must be i/N with 1 <= i <= N, got {which}/{of}")
    nominal = Pace()
    total = sum(nominal.of(piece) for piece in pieces)
    loads = [(0.0, i) for i in range(1, of + 1)]
    share: list[Piece] = []
    queue = Queue(pieces, nominal, probes=False)
    while queue:
        for piece in queue.take(total / (8 * of)):
            load, owner = heapq.heappop(loads)
            heapq.heappush(loads, (load + nominal.of(piece), owner))
            if owner == which:
                share.append(piece)
    return share
