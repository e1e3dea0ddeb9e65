# SPDX-License-Identifier: BSD-3-Clause
"""From a chain and the arguments of a run to a Program, once: init schemes, gains, fans and patterns are decided here
and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pykernel import checks
from pykernel.chain import Chain
from pykernel.dtypes import Floats, Ints
from pykernel.formats import NONE, Formats, formats_or_none
from pykernel.init import Given
from pykernel.pattern import Pattern
from pykernel.patterns import pattern_of
from pykernel.program import BIASES, Activations, Draw, Head, Joins, Layers, Mixes, Program, Stretch, by_powers_of_two
from pykernel.window import as_matrix

MOST_ROUNDED = 2**24 - 2  # ops with addresses of their own, beside the input and the logits


def lower(
    chain: Chain,
    *,
    batch: int = 1,
    positions: Any = (),
    seed: int = 0,
    dtype: str = "float32",
    precision: str = "exponent",
    correlation: float = 0.0,
    x: Any = None,
    cotangent: Any = None,
    weights: Any = None,
    biases: Any = None,
    batch_first: bool = False,
    drive: Any = None,
    formats: Formats | None = None,
) -> Program:
    """Lower a chain and the arguments of `propagate` to a Program, validating what depends on both.

    Args:
        chain: Chain.
        batch: inputs; taken from x, cotangent or the head's targets where they are given.
        positions: of one input, an int or one int an axis; () for inputs without positions.
        x, cotangent, weights, biases: the caller's arrays, shapes (n[0], B, *positions), (n[N], B, *positions), one
            array a layer (n[l], n[l-1]), of convolutions (channels, channels in / groups, *kernel), and (n[l],); of
            tied layers one a distinct weight, or one a use, all equal.
        batch_first: True where x and cotangent have one input a row, (B, units, *positions), as PyTorch and JAX keep
            them.
        drive: inputs that arrive on the way, one array a use of a Drive step, (units, B, *positions) each.
        formats: Formats, or None.

    Raises:
        ValueError, TypeError: what was given and what is allowed.
    """
    formats = formats_or_none(formats)
    checks.choice("dtype", dtype, ("float32", "float64"))
    checks.choice("precision", precision, ("exponent", "native"))
    positions = checks.positions(positions)
    common = isinstance(cotangent, str)
    if common:
        _require_common(chain, cotangent, formats)
        cotangent = None
    head = chain.head
    if head is not None and cotangent is not None and head.loss != "linear":
        raise ValueError("a chain with a head has its own objective: give targets in the Head instead of a cotangent")
    pattern = pattern_of(chain, positions)
    if common and (pattern.groups > 1).any():
        raise ValueError('cotangent="common" has no Gram matrices of grouped convolutions, only of groups=1')
    positions_out = pattern.positions_out if chain.is_spatial else positions
    n_in, n_out = int(pattern.nodes[0]), int(pattern.nodes[-1])
    x = _units_first("x", x, n_in, batch_first)
    cotangent = _units_first("cotangent", cotangent, n_out if head is None else head.outputs, batch_first)
    read = positions_out if head is None or head.over == "positions" else ()  # positions of what J is a function of
    targets = head.targets if head is not None and cotangent is None else None
    drive = _drive(drive, pattern.drives, batch_first)
    arrays = [("x", x, positions), ("cotangent", cotangent, read), ("head targets", targets, read)]
    arrays += [(f"drive[{k}]", given, positions) for k, given in enumerate(drive or ())]
    batch = _batch(batch, arrays)
    exponent = precision == "exponent"
    draws, layers, weights, biases, samplers = _draws(chain, pattern, positions, weights, biases, exponent)
    if formats is not None and formats.stochastic:
        _require_numbers(pattern.stretches)
    if formats is not None and formats.gradients != NONE:  # gradients that are rounded sum to zero no longer
        layers = layers._replace(centred=np.zeros_like(layers.centred))
    return Program(
        stretches=tuple(pattern.stretches),
        plain_counts=pattern.counts,
        registers=pattern.registers,
        widest=pattern.widest,
        nodes=pattern.nodes,
        batch=batch,
        positions=positions,
        positions_out=positions_out,
        layers=layers,
        steps=Activations(pattern.row, pattern.norm),
        norm_steps=pattern.norm_steps,
        affine_steps=pattern.affine_steps,
        joins=Joins(pattern.skip, pattern.branch),
        factors=pattern.factors,
        masks=pattern.masks,
        mixes=Mixes(pattern.heads, pattern.kv_heads, pattern.causal, pattern.mix_scale),
        window_steps=pattern.window_steps,
        windows=pattern.windows,
        kernels=pattern.kernels,
        draws=draws,
        activations=pattern.activations,
        norms=pattern.norms,
        affines=pattern.affines,
        weights=weights,
        biases=biases,
        samplers=samplers,
        x=None if x is None else _columns("x", x, n_in, batch, positions),
        cotangent=None
        if cotangent is None or head is not None
        else _columns("cotangent", cotangent, n_out, batch, positions_out),
        correlation=checks.within("correlation", correlation, 0.0, 1.0),
        drives=pattern.drives,
        drive=None
        if drive is None
        else tuple(
            _columns(f"drive[{k}]", given, int(units), batch, positions)
            for k, (given, units) in enumerate(zip(drive, pattern.drives, strict=True))
        ),
        head=_head(head, n_out, cotangent, batch, read, exponent),
        clip_value=_clip_value(chain, formats),
        seed=checks.integer("seed", seed, 0, 2**64 - 1),
        dtype=dtype,
        exponent=exponent,
        formats=formats,
        common=common,
    )


def _require_common(chain: Chain, cotangent: str, formats: Formats | None) -> None:
    """Refuse where one read-out for all inputs has no meaning, or there is another."""
    checks.choice("cotangent", cotangent, ("common",))
    if chain.head is not None:
        raise ValueError('cotangent="common" is a read-out of its own: leave the head out, chain.replace(head=None)')
    if chain.has_batch_norm:
        raise ValueError(
            'cotangent="common" needs inputs that do not see each other, and batch norm mixes them; norm="layer" and '
            'norm="rms" do not'
        )
    if formats is not None:
        raise ValueError('cotangent="common" measures networks without formats: leave formats out')


def _require_numbers(stretches: Sequence[Stretch]) -> None:
    """Refuse more ops than a random bit's address has numbers for."""
    ops = sum(stretch.count * len(stretch.ops) for stretch in stretches)
    if ops > MOST_ROUNDED:
        raise ValueError(
            f"stochastic rounding has addresses for chains of {MOST_ROUNDED:,} steps, this one has {ops:,}; "
            'rounding="nearest" has no such limit'
        )


def _clip_value(chain: Chain, formats: Formats | None) -> float:
    """The bound on entries of the parameter gradients, which carry the loss scale."""
    if chain.clip is None or chain.clip.value is None:
        return 0.0
    return chain.clip.value * (1.0 if formats is None else formats.loss_scale)


def _units_first(name: str, given: Any, units: int, batch_first: bool) -> Floats | None:
    """The caller's array with its units along the first axis and its inputs along the second."""
    if not isinstance(batch_first, bool):
        raise TypeError(f"batch_first must be True or False, got {batch_first!r}")
    if given is None:
        return None
    # a tensor that a gradient is asked of
    given = given.detach().cpu().double().numpy() if hasattr(given, "detach") else checks.floats(name, given)
    shape = given.shape
    if len(shape) < 2:
        return given
    if shape[1 - batch_first] == units != shape[batch_first]:
        wanted, other = (
            ("(batch, units)", "without batch_first") if batch_first else ("(units, batch)", "with batch_first=True")
        )
        raise ValueError(
            f"{name} must have shape {wanted} with {units} units, got {shape}: transposed? Give it {other}, or its .T"
        )
    return np.swapaxes(given, 0, 1) if batch_first else given


def _drive(given: Any, units: Ints, batch_first: bool) -> list[Floats | None] | None:
    """The caller's inputs of Drive steps with their units first, or None."""
    if given is None:
        return None
    if not len(units):
        raise ValueError("drive is for chains with a Drive step, and this one has none")
    if isinstance(given, (str, bytes)) or not hasattr(given, "__len__"):
        raise TypeError(f"drive must be a sequence of arrays, one a use of a Drive step, got {type(given).__name__}")
    if len(given) != len(units):
        raise ValueError(f"drive must hold one array a use of a Drive step, {len(units)}, got {len(given)}")
    each = enumerate(zip(given, units.tolist(), strict=True))
    return [_units_first(f"drive[{k}]", array, n, batch_first) for k, (array, n) in each]


def _batch(batch: int, arrays: Iterable[tuple[str, Any, tuple[int, ...]]]) -> int:
    """The batch that was asked for, or that the caller's arrays, (name, array, positions), have."""
    batch = checks.integer("batch", batch, 1, 2**31 - 1)
    for name, given, positions in arrays:
        if given is None:
            continue
        shape = np.shape(given)  # of targets in tuples, all of one length
        allowed = "(units, batch" + "".join(f", {t}" for t in positions) + ")"
        if len(shape) != 2 + len(positions) or shape[2:] != positions:
            raise ValueError(f"{name} must have shape {allowed}, got {shape}")
        if shape[1] < 1:
            raise ValueError(f"{name} must hold at least one input, got shape {shape}")
        if batch not in (1, shape[1]):
            raise ValueError(f"batch={batch} contradicts {name} of {shape[1]} inputs")
        batch = shape[1]
    return batch


def _columns(name: str, given: Any, units: int, batch: int, positions: tuple[int, ...]) -> Floats:
    """The caller's array as (units, columns) float64, position fastest."""
    return checks.array(name, given, (units, batch, *positions)).reshape(units, -1)


def _head(head: Any, n: int, cotangent: Floats | None, batch: int, positions: tuple[int, ...], exponent: bool) -> Head:
    if head is None:
        return Head()
    scale = head.init.scale(n, head.outputs)
    weight = bias = targets = None
    if isinstance(head.init, Given):
        if len(head.init.weights) != 1:
            raise ValueError(
                f"head init must be one weight of shape ({head.outputs}, {n}), got {len(head.init.weights)} weights"
            )
        weight, biases = checks.array("head weight", head.init.weights[0], (head.outputs, n)), head.init.biases
        (weight,), (scale,) = by_powers_of_two([weight], exponent)
        bias = None if biases is None else checks.array("head bias", biases[0], (head.outputs,))
    if cotangent is not None:  # dJ/dy of a linear one as its targets: J takes the mean over the columns
        given = _columns("cotangent", cotangent, head.outputs, batch, positions)
        targets = given.shape[1] * given
    elif head.targets is not None:
        targets = _columns("head targets", head.targets, head.outputs, batch, positions)
    draw = Draw(head.init.distribution, float(head.init.parameter))
    return Head(head.loss, head.outputs, draw, float(scale), weight, bias, targets, head.over)


def _draws(
    chain: Chain, pattern: Pattern, positions: tuple[int, ...], weights: Any, biases: Any, exponent: bool
) -> tuple[tuple[Draw, ...], Layers, tuple | None, tuple | None, tuple | None]:
    """The layers' numbers, with the caller's arrays in place of draws where they are given: the table of draws, Layers,
    weights, biases, samplers."""
    scale, bias_draw, bias_scale = pattern.scale, pattern.bias_draw, pattern.bias_scale
    draws, draw, samplers = pattern.draws, pattern.draw, None
    gain: float | Floats = 1.0
    if isinstance(chain.init, Given) and weights is None:
        weights, gain = chain.init.weights, pattern.gain
        biases = chain.init.biases if biases is None else biases
    if weights is not None:
        weights = _arrays("weights", weights, pattern.shapes, pattern)
        weights = tuple(as_matrix(w) if w.ndim > 2 else w for w in weights)
        weights, powers = by_powers_of_two(weights, exponent)
        weights, powers = tuple(weights[w] for w in pattern.weight), powers[pattern.weight]
        scale = gain * powers
        draws, draw = (Draw("given", 0.0),), np.zeros_like(draw)
    elif any(init.sampler is not None for init in pattern.inits):
        drawn = [init if init.sampler is not None else None for init in pattern.inits]
        samplers = tuple(drawn[i] for i in pattern.init)
    if biases is not None:
        shapes = [(units,) for units in pattern.units.tolist()]
        biases, powers = by_powers_of_two(_arrays("biases", biases, shapes, pattern, absent=True), exponent)
        biases, powers = tuple(biases[w] for w in pattern.weight), powers[pattern.weight]
        own = np.array([b is not None for b in biases])
        bias_draw = np.where(own, BIASES.index("given"), 0)
        bias_scale = np.where(own, powers, 0.0)
    elif weights is not None:  # the scheme's own biases go with its weights
        bias_draw, bias_scale = pattern.chosen_bias
    beyond = np.array(pattern.beyond, np.int64)
    if scale is not pattern.scale or bias_scale is not pattern.bias_scale:
        beyond = np.flatnonzero(~(np.isfinite(scale) & np.isfinite(bias_scale)))
    if len(beyond):
        init = pattern.inits[pattern.init[beyond[0]]]
        raise ValueError(f"init {init} with gain {pattern.gain[beyond[0]]:g} gives a scale that is not finite")
    return draws, pattern.layers(positions, draw, scale, bias_draw, bias_scale), weights, biases, samplers


def _arrays(
    name: str, given: Any, shapes: Sequence[tuple[int, ...]], pattern: Pattern, absent: bool = False
) -> tuple[Floats | None, ...]:
    """The caller's arrays, one a distinct weight, of exactly the layers' shapes; `absent`: None where a layer has
    none."""
    if isinstance(given, (str, bytes)) or not hasattr(given, "__len__"):
        raise TypeError(f"{name} must be a sequence of arrays, one a layer, got {type(given).__name__}")
    first = pattern.first_uses
    if len(given) not in (len(first), len(shapes)):
        tied = f" or one a tied weight, {len(first)}" if len(first) < len(shapes) else ""
        raise ValueError(f"{name} must hold one array a layer, {len(shapes)}{tied}, got {len(given)}")
    places = range(len(shapes)) if len(given) == len(shapes) else first
    arrays = [
        None if array is None and absent else checks.array(f"{name}[{i}]", array, shapes[place])
        for i, (array, place) in enumerate(zip(given, places, strict=True))
    ]
    if len(arrays) == len(first):
        return tuple(arrays)
    for i, w in enumerate(pattern.weight):
        one, other = arrays[i], arrays[first[w]]
        if one is not other and (one is None or other is None or not np.array_equal(one, other)):
            raise ValueError(
                f"{name} of tied layers must be equal: layers {first[w] + 1} and {i + 1} use one weight, and "
                f"{name}[{first[w]}] and {name}[{i}] differ"
            )
    return tuple(arrays[i] for i in first)
