# SPDX-License-Identifier: BSD-3-Clause
"""The table of changes that `recommend` tries on a chain of blocks: gains, skip factors, branch scales, the places of
norms; and why one does not apply."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pykernel.activation import Activation
from pykernel.chain import Chain
from pykernel.layers import Attention, Block, Dropout, Gated, Linear, Norm, Scale, Weighted
from pykernel.theory import edits
from pykernel.theory.critical import critical_gain
from pykernel.theory.proposals import DRAW, FRAME, INIT, LOST, NUMBER, PART, Proposal, Situation, rounded, tuned

LEARNED = "one learned factor a branch; before training no branch does anything"
RMS = Norm("rms")


def _with_skip(s: Situation) -> list[Block]:
    return [block for block in edits.blocks_of(s.chain) if block.skip is not None]


def _normed_after(s: Situation) -> list[Block]:
    return [block for block in _with_skip(s) if edits.has_norm(block.after)]


def _normed(chain: Chain) -> bool:
    """Whether a norm stands anywhere in the repeated pattern."""
    return any(edits.has_norm((*block.steps, *block.after)) for block in chain.blocks or ())


def _balanced(s: Situation) -> bool:
    """Whether the gradient hardly changes as it is: there is nothing to tune."""
    return abs(s.decades) < LOST


def _gain(s: Situation) -> Any:
    if _balanced(s):
        return None
    if s.gain is not None:
        return f"gain {s.gain:.4g} for the chain", s.chain.replace(gain=s.gain)
    if math.isnan(s.decades):
        return "a gain: theory has no number for this chain as it is, so none was searched for"
    return "a gain: theory finds none from 1/55 to 55 times the present one that would keep the gradient"


def _gain_of(kind: str, chosen: Callable[[Block], list[bool]]) -> Callable[[Situation], Any]:
    """The factor on the gains of one kind of layer at which the gradient is kept."""

    def change(s: Situation) -> Any:
        counts = [(sum(which), len(which)) for which in map(chosen, edits.blocks_of(s.chain))]
        if not any(some for some, _ in counts) or all(some == every for some, every in counts) or _balanced(s):
            return None  # there are none, or these are all layers, or nothing is wrong
        scaled = lambda factor: edits.edited(
            s.chain, lambda block: edits.gains_multiplied(block, [factor if c else 1.0 for c in chosen(block)])
        )
        factor = tuned(scaled, s.batch, s.positions)
        return None if factor is None else (f"{kind} times {factor:.4g}", scaled(rounded(factor)))

    return change


def _last_of_branches(block: Block) -> list[bool]:
    count = edits.layers_in(block)
    return [block.skip is not None and i == count - 1 for i in range(count)]


def _of_type(kind: type) -> Callable[[Block], list[bool]]:
    return lambda block: [isinstance(step, kind) for step in block.steps if isinstance(step, Weighted)]


def _gain_behind_each_function(s: Situation) -> Any:
    """Each layer at the critical gain of the function whose output it takes; 1 for a layer that takes none."""
    if _with_skip(s) or _normed(s.chain):
        return None
    functions = {f for block in edits.blocks_of(s.chain) for f in edits.functions_in((*block.steps, *block.after))}
    steps = [step for block in edits.blocks_of(s.chain) for step in block.steps]
    if not functions or any(isinstance(step, Weighted) and not isinstance(step, Linear) for step in steps):
        return None
    points = {f: critical_gain(f) for f in functions}
    lawless = sorted(str(f) for f in functions if not points[f].exists)
    if lawless:
        return f"a critical gain behind each function: {lawless[0]} has none"
    before: Any = None

    def edit(block: Block) -> Block:
        nonlocal before
        steps = []
        for step in (*block.steps, *block.after):
            if isinstance(step, Linear):
                gain = 1.0 if before is None else points[before].gain
                step, before = Linear(step.units, init="lecun_normal", gain=gain, bias_std=step.bias_std), None
            elif isinstance(step, Activation):
                before = step
            steps.append(step)
        count = len(block.steps)
        return edits.rebuilt(block, steps[:count], after=steps[count:])

    parts = {"first": tuple(map(edit, s.chain.first))}
    for block in s.chain.blocks or ():  # what the end of a repetition hands to the next
        edit(block)
    for part in ("blocks", "last"):
        parts[part] = tuple(map(edit, getattr(s.chain, part)))
    said = ", ".join(f"{point.gain:.4g} behind {f}" for f, point in sorted(points.items(), key=lambda p: str(p[0])))
    return f"init lecun_normal, gain {said}", s.base.replace(**parts)


def _orthogonal(s: Situation) -> Any:
    if _with_skip(s) or any(init.distribution == "haar" for init in s.chain.inits):
        return None
    own = lambda step: isinstance(step, Weighted) and step.init is not None
    if any(own(step) for block in edits.blocks_of(s.chain) for step in block.steps):
        return "orthogonal weights: layers name inits of their own"
    chain = s.base.replace(init="orthogonal")
    gain = tuned(lambda gain: chain.replace(gain=gain), s.batch, s.positions)
    return None if gain is None else (f"orthogonal weights, gain {gain:.4g}", chain.replace(gain=rounded(gain)))


def _branches(words: str, scale: Any) -> Callable[[Situation], Any]:
    """Another scale for every branch; behind a skip that is kept."""

    def change(s: Situation) -> Any:
        if not _with_skip(s):
            return "branch scales, DeepNorm, Fixup: no block has a skip" if scale else None
        return words, edits.branches_edited(s.chain, lambda block: edits.rebuilt(block, scale=scale))

    return change


def _root_half(s: Situation) -> Any:
    found = [b for b in _with_skip(s) if b.skip == 1 and b.scale == 1 and not edits.has_norm(b.after)]
    if not found:
        return None
    root = 0.5**0.5
    return "sums times sqrt(1/2)", edits.branches_edited(
        s.chain, lambda block: edits.rebuilt(block, skip=root, scale=root) if block in found else block
    )


def _skip_factor(s: Situation) -> Any:
    found = [block for block in _with_skip(s) if isinstance(block.skip, float) and block.skip]
    if _balanced(s):
        return None
    if not found:
        return None if not _with_skip(s) else "a skip factor: the skips are steps or named factors"
    scaled = lambda factor: edits.branches_edited(
        s.chain, lambda block: edits.rebuilt(block, skip=block.skip * factor) if block in found else block
    )
    factor = tuned(scaled, s.batch, s.positions)
    if factor is None:
        return "a skip factor: theory finds none that would keep the gradient"
    factor = rounded(factor)
    said = ", ".join(f"{skip * factor:.4g}" for skip in dict.fromkeys(block.skip for block in found))
    return f"skip {said}", scaled(factor)


def _deep_norm(s: Situation) -> Any:
    """skip (2N)^(1/4), branches' weights (of attention value and output) times (8N)^(-1/4), N repetitions; multiplying
    what they give is one law with multiplying them."""
    found = _normed_after(s)
    if not found:
        return "DeepNorm: no norm stands after a sum" if _with_skip(s) else None
    N = max(s.chain.depth, math.ceil(s.chain.branches / 2))  # of a layer of two branches each; a pattern may hold many
    alpha, beta = (2 * N) ** 0.25, (8 * N) ** -0.25

    def edit(block: Block) -> Block:
        if block not in found:
            return block
        if any(isinstance(step, Attention) for step in block.steps):  # whose one gain is query's and key's, too
            scaled = sum(1 + isinstance(step, Attention) for step in block.steps if isinstance(step, Weighted))
            return edits.rebuilt(block, skip=alpha, scale=beta**scaled)
        return edits.rebuilt(edits.gains_multiplied(block, [beta] * edits.layers_in(block)), skip=alpha, scale=1.0)

    return f"DeepNorm: skip {alpha:.4g}, branch gains times {beta:.4g}", edits.edited(s.chain, edit)


def _fixup(s: Situation) -> Any:
    """Of m layers in a branch all but the last times branches^(-1/(2m - 2)), the last zero."""
    found = [block for block in _with_skip(s) if edits.layers_in(block)]
    if not found:
        return None
    if any(init.fixup for init in s.chain.inits):
        return "Fixup: layers are drawn by it already"
    count = s.chain.branches

    def edit(block: Block) -> Block:
        m = edits.layers_in(block)
        if block not in found:
            return block
        inner = count ** (-1 / (2 * m - 2)) if m > 1 else 1.0
        return edits.gains_multiplied(block, [*[inner] * (m - 1), 0.0])

    shown = ", ".join(
        f"{count ** (-1 / (2 * m - 2)):.4g}" for m in sorted({edits.layers_in(b) for b in found}) if m > 1
    )
    inner = f"inner gains times {shown}, " if shown else ""
    return f"Fixup: {inner}last layers of branches zero", edits.edited(s.chain, edit)


def _pre_norm(s: Situation) -> Any:
    found = _normed_after(s)
    if not found:
        return None

    def edit(block: Block) -> Block:
        if block not in found:
            return block
        first = next(step for step in block.after if isinstance(step, Norm))
        return edits.rebuilt(block, [first, *block.steps], after=edits.without_norms(block.after))

    return "pre-norm: the norm from behind the sum to the branch's beginning", edits.edited(s.chain, edit)


def _norm_in_branches(s: Situation) -> Any:
    found = [b for b in _with_skip(s) if edits.layers_in(b) and not edits.has_norm((*b.steps, *b.after))]
    if not found:
        return None
    return "rms norm at the beginning of each branch", edits.edited(
        s.chain, lambda block: edits.rebuilt(block, [RMS, *block.steps]) if block in found else block
    )


def _activation_first(s: Situation) -> Any:
    """Full pre-activation: what acts on the sum acts at the branch's beginning instead."""
    moved = lambda block: [step for step in block.after if not isinstance(step, Norm | Scale | Dropout)]
    found = [block for block in _with_skip(s) if moved(block)]
    if not found:
        return None

    def edit(block: Block) -> Block:
        if block not in found:
            return block
        return edits.rebuilt(
            block, [*moved(block), *block.steps], after=[p for p in block.after if p not in moved(block)]
        )

    return "the function after the sum to the branch's beginning", edits.edited(s.chain, edit)


def _norm_before_functions(s: Situation) -> Any:
    """A norm before each gate and each function of a chain that has none."""
    if _with_skip(s) or _normed(s.chain):
        return None
    gated = any(isinstance(step, Gated) for block in s.chain.blocks or () for step in block.steps)
    wanted: Any = Gated if gated else Activation

    def edit(block: Block) -> Block:
        return edits.rebuilt(
            block, [part for p in block.steps for part in ((RMS, p) if isinstance(p, wanted) else (p,))]
        )

    words = "rms norm before each gate" if gated else "rms norm before each activation function"
    return words, edits.edited(s.chain, edit)


def _skip_around(s: Situation) -> Any:
    """Each repetition a pre-norm branch; a function that ends it comes first, as in full pre-activation."""
    if _with_skip(s):
        return None
    if s.chain.is_spatial:
        return "a skip around each repetition: not tried around convolutions, which may change positions"
    if not edits.kept_widths(s.chain):
        return "a skip around each repetition: it ends in other units than it began with"
    steps = [p for b in s.chain.blocks or () for p in (*b.steps, *([Scale(b.scale)] if b.scale != 1 else ()), *b.after)]
    steps = list(edits.without_norms(steps))
    if not any(isinstance(step, Weighted) for step in steps):
        return None
    last = max(i for i, step in enumerate(steps) if isinstance(step, Weighted)) + 1
    branch = Block(RMS, *steps[last:], *steps[:last], skip=1.0)
    return "a skip around each repetition, rms norm inside", s.chain.replace(blocks=[branch])


def _no_batch_norm(s: Situation) -> Any:
    if not s.chain.has_batch_norm:
        return None
    swap = lambda steps: tuple(RMS if isinstance(p, Norm) and p.kind == "batch" else p for p in steps)
    return "rms norm in the place of batch norm", edits.edited(
        s.chain, lambda block: edits.rebuilt(block, swap(block.steps), after=swap(block.after))
    )


BLOCK_PROPOSALS = (
    Proposal(_gain, NUMBER, "one number, tuned by theory to this depth"),
    Proposal(_gain_of("last layers of branches", _last_of_branches), NUMBER, "one number", "Radford et al. 2019"),
    Proposal(_gain_of("gates and values", _of_type(Gated)), NUMBER, "one number, tuned by theory to this depth"),
    Proposal(
        _branches("branches times 1/sqrt(number of branches)", "inverse_sqrt_depth"),
        NUMBER,
        "one number",
        "Hayou et al. 2021; Hanin, Rolnick 2018",
    ),
    Proposal(_skip_factor, NUMBER, "one number, tuned by theory to this depth"),
    Proposal(_root_half, NUMBER, "one number; the input's share halves with every branch"),
    Proposal(_deep_norm, NUMBER, "two numbers", "Wang et al. 2022 (DeepNorm)"),
    Proposal(_gain_behind_each_function, INIT, DRAW, "edge of chaos, Schoenholz et al. 2017"),
    Proposal(_orthogonal, INIT, FRAME + "; least spread over draws", "Saxe et al. 2014"),
    Proposal(_fixup, INIT, DRAW + "; before training no branch does anything", "Zhang, Dauphin, Ma 2019 (Fixup)"),
    Proposal(_branches("branches start at 0", 0.0), PART, LEARNED, "De, Smith 2020 (SkipInit); ReZero"),
    Proposal(_pre_norm, PART, "the same passes, elsewhere", "pre-norm, Xiong et al. 2020"),
    Proposal(_norm_in_branches, PART, "one pass a branch", "pre-norm, Xiong et al. 2020"),
    Proposal(_activation_first, PART, "the same passes, elsewhere", "He et al. 2016 (identity mappings)"),
    Proposal(_norm_before_functions, PART, "one pass a function", "Zhang, Sennrich 2019"),
    Proposal(_skip_around, PART, "one pass and one sum a repetition", "pre-norm, Xiong et al. 2020"),
    Proposal(_no_batch_norm, PART, "one pass, over units and not the batch", "Zhang, Sennrich 2019"),
)
