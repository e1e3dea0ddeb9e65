# SPDX-License-Identifier: BSD-3-Clause
"""Chain and its parts: frozen, hashable specifications, validated where they are made."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from dataclasses import replace as _replace
from typing import Any

import numpy as np

from pykernel import activations, checks, inits

NORMS = (None, "batch", "layer", "rms")
ORDERS = ("linear-norm-activation", "norm-activation-linear")
LOSSES = (None, "mse", "sigmoid", "softmax", "linear")
NORM_EPS = 1e-5  # by default, as in most frameworks
MAX_DEPTH = 2**24 - 2
MAX_WIDTH = 2**31 - 64
BRANCH_SCALES = ("inverse_sqrt_depth",)
REAL = ("mse", "linear")  # losses whose targets are any numbers


@dataclass(frozen=True)
class Residual:
    """Skip connections: at every k-th layer a[l] = a[l-k] + scale v.

    Args:
        every: k, layers a branch.
        scale: factor on the branch, or "inverse_sqrt_depth" for (number of branches)^(-1/2), keeping the growth of a squared norm below e.

    Raises:
        ValueError, TypeError: `every` is not a positive int, `scale` neither a finite number nor a known name.

    Examples:
        >>> Residual(every=2, scale="inverse_sqrt_depth").factor(depth=8)
        0.5
    """

    every: int = 1
    scale: float | str = 1.0

    def __post_init__(self):
        object.__setattr__(self, "every", checks.integer("residual every", self.every, 1, MAX_DEPTH))
        if isinstance(self.scale, str):
            checks.choice("residual scale", self.scale, BRANCH_SCALES)
        else:
            object.__setattr__(self, "scale", checks.finite("residual scale", self.scale))

    def factor(self, depth):
        """The number that multiplies a branch in a chain of this depth."""
        return max(1, depth // self.every) ** -0.5 if isinstance(self.scale, str) else self.scale

    def __str__(self):
        return f"every {self.every}, scale {self.scale if isinstance(self.scale, str) else format(self.scale, 'g')}"


@dataclass(frozen=True)
class Head:
    """One more weight layer (no bias) to `outputs` logits, and a loss that is differentiated.

    Args:
        loss: "mse" (half squared error, summed over outputs), "sigmoid" (binary cross-entropy, summed) or "softmax" (cross-entropy),
            or "linear" (the logits summed with the targets as factors: a random read-out); the mean over the batch.
        outputs: number of logits.
        init: scheme of the head's weight, or `Given` for a weight of your own.
        targets: None to draw them (normals, fair bits, uniform classes, normals), else numbers of shape (outputs, B), or for "softmax"
            B classes.

    Raises:
        ValueError, TypeError: an unknown loss or init, outputs below 1 (below 2 for "softmax"), targets outside [0, 1] or the classes.

    Examples:
        >>> print(Head("sigmoid", outputs=1), Head("softmax", outputs=3, targets=(0, 2, 2, 1)))  # the second for a batch of four
        sigmoid (1 outputs) softmax (3 outputs)
    """

    loss: str = "softmax"
    outputs: int = 10
    init: Any = "lecun_normal"
    targets: tuple | None = None

    def __post_init__(self):
        checks.choice("head loss", self.loss, LOSSES[1:])
        low = 2 if self.loss == "softmax" else 1
        object.__setattr__(self, "outputs", checks.integer("head outputs", self.outputs, low, MAX_WIDTH))
        object.__setattr__(self, "init", inits.get(self.init))
        if not isinstance(self.init, inits.Given) and self.init.distribution not in (
            "normal",
            "uniform",
            "truncated",
            "sparse",
            "student",
            "stable",
        ):
            raise ValueError(f"head init must draw its entries independently, got {self.init}")
        if self.targets is not None:
            object.__setattr__(self, "targets", tuple(map(tuple, self._columns().tolist())))

    def _columns(self):
        """The given targets as (outputs, B) float64."""
        given = np.asarray(self.targets, dtype=np.float64)
        if self.loss == "softmax" and given.ndim == 1:
            if given.size == 0 or not ((given == np.floor(given)) & (given >= 0) & (given < self.outputs)).all():
                raise ValueError(f"head targets must be classes from 0 to {self.outputs - 1}, got {self.targets!r}")
            return (np.arange(self.outputs)[:, None] == given).astype(np.float64)
        if given.ndim != 2 or given.shape[0] != self.outputs or given.shape[1] == 0:
            raise ValueError(f"head targets must have shape ({self.outputs}, B), got {given.shape}")
        if not np.isfinite(given).all() or (self.loss not in REAL and not ((given >= 0) & (given <= 1)).all()):
            raise ValueError(f"head targets must be finite{'' if self.loss in REAL else ' and from 0 to 1'}")
        if self.loss == "softmax" and not np.allclose(given.sum(0), 1):
            raise ValueError("head targets of a softmax must sum to 1 over the outputs")
        return given

    def __str__(self):
        return f"{self.loss} ({self.outputs} outputs)"


@dataclass(frozen=True)
class Clip:
    """Clipping of the parameter gradients (weights and biases of the L layers), after the backward pass.

    Args:
        norm: bound on the norm; gradients above it are scaled down to it.
        per_layer: whether the norm is taken layer by layer; by default over all parameters together (as `clip_grad_norm_` of PyTorch does).
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

    def __post_init__(self):
        if (self.norm is None) == (self.value is None):
            raise ValueError(f"clip needs one of norm and value, got norm={self.norm}, value={self.value}")
        if not isinstance(self.per_layer, bool):
            raise TypeError(f"clip per_layer must be True or False, got {self.per_layer!r}")
        for key in ("norm", "value"):
            if getattr(self, key) is not None:
                object.__setattr__(self, key, checks.positive(f"clip {key}", getattr(self, key)))

    def __str__(self):
        return f"value {self.value:g}" if self.value else f"norm {self.norm:g}" + (" per layer" if self.per_layer else "")


@dataclass(frozen=True)
class Chain:
    """A chain of `depth` weight layers with random weights: what is simulated.

    Args:
        depth: number of weight layers L.
        width: units of every layer, the input's included.
        widths: instead of both, the L + 1 widths n[0] .. n[L].
        activation: name, "name(parameter)" or `Activation`.
        init: name, "name(numbers)" or `Init`: how weights are drawn.
        gain: multiplier on the standard deviation of the weights.
        bias_std: standard deviation of normal biases; 0 leaves the scheme's own (zero for all but "torch_linear_default").
        norm: None, "batch", "layer" or "rms".
        norm_eps: what the norm adds to the variance (mean square for "rms") before it divides by the root.
        order: "linear-norm-activation" or "norm-activation-linear" (pre-activation).
        residual: None or `Residual`.
        head: None or `Head`.
        clip: None or `Clip`.

    Raises:
        ValueError, TypeError: before any work, saying what was given and what is allowed.

    Examples:
        >>> Chain(widths=[4, 5, 6]).depth
        2
        >>> Chain(depth=3, width=8) == Chain(widths=[8, 8, 8, 8])
        True
    """

    depth: int = None  # type: ignore[assignment]  # always an int once made
    width: int | None = None
    widths: Sequence[int] | None = None
    activation: Any = "relu"  # a name becomes its Activation
    init: Any = "he_normal"  # a name becomes its Init
    gain: float = 1.0
    bias_std: float = 0.0
    norm: str | None = None
    norm_eps: float = NORM_EPS
    order: str = ORDERS[0]
    residual: Residual | None = None
    head: Head | None = None
    clip: Clip | None = None

    def __post_init__(self):
        self._check_sizes()
        self._set(activation=activations.get(self.activation), init=inits.get(self.init))
        self._set(gain=checks.finite("gain", self.gain), bias_std=checks.not_negative("bias_std", self.bias_std))
        checks.choice("norm", self.norm, NORMS)
        self._set(norm_eps=checks.within("norm_eps", self.norm_eps, 1e-30, 1e30))
        checks.choice("order", self.order, ORDERS)
        for key, kind in (("residual", Residual), ("head", Head), ("clip", Clip)):
            value = getattr(self, key)
            if value is not None and not isinstance(value, kind):
                raise TypeError(f"{key} must be None or a pykernel.{kind.__name__}, got {value!r}")
        if self.residual is not None:
            self._check_residual()

    def _set(self, **values):
        for key, value in values.items():
            object.__setattr__(self, key, value)

    def _check_sizes(self):
        if self.widths is None:
            if self.depth is None or self.width is None:
                raise TypeError("a chain needs depth and width, or widths")
            self._set(depth=checks.integer("depth", self.depth, 1, MAX_DEPTH), width=checks.integer("width", self.width, 1, MAX_WIDTH))
            return
        if isinstance(self.widths, (str, bytes)) or not isinstance(self.widths, (Sequence, np.ndarray)):
            raise TypeError(f"widths must be a sequence of ints n[0] .. n[L], got {self.widths!r}")
        widths = tuple(checks.integer(f"widths[{i}]", n, 1, MAX_WIDTH) for i, n in enumerate(self.widths))
        if not 2 <= len(widths) <= MAX_DEPTH + 1:
            raise ValueError(f"widths must hold n[0] .. n[L] with L from 1 to {MAX_DEPTH}, got {len(widths)} numbers")
        for key, value in (("depth", len(widths) - 1), ("width", widths[0] if len(set(widths)) == 1 else None)):
            given = getattr(self, key)
            if given is not None and given != value:
                raise ValueError(
                    f"{key}={given} contradicts widths, which say {value if value is not None else 'that it differs by layer'}"
                )
        if len(set(widths)) == 1:
            self._set(depth=len(widths) - 1, width=widths[0], widths=None)
        else:
            self._set(depth=len(widths) - 1, width=None, widths=widths)

    def _check_residual(self):
        k, n = self.residual.every, self.layer_widths
        if k > self.depth:
            raise ValueError(f"residual every={k} is more than the depth {self.depth}")
        ends = np.arange(k, self.depth + 1, k)
        wrong = ends[n[ends] != n[ends - k]]
        if wrong.size:
            end = int(wrong[0])
            raise ValueError(
                f"a residual sum needs equal widths at both ends: layer {end - k} has {n[end - k]} units, layer {end} has {n[end]}"
            )

    @property
    def layer_widths(self) -> np.ndarray:
        """n[0] .. n[L], (L + 1,) int64."""
        return np.full(self.depth + 1, self.width) if self.widths is None else np.array(self.widths)

    @property
    def weight_count(self) -> int:
        """Entries of all weight matrices."""
        if self.width is not None:
            return self.depth * self.width**2
        return sum(a * b for a, b in itertools.pairwise(self.layer_widths.tolist()))

    def replace(self, **changes) -> Chain:
        """A copy with other fields; `depth` or `width` replace `widths`, and the other way round.

        Examples:
            >>> Chain(depth=3, width=8).replace(depth=5).depth
            5
        """
        unknown = set(changes) - {f.name for f in fields(self)}
        if unknown:
            name = sorted(unknown)[0]
            checks.choice("chain field", name, tuple(f.name for f in fields(self)))
        if "widths" in changes:
            changes = {"depth": None, "width": None, **changes}
        elif self.widths is not None and ("depth" in changes or "width" in changes):
            changes = {"widths": None, **changes}
        return _replace(self, **changes)

    def __repr__(self):
        """What differs from the defaults, in words: functions and arrays would spill over the screen."""
        parts = []
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in ("activation", "init"):
                parts.append(f"{f.name}={str(value)!r}")
            elif f.name == "widths" and value is not None and len(value) > 12:
                parts.append(f"widths=({', '.join(map(str, value[:6]))}, ... {len(value)} in all)")
            elif value != f.default and not (f.name == "depth" and self.widths is not None):
                parts.append(f"{f.name}={value!r}")
        return f"Chain({', '.join(parts)})"

    def __str__(self):
        size = (
            f"{self.depth} layers of {self.width} units"
            if self.widths is None
            else f"{self.depth} layers, {min(self.widths)} to {max(self.widths)} units"
        )
        parts = [size, str(self.activation), str(self.init)]
        parts += [f"gain {self.gain:g}"] if self.gain != 1 else []
        parts += [f"bias std {self.bias_std:g}"] if self.bias_std else []
        parts += [f"{self.norm} norm" + (f" (eps {self.norm_eps:g})" if self.norm_eps != NORM_EPS else "")] if self.norm else []
        parts += ["pre-activation"] if self.order == ORDERS[1] else []
        parts += [f"{key} {getattr(self, key)}" for key in ("residual", "head", "clip") if getattr(self, key) is not None]
        return ", ".join(parts)
