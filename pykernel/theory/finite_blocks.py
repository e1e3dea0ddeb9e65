# SPDX-License-Identifier: BSD-3-Clause
"""Finite width of chains of blocks: laws of the log gradient norm that multiply from block to block.

Throughout, for one input and a cotangent independent of it: a layer of independent normal weights sends any gradient
to iid normals, so W^T g has |g|^2 tau^2 chi^2_n, fresh and without direction; what a skip lets pass is added to that,
which makes the factor of a block a noncentral chi^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from pykernel.ops import TABLES
from pykernel.program import Program
from pykernel.theory.correlation import two_slopes
from pykernel.theory.finite import FiniteWidth
from pykernel.theory.laws import digamma, haar_relu, leaky_share, trigamma
from pykernel.theory.weights import weight_log

HERMITE = np.polynomial.hermite_e.hermegauss(15)  # over the log of what a branch passes back


@dataclass(frozen=True)
class Path:
    """What lies between the last node and a register, as the gradient meets it: its squared norm is multiplied by
    exp(log), and by chi^2 of `units` where a layer of normal weights begins the way.

    Attributes:
        log, spread: mean and variance of `log`.
        units: columns of the first layer, 0 without one.
        closed: whether only the norm is known, and not that the gradient has no direction.
        fresh: whether the register is a layer's output, or the input: signs of its entries are fair coins, and what
            comes back to it need have no direction.
    """

    log: float = 0.0
    spread: float = 0.0
    units: int = 0
    closed: bool = False
    fresh: bool = False


EXACT = "exact: factors of blocks are independent, chi^2 of a layer's units times slopes by fair coins"
EXACT_SUMS = "exact: factors of blocks are independent, noncentral chi^2 of a layer's units"
NEARLY = (
    "factors of blocks taken as independent: noncentral chi^2, and of functions in branches the slopes as fair coins; "
    "right to first order in 1/width"
)


def law(program: Program) -> FiniteWidth | None:
    """The law of a chain of blocks of layers, functions of two slopes and sums, or None."""
    found = increments(program)
    if found is None:
        return None
    means, variances, exact = found
    totals = [np.concatenate([np.cumsum(v[::-1])[::-1], [0.0]]) for v in (means, variances)]
    if not np.isfinite(totals).all():
        return None
    sums = bool(len(program.joins.skip))
    words = (EXACT_SUMS if sums else EXACT) if exact else NEARLY
    return FiniteWidth(totals[0], totals[1], _dead(program), words)


def _dead(program: Program) -> float:
    """Chance that some layer's ReLU has no unit alive; with a skip nothing dies of it."""
    relu = [row.name == "relu" for row in program.activations]
    if len(program.joins.skip) or not any(relu):
        return 0.0
    units = [n for row, n in _acted_on(program) if relu[row]]
    return float(-np.expm1(np.sum(np.log1p(-np.exp2(-np.array(units, float))))))


def _acted_on(program: Program) -> list[tuple[int, int]]:
    """Row and units of every activation step of a program without sums."""
    out, n = [], int(program.nodes[0])
    for stretch in program.stretches:
        for i in range(stretch.count):
            for op in stretch.ops:
                number = stretch.number(TABLES[op.kind], op, i)
                if op.kind == "linear":
                    n = int(program.layers.units[number])
                elif op.kind == "phi":
                    out.append((int(program.steps.row[number]), n))
    return out


def reason(program: Program) -> str:
    """What has no finite-width law in a program that has none, in words; "" where it is none of its parts."""
    kinds = {op.kind for stretch in program.stretches for op in stretch.ops}
    norms = {norm.kind for norm in program.norms_used} - {None}
    named = (
        ("mix", "attention"),
        ("gate", "gates"),
        ("mask", "dropout"),
        ("gather", "convolutions"),
        ("pool", "pools"),
    )
    found = [words for kind, words in named if kind in kinds]
    found += ["batch norm"] if "batch" in norms else []
    found += ["norms beside sums"] if norms - {"batch"} and "add" in kinds else []
    return " and ".join(found)


def increments(program: Program) -> tuple[np.ndarray, np.ndarray, bool] | None:
    """Mean and variance of what each node's block multiplies the squared gradient by, natural logs, (N,), and whether
    they are exact; None where none of this is known: norms, gates, dropout, biases, functions with other than two
    slopes or on sums."""
    walk = _Walk(program)
    if program.head.loss or np.any(program.layers.bias_scale) or walk.unknown():
        return None
    for stretch in program.stretches:
        for i in range(stretch.count):
            for op in stretch.ops:
                if not walk.step(op, stretch.number(TABLES[op.kind], op, i)):
                    return None
    return np.array(walk.means), np.array(walk.variances), walk.exact


class _Walk:
    def __init__(self, program: Program) -> None:
        self.program, self.exact, self.summed = program, True, bool(len(program.joins.skip))
        self.weight = weight_log(program).tolist()
        self.columns, self.draws = program.layers.columns.tolist(), program.layers.draw.tolist()
        self.skip, self.branch = program.joins.skip.tolist(), program.joins.branch.tolist()
        self.square = (program.layers.units == program.layers.columns).tolist()
        self.slopes = [two_slopes(row) for row in program.activations]
        self.at: dict[int, Path] = {0: Path(fresh=True)}
        self.units = {0: int(program.nodes[0])}
        self.means: list[float] = []
        self.variances: list[float] = []

    def unknown(self) -> bool:
        """Whether some part of the program has no law here, whatever its place."""
        kinds = {op.kind for stretch in self.program.stretches for op in stretch.ops}
        drawn = {draw.distribution for draw in self.program.draws}
        return (
            not kinds <= {"linear", "phi", "add", "scale", "node"}
            or not drawn <= {"normal", "haar"}
            or None in self.slopes
            or bool(np.any(self.program.steps.norm))
        )

    def step(self, op: Any, number: int) -> bool:
        """One op; whether its law is known."""
        path, n = self.at[op.ins[0]], self.units[op.ins[0]]
        if op.kind == "linear":
            out = self._linear(path, number)
            n = int(self.program.layers.units[number])
        elif op.kind == "phi":
            out = self._phi(path, int(self.program.steps.row[number]), n)
        elif op.kind == "scale":
            factor = float(self.program.factors[number])
            out = replace(path, log=path.log + 2 * math.log(abs(factor))) if factor else None
        elif op.kind == "add":
            out = self._add(path, self.at[op.ins[1]], number)
        else:
            out = self._node(path)
        if out is None:
            return False
        self.at[op.out], self.units[op.out] = out, n
        return True

    def _linear(self, path: Path, l: int) -> Path | None:
        n, log = self.columns[l], self.weight[l]
        if self.program.draws[self.draws[l]].distribution == "haar":
            if not self.square[l] or self.summed:
                return None
            return Path(path.log + log, path.spread, path.units, path.closed, True)
        log -= math.log(n)  # of the variance of an entry
        if path.units or path.closed:
            log, spread = log + digamma(n / 2) + math.log(2), trigamma(n / 2)
            return replace(path, log=path.log + log, spread=path.spread + spread, fresh=True)
        return Path(path.log + log, path.spread, n, False, True)

    def _phi(self, path: Path, row: int, n: int) -> Path | None:
        left, right = self.slopes[row]  # type: ignore[misc]
        if left == right:
            return replace(path, log=path.log + 2 * math.log(abs(left))) if left else None
        if not path.fresh:
            return None
        if left and right:
            mean, variance = leaky_share(n, left, right)
        else:
            mean, variance = haar_relu(n)
            mean += 2 * math.log(abs(left or right)) - math.log(2)
        self.exact = self.exact and not self.summed
        # behind the last node it is the gradient of that node that loses entries, and with them its lack of direction
        closed = path.closed or not path.units
        return Path(path.log + mean, path.spread + variance, path.units, closed, False)

    def _add(self, passed: Path, branch: Path, j: int) -> Path | None:
        k, s = self.skip[j], self.branch[j]
        if s == 0 or branch.log == -math.inf:
            return replace(passed, log=passed.log + 2 * math.log(abs(k)), fresh=False) if k else None
        if not branch.fresh or (passed.units and not passed.fresh):
            return None  # a function ends it: how much of the gradient it takes depends on the gradient's direction
        branch = replace(branch, log=branch.log + 2 * math.log(abs(s)), fresh=False)
        if k == 0:
            return branch
        passed = replace(passed, log=passed.log + 2 * math.log(abs(k)))
        if branch.closed or passed.closed or not branch.units or (passed.spread and not passed.units):
            return None
        if passed.units:
            self.exact = self.exact and not (passed.spread or branch.spread)
            mean, variance = _sum_of_logs(passed, branch)
            return Path(mean, variance, branch.units)
        self.exact = self.exact and not branch.spread
        mean, variance = noncentral(branch.units, passed.log, branch.log, branch.spread)
        return Path(mean, variance, closed=True)

    def _node(self, path: Path) -> Path:
        mean, variance = path.log, path.spread
        if path.units:
            mean, variance = mean + digamma(path.units / 2) + math.log(2), variance + trigamma(path.units / 2)
        self.means.append(mean)
        self.variances.append(variance)
        return Path(fresh=path.fresh)


def _sum_of_logs(first: Path, second: Path) -> tuple[float, float]:
    """Mean and variance of log(e^x + e^y), x and y normal."""
    r, w = HERMITE
    w = w / w.sum()
    x = first.log + math.sqrt(first.spread) * r[:, None]
    y = second.log + math.sqrt(second.spread) * r
    total, both = np.logaddexp(x, y), np.outer(w, w)
    mean = float((both * total).sum())
    return mean, float((both * (total - mean) ** 2).sum())


@lru_cache(maxsize=4096)
def noncentral(n: int, log_skip: float, log_branch: float, spread: float = 0.0) -> tuple[float, float]:
    """Mean and variance of log |k e + t z|^2, e of length 1, z of n standard normals: log k^2 = log_skip, log t^2
    normal of mean log_branch and variance spread.

    Notes:
        t^2 chi'^2_n(k^2 / t^2), a mixture of chi^2 of n + 2J, J Poisson of mean k^2 / 2t^2: the moments of log chi^2
        are digamma and trigamma.

    Examples:
        >>> mean, variance = noncentral(100, 0.0, -math.log(100))  # x + W x, W of variance 1/n
        >>> round(mean - math.log(2), 4), round(variance, 4)
        (-0.0075, 0.0152)
    """
    r, w = HERMITE if spread else (np.zeros(1), np.ones(1))
    moments = np.array([_noncentral(n, log_skip, log_branch + math.sqrt(spread) * x) for x in r])
    w = w / w.sum()
    mean = float(w @ moments[:, 0])
    return mean, float(w @ (moments[:, 1] + (moments[:, 0] - mean) ** 2))


def _noncentral(n: int, log_skip: float, log_branch: float) -> tuple[float, float]:
    half = math.exp(min(log_skip - log_branch, 60.0)) / 2
    if half > 1e9:  # nothing but the skip, and a normal along it
        return log_skip + (n - 2) / (2 * half), 2 / half
    reach = 10 * math.sqrt(half) + 20
    j = np.arange(max(0, math.floor(half - reach)), math.ceil(half + reach) + 1)
    step = max(1, len(j) // 20_000)
    j = j[::step].astype(float)
    weight = j * math.log(half) - half - _log_gamma(j + 1)
    p = np.exp(weight - weight.max())
    p /= p.sum()
    first, second = _polygamma(n / 2 + j)
    mean = float(p @ first)
    return log_branch + math.log(2) + mean, float(p @ (second + (first - mean) ** 2))


def _polygamma(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """digamma and trigamma, elementwise, by the series that `laws` has for one number."""
    shift, square = np.zeros_like(x), np.zeros_like(x)
    for _ in range(10):
        shift, square, x = shift - 1 / x, square + 1 / x**2, x + 1
    y = 1 / (x * x)
    first = np.log(x) - 0.5 / x - y * (1 / 12 - y * (1 / 120 - y * (1 / 252 - y * (1 / 240 - y / 132))))
    second = 1 / x + y / 2 + y / x * (1 / 6 - y * (1 / 30 - y * (1 / 42 - y * (1 / 30 - y * 5 / 66))))
    return shift + first, square + second


def _log_gamma(x: np.ndarray) -> np.ndarray:
    return np.array([math.lgamma(v) for v in x.tolist()])
