# SPDX-License-Identifier: BSD-3-Clause
"""propagate, and the Propagation that it returns: what was measured in one ensemble of chains, in words, theory, tables
and figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pykernel import observables, stream, summary
from pykernel._core import version
from pykernel.chain import Chain
from pykernel.engines import run
from pykernel.formats import Formats
from pykernel.measured import DERIVED, Measured
from pykernel.tables import Shown, Table, tidy
from pykernel.verdict import EXPLODING, VANISHING, plain

if TYPE_CHECKING:  # takes time and memory to load
    from numpy.typing import ArrayLike

if TYPE_CHECKING:  # they take long to import
    from matplotlib.axes import Axes
    from pandas import DataFrame
    from xarray import Dataset

    from pykernel.theory.diagnosis import Diagnosis


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
    x: ArrayLike | None = None,
    cotangent: ArrayLike | None = None,
    drive: Sequence[ArrayLike] | None = None,
    weights: Sequence[ArrayLike] | None = None,
    biases: Sequence[ArrayLike | None] | None = None,
    batch_first: bool = False,
    formats: Formats | None = None,
    keep: str | Sequence[str] = (),
) -> Propagation:
    """Run a chain forward and backward for many independent draws of its weights, and measure every layer.

    Args:
        chain: what to simulate.
        batch: inputs propagated together, B.
        positions: of one input (tokens, pixels), an int or one int an axis; () for inputs without.
        replicas: independent draws of all weights, R. Replica r is the same however many are asked for.
        seed: int in [0, 2^64), the key of the random stream.
        engine: "dense" draws every weight; "matrix_free" (Gaussian and orthogonal weights) is exact in law without
            drawing any; "auto" takes the cheaper, which is the latter until columns (inputs times positions) come near
            the width.
        backend: "cpp", "numba", "reference" or "auto".
        dtype: "float32" or "float64", the arithmetic; the weights are the same numbers in both.
        threads: by default PYKERNEL_NUM_THREADS, OMP_NUM_THREADS or all cores. Results do not depend on it.
        precision: "exponent" keeps magnitudes exact beyond float range; "native" shows what plain arithmetic of the
            dtype does.
        correlation: pairwise correlation of the drawn inputs, 0 to 1.
        x: the caller's input, (n[0], B, positions); drawn iid standard normal without.
        cotangent: dJ/da of the last node, (n, B, positions); drawn iid N(0, 1/(n B T)) without, T all positions of an
            input. "common": one read-out vector for all columns, iid N(0, 1/n), and the tangent kernel with it.
        drive: the caller's inputs of `Drive` steps, one array a use in order, (units, B, positions) each; drawn as x
            is without.
        weights, biases: the caller's arrays, one a layer, (n[l], n[l-1]) and (n[l],), or one a tied weight.
        batch_first: True where x and cotangent have one input a row, (B, units, positions), as PyTorch and JAX keep
            them.
        formats: `Formats` that weights, signals and gradients are rounded to; the same weights run without them beside,
            and rows such as `flushed_gradient` and `gradient_cosine` compare the two.
        keep: names of arrays to keep for small chains, from "activation", "preactivation", "grad_activation",
            "grad_preactivation", "grad_weight", "grad_bias" (reference backend).

    Returns:
        Propagation: rows of `pykernel.observables.ROWS`, float64, (replicas, depth), and what follows from them. Of a
            chain of blocks each has its own extent: (replicas, layers), (replicas, activation steps) or (replicas,
            blocks).

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
        drive=drive,
        weights=weights,
        biases=biases,
        batch_first=batch_first,
        formats=formats,
        keep=keep,
    )
    return Propagation(**vars(measured))


class Propagation(Shown, Measured):
    """The rows that `propagate` measured, as attributes of float64 arrays (replicas, depth), and derived numbers.

    Attributes:
        chain, batch, positions, replicas, seed, engine, backend, dtype, precision, correlation, seconds: what was run.
        layers, activations, attentions, tied_layers: names of the weight layers, activation steps, attentions and
            shared weights.
        given: names of the arrays that the caller gave.
        log10_grad_weight, ...: one for each entry of `pykernel.observables.ROWS`.
        kept: list over replicas of the arrays asked for by `keep`, or None.
        tangent_kernel: (replicas, B, B) float64 with cotangent="common", else None: <dJ_b/dtheta, dJ_b'/dtheta>, J_b =
            sum over the positions of input b of c . a[N], theta the weights of all layers and the biases that the chain
            has, a shared weight once. From Gram matrices, sum over layers of (delta_b . delta_b')(u_b . u_b').

    Examples:
        >>> import pykernel as pk
        >>> p = pk.propagate(pk.Chain(depth=10, width=16, activation="linear", init="identity(0.5)"), replicas=2)
        >>> round(float(p.slope[0]), 5), p.verdict
        (-0.30103, 'vanishing')
    """

    def diagnose(self, vanishing: float = VANISHING, exploding: float = EXPLODING) -> Diagnosis:
        """The verdict with slope and error, interval, theory and a plain sentence: a
        `pykernel.theory.diagnosis.Diagnosis`.

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

    def to_xarray(self) -> Dataset:
        """The rows as an xarray.Dataset with dimensions replica, layer (1 .. L) and node (0 .. L), units and meanings
        as attributes.

        Of a chain of blocks: replica, layer and activation (with their names), block (1 .. N) and node (0 .. N, the
        input first).

        Examples:
            >>> import pykernel as pk
            >>> ds = pk.propagate(pk.Chain(depth=3, width=8), replicas=2).to_xarray()
            >>> dict(ds.sizes), ds.log10_grad_weight.units
            ({'replica': 2, 'layer': 3, 'node': 4}, 'decades')
            >>> mlp = pk.Block(pk.Norm("layer"), pk.Linear(16), "gelu", pk.Linear(8), skip=1.0)
            >>> ds = pk.propagate(pk.Chain(depth=3, width=8, blocks=[mlp])).to_xarray()
            >>> ds.log10_grad_weight.sel(layer="2.linear1").shape, ds.similarity.dims
            ((1,), ('replica', 'block'))
        """
        import xarray

        axes = observables.axes(self.chain)
        dims = lambda row: ("replica",) if row.extent == "replica" else ("replica", axes[row.extent])
        data: dict[str, Any] = {
            row.name: (dims(row), self.rows[row.name], {"units": row.unit, "long_name": row.meaning})
            for row in observables.ROWS
            if self.rows[row.name].size
        }
        for name, unit in (
            ("slope", f"decades/{self.chain.unit}"),
            ("end_to_end", "decades"),
            ("signal_end_to_end", "decades"),
        ):
            data[name] = (("replica",), getattr(self, name), {"units": unit})
        absent = ["rounded", *(["mix"] if not self.attentions else []), *(["weight"] if not self.tied_layers else [])]
        if self.tangent_kernel is not None:
            facts = {"units": "1", "long_name": "<dJ_b/dtheta, dJ_b'/dtheta>, one read-out for all inputs"}
            data["tangent_kernel"] = (("replica", "input", "other_input"), self.tangent_kernel, facts)
        labels = {axes[kind]: observables.labels(self.chain, kind) for kind in axes if kind not in absent}
        coords: dict[str, Any] = {"replica": np.arange(self.replicas), **labels}
        if self.chain.modules:
            coords["module"] = (axes["layer"], list(self.chain.modules))
        return xarray.Dataset(data, coords=coords, attrs={**self._provenance(), "verdict": self.verdict})

    def to_dataframe(self, of: str = "layer") -> DataFrame:
        """A tidy pandas.DataFrame, one line for each replica and layer; log10_grad_activation is that of the layer's
        output.

        Args:
            of: what a line is for in a chain of blocks: "layer", "activation", "attention" or "block", each with its
                own rows; of all but the last the block is given, too. In a chain of equal layers all but attention,
                which it has none of, are one.

        Raises:
            ValueError: another word.

        Examples:
            >>> import pykernel as pk
            >>> pk.propagate(pk.Chain(depth=3, width=8), replicas=2).to_dataframe().shape[0]
            6
            >>> p = pk.propagate(pk.Chain(depth=3, width=8, blocks=[pk.Block("tanh", pk.Linear(8), skip=1.0)]))
            >>> p.to_dataframe(of="block").log10_grad_activation.shape
            (3,)
        """
        return tidy(self.chain, self.rows, of)

    def plot(self, ax: Axes | None = None, kind: str = "gradient", **line: Any) -> Axes:
        """A figure of the chain, with theory where there is one: it shows in a notebook, in a script by `plt.show()`.

        Args:
            ax: matplotlib axes to draw on, whose title and labels stay; a new pyplot figure without.
            kind: "gradient" (its norm against layer: median and band over replicas), "weights" (the norm of dJ/dW),
                "factors" (what the weights and the derivative of the activation contribute at each layer),
                "distribution" (of the change end to end over replicas), "entropy" (of attention, against the block), or
                of a run with formats "magnitudes" (from the smallest to the largest of every node, and what the formats
                hold) and "lost" (shares that are flushed or overflow).
                Of blocks the gradient is against the block, weights and factors have a line for each named layer.
            line: colour, label and the like of the main line (of the histogram), as matplotlib takes them.

        Returns:
            The axes.

        Raises:
            ValueError: another kind; the entropy of a chain without attention, what formats do of a run without any.

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

    def _provenance(self) -> dict[str, Any]:
        return {
            "chain": str(self.chain),
            "batch": self.batch,
            **({"positions": list(self.positions)} if self.positions else {}),
            "seed": str(self.seed),
            "engine": self.engine,
            "backend": self.backend,
            "dtype": self.dtype,
            "precision": self.precision,
            **({} if self.formats is None else {"formats": str(self.formats)}),
            "pykernel": version,
            "stream_version": stream.VERSION,
        }

    def to_dict(self, layers: bool = True) -> dict:
        """Plain numbers for JSON: medians over replicas; "-inf" stands for an exact zero in a log row, None for nan;
        `failure` names the first layer at which something is zero, inf or nan.

        Args:
            layers: whether to give the rows, a list over layers each, beside the derived numbers; of blocks with the
                layers' names.

        Examples:
            >>> import pykernel as pk
            >>> pk.propagate(pk.Chain(depth=3, width=8), replicas=2).to_dict(layers=False)["verdict"]
            'stable'
        """
        out = {**self._provenance(), "replicas": self.replicas, "verdict": str(self.verdict)}
        out |= {name: plain(self.median(name)) for name in DERIVED}
        failure = self.failure
        out["failure"] = None if failure is None else {**failure._asdict(), "sentence": str(failure)}
        said = self.diagnose()
        out["diagnosis"] = said.sentence
        if self.chain.modules:
            out["modules"] = list(self.chain.modules)
        if self.chain.blocks is not None:
            out["why"] = list(said.why)
        if layers:
            shown = summary.medians(self)
            out["layers"] = {
                row.name: [plain(v) for v in shown[row.name]]
                for row in observables.ROWS
                if row.extent != "replica" and len(shown[row.name])
            }
            if self.chain.blocks is not None:
                out["names"] = {"layer": list(self.layers), "activation": list(self.activations)}
                out["names"] |= {"attention": list(self.attentions)} if self.attentions else {}
                out["names"] |= {"weight": list(self.tied_layers)} if self.tied_layers else {}
        return out

    def shown(self) -> list[str | Table]:
        """What was run, medians in a table, the verdict and why."""
        return summary.shown(self)

    def __repr__(self) -> str:
        return f"<Propagation of {self.chain}: {self.replicas} replicas, {self.verdict}>"
