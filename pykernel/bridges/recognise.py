# SPDX-License-Identifier: BSD-3-Clause
"""Which scheme weights were drawn from: by likelihood over fans and distributions, checked by each layer's variance and
the tails."""

from __future__ import annotations

import math
from itertools import product

import numpy as np

from pykernel import inits
from pykernel.distributions import TRUNCATED_STD
from pykernel.init import Init
from pykernel.inits import MODES

LEAST = 256  # weights below which uniform and normal cannot be told apart
SIGMAS = 6  # of a sample moment: a false refusal in 1e9
TOP = 40  # the largest of N uniform draws is short of the limit by more than 20/N once in 1e9; its square by twice that
KURTOSIS = {"uniform": 1.8, "truncated": 2.3656, "normal": 3.0}  # fourth moment over squared variance
# Variance times fan of schemes without a name of their own: gains of torch.nn.init.calculate_gain, squared, over 1.
GAINS = {"tanh": (5 / 3) ** 2, "selu": 0.75**2, "leaky_relu": 2 / (1 + 0.01**2)}
_TORCH = inits.VarianceScaling(1 / 3, "fan_in", "uniform", name="torch_linear_default, no biases")
_ADVICE = "name the scheme as init=..., or read the weights as they are with weights=True"


def scheme(weights, biases, fans=None) -> tuple[Init, float, float]:
    """The scheme, gain and bias_std of a chain whose weights and biases these may be.

    Args:
        weights: matrices (n[l], n[l-1]), of convolutions (channels, channels in / groups, *kernel); biases: vectors or
            None, one a layer.
        fans: (fan_in, fan_out) of each; by default columns and rows of matrices.

    Raises:
        ValueError: they are no fresh draw of a scheme of this package: why, and what to do.
    """
    fans = [w.shape[::-1] for w in weights] if fans is None else fans
    init, gain = _delta(weights) or _structured(_flat(weights)) or (_independent(_flat(weights), fans), 1.0)
    kind, std = _bias(_flat(weights), biases)
    if kind == "torch":
        if init is _TORCH:
            return inits.get("torch_linear_default"), gain, 0.0
        init = Init(
            init.distribution,
            init.scale,
            parameter=init.parameter,
            name=f"{init.name}, torch biases",
            bias_distribution="uniform",
            bias_scale=inits.get("torch_linear_default").bias_scale,
        )
    return init, gain, std


def schemes(weights, biases, fans, groups) -> list[tuple[Init, float, float]]:
    """The scheme, gain and bias_std of each group of layers: one for all where that fits, else as few as fit.

    Args:
        weights, biases, fans: as in `scheme`.  groups: lists of indices of layers that are alike.

    Raises:
        ValueError: a group is no fresh draw of a scheme.
    """
    each = lambda values, layers: None if values is None else [values[i] for i in layers]
    of = lambda layers: scheme(*(each(values, layers) for values in (weights, biases, fans)))
    try:
        return [of(range(len(weights)))] * len(groups)
    except ValueError:
        if len(groups) == 1:
            raise
    clusters: list[list] = []  # of [layers, scheme, groups]
    for number, group in enumerate(groups):
        for cluster in clusters:
            try:
                joint = of([*cluster[0], *group])
            except ValueError:
                continue
            cluster[:] = [[*cluster[0], *group], joint, [*cluster[2], number]]
            break
        else:
            clusters.append([list(group), _zeros([weights[i] for i in group]) or of(group), [number]])
    found = {number: cluster[1] for cluster in clusters for number in cluster[2]}
    return [found[number] for number in range(len(groups))]


def _zeros(weights):
    """The scheme of weights that begin at zero, or None."""
    return None if any(w.any() for w in weights) else (inits.Constant(0.0), 1.0, 0.0)


def _flat(weights):
    """Kernels as matrices, (units out, all that one of them sees)."""
    return [w.reshape(len(w), -1) for w in weights]


def _delta(weights):
    """Delta-orthogonal kernels, with their gain; None for others."""
    if not any(w[0, 0].size > 1 for w in weights):
        return None
    middles = [w[(..., *(k // 2 for k in w.shape[2:]))] for w in weights]
    if any(np.count_nonzero(w) > np.count_nonzero(m) for w, m in zip(weights, middles, strict=True)):
        return None
    init, gain = _structured(middles) or (None, 1.0)
    if isinstance(init, inits.Identity):
        raise ValueError(f"kernels that are the identity at their middle are no scheme of a chain: {_ADVICE}")
    return (inits.DeltaOrthogonal(), gain) if isinstance(init, inits.Orthogonal) else None


def _structured(weights):
    """Identity, constant and orthogonal matrices, each times one number, with that gain; None for others."""
    if any(not w.any() for w in weights):
        raise ValueError(f"a weight of all zeros is no draw of a scheme: {_ADVICE}")
    corner = float(weights[0][0, 0])
    if (
        corner
        and all(np.array_equal(w, corner * np.eye(*w.shape)) for w in weights)
        and max(min(w.shape) for w in weights) > 1
    ):
        return inits.Identity(corner), 1.0
    if sum(w.size for w in weights) > 1 and all((w == corner).all() for w in weights):
        return inits.Constant(corner), 1.0
    if max(min(w.shape) for w in weights) < 4:
        return None
    gains = []
    for w in weights:
        gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
        square = float(np.trace(gram)) / len(gram)
        if np.abs(gram - square * np.eye(len(gram))).max() > 1e-3 * square:  # half precision rounds to that
            return None
        gains.append(math.sqrt(square))
    if max(gains) > 1.001 * min(gains):
        raise ValueError(
            f"the weights are orthogonal with factors from {min(gains):.4g} to {max(gains):.4g}: {_ADVICE}"
        )
    return inits.Orthogonal(), _round(float(np.mean(gains)), 1e-3)


def _independent(weights, every):
    """The scheme of independent entries that makes the weights likeliest."""
    count = sum(w.size for w in weights)
    if count < LEAST:
        raise ValueError(f"{count} weights are too few to tell a scheme: {_ADVICE}")
    sizes, squares = np.array([w.size for w in weights]), np.array([np.square(w).mean() for w in weights])
    tops = np.array([np.square(w).max() for w in weights])
    fits = []
    for mode, distribution in product((*MODES, None), KURTOSIS):
        fans = _fans(every, mode)
        variance, likelihood = _fit(distribution, fans, sizes, squares, tops)
        fits.append((likelihood, mode, distribution, variance))
    best = max(likelihood for likelihood, *_ in fits)
    # Where the fans of all layers are alike, modes tell only in their factor: take the one that gives a name.
    near = [fit for fit in fits if fit[0] > best - 1]
    named = [(fit, name) for fit in near if (name := _known(*fit[1:], count)) is not None]
    (_, mode, distribution, variance), init = named[0] if named else (near[-1], None)
    _check(weights, every, mode, distribution, variance, sizes, squares)
    if init is not None:
        return init
    if mode is None:
        std = _round(math.sqrt(variance), SIGMAS / math.sqrt(count))
        if distribution == "uniform":
            return inits.Uniform(_round(math.sqrt(3 * variance), TOP / count))
        inner = _round(math.sqrt(variance) / TRUNCATED_STD, SIGMAS / math.sqrt(count))
        return inits.Normal(std) if distribution == "normal" else inits.TruncatedNormal(inner)
    return inits.VarianceScaling(_round(variance, SIGMAS / math.sqrt(count)), mode, distribution)


def _fans(every, mode):
    pick = {
        "fan_in": lambda fans: fans[0],
        "fan_out": lambda fans: fans[1],
        "fan_avg": lambda fans: sum(fans) / 2,
        None: lambda fans: 1,
    }[mode]
    return np.array([pick(fans) for fans in every], dtype=float)


def _fit(distribution, fans, sizes, squares, tops):
    """Variance times fan, and the log-likelihood at it (of truncated draws up to the constant that normals share)."""
    count = sizes.sum()
    if distribution == "uniform":
        limit = (tops * fans).max()
        return limit / 3, -0.5 * (sizes * np.log(4 * limit / fans)).sum()
    variance = (sizes * squares * fans).sum() / count
    inner = variance
    if distribution == "truncated":  # no draw is beyond two standard deviations, whatever the sample's variance says
        inner = max(variance / TRUNCATED_STD**2, (tops * fans).max() / 4)
    likelihood = -0.5 * (sizes * (np.log(2 * math.pi * inner / fans) + squares * fans / inner)).sum()
    return variance, likelihood - (count * math.log(math.erf(math.sqrt(2))) if distribution == "truncated" else 0)


def _known(mode, distribution, variance, count):
    """The scheme of a name that this is, within the error of the variance, or None."""
    if mode is None:
        return None
    error = TOP / count if distribution == "uniform" else SIGMAS * math.sqrt(2 / count)
    near = lambda exact: abs(variance / exact - 1) < error
    if distribution == "uniform" and mode == "fan_in" and near(1 / 3):
        return _TORCH
    for family, (exact, fan) in inits.FAMILIES.items():
        if fan == mode and near(exact):
            return inits.get(f"{family}_{'truncated_normal' if distribution == 'truncated' else distribution}")
    if near(2):
        return inits.VarianceScaling(2.0, mode, distribution)
    gain = next((g for g in GAINS.values() if near(g)), None)
    return None if gain is None else inits.VarianceScaling(gain, mode, distribution)


def _check(weights, every, mode, distribution, variance, sizes, squares):
    """Refuse weights whose layers do not share the variance, or whose tails are none of the known ones."""
    kurtosis = KURTOSIS[distribution]
    ratios = squares * _fans(every, mode) / variance
    off = np.abs(ratios - 1) / np.sqrt((kurtosis - 1) / sizes)
    worst = int(np.argmax(off))
    if off[worst] > SIGMAS:
        raise ValueError(
            f"the weights are no fresh draw of one scheme: layer {worst + 1} has {ratios[worst]:.4g} times the "
            f"variance of {distribution} "
            f"weights with {mode or 'one standard deviation'} ({off[worst]:.0f} standard errors): {_ADVICE}"
        )
    fourth = sum(float((w**4).sum()) / float(np.square(w).mean()) ** 2 for w in weights) / sizes.sum()
    # of a normal's kurtosis, the widest of the three, and its bias
    error = math.sqrt(24 / sizes.sum()) + 9 * len(weights) / sizes.sum()
    if abs(fourth - kurtosis) > SIGMAS * error:
        raise ValueError(
            f"the weights are no fresh draw of a scheme: their kurtosis is {fourth:.3g}, not {kurtosis:.3g} "
            f"({distribution}): {_ADVICE}"
        )


def _bias(weights, biases):
    """("torch", 0) for torch's own biases, ("normal", std), or ("zero", 0)."""
    given = [] if biases is None else [(b, w) for b, w in zip(biases, weights, strict=True) if b is not None]
    if not any(b.any() for b, _ in given):
        return "zero", 0.0
    if len(given) < len(weights):
        raise ValueError(f"some layers have biases and some have none: {_ADVICE}")
    all_biases = np.concatenate([b for b, _ in given])
    scaled = np.concatenate([b * math.sqrt(w.shape[1]) for b, w in given])
    error = SIGMAS / math.sqrt(len(scaled))
    # bfloat16 rounds by up to 2^-9
    if np.abs(scaled).max() <= 1.004 and abs(3 * np.square(scaled).mean() - 1) < error:
        return "torch", 0.0
    std = float(np.sqrt(np.square(all_biases).mean()))
    ratios = np.array([np.square(b).mean() / std**2 for b, _ in given])
    if (np.abs(ratios - 1) > SIGMAS * np.sqrt(2 / np.array([len(b) for b, _ in given]))).any() or abs(
        (all_biases**4).mean() / std**4 - 3
    ) > SIGMAS * math.sqrt(96 / len(all_biases)):
        raise ValueError(
            f"the biases are neither zero, nor torch's own, nor normal with one standard deviation: {_ADVICE}"
        )
    return "normal", _round(std, error)


def _round(number, error):
    """The shortest decimal within a relative error of a number."""
    for digits in range(1, 16):
        short = float(f"{number:.{digits}g}")
        if abs(short / number - 1) < error:
            return short
    return number
