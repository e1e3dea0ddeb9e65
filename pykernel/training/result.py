# SPDX-License-Identifier: BSD-3-Clause
"""Training: the rows of every step of an ensemble in training, in words, tables and figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from pykernel import observables, stream
from pykernel._core import version
from pykernel.chain import Chain
from pykernel.dtypes import Ints
from pykernel.measured import Measured
from pykernel.tables import Shown, Strong, Table, places
from pykernel.verdict import plain

if TYPE_CHECKING:  # they take long to import
    from matplotlib.axes import Axes
    from xarray import Dataset

SHOWN = 8  # steps of a table


class Training(Shown, observables.Rows):
    """What `train` measured: rows as attributes, float64 (replicas, steps + 1, ...), the fresh network's first.

    Attributes:
        chain, steps, rate, momentum, parametrization, batch, positions, seed, engine, backend, dtype, correlation,
            seconds: what was run.
        given: names of the arrays that the caller gave.
        loss: (replicas, steps + 1); inf from the step on at which it grows without bound.
        diverged: (replicas,) int64, that step, or -1.
        log10_grad_weight, ...: one for each entry of `pykernel.observables.ROWS`; nan where the loss is without bound.
    """

    chain: Chain
    steps: int
    rate: float
    momentum: float
    parametrization: str
    batch: int
    positions: tuple[int, ...]
    seed: int
    engine: str
    backend: str
    dtype: str
    correlation: float
    seconds: float
    given: tuple[str, ...]
    diverged: Ints

    def __init__(self, *, rows: dict[str, np.ndarray], **facts: Any) -> None:
        self.__dict__.update(facts)
        self.rows = rows

    @property
    def replicas(self) -> int:
        return len(self.rows["loss"])

    def at(self, step: int) -> Measured:
        """The rows of one step, with slope and verdict.

        Args:
            step: 0 (the fresh network) to `steps`, or from -1 backwards.

        Raises:
            ValueError: another step.

        Examples:
            >>> import pykernel as pk
            >>> chain = pk.Chain(depth=30, width=32, activation="sigmoid", init="lecun_normal", head=pk.Head("mse", 1))
            >>> pk.train(chain, steps=2).at(-1).verdict
            'vanishing'
        """
        if not -self.steps - 1 <= step <= self.steps:
            raise ValueError(f"step must be from 0 to {self.steps}, got {step}")
        rows = {name: array[:, step] for name, array in self.rows.items()}
        facts = {name: getattr(self, name) for name in ("chain", "batch", "positions", "seed", "engine", "backend")}
        facts |= {name: getattr(self, name) for name in ("dtype", "correlation", "given")}
        return Measured(rows=rows, precision="exponent", seconds=self.seconds / (self.steps + 1), **facts)

    @property
    def falls(self) -> bool:
        """Whether the median loss is lower at the end than at the beginning, and no replica's is without bound."""
        before, after = np.median(self.loss[:, 0]), np.median(self.loss[:, -1])
        return bool(after < before and (self.diverged < 0).all())

    def to_dict(self, layers: bool = True) -> dict:
        """Plain numbers for JSON: medians over replicas, a list over steps each; "-inf" stands for an exact zero in a
        log row, "inf" for a loss without bound, None for nan.

        Args:
            layers: whether to give the rows, of every step a list over layers, beside loss and verdicts; of blocks with
                the layers' names.

        Examples:
            >>> import pykernel as pk
            >>> t = pk.train(pk.Chain(depth=3, width=8, head=pk.Head("mse", 1)), steps=2, replicas=3, rate=0.01)
            >>> found = t.to_dict(layers=False)
            >>> len(found["loss"]), found["falls"], found["diverged"]
            (3, True, [-1, -1, -1])
        """
        medians = lambda array: [
            [plain(v) for v in np.median(array[:, step], axis=0)] for step in range(self.steps + 1)
        ]
        out = {**self._provenance(), "replicas": self.replicas, "falls": self.falls}
        out |= {"diverged": self.diverged.tolist(), "sentence": self._closing()}
        out["loss"] = [plain(np.median(self.loss[:, step])) for step in range(self.steps + 1)]
        out["verdict"] = [str(self.at(step).verdict) for step in range(self.steps + 1)]
        if layers:
            rows = [row for row in observables.ROWS if row.extent != "replica" and self.rows[row.name].size]
            with np.errstate(invalid="ignore"):
                out["layers"] = {row.name: medians(self.rows[row.name]) for row in rows}
            if self.chain.blocks is not None:
                out["names"] = {"layer": list(self.chain.layers), "activation": list(self.chain.activations)}
        return out

    def to_xarray(self) -> Dataset:
        """The rows as an xarray.Dataset with dimensions replica, step, layer (and those of `propagate`), units and
        meanings as attributes.

        Examples:
            >>> import pykernel as pk
            >>> t = pk.train(pk.Chain(depth=3, width=8, head=pk.Head("mse", 1)), steps=2, replicas=4)
            >>> ds = t.to_xarray()
            >>> dict(ds.sizes), ds.loss.dims
            ({'replica': 4, 'step': 3, 'layer': 3, 'node': 4}, ('replica', 'step'))
        """
        import xarray

        axes = observables.axes(self.chain)
        dims = lambda row: ("replica", "step", *(() if row.extent == "replica" else (axes[row.extent],)))
        data = {
            row.name: (dims(row), self.rows[row.name], {"units": row.unit, "long_name": row.meaning})
            for row in observables.ROWS
            if self.rows[row.name].size
        }
        data["diverged"] = (("replica",), self.diverged, {"long_name": "step from which the loss has no bound, or -1"})
        coords = {"replica": np.arange(self.replicas), "step": np.arange(self.steps + 1), **self._labels(axes)}
        return xarray.Dataset(data, coords=coords, attrs=self._provenance())

    def _labels(self, axes: dict[str, str]) -> dict[str, Any]:
        count, blocks = self.chain.extents.node, self.chain.blocks is not None
        names = {"layer": self.chain.layers, "activation": self.chain.activations, "mix": self.chain.attentions}
        numbers = np.arange(1, count + 1)
        labels = {axes["node"]: numbers, axes["input"]: np.arange(count + 1)}
        if self.chain.tied_layers:
            labels[axes["weight"]] = np.array(self.chain.tied_layers, dtype=str)
        for extent, own in names.items():
            if own:
                labels[axes[extent]] = np.array(own, dtype=str) if blocks else numbers
        return labels

    def _provenance(self) -> dict[str, Any]:
        return {
            "chain": str(self.chain),
            **{name: getattr(self, name) for name in ("steps", "rate", "momentum", "parametrization", "batch")},
            **({"positions": list(self.positions)} if self.positions else {}),
            "seed": str(self.seed),
            **{name: getattr(self, name) for name in ("engine", "backend", "dtype")},
            "pykernel": version,
            "stream_version": stream.VERSION,
        }

    def plot(self, ax: Axes | None = None, **line: Any) -> Axes:
        """The loss against the step: median and band over replicas; it shows in a notebook, in a script by
        `plt.show()`.

        Args:
            ax: matplotlib axes to draw on; a new pyplot figure without.
            line: colour, label and the like of the line, as matplotlib takes them.

        Returns:
            The axes.

        Examples:
            >>> import matplotlib.pyplot as plt
            >>> import pykernel as pk
            >>> ax = pk.train(pk.Chain(depth=3, width=8, head=pk.Head("mse", 1)), steps=2).plot()
            >>> ax.get_xlabel()
            'step'
            >>> plt.close(ax.figure)
        """
        from pykernel.plot import training

        return training.losses(self, ax, **line)

    def shown(self) -> Iterator[str | Table]:
        """What was run, loss and gradients step by step, and how the loss went."""
        r = self.replicas
        inputs = f"batch {self.batch}" + (
            f", {' x '.join(map(str, self.positions))} positions" if self.positions else ""
        )
        momentum = f", momentum {self.momentum:g}" if self.momentum else ""
        yield Strong(str(self.chain))
        yield f"{self.steps} steps at rate {self.rate:g}{momentum}, {self.parametrization} parametrization"
        yield (
            f"{r} replica{'s' * (r > 1)}, {inputs}, seed {self.seed}; {self.engine} engine, {self.backend} backend, "
            f"{self.dtype}"
        )
        yield ""
        yield "medians over replicas; g = log10 of the norm of dJ/dW, of the first and the last layer"
        yield Table(("step", "loss", "g first", "g last"), list(self._lines()))
        yield ""
        yield Strong(self._closing())

    def __repr__(self) -> str:
        return f"<Training of {self.chain}: {self.replicas} replicas, {self.steps} steps>"

    def _lines(self) -> Any:
        with np.errstate(invalid="ignore"):
            for step in places(self.steps + 1, SHOWN):
                g = np.median(self.log10_grad_weight[:, step], axis=0)
                yield str(step), f"{np.median(self.loss[:, step]):.5g}", f"{g[0]:.3f}", f"{g[-1]:.3f}"

    def _closing(self) -> str:
        count = int((self.diverged >= 0).sum())
        if count:
            first = int(self.diverged[self.diverged >= 0].min())
            whose = "the loss" if self.replicas == 1 else f"the loss of {count} of {self.replicas} replicas"
            return f"{whose} grows without bound, first at step {first}"
        before, after = np.median(self.loss[:, 0]), np.median(self.loss[:, -1])
        went = "falls" if self.falls else "does not fall"
        return f"the loss {went}: from {before:.5g} to {after:.5g}"
