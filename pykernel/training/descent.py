# SPDX-License-Identifier: BSD-3-Clause
"""One replica's descent: forward, objective, backward, and a step on every weight and bias, over and over."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from pykernel import observables, stream
from pykernel.dtypes import Floats
from pykernel.engines import heads, reference
from pykernel.engines.run import CLIPPED, clip_by_norm
from pykernel.ops.linear import bias
from pykernel.parts import Clip
from pykernel.program import BIASES, Program
from pykernel.samplers import with_samples
from pykernel.training.parametrizations import Rates
from pykernel.training.weights import Weights, compiled_tall, drawn

UNBOUNDED = 1e30  # times the first loss: beyond it no later step can be believed
NEEDED = ("input", "grad_preactivation", "head_input", "grad_logits")


class Plan(NamedTuple):
    """What is trained and how.

    Attributes:
        program: at initialisation, the head's scale as the parametrization has it.  clip: of the chain, or None.
        steps, momentum: numbers.  rates: of every parameter.
        engine: "dense" or "matrix_free".  compiled: whether C++ draws.  threads: of C++.
    """

    program: Program
    clip: Clip | None
    steps: int
    momentum: float
    rates: Rates
    engine: str
    compiled: bool
    threads: int


class Small:
    """What is small enough to be kept: biases and the head's weight in descent, each with its velocity, and the inputs
    and targets.

    Attributes:
        values: by name: ("bias", l), "head", "head bias"; float64.
    """

    def __init__(self, program: Program, replica: int, compiled: bool, threads: int) -> None:
        self.values: dict[Any, np.ndarray] = {}
        self._velocity: dict[Any, np.ndarray] = {}
        tall = compiled_tall(threads) if compiled else stream.tall
        self._x = reference.input_block(program, replica, tall).true()
        self._targets = program.head.targets
        if self._targets is None:
            self._targets = heads.drawn_targets(program, replica, program.depth + 1)
        for l in range(1, program.depth + 1):
            if BIASES[program.layers.bias_draw[l - 1]] != "zero":
                key = "bias", int(program.layers.address[l - 1])
                self.values.setdefault(key, bias(program, replica, l)[:, 0])
        head = program.head
        weight = head.weight
        if weight is None:
            at = program.seed, program.depth + 1, replica, head.outputs, int(program.nodes[-1])
            weight = drawn(*at, head.draw, threads) if compiled else stream.matrix(*at, *head.draw)
        self.values["head"] = head.scale * weight.astype(np.float64)
        if head.bias is not None:
            self.values["head bias"] = head.bias

    def step(self, key: Any, gradient: Floats, rate: float, momentum: float) -> None:
        """v = m v + g; value -= rate v."""
        velocity = momentum * self._velocity.get(key, 0.0) + gradient
        self._velocity[key] = velocity
        self.values[key] = self.values[key] - rate * velocity

    def program(self, program: Program) -> Program:
        """The program with what they are now in place of draws."""
        layers, values = program.layers, self.values
        biases = tuple(values.get(("bias", int(address))) for address in layers.address)
        own = np.array([b is not None for b in biases])
        given = layers._replace(bias_draw=np.where(own, BIASES.index("given"), 0), bias_scale=np.where(own, 1.0, 0.0))
        head = program.head._replace(weight=values["head"], scale=1.0, bias=values.get("head bias"))
        head = head._replace(targets=self._targets)
        return dataclasses.replace(program, layers=given, biases=biases, head=head, x=self._x)


def descend(
    plan: Plan,
    replica: int,
    rows: dict,
    observe: Callable[[int, dict[str, dict[int, Any]]], None] | None = None,
    keep: Sequence[str] = (),
) -> int:
    """Train one replica.

    Args:
        plan: what and how.  replica: which draw.
        rows: row -> (steps + 1, ...) float64, written step by step; nan behind a loss without bound.
        observe: called with the step and the arrays of that pass, those named in `keep` among them.

    Returns:
        The first step whose loss is without bound, -1 where none is. From there on the loss is inf.
    """
    program = plan.program if plan.program.samplers is None else with_samples(plan.program, replica)
    weights = Weights(program, replica, plan.engine, plan.compiled, plan.threads)
    small = Small(program, replica, plan.compiled, plan.threads)
    for step in range(plan.steps + 1):
        kept = reference.Kept((*NEEDED, *keep))
        here = {name: array[step : step + 1] for name, array in rows.items()}
        run = reference.Run(small.program(program), replica, weights, here, kept)
        run.turn = step
        run.forward()
        run.backward()
        if _unbounded(rows, step):
            for name, array in rows.items():
                array[step:] = np.inf if name == "loss" else np.nan
            return step
        if observe is not None:
            observe(step, kept.arrays)
        factors = _clip(plan.clip, here, program)
        if step < plan.steps:
            _step(plan, weights, small, kept.arrays, factors)
    return -1


def _unbounded(rows: dict, step: int) -> bool:
    loss, gradient = rows["loss"], rows["log10_grad_weight"][step]
    far = UNBOUNDED * max(1.0, abs(loss[0]))
    return not abs(loss[step]) <= far or (np.isnan(gradient) | (gradient == np.inf)).any()


def _clip(clip: Clip | None, here: dict[str, np.ndarray], program: Program) -> Floats:
    """Clip the rows by norm; what multiplies the gradients of each layer, (L,). The norm is that of what is trained:
    biases that the chain has not are measured, and left out."""
    weight, bias = observables.OF_USES if program.counts.weight else CLIPPED
    own = program.layers.bias_draw[program.first_uses] != BIASES.index("zero")
    after = {**here, bias: np.where(own, here[bias], -np.inf)}
    clip_by_norm(clip, after)
    change = np.zeros(len(own))
    for name in (weight, bias):
        difference = after[name][0] - here[name][0]
        change = np.where(np.isfinite(difference), difference, change)
    for name in (weight, bias):
        here[name] += change
    return 10.0 ** change[program.layers.weight]


def _step(plan: Plan, weights: Weights, small: Small, arrays: dict[str, dict[int, Any]], factors: Floats) -> None:
    program, rates = plan.program, plan.rates
    uses: dict[int, list[int]] = {}
    for l in range(1, program.depth + 1):
        uses.setdefault(int(program.layers.address[l - 1]), []).append(l)
    bound = program.clip_value
    for address, layers in uses.items():
        first = layers[0]
        delta = np.hstack([factors[l - 1] * arrays["grad_preactivation"][l] for l in layers])
        u = np.hstack([arrays["input"][l] for l in layers])
        weights.of(first).step(delta, u, rates.weights[first - 1], plan.momentum, bound=bound)
        if ("bias", address) in small.values:
            gradient = delta.sum(axis=1)
            gradient = np.clip(gradient, -bound, bound) if bound else gradient
            small.step(("bias", address), gradient, rates.biases[first - 1], plan.momentum)
    dy = arrays["grad_logits"][0]
    small.step("head", dy @ arrays["head_input"][0].T, rates.head, plan.momentum)
    if "head bias" in small.values:
        small.step("head bias", dy.sum(axis=1), rates.head_bias, plan.momentum)
