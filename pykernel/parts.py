# SPDX-License-Identifier: BSD-3-Clause
"""What a chain may have beside its layers: skip connections, a head, clipping; frozen and validated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pykernel import checks, inits
from pykernel.distributions import INDEPENDENT
from pykernel.dtypes import Floats
from pykernel.init import Given
from pykernel.layers import BRANCH_SCALES, MAX_WIDTH

LOSSES = (None, "mse", "sigmoid", "softmax", "linear")
MAX_DEPTH = 2**24 - 2
REAL = ("mse", "linear")  # losses whose targets are any numbers
OVER = ("positions", "first", "last", "mean")


@dataclass(frozen=True)
class Residual:
    """Skip connections: at every k-th layer a[l] = a[l-k] + scale v.

    Args:
        every: k, layers a branch.
        scale: factor on the branch, or "inverse_sqrt_depth" for (number of branches)^(-1/2), keeping the growth of a
            squared norm below e.

    Raises:
        ValueError, TypeError: `every` is not a positive int, `scale` neither a finite number nor a known name.

    Examples:
        >>> Residual(every=2, scale="inverse_sqrt_depth").factor(depth=8)
        0.5
    """

    every: int = 1
    scale: float | str = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", checks.integer("residual every", self.every, 1, MAX_DEPTH))
        if isinstance(self.scale, str):
            checks.choice("residual scale", self.scale, BRANCH_SCALES)
        else:
            object.__setattr__(self, "scale", checks.finite("residual scale", self.scale))

    def factor(self, depth: int) -> float:
        """The number that multiplies a branch in a chain of this depth."""
        return max(1, depth // self.every) ** -0.5 if isinstance(self.scale, str) else self.scale

    def __str__(self) -> str:
        return f"every {self.every}, scale {self.scale if isinstance(self.scale, str) else format(self.scale, 'g')}"


@dataclass(frozen=True)
class Head:
    """One more weight layer (no bias) to `outputs` logits, and a loss that is differentiated.

    Args:
        loss: "mse" (half squared error, summed over outputs), "sigmoid" (binary cross-entropy, summed) or "softmax"
            (cross-entropy), or "linear" (the logits summed with the targets as factors: a random read-out); the mean
            over the batch.
        outputs: number of logits.
        init: scheme of the head's weight, or `Given` for a weight of your own.
        targets: None to draw them (normals, fair bits, uniform classes, normals), else numbers of shape (outputs, B),
            or for "softmax" B classes; over positions (outputs, B, positions).
        over: what is read of an input that has positions: a loss at each of the "positions" (their mean), or one loss
            of the "first" or the "last" position, or of the "mean" of the signal over positions.

    Raises:
        ValueError, TypeError: an unknown loss, init or `over`, outputs below 1 (below 2 for "softmax"), targets outside
            [0, 1] or the classes.

    Examples:
        >>> print(Head("sigmoid", outputs=1), Head("softmax", outputs=3, targets=(0, 2, 2, 1)))  # of a batch of four
        sigmoid (1 output) softmax (3 outputs)
    """

    loss: str = "softmax"
    outputs: int = 10
    init: Any = "lecun_normal"
    targets: tuple | None = None
    over: str = OVER[0]

    def __post_init__(self) -> None:
        checks.choice("head loss", self.loss, LOSSES[1:])
        checks.choice("head over", self.over, OVER)
        low = 2 if self.loss == "softmax" else 1
        object.__setattr__(self, "outputs", checks.integer("head outputs", self.outputs, low, MAX_WIDTH))
        object.__setattr__(self, "init", inits.get(self.init))
        if not isinstance(self.init, Given) and self.init.distribution not in INDEPENDENT:
            raise ValueError(f"head init must draw its entries independently, got {self.init}")
        if self.targets is not None:
            object.__setattr__(self, "targets", _tuples(self._columns().tolist()))

    def _columns(self) -> Floats:
        """The given targets as (outputs, B, *positions) float64."""
        given = checks.floats("head targets", self.targets)
        if self.loss == "softmax" and given.ndim == 1:
            if given.size == 0 or not ((given == np.floor(given)) & (given >= 0) & (given < self.outputs)).all():
                raise ValueError(f"head targets must be classes from 0 to {self.outputs - 1}, got {self.targets!r}")
            return (np.arange(self.outputs)[:, None] == given).astype(np.float64)
        axes = (2, 3, 4) if self.over == OVER[0] else (2,)
        if given.ndim not in axes or given.shape[0] != self.outputs or given.size == 0:
            positions = ", positions" if given.ndim > 2 and len(axes) > 1 else ""
            raise ValueError(f"head targets must have shape ({self.outputs}, B{positions}), got {given.shape}")
        if not np.isfinite(given).all() or (self.loss not in REAL and not ((given >= 0) & (given <= 1)).all()):
            raise ValueError(f"head targets must be finite{'' if self.loss in REAL else ' and from 0 to 1'}")
        if self.loss == "softmax" and not np.allclose(given.sum(0), 1):
            raise ValueError("head targets of a softmax must sum to 1 over the outputs")
        return given

    def __repr__(self) -> str:
        words = [f"init={inits.word(self.init)}"] if str(self.init) != Head.init else []
        words += [f"targets={self.targets!r}"] if self.targets is not None else []
        words += [f"over={self.over!r}"] if self.over != OVER[0] else []
        return f"Head({', '.join([repr(self.loss), repr(self.outputs), *words])})"

    def __str__(self) -> str:
        read = {"positions": "", "mean": " of the mean of positions"}.get(self.over, f" of the {self.over} position")
        return f"{self.loss} ({self.outputs} output{'s' * (self.outputs != 1)}){read}"


def _tuples(nested: Any) -> Any:
    return tuple(map(_tuples, nested)) if isinstance(nested, list) else nested


@dataclass(frozen=True)
class Clip:
    """Clipping of the parameter gradients (weights and biases of the L layers), after the backward pass.

    Args:
        norm: bound on the norm; gradients above it are scaled down to it.
        per_layer: whether the norm is taken layer by layer; by default over all parameters together (as
            `clip_grad_norm_` of PyTorch does).
        value: bound on every single entry instead.

    Raises:
        ValueError, TypeError: not exactly one of `norm` and `value`, or a bound that is not a positive number.

    Notes:
        Pascanu, Mikolov, Bengio 2013, arXiv 1211.5063: g min(1, bound / norm(g)).

    Examples:
        >>> print(Clip(norm=1.0, per_layer=True), "or", Clip(value=0.01))
        norm 1 per layer or value 0.01
    """

    norm: float | None = None
    per_layer: bool = False
    value: float | None = None

    def __post_init__(self) -> None:
        if (self.norm is None) == (self.value is None):
            raise ValueError(f"clip needs one of norm and value, got norm={self.norm}, value={self.value}")
        if not isinstance(self.per_layer, bool):
            raise TypeError(f"clip per_layer must be True or False, got {self.per_layer!r}")
        for key in ("norm", "value"):
            if getattr(self, key) is not None:
                object.__setattr__(self, key, checks.positive(f"clip {key}", getattr(self, key)))

    def __str__(self) -> str:
        return (
            f"value {self.value:g}" if self.value else f"norm {self.norm:g}" + (" per layer" if self.per_layer else "")
        )
