# SPDX-License-Identifier: BSD-3-Clause
"""The phase diagram: what the squared gradient does at the fixed point, over weight and bias scales."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pykernel import activations
from pykernel.tables import Shown, Strong, Table, places
from pykernel.theory.critical import fixed_point
from pykernel.theory.quadrature import ELASTICITY, LOG_SLOPE2, LOG_VALUE2, moments

if TYPE_CHECKING:  # takes time and memory to load
    from numpy.typing import ArrayLike

if TYPE_CHECKING:  # they take long to import
    from matplotlib.axes import Axes
    from pandas import DataFrame


@dataclass(frozen=True, repr=False)
class PhaseDiagram(Shown):
    """Fixed points over a grid of weight and bias scales.

    Attributes:
        activation: name.  sigma_w, sigma_b: the axes, (W,) and (S,).
        q, chi_perp, chi_par: at the stable fixed point that a unit input runs to, (S, W); q = inf where it runs away.
        phase: (S, W) of "ordered", "chaotic", "critical" (within 1e-6) or "unbounded".
    """

    activation: str
    sigma_w: np.ndarray
    sigma_b: np.ndarray
    q: np.ndarray
    chi_perp: np.ndarray
    chi_par: np.ndarray

    @property
    def phase(self) -> np.ndarray:
        chi = self.chi_perp
        names = np.where(np.abs(chi - 1) <= 1e-6, "critical", np.where(chi < 1, "ordered", "chaotic"))
        return np.where(np.isinf(self.q), "unbounded", names)

    def __repr__(self) -> str:
        return f"<PhaseDiagram of {self.activation}: {' x '.join(map(str, self.q.shape))} scales>"

    def shown(self) -> Iterator[Strong | Table | str]:
        """The grid, how much of it each phase has, and where gradients keep their size."""
        phase, shape = self.phase, " x ".join(map(str, self.phase.shape))
        yield Strong(f"{self.activation}: fixed points over {shape} scales of biases and weights")
        shares = {name: float(np.mean(phase == name)) for name in ("ordered", "critical", "chaotic", "unbounded")}
        yield ", ".join(f"{share:.0%} {name}" for name, share in shares.items() if share >= 0.005) + "; the map: plot()"
        lines = [(f"{self.sigma_b[i]:.3g}", _crossings(self.sigma_w, self.chi_perp[i])) for i in places(len(phase), 6)]
        yield Table(("sigma_b", "sigma_w at which gradients keep their size"), lines)

    def to_dataframe(self) -> DataFrame:
        """A pandas.DataFrame, a line for each pair of scales: sigma_w, sigma_b, q, chi_perp, chi_par and phase."""
        import pandas

        sigma_b, sigma_w = np.meshgrid(self.sigma_b, self.sigma_w, indexing="ij")
        columns = {"sigma_w": sigma_w, "sigma_b": sigma_b, "q": self.q, "chi_perp": self.chi_perp}
        columns |= {"chi_par": self.chi_par, "phase": self.phase}
        return pandas.DataFrame({name: values.ravel() for name, values in columns.items()})

    def plot(self, ax: Axes | None = None, **mesh: Any) -> Axes:
        """Decades a layer over (sigma_w, sigma_b) with the critical line.

        Args:
            ax: matplotlib axes to draw on, whose title and labels stay; a new pyplot figure without.
            mesh: of the shades, as matplotlib's `pcolormesh` takes them: cmap, vmin, vmax, alpha ...

        Returns:
            The axes.
        """
        from pykernel.plot import chain

        return chain.phase_diagram(self, ax=ax, **mesh)


def _crossings(sigma_w: np.ndarray, chi: np.ndarray) -> str:
    """Where log chi changes sign along the weight scale, read between the points of the grid."""
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.log(chi)
    found = sigma_w[rate == 0].tolist()
    for i in np.flatnonzero(rate[:-1] * rate[1:] < 0):
        share = rate[i] / (rate[i] - rate[i + 1])
        found.append(float(sigma_w[i] + share * (sigma_w[i + 1] - sigma_w[i])))
    return ", ".join(f"{x:.3g}" for x in sorted(found)) or "none on this grid"


def phase_diagram(
    activation: str = "tanh", sigma_w: ArrayLike | None = None, sigma_b: ArrayLike | None = None
) -> PhaseDiagram:
    """The squared gradient's factor per layer at the fixed point that an input of mean square 1 runs to, over a grid.

    Args:
        activation: name or `Activation`.
        sigma_w, sigma_b: 1-d arrays of standard deviations; by default 0.1 .. 5 and 0 .. 1.

    Returns:
        PhaseDiagram: arrays (len(sigma_b), len(sigma_w)).

    Examples:
        >>> d = phase_diagram("tanh", [0.5, 2.0], [0.1])
        >>> d.phase.tolist()
        [['ordered', 'chaotic']]
    """
    row = activations.get(activation)
    sigma_w = np.linspace(0.1, 5, 99) if sigma_w is None else np.atleast_1d(np.asarray(sigma_w, float))
    sigma_b = np.linspace(0, 1, 41) if sigma_b is None else np.atleast_1d(np.asarray(sigma_b, float))
    for name, axis in (("sigma_w", sigma_w), ("sigma_b", sigma_b)):
        if axis.ndim != 1 or axis.size == 0 or not np.isfinite(axis).all() or (axis < 0).any():
            raise ValueError(f"{name} must be a list of standard deviations, not negative, got {axis!r}")
    with np.errstate(divide="ignore"):
        log_w, log_b = 2 * np.log(sigma_w)[None, :], 2 * np.log(sigma_b)[:, None]
    x = fixed_point(row, log_w, log_b)
    c = moments(row)(np.clip(x, -600, 680) / 2)
    with np.errstate(invalid="ignore", over="ignore"):
        perp = np.exp(log_w + c[LOG_SLOPE2])
        par = np.exp(log_w + c[LOG_VALUE2] - np.clip(x, -600, 680)) * c[ELASTICITY]
        q = np.exp(x)
    return PhaseDiagram(str(row), sigma_w, sigma_b, q, perp, par)
