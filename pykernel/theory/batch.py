# SPDX-License-Identifier: BSD-3-Clause
"""Batch normalisation of a wide layer: forward and backward statistics at a finite batch, for any activation.

For one unit the preactivations of a batch of B are jointly normal, with equal variances and one pairwise covariance.
Centred, they point in a direction
uniform on the sphere of R^(B-1) and have squared length v B, v B / D ~ chi^2_(B-1), D = variance minus covariance.
Normalised: y_b = sqrt(B) e_b sqrt(v / (v + eps)).
Everything asked for is a mean over one or two coordinates of that sphere (Yang, Pennington, Rao, Sohl-Dickstein,
Schoenholz 2019, arXiv 1902.08129, section 3).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from pykernel.layers import NORM_EPS
from pykernel.theory.quadrature import Table, legendre, panels, special_points

LOG_EPS = math.log(NORM_EPS)
KEPT = 10_000  # arguments whose statistics are remembered
NEGLIGIBLE = math.log(1e-9)  # of eps over the variance within the batch


class BatchMoments(NamedTuple):
    """Means over units; `f` is phi'(y), y the normalised preimage, M = I - 11^T/B - y y^T/B the slope of the
    normalisation times sigma."""

    value2: float  # E phi(y_b)^2
    cross: float  # E phi(y_b) phi(y_b'), b != b'
    mean: float  # E phi(y_b)
    own: float  # D E sum_b f_b^2 |M e_b|^2 / (B sigma^2)
    common: float  # D E |M f|^2 / (B sigma^2)
    saturated: float  # fraction of y_b with |phi'| below 1 percent of its maximum


def sphere_plane(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Radius nodes and weights of two coordinates of a uniform point on the unit sphere of R^(B-1)."""
    m = batch - 1
    if m <= 2:
        return np.ones(1), np.ones(1)
    x, w = panels(np.arange(0.0, 9.1, 0.75), 8)  # 1 - r^2 = exp(-x^2 / (m - 2)), x of density x exp(-x^2 / 2)
    return np.sqrt(-np.expm1(-x * x / (m - 2))), w * x * np.exp(-x * x / 2)


def plane(batch: int, scale: float, points: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two coordinates of the sphere of radius `scale` and their weights, split where either meets one of `points`."""
    if batch == 2:
        pair = np.array([1.0, -1.0]) * scale
        return pair, -pair, np.array([0.5, 0.5])
    offset = math.acos(-1 / (batch - 1))
    r, radius_weight = sphere_plane(batch)
    r, radius_weight = r[radius_weight > 1e-18, None], radius_weight[radius_weight > 1e-18, None]
    cuts = [np.broadcast_to(np.linspace(-math.pi, math.pi, 9), (len(r), 9))]
    for p in points:
        a = np.arccos(np.clip(p / (scale * r), -1, 1))
        every = np.concatenate([a, -a, offset + a, offset - a], axis=1)
        cuts.append((every + math.pi) % (2 * math.pi) - math.pi)
    edges = np.sort(np.concatenate(cuts, axis=1), axis=1)
    x, w = legendre(10)
    half = np.diff(edges, axis=1)[:, :, None] / 2
    t = (edges[:, :-1, None] + half * (1 + x)).reshape(len(r), -1)
    weight = (half * w).reshape(len(r), -1) * radius_weight / (2 * math.pi)
    return (scale * r * np.cos(t)).ravel(), (scale * r * np.cos(t - offset)).ravel(), weight.ravel()


def plane_moments(row: Any, batch: int, shrink: float) -> np.ndarray:
    """E of phi^2, phi phi', phi, f^2, f^2 y^2, f f', f f' y y' at y = sqrt(shrink) * (normalised preimage without eps),
    and the saturated fraction.
    """
    y, other, w = plane(batch, math.sqrt((batch - 1) * shrink), special_points(row))
    phi, f = np.asarray(row.value(y), float), np.asarray(row.slope(y), float)
    phi2, f2 = np.asarray(row.value(other), float), np.asarray(row.slope(other), float)
    low = np.abs(f) < 0.01 * row.max_slope
    return np.array([w @ v for v in (phi * phi, phi * phi2, phi, f * f, (f * y) ** 2, f * f2, f * y * f2 * other, low)])


def _combine(B: int, m: np.ndarray, shrink: float) -> tuple[float, float]:
    """E sum f_b^2 |M e_b|^2 / B and E |M f|^2 / B from plane moments at one shrink = |y|^2 / B."""
    pull = (2 - shrink) / B
    own = m[3] * (1 - 1 / B) - m[4] * pull
    square = m[3] - (m[3] + (B - 1) * m[5]) / B - (m[4] + (B - 1) * m[6]) * pull
    return max(own, 0.0), max(square, 0.0)


def radial(batch: int, tilt: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights (sum 1) for x ~ chi^2_(B-1) with its density multiplied by x^-tilt: Gauss-Laguerre by the
    Jacobi matrix (Golub, Welsch 1969).
    """
    alpha = (batch - 1) / 2 - 1 - tilt
    k = np.arange(10)
    off = np.sqrt((k[1:]) * (k[1:] + alpha))
    nodes, vectors = np.linalg.eigh(np.diag(2 * k + 1 + alpha) + np.diag(off, 1) + np.diag(off, -1))
    return 2 * nodes, vectors[0] ** 2


def measure(planes: Table, batch: int, log_ratio: float) -> np.ndarray:
    """BatchMoments as an array, for eps / D = exp(log_ratio), D the variance minus the covariance within the batch."""
    B = batch
    if log_ratio <= NEGLIGIBLE and B >= 4:
        m = planes.function(0.0)
        own, common = _combine(B, m, 1.0)
        # E 1/v = B/(B - 3) in units of 1/D
        return np.array([m[0], m[1], m[2], own * B / (B - 3), common * B / (B - 3), m[7]])
    ratio = math.exp(log_ratio) * B  # eps B / D, to compare with chi^2_(B-1)
    x, w = _radius(B, ratio, 0)
    tilted, tilted_weight = _radius(B, ratio, 1)
    forward = planes(np.log(x / (x + ratio))) @ w
    shrink = tilted / (tilted + ratio)
    backward = np.array([_combine(B, m, s) for m, s in zip(planes(np.log(shrink)).T, shrink, strict=True)])
    return np.array([*forward[:3], *((tilted_weight * B / (tilted + ratio)) @ backward), forward[7]])


def inverse_variance(batch: int, log_ratio: float) -> tuple[float, float]:
    """E 1/(v + eps) in units of 1/D, and the mean of v/(v + eps) under that weight, for eps / D = exp(log_ratio)."""
    if log_ratio <= NEGLIGIBLE and batch >= 4:
        return batch / (batch - 3), 1.0
    ratio = math.exp(log_ratio) * batch
    x, w = _radius(batch, ratio, 1)
    weight = w * batch / (x + ratio)
    total = float(weight.sum())
    return total, float(weight @ (x / (x + ratio))) / total


def _radius(batch: int, ratio: float, tilt: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of chi^2_(B-1) under functions that fall as 1/(chi^2 + ratio)^tilt."""
    B = batch
    if B >= 4:
        x, w = radial(B, tilt)
        return x, w * x / (B - 3) if tilt else w
    # the weight 1/(chi^2 + ratio) has no polynomial rule here: a fine grid in log chi^2
    t, g = panels(np.arange(math.log(min(ratio, 1.0)) - 40.0, 5.5, 1.0), 6)
    x = np.exp(t)
    return x, g * np.exp((B - 1) / 2 * t - x / 2) / (2 ** ((B - 1) / 2) * math.gamma((B - 1) / 2))


def _limits(log_ratio: np.ndarray, edge: float, at_edge: np.ndarray) -> np.ndarray:
    """Beyond the table: no eps at all on the left; on the right phi at 0, with slopes that fall as D / eps."""
    if edge > 0:
        at_edge[3:5] *= np.exp(np.maximum(edge - log_ratio, -745.0))
    return at_edge


class BatchTable(Table):
    """BatchMoments of one activation and batch size as functions of log(eps / D), centred where eps begins to
    matter."""

    CENTRE = -8.0
    ORDER = 12

    def __init__(self, row: Any, batch: int) -> None:
        self.row, self.batch = row, batch
        self.exact = batch >= 4
        self.known: dict[float, BatchMoments] = {}
        planes = Table(lambda t: plane_moments(row, batch, math.exp(t)), 60.0, lambda t, edge, at_edge: at_edge)
        super().__init__(lambda t: measure(planes, batch, t + self.CENTRE), 40.0, _limits)

    def at(self, log_distance: float, log_eps: float = LOG_EPS) -> BatchMoments:
        """Statistics where the variance minus the covariance of the preimage is exp(log_distance)."""
        t = log_eps - log_distance
        t = max(t, NEGLIGIBLE) if self.exact else t
        found = self.known.get(t)
        if found is None:
            x = t - self.CENTRE
            if self.exact and t == NEGLIGIBLE:
                values = self.function(x).tolist()
            elif abs(x) < self.furthest:
                values = [self.column(x, k) for k in range(len(BatchMoments._fields))]
            else:
                values = self(np.array([min(x, 1e6)]))[:, 0].tolist()
            if len(self.known) >= KEPT:
                self.known.clear()
            found = self.known[t] = BatchMoments(*values)
        return found


_tables: dict[Any, BatchTable] = {}


def batch_table(row: Any, batch: int) -> BatchTable:
    """The table of an activation row at one batch size, kept for the life of the process."""
    if (row, batch) not in _tables:
        _tables[row, batch] = BatchTable(row, batch)
    return _tables[row, batch]
