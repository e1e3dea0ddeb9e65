# SPDX-License-Identifier: BSD-3-Clause
"""weights and gradients: the matrices behind the rows that `propagate` measures, for checks, bridges and small nets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pykernel import checks, machine, stream
from pykernel.chain import Chain
from pykernel.engines import reference, run
from pykernel.program import MAX_REPLICAS
from pykernel.samplers import sampled
from pykernel.window import as_kernel

if TYPE_CHECKING:  # takes time and memory to load
    from numpy.typing import ArrayLike


def weights(
    chain: Chain,
    *,
    layer: int | str,
    replica: int = 0,
    seed: int = 0,
    dtype: str = "float64",
    positions: int | tuple[int, ...] = (),
) -> np.ndarray:
    """The weight matrix that the dense engine uses at a layer of a replica.

    Args:
        chain: as for `propagate`.
        layer: 1 .. L (L + 1 for the head's weight), or its name, one of `chain.layers`.
        replica, seed: its address.
        dtype: of the returned array, "float32" or "float64".
        positions: of one input, where the chain has convolutions.

    Returns:
        (n[l], n[l-1]) array, of a convolution (channels, channels in / groups, ...kernel), the gain multiplied in.

    Raises:
        ValueError, TypeError: a layer, replica, seed or dtype that there is not, named with what is allowed.

    Examples:
        >>> weights(Chain(depth=3, width=8), layer=3).shape
        (8, 8)
        >>> from pykernel.layers import Block, Linear
        >>> weights(Chain(depth=3, width=8, blocks=[Block(Linear(16), "tanh", Linear(8))]), layer="2.linear1").shape
        (16, 8)
    """
    program = run.lowered(chain, seed=seed, positions=positions)
    checks.choice("dtype", dtype, ("float32", "float64"))
    replica = checks.integer("replica", replica, 0, MAX_REPLICAS - 1)
    head, layers = program.head, program.layers
    number = checks.integer("layer", _place(chain, layer), 1, program.depth + (head.loss is not None))
    own = number > program.depth
    rows = head.outputs if own else int(layers.units[number - 1])
    columns = int(program.nodes[-1]) if own else int(layers.columns[number - 1])
    machine.require_memory(200 * rows * columns, f"a {rows} x {columns} weight matrix", "ask for a smaller layer")
    if own and head.weight is not None:
        return (head.scale * head.weight).astype(dtype)
    if own:
        draw = stream.matrix(program.seed, number, replica, rows, columns, *head.draw)
        return (head.scale * draw.astype(np.float64)).astype(dtype)
    if program.samplers is not None and program.samplers[number - 1] is not None:
        matrix = sampled(program, number, replica)
    else:
        matrix = layers.scale[number - 1] * reference.Dense(program, replica).matrix(number)
    return as_kernel(matrix, program.taps(number)).astype(dtype)


def _place(chain: Chain, layer: int | str) -> int:
    """The number of a layer given by name."""
    if not isinstance(layer, str):
        return layer
    names = chain.layers
    if layer not in names:
        raise ValueError(
            f"layer must be a name from {names[0]!r} to {names[-1]!r} as in chain.layers, or a number, got {layer!r}"
        )
    return 1 + names.index(layer)


def gradients(
    chain: Chain,
    *,
    x: ArrayLike | None = None,
    cotangent: ArrayLike | None = None,
    drive: Sequence[ArrayLike] | None = None,
    weights: Sequence[ArrayLike] | None = None,
    biases: Sequence[ArrayLike | None] | None = None,
    batch_first: bool = False,
    batch: int = 1,
    positions: int | tuple[int, ...] = (),
    seed: int = 0,
    replica: int = 0,
) -> list[np.ndarray]:
    """The gradients dJ/dW[l] themselves, for checks and small nets; of tied layers those of each weight, over all uses.

    Args:
        chain, x, cotangent, drive, weights, biases, batch_first, batch, positions, seed: as in `propagate`.
        replica: which draw of the weights.

    Returns:
        L arrays (n[l], n[l-1]), of a convolution (channels, channels in / groups, ...kernel), float64, l = 1 first, of
        tied layers one a distinct weight in order of first use (see `Chain.tied_layers`); entries beyond float64 are 0
        or inf.

    Raises:
        ValueError, TypeError: as `propagate`.
        TooLarge: the matrices do not fit in memory.

    Examples:
        >>> grads = gradients(Chain(depth=3, width=8), x=np.ones((8, 2)), cotangent=np.ones((8, 2)))
        >>> len(grads), grads[0].shape
        (3, (8, 8))
    """
    job = run.prepare(
        chain,
        engine="dense",
        backend="reference",
        batch=batch,
        seed=seed,
        dtype="float64",
        x=x,
        cotangent=cotangent,
        drive=drive,
        weights=weights,
        biases=biases,
        batch_first=batch_first,
        positions=positions,
    )
    program = job.program
    replica = checks.integer("replica", replica, 0, MAX_REPLICAS - 1)
    layers = program.layers
    needed = 16 * int((layers.units.astype(object) * layers.columns).sum()) + reference.memory(program)
    machine.require_memory(needed, "every gradient matrix of this chain", "propagate() gives their norms in far less")
    rows = run.execute(job, replica, 1, 1, ("grad_weight_total",))
    kept = rows.pop("keep")[0]["grad_weight_total"]
    grads = [kept[number] for number in sorted(kept)]
    if chain.clip is None or chain.clip.norm is None:
        return grads
    name = "log10_grad_weight_total" if program.counts.weight else "log10_grad_weight"
    before = rows[name].copy()
    run.clip_by_norm(chain.clip, rows)
    change = np.where(np.isfinite(before), rows[name] - before, 0.0)[0]
    return [g * 10.0**c for g, c in zip(grads, change, strict=True)]
