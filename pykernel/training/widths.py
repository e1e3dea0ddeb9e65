# SPDX-License-Identifier: BSD-3-Clause
"""coordinate_check: how coordinates grow with width while networks train, layer by layer and step by step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pykernel import checks, machine, observables
from pykernel.chain import Chain
from pykernel.drive import Drive
from pykernel.layers import MAX_WIDTH, Block, Weighted
from pykernel.program import MAX_REPLICAS
from pykernel.tables import Shown, Strong, Table, places
from pykernel.training.descent import Plan, descend
from pykernel.training.face import for_each, memory, planned
from pykernel.training.parametrizations import TABLE, roles

if TYPE_CHECKING:  # they take long to import
    from matplotlib.axes import Axes
    from xarray import Dataset

HEAD = "head"
SHOWN = 3  # steps of a table


def coordinate_check(
    chain: Chain,
    *,
    widths: Sequence[int],
    steps: int = 3,
    rate: float = 0.1,
    parametrization: str = "standard",
    batch: int = 4,
    replicas: int = 4,
    momentum: float = 0.0,
    positions: int | tuple[int, ...] = (),
    seed: int = 0,
    engine: str = "auto",
    backend: str = "auto",
    dtype: str = "float32",
    threads: int | None = None,
) -> CoordinateCheck:
    """Train a chain at several widths, and fit how its coordinates grow with width, layer by layer and step by step.

    Fitted as powers of the width are the root mean squares over units and batch of z[l](step), and of how far it has
    moved, z[l](step) - z[l](0); the head's logits are the last layer.

    Args:
        chain: a chain with a `Head`. Made with `width` (or of blocks), all units are scaled, the input's too; made with
            `widths`, n[0] is the data's and stays, and the others must be equal.
        widths: at least two. Of a chain of blocks every number of units is multiplied by width / chain.width, but for
            those of what a `Drive` brings, which is data.
        steps, rate, parametrization, momentum: as in `train`.
        batch, positions, replicas, seed, engine, backend, dtype, threads: as in `train`. The targets of a replica, and
            its inputs where n[0] stays, are the same at every width.

    Returns:
        CoordinateCheck: exponents (step, layer) with standard errors, `to_xarray()`, `plot()`, and a table as its text.

    Raises:
        ValueError, TypeError: before any work, saying what was given and what is allowed.

    Notes:
        What is promised (Yang and Hu 2021, arXiv 2011.14522; Yang et al. 2022, arXiv 2203.03466, section 4 and appendix
        D) are exponents of the change by one step at a fixed rate: with "mup" 0 everywhere, with "standard" 1 of the
        logits and 1/2 of hidden layers, with "ntk" 0 of the logits and -1/2 of hidden layers, which stop learning. The
        error of an exponent is that of least squares with a constant for every replica, so a bend is part of it.

    Examples:
        >>> import pykernel as pk
        >>> chain = pk.Chain(depth=2, width=64, activation="tanh", init="lecun_normal", head=pk.Head("mse", 1))
        >>> c = pk.coordinate_check(chain, widths=[64, 128, 256], steps=1, rate=0.1, parametrization="mup")
        >>> c.layers, c.change.shape, bool(abs(c.change[0, -1]) < 0.3)
        (('1.linear', '2.linear', 'head'), (1, 3), True)
    """
    widths = _widths(widths)
    steps = checks.integer("steps", steps, 1, 10**4)
    replicas = checks.integer("replicas", replicas, 1, MAX_REPLICAS)
    words = dict(batch=batch, positions=positions, seed=seed, dtype=dtype)
    more = (steps, rate, momentum, parametrization, engine, backend, threads, words)
    grows = getattr(chain, "widths", None) is None
    plans = [planned(resized(chain, width), *more, grows)[0] for width in widths]
    for plan in plans:
        machine.require_memory(memory(plan), "training at the largest width", "ask for smaller widths or fewer steps")
    sizes = np.full((len(widths), replicas, steps + 1, plans[0].program.depth + 1), np.nan)
    changes = sizes.copy()
    for i, plan in enumerate(plans):
        with np.errstate(all="ignore"):
            for_each(partial(_observed_at, plan, sizes[i], changes[i]), replicas, plan)
    role = [*roles(plans[0].program, grows), "output"]
    return CoordinateCheck(chain, widths, steps, float(rate), parametrization, replicas, role, sizes, changes[:, :, 1:])


def _widths(widths: Any) -> tuple[int, ...]:
    if isinstance(widths, str) or not hasattr(widths, "__iter__"):
        raise TypeError(f"widths must be a sequence of ints, got {widths!r}")
    out = tuple(checks.integer("widths", width, 1, MAX_WIDTH) for width in widths)
    if len(set(out)) < 2:
        raise ValueError(f"widths must hold at least two different widths, got {list(out)}")
    return out


def resized(chain: Chain, width: int) -> Chain:
    """The chain at another width.

    Raises:
        ValueError: units that a width does not scale to whole numbers, or differ from layer to layer.
    """
    if not hasattr(chain, "blocks"):
        return chain  # `train` says what it is
    if chain.widths is not None:
        behind = set(chain.widths[1:])
        if len(behind) > 1:
            raise ValueError(f"widths of the chain must be equal behind the input, got {list(chain.widths)}")
        return chain.replace(widths=[chain.widths[0], *[width] * chain.depth])
    if chain.blocks is None:
        return chain.replace(width=width)
    assert chain.width is not None  # of blocks
    parts = {name: [_resized_block(b, chain.width, width) for b in getattr(chain, name)] for name in PARTS}
    return chain.replace(width=width, **parts)


PARTS = ("first", "blocks", "last")


def _resized_block(block: Block, before: int, width: int) -> Block:
    step = lambda one: _resized_step(one, before, width)
    skip = tuple(map(step, block.skip)) if isinstance(block.skip, tuple) else block.skip
    return Block(*map(step, block.steps), skip=skip, scale=block.scale, after=tuple(map(step, block.after)))


def _resized_step(step: Any, before: int, width: int) -> Any:
    for name in ("units", "channels"):
        count = getattr(step, name, None)
        if count is not None and isinstance(step, Weighted) and not isinstance(step, Drive):
            if count * width % before:
                raise ValueError(f"{count} {name} of a chain of width {before} are no whole number at width {width}")
            changed: Any = {name: count * width // before}
            return dataclasses.replace(step, **changed)  # type: ignore[type-var]  # every step is a dataclass
    return step


def _observed_at(plan: Plan, sizes: np.ndarray, changes: np.ndarray, replica: int) -> None:
    _observed(plan, replica, sizes[replica], changes[replica])


def _observed(plan: Plan, replica: int, sizes: np.ndarray, changes: np.ndarray) -> None:
    """Write the root mean squares of one network, (steps + 1, L + 1) each; nan behind a loss without bound."""
    program, first = plan.program, []

    def observe(step: int, arrays: dict[str, dict[int, Any]]) -> None:
        now = [arrays["preactivation"][l] for l in range(1, program.depth + 1)] + [arrays["logits"][0]]
        first.extend(now if not step else ())
        sizes[step] = [_root(z) for z in now]
        changes[step] = [_root(z - before) for z, before in zip(now, first, strict=True)]

    rows = {
        row.name: np.full((plan.steps + 1, *observables.shape(row, 1, program.counts)[1:]), np.nan)
        for row in observables.ROWS
    }
    descend(plan, replica, rows, observe, ("preactivation", "logits"))


def _root(z: np.ndarray) -> float:
    return np.sqrt(np.mean(np.square(z)))


class CoordinateCheck(Shown):
    """Growth exponents in width of coordinates in training.

    Attributes:
        chain, widths, steps, rate, parametrization, replicas: what was run.
        layers: names of the L layers and "head", the logits.
        roles: of each "input", "hidden" or "output".
        change: (steps, L + 1) float64, exponents of the root mean square of z(step) - z(0), step 1 first.
        size: (steps + 1, L + 1) float64, exponents of that of z(step) itself, the fresh network first.
        change_error, size_error: their standard errors.
        change_promised, size_promised: (L + 1,), of the change by one step and of the fresh network, by the
            parametrization.
        changes, sizes: (widths, replicas, steps (+ 1), L + 1), the root mean squares; nan where a loss had no bound.
    """

    def __init__(
        self,
        chain: Chain,
        widths: tuple[int, ...],
        steps: int,
        rate: float,
        parametrization: str,
        replicas: int,
        role: list[str],
        sizes: np.ndarray,
        changes: np.ndarray,
    ) -> None:
        self.chain, self.widths, self.steps, self.rate = chain, widths, steps, rate
        self.parametrization, self.replicas, self.roles = parametrization, replicas, tuple(role)
        self.layers = (*chain.layers, HEAD)
        self.sizes, self.changes = sizes, changes
        self.size, self.size_error = _fitted(widths, sizes)
        self.change, self.change_error = _fitted(widths, changes)
        row = TABLE[parametrization]
        self.change_promised = np.array([row.change[r] for r in self.roles])
        self.size_promised = np.array([row.logits if r == "output" else 0.0 for r in self.roles])

    def to_xarray(self) -> Dataset:
        """Exponents and root mean squares as an xarray.Dataset with dimensions width, replica, step (0 first, where
        changes are nan) and layer.

        Examples:
            >>> import pykernel as pk
            >>> chain = pk.Chain(depth=2, width=16, head=pk.Head("mse", 1))
            >>> ds = pk.coordinate_check(chain, widths=[16, 32], steps=2, rate=0.01).to_xarray()
            >>> dict(ds.sizes)
            {'step': 3, 'layer': 3, 'width': 2, 'replica': 4}
        """
        import xarray

        power, size = {"units": "powers of the width"}, {"units": "1"}
        pad = lambda a: np.concatenate([np.full_like(a[..., :1, :], np.nan), a], axis=-2)
        by_step, every = ("step", "layer"), ("width", "replica", "step", "layer")
        data = {
            "change": (by_step, pad(self.change), power),
            "change_error": (by_step, pad(self.change_error), power),
            "size": (by_step, self.size, power),
            "size_error": (by_step, self.size_error, power),
            "change_promised": (("layer",), self.change_promised, power),
            "size_promised": (("layer",), self.size_promised, power),
            "root_mean_square": (every, self.sizes, size),
            "root_mean_square_change": (every, pad(self.changes), size),
        }
        coords = {
            "step": np.arange(self.steps + 1),
            "layer": np.array(self.layers, dtype=str),
            "width": np.array(self.widths),
            "replica": np.arange(self.replicas),
            "role": ("layer", np.array(self.roles, dtype=str)),
        }
        facts = {"chain": str(self.chain), "rate": self.rate, "parametrization": self.parametrization}
        return xarray.Dataset(data, coords=coords, attrs=facts)

    def plot(self, ax: Axes | None = None, of: str = "change") -> Axes:
        """The exponents against the layer, a line a step, and what is promised.

        Args:
            ax: matplotlib axes to draw on; a new pyplot figure without.
            of: "change" or "size".

        Returns:
            The axes.

        Examples:
            >>> import matplotlib.pyplot as plt
            >>> import pykernel as pk
            >>> chain = pk.Chain(depth=2, width=16, head=pk.Head("mse", 1))
            >>> ax = pk.coordinate_check(chain, widths=[16, 32], steps=2, rate=0.01).plot()
            >>> ax.get_xlabel()
            'layer'
            >>> plt.close(ax.figure)
        """
        from pykernel.plot import training

        checks.choice("of", of, ("change", "size"))
        return training.exponents(self, ax, of)

    def shown(self) -> Any:
        """What was run, the exponents of the change in a table, and that of the fresh network's logits."""
        yield Strong(str(self.chain))
        yield (
            f"widths {', '.join(map(str, self.widths))}; {self.replicas} replicas; rate {self.rate:g}, "
            f"{self.parametrization} parametrization"
        )
        yield ""
        yield "exponent in width of how far coordinates have moved from the fresh network"
        steps = places(self.steps, SHOWN)
        lines = [
            (name, f"{self.change_promised[i]:.2f}", *(self._exponent(step, i) for step in steps))
            for i, name in enumerate(self.layers)
        ]
        yield Table(("layer", "promised", *(f"step {step + 1}" for step in steps)), lines, left=("layer",))
        yield ""
        yield Strong(self._closing())

    def __repr__(self) -> str:
        return f"<CoordinateCheck of {self.chain}: widths {', '.join(map(str, self.widths))}, {self.steps} steps>"

    def _exponent(self, step: int, layer: int) -> str:
        return f"{self.change[step, layer]:.2f} +- {self.change_error[step, layer]:.2f}"

    def _closing(self) -> str:
        fresh, error = self.size[0, -1], self.size_error[0, -1]
        logits = f"logits of the fresh network: {fresh:.2f} +- {error:.2f}, promised {self.size_promised[-1]:.2f}"
        lost = int(np.isnan(self.sizes[:, :, -1, -1]).sum())
        return logits + (f"; the loss of {lost} networks has no bound" if lost else "")


def _fitted(widths: tuple[int, ...], values: np.ndarray) -> tuple[Any, Any]:
    """Slopes of log10 of values (widths, replicas, ...) on log10 of the width by least squares, a constant for every
    replica, and their standard errors; nan where a value is zero or missing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.log10(values)
    y = np.where(np.isfinite(y), y, np.nan)
    x = np.log10(np.array(widths, dtype=float))
    x, y = x - x.mean(), y - y.mean(axis=0)
    count, replicas = y.shape[:2]
    squares = replicas * (x @ x)
    slope = np.tensordot(x, y.sum(axis=1), 1) / squares
    rest = y - x.reshape(-1, *[1] * (y.ndim - 1)) * slope
    degrees = max((count - 1) * replicas - 1, 1)
    return slope, np.sqrt((rest**2).sum(axis=(0, 1)) / degrees / squares)
