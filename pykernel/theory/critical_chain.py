# SPDX-License-Identifier: BSD-3-Clause
"""The factor on a chain's gain at which its gradient neither shrinks nor grows from repetition to repetition."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from pykernel.chain import Chain
from pykernel.lower import lower
from pykernel.program import Program
from pykernel.tables import Shown, Strong, Table
from pykernel.theory.predict import passes
from pykernel.theory.roots import root
from pykernel.theory.structure import NoTheory
from pykernel.verdict import EXPLODING, slopes

FURTHEST = 4.0  # |log| of the factors searched: 1/55 to 55
STEP = 0.25  # between them: two roots closer than this are not told apart
ROUNDED = 1e-4  # log of a factor within which a gain that somebody writes down lies
FLAT = 1e-9  # decades a repetition that count as none
LOG10 = math.log(10)


@dataclass(frozen=True)
class CriticalFactor(Shown):
    """What `critical_gain` finds for a chain.

    Attributes:
        chain: str of it.
        exists: whether some gain gives chi = 1.
        factor: on the chain's gain; where none exists, that of the closest approach.
        gain: the chain's gain times it, for `chain.replace(gain=...)`.
        chi: factor on the squared gradient norm per repetition there, the geometric mean of the theory's slope.
        chi_now: the same at the present gain.
        others: further factors with chi = 1.
        note: a plain sentence.
    """

    chain: str
    exists: bool
    factor: float
    gain: Any
    chi: float
    chi_now: float
    others: tuple
    note: str

    def shown(self) -> Iterator[Any]:
        """The note; in a table of one line the numbers."""
        yield Strong(self.note)
        gain = f"{self.gain:.6g}" if isinstance(self.gain, float) else "one a layer"
        numbers = (f"{self.factor:.6g}", gain, f"{self.chi:.6g}", f"{self.chi_now:.6g}")
        yield Table(("factor", "gain", "chi", "chi now"), [numbers])


def critical_factor(chain: Chain, batch: int, positions: Any = ()) -> CriticalFactor:
    """See `pykernel.critical_gain`.

    Raises:
        NoTheory (a ValueError): a chain that infinite-width theory does not follow.
    """
    program = lower(chain, batch=batch, positions=positions)
    _slope(chain, program, 1.0)  # refused here and now, or not at all

    def slope(log_factor: float) -> float:
        try:
            return _slope(chain, program, math.exp(log_factor))
        except NoTheory:  # at another gain: scores too large, branches too small
            return math.nan

    found = _search(slope)
    closest = found.roots[0] if found.roots else found.closest
    factor, rate = math.exp(closest), slope(closest)
    holds = bool(found.roots) and all(abs(slope(closest + s)) * chain.depth < EXPLODING for s in (-ROUNDED, ROUNDED))
    others = tuple(math.exp(x) for x in found.roots[1:]) if holds and not found.everywhere else ()
    gain = tuple(g * factor for g in chain.gain) if isinstance(chain.gain, tuple) else chain.gain * factor
    note = _note(chain, found, holds, factor, rate)
    return CriticalFactor(str(chain), holds, factor, gain, _chi(rate), _chi(found.now), others, note)


class _Found(NamedTuple):
    """Logs of the factors at which the slope is zero, nearest to 1 first; the slope at factor 1; the log of the factor
    where it is nearest to zero; whether it is zero everywhere; the factors from which to which it is a number (none:
    nowhere)."""

    roots: list[float]
    now: float
    closest: float
    everywhere: bool
    reach: tuple[float, ...]


def _search(slope: Callable[[float], float]) -> _Found:
    grid = np.arange(-FURTHEST, FURTHEST + STEP / 2, STEP)
    rates = np.array([slope(x) for x in grid])
    known = np.isfinite(rates)
    now, off = float(rates[len(grid) // 2]), np.where(known, np.abs(rates), np.inf)
    roots = [0.0] if abs(now) <= FLAT else []
    for i in np.flatnonzero(known[:-1] & known[1:] & (np.sign(rates[:-1]) != np.sign(rates[1:]))):
        low, high = float(grid[i]), float(grid[i + 1])
        if not any(low <= x <= high for x in roots):
            roots.append(root(slope, low, high, float(rates[i]), float(rates[i + 1]), FLAT / 1000))
    everywhere = bool(off.max() <= FLAT)
    reach = tuple(math.exp(x) for x in grid[known][[0, -1]]) if known.any() else ()
    return _Found(sorted(roots, key=abs), now, float(grid[np.argmin(off)]), everywhere, reach)


def _chi(slope: float) -> float:
    """The factor on the squared norm, from decades of the norm."""
    return 10 ** (2 * slope) if abs(slope) < 150 else math.inf if slope > 0 else 0.0


def _slope(chain: Chain, program: Program, factor: float) -> float:
    """Decades a repetition with all weights of the layers multiplied."""
    layers = program.layers._replace(scale=program.layers.scale * factor)
    _, gradient, _ = passes(replace(program, layers=layers))
    return float(slopes(gradient.activation[None, chain.ends] / (2 * LOG10))[0])


def _note(chain: Chain, found: _Found, holds: bool, factor: float, rate: float) -> str:
    unit, now = chain.unit, f"{_chi(found.now):.5g}"
    if found.everywhere:
        return f"every gain is critical: the squared gradient keeps its size from {unit} to {unit} whatever the gain"
    if holds:
        text = f"chi = 1 at {factor:.6g} times the chain's gain; at the present gain chi = {now} a {unit}"
        others = [f"{math.exp(x):.6g}" for x in found.roots[1:]]
        return text + (f"; also at {', '.join(others)} times" if others else "")
    if found.roots:
        return (
            f"no gain holds: at {factor:.6g} times the chain's gain chi passes through 1 so steeply that 0.01 percent "
            f"more or less lets the gradient explode or vanish over {chain.depth} {unit}s"
        )
    if not found.reach:
        return "no gain is critical: at each of them signals die out or leave every range"
    side = "above" if found.now > 0 else "below"
    low, high = found.reach
    text = (
        f"no gain is critical: chi is {side} 1 at every gain from {low:.2g} to {high:.2g} times the chain's, "
        f"{now} a {unit} now"
    )
    if math.exp(found.closest) == low and abs(rate) < 0.05 * abs(found.now):
        return f"{text}; it tends to 1 only as the gain tends to 0"
    return f"{text}, {_chi(rate):.5g} at the closest, {factor:.3g} times the chain's"
