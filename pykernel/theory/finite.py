# SPDX-License-Identifier: BSD-3-Clause
"""Finite width: laws of the log gradient norm of one input, exact where they are known and to first order in 1/width
elsewhere.

Throughout: S = log |dJ/da[0]|^2 - log |dJ/da[L]|^2 for a cotangent that is independent of the forward pass; natural
logs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pykernel.program import Program, distinct
from pykernel.theory import quadrature as q
from pykernel.theory.laws import dead_probability, digamma, gaussian_linear, haar_relu, leaky_share, trigamma
from pykernel.theory.over_batch import shares
from pykernel.theory.plain import Plain, plain
from pykernel.theory.signals import Gradient, Signal

LOG_NORMAL = (
    "first order in 1/width; trust it while the standard deviation grows as sqrt(depth / width) and layers "
    "are wider than about 30"
)
OF_BATCH = (
    "log-normal, with the second moments of the sum over the batch: the deviation to about 15 percent, the "
    "mean to a fifth of it"
)
LEFT_OUT = 0.01  # decades of the mean, about sum 1/width^2, from which the orders that are left out are mentioned


@dataclass(frozen=True)
class FiniteWidth:
    """Law of log |dJ/da[l]|^2 - log |dJ/da[L]|^2 of a batch: (L + 1,) means and variances in natural logs, and where
    they come from."""

    mean: np.ndarray
    variance: np.ndarray
    dead: float
    law: str
    batch: int = 1


def law(program: Program, signal: Signal, gradient: Gradient) -> FiniteWidth | None:
    """The law of a chain, or None where none is known (batch norm with a batch, sums with skips, gates, dropout,
    identities)."""
    facts = plain(program)
    if facts is None or facts.every or facts.norm == "batch" or facts.distribution in ("identity", ""):
        return None
    if not np.all(np.isfinite(gradient.activation)) or np.any(signal.uniform > 0):  # moments of a normal are not theirs
        return None
    exact = _exact(facts, signal)
    if exact and program.columns > 1 and facts.distribution == "normal":
        return _of_batch(exact, facts, signal, gradient)
    return exact or _first_order(facts, signal, gradient)


def _of_batch(one: FiniteWidth, facts: Plain, signal: Signal, gradient: Gradient) -> FiniteWidth:
    """The law of a sum over the batch from that of one input: a share of its variance, and of what it lies below
    infinite width."""
    left, plain = shares(facts, signal), gradient.activation - gradient.activation[-1]
    return FiniteWidth(
        plain + left * (one.mean - plain), left * one.variance, one.dead, OF_BATCH, facts.program.columns
    )


def _exact(facts: Plain, signal: Signal) -> FiniteWidth | None:
    n_in, n_out, row = facts.widths[:-1], facts.widths[1:], facts.activation
    if facts.norm or facts.biased or row is None or row.name not in q.HOMOGENEOUS or facts.program.head.loss:
        return None
    left, right = float(row.left), float(row.right)
    units = (n_out if facts.order == 0 else n_in).tolist()  # whose phi'
    # Backward, a layer multiplies by the slopes, coins of their own, and by W^T, whose fan-in entries are fresh: chi^2
    # of n_in.
    if row.name == "linear":
        masks, factor = [(0.0, 0.0)] * len(units), "chi^2_n / n"
    elif left == 0:
        masks = [(mean - math.log(2), variance) for mean, variance in map(haar_relu, units)]
        factor = "(2/n) chi^2_K, K binomial,"
    elif right:
        masks, factor = [leaky_share(n, left, right) for n in units], "chi^2_n and slopes by fair coins"
    else:
        return None
    layers = np.array(masks)
    if facts.distribution == "normal":
        layers += [gaussian_linear(n) for n in n_in.tolist()]
    elif facts.distribution == "haar" and np.all(n_in == n_out):
        factor = {"linear": "no spread at all", "relu": "2 Beta(K/2, (n-K)/2), K binomial,"}.get(
            row.name, "slopes by fair coins"
        )
    else:
        return None
    name = f"exact: {factor}" + (" for each layer" if row.name != "linear" or facts.distribution == "normal" else "")
    return FiniteWidth(
        _from_top(layers[:, 0] + signal.weight), _from_top(layers[:, 1]), dead_probability(facts.program), name
    )


def _from_top(values: np.ndarray) -> np.ndarray:
    """Sums over layers l+1 .. L for l = 0 .. L."""
    return np.concatenate([np.cumsum(values[::-1])[::-1], [0.0]])


class _Noise(NamedTuple):
    """What fluctuates in each layer, (L,): variances, and means beyond first order.

    Attributes:
        value, slope, shared: of the mean of phi^2, of phi'^2 under the gradient, and their covariance.
        length: of the mean of z^2 around its expectation.
        spread: half the variance of what W^T does.
        value_flat, slope_flat: what a fixed length takes from the means.
    """

    value: np.ndarray
    slope: np.ndarray
    shared: np.ndarray
    length: np.ndarray
    spread: np.ndarray
    value_flat: np.ndarray
    slope_flat: np.ndarray


def _noise(facts: Plain, c: np.ndarray, N: np.ndarray, haar: bool) -> _Noise:
    L, norm = facts.depth, facts.norm
    n_in, n_out = facts.widths[:-1].astype(float), facts.widths[1:].astype(float)
    value4, kappa, mixed = np.exp(c[q.LOG_VALUE4]), np.exp(c[q.LOG_SLOPE4]), np.exp(c[q.LOG_MIXED])
    wide = np.minimum(1.0, n_out / n_in) if haar else np.zeros(L)  # share of the length of z that a Haar matrix fixes
    if facts.order == 1:  # the preimage of layer l is z of layer l - 1; the input's length is free
        wide = np.concatenate([[0.0], wide[:-1]])
    fixed = np.ones(L) if norm else wide
    value_lost = fixed * (c[q.VALUE2_SQUARE] - 1) ** 2 / 2
    slope_lost = fixed * (c[q.SLOPE2_SQUARE] - 1) ** 2 / 2
    both_lost = fixed * (c[q.VALUE2_SQUARE] - 1) * (c[q.SLOPE2_SQUARE] - 1) / 2
    if norm == "layer":
        value_lost, slope_lost = value_lost + c[q.VALUE2_FIRST] ** 2, slope_lost + c[q.SLOPE2_FIRST] ** 2
        both_lost = both_lost + c[q.VALUE2_FIRST] * c[q.SLOPE2_FIRST]
    return _Noise(
        value=np.maximum(value4 - 1 - value_lost, 0) / N,
        slope=np.maximum(3 * kappa - 3 - slope_lost, 0) / N,
        shared=(mixed - 1 - both_lost) / N,
        length=2 * (1 - wide) / N,
        spread=np.maximum(1 / n_in - 1 / n_out, 0) if haar else 1 / n_in,
        # of a vector of fixed length each entry has fourth cumulant -6/N: by Edgeworth E f(z) loses E f(z) He4(z) / 4N
        value_flat=-fixed * (c[q.VALUE2_FOURTH] - 6 * c[q.VALUE2_SQUARE] + 3) / (4 * N),
        slope_flat=-fixed * (c[q.SLOPE2_FOURTH] - 6 * c[q.SLOPE2_SQUARE] + 3) / (4 * N),
    )


class _Slopes(NamedTuple):
    """Of d log E phi^2 / d log q and d log E phi'^2 / d log q: themselves and their slopes, (L,)."""

    elasticity: np.ndarray
    tilt: np.ndarray
    bend: np.ndarray
    tilt_bend: np.ndarray


def _slopes(facts: Plain, c: np.ndarray, t: np.ndarray) -> _Slopes:
    L = facts.depth
    if facts.norm:
        return _Slopes(np.zeros(L), np.full(L, -1.0), np.zeros(L), np.zeros(L))
    h = 1e-3
    curved = [q.ELASTICITY, q.SLOPE2_SQUARE]
    up, down = (
        dict(zip(curved, _by_function(facts.program, t + s, lambda table, t: table.sampled(t, curved))))
        for s in (h, -h)
    )
    return _Slopes(
        elasticity=c[q.ELASTICITY],
        tilt=(c[q.SLOPE2_SQUARE] - 1) / 2,
        bend=(up[q.ELASTICITY] - down[q.ELASTICITY]) / (4 * h),
        tilt_bend=(up[q.SLOPE2_SQUARE] - down[q.SLOPE2_SQUARE]) / (8 * h),
    )


def _forward(start: float, follow: np.ndarray, slopes: _Slopes, noise: _Noise) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of log q[l], from the variance of the input's."""
    mean_v, var_v = -start / 2, start
    found = []
    rows = (follow, slopes.elasticity, slopes.bend, noise.value, noise.value_flat)
    for r, e, bent, own, flat in zip(*(v.tolist() for v in rows)):
        m, v = r * mean_v + r * (1 - r) / 2 * var_v, r * r * var_v
        found.append((m, v))
        mean_v, var_v = e * m + bent / 2 * v - own / 2 + flat, e * e * v + own
    mean_q, var_q = np.array(found).T
    return mean_q, var_q


def _later(follow: np.ndarray, slopes: _Slopes) -> np.ndarray:
    """What a unit of log E phi^2 of layer l does to all later slopes."""
    after, afters = 0.0, [0.0]
    for r, x, e in zip(follow[:0:-1].tolist(), slopes.tilt[:0:-1].tolist(), slopes.elasticity[:0:-1].tolist()):
        after = r * (x + e * after)
        afters.append(after)
    return np.array(afters[::-1])


def _first_order(facts: Plain, signal: Signal, gradient: Gradient) -> FiniteWidth | None:
    """Mean and variance of S to first order in 1/width, from moments of phi and phi' (all layers' preimages Gaussian).

    A layer's fluctuations: of the mean of phi^2 (feeds the variance of all later layers), of the mean of phi'^2 under
    the gradient (3 kappa - 3 over n, kappa = E phi'^4 / (E phi'^2)^2), of W^T (2/n), the last two to second order. The
    mean adds -1/2 of each variance, the curvature of the maps, and the part of the gradient along the signal, which
    multiplies by chi_par^2 instead of chi_perp (theory.md, trap 3; kept to all orders). Haar weights and layer or RMS
    norm fix the length of z: what fluctuates is projected off it.
    """
    t = signal.preimage
    if not np.all(np.isfinite(t)):
        return None
    L, norm, haar = facts.depth, facts.norm, facts.distribution == "haar"
    n_in, n_out = facts.widths[:-1].astype(float), facts.widths[1:].astype(float)
    N = n_out if facts.order == 0 else n_in
    c = columns(facts.program, t)
    noise, slopes = _noise(facts, c, N, haar), _slopes(facts, c, t)
    # log q of a preimage against log E phi^2 of the one before
    follow = np.exp(signal.weight + signal.input - signal.preactivation)
    if facts.order == 1:
        follow = np.concatenate([[0.0], follow[:-1]])
    mean_q, var_q = _forward(2 / n_in[0] if facts.order == 0 else 0.0, follow, slopes, noise)
    # a few units carry the mean: what a typical draw does is no expansion around it
    if max(noise.slope.max(), noise.value.max()) > 0.5:
        return None
    # draws sit in different phases: no expansion around one of them
    if var_q.max() > 1 and np.sum(np.abs(slopes.tilt_bend) * var_q) > 0.3:
        return None
    second_mean, second_variance = _second_order(np.exp(c[q.LOG_SLOPE4]), np.exp(c[q.LOG_SLOPE6]), N, n_in, haar)
    later, weight = _later(follow, slopes), 2 * noise.spread
    own = noise.slope + weight + 2 * noise.shared * later + later**2 * noise.value
    if norm:
        own = own + noise.length
    variance = _from_top(own + second_variance)
    # what fluctuated before layer l + 1 reaches layers l + 1 .. L through log q
    variance[:L] += (slopes.tilt + slopes.elasticity * later) ** 2 * var_q
    shift = second_mean + noise.slope_flat - noise.slope / 2 - weight / 2
    shift = shift + slopes.tilt * mean_q + slopes.tilt_bend / 2 * var_q
    plain = gradient.activation - gradient.activation[-1]
    if norm:
        mean = plain + _from_top(shift + _behind_norm(norm, c, N, noise))
    else:
        excess = np.expm1(np.minimum(_with_aligned(facts, signal, c, N, haar) - plain, 300.0))
        extra_mean, extra_variance = _aligned_law(excess)
        mean, variance = plain + extra_mean + _from_top(shift), variance + extra_variance
    if not np.isfinite(mean).all():
        return None
    return FiniteWidth(mean, np.maximum(variance, 0), dead_probability(facts.program), LOG_NORMAL)


def _behind_norm(norm: str, c: np.ndarray, N: np.ndarray, noise: _Noise) -> np.ndarray:
    """What a norm adds to the mean.

    Behind it gradients have no part along z, and so W^T delta none along phi: 1/N of its length is lost, and the mean
    of phi'^2 under what is left is another; the norm then takes out the parts along z and, centred, along 1 (which its
    variance lacks, too).
    """
    mixed, ratio = np.exp(c[q.LOG_MIXED]), np.exp(c[q.LOG_VALUE2] - c[q.LOG_SLOPE2])
    along = (mixed - 1) / N + (c[q.SLOPE2_SQUARE] - c[q.ELASTICITY] ** 2 * ratio) / N
    centred = (c[q.VALUE2_FIRST] / 2) ** 2 * ratio / N if norm == "layer" else 0.0
    return noise.length / 2 - noise.spread - along + centred


def columns(program: Program, t: np.ndarray) -> np.ndarray:
    """All moments of each layer's activation, (COLUMNS, L); those that are summed over all layers exactly."""
    exact = [q.LOG_VALUE2, q.LOG_SLOPE2, q.ELASTICITY]

    def read(table: q.Moments, t: np.ndarray) -> np.ndarray:
        c = table.sampled(t, list(range(len(q.COLUMNS))))
        c[exact] = table(t, exact)
        return c

    return _by_function(program, t, read)


def _by_function(program: Program, t: np.ndarray, read: Callable[[q.Moments, np.ndarray], np.ndarray]) -> np.ndarray:
    """`read(table, t)` of the layers of each activation function, put together, (..., L)."""
    parts = [(program.steps.row == r, r) for r in distinct(program.steps.row)]
    if len(parts) == 1:
        return read(q.moments(program.activations[parts[0][1]]), t)
    found = [(chosen, read(q.moments(program.activations[r]), t[chosen])) for chosen, r in parts]
    out = np.empty((len(found[0][1]), len(t)))
    for chosen, values in found:
        out[:, chosen] = values
    return out


def _second_order(
    kappa: np.ndarray, sixth: np.ndarray, N: np.ndarray, n_in: np.ndarray, haar: bool
) -> tuple[np.ndarray, np.ndarray]:
    """What a layer's slopes and W^T add to mean and variance beyond first order, (L,) each.

    The share A/B = sum phi'^2 g^2 / sum g^2 of normal g is independent of B (Basu 1955), chi^2_N; log A by the
    cumulants v / N and mu / N^2 of its terms, W^T's chi^2_n exactly.
    """

    def beyond(n: np.ndarray) -> np.ndarray:
        """Mean and variance of log(chi^2_n / n) less their first order."""
        kinds, back = np.unique(n, return_inverse=True)
        return np.array([[digamma(k / 2) - math.log(k / 2) + 1 / k, trigamma(k / 2) - 2 / k] for k in kinds]).T[:, back]

    v, mu = 3 * kappa - 1, 15 * sixth - 9 * kappa + 2
    mean, variance = (
        np.array([mu / 3 - 0.75 * v * v, 2.5 * v * v - mu]) / (N * N) - beyond(N) + (0.0 if haar else beyond(n_in))
    )
    return mean, variance


def _aligned_law(excess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of log(1 + excess g^2), g normal: the gradient's part along the signal is one Gaussian
    amplitude, grown by chi_par layer after layer.
    """
    x, w = q.rule(1.0, (0.0,), 8)
    grows = np.maximum(excess, 0)
    grid = np.linspace(0, max(float(excess.max()), 1e-12) ** 0.25, 400) ** 4
    after = np.clip(np.searchsorted(grid, grows), 1, len(grid) - 1)
    grid = grid[distinct(np.concatenate([after - 1, after]))]  # between which the excesses lie
    logs = np.log1p(grid[:, None] * x * x)
    mean = logs @ w
    variance = (logs * logs) @ w - mean**2
    return np.where(excess > 0, np.interp(grows, grid, mean), np.log1p(np.maximum(excess, -0.999))), np.interp(
        grows, grid, variance
    )


def _with_aligned(facts: Plain, signal: Signal, c: np.ndarray, N: np.ndarray, haar: bool) -> np.ndarray:
    """log E |dJ/da[l]|^2 - log E |dJ/da[L]|^2, the part along the signal carried beside the rest (l = 0 .. L)."""
    L = facts.depth
    n_in = facts.widths[:-1].astype(float)
    weight = np.exp(np.minimum(signal.weight, 700))
    slope2 = np.exp(c[q.LOG_SLOPE2])
    share = np.exp(signal.weight + signal.input - signal.preactivation)  # of the variance of z that is W u
    if facts.order == 1:
        return _aligned_pre(facts, signal, c, weight, slope2, share, haar)
    out, along, across, level = np.zeros(L + 1), 1 / N[-1], 1 - 1 / N[-1], 0.0
    aligned_all = (share * c[q.ELASTICITY]) ** 2 * np.exp(
        c[q.LOG_VALUE2] - signal.input
    )  # of a gradient along a[l], what comes back along a[l - 1]
    columns = (weight, slope2, share, np.exp(c[q.LOG_MIXED]), c[q.SLOPE2_SQUARE], aligned_all, n_in, N)
    for i, (w, d, s, mixed, square, aligned, n, m) in zip(
        range(L - 1, -1, -1), zip(*(v[::-1].tolist() for v in columns))
    ):
        g2 = d * (across * (1 - (mixed - 1) / m) + mixed * along)
        random = max(w * d * (s * square + 1 - s) - aligned, 0.0) * across / n
        along = random + aligned * along * (m / n)
        across = max(w * g2 - along, 0.0) if haar else w * g2 * (1 - 1 / n)
        total = along + across
        if not total > 0:  # beyond any number
            return np.full(L + 1, np.nan)
        level += math.log(total)
        along, across = along / total, across / total
        out[i] = level
    return out


def _aligned_pre(
    facts: Plain, signal: Signal, c: np.ndarray, weight: np.ndarray, slope2: np.ndarray, share: np.ndarray, haar: bool
) -> np.ndarray:
    """The same for pre-activation chains: along a[l] = z[l], then through W^T along phi(a[l-1]), then phi'."""
    L, n_in, n_out = facts.depth, facts.widths[:-1].astype(float), facts.widths[1:].astype(float)
    out, along, across, level = np.zeros(L + 1), 1 / n_out[-1], 1 - 1 / n_out[-1], 0.0
    aligned_all = c[q.ELASTICITY] ** 2 * np.exp(signal.input - signal.raw)  # E phi^2 over the mean square of a[l - 1]
    columns = (weight, slope2, share, np.exp(c[q.LOG_MIXED]), c[q.SLOPE2_SQUARE], aligned_all, n_in, n_out)
    for i, (w, d, s, mixed, square, aligned, n, m) in zip(
        range(L - 1, -1, -1), zip(*(v[::-1].tolist() for v in columns))
    ):
        parallel = w * (s * along * m + (1 - s) * across) / n  # s is the share of W u in the square of z = W u + b
        total = w * (along + across)
        rest = max(total - parallel, 0.0) if haar else total * (1 - 1 / n)
        back = aligned * parallel + max(square * d - aligned, 0.0) * rest / n
        every = d * (rest * (1 - (mixed - 1) / n) + mixed * parallel)
        along, across = back, max(every - back, 0.0)
        total = along + across
        if not total > 0:  # beyond any number
            return np.full(L + 1, np.nan)
        level += math.log(total)
        along, across = along / total, across / total
        out[i] = level
    return out
