# SPDX-License-Identifier: BSD-3-Clause
"""How a chain is said: as Python that makes it, and in a line."""

from __future__ import annotations

import itertools
import math
from dataclasses import fields
from typing import Any

from pykernel import activations, inits
from pykernel.distributions import unit_variance
from pykernel.layers import NORM_EPS
from pykernel.tables import Strong, Table, places

MOST = 24  # kinds of layers in a table of them
RUNS = 4  # runs of equal blocks in a line; a GPT's pattern has two


def spelled(chain: Any) -> str:
    """What differs from the defaults, in words: functions and arrays would spill over the screen."""
    parts = []
    for f in fields(chain):
        value = getattr(chain, f.name)
        if f.name in ("activation", "init"):
            if value is not None:
                word = {"activation": activations, "init": inits}[f.name].word
                many = isinstance(value, tuple)
                parts.append(f"{f.name}={'[' + ', '.join(map(word, value)) + ']' if many else word(value)}")
        elif f.name == "widths" and value is not None and len(value) > 12:
            parts.append(f"widths=({', '.join(map(str, value[:6]))}, ... {len(value)} in all)")
        elif f.name in ("norm", "gain", "bias_std") and isinstance(value, tuple):
            parts.append(f"{f.name}={list(value)!r}")
        elif f.repr and value != f.default and not (f.name == "depth" and chain.widths is not None):
            parts.append(f"{f.name}={value!r}")
    return f"Chain({', '.join(parts)})"


def said(chain: Any) -> str:
    """In a line for people."""
    parts = [_size(chain)]
    parts += [] if chain.blocks is not None else [spoken(chain.activation)]
    parts += ["tied"] if chain.tied else []
    parts += [spoken(chain.init)]
    parts += [f"gain {spoken(chain.gain)}"] if chain.gain != 1 else []
    parts += [f"bias std {spoken(chain.bias_std)}"] if chain.bias_std else []
    eps = f" (eps {chain.norm_eps:g})" if chain.norm_eps != NORM_EPS else ""
    parts += [f"{spoken(chain.norm)} norm{eps}"] if chain.norm else []
    parts += ["pre-activation"] if chain.order.startswith("norm") else []
    parts += [f"{key} {getattr(chain, key)}" for key in ("residual", "head", "clip") if getattr(chain, key) is not None]
    return ", ".join(parts)


def plural(count: int, word: str) -> str:
    """A number of things: "1 layer", "2 layers"."""
    return f"{count} {word}" + "s" * (count != 1)


def shown(chain: Any, pattern: Any) -> list[str | Table]:
    """Lines and a table of weight layers for people, of a chain and its pattern (see `pykernel.pattern`); with
    convolutions there is none, since sizes depend on the positions of an input."""
    if pattern is None:
        return [
            Strong(said(chain)),
            plural(chain.extents.layer, "weight layer"),
            "sizes depend on the positions of an input",
        ]
    alike: dict[tuple, list[str]] = {}  # layers of one role, size and law
    for i, (name, module) in enumerate(itertools.zip_longest(chain.layers, chain.modules)):
        draw = pattern.draws[pattern.draw[i]]
        variance = unit_variance(draw.distribution, draw.parameter)
        std = "" if math.isnan(variance) else f"{abs(pattern.scale[i]) * math.sqrt(variance):.4g}"
        size, init = f"{pattern.units[i]} x {pattern.columns[i]}", str(pattern.inits[pattern.init[i]])
        alike.setdefault((module or name.partition(".")[2], size, init, std), []).append(name)
    spans = {key: names[0] if len(names) == 1 else f"{names[0]} .. {names[-1]}" for key, names in alike.items()}
    lines = [(spans[key], str(len(names)), *key) for key, names in alike.items()]
    role = "module" if chain.modules else "role"
    titles = ("layers", "count", role, "weights", "init", "std")
    shown = [lines[i] for i in places(len(lines), MOST)]
    count = chain.extents.layer
    what = f"{count} weight layer{'s' * (count > 1)}, {chain.weight_count} weights"
    return [Strong(said(chain)), what, Table(titles, shown, left=("layers", role, "init"))]


def _size(chain: Any) -> str:
    if chain.blocks is not None:
        pattern = _runs(chain.blocks)
        parts = [
            _runs(chain.first),
            f"{chain.depth} times [{pattern}]" if chain.depth > 1 else pattern,
            _runs(chain.last),
        ]
        return f"{', then '.join(part for part in parts if part)}, from {plural(chain.width, 'unit')}"
    if chain.widths is None:
        return f"{plural(chain.depth, 'layer')} of {plural(chain.width, 'unit')}"
    widths = chain.widths
    inside = [
        f"{most(widths)} at the {where}"
        for most, end, where in ((min, min, "narrowest"), (max, max, "widest"))
        if most(widths) != end(widths[0], widths[-1])
    ]
    return ", ".join([f"{plural(chain.depth, 'layer')}, {widths[0]} to {widths[-1]} units", *inside])


def _runs(blocks: tuple) -> str:
    """Blocks in their runs of equal ones, of many runs the first and the last."""
    runs = [(block, len(list(group))) for block, group in itertools.groupby(map(str, blocks))]
    words = [block if count == 1 else f"{count} times ({block})" for block, count in runs]
    if len(words) > RUNS:
        left = sum(count for _, count in runs[1:-1])
        words = [words[0], f"... {left} more blocks ...", words[-1]]
    return "; ".join(words)


def compared(chain: Any) -> str:
    """Which weight gradients `end_to_end` compares, in words: of blocks that do not repeat two layers by their
    names."""
    layers: tuple[str, ...] = () if chain.has_slope else chain.layers
    return f"{layers[0]} over {layers[-1]}" if len(layers) > 1 else "first over last"


def spoken(value: Any) -> str:
    """One value, or a list in its runs: "relu x 7, sigmoid"."""
    if not isinstance(value, tuple):
        return f"{value:g}" if isinstance(value, float) else str(value)
    runs = [(v, len(list(group))) for v, group in itertools.groupby(value)]
    words = [spoken(v) + (f" x {count}" if count > 1 else "") for v, count in runs]
    return ", ".join(words if len(words) <= 6 else [*words[:4], f"... ({len(value)} layers)"])
