# SPDX-License-Identifier: BSD-3-Clause
"""Singular values of a chain's input-output Jacobian at any depth, and what theory says of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pykernel import checks
from pykernel.chain import Chain
from pykernel.theory.finite import digamma

LARGEST_FULL = 512  # widths up to which all singular values are computed


@dataclass(frozen=True)
class Spectrum:
    """Singular values of da[L]/da[0] for one input, replica by replica.

    Attributes:
        chain: what was computed.
        log10_singular: (replicas, k), decreasing; k = the smallest width where all were computed, else 1: the largest.
        lyapunov: (replicas, k), natural logs per layer: mean growth of a volume's k-th edge, from the QR factors.
        lyapunov_theory: (k,) for Gaussian linear chains with equal widths, else None.
        largest_theory: predicted log10 of the largest singular value of a wide chain, nan where there is no formula.
        complete: whether all singular values were computed.
    """

    chain: Chain
    log10_singular: np.ndarray
    lyapunov: np.ndarray
    lyapunov_theory: np.ndarray | None
    largest_theory: float
    complete: bool

    @property
    def log10_condition(self) -> np.ndarray:
        """log10 of largest over smallest singular value, (replicas,); nan where only the largest was computed."""
        if not self.complete:
            return np.full(len(self.log10_singular), np.nan)
        return self.log10_singular[:, 0] - self.log10_singular[:, -1]

    def __str__(self):
        top = float(np.median(self.log10_singular[:, 0]))
        lines = [
            str(self.chain),
            f"largest singular value: 10^{top:+.4g}"
            + (f" (theory 10^{self.largest_theory:+.4g})" if math.isfinite(self.largest_theory) else ""),
        ]
        if self.complete:
            low = float(np.median(self.log10_singular[:, -1]))
            lines.append(f"smallest: 10^{low:+.4g}; condition number 10^{float(np.median(self.log10_condition)):.4g}")
        return "\n".join(lines)


def jacobian_spectrum(chain: Chain, *, replicas: int = 1, seed: int = 0, x=None) -> Spectrum:
    """Singular values of the Jacobian of the output with respect to one input, at any depth.

    Args:
        chain: without batch norm. Widths up to 512 give all singular values, larger ones the largest (power iteration in the log domain).
        replicas: independent draws of the weights, the same as `propagate` uses in its dense engine.
        seed: of the draws.
        x: the input, (n[0],); drawn without.

    Returns:
        Spectrum.

    Raises:
        ValueError: batch norm (a Jacobian mixes the inputs of a batch), or a wrong x.

    Notes:
        J = J_L ... J_1 is never multiplied out: J_l Q_{l-1} = Q_l R_l and the triangular factors are multiplied with their scale taken out
        row by row, so
        singular values far beyond float range keep their digits; the logs of the diagonal of R give the Lyapunov exponents (Benettin et al.
        1980).
        For Gaussian linear chains these are (1/2)(log(2/n) + digamma((n-k+1)/2)) (Newman 1986), plus the log of the gain. Largest singular
        value of a wide
        Gaussian linear chain: sqrt((L+1)^(L+1) / L^L) (Pennington, Schoenholz, Ganguli 2017, arXiv 1711.04735); orthogonal: all ones (Saxe
        et al. 2014).

    Examples:
        >>> s = jacobian_spectrum(Chain(depth=5, width=16, activation="linear", init="orthogonal"))
        >>> bool(np.allclose(s.log10_singular, 0, atol=1e-6))
        True
    """
    if not isinstance(chain, Chain):
        raise TypeError(f"chain must be a pykernel.Chain, got {type(chain).__name__}")
    if chain.norm == "batch":
        raise ValueError("the Jacobian of one input needs a chain without batch norm, got norm='batch'")
    replicas = checks.integer("replicas", replicas, 1, 10**6)
    n = chain.layer_widths
    complete = int(n.max()) <= LARGEST_FULL
    results = [_one(chain, seed, r, x, complete) for r in range(replicas)]
    singular = np.array([r[0] for r in results])
    lyapunov = np.array([r[1] for r in results])
    return Spectrum(chain, singular, lyapunov, _lyapunov_theory(chain) if complete else None, _largest_theory(chain), complete)


def _one(chain: Chain, seed: int, replica: int, x, complete: bool):
    """log10 singular values and Lyapunov exponents of one draw."""
    steps = _layers(chain, seed, replica, x)
    if complete:
        n0 = int(chain.layer_widths[0])
        k = int(chain.layer_widths.min())
        basis, triangle, exponent = np.eye(n0), np.eye(n0), np.zeros(n0)
        growth = np.zeros(n0)
        for apply in steps:
            image = apply(basis)
            q, r = np.linalg.qr(image)
            sign = np.where(np.diag(r) < 0, -1.0, 1.0)
            basis, r = q * sign, r * sign[:, None]
            with np.errstate(divide="ignore"):
                growth = growth[: len(r)] + np.log(np.abs(np.diag(r[:, : len(r)])))
            triangle, exponent = _multiply(r, triangle, exponent)
        return _singular(triangle, exponent)[:k] / math.log(10), (growth / chain.depth)[:k]
    rng = np.random.default_rng([seed, replica])
    v = rng.standard_normal((int(chain.layer_widths[0]), 1))
    steps = list(steps)
    top = -math.inf
    for _ in range(30):
        v /= np.linalg.norm(v)
        log = 0.0
        for apply in steps:
            v = apply(v)
            size = np.linalg.norm(v)
            if size == 0:
                return np.array([-np.inf]), np.array([-np.inf])
            v, log = v / size, log + math.log(size)
        for apply in steps[::-1]:
            v = apply(v, transpose=True)
            size = np.linalg.norm(v)
            v, log = v / size, log + math.log(size)
        done, top = abs(log / 2 - top) < 1e-6, log / 2
        if done:
            break
    return np.array([top / math.log(10)]), np.array([top / chain.depth])


def _multiply(r: np.ndarray, triangle: np.ndarray, exponent: np.ndarray):
    """r times (diag(e^exponent) triangle), with a new scale for every row."""
    top = np.max(np.where(r != 0, exponent[None, : r.shape[1]], -np.inf), axis=1)
    top = np.where(np.isfinite(top), top, 0.0)
    scaled = r * np.exp(np.clip(exponent[None, : r.shape[1]] - top[:, None], -745, 0))
    new = scaled @ triangle[: r.shape[1]]
    size = np.max(np.abs(new), axis=1)
    safe = np.where(size > 0, size, 1.0)
    return new / safe[:, None], top + np.log(safe)


def _singular(triangle: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """Logs of the singular values of diag(e^exponent) triangle, decreasing.

    One-sided Jacobi rotations of the rows, whose sizes stay outside as exponents: exact to rounding for every value, however small (Demmel,
    Veselic 1992).
    """
    if exponent.max() - exponent.min() < 12:
        values = np.linalg.svd(triangle * np.exp(exponent - exponent.max())[:, None], compute_uv=False)
        if values[-1] > 1e-9 * values[0]:
            return np.log(values) + exponent.max()
    n = len(exponent)
    rows, size = np.array(triangle, float), np.array(exponent, float)
    ring = np.arange(n + n % 2)
    for _ in range(30):
        turned = 0.0
        for _ in range(len(ring) - 1):
            left, right = ring[: len(ring) // 2], ring[len(ring) // 2 :][::-1]
            both = (left < n) & (right < n)
            turned = max(turned, _rotate(rows, size, left[both], right[both]))
            ring = np.concatenate([ring[:1], ring[-1:], ring[1:-1]])
        if turned < 1e-12:
            break
    with np.errstate(divide="ignore"):
        return np.sort(np.log(np.linalg.norm(rows, axis=1)) + size)[::-1]


def _rotate(rows: np.ndarray, size: np.ndarray, i: np.ndarray, j: np.ndarray) -> float:
    """Make rows i and j orthogonal, pair by pair (disjoint pairs), in place; the largest cosine met."""
    with np.errstate(divide="ignore"):
        norms = np.log(np.linalg.norm(rows, axis=1)) + size
    swap = norms[i] < norms[j]
    i, j = np.where(swap, j, i), np.where(swap, i, j)  # i is the longer
    live = np.isfinite(norms[j])
    i, j = i[live], j[live]
    if not len(i):
        return 0.0
    p, r = rows[i], rows[j]
    pp, rr, pr = (p * p).sum(1), (r * r).sum(1), (p * r).sum(1)
    shrink = np.exp(np.clip(size[j] - size[i], -345, 345))  # scale of r in units of that of p
    # tan of the angle over shrink, which stays finite when shrink does not
    difference = pp - shrink**2 * rr
    root = np.sqrt(difference**2 + 4 * (shrink * pr) ** 2)
    part = 2 * pr / np.where(difference + root > 0, difference + root, 1.0)
    cosine = 1 / np.sqrt(1 + (part * shrink) ** 2)
    rows[i] = cosine[:, None] * (p + (part * shrink**2)[:, None] * r)
    rows[j] = cosine[:, None] * (r - part[:, None] * p)
    return float(np.max(np.abs(pr) / np.sqrt(pp * rr)))


def _layers(chain: Chain, seed: int, replica: int, x):
    """One function for each layer that applies its Jacobian, or its transpose, to columns; the forward pass goes along."""
    from pykernel.simulate import weights

    n = chain.layer_widths
    if x is None:
        x = np.random.default_rng([seed, replica, 1]).standard_normal(int(n[0]))
    x = np.asarray(x, float).reshape(-1)
    if x.shape != (int(n[0]),):
        raise ValueError(f"x must have shape ({int(n[0])},), got {x.shape}")
    if chain.residual is not None and chain.residual.every != 1:
        raise ValueError("the Jacobian layer by layer needs skip connections over one layer, got " + str(chain.residual))
    a, row = x, chain.activation
    rng = np.random.default_rng([seed, replica, 2])
    for layer in range(1, chain.depth + 1):
        W = weights(chain, layer=layer, replica=replica, seed=seed)
        b = chain.bias_std * rng.standard_normal(int(n[layer]))
        skip = 1.0 if chain.residual is not None else 0.0
        scale = chain.residual.factor(chain.depth) if chain.residual is not None else 1.0
        if chain.order == "linear-norm-activation":
            y, norm = _normed(W @ a + b, chain.norm)
            slope = np.asarray(row.slope(y))
            value = np.asarray(row.value(y))
            forward = lambda v, W=W, s=slope, N=norm: s[:, None] * N(W @ v)
            backward = lambda v, W=W, s=slope, N=norm: W.T @ N(s[:, None] * v)
        else:
            y, norm = _normed(a, chain.norm)
            slope = np.asarray(row.slope(y))
            value = W @ np.asarray(row.value(y)) + b
            forward = lambda v, W=W, s=slope, N=norm: W @ (s[:, None] * N(v))
            backward = lambda v, W=W, s=slope, N=norm: N(s[:, None] * (W.T @ v))
        a = skip * a + scale * value if skip else value
        size = np.abs(a).max()
        if chain.activation.name in ("linear", "relu", "leaky_relu") and chain.norm is None and not chain.bias_std and size > 0:
            a = a / size  # homogeneous: slopes do not depend on the scale
        yield _Step(forward, backward, skip, scale)


class _Step:
    """One layer's Jacobian."""

    def __init__(self, forward, backward, skip, scale):
        self.forward, self.backward, self.skip, self.scale = forward, backward, skip, scale

    def __call__(self, v, transpose=False):
        image = (self.backward if transpose else self.forward)(v)
        return self.skip * v + self.scale * image if self.skip else image


def _normed(z: np.ndarray, norm: str | None):
    """Normalised z and the (symmetric) derivative of the norm applied to columns."""
    if norm is None:
        return z, lambda v: v
    centred = z - z.mean() if norm == "layer" else z
    sigma = math.sqrt(float(np.mean(centred**2)) + 1e-5)
    y = centred / sigma

    def derivative(v):
        middle = v.mean(axis=0) if norm == "layer" else 0.0
        return (v - middle - y[:, None] * (y @ v) / len(y)) / sigma

    return y, derivative


def _lyapunov_theory(chain: Chain) -> np.ndarray | None:
    if chain.width is None or chain.activation.name != "linear" or chain.norm or chain.residual or chain.init.distribution != "normal":
        return None
    n = chain.width
    log_sigma = math.log(abs(chain.gain * chain.init.scale(n, n)) * math.sqrt(n)) if chain.gain else -math.inf
    return np.array([0.5 * (math.log(2 / n) + digamma((n - k + 1) / 2)) + log_sigma for k in range(1, n + 1)])


def _largest_theory(chain: Chain) -> float:
    if chain.width is None or chain.norm or chain.residual or chain.bias_std or not chain.gain:
        return math.nan
    n, L = chain.width, chain.depth
    scale = abs(chain.gain * chain.init.scale(n, n))
    if chain.activation.name == "linear" and chain.init.distribution == "haar":
        return L * math.log10(scale)
    if chain.activation.name == "linear" and chain.init.distribution == "normal":
        return 0.5 * ((L + 1) * math.log10(L + 1) - L * math.log10(L)) + L * math.log10(scale * math.sqrt(n))
    return math.nan
