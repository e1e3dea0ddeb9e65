# SPDX-License-Identifier: BSD-3-Clause
"""Propagation: what was measured in one ensemble of chains, and what follows from it."""

from __future__ import annotations

import textwrap
from typing import NamedTuple

import numpy as np

from pykernel import observables, stream
from pykernel.verdict import EXPLODING, VANISHING, classify, require_bounds

DERIVED = ("slope", "end_to_end", "signal_end_to_end")


class Failure(NamedTuple):
    """Where plain arithmetic gave up: the first layer, in the direction of travel, of the first replica that did."""

    layer: int
    direction: str
    kind: str
    replica: int

    def __str__(self):
        what = "signal" if self.direction == "forward" else "gradient"
        return f"the {what} is {self.kind} from layer {self.layer} on ({self.direction}, replica {self.replica})"


class Propagation:
    """The rows that `propagate` measured, as attributes of float64 arrays (replicas, depth), and derived numbers.

    Attributes:
        chain, batch, replicas, seed, engine, backend, dtype, precision, correlation, seconds: what was run.
        given: names of the arrays that the caller gave.
        log10_grad_weight, ...: one for each entry of `pykernel.observables.ROWS`.
        kept: list over replicas of the arrays asked for by `keep`, or None.

    Examples:
        >>> import pykernel as pk
        >>> p = pk.propagate(pk.Chain(depth=10, width=16, activation="linear", init="identity(0.5)"), replicas=2)
        >>> round(float(p.slope[0]), 5), p.verdict
        (-0.30103, 'vanishing')
    """

    def __init__(self, *, chain, rows, batch, seed, engine, backend, dtype, precision, correlation, seconds, kept=None, given=()):
        self.chain, self.batch, self.seed = chain, batch, seed
        self.engine, self.backend, self.dtype, self.precision = engine, backend, dtype, precision
        self.correlation, self.seconds, self.kept, self.given = correlation, seconds, kept, given
        self.rows = rows
        self.replicas = len(rows["log10_grad_weight"])

    def __getattr__(self, name):
        if name != "rows" and name in self.__dict__.get("rows", {}):
            return self.rows[name]
        raise AttributeError(f"Propagation has no attribute {name!r}; measured rows: {', '.join(observables.NAMES)}")

    def __dir__(self):
        return [*super().__dir__(), *observables.NAMES]

    @property
    def slope(self) -> np.ndarray:
        """Decades per layer travelled backwards: least squares of log10_grad_activation on L - l, (replicas,)."""
        return slopes(self.log10_grad_activation)

    @property
    def end_to_end(self) -> np.ndarray:
        """First over last weight gradient, in decades, (replicas,)."""
        with np.errstate(invalid="ignore"):
            return self.log10_grad_weight[:, 0] - self.log10_grad_weight[:, -1]

    @property
    def signal_end_to_end(self) -> np.ndarray:
        """Norm of dJ/da[0] over that of dJ/da[L], in decades, (replicas,)."""
        with np.errstate(invalid="ignore"):
            return self.log10_grad_activation[:, 0] - self.log10_grad_activation[:, -1]

    def median(self, name: str):
        """Median over replicas of a row or a derived number, by its name.

        Args:
            name: one of `pykernel.observables.ROWS`, or "slope", "end_to_end", "signal_end_to_end".

        Returns:
            A float64 array (depth,) or (depth + 1,); a float for what has one number a replica. Units as the row's.

        Raises:
            ValueError: for another name.

        Examples:
            >>> import pykernel as pk
            >>> p = pk.propagate(pk.Chain(depth=10, width=16, activation="linear", init="identity(0.5)"), replicas=3)
            >>> p.median("log10_grad_activation").shape, round(p.median("signal_end_to_end"), 3)
            ((11,), -3.01)
        """
        if name not in self.rows and name not in DERIVED:
            raise ValueError(f"median of what? {name!r} is none of {', '.join([*observables.NAMES, *DERIVED])}")
        with np.errstate(invalid="ignore"):
            middle = np.median(getattr(self, name), axis=0)
        return middle if middle.ndim else float(middle)

    @property
    def verdict(self) -> str:
        """ "vanishing", "exploding", "stable", "dead" or "undefined" (not a number), by the default bounds of `judge`."""
        return self.judge()

    def judge(self, vanishing: float = VANISHING, exploding: float = EXPLODING) -> str:
        """The verdict under other bounds.

        Args:
            vanishing, exploding: decades over the whole chain, for the ratio of larger magnitude.

        Returns:
            "vanishing", "exploding", "stable", "dead" or "undefined" (not a number).

        Raises:
            ValueError, TypeError: bounds that are not finite numbers, vanishing below exploding.

        Examples:
            >>> import pykernel as pk
            >>> p = pk.propagate(pk.Chain(depth=10, width=16, activation="linear", init="identity(0.5)"))
            >>> p.judge(), p.judge(vanishing=-5)  # 0.5^10 is 10^-3.01
            ('vanishing', 'stable')
        """
        require_bounds(vanishing, exploding)
        if self.precision == "native" and self.failure is not None:
            return "vanishing" if self.failure.kind == "zero" else "exploding"
        return classify(self.end_to_end, self.signal_end_to_end, vanishing=vanishing, exploding=exploding)

    def diagnose(self, vanishing: float = VANISHING, exploding: float = EXPLODING):
        """The verdict with slope and error, interval, theory and a plain sentence: a `pykernel.theory.diagnosis.Diagnosis`.

        Examples:
            >>> import pykernel as pk
            >>> p = pk.propagate(pk.Chain(depth=40, width=64, activation="sigmoid", init="lecun_normal"), replicas=5)
            >>> p.diagnose().verdict
            'vanishing'
        """
        from pykernel.theory import diagnosis

        return diagnosis.diagnose(self, vanishing=vanishing, exploding=exploding)

    def assert_healthy(self, vanishing: float = VANISHING, exploding: float = EXPLODING) -> None:
        """Raise an AssertionError that says why, unless the verdict is "stable": one line in a test of your own.

        Examples:
            >>> import pykernel as pk
            >>> pk.propagate(pk.Chain(depth=40, width=64), replicas=5).assert_healthy()
        """
        from pykernel.theory import diagnosis

        diagnosis.assert_healthy(self, vanishing=vanishing, exploding=exploding)

    @property
    def failure(self) -> Failure | None:
        """The first layer at which the signal (forward) or else the gradient (backward) is zero, inf or nan; None where all is finite.

        Examples:
            >>> import pykernel as pk
            >>> half = pk.Chain(depth=200, width=2, activation="linear", init="identity(0.5)")
            >>> pk.propagate(half).failure is None, pk.propagate(half, precision="native").failure.kind
            (True, 'zero')
        """
        forward = self.log10_mean_square_activation
        backward = self.log10_grad_activation[:, ::-1]
        for direction, table in (("forward", forward), ("backward", backward)):
            bad = ~np.isfinite(table)
            if bad.any():
                at = int(bad.any(axis=0).argmax())
                replica = int(bad[:, at].argmax())
                value = table[replica, at]
                kind = "nan" if np.isnan(value) else "inf" if value > 0 else "zero"
                return Failure(at + 1 if direction == "forward" else self.chain.depth - at, direction, kind, replica)
        return None

    def to_xarray(self):
        """The rows as an xarray.Dataset with dimensions replica, layer (1 .. L) and node (0 .. L), units and meanings as attributes.

        Examples:
            >>> import pykernel as pk
            >>> ds = pk.propagate(pk.Chain(depth=3, width=8), replicas=2).to_xarray()
            >>> dict(ds.sizes), ds.log10_grad_weight.units
            ({'replica': 2, 'layer': 3, 'node': 4}, 'decades')
        """
        import xarray

        dims = {"layer": ("replica", "layer"), "node": ("replica", "node"), "replica": ("replica",)}
        data = {
            row.name: (dims[row.extent], self.rows[row.name], {"units": row.unit, "long_name": row.meaning}) for row in observables.ROWS
        }
        for name, unit in (("slope", "decades/layer"), ("end_to_end", "decades"), ("signal_end_to_end", "decades")):
            data[name] = (("replica",), getattr(self, name), {"units": unit})
        L = self.chain.depth
        coords = {"replica": np.arange(self.replicas), "layer": np.arange(1, L + 1), "node": np.arange(L + 1)}
        return xarray.Dataset(data, coords=coords, attrs={**self._provenance(), "verdict": self.verdict})

    def to_dataframe(self):
        """A tidy pandas.DataFrame, one line for each replica and layer; log10_grad_activation is that of the layer's output.

        Examples:
            >>> import pykernel as pk
            >>> pk.propagate(pk.Chain(depth=3, width=8), replicas=2).to_dataframe().shape[0]
            6
        """
        import pandas

        L = self.chain.depth
        index = pandas.MultiIndex.from_product([range(self.replicas), range(1, L + 1)], names=["replica", "layer"])
        pick = {"layer": lambda v: v.ravel(), "node": lambda v: v[:, 1:].ravel(), "replica": lambda v: np.repeat(v, L)}
        return pandas.DataFrame({row.name: pick[row.extent](self.rows[row.name]) for row in observables.ROWS}, index=index).reset_index()

    def plot(self, ax=None, kind: str = "gradient", **line):
        """A figure of the chain, with theory where there is one: it shows in a notebook, in a script by `plt.show()`.

        Args:
            ax: matplotlib axes to draw on, whose title and labels stay; a new pyplot figure without.
            kind: "gradient" (its norm against layer: median and band over replicas), "factors" (what the weights and the derivative of
                the activation contribute at each layer) or "distribution" (of the change end to end over replicas).
            line: colour, label and the like of the main line (of the histogram), as matplotlib takes them.

        Returns:
            The axes.

        Raises:
            ValueError: another kind.

        Examples:
            >>> import matplotlib.pyplot as plt
            >>> import pykernel as pk
            >>> figure, ax = plt.subplots()
            >>> for name in ("relu", "tanh"):
            ...     _ = pk.propagate(pk.Chain(depth=30, width=64, activation=name), replicas=5).plot(ax=ax, label=name)
            >>> ax.get_title(), "tanh" in [text.get_text() for text in ax.get_legend().get_texts()]
            ('', True)
            >>> plt.close(figure)
        """
        from pykernel.plot import chain

        return chain.propagation(self, ax, kind, **line)

    def _provenance(self):
        from pykernel import __version__

        return {
            "chain": str(self.chain),
            "batch": self.batch,
            "seed": str(self.seed),
            "engine": self.engine,
            "backend": self.backend,
            "dtype": self.dtype,
            "precision": self.precision,
            "pykernel": __version__,
            "stream_version": stream.VERSION,
        }

    def to_dict(self, layers: bool = True) -> dict:
        """Plain numbers for JSON: medians over replicas; "-inf" stands for an exact zero in a log row, None for nan;
        `failure` names the first layer at which something is zero, inf or nan.

        Args:
            layers: whether to give the rows, a list over layers each, beside the derived numbers.

        Examples:
            >>> import pykernel as pk
            >>> pk.propagate(pk.Chain(depth=3, width=8), replicas=2).to_dict(layers=False)["verdict"]
            'stable'
        """
        out = {**self._provenance(), "replicas": self.replicas, "verdict": str(self.verdict)}
        out |= {name: plain(self.median(name)) for name in DERIVED}
        failure = self.failure
        out["failure"] = None if failure is None else {**failure._asdict(), "sentence": str(failure)}
        out["diagnosis"] = self.diagnose().sentence
        if layers:
            shown = self._medians()
            out["layers"] = {row.name: [plain(v) for v in shown[row.name]] for row in observables.ROWS if row.extent != "replica"}
        return out

    def __str__(self):
        return "\n".join([*self._heading(), "", *self._table(), "", *self._closing()])

    def __repr__(self):
        return f"<Propagation of {self.chain}: {self.replicas} replicas, {self.verdict}>"

    def _heading(self):
        r, b = self.replicas, self.batch
        why = self._why_engine()
        lines = [
            str(self.chain) + (f"; the caller's own {', '.join(self.given)}" if self.given else ""),
            f"{r} replica{'s' * (r > 1)}, batch {b}, seed {self.seed}; {self.engine} engine, {self.backend} backend, {self.dtype}",
            *([f"{self.engine}: {why}"] if why else []),
        ]
        return [*lines, "precision native: plain arithmetic"] if self.precision == "native" else lines

    def _why_engine(self) -> str:
        """Why this engine fits the chain: what `auto` goes by; nothing where dense was asked for by name."""
        distribution = self.chain.init.distribution
        if self.engine == "matrix_free":
            return f"exact for {'orthogonal' if distribution == 'haar' else 'Gaussian'} weights"
        if "weights" in self.given:
            return "the caller's own weights are used as they are"
        if distribution not in ("normal", "haar"):
            return f"{distribution} weights have no exact law"
        if self.precision == "native":
            return "plain arithmetic needs every weight"
        if self.chain.clip is not None and self.chain.clip.value:
            return "clipping by value needs every entry of a gradient"
        return ""

    def _table(self):
        yield "medians over replicas; g = log10 of a gradient norm, q = log10 of a mean square"
        yield f"{'layer':>8} {'g weight':>10} {'g signal':>10} {'q preact':>10} {'q act':>10} {'saturated':>9} {'dead':>6} {'cosine':>7}"
        m = self._medians()
        for l in _sample(self.chain.depth):
            i = l - 1
            numbers = (
                m["log10_grad_weight"][i],
                m["log10_grad_activation"][l],
                m["log10_mean_square_preactivation"][i],
                m["log10_mean_square_activation"][i],
            )
            yield (
                f"{l:>8} "
                + " ".join(f"{v:>10.4g}" for v in numbers)
                + f" {m['saturated'][i]:>9.3f} {m['dead'][i]:>6.3f} {m['similarity'][i]:>7.3f}"
            )

    def _medians(self):
        """Medians of all rows; where plain arithmetic made the signal nan nobody can say what is saturated or dead."""
        m = {name: self.median(name) for name in observables.NAMES}
        lost = np.isnan(m["log10_mean_square_preactivation"])
        for name in ("saturated", "dead", "similarity"):
            m[name] = np.where(lost, np.nan, m[name])
        return m

    def _closing(self):
        e, s, k = (self.median(name) for name in ("end_to_end", "signal_end_to_end", "slope"))
        yield f"verdict: {self.verdict}"
        if np.isfinite(k):
            yield textwrap.fill(self.diagnose().sentence, 80, initial_indent="  ", subsequent_indent="  ")
            yield f"  medians: signal's gradient, input over output: {s:+.4g} decades"
            yield f"           weight gradient, first over last:     {e:+.4g} decades"
        notes = self._notes()
        if notes:
            yield textwrap.fill("; ".join(notes), 80, initial_indent="  ", subsequent_indent="  ")

    def _notes(self) -> list[str]:
        """What is zero, inf or nan, in how many replicas, and why."""
        failure, notes = self.failure, []
        if self.chain.norm == "batch" and self.batch == 1:
            from pykernel.theory.diagnosis import ONE_NORMED_INPUT

            return [ONE_NORMED_INPUT]
        if failure is None:
            return []
        notes.append(str(failure))
        table = self.log10_mean_square_activation if failure.direction == "forward" else self.log10_grad_activation[:, ::-1]
        bad = ~np.isfinite(table)
        lost = bad.any(axis=1)
        if self.replicas > 1:
            first = bad[lost].argmax(axis=1)
            layers = first + 1 if failure.direction == "forward" else self.chain.depth - first
            which = "all" if lost.all() else f"{lost.sum()} of"
            verb = "die" if failure.kind == "zero" else "leave the numbers"
            notes.append(f"{which} {self.replicas} replicas {verb}, at layer {np.median(layers):g} in the median")
        if failure.direction == "forward" and failure.kind != "zero":
            backward = self.median("log10_grad_activation")
            if not np.isposinf(backward).any():
                notes.append(
                    "backward, slopes of zero or nan meet these numbers and leave zero or nan: the verdict is that of the signal, "
                    "which comes first"
                )
        return notes


def slopes(log10_grad_activation) -> np.ndarray:
    """Least-squares slope of each row on the distance from the output; -inf, inf or nan where the row is not finite, (R,)."""
    g = np.asarray(log10_grad_activation)
    distance = np.arange(g.shape[1])[::-1] - (g.shape[1] - 1) / 2
    finite = np.where(np.isfinite(g), g, 0.0)
    # A sum by rows, not a matrix product: BLAS adds in an order that depends on how many rows there are.
    fit = ((finite - finite.mean(axis=1, keepdims=True)) * distance).sum(axis=1) / (distance @ distance)
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(g).all(axis=1), fit, np.where(np.isfinite(g), 0.0, g).sum(axis=1))


def _sample(depth):
    """Layers for a table: all up to 12, else about a dozen from the first to the last."""
    return range(1, depth + 1) if depth <= 12 else np.unique(np.linspace(1, depth, 12).round().astype(int)).tolist()


def plain(value) -> float | str | None:
    """A number as JSON can hold it: "-inf" (an exact zero in a log row) and "inf" as text, None for nan."""
    value = float(value)
    return value if np.isfinite(value) else None if np.isnan(value) else str(value)
