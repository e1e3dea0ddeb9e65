# SPDX-License-Identifier: BSD-3-Clause
"""Measured: the rows of one ensemble of chains, and the arithmetic on them that theory, sweeps and advice need."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from pykernel import observables
from pykernel.chain import Chain
from pykernel.dtypes import Floats
from pykernel.formats import Formats
from pykernel.patterns import pattern_of
from pykernel.verdict import EXPLODING, VANISHING, classify, first_over_last, require_bounds, slopes

DERIVED = ("slope", "end_to_end", "signal_end_to_end")


class Failure(NamedTuple):
    """Where plain arithmetic gave up: the first layer (or block), in the direction of travel, of the first replica that
    did."""

    layer: int
    direction: str
    kind: str
    replica: int

    place: str = "layer"  # "block" in a chain of blocks

    def __str__(self) -> str:
        what = "signal" if self.direction == "forward" else "gradient"
        return f"the {what} is {self.kind} from {self.place} {self.layer} on ({self.direction}, replica {self.replica})"


class Measured(observables.Rows):
    """The rows that an engine measured, as attributes of float64 arrays (see `pykernel.observables`), and derived
    numbers.

    Attributes:
        chain, batch, positions, replicas, seed, engine, backend, dtype, precision, correlation, seconds: what was run.
        given: names of the arrays that the caller gave.
        formats: Formats of the run, or None.
        log10_grad_weight, ...: one for each entry of `pykernel.observables.ROWS`.
        kept: list over replicas of the arrays asked for by `keep`, or None.
        tangent_kernel: (replicas, B, B) float64 with cotangent="common", else None.
    """

    def __init__(
        self,
        *,
        chain: Chain,
        rows: dict[str, Floats],
        batch: int,
        seed: int,
        engine: str,
        backend: str,
        dtype: str,
        precision: str,
        correlation: float,
        seconds: float,
        positions: tuple[int, ...] = (),
        kept: list[dict[str, dict[int, Floats]]] | None = None,
        given: tuple[str, ...] = (),
        formats: Formats | None = None,
        tangent_kernel: Floats | None = None,
    ) -> None:
        self.chain, self.batch, self.positions, self.seed = chain, batch, positions, seed
        self.engine, self.backend, self.dtype, self.precision = engine, backend, dtype, precision
        self.correlation, self.seconds, self.kept, self.given = correlation, seconds, kept, given
        self.formats, self.tangent_kernel = formats, tangent_kernel
        self.rows = rows

    @property
    def replicas(self) -> int:
        return len(self.rows["log10_grad_weight"])

    @property
    def columns(self) -> int:
        """Inputs times positions: what means over a batch run over."""
        return self.batch * math.prod(self.positions)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the weight layers, one for each column of a row of layers.

        Examples:
            >>> import pykernel as pk
            >>> mlp = pk.Block(pk.Norm("layer"), pk.Linear(16), "gelu", pk.Linear(8), skip=1.0)
            >>> p = pk.propagate(pk.Chain(depth=3, width=8, blocks=[mlp]))
            >>> p.layers[2:4], p.activations, p.log10_grad_weight.shape
            (('2.linear1', '2.linear2'), ('1.gelu', '2.gelu', '3.gelu'), (1, 6))
        """
        return self.chain.layers

    @property
    def activations(self) -> tuple[str, ...]:
        """Names of the activation steps, one for each column of a row of activation steps."""
        return self.chain.activations

    @property
    def attentions(self) -> tuple[str, ...]:
        """Names of the attentions, the columns of rows such as `attention_entropy`."""
        return self.chain.attentions

    @property
    def tied_layers(self) -> tuple[str, ...]:
        """Where layers share weights the name of each weight, of the layer that uses it first: the columns of
        `log10_grad_weight_total`.

        Examples:
            >>> import pykernel as pk
            >>> p = pk.propagate(pk.Chain(depth=6, width=8, tied=True))
            >>> p.tied_layers, p.log10_grad_weight.shape, p.log10_grad_weight_total.shape
            (('1.linear',), (1, 6), (1, 1))
        """
        return self.chain.tied_layers

    @property
    def slope(self) -> np.ndarray:
        """Decades per layer travelled backwards: least squares of log10_grad_activation on L - l, (replicas,).

        Of a chain of blocks: per repetition of the pattern, over the ends of its repetitions.
        """
        return slopes(self.log10_grad_activation[:, self.chain.ends])

    @property
    def end_to_end(self) -> np.ndarray:
        """First over last weight gradient, in decades, (replicas,); of blocks that repeat the norm of all gradients of
        the first over that of the last repetition."""
        return first_over_last(self.log10_grad_weight, self.chain.alike)

    @property
    def signal_end_to_end(self) -> np.ndarray:
        """Norm of dJ/da[0] over that of dJ/da[L], in decades, (replicas,)."""
        return first_over_last(self.log10_grad_activation)

    @property
    def tangent_eigenvalues(self) -> np.ndarray:
        """Eigenvalues of `tangent_kernel`, ascending, (replicas, B) float64.

        They say how fast the inputs are learned: under gradient descent on half the sum of squared errors mode i decays
        by 1 - rate * eigenvalue i a step (Jacot, Gabriel, Hongler 2018, arXiv 1806.07572), as long as the network stays
        near its linearisation.

        Raises:
            ValueError: a run without cotangent="common".

        Examples:
            >>> import pykernel as pk
            >>> p = pk.propagate(pk.Chain(depth=3, width=64), batch=4, cotangent="common")
            >>> p.tangent_eigenvalues.shape, bool((p.tangent_eigenvalues > 0).all())
            ((1, 4), True)
        """
        if self.tangent_kernel is None:
            raise ValueError('the tangent kernel is measured with cotangent="common"')
        finite = np.isfinite(self.tangent_kernel).all(axis=(1, 2))
        out = np.full(self.tangent_kernel.shape[:2], np.nan)
        out[finite] = np.linalg.eigvalsh(self.tangent_kernel[finite])
        return out

    @property
    def tangent_rate_bound(self) -> np.ndarray:
        """2 over the largest eigenvalue, (replicas,): the rate above which gradient descent on half the sum of squared
        errors grows. For their mean over the batch, as `Head("mse")` takes it, B times as much; a head that learns
        too lowers it."""
        with np.errstate(divide="ignore"):
            return 2 / self.tangent_eigenvalues[:, -1]

    @property
    def tangent_condition(self) -> np.ndarray:
        """Largest over smallest eigenvalue, (replicas,): how many times slower the slowest mode is learned; inf where a
        direction is not learned at all."""
        values = self.tangent_eigenvalues
        floor = values[:, -1] * len(values[0]) * np.finfo(np.float64).eps
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(values[:, 0] > floor, values[:, -1] / values[:, 0], np.inf)

    @property
    def uniform_entropy(self) -> np.ndarray:
        """The entropy in nats that each attention would have if it looked at all that it sees alike, (attentions,):
        ln T, of a causal one the mean of ln t over t = 1 .. T.

        Examples:
            >>> import pykernel as pk
            >>> p = pk.propagate(pk.Chain(width=8, blocks=[pk.Attention(2, scale=0.0)]), positions=4)
            >>> bool(np.allclose(p.attention_entropy, p.uniform_entropy))
            True
        """
        looked_at = np.arange(1, math.prod(self.positions) + 1)
        causal = pattern_of(self.chain).causal
        return np.where(causal, np.log(looked_at).mean(), np.log(looked_at[-1]))

    def median(self, name: str) -> Any:
        """Median over replicas of a row or a derived number, by its name.

        Args:
            name: one of `pykernel.observables.ROWS`, or "slope", "end_to_end", "signal_end_to_end".

        Returns:
            A float64 array over layers, activation steps or nodes; a float for what has one number a replica. Units as
            the row's.

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
        """ "vanishing", "exploding", "stable", "dead" or "undefined" (not a number), by the default bounds of
        `judge`."""
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

    @property
    def failure(self) -> Failure | None:
        """The first layer at which the signal (forward) or else the gradient (backward) is zero, inf or nan; None where
        all is finite.

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
                where = at + 1 if direction == "forward" else forward.shape[1] - at
                return Failure(where, direction, kind, replica, "layer" if self.chain.blocks is None else "block")
        return None
