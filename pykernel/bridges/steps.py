# SPDX-License-Identifier: BSD-3-Clause
"""A network as a row of steps (linear, norm, activation, sum), and the Chain that such a row is, or the sentence why it is none."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from pykernel.activation import Activation
from pykernel.chain import NORM_EPS, ORDERS, Chain, Head, Residual

INDEPENDENT = ("normal", "uniform", "truncated", "sparse", "student", "stable")


@dataclass(frozen=True)
class Step:
    """One operation of a network.

    Args:
        kind: "linear", "norm", "activation" or "sum".
        where: how messages call it.
        linear: whatever the reader needs to find the weight again; sizes: its (n_out, n_in).
        norm: a name of `chain.NORMS`, with its eps.  activation: a row.
        start, scale: of a sum: how many steps came before the value that is added, and the factor on the branch.
    """

    kind: str
    where: str
    linear: Any = None
    sizes: tuple = ()
    norm: tuple[str, float] | None = None
    activation: Activation | None = None
    start: int = 0
    scale: float = 1.0


@dataclass
class Layer:
    """A linear map with what stands before or after it."""

    linear: Step | None = None
    norm: Step | None = None
    activation: Step | None = None
    sum: Step | None = None
    branch: int = 0  # layers that the sum bridges
    where: str = field(default="", repr=False)


@dataclass
class Network:
    """What a row of steps is: layers of one kind, perhaps a last linear map that is read out."""

    layers: list
    head: Step | None
    order: str
    activation: Any
    norm: tuple[str, float] | None
    residual: Residual | None

    def chain(self, init, *, head_init=None, loss="linear", **fields) -> Chain:
        """The Chain with this scheme; the head has the same one where its entries are independent, else lecun_normal."""
        from pykernel import inits

        init = inits.get(init)
        head = None
        if self.head is not None:
            if head_init is None:
                head_init = init if init.distribution in INDEPENDENT else "lecun_normal"
            head = Head(loss, self.head.sizes[0], init=head_init)
        sizes = [layer.linear.sizes for layer in self.layers]
        return Chain(
            widths=[sizes[0][1], *(s[0] for s in sizes)],
            activation=self.activation,
            init=init,
            norm=self.norm and self.norm[0],
            norm_eps=self.norm[1] if self.norm else NORM_EPS,
            order=self.order,
            residual=self.residual,
            head=head,
            **fields,
        )


def assemble(steps: list[Step]) -> Network:
    """The network of a row of steps.

    Raises:
        ValueError: the steps are no chain: which one, and why.
    """
    linears = [s for s in steps if s.kind == "linear"]
    if not linears:
        raise ValueError("the module has no Linear layer, so there is no chain to read")
    for before, after in itertools.pairwise(linears):
        if before.sizes[0] != after.sizes[1]:
            raise ValueError(f"{after.where} takes {after.sizes[1]} numbers, but {before.where} gives {before.sizes[0]}")
    order = ORDERS[0 if steps[0].kind == "linear" else 1]
    layers = _group(steps, order)
    head = None
    plain = [layer for layer in layers if layer.norm is None and layer.activation is None]
    if len(layers) > 1 and plain == layers[-1:] and layers[-1].sum is None:
        head = layers.pop().linear
    for layer in layers[1:]:
        _same(layers[0], layer, layer is layers[-1] and order == ORDERS[0])
    row = layers[0].activation
    return Network(
        layers=layers,
        head=head,
        order=order,
        activation="linear" if row is None else row.activation,
        norm=None if layers[0].norm is None else layers[0].norm.norm,
        residual=_residual(layers),
    )


def _group(steps, order):
    """Layers, each complete; sums know how many layers they bridge."""
    slots = ("linear", "norm", "activation", "sum") if order == ORDERS[0] else ("norm", "activation", "linear", "sum")
    layers: list[Layer] = []
    ends = {0: 0}  # steps done -> layers done
    filled = -1
    for i, step in enumerate(steps):
        slot = slots.index(step.kind)
        begins = step.kind == "linear" if order == ORDERS[0] else step.kind != "sum" and (not layers or layers[-1].linear is not None)
        if begins:
            layers.append(Layer(where=step.where))
            filled = -1
        if slot <= filled:
            raise ValueError(f"{step.where} stands where a chain has none: a layer is {_words(order)}")
        setattr(layers[-1], step.kind, step)
        filled = slot
        if step.kind == "sum":
            if step.start not in ends:
                raise ValueError(
                    f"{step.where} adds a value from inside a layer; a chain adds the input or the output of one ({_words(order)})"
                )
            layers[-1].branch = len(layers) - ends[step.start]
        if layers[-1].linear is not None:
            ends[i + 1] = len(layers)
    if layers[-1].linear is None:
        raise ValueError(f"{layers[-1].where} comes after the last Linear; read the module without it, such as module[:-1]")
    return layers


def _words(order):
    return "Linear, norm, activation, sum" if order == ORDERS[0] else "norm, activation, Linear, sum, since this one begins with no Linear"


def _same(first, layer, last):
    """Refuse layers that differ in activation or norm."""
    for kind in ("activation", "norm"):
        a, b = (getattr(x, kind) and getattr(getattr(x, kind), kind) for x in (first, layer))
        if a != b:
            hint = (
                "; read the module without its last activation, and let loss= stand for it"
                if last and a and b and kind == "activation"
                else ""
            )
            raise ValueError(
                f"a chain has one {kind} everywhere, but the layer of {first.linear.where} has {_name(a)} "
                f"and that of {layer.linear.where} has {_name(b)}{hint}"
            )


def _name(what):
    return "none" if what is None else f"{what[0]} with eps {what[1]:g}" if isinstance(what, tuple) else str(what)


def _residual(layers):
    sums = [(i + 1, layer) for i, layer in enumerate(layers) if layer.sum is not None]
    if not sums:
        return None
    every, scale = sums[0][1].branch, sums[0][1].sum.scale
    if every < 1:
        raise ValueError(f"{sums[0][1].sum.where} adds a value to itself")
    for _, layer in sums:
        if (layer.branch, layer.sum.scale) != (every, scale):
            raise ValueError(
                f"a chain has one residual pattern, but {sums[0][1].sum.where} bridges {every} layers with scale {scale:g} and "
                f"{layer.sum.where} {layer.branch} with {layer.sum.scale:g}"
            )
    if [i for i, _ in sums] != list(range(every, len(layers) + 1, every)):
        raise ValueError(
            f"a chain adds after every {every}. layer, this module after layers {', '.join(str(i) for i, _ in sums[:8])} of {len(layers)}; "
            "read its blocks alone"
        )
    return Residual(every, scale)
