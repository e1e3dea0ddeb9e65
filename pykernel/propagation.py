# SPDX-License-Identifier: BSD-3-Clause
"""propagate, and the Propagation that it returns: what was measured in one ensemble of chains, in words, theory, tables and figures."""

from __future__ import annotations

import textwrap

import numpy as np

from pykernel import observables, stream
from pykernel._core import version
from pykernel.chain import Chain
from pykernel.engines import run
from pykernel.measured import DERIVED, Measured
from pykernel.verdict import EXPLODING, VANISHING, plain


def propagate(
    chain: Chain,
    *,
    batch: int = 1,
    positions: int | tuple[int, ...] = (),
    replicas: int = 1,
    seed: int = 0,
    engine: str = "auto",
    backend: str = "auto",
    dtype: str = "float32",
    threads: int | None = None,
    precision: str = "exponent",
    correlation: float = 0.0,
    x=None,
    cotangent=None,
    weights=None,
    biases=None,
    batch_first: bool = False,
    keep=(),
) -> Propagation:
    """Run a chain forward and backward for many independent draws of its weights, and measure every layer.

    Args:
        chain: what to simulate.
        batch: inputs propagated together, B.
        positions: of one input (tokens, pixels), an int or one int an axis; () for inputs without.
        replicas: independent draws of all weights, R. Replica r is the same however many are asked for.
        seed: int in [0, 2^64), the key of the random stream.
        engine: "dense" draws every weight; "matrix_free" (Gaussian and orthogonal weights) is exact in law without drawing any;
            "auto" takes the latter; for an activation of your own, which C++ does not have, whichever is cheaper.
        backend: "cpp", "numba", "reference" or "auto".
        dtype: "float32" or "float64", the arithmetic; the weights are the same numbers in both.
        threads: by default PYKERNEL_NUM_THREADS, OMP_NUM_THREADS or all cores. Results do not depend on it.
        precision: "exponent" keeps magnitudes exact beyond float range; "native" shows what plain arithmetic of the dtype does.
        correlation: pairwise correlation of the drawn inputs, 0 to 1.
        x: the caller's input, (n[0], B, *positions); drawn iid standard normal without.
        cotangent: dJ/da of the last node, (n, B, *positions); drawn iid N(0, 1/(n B T)) without, T all positions of an input.
        weights, biases: the caller's arrays, one a layer, (n[l], n[l-1]) and (n[l],).
        batch_first: True where x and cotangent have one input a row, (B, units, *positions), as PyTorch and JAX keep them.
        keep: names of arrays to keep for small chains, from "activation", "preactivation", "grad_activation", "grad_preactivation",
            "grad_weight", "grad_bias" (reference backend).

    Returns:
        Propagation: rows of `pykernel.observables.ROWS`, float64, (replicas, depth), and what follows from them.

    Raises:
        ValueError, TypeError: before any work, saying what was given and what is allowed.
        TooLarge (a ValueError and MemoryError): the job does not fit in memory, or would take more than a year.

    Examples:
        >>> p = propagate(Chain(depth=20, width=32, activation="sigmoid", init="lecun_normal"), replicas=4)
        >>> p.verdict
        'vanishing'
    """
    measured = run.measure(
        chain,
        replicas=replicas,
        batch=batch,
        positions=positions,
        seed=seed,
        engine=engine,
        backend=backend,
        dtype=dtype,
        threads=threads,
        precision=precision,
        correlation=correlation,
        x=x,
        cotangent=cotangent,
        weights=weights,
        biases=biases,
        batch_first=batch_first,
        keep=keep,
    )
    return Propagation(**vars(measured))


class Propagation(Measured):
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
        from pykernel.theory import diagnosis

        return chain.propagation(self, ax, kind, prediction=diagnosis.beside(self), **line)

    def _provenance(self):
        return {
            "chain": str(self.chain),
            "batch": self.batch,
            "seed": str(self.seed),
            "engine": self.engine,
            "backend": self.backend,
            "dtype": self.dtype,
            "precision": self.precision,
            "pykernel": version,
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
            from pykernel.theory.refusals import ONE_NORMED_INPUT

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


def _sample(depth):
    """Layers for a table: all up to 12, else about a dozen from the first to the last."""
    return range(1, depth + 1) if depth <= 12 else np.unique(np.linspace(1, depth, 12).round().astype(int)).tolist()
