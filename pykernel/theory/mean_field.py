# SPDX-License-Identifier: BSD-3-Clause
"""The infinite-width chain: variances forward, squared gradient norms backward, layer by layer in the log domain.

Poole et al. 2016 (arXiv 1606.05340), Schoenholz et al. 2017 (1611.01232) for plain chains; Yang, Schoenholz 2017 (1712.08969) for residual
ones;
Yang et al. 2019 (1902.08129) for batch normalisation. Logs here are natural; `predict` turns them into decades.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pykernel import inits
from pykernel.chain import NORMS
from pykernel.plan import Plan
from pykernel.theory import correlation
from pykernel.theory.batch import batch_table
from pykernel.theory.coherence import kept_shares
from pykernel.theory.quadrature import LOG_SLOPE2, LOG_VALUE2, MEAN, Moments, moments

CONVERGED = 1e-15


@dataclass
class Signal:
    """Forward pass. Arrays over layers 1..L unless they say otherwise; `distance` is one minus the correlation of two inputs.

    Attributes:
        weight: log sigma_w^2 (fan-in times the variance of an entry).
        bias: log sigma_b^2.
        preactivation: log mean square of z[l].
        activation: log mean square of a[l], l = 0..L.
        mean: mean of a[l] over its root mean square, l = 0..L.
        input: log mean square of u[l].
        input_distance: 1 - cosine of two inputs' u[l].
        preimage: log of the standard deviation of what phi acts on.
        raw: log mean square of the same before the norm.
        spread: log of (variance minus covariance) of the same before the norm; -inf with one input.
        distance: 1 - cosine of a[l], l = 0..L.
    """

    weight: np.ndarray
    bias: np.ndarray
    preactivation: np.ndarray
    activation: np.ndarray
    mean: np.ndarray
    input: np.ndarray
    input_distance: np.ndarray
    preimage: np.ndarray
    raw: np.ndarray
    spread: np.ndarray
    distance: np.ndarray


def weight_log(plan: Plan) -> np.ndarray:
    """log sigma_w^2 of each layer, (L,); refuses weights whose entries are not independent with a variance, except Haar and trivial
    identities.
    """
    n_in, n_out = plan.widths[:-1].astype(float), plan.widths[1:].astype(float)
    with np.errstate(divide="ignore"):
        if plan.distribution == "haar":
            return 2 * np.log(np.abs(plan.scale)) + np.log(n_in / np.maximum(n_in, n_out))
        if plan.distribution == "identity":
            plain = plan.activation.name == "linear" and plan.norm == 0 and not plan.residual_every and not np.any(plan.bias_scale)
            if plain and np.all(n_in == n_out):
                return 2 * np.log(np.abs(plan.scale))
        variance = inits.unit_variance(plan.distribution, plan.distribution_parameter)
        if not math.isfinite(variance):
            raise ValueError(
                "mean field needs independent weights of finite variance or Haar matrices "
                "(identity: square, linear, without bias, norm or residual), "
                f"got {plan.distribution} weights with {plan.activation}; use propagate"
            )
        return (
            np.log(_plain(plan.scale**2 * (n_in * variance)))
            if np.all(plan.scale**2 > 1e-300)
            else 2 * np.log(np.abs(plan.scale)) + np.log(n_in * variance)
        )


def _plain(values: np.ndarray) -> np.ndarray:
    """Values to 14 digits: sqrt(2 / n)^2 n is 2, and a thousand layers of it leave no dust."""
    unique, back = np.unique(values, return_inverse=True)
    return np.array([float(f"{v:.14g}") for v in unique])[back].reshape(values.shape)


def bias_log(plan: Plan) -> np.ndarray:
    """log sigma_b^2 of each layer, (L,)."""
    if plan.bias_distribution == "given":
        raise ValueError("mean field needs random biases, got the caller's arrays; use propagate")
    unit = {"zero": 0.0, "normal": 1.0, "uniform": 1 / 3}[plan.bias_distribution]
    with np.errstate(divide="ignore"):
        return 2 * np.log(np.abs(plan.bias_scale)) + np.log(unit)


def log_add(x: float, y: float) -> float:
    """log(e^x + e^y)."""
    if x < y:
        x, y = y, x
    return x if y == -math.inf else x + math.log1p(math.exp(y - x))


def forward(plan: Plan) -> Signal:
    """Mean squares, means and distances of every layer."""
    L, B = plan.depth, plan.batch
    weight, bias = weight_log(plan), bias_log(plan)
    out = Signal(weight, bias, *(np.empty(L + extra) for extra in (0, 1, 1, 0, 0, 0, 0, 0, 1)))
    state = _Forward(plan, weight.tolist(), bias.tolist(), out)
    if NORMS[plan.norm] == "batch" and B >= 2:
        state.run_batch()
    else:
        state.run()
        if B >= 2:
            _distances(plan, out)
        else:
            for array in (out.input_distance, out.distance):
                array[:] = np.nan
            out.spread[:] = -np.inf
    return out


class _Forward:
    """The recursion over layers; plain floats, as each step needs the one before."""

    def __init__(self, plan: Plan, weight: list[float], bias: list[float], out: Signal):
        self.plan, self.weight, self.bias, self.out = plan, weight, bias, out
        self.table = moments(plan.activation)
        self.norm, self.log_eps = NORMS[plan.norm], math.log(plan.norm_eps)
        self.every, self.scale = plan.residual_every, plan.residual_scale.tolist()
        # an odd function has no mean at any scale; selu has none at scale 1 alone
        self.leans = bool(self.every) and any(abs(self.table.column(t, MEAN)) > 1e-14 for t in (0.0, 0.7))
        self.uniform = not self.every and len(set(weight)) == len(set(bias)) == 1 and math.isfinite(weight[0])

    def preimage(self, raw: float) -> float:
        """log standard deviation of what phi acts on, from the log mean square before the norm."""
        if self.norm is None:
            return raw / 2
        if self.norm == "batch":  # one input: its own mean is subtracted, nothing is left
            return -math.inf
        return (raw - log_add(raw, self.log_eps)) / 2

    def value(self, t: float) -> tuple[float, float]:
        """log E phi^2 and E phi / sqrt(E phi^2)."""
        if t == -math.inf:
            at = float(np.asarray(self.plan.activation.value(np.zeros(1)))[0])
            return (2 * math.log(abs(at)), math.copysign(1.0, at)) if at else (-math.inf, 0.0)
        return self.table.column(t, LOG_VALUE2), self.table.column(t, MEAN) if self.leans else 0.0

    def run(self) -> None:
        if self.every:
            self.run_residual()
        else:
            self.run_plain()

    def run_plain(self) -> None:
        """Without residual sums only the mean square goes along: one column of the table and one sum a layer."""
        out, L, column = self.out, self.plan.depth, self.table.column
        normed, first = self.norm is not None, self.plan.order == 0
        empty = self.value(-math.inf)[0]
        A, U = [0.0], []
        before = a = 0.0
        for w, b in zip(self.weight, self.bias, strict=True):
            if first:
                U.append(a)
                raw = log_add(w + a, b) if b > -math.inf else w + a
            else:
                raw = a
            t = self.preimage(raw) if normed else raw / 2
            new = column(t, LOG_VALUE2) if t > -math.inf else empty
            if not first:
                U.append(new)
                new = log_add(w + new, b) if b > -math.inf else w + new
            A.append(new)
            near = CONVERGED * (1 + abs(new))
            if self.uniform and abs(new - a) <= near and abs(a - before) <= near and len(A) > 3:
                A += [new] * (L + 1 - len(A))
                U += [U[-1]] * (L - len(U))
                break
            before, a = a, new
        out.activation[:], out.input[:] = A, U
        with np.errstate(invalid="ignore"):
            out.preactivation[:] = np.logaddexp(out.weight + out.input, out.bias) if first else out.activation[1:]
        out.raw[:] = out.preactivation if first else out.activation[:-1]
        if self.norm is None:
            out.preimage[:] = out.raw / 2
        elif self.norm == "batch":
            out.preimage[:] = -np.inf
        else:
            out.preimage[:] = (out.raw - np.logaddexp(out.raw, self.log_eps)) / 2
        out.mean[:] = self.means(np.zeros(L + 1))

    def run_residual(self) -> None:
        plan, out, L = self.plan, self.out, self.plan.depth
        A, M = [0.0], [0.0]
        rows: list[tuple[float, float, float, float]] = []  # z, u, raw, t
        first = plan.order == 0
        for l in range(1, L + 1):
            w, b = self.weight[l - 1], self.bias[l - 1]
            if first:
                u = A[-1]
                z = log_add(w + u, b)
                t = self.preimage(z)
                v, mean = self.value(t)
                rows.append((z, u, z, t))
            else:
                raw = A[-1]
                t = self.preimage(raw)
                u, _ = self.value(t)
                z = log_add(w + u, b)
                v, mean = z, 0.0
                rows.append((z, u, raw, t))
            if l % self.every == 0:
                s = self.scale[l - 1]
                v, mean = residual_sum(A[l - self.every], M[l - self.every], v, mean, s)
            A.append(v)
            M.append(mean)
        out.activation[:] = A
        out.preactivation[:], out.input[:], out.raw[:], out.preimage[:] = np.array(rows).T
        out.mean[:] = self.means(np.array(M))

    def means(self, tracked: np.ndarray) -> np.ndarray:
        """Means of a over its root mean square; read from the table at once where no residual sum needed them on the way."""
        if self.every or self.plan.order == 1:
            return tracked
        t = self.out.preimage
        inside = np.isfinite(t)
        tracked[1:][inside] = self.table(t[inside], [MEAN])[0] if inside.any() else 0.0
        tracked[1:][~inside] = self.value(-math.inf)[1]
        return tracked

    def run_batch(self) -> None:
        """The same with batch normalisation, where variance and covariance of the batch go together."""
        plan, out, L = self.plan, self.out, self.plan.depth
        table = batch_table(plan.activation, plan.batch)
        gap = math.log(max(1 - plan.correlation, 1e-300))
        A, M, D = [0.0], [0.0], [gap]
        for l in range(1, L + 1):
            w, b, i = self.weight[l - 1], self.bias[l - 1], l - 1
            if plan.order == 0:
                u, du = A[-1], D[-1]
                out.preactivation[i] = out.raw[i] = log_add(w + u, b)
                out.spread[i] = w + du
                v, mean, dv = self.normalised(table, w + du)
            else:
                out.raw[i], out.spread[i] = A[-1], D[-1]
                u, _, du = self.normalised(table, D[-1])
                out.preactivation[i] = v = log_add(w + u, b)
                mean, dv = 0.0, w + du
            out.input[i], out.input_distance[i] = u, math.exp(du - u) if u > -math.inf else math.nan
            out.preimage[i] = 0.0
            if self.every and l % self.every == 0:
                s = self.scale[i]
                v, mean = residual_sum(A[l - self.every], M[l - self.every], v, mean, s)
                dv = log_add(D[l - self.every], dv + 2 * math.log(abs(s)) if s else -math.inf)
            A.append(v)
            M.append(mean)
            D.append(dv)
        out.activation[:], out.mean[:] = A, M
        with np.errstate(invalid="ignore"):
            out.distance[:] = np.exp(np.array(D) - np.array(A))

    def normalised(self, table: Any, spread: float) -> tuple[float, float, float]:
        m = table.at(spread, self.log_eps)
        if m.value2 <= 0:
            return -math.inf, 0.0, -math.inf
        gap = m.value2 - m.cross
        return math.log(m.value2), m.mean / math.sqrt(m.value2), math.log(gap) if gap > 0 else -math.inf


def residual_sum(A: float, M: float, v: float, mean: float, s: float) -> tuple[float, float]:
    """Log mean square and relative mean of a + s v, for a and v independent given their means (a unit's own weights are fresh)."""
    if s == 0 or v == -math.inf:
        return A, M
    if -math.inf == A:
        return v + 2 * math.log(abs(s)), math.copysign(1.0, s) * mean
    top = max(A, v + 2 * math.log(abs(s)))
    x, y = math.exp((A - top) / 2), math.copysign(math.exp((v - top) / 2 + math.log(abs(s))), s)
    total = x * x + y * y + 2 * x * y * M * mean
    return (top + math.log(total), (x * M + y * mean) / math.sqrt(total)) if total > 0 else (-math.inf, 0.0)


def _distances(plan: Plan, out: Signal) -> None:
    """Fill the distances of a chain without batch norm, whose mean squares are known: 1 - c is carried from layer to layer.

    Where it changes slowly (near criticality) steps span several layers, by Heun's rule with halving: 1e-3 of 1 - c at the end of 1e5
    layers.
    """
    L, row = plan.depth, plan.activation
    table: Moments = moments(row)
    t, first = out.preimage, plan.order == 0
    columns = table(np.where(np.isfinite(t), t, 0.0))
    linear = np.exp(np.minimum(columns[LOG_SLOPE2] + 2 * t - columns[LOG_VALUE2], 700.0))
    cheap = correlation._arc(row) is not None
    scale, every = plan.residual_scale, plan.residual_every
    share = np.exp(out.weight + out.input - out.preactivation)  # of the variance of z that does not come from the bias

    rates: dict[tuple[int, int], float] = {}

    def through(i: int, d: float) -> float:
        if d < 1e-11 or not math.isfinite(t[i]):
            return d * float(linear[i]) if math.isfinite(t[i]) else 0.0
        if cheap or i < 64:
            return correlation.distance_map(row, math.exp(min(max(t[i], -340.0), 340.0)), d)
        key = round(400 * float(t[i])), round(400 * math.log(d))  # deep layers change slowly: rates to 1e-3 do
        if key not in rates:
            at = math.exp(key[1] / 400)
            rates[key] = correlation.distance_map(row, math.exp(min(max(key[0] / 400, -340.0), 340.0)), min(at, 2.0)) / at
        return d * rates[key]

    def step(i: int, d: float) -> tuple[float, float]:
        """(distance of u, distance of the branch) from the distance of a[l - 1], i = l - 1."""
        if first:
            u, v = d, through(i, d * float(share[i]))
        else:
            u = through(i, d)
            v = u * float(share[i])
        return u, d * float(kept[i]) + v * float(added[i]) if every == 1 else v

    d = [1.0 - plan.correlation]
    A, V = out.activation, _branch_log(plan, out)
    if every == 1:  # shares of the skip and of the branch in the mean square of their sum
        kept, added = np.exp(A[:-1] - A[1:]), scale**2 * np.exp(V - A[1:])
    i = 0
    while i < L:
        if not every and d[i] < 1e-11:  # inputs that have fallen together: the map is linear, many layers at once
            with np.errstate(invalid="ignore"):
                here = d[i] * np.cumprod(np.where(np.isfinite(t[i:]), linear[i:] * share[i:], 0.0))
            apart = np.flatnonzero(here >= 1e-11)
            count = int(apart[0]) + 1 if len(apart) else L - i
            d += here[:count].tolist()
            out.input_distance[i : i + count] = d[i : i + count] if first else here[:count] / np.maximum(share[i : i + count], 1e-300)
            i += count
            continue
        u, v = step(i, d[i])
        if every > 1:
            if (i + 1) % every == 0:
                back = i + 1 - every
                s2 = scale[i] ** 2
                v = d[back] * math.exp(A[back] - A[i + 1]) + (s2 * v * math.exp(V[i] - A[i + 1]) if s2 else 0.0)
            out.input_distance[i] = u
            d.append(min(v, 2.0))
            i += 1
            continue
        jump = 1
        if not cheap and i > 64 and d[i] > 1e-11 and v > 0:
            jump = max(1, min(i // 32, L - i))
            rate = math.log(v / d[i])
            while jump > 1:
                ahead = max(d[i] * math.exp(rate * jump), 1e-300)
                later = math.log(max(step(min(i + jump, L - 1), ahead)[1], 1e-300) / ahead)
                if abs(later - rate) * jump < 2e-2 and abs(rate) * jump < 0.5:
                    break
                jump //= 4
            jump = max(jump, 1)
        if jump == 1:
            out.input_distance[i] = u
            d.append(v)
            i += 1
            continue
        for k in range(jump):
            grown = d[-1] * math.exp(rate + (later - rate) * k / jump)
            out.input_distance[i + k] = d[-1] if first else grown * u / v
            d.append(grown)
        i += jump
    out.distance[:] = d
    with np.errstate(divide="ignore"):
        before = np.log(out.distance[:-1]) + (out.raw if not first else out.raw + np.log(share))
    out.spread[:] = before


def _branch_log(plan: Plan, out: Signal) -> np.ndarray:
    """log mean square of the branch v[l] before the residual sum, (L,)."""
    if plan.order == 1:
        return out.preactivation
    table = moments(plan.activation)
    t = out.preimage
    at = float(np.asarray(plan.activation.value(np.zeros(1)))[0])
    empty = 2 * math.log(abs(at)) if at else -math.inf
    return np.where(np.isfinite(t), table(np.where(np.isfinite(t), t, 0.0))[LOG_VALUE2], empty)


@dataclass
class Gradient:
    """Backward pass: logs of squared norms summed over units and batch; log 0 at a[L] unless `start` says otherwise.

    Attributes:
        activation: of dJ/da[l], l = 0..L.
        preactivation: of dJ/dz[l], (L,).
        derivative: factor of phi and norm, (L,).
        coherence: correlation of dJ/dz[l] between two inputs of the batch, (L,); not 0 only with batch normalisation or below a head.
    """

    activation: np.ndarray
    preactivation: np.ndarray
    derivative: np.ndarray
    coherence: np.ndarray


def backward(plan: Plan, signal: Signal, start: float = 0.0, coherence: float = 0.0) -> Gradient:
    """Squared gradient norms of every layer, given the forward pass and (log squared norm, coherence) of dJ/da[L]."""
    L = plan.depth
    batch, log_eps = NORMS[plan.norm] == "batch", math.log(plan.norm_eps)
    G, Z, C = [0.0] * (L + 1), [0.0] * L, [0.0] * L
    kept = np.ones(L)
    if not batch:
        derivative = derivative_log(plan, signal)
        if coherence and plan.batch > 1:
            kept = kept_shares(plan, signal.preimage, signal.spread - signal.raw)
        if plan.residual_every <= 1:  # squared norms of the skip and of the branch add
            skip = bool(plan.residual_every)
            with np.errstate(divide="ignore"):
                through = 2 * np.log(np.abs(plan.residual_scale)) if skip else 0.0
            branch = through + derivative + signal.weight
            total = np.logaddexp(0.0, branch) if skip else branch
            activation = start + np.concatenate([np.cumsum(total[::-1])[::-1], [0.0]])
            z = activation[1:] + through + (derivative if plan.order == 0 else 0.0)
            share = np.exp(branch - total) if skip else 1.0
            alike = coherence * np.concatenate([np.cumprod((1 + share * (kept - 1))[::-1])[::-1], [1.0]])
            return Gradient(activation, z, derivative, alike[1:] * (kept if plan.order == 0 else 1.0))
        slopes = derivative.tolist()
    else:
        slopes = [0.0] * L
        table = batch_table(plan.activation, plan.batch) if plan.batch >= 2 else None
    weight, scale, every = signal.weight.tolist(), plan.residual_scale.tolist(), plan.residual_every
    held: dict[int, tuple[float, float]] = {}  # what skip connections bring to a[l]
    g, o = start, coherence
    for l in range(L, -1, -1):
        if l in held:
            g, o = _merge(g, o, *held.pop(l))
        G[l] = g
        if l == 0:
            break
        i = l - 1
        if every and l % every == 0:
            held[l - every] = (g, o)
            g = g + 2 * math.log(abs(scale[i])) if scale[i] else -math.inf
        if plan.order == 1:
            Z[i], C[i] = g, o
            g += weight[i]
        if batch:
            slopes[i], o = _through_batch(table, float(signal.spread[i]), log_eps, o, plan.batch)
        o *= kept[i]
        g += slopes[i]
        if plan.order == 0:
            Z[i], C[i] = g, o
            g += weight[i]
    return Gradient(np.array(G), np.array(Z), np.array(slopes), np.array(C))


def derivative_log(plan: Plan, signal: Signal) -> np.ndarray:
    """log of the factor that phi and a layer or RMS norm put on the squared gradient norm, (L,)."""
    t = signal.preimage
    inside = np.isfinite(t)
    table = moments(plan.activation)
    slope = table(np.where(inside, t, 0.0), [LOG_SLOPE2])[0] if table.level is None else np.full(plan.depth, table.level)
    at = float(np.asarray(plan.activation.slope(np.zeros(1)))[0])
    slope = np.where(inside, slope, 2 * math.log(abs(at)) if at else -math.inf)
    if NORMS[plan.norm] in ("layer", "rms"):
        slope = slope - np.logaddexp(signal.raw, math.log(plan.norm_eps))
    return slope


def _merge(g: float, o: float, h: float, p: float) -> tuple[float, float]:
    """Sum of two independent gradients with log squared norms g, h and coherences o, p."""
    total = log_add(g, h)
    if total == -math.inf:
        return total, 0.0
    return total, math.exp(g - total) * o + math.exp(h - total) * p


def _through_batch(table: Any, spread: float, log_eps: float, o: float, batch: int) -> tuple[float, float]:
    """log factor on the squared norm, and the new coherence: behind the norm gradients sum to zero over the batch."""
    if table is None or spread == -math.inf:
        return -math.inf, 0.0
    m = table.at(spread, log_eps)
    factor = (1 - o) * m.own + o * m.common
    return (math.log(factor) - spread if factor > 0 else -math.inf), -1.0 / (batch - 1)
