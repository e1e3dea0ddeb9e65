# SPDX-License-Identifier: BSD-3-Clause
"""Which rows over layers a sweep keeps, and how."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pykernel import checks, observables

# A node of more replicas than this keeps every second of its children's values: the rank error of a quantile is
# at most 1 / (2 * KEPT) per doubling beyond, and 0 up to KEPT replicas.
# what "all" means, in keys of stores, too: rows that a run without formats has
_LAYERED = tuple(row.name for row in observables.ROWS if row.extent not in ("replica", "mix", "rounded", "weight"))
OF_ATTENTION = tuple(row.name for row in observables.ROWS if row.extent == "mix")
OF_FORMATS = tuple(row.name for row in observables.ROWS if row.extent == "rounded")
OF_WEIGHTS = tuple(observables.OF_USES)
# of these the ones that are kept unasked where a sweep rounds: what a format costs, in short
_OF_COST = ("gradient_cosine", "flushed_signal", "flushed_gradient", "overflowed_signal", "overflowed_gradient")
LOST = _OF_COST[1:]
_ALLOWED = (*_LAYERED, *OF_ATTENTION, *OF_FORMATS, *OF_WEIGHTS)
_DEFAULT_ROWS = (
    "log10_grad_weight",
    "log10_grad_activation",
    "log10_mean_square_preactivation",
    "saturated",
    "dead",
    "similarity",
)
_DEFAULT_QUANTILES = ("log10_grad_weight", "log10_grad_activation")


@dataclass(frozen=True)
class Profiles:
    """Which profiles over layers a sweep keeps.

    Args:
        rows: names of rows (see `pykernel.observables.ROWS`) whose mean and standard deviation over replicas are kept;
            "all" means every one that the chains have.
        quantiles: rows whose quantiles are kept as well; by default all that were asked for by name, and of the usual
            rows those of `log10_grad_weight` and `log10_grad_activation`.
        layers: chains with more layers keep every ceil(depth / layers)-th layer, with the first, the last and the input
            (of a chain of blocks: places of its longest row);
            scalars always use every layer.
        replicas: keep the profile of every replica too (large).

    Raises:
        ValueError: for a name that is not a row.

    Examples:
        >>> import pykernel as pk
        >>> keep = pk.Profiles(rows=("dead",), quantiles=(), layers=10)
        >>> ds = pk.sweep({"depth": [30]}, {"width": 16}, replicas=4, profiles=keep, progress=False)
        >>> ds.dead_mean.sizes["layer"]  # the input, every third layer and the first
        12
    """

    rows: tuple[str, ...] = _DEFAULT_ROWS
    quantiles: tuple[str, ...] = None  # type: ignore[assignment]  # always names once made
    layers: int = 256
    replicas: bool = False

    def __post_init__(self) -> None:
        rows = _LAYERED if self.rows == "all" else _names("rows of profiles", self.rows)
        object.__setattr__(self, "rows", rows)
        if self.quantiles is None:
            chosen = rows not in (_DEFAULT_ROWS, _LAYERED)
            object.__setattr__(self, "quantiles", rows if chosen else _DEFAULT_QUANTILES)
        else:
            object.__setattr__(self, "quantiles", _names("quantiles of profiles", self.quantiles))
        for name in self.rows:
            if name not in _ALLOWED:
                raise ValueError(f"profiles must be rows among {', '.join(_ALLOWED)}; got {name!r}")
        for name in self.quantiles:
            if name not in self.rows:
                raise ValueError(f"quantiles need their row among rows={self.rows}; got {name!r}")
        object.__setattr__(self, "layers", checks.integer("layers of profiles", self.layers, 2, 1 << 24))
        if not isinstance(self.replicas, bool):
            raise TypeError(f"replicas of profiles must be True or False, got {self.replicas!r}")

    @classmethod
    def of(cls, given: Any) -> Profiles:
        """The profiles that a user's shorthand means: True, False, names, "all" or "replicas"."""
        if isinstance(given, cls):
            return given
        if given is True:
            return cls()
        if given is False or given is None:
            return cls(rows=(), quantiles=())
        if not isinstance(given, str):
            return cls(rows=_names("profiles", given))
        if given == "replicas":
            return cls(replicas=True)
        rows = _LAYERED if given == "all" else (given,)
        return cls(rows=rows)

    @classmethod
    def of_plan(cls, plan: dict) -> Profiles:
        """Those of a plan's description."""
        words = plan["kept"]
        return cls(**{**words, "rows": tuple(words["rows"]), "quantiles": tuple(words["quantiles"])})

    def of_cells(self, chains: Iterable[Any], formats: bool) -> Profiles:
        """These as cells of chains have them: of all rows ("all") with those of attention, of shared weights and of
        formats where there are any, of the usual rows with what formats cost.

        Args:
            chains: of all cells.  formats: whether any cell runs with some.

        Raises:
            ValueError: rows of attention or of formats are asked for by name, and there are none.
        """
        asked = [name for name in self.rows if name in OF_ATTENTION]
        for name in self.rows:
            if name in OF_FORMATS and not formats:
                raise ValueError(f"profiles asks for {name}, and this sweep has no formats")
        more = OF_FORMATS if self.rows == _LAYERED else _OF_COST if self.rows == _DEFAULT_ROWS else ()
        rows = (*self.rows, *(more if formats else ()))
        if asked or self.rows == _LAYERED:
            chains = [chain for chain in chains if chain.tied or chain.blocks is not None]
            mixes = any(chain.extents.mix for chain in chains)
            if asked and not mixes:
                raise ValueError(f"profiles asks for {asked[0]}, and no chain of this sweep has attention")
            if not asked:
                rows += (OF_ATTENTION if mixes else ()) + (OF_WEIGHTS if any(c.extents.weight for c in chains) else ())
        return replace(self, rows=rows) if rows != self.rows else self

    def measured(self, batch: int) -> Profiles:
        """The profiles that a batch has: there is no similarity of one input."""
        if batch > 1 or "similarity" not in self.rows:
            return self
        rows, quantiles = (
            tuple(name for name in names if name != "similarity") for names in (self.rows, self.quantiles)
        )
        return replace(self, rows=rows, quantiles=quantiles)

    def at(self, depth: int) -> np.ndarray:
        """The layers kept of a chain of `depth` layers: increasing ints from 0 (the input) to depth."""
        if not self.rows:
            return np.zeros(0, dtype=np.int64)
        stride = -(-depth // self.layers)
        return np.unique(np.concatenate(([0, 1], np.arange(stride, depth + 1, stride), [depth])))


def _names(what: str, given: Any) -> tuple[str, ...]:
    if not checks.iterable(given):
        raise TypeError(f"{what} must be names of rows, got {given!r}; allowed are {', '.join(_ALLOWED)}")
    return tuple(given)
