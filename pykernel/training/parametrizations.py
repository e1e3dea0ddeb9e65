# SPDX-License-Identifier: BSD-3-Clause
"""The table of parametrizations: by the role of a layer, what multiplies its initial weights and its rate."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pykernel.program import Op, Program

ROLES = ("input", "hidden", "output")


class Row(NamedTuple):
    """One parametrization. Of each role (input, hidden, output) and of biases a power of fan_in or fan_out.

    Attributes:
        init: power of fan_in that multiplies the output weight's standard deviation.
        rates: of each role (power of fan_in, power of fan_out) of what multiplies its rate.
        bias: the power of its layer's fan_out that multiplies a bias's rate.
        scores: power of a head's units that multiplies the scale of attention scores, where no scale is given.
        change: of each role the exponent in width of how far its outputs move by one step.
        logits: exponent of the logits themselves at initialisation.
    """

    init: float
    rates: dict[str, tuple[float, float]]
    bias: float
    scores: float
    change: dict[str, float]
    logits: float


def _roles(first: Any, second: Any, third: Any) -> dict[str, Any]:
    return dict(zip(ROLES, (first, second, third), strict=True))


TABLE = {
    "standard": Row(0.0, _roles((0, 0), (0, 0), (0, 0)), 0.0, 0.0, _roles(-0.5, 0.5, 1.0), 0.0),
    "ntk": Row(0.0, _roles((-1, 0), (-1, 0), (-1, 0)), 0.0, 0.0, _roles(-0.5, -0.5, 0.0), 0.0),
    "mup": Row(-0.5, _roles((0, 1), (0, 0), (-1, 0)), 1.0, -0.5, _roles(0.0, 0.0, 0.0), -0.5),
}


class Rates(NamedTuple):
    """Rates of every parameter: of the layers' weights and biases, (L,) float64, and of the head's."""

    weights: np.ndarray
    biases: np.ndarray
    head: float
    head_bias: float


def roles(program: Program, grows: bool | None = None) -> list[str]:
    """The role of each layer, "input" or "hidden".

    Args:
        program: what is trained.
        grows: whether the input grows with the width; by default where the first block ends in as many units as come
            in. What reads an input that grows is hidden. Inputs of Drive steps have units of their own and never grow.
    """
    if grows is None:
        grows = bool(program.nodes[0] == program.nodes[1])
    out = np.full(program.depth, "hidden", dtype="<U6")
    bare = set() if grows else {0}  # registers that hold the input still
    for stretch in program.stretches:
        arrived: set[int] = set()  # and those that hold an input of a Drive step, in every repetition
        for op in stretch.ops:
            if op.kind == "linear" and op.ins[0] in bare:
                out[stretch.number("layer", op, 0)] = "input"
            if op.kind == "linear" and op.ins[0] in arrived:
                out[stretch.number("layer", op, np.arange(stretch.count))] = "input"
            bare = _held(bare, op, op.kind not in ("linear", "drive"))
            arrived = {op.out, *arrived} if op.kind == "drive" else _held(arrived, op, op.kind != "linear")
    return out.tolist()


def _held(registers: set[int], op: Op, passes: bool) -> set[int]:
    """Those of the registers that hold what they held behind an op, the one that it writes among them where it passes
    that on."""
    keeps = passes and all(register in registers for register in op.ins)
    return registers | {op.out} if keeps else registers - {op.out}


def rates(program: Program, name: str, rate: float, grows: bool | None = None) -> Rates:
    """The rates of a parametrization, from the one that was asked for."""
    row, layers = TABLE[name], program.layers
    power = np.array([row.rates[role] for role in roles(program, grows)])
    weights = rate * layers.columns.astype(float) ** power[:, 0] * layers.units.astype(float) ** power[:, 1]
    fan_in, fan_out = float(program.nodes[-1]), float(program.head.outputs)
    power_in, power_out = row.rates["output"]
    biases = rate * layers.units.astype(float) ** row.bias
    return Rates(weights, biases, rate * fan_in**power_in * fan_out**power_out, rate * fan_out**row.bias)
