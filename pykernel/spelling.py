# SPDX-License-Identifier: BSD-3-Clause
"""Blocks as plain data, as TOML and JSON hold them, and back: "linear(256)", {linear = 256, gain = 2.0}, {steps =
[...], skip = 1}."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

from pykernel import checks, layers
from pykernel.activation import Activation
from pykernel.layers import Block, said, step_of
from pykernel.step import Step

# Of each step, by what it is called, its fields: those that stand in the brackets, in order, then what a table may add.
_FIELDS = {kind: tuple(field.name for field in fields(kind)) for kind in layers.STEPS}
STEPS: dict[str, tuple[type, tuple[str, ...], tuple[str, ...]]] = {
    kind.word(): (kind, names[: kind.brackets], names[kind.brackets :]) for kind, names in _FIELDS.items()
}
BLOCK = ("steps", "skip", "scale", "after")
_CALL = re.compile(r"\s*(\w+)\s*\((.*)\)\s*$", re.DOTALL)


def pattern(given: Any) -> tuple:
    """A pattern from plain data: a list of blocks and bare steps.

    Args:
        given: a list of texts ("linear(256)", "norm(rms)", "gated(512, silu)", "dropout(0.1)", "scale(0.5)", an
            activation), tables of one step ({"linear": 256, "init": "normal(0.02)"}) and tables of a block ({"steps":
            [...], "skip": 1.0, "after": [...]}).

    Returns:
        A tuple of Blocks and steps, for `Chain(blocks=...)`.

    Raises:
        ValueError, TypeError: naming what was given and what is allowed.

    Examples:
        >>> print(*pattern([{"steps": ["norm(layer)", "linear(256)", "gelu", "linear(64)"], "skip": 1.0}]))
        a + (layer norm, linear 256, gelu, linear 64)
    """
    if isinstance(given, str | Block | Step | Activation | dict):
        given = [given]
    if not isinstance(given, list | tuple) or not given:
        raise TypeError(f"a pattern must be a list of blocks and steps, got {said(given)}")
    return tuple(_block(part) for part in given)


def _block(table: Any) -> Any:
    """One block, or a bare step."""
    if isinstance(table, Block):
        return table
    if not isinstance(table, dict) or "steps" not in table:
        return step(table)
    checks.known("a block", table, BLOCK)
    if not isinstance(table["steps"], list | tuple):
        raise TypeError(f"steps of a block must be a list, got {table['steps']!r}")
    words = dict(table)
    steps = [step(part) for part in words.pop("steps")]
    skip = words.get("skip")
    if isinstance(skip, list | tuple | dict):
        words["skip"] = [step(part) for part in ([skip] if isinstance(skip, dict) else skip)]
    after = words.get("after", ())
    words["after"] = tuple(step(part) for part in (after if isinstance(after, list | tuple) else [after]))
    return Block(*steps, **words)


def step(given: Any) -> Any:
    """One step from a text, a table, or as it is."""
    if isinstance(given, Step | Activation):
        return given
    if isinstance(given, dict):
        return _table(given)
    if not isinstance(given, str):
        raise TypeError(f"a step must be a text such as 'linear(256)' or a table, got {said(given)}")
    found = _CALL.match(given)
    if not found or found[1] not in STEPS:
        return step_of(given)  # an activation: "linear" alone is the identity function, "linear()" a layer
    kind, positional, _ = STEPS[found[1]]
    values = [part.strip() for part in found[2].split(",")] if found[2].strip() else []
    if len(values) > len(positional):
        most = f"{found[1]} takes at most {', '.join(positional) or 'nothing'} in its brackets"
        raise ValueError(f"{most}, got {given!r}{_as_table(found[1], values)}")
    return kind(**{word: _number(value) for word, value in zip(positional, values, strict=False)})


def _as_table(name: str, values: list[str]) -> str:
    """How the words that have no place in the brackets are said."""
    _, _, others = STEPS[name]
    example = {"attention": "causal = true", "norm": "eps = 1e-6"}.get(name, "gain = 1.0")
    return f"; write {', '.join(others)} in a table, as in {{{name} = {values[0]}, {example}}}" if others else ""


def _table(given: dict) -> Step:
    names = [word for word in given if word in STEPS]
    if len(names) != 1:
        raise ValueError(
            f"a table of a step must have one key among {', '.join(STEPS)}, and a block needs steps; got {given!r}"
        )
    (name,) = names
    kind, positional, others = STEPS[name]
    checks.known(f"the step {name!r}", given, (name, *positional[1:], *others))
    words = {word: value for word, value in given.items() if word != name}
    first = given[name]
    if not positional and first is not True:
        raise ValueError(f"a step {name!r} takes nothing: write {name} = true, got {first!r}")
    return kind(**({} if first is None or first is True else {positional[0]: first}), **words)


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _listed(value: Any) -> Any:
    """Tuples as the lists that TOML and JSON have."""
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def plain(part: Any) -> Any:
    """A block or a step as plain data that `pattern` reads back.

    Examples:
        >>> plain(Block("tanh", layers.Linear(8, gain=2.0), skip=1.0))
        {'steps': ['tanh', {'linear': 8, 'gain': 2.0}], 'skip': 1.0}
    """
    if isinstance(part, Activation):
        return str(part)
    if isinstance(part, Block):
        out: dict[str, Any] = {"steps": [plain(step) for step in part.steps]}
        if part.skip is not None:
            out["skip"] = [plain(step) for step in part.skip] if isinstance(part.skip, tuple) else part.skip
        if part.scale != 1.0:
            out["scale"] = part.scale
        if part.after:
            out["after"] = [plain(step) for step in part.after]
        return out
    name = part.word()
    _, positional, others = STEPS[name]
    defaults = {field.name: field.default for field in part.__dataclass_fields__.values()}
    words = {}
    for word in (*positional[1:], *others):
        value = getattr(part, word)
        if value != defaults[word]:
            words[word] = _listed(value) if isinstance(value, int | float | tuple) else str(value)
    first = getattr(part, positional[0]) if positional else None
    return {name: True if first is None else _listed(first), **words}
