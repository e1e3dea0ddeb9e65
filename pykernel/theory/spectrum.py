# SPDX-License-Identifier: BSD-3-Clause
"""Singular values of a chain's input-output Jacobian at any depth, and what theory says of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pykernel import checks, machine, stream
from pykernel.block import Block, slopes, values
from pykernel.chain import Chain
from pykernel.dtypes import Floats
from pykernel.engines import reference
from pykernel.lower import lower
from pykernel.ops.linear import bias
from pykernel.ops.norm import normalise
from pykernel.program import BIASES, Program
from pykernel.samplers import with_samples
from pykernel.tables import Shown, Strong
from pykernel.theory.extremes import extremes
from pykernel.theory.laws import digamma
from pykernel.theory.plain import Plain, plain
from pykernel.theory.quadrature import HOMOGENEOUS

if TYPE_CHECKING:  # takes time and memory to load
    from numpy.typing import ArrayLike

LARGEST_FULL = 512  # inputs or outputs up to which all singular values are computed


@dataclass(frozen=True, repr=False)
class Spectrum(Shown):
    """Singular values of da[L]/da[0] for one input, replica by replica.

    Attributes:
        chain: what was computed.
        log10_singular: (replicas, k), decreasing; k = the smallest width where all were computed, else 2: the largest
            and the smallest (nan where widths differ: no inverse leads to it).
        lyapunov: (replicas, k), natural logs per layer: mean growth of a volume's k-th edge, from the QR factors (of
            two, the logs of the singular values over the depth).
        lyapunov_theory: (k,) for Gaussian linear chains with equal widths, else None.
        largest_theory: predicted log10 of the largest singular value of a wide chain, nan where there is no formula.
        variance_theory: predicted `relative_variance` of a wide chain at criticality, nan where there is no formula.
        complete: whether all singular values were computed.
    """

    chain: Chain
    log10_singular: np.ndarray
    lyapunov: np.ndarray
    lyapunov_theory: np.ndarray | None
    largest_theory: float
    variance_theory: float
    complete: bool

    @property
    def log10_condition(self) -> np.ndarray:
        """log10 of largest over smallest singular value, (replicas,); nan where the smallest was not computed."""
        return self.log10_singular[:, 0] - self.log10_singular[:, -1]

    @property
    def relative_variance(self) -> np.ndarray:
        """Variance over mean squared of the squared singular values, (replicas,); nan where not all were computed."""
        if not self.complete:
            return np.full(len(self.log10_singular), np.nan)
        squares = 100.0 ** (self.log10_singular - self.log10_singular[:, :1])
        return squares.var(axis=1) / squares.mean(axis=1) ** 2

    def __repr__(self) -> str:
        return f"<Spectrum of {self.chain}: {len(self.log10_singular)} replicas>"

    def shown(self) -> Iterator[Strong | str]:
        """The chain, its largest and its smallest singular value, medians over replicas."""
        top = float(np.median(self.log10_singular[:, 0]))
        theory = f" (theory 10^{self.largest_theory:+.4g})" if math.isfinite(self.largest_theory) else ""
        yield Strong(str(self.chain))
        yield f"largest singular value: 10^{top:+.4g}{theory}"
        low = float(np.median(self.log10_singular[:, -1]))
        if low == -math.inf:
            yield "smallest: 0"
        elif math.isfinite(low):
            yield f"smallest: 10^{low:+.4g}; condition number 10^{float(np.median(self.log10_condition)):.4g}"
        else:
            yield "smallest: not computed: widths above 512 differ"


def jacobian_spectrum(chain: Chain, *, replicas: int = 1, seed: int = 0, x: ArrayLike | None = None) -> Spectrum:
    """Singular values of the Jacobian of the output with respect to one input, at any depth.

    Args:
        chain: without batch norm. Widths up to 512, or an input or output of up to 512, give all singular values; else
            the largest and, of equal widths, the smallest, by Lanczos iteration on the layers and on their inverses,
            sizes kept as logs.
        replicas: independent draws of the weights, the same as `propagate` uses in its dense engine.
        seed: of the draws: weights, biases and input are those of `propagate` with this seed, one input.
        x: the input, (n[0],); drawn without.

    Returns:
        Spectrum.

    Raises:
        ValueError: batch norm (a Jacobian mixes the inputs of a batch), or a wrong x.

    Notes:
        J = J_L ... J_1 is never multiplied out: J_l Q_{l-1} = Q_l R_l and the triangular factors are multiplied with
        their scale taken out row by row, so
        singular values far beyond float range keep their digits; the logs of the diagonal of R give the Lyapunov
        exponents (Benettin et al. 1980).
        For Gaussian linear chains these are (1/2)(log(2/n) + digamma((n-k+1)/2)) (Newman 1986), plus the log of the
        gain. Largest singular value of a wide
        Gaussian linear chain: sqrt((L+1)^(L+1) / L^L) (Pennington, Schoenholz, Ganguli 2017, arXiv 1711.04735);
        orthogonal: all ones (Saxe et al. 2014).

    Examples:
        >>> s = jacobian_spectrum(Chain(depth=5, width=16, activation="linear", init="orthogonal"))
        >>> bool(np.allclose(s.log10_singular, 0, atol=1e-6))
        True
    """
    if not isinstance(chain, Chain):
        raise TypeError(f"chain must be a pykernel.Chain, got {type(chain).__name__}")
    replicas = checks.integer("replicas", replicas, 1, 10**6)
    column = None if x is None else np.reshape(np.asarray(x, float), (-1, 1))
    facts = None
    if not chain.is_spatial:
        facts = plain(lower(chain.replace(head=None), seed=seed, dtype="float64", x=column))
    if facts is None:
        raise ValueError(
            f"the Jacobian's spectrum is known for chains of equal layers, each one activation, got {chain}; see "
            "propagate"
        )
    if facts.norm == "batch":
        raise ValueError("the Jacobian of one input needs a chain without batch norm, got norm='batch'")
    complete = int(min(facts.widths[[0, -1]])) <= LARGEST_FULL
    if int(facts.widths[0]) > LARGEST_FULL:
        held = "every weight of this chain" + ("" if complete else " and every inverse")
        machine.require_memory(
            (8 if complete else 16) * chain.weight_count, held, "inputs up to 512 need one layer at a time"
        )
    with np.errstate(over="ignore", under="ignore"):  # of numbers whose exponent is kept apart
        results = [_one(facts, r, complete) for r in range(replicas)]
    singular = np.array([r[0] for r in results])
    lyapunov = np.array([r[1] for r in results])
    shared = bool(facts.program.counts.weight)  # theory is of independent factors
    exponents = _lyapunov_theory(facts) if complete and not shared else None
    largest, variance = (math.nan, math.nan) if shared else (_largest_theory(facts), _variance_theory(facts))
    return Spectrum(chain, singular, lyapunov, exponents, largest, variance, complete)


def _one(facts: Plain, replica: int, complete: bool) -> tuple[Floats, Floats]:
    """log10 singular values and Lyapunov exponents of one draw."""
    steps = _steps(facts, replica)
    n0, smallest = int(facts.widths[0]), int(facts.widths.min())
    ordered: Iterable[_Step]
    if complete:
        transposed = n0 > LARGEST_FULL  # from the narrow end: a matrix and its transpose have the same singular values
        n, ordered = (int(facts.widths[-1]), reversed(list(steps))) if transposed else (n0, steps)
        basis, triangle, exponent = np.eye(n), np.eye(n), np.zeros(n)
        growth, rank = np.zeros(n), smallest
        for apply in ordered:
            rank = min(rank, apply.rank())
            for part in apply.parts(transposed):
                q, r = _factors(part(basis))
                sign = np.where(np.diag(r) < 0, -1.0, 1.0)
                basis, r = q * sign, r * sign[:, None]
                with np.errstate(divide="ignore"):
                    growth = growth[: len(r)] + np.log(np.abs(np.diag(r[:, : len(r)])))
                triangle, exponent = _multiply(r, triangle, exponent)
        singular, growth = _singular(triangle, exponent)[:smallest], (growth / facts.depth)[:smallest]
        # exact zeros, of which rounding left some 1e-16; the columns of Q that stood for them mean nothing
        if rank < smallest:
            singular[rank:] = -np.inf
            growth = singular / facts.depth
        return singular / math.log(10), growth
    every = list(steps)
    start = stream.tall(facts.program.seed, stream.INPUT_COMMON, 0, replica, n0).astype(float).ravel()
    ends = np.array(extremes(every, start, min(step.rank() for step in every) < smallest))
    return ends / math.log(10), ends / facts.depth


def _factors(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q and R, the longest rows first on the way: rows of very different sizes (slopes of 1e-20) then keep their own
    digits.

    Notes:
        Cox, Higham 1998, Stability of Householder QR factorization for weighted least squares problems.
    """
    order = np.argsort(-np.abs(matrix).max(axis=1), kind="stable")
    q, r = np.linalg.qr(matrix[order])
    out = np.empty_like(q)
    out[order] = q
    return out, r


def _multiply(r: np.ndarray, triangle: np.ndarray, exponent: np.ndarray) -> tuple[Floats, Floats]:
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

    One-sided Jacobi rotations of the rows, whose sizes stay outside as exponents: exact to rounding for every value,
    however small (Demmel, Veselic 1992).
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
    product = pp * rr
    return float(np.max(np.abs(pr) / np.sqrt(np.where(product > 0, product, np.inf))))


def _steps(facts: Plain, replica: int) -> Iterator[_Step]:
    """The Jacobian of each layer, or of each group of layers that a skip connection bridges, along the forward pass of
    one input."""
    program = facts.program if facts.program.samplers is None else with_samples(facts.program, replica)
    operator, k = reference.Dense(program, replica), facts.every
    bridged = facts.depth - facts.depth % k if k else 0
    a = skip = reference.input_block(program, replica)
    group = []
    for layer in range(1, facts.depth + 1):
        W = program.layers.scale[layer - 1] * operator.matrix(layer)
        first, norm = facts.order == 0, program.norms[program.steps.norm[layer - 1]]
        row = program.activations[program.steps.row[layer - 1]]
        preimage, back = normalise(norm, _times(program, W, replica, layer, a) if first else a)
        slope = slopes(row, preimage, Block(np.ones((len(preimage.x), 1))))[0].true()
        value = values(row, preimage)
        group.append(_Layer(W, slope, back, first, norm.kind == "layer"))
        a = value if first else _times(program, W, replica, layer, value)
        if layer > bridged:
            yield _Step(group, 0.0, 1.0)
            group = []
        elif layer % k == 0:
            branch = float(program.joins.branch[layer // k - 1])
            a = skip = skip.plus(a.times(branch))
            yield _Step(group, 1.0, branch)
            group = []


def _times(program: Program, W: np.ndarray, replica: int, layer: int, u: Block) -> Block:
    """W u + b."""
    z = Block(W @ u.x, u.e)
    if BIASES[program.layers.bias_draw[layer - 1]] == "zero":
        return z
    return z.plus(Block.of(program, bias(program, replica, layer)))


class _Layer:
    """One layer's Jacobian; that of a norm is symmetric."""

    def __init__(self, W: np.ndarray, slope: np.ndarray, back: Callable, first: bool, centred: bool) -> None:
        self.W, self.slope, self.back, self.first, self.centred = W, slope, back, first, centred

    def rank(self) -> int:
        """A bound on the rank: units that pass something on, rows and columns of W that are not zero, a layer norm's
        lost mean."""
        live = (int(np.count_nonzero(units)) for units in (self.slope, self.W.any(axis=1), self.W.any(axis=0)))
        return min(*live, len(self.slope) - self.centred)

    def parts(self, transpose: bool) -> list[Callable]:
        """The same as factors that end in the slopes, where these differ much: a matrix behind them would mix small
        rows with large."""
        live = np.abs(self.slope[self.slope != 0])
        if self.first != transpose or not len(live) or live.min() > 1e-3 * live.max():
            return [lambda v: self(v, transpose)]
        norm = lambda x: self.back(Block(x)).true()
        if self.first:
            return [lambda v: self.slope * v, lambda v: self.W.T @ norm(v)]
        return [lambda v: self.slope * norm(v), lambda v: self.W @ v]

    def __call__(self, v: np.ndarray, transpose: bool) -> np.ndarray:
        norm = lambda x: self.back(Block(x)).true()
        if self.first:  # z = W a, then norm, then phi
            return self.W.T @ norm(self.slope * v) if transpose else self.slope * norm(self.W @ v)
        return norm(self.slope * (self.W.T @ v)) if transpose else self.W @ (self.slope * norm(v))


class _Step:
    """The Jacobian of a group of layers: skip + scale * product."""

    def __init__(self, layers: list[_Layer], skip: float, scale: float) -> None:
        self.layers, self.skip, self.scale = layers, skip, scale

    def rank(self) -> int:
        """A bound on the rank: where a skip connection bridges the layers there is none but their width."""
        return len(self.layers[-1].W) if self.skip else min(layer.rank() for layer in self.layers)

    def parts(self, transpose: bool) -> list[Callable]:
        """Factors of the step, in the order in which they act."""
        if self.skip or len(self.layers) > 1 or self.scale != 1.0:
            return [lambda v: self(v, transpose)]
        return self.layers[0].parts(transpose)

    def __call__(self, v: np.ndarray, transpose: bool = False) -> np.ndarray:
        image = v if v.ndim == 2 else v[:, None]
        for layer in self.layers[:: -1 if transpose else 1]:
            image = layer(image, transpose)
        image = image.reshape(-1, *v.shape[1:])
        return self.skip * v + self.scale * image if self.skip else image


def _gain(facts: Plain, *distributions: str) -> float:
    """log10 of sigma_w, every layer's, of plain chains of equal width without norm, skip or bias and with such weights,
    else nan."""
    layers = facts.program.layers
    plain_chain = facts.norm is None and not facts.every and not facts.biased
    same = len(set(facts.widths.tolist())) == len(set(layers.scale.tolist())) == 1
    if not (plain_chain and same and facts.distribution in distributions):
        return math.nan
    if layers.scale[0] == 0:
        return -math.inf
    return math.log10(abs(layers.scale[0])) + (
        0.5 * math.log10(facts.widths[0]) if facts.distribution == "normal" else 0.0
    )


def _linear(facts: Plain) -> bool:
    return facts.activation is not None and facts.activation.name == "linear"


def _lyapunov_theory(facts: Plain) -> np.ndarray | None:
    gain = _gain(facts, "normal")
    if not _linear(facts) or math.isnan(gain):
        return None
    n = int(facts.widths[0])
    return np.array([0.5 * (math.log(2 / n) + digamma((n - k + 1) / 2)) + gain * math.log(10) for k in range(1, n + 1)])


def _largest_theory(facts: Plain) -> float:
    L, gain = facts.depth, _gain(facts, "normal", "haar")
    if not _linear(facts):
        return math.nan
    grown = 0.5 * ((L + 1) * math.log10(L + 1) - L * math.log10(L)) if facts.distribution == "normal" else 0.0
    return grown + L * gain


def _variance_theory(facts: Plain) -> float:
    """L (mu_2 / mu_1^2 - 1 - s_1), mu_k = E phi'^(2k), s_1 = -1 for Gaussian, 0 for orthogonal weights (Pennington et
    al. 2017, eq. 20)."""
    row = facts.activation
    if row is None or row.name not in HOMOGENEOUS or math.isnan(_gain(facts, "normal", "haar")):
        return math.nan
    first, second = ((float(row.left) ** k + float(row.right) ** k) / 2 for k in (2, 4))
    return facts.depth * (second / first**2 - 1 + (facts.distribution == "normal"))
