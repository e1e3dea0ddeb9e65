# SPDX-License-Identifier: BSD-3-Clause
"""Chains of blocks with something changed: skips, branch scales, the gains of layers, where a norm stands. Advice is
made of these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pykernel.activation import Activation
from pykernel.chain import Chain
from pykernel.layers import Block, Norm, Weighted

PARTS = ("first", "blocks", "last")


def blocks_of(chain: Chain) -> tuple[Block, ...]:
    """The blocks of all three parts of a chain, each once."""
    return tuple(block for part in PARTS for block in getattr(chain, part))


def edited(chain: Chain, edit: Callable[[Block], Block]) -> Chain:
    """The chain with every block changed."""
    return chain.replace(**{part: tuple(edit(block) for block in getattr(chain, part)) for part in PARTS})


def branches_edited(chain: Chain, edit: Callable[[Block], Block]) -> Chain:
    """The chain with every block changed that has a skip."""
    return edited(chain, lambda block: block if block.skip is None else edit(block))


def rebuilt(block: Block, steps: Any = None, **words: Any) -> Block:
    """The block with other steps or words."""
    kept = {"skip": block.skip, "scale": block.scale, "after": block.after}
    return Block(*(block.steps if steps is None else steps), **{**kept, **words})


def regained(step: Any, factor: float) -> Any:
    """A step whose weights, if it has any, are multiplied by a factor."""
    if not isinstance(step, Weighted):
        return step
    words = {name: getattr(step, name) for name in step.__dataclass_fields__}  # type: ignore[attr-defined]
    return type(step)(**{**words, "gain": step.gain * factor})


def gains_multiplied(block: Block, factors: Any) -> Block:
    """The block with its layers' gains multiplied, one factor a step that has weights, in order."""
    left = iter(factors)
    steps = [regained(step, next(left)) if isinstance(step, Weighted) else step for step in block.steps]
    return rebuilt(block, steps)


def layers_in(block: Block) -> int:
    """How many steps of a branch have weights; a gate and its value are one."""
    return sum(isinstance(step, Weighted) for step in block.steps)


def has_norm(steps: Any) -> bool:
    """Whether a norm is among the steps."""
    return any(isinstance(step, Norm) for step in steps)


def without_norms(steps: Any) -> tuple:
    """The steps that are no norms."""
    return tuple(step for step in steps if not isinstance(step, Norm))


def functions_in(steps: Any) -> list[Activation]:
    """The activation functions among steps, a gate's too."""
    found = (step if isinstance(step, Activation) else getattr(step, "activation", None) for step in steps)
    return [function for function in found if function is not None]


def kept_widths(chain: Chain) -> bool:
    """Whether a repetition of the pattern ends in as many units as it began with."""
    ends = chain.layer_widths[chain.ends]
    return bool((ends == ends[0]).all())
