# SPDX-License-Identifier: BSD-3-Clause
"""How a chain is said: as Python that makes it, and in a line."""

from __future__ import annotations

import itertools
from dataclasses import fields
from typing import Any

from pykernel.layers import NORM_EPS


def spelled(chain: Any) -> str:
    """What differs from the defaults, in words: functions and arrays would spill over the screen."""
    parts = []
    for f in fields(chain):
        value = getattr(chain, f.name)
        if f.name in ("activation", "init"):
            if value is not None:
                parts.append(f"{f.name}={[str(v) for v in value] if isinstance(value, tuple) else str(value)!r}")
        elif f.name == "widths" and value is not None and len(value) > 12:
            parts.append(f"widths=({', '.join(map(str, value[:6]))}, ... {len(value)} in all)")
        elif f.name in ("norm", "gain", "bias_std") and isinstance(value, tuple):
            parts.append(f"{f.name}={list(value)!r}")
        elif value != f.default and not (f.name == "depth" and chain.widths is not None):
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


def _size(chain: Any) -> str:
    if chain.blocks is not None:
        said = lambda blocks: "; ".join(map(str, blocks))
        parts = [said(chain.first), f"{chain.depth} times [{said(chain.blocks)}]", said(chain.last)]
        return f"{', then '.join(part for part in parts if part)}, from {chain.width} units"
    if chain.widths is None:
        return f"{chain.depth} layers of {chain.width} units"
    return f"{chain.depth} layers, {min(chain.widths)} to {max(chain.widths)} units"


def spoken(value: Any) -> str:
    """One value, or a list in its runs: "relu x 7, sigmoid"."""
    if not isinstance(value, tuple):
        return f"{value:g}" if isinstance(value, float) else str(value)
    runs = [(v, len(list(group))) for v, group in itertools.groupby(value)]
    words = [spoken(v) + (f" x {count}" if count > 1 else "") for v, count in runs]
    return ", ".join(words if len(words) <= 6 else [*words[:4], f"... ({len(value)} layers)"])
