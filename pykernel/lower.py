# SPDX-License-Identifier: BSD-3-Clause
"""From a chain and the arguments of a run to a Program, once: init schemes, gains, fans and patterns are decided here
and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pykernel import checks
from pykernel.formats import NONE, formats_or_none
from pykernel.init import Given
from pykernel.patterns import pattern_of
from pykernel.program import BIASES, Draw, Head, Program, by_powers_of_two
from pykernel.window import as_matrix


def lower(
    chain,
    *,
    batch=1,
    positions=(),
    seed=0,
    dtype="float32",
    precision="exponent",
    correlation=0.0,
    x=None,
    cotangent=None,
    weights=None,
    biases=None,
    batch_first=False,
    formats=None,
) -> Program:
    """Lower a chain and the arguments of `propagate` to a Program, validating what depends on both.

    Args:
        chain: Chain.
        batch: inputs; taken from x, cotangent or the head's targets where they are given.
        positions: of one input, an int or one int an axis; () for inputs without positions.
        x, cotangent, weights, biases: the caller's arrays, shapes (n[0], B, *positions), (n[N], B, *positions), one
            array a layer (n[l], n[l-1]), of convolutions (channels, channels in / groups, *kernel), and (n[l],).
        batch_first: True where x and cotangent have one input a row, (B, units, *positions), as PyTorch and JAX keep
            them.
        formats: Formats, or None.

    Raises:
        ValueError, TypeError: what was given and what is allowed.
    """
    formats = formats_or_none(formats)
    checks.choice("dtype", dtype, ("float32", "float64"))
    checks.choice("precision", precision, ("exponent", "native"))
    positions = checks.positions(positions)
    head = chain.head
    if head is not None and cotangent is not None and head.loss != "linear":
        raise ValueError("a chain with a head has its own objective: give targets in the Head instead of a cotangent")
    pattern = pattern_of(chain, positions)
    positions_out = pattern.positions_out if chain.is_spatial else positions
    n_in, n_out = int(pattern.nodes[0]), int(pattern.nodes[-1])
    x = _units_first("x", x, n_in, batch_first)
    cotangent = _units_first("cotangent", cotangent, n_out if head is None else head.outputs, batch_first)
    read = positions_out if head is None or head.over == "positions" else ()  # positions of what J is a function of
    targets = head.targets if head is not None and cotangent is None else None
    batch = _batch(batch, (("x", x, positions), ("cotangent", cotangent, read), ("head targets", targets, read)))
    exponent = precision == "exponent"
    layers, weights, biases, samplers = _draws(chain, pattern, positions, weights, biases, exponent)
    if formats is not None and formats.gradients != NONE:  # gradients that are rounded sum to zero no longer
        layers = replace(layers, centred=np.zeros_like(layers.centred))
    return Program(
        stretches=tuple(pattern.stretches),
        registers=pattern.registers,
        nodes=pattern.nodes,
        batch=batch,
        positions=positions,
        positions_out=positions_out,
        layers=layers,
        steps=pattern.steps,
        norm_steps=pattern.norm_steps,
        affine_steps=pattern.affine_steps,
        joins=pattern.joins,
        factors=pattern.factors,
        masks=pattern.masks,
        mixes=pattern.mixes,
        window_steps=pattern.window_steps,
        windows=tuple(pattern.windows.rows),
        kernels=tuple(pattern.kernels.rows),
        draws=tuple(pattern.draws.rows),
        activations=tuple(pattern.activations.rows),
        norms=tuple(pattern.norms.rows),
        affines=pattern.affines,
        weights=weights,
        biases=biases,
        samplers=samplers,
        x=None if x is None else _columns("x", x, n_in, batch, positions),
        cotangent=None
        if cotangent is None or head is not None
        else _columns("cotangent", cotangent, n_out, batch, positions_out),
        correlation=checks.within("correlation", correlation, 0.0, 1.0),
        head=_head(head, n_out, cotangent, batch, read, exponent),
        clip_value=_clip_value(chain, formats),
        seed=checks.integer("seed", seed, 0, 2**64 - 1),
        dtype=dtype,
        exponent=exponent,
        formats=formats,
    )


def _clip_value(chain, formats):
    """The bound on entries of the parameter gradients, which carry the loss scale."""
    if chain.clip is None or chain.clip.value is None:
        return 0.0
    return chain.clip.value * (1.0 if formats is None else formats.loss_scale)


def _units_first(name, given, units, batch_first):
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


def _batch(batch, arrays):
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


def _columns(name, given, units, batch, positions):
    """The caller's array as (units, columns) float64, position fastest."""
    return checks.array(name, given, (units, batch, *positions)).reshape(units, -1)


def _head(head, n, cotangent, batch, positions, exponent):
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


def _draws(chain, pattern, positions, weights, biases, exponent):
    """The layers' numbers, with the caller's arrays in place of draws where they are given: Layers, weights, biases,
    samplers."""
    scale, bias_draw, bias_scale = pattern.scale, pattern.bias_draw, pattern.bias_scale
    draw, gain, samplers = pattern.draw, 1.0, None
    if isinstance(chain.init, Given) and weights is None:
        weights, gain = chain.init.weights, pattern.gain
        biases = chain.init.biases if biases is None else biases
    if weights is not None:
        weights = _arrays("weights", weights, pattern.shapes)
        weights = tuple(as_matrix(w) if w.ndim > 2 else w for w in weights)
        weights, powers = by_powers_of_two(weights, exponent)
        scale = gain * powers
        draw = np.full(len(scale), pattern.draws.number(Draw("given", 0.0)))
    elif any(init.sampler is not None for init in pattern.inits.rows):
        samplers = tuple(
            init if init.sampler is not None else None for init in (pattern.inits.rows[i] for i in pattern.init)
        )
    if biases is not None:
        biases = _arrays("biases", biases, [(units,) for units in pattern.units.tolist()], absent=True)
        own = np.array([b is not None for b in biases])
        biases, powers = by_powers_of_two(biases, exponent)
        bias_draw = np.where(own, BIASES.index("given"), 0)
        bias_scale = np.where(own, powers, 0.0)
    elif weights is not None:  # the scheme's own biases go with its weights
        bias_draw, bias_scale = pattern.chosen_bias
    if not (np.isfinite(scale).all() and np.isfinite(bias_scale).all()):
        layer = int(np.flatnonzero(~(np.isfinite(scale) & np.isfinite(bias_scale)))[0])
        init = pattern.inits.rows[pattern.init[layer]]
        raise ValueError(f"init {init} with gain {pattern.gain[layer]:g} gives a scale that is not finite")
    return pattern.layers(positions, draw, scale, bias_draw, bias_scale), weights, biases, samplers


def _arrays(name, given, shapes, absent=False):
    """The caller's arrays, one a layer, of exactly these shapes; `absent`: None where a layer has none."""
    if isinstance(given, (str, bytes)) or not hasattr(given, "__len__"):
        raise TypeError(f"{name} must be a sequence of arrays, one a layer, got {type(given).__name__}")
    if len(given) != len(shapes):
        raise ValueError(f"{name} must hold one array a layer, {len(shapes)}, got {len(given)}")
    return tuple(
        None if array is None and absent else checks.array(f"{name}[{i}]", array, shape)
        for i, (array, shape) in enumerate(zip(given, shapes, strict=True))
    )
