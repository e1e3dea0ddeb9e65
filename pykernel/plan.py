# SPDX-License-Identifier: BSD-3-Clause
"""A chain lowered to plain numbers and arrays: all that an engine needs to know, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pykernel import checks, stream
from pykernel.chain import LOSSES, NORMS, ORDERS
from pykernel.inits import Given
from pykernel.program import BIASES

# Matrix-free, of squared lengths: a column whose part outside the directions already found is below 2^-20 of its length is taken to lie
# inside them; columns are taken in their own order unless one sticks out less than a quarter as far as another.
LOST, PREFER = 2.0**-40, 2.0**-4
MAX_REPLICAS = 2**32


@dataclass(frozen=True)
class Plan:
    """What a backend runs. Layers are counted from 1 in the maths; arrays over layers start at index 0 for layer 1.

    Attributes:
        widths: (L + 1,) int64, units of a[0] .. a[L].
        batch: inputs propagated together.
        seed: the key of the stream.
        dtype: "float32" or "float64", the arithmetic of the kernels.
        exponent: True for blocks with exponents, False for plain arithmetic (precision="native").
        activation: a row of `pykernel.activations` (a frozen object with `name`, `value`, `slope`, `parameters` ...).
        norm: index into NORMS.  norm_eps: what a norm adds to the variance.  order: index into ORDERS.
        residual_every: 0 for none, else k.  residual_scale: (L,) float64, s of each layer (used where k divides l).
        distribution: name of the unit draw ("normal", "uniform", "truncated", "sparse", "student", "stable",
            "identity", "constant", "haar", "given"); distribution_parameter: density, degrees of freedom or alpha (else 0).
        scale: (L,) float64, W[l] = scale[l] * unit draw (a power of two for "given": what takes `weights` into float32).
        bias_distribution: "zero", "normal", "uniform" or "given"; bias_scale: (L,) float64, a factor on the draws or on `biases`.
        correlation: pairwise correlation of the drawn inputs.
        x, cotangent: the caller's (n0, B), (nL, B) float64 arrays, or None: drawn.
        sampler: a user's function (rows, columns, seed) -> unit draw of W[l]; resolved to `weights`, a replica at a time, before a run.
            sampler_of: its init's name.
        weights, biases: tuples of the caller's float64 arrays, or None.
        loss: index into LOSSES; outputs: rows of the head's weight (0 without); head_distribution, head_parameter,
            head_scale: its draw; targets: (outputs, B) float64 or None: drawn (for softmax one-hot columns).
        head_weight, head_bias: the caller's (outputs, n[L]), to be multiplied by head_scale, and (outputs,) float64, or None.
        clip_value: bound on every entry of the parameter gradients, or 0 for none.
    """

    widths: np.ndarray
    batch: int
    seed: int
    dtype: str
    exponent: bool
    activation: Any
    norm: int
    norm_eps: float
    order: int
    residual_every: int
    residual_scale: np.ndarray
    distribution: str
    distribution_parameter: float
    scale: np.ndarray
    bias_distribution: str
    bias_scale: np.ndarray
    correlation: float
    x: np.ndarray | None
    cotangent: np.ndarray | None
    weights: tuple | None
    biases: tuple | None
    loss: int
    outputs: int
    head_distribution: str
    head_parameter: float
    head_scale: float
    targets: np.ndarray | None
    clip_value: float
    sampler: Any = None
    sampler_of: str = ""
    head_weight: np.ndarray | None = None
    head_bias: np.ndarray | None = None

    @property
    def depth(self) -> int:
        return len(self.widths) - 1


def lower(
    chain, *, batch=1, seed=0, dtype="float32", precision="exponent", correlation=0.0, x=None, cotangent=None, weights=None, biases=None
) -> Plan:
    """Lower a chain and the arguments of `propagate` to a Plan, validating what depends on both.

    Args:
        chain: Chain.
        batch: inputs; taken from x, cotangent or the head's targets where they are given.
        x, cotangent, weights, biases: the caller's arrays, shapes (n0, B), (nL, B), [(n[l], n[l-1])], [(n[l],)].

    Raises:
        ValueError, TypeError: what was given and what is allowed.
    """
    n = chain.layer_widths.astype(np.int64)
    checks.choice("dtype", dtype, ("float32", "float64"))
    checks.choice("precision", precision, ("exponent", "native"))
    head = chain.head
    batch = _batch(batch, x, cotangent, head.targets if head is not None and cotangent is None else None)
    if head is not None and cotangent is not None and head.loss != "linear":
        raise ValueError("a chain with a head has its own objective: give targets in the Head instead of a cotangent")
    fans = (
        list(zip(n[:-1].tolist(), n[1:].tolist(), strict=True)) if chain.widths is not None else [(chain.width, chain.width)] * chain.depth
    )
    init = chain.init
    distribution, scale = init.distribution, _scales(init, "scale", fans) * chain.gain * _branch_factors(chain)
    gain = 1.0
    if isinstance(init, Given) and weights is None:
        weights, gain = init.weights, chain.gain
        biases = init.biases if biases is None else biases
    if weights is not None:
        weights = _layers("weights", weights, [(m, k) for k, m in fans])
        weights, scale = _by_powers_of_two(weights, precision == "exponent")
        scale = gain * scale
        distribution = "given"
    bias_distribution, bias_scale = "zero", np.zeros(chain.depth)
    if biases is not None:
        biases = _layers("biases", biases, [(m,) for _, m in fans])
        biases, bias_scale = _by_powers_of_two(biases, precision == "exponent")
        bias_distribution = "given"
    elif chain.bias_std:
        bias_distribution, bias_scale = "normal", np.full(chain.depth, chain.bias_std)
    elif init.bias_distribution != "zero" and weights is None:
        bias_distribution, bias_scale = init.bias_distribution, _scales(init, "bias_scale", fans)
    if not (np.isfinite(scale).all() and np.isfinite(bias_scale).all()):
        raise ValueError(f"init {init} with gain {chain.gain:g} gives a scale that is not finite")
    targets = None if head is None else _targets(head, cotangent, batch)
    residual = chain.residual
    return Plan(
        widths=n,
        batch=batch,
        seed=checks.integer("seed", seed, 0, 2**64 - 1),
        dtype=dtype,
        exponent=precision == "exponent",
        activation=chain.activation,
        norm=NORMS.index(chain.norm),
        norm_eps=chain.norm_eps,
        order=ORDERS.index(chain.order),
        residual_every=0 if residual is None else residual.every,
        residual_scale=np.full(chain.depth, 1.0 if residual is None else residual.factor(chain.depth)),
        distribution=distribution,
        distribution_parameter=float(init.parameter),
        scale=scale,
        bias_distribution=bias_distribution,
        bias_scale=bias_scale,
        correlation=checks.within("correlation", correlation, 0.0, 1.0),
        x=None if x is None else checks.array("x", x, (n[0], batch)),
        cotangent=None if cotangent is None or head is not None else checks.array("cotangent", cotangent, (n[-1], batch)),
        weights=weights,
        biases=biases,
        loss=0 if head is None else LOSSES.index(head.loss),
        outputs=0 if head is None else head.outputs,
        head_distribution="normal" if head is None else head.init.distribution,
        head_parameter=0.0 if head is None else float(head.init.parameter),
        targets=targets,
        clip_value=0.0 if chain.clip is None or chain.clip.value is None else chain.clip.value,
        sampler=init.sampler if weights is None else None,
        sampler_of=str(init),
        **_head_arrays(head, int(n[-1]), precision == "exponent"),
    )


def _targets(head, cotangent, batch):
    """Targets of the head, or dJ/dy of a linear one as its targets: J takes the mean over the batch."""
    if cotangent is not None:
        return batch * checks.array("cotangent", cotangent, (head.outputs, batch))
    return None if head.targets is None else checks.array("head targets", head.targets, (head.outputs, batch))


def _head_arrays(head, n, exponent):
    """Scale, and the caller's own weight and bias, of a head, as fields of a Plan."""
    if head is None:
        return {"head_scale": 0.0}
    if not isinstance(head.init, Given):
        return {"head_scale": float(head.init.scale(n, head.outputs))}
    if len(head.init.weights) != 1:
        raise ValueError(f"head init must be one weight of shape ({head.outputs}, {n}), got {len(head.init.weights)} weights")
    weight = checks.array("head weight", head.init.weights[0], (head.outputs, n))
    (weight,), (scale,) = _by_powers_of_two([weight], exponent)
    biases = head.init.biases
    bias = None if biases is None else checks.array("head bias", biases[0], (head.outputs,))
    return {"head_weight": weight, "head_scale": float(scale), "head_bias": bias}


def _batch(batch, x, cotangent, targets):
    """The batch that was asked for, or that the caller's arrays have."""
    batch = checks.integer("batch", batch, 1, 2**31 - 1)
    for name, given in (("x", x), ("cotangent", cotangent), ("head targets", targets)):
        if given is None:
            continue
        shape = np.shape(given)
        if len(shape) != 2:
            raise ValueError(f"{name} must have shape (units, batch), got {shape}")
        if shape[1] < 1:
            raise ValueError(f"{name} must hold at least one input, got shape {shape}")
        if batch not in (1, shape[1]):
            raise ValueError(f"batch={batch} contradicts {name} of {shape[1]} inputs")
        batch = shape[1]
    return batch


def _scales(init, key, fans):
    """The scale of each layer, each distinct pair of fans asked once, (L,) float64."""
    known = {}
    for pair in set(fans):
        try:
            known[pair] = float(getattr(init, key)(*pair))
        except Exception as error:
            where = f"init {init}: {key}{pair} of layer {fans.index(pair) + 1}"
            raise ValueError(f"{where} must be a number, but raised {type(error).__name__}: {error}") from error
    return np.array([known[pair] for pair in fans]) if len(known) > 1 else np.full(len(fans), known[fans[0]])


def _by_powers_of_two(weights, exponent):
    """The caller's arrays as order-one numbers times a power of two where they would leave float32, and those powers, (L,) float64."""
    powers = [int(np.frexp(np.abs(w).max())[1]) if exponent else 0 for w in weights]
    powers = [p if abs(p) > 40 else 0 for p in powers]
    return tuple(np.ldexp(w, -p) if p else w for w, p in zip(weights, powers, strict=True)), np.ldexp(1.0, powers)


def _layers(name, given, shapes):
    if isinstance(given, (str, bytes)) or not hasattr(given, "__len__"):
        raise TypeError(f"{name} must be a sequence of arrays, one a layer, got {type(given).__name__}")
    if len(given) != len(shapes):
        raise ValueError(f"{name} must hold one array a layer, {len(shapes)}, got {len(given)}")
    return tuple(checks.array(f"{name}[{i}]", array, shape) for i, (array, shape) in enumerate(zip(given, shapes, strict=True)))


def _branch_factors(chain) -> np.ndarray:
    """Factor of the init scheme on each layer beyond its fans: ones, or Fixup's, (L,) float64."""
    out = np.ones(chain.depth)
    if chain.init.fixup:
        if chain.residual is None or chain.residual.every < 2:
            raise ValueError("init fixup needs residual branches of 2 layers or more, as in Residual(every=2)")
        m = chain.residual.every
        out[:] = max(1, chain.depth // m) ** (-1 / (2 * m - 2))
        out[m - 1 :: m] = 0
    return out


def sampled(plan: Plan, layer: int, replica: int) -> np.ndarray:
    """W[layer] of a replica from the user's own sampler, (n[l], n[l-1]) float64."""
    rows, columns = int(plan.widths[layer]), int(plan.widths[layer - 1])
    where = f"init {plan.sampler_of}: the sampler's answer for layer {layer}"
    try:
        draw = plan.sampler(rows, columns, stream.sampler_seed(plan.seed, layer, replica))
    except Exception as error:
        raise RuntimeError(f"init {plan.sampler_of}: the sampler raised {type(error).__name__} for layer {layer}: {error}") from error
    with np.errstate(over="ignore", under="ignore"):
        matrix = plan.scale[layer - 1] * checks.array(where, draw, (rows, columns))
    if not np.isfinite(matrix).all():
        raise ValueError(f"{where} times its scale {plan.scale[layer - 1]:g} must be finite")
    return matrix


def with_samples(plan: Plan, replica: int) -> Plan:
    """The plan of one replica with every weight drawn from the user's sampler."""
    given, scale = _by_powers_of_two([sampled(plan, layer, replica) for layer in range(1, plan.depth + 1)], plan.exponent)
    return replace(plan, sampler=None, weights=given, scale=scale)


def plan_of(program) -> Plan:
    """The plan of a program of equal layers, for the parts that do not run programs yet."""
    reason = not_plain(program)
    if reason is not None:
        raise ValueError(reason)
    stretch = program.stretches[0]
    layers, head, joins = program.layers, program.head, program.joins
    order = 0 if stretch.ops[0].kind == "linear" else 1
    joined = any(op.kind == "add" for op in stretch.ops)
    every = stretch.each.layer if joined else 0
    L = program.depth
    given = program.weights is not None
    draw = program.draws[layers.draw[0]]
    norm = program.norms[program.steps.norm[0]]
    return Plan(
        widths=np.concatenate([program.nodes[:1], layers.units]),
        batch=program.batch,
        seed=program.seed,
        dtype=program.dtype,
        exponent=program.exponent,
        activation=program.activations[program.steps.row[0]],
        norm=NORMS.index(norm.kind),
        norm_eps=norm.eps,
        order=order,
        residual_every=every,
        residual_scale=np.full(L, joins.branch[0] if joined else 1.0),
        distribution="given" if given else draw.distribution,
        distribution_parameter=draw.parameter,
        scale=layers.scale,
        bias_distribution=BIASES[layers.bias_draw[0]],
        bias_scale=layers.bias_scale,
        correlation=program.correlation,
        x=program.x,
        cotangent=program.cotangent,
        weights=program.weights,
        biases=program.biases,
        loss=LOSSES.index(head.loss),
        outputs=head.outputs,
        head_distribution=head.draw.distribution,
        head_parameter=head.draw.parameter,
        head_scale=head.scale,
        targets=head.targets,
        clip_value=program.clip_value,
        head_weight=head.weight,
        head_bias=head.bias,
    )


def not_plain(program) -> str | None:
    """Why a program is no chain of equal layers, or None."""
    kinds = {op.kind for stretch in program.stretches for op in stretch.ops}
    same = all(len(set(a.tolist())) == 1 for a in (program.steps.row, program.steps.norm, program.layers.draw, program.layers.bias_draw))
    if not same or not kinds <= {"linear", "phi", "add", "node"} or program.positions or len(program.steps.row) != program.depth:
        return 'this backend runs chains of equal layers only; backend="reference" runs every chain'
    if (program.joins.skip != 1).any() or len(set(program.joins.branch.tolist())) > 1:
        return 'this backend runs chains of equal layers only; backend="reference" runs every chain'
    nodes = sum(stretch.each.node * stretch.count for stretch in program.stretches)
    return None if nodes == program.depth else 'this backend runs chains of equal layers only; backend="reference" runs every chain'
