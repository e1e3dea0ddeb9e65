# SPDX-License-Identifier: BSD-3-Clause
"""Lists of (W, b) as JAX code keeps them, x @ W + b with W of shape (n_in, n_out), as chains and from chains. No JAX is
needed."""

from __future__ import annotations

import itertools
import re

import numpy as np

from pykernel import checks
from pykernel.chain import Chain
from pykernel.init import Given
from pykernel.lower import lower
from pykernel.parts import Head
from pykernel.program import MAX_REPLICAS


def from_jax(parameters, *, loss: str | None = "linear", **fields) -> Chain:
    """The chain of a list of weights, as JAX code without a framework, Flax or Haiku keeps them.

    Args:
        parameters: a list of (W, b) pairs, of W alone, or of dicts with "kernel" or "w" and "bias" or "b" (a dict of
            such dicts counts as their list, by number where only that tells their names apart, as Dense_2 before
            Dense_10, else in its own order); W has shape (n_in, n_out), b (n_out,). Any arrays that
            NumPy can read.
        loss: of the Head that the last pair becomes, since the last layer has no activation: "linear" (the logits'
            random read-out, or the `cotangent` you give), "mse", "sigmoid" or "softmax"; None where the last layer has
            its activation like the others.
        fields: of the Chain: activation, norm, order, residual ...

    Returns:
        Chain whose `init` is `Given`: `propagate(chain, x=X, batch_first=True)` measures this network.

    Raises:
        ValueError, TypeError: shapes that form no chain.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> pairs = [(rng.normal(size=(4, 6)), np.zeros(6)), (rng.normal(size=(6, 2)), np.zeros(2))]
        >>> chain = from_jax(pairs, activation="tanh")
        >>> chain.depth, chain.head.outputs
        (1, 2)
    """
    pairs = _pairs(parameters)
    weights, biases = [w.T for w, _ in pairs], [b for _, b in pairs]
    for i, (before, after) in enumerate(itertools.pairwise(weights)):
        if before.shape[0] != after.shape[1]:
            raise ValueError(f"layer {i + 2} takes {after.shape[1]} numbers, but layer {i + 1} gives {before.shape[0]}")
    head = None
    if loss is not None:
        if len(pairs) < 2:
            raise ValueError("a head needs a layer before it; give loss=None where the only layer has its activation")
        weight, bias = weights.pop(), biases.pop()
        head = Head(loss, len(weight), init=Given([weight], [bias], name="given head"))
    return Chain(widths=[weights[0].shape[1], *map(len, weights)], init=Given(weights, biases), head=head, **fields)


def _pairs(parameters):
    """(W, b or None) of every layer, float64."""
    if isinstance(parameters, dict):
        parameters = _in_order(parameters.get("params", parameters))
    if isinstance(parameters, (str, bytes)) or not hasattr(parameters, "__len__") or len(parameters) == 0:
        raise TypeError(f"parameters must be a list of (W, b), one a layer, got {type(parameters).__name__}")
    pairs = []
    for i, layer in enumerate(parameters, 1):
        if isinstance(layer, dict):
            names = [
                next((n for n in options if n in layer), None) for options in (("kernel", "w", "W"), ("bias", "b"))
            ]
            if names[0] is None:
                raise ValueError(f'layer {i} has no "kernel" or "w", only {", ".join(map(repr, layer))}')
            layer = (layer[names[0]], None if names[1] is None else layer[names[1]])
        elif not isinstance(layer, (tuple, list)):
            layer = (layer, None)
        if len(layer) != 2:
            raise ValueError(f"layer {i} must be (W, b), got {len(layer)} arrays")
        weight = np.asarray(layer[0], dtype=np.float64)
        if weight.ndim != 2:
            raise ValueError(f"W of layer {i} must have shape (n_in, n_out), got {weight.shape}")
        bias = None if layer[1] is None else checks.array(f"b of layer {i}", layer[1], (weight.shape[1],))
        pairs.append((weight, bias))
    return pairs


def _in_order(named):
    """The layers of a dict: by number where names differ in that only (as a pytree Dense_10 comes before Dense_2), else
    in its own order."""
    parted = [re.fullmatch(r"(.*?)_?(\d*)", str(name)) for name in named]
    stems = {found[1] for found in parted if found is not None}
    numbers = [int(found[2] or 0) for found in parted if found is not None]
    if len(stems) > 1 or len(set(numbers)) < len(numbers):
        return list(named.values())
    return [layer for _, layer in sorted(zip(numbers, named.values(), strict=True), key=lambda pair: pair[0])]


def init_jax(chain: Chain, *, seed: int = 0, replica: int = 0, dtype: str = "float32") -> list:
    """The weights that `propagate` uses, as a list of (W, b) for JAX code: x @ W + b.

    Args:
        chain: Chain; its head's weight comes last, with a bias of zeros.
        seed, replica: the address of the draw.
        dtype: "float32" or "float64".

    Returns:
        A list of (W, b): NumPy arrays (n_in, n_out) and (n_out,), a pytree that JAX takes as it is. W is the transpose
        of `pk.weights(chain, layer=l, ...)`, bit for bit.

    Examples:
        >>> [w.shape for w, _ in init_jax(Chain(widths=[4, 6, 2]))]
        [(4, 6), (6, 2)]
    """
    from pykernel.ops import linear
    from pykernel.simulate import weights

    if not isinstance(chain, Chain):
        raise TypeError(f"chain must be a pykernel.Chain, got {type(chain).__name__}")
    checks.choice("dtype", dtype, ("float32", "float64"))
    replica = checks.integer("replica", replica, 0, MAX_REPLICAS - 1)
    program = lower(chain, seed=seed)
    head = program.head
    pairs = []
    for layer in range(1, program.depth + 1 + (head.loss is not None)):
        weight = weights(chain, layer=layer, replica=replica, seed=seed, dtype=dtype).T
        bias = np.zeros(weight.shape[1])
        if layer > program.depth:
            bias = bias if head.bias is None else head.bias
        elif program.layers.bias_draw[layer - 1]:
            bias = linear.bias(program, replica, layer)[:, 0]
        pairs.append((np.ascontiguousarray(weight), bias.astype(dtype)))
    return pairs
