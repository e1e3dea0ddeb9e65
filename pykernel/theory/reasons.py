# SPDX-License-Identifier: BSD-3-Clause
"""Why a chain of blocks does what it does: of each block what it does to signal and gradient, in a plain sentence."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from pykernel.layers import Attention, Block, Dropout, Gated, Norm, roles
from pykernel.theory.attention import ONE_POSITION
from pykernel.theory.quadrature import ELASTICITY, moments

SHOWN = 3  # blocks of a pattern that are explained: those that change the gradient most
LABEL = 58
TOGETHER = 0.9  # cosine of positions from which they count as fallen together
PICKS = 0.3  # of the largest entropy that attention over so many positions may have


def reasons(propagation: Any, prediction: Any) -> tuple[str, ...]:
    """Plain sentences with numbers: what theory leaves out of a wide head; of a chain of blocks, those of the repeated
    pattern that change the gradient most first.

    Args:
        propagation: measured; its medians over replicas are what the sentences are about.
        prediction: None, or the theory beside it, which knows what part of a sum its branch is.
    """
    p, chain = propagation, propagation.chain
    caveat = (prediction.wide_head,) if prediction is not None and prediction.wide_head else ()
    if chain.blocks is None:
        return caveat
    with np.errstate(invalid="ignore"):
        back = np.median(p.log10_grad_activation, axis=0)
        square = np.median(p.log10_mean_square_activation, axis=0)
    said: dict[Block, tuple[float, str]] = {}
    for k, block in enumerate(chain.blocks):
        nodes = np.arange(
            len(chain.first) + k + 1, len(chain.first) + chain.depth * len(chain.blocks) + 1, len(chain.blocks)
        )
        with np.errstate(invalid="ignore"):
            gradient = _mean(back[nodes - 1] - back[nodes])
            inner = nodes[nodes > 1]
            signal = _mean(square[inner - 1] - square[inner - 2])
        if block not in said and math.isfinite(gradient):
            text = _of_block(p, block, k, gradient, signal, _share(prediction, chain, k))
            said[block] = abs(gradient), f"{_label(block)}: {text}"
    order = sorted(said.values(), key=lambda pair: -pair[0])
    return (*caveat, *(text for _, text in order[:SHOWN]), *_attention(p, prediction), *_gates(p), *_masks(chain))


def _label(block: Block) -> str:
    """A block's steps as far as they fit, none of them cut."""
    text = str(block)
    if len(text) <= LABEL:
        return text
    fits = [cut.start() for cut in re.finditer(r", (?![^(]*\))", text) if cut.start() <= LABEL]
    return f"{text[: fits[-1] if fits else LABEL]}, ..."


def _mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else math.nan


def _of_block(p: Any, block: Block, k: int, gradient: float, signal: float, share: float) -> str:
    text = f"{gradient:+.3g} decades of the gradient on the way back"
    if block.skip is None:
        phi, weights = _factors(p, k)
        parts = [f"its functions {phi:+.3g}"] if math.isfinite(phi) else []
        parts += [f"its weights {weights:+.3g}"] if math.isfinite(weights) else []
        if any(isinstance(step, Norm) for step in (*block.steps, *block.after)):
            parts.append("the norm the rest")
        return f"{text}, {', '.join(parts)}" if parts else text
    branch = "" if math.isnan(share) else f", {share:.2g} of the sum's mean square in the last repetition"
    if any(isinstance(step, Norm) for step in block.after):
        why = f"the norm after the sum divides skip and branch{branch and ' (the branch is' + branch[1:] + ')'} alike"
    elif isinstance(block.steps[0], Norm):
        why = f"the norm makes the branch add as much to a small signal as to a large one{branch}: growth by sums"
    else:
        why = f"nothing divides the sum, so that what the branch adds{branch} multiplies from block to block"
    grows = f"; the signal's mean square changes by {signal:+.3g} decades" if math.isfinite(signal) else ""
    return f"{text}; {why}{grows}"


def _factors(p: Any, k: int) -> tuple[float, float]:
    """Decades that a block's activation functions and its weights contribute, means over repetitions."""
    chain = p.chain
    first, each = len(chain.first), len(chain.blocks)
    out = []
    for row, names, which in (
        ("log10_derivative_factor", p.activations, 1),
        ("log10_weight_factor", p.layers, 0),
    ):
        count = len(roles(chain.blocks[k])[which])
        numbers = np.array([int(name.partition(".")[0]) for name in names])
        chosen = (numbers > first) & (numbers <= first + chain.depth * each) & ((numbers - 1 - first) % each == k)
        with np.errstate(invalid="ignore"):
            values = np.median(p.rows[row][:, chosen], axis=0)
        out.append(count * _mean(values) if count else math.nan)
    return out[0], out[1]


def _share(prediction: Any, chain: Any, k: int) -> float:
    """The branch's part in the mean square of its sum, in the last repetition; nan where theory does not say."""
    if prediction is None or chain.blocks[k].skip is None:
        return math.nan
    skips = [block.skip is not None for block in chain.blocks]
    j = sum(b.skip is not None for b in chain.first) + (chain.depth - 1) * sum(skips) + sum(skips[:k])
    kept, added = (float(values[j]) for values in (prediction.signal.kept, prediction.signal.added))
    return added / (kept + added) if kept + added > 0 else math.nan


def _attention(p: Any, prediction: Any) -> list[str]:
    """Whether positions fall together on the way, and whether scores pick single keys."""
    positions = math.prod(p.positions)
    entropy = np.median(p.attention_entropy, axis=0)
    if not len(entropy):
        return []
    if positions == 1:
        return [ONE_POSITION]
    out, alike = [], np.median(p.similarity, axis=0)
    if alike[-1] > TOGETHER:
        first = int(np.argmax(alike > TOGETHER)) + 1
        what = "positions of an input" if p.batch == 1 else "columns, positions and inputs,"
        beside = "" if prediction is None else f" (theory {_short(prediction.similarity[-1])})"
        text = f"{what} fall together: mean cosine {_short(alike[-1])}{beside} at the end, "
        text += f"above {TOGETHER:g} from a[{first}] on"
        lost = _queries_over_values(p)
        if math.isfinite(lost) and lost < 0:
            text += f"; in the last attention query and key get {lost:+.3g} decades of value's gradient"
        out.append(f"{text}; smaller branches (1/sqrt(depth)), or norms before branches instead of behind, slow it")
    seen = [math.log((positions + 1) / 2) if step.causal else math.log(positions) for step in _attentions(p.chain)]
    if seen and float(entropy.min()) < PICKS * min(seen):
        m = int(entropy.argmin())
        most, std = math.log(positions), float(np.median(p.score_std[:, m]))
        out.append(
            f"scores pick keys: entropy {entropy[m]:.3g} of at most ln {positions} = {most:.3g} in attention {m + 1}, "
            f"whose scores have a standard deviation of {std:.3g}; a smaller scale or gain of query and key spreads it"
        )
    return out


def _attentions(chain: Any) -> list[Attention]:
    blocks = (*chain.first, *chain.blocks, *chain.last)
    return [step for block in blocks for step in block.steps if isinstance(step, Attention)]


def _short(cosine: float) -> str:
    """A cosine, near 1 by its distance."""
    return f"{cosine:.3g}" if cosine < 0.99 else f"1 - {max(1 - cosine, 0):.1g}"


def _queries_over_values(p: Any) -> float:
    """Decades of the query's weight gradient over the value's in the last attention; nan where both are zero."""
    last = {name.rpartition(".")[2].rstrip("0123456789"): l for l, name in enumerate(p.layers)}
    with np.errstate(invalid="ignore"):
        gradient = np.median(p.log10_grad_weight, axis=0)
        return float(gradient[last["query"]] - gradient[last["value"]])


def _gates(p: Any) -> list[str]:
    """Gates that nothing divides: their mean square goes as a power above 1 of what comes in."""
    chain = p.chain
    if any(isinstance(step, Norm) for block in chain.blocks for step in (*block.steps, *block.after)):
        return []
    gates = [step for block in chain.blocks for step in block.steps if isinstance(step, Gated)]
    layer = next((l for l, name in enumerate(p.layers) if name.endswith("gate")), None)
    if not gates or layer is None:
        return []
    half = float(np.median(p.log10_mean_square_preactivation[:, layer])) * math.log(10) / 2
    power = (
        1 + float(moments(gates[0].activation)(np.array([half]))[ELASTICITY, 0]) if math.isfinite(half) else math.nan
    )
    said = f" ({power:.3g} in the first one)" if math.isfinite(power) else ""
    return [
        f"{gates[0]}: a gate's mean square goes as a power above 1 of its input's{said}: without a norm no size is "
        "stable, any excess or lack grows from gate to gate"
    ]


def _masks(chain: Any) -> list[str]:
    every = [
        step for block in chain.blocks for step in (*block.steps, *block.after) if isinstance(step, Dropout) and step.p
    ]
    return [
        f"dropout {p:g} adds {-0.5 * math.log10(1 - p):.3g} decades to the norm of what passes, forward and backward"
        for p in dict.fromkeys(step.p for step in every)
    ]
