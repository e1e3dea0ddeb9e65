# SPDX-License-Identifier: BSD-3-Clause
"""A grid of chains as cells in a documented order: the first half of a sweep's plan.

Axes follow the order of the grid's keys; cells follow in C order, the last axis fastest. A key may be a field of
`Chain`, or one of the run's own words (`batch`, `positions`, `seed`, `correlation`, `dtype`, `engine`, `backend`,
`precision`, `formats` or a word of them); a tuple of keys zips them into one axis, where `replicas` may be one of them.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np

from pykernel import checks, spelling
from pykernel.blocks import preset_fields
from pykernel.chain import FIELDS, Chain
from pykernel.formats import WORDS as FORMAT_WORDS
from pykernel.formats import Formats, formats_or_none
from pykernel.layers import Block
from pykernel.program import MAX_REPLICAS
from pykernel.wording import spoken

RUN_WORDS = ("batch", "positions", "seed", "correlation", "dtype", "engine", "backend", "precision", "formats")
MAX_CELLS = 1_000_000  # 40 microseconds and a kilobyte each, planned


PATTERNS = ("blocks", "first", "last")
# refused beside blocks
OF_EQUAL_LAYERS = {"activation": None, "norm": None, "order": Chain.order, "residual": None, "widths": None}


class Named(NamedTuple):
    """A pattern of blocks by the name that labels it: the fields of `Chain` that it sets; those of a preset of
    `pykernel.blocks`, whose name it then is, follow the chain's depth and width."""

    name: str
    fields: dict
    is_preset: bool = False

    def of(self, words: dict) -> dict:
        """Its fields in a chain of these words."""
        if not self.is_preset:
            return self.fields
        return preset_fields(self.name, layers=words.get("depth"), width=words.get("width"))


class Axis(NamedTuple):
    """One dimension: its name, the words it sets, and for each of its values a tuple, one entry a word."""

    name: str
    keys: tuple[str, ...]
    values: tuple[tuple, ...]


class Cell(NamedTuple):
    """One chain of the grid: where it stands, what it is, what it is run with, how often, and the key of its
    numbers."""

    index: tuple[int, ...]  # type: ignore[assignment]  # hides a method of tuple that nobody calls
    chain: Any
    run: dict
    replicas: int
    key: str = ""


class PlanCell(NamedTuple):
    """A cell as a plan file lists it: what labels and counts its numbers without the objects that made them.

    `depth` is how many places its longest row has (`Chain.extent`).
    """

    key: str
    depth: int
    engine: str
    backend: str
    replicas: int
    batch: int  # columns: inputs times positions


def axes(grid: Mapping | Sequence) -> tuple[Axis, ...]:
    """The axes that a grid means: a mapping of words to values, or a sequence of chains (one axis, `chain`)."""
    if isinstance(grid, Chain):
        grid = [grid]
    if not isinstance(grid, Mapping):
        if not checks.iterable(grid):
            raise TypeError(f"grid must be a mapping of words to values or a list of Chain, got {grid!r}")
        chains = tuple(itertools.islice(grid, MAX_CELLS + 1))
        for chain in chains:
            if not isinstance(chain, Chain):
                raise TypeError(f"grid must be a mapping of words to values or a list of Chain, got {chain!r} in it")
        if not 1 <= len(chains) <= MAX_CELLS:
            held = f"more than {MAX_CELLS}" if chains else "an empty list"
            raise ValueError(f"grid must hold at least one chain and at most {MAX_CELLS}, got {held}")
        return (Axis("chain", ("chain",), tuple((chain,) for chain in chains)),)
    words = list(FIELDS)
    result, seen = [], set()
    for key, values in grid.items():
        keys = key if isinstance(key, tuple) else (key,)
        if keys == ("replicas",):
            raise ValueError(
                "replicas is no axis of its own: give replicas=, or zip it with another word, as in "
                "{('width', 'replicas'): [(32, 100)]}"
            )
        for word in keys:
            _check_word(word, words, seen)
        rows = tuple(
            _row(key, keys, value) for value in _values(key, named(key, values) if key in PATTERNS else values)
        )
        if not rows:
            raise ValueError(f"grid[{key!r}] must hold at least one value, got none")
        if any(row in rows[:i] for i, row in enumerate(rows)) if len(rows) < 200 else _repeats(rows):
            raise ValueError(f"grid[{key!r}] holds a value twice")
        result.append(Axis("_".join(word for word in keys if word != "replicas"), keys, rows))
    count = math.prod(len(axis.values) for axis in result)
    if count > MAX_CELLS:
        sizes = " x ".join(f"{len(axis.values)} {axis.name}" for axis in result)
        raise ValueError(
            f"a grid may hold at most {MAX_CELLS} cells, got {count} ({sizes}); cut it into several sweeps"
        )
    return tuple(result)


def _check_word(word: Any, words: list[str], seen: set) -> None:
    allowed = [*words, *RUN_WORDS, *FORMAT_WORDS, "replicas"]
    if word not in allowed:
        near = difflib.get_close_matches(str(word), allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"grid keys must be among {', '.join(allowed)}; got {word!r}{hint}")
    if word in seen:
        raise ValueError(f"grid sets {word!r} twice")
    seen.add(word)


def _values(key: Any, values: Any) -> list:
    if isinstance(values, str | bytes | Set | Mapping) or not hasattr(values, "__iter__"):  # a set has no order
        raise TypeError(f"grid[{key!r}] must be a list of values, got {values!r}")
    found = list(itertools.islice(values, MAX_CELLS + 1))
    if len(found) > MAX_CELLS:
        raise ValueError(f"grid[{key!r}] holds more than {MAX_CELLS} values; cut it into several sweeps")
    return [value.item() if isinstance(value, np.generic) else value for value in found]


def named(word: str, values: Any) -> Any:
    """Values of `blocks`, `first` or `last`: of a mapping the patterns by their names, of a list the patterns as they
    are.

    A pattern is a list of blocks and steps, as `Chain` takes it or as plain data; one named under `blocks` may be a
    mapping of `blocks`, `first` and `last`.
    """
    if not isinstance(values, Mapping):
        return [_pattern(word, value) for value in values] if isinstance(values, list | tuple) else values
    whole = lambda value: word == "blocks" and isinstance(value, Mapping) and not set(value).isdisjoint(PATTERNS)
    found = []
    for name, value in values.items():
        try:
            found.append(Named(str(name), fields_of(value) if whole(value) else {word: _pattern(word, value)}))
        except (TypeError, ValueError) as error:
            raise type(error)(f"pattern {name!r}: {error}") from None
    return found


def fields_of(pattern: Mapping) -> dict:
    """The fields of `Chain` that a mapping of `blocks`, `first` and `last` sets.

    Raises:
        ValueError, TypeError: naming the key.
    """
    checks.known("a pattern", pattern, PATTERNS)
    if "blocks" not in pattern:
        raise ValueError("a pattern needs blocks, the steps that are repeated")
    return {word: _pattern(word, value) for word, value in pattern.items()}


def _pattern(word: str, value: Any) -> Any:
    if value is None or isinstance(value, Named) or (isinstance(value, tuple | list) and not value):
        return value
    try:
        return spelling.pattern(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{word}: {error}") from None


def _row(key: Any, keys: tuple, value: Any) -> tuple:
    if not isinstance(key, tuple):
        return (tuple(value),) if isinstance(value, list) else (value,)
    if isinstance(value, str) or not hasattr(value, "__len__") or len(value) != len(keys):
        raise ValueError(
            f"grid[{key!r}] zips {len(keys)} words: every value must be a tuple of {len(keys)}, got {value!r}"
        )
    return tuple(tuple(item) if isinstance(item, list) else item for item in value)


def _repeats(rows: tuple) -> bool:
    try:
        return len(set(rows)) < len(rows)
    except TypeError:
        return False


def label(value: Any) -> Any:
    """How a value is written as a coordinate: numbers and strings as they are, objects as they print."""
    if value is None or (isinstance(value, tuple) and not value):
        return "none"
    if isinstance(value, Named):
        return value.name
    if isinstance(value, int | float | str):
        return str(value) if isinstance(value, bool) else value  # files of numbers have no truth values
    if isinstance(value, tuple) and not all(isinstance(item, int) for item in value):  # one value a layer, or blocks
        value = spoken(value) if not isinstance(value[0], Block) else "; ".join(map(str, value))
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def labels(axis: Axis) -> dict[str, list]:
    """The coordinates along an axis, one list a word; a zip's own is the row number, a chain's its place in the
    list."""
    if axis.name == "chain":
        chains = [row[0] for row in axis.values]
        words = {}
        for word in FIELDS:
            column = [label(getattr(chain, word)) for chain in chains]
            if len({str(item) for item in column}) > 1 or word == "depth":
                words[word] = _uniform(column)
        return {"chain": list(range(len(chains))), **words}
    columns = {
        word: _uniform([label(row[i]) for row in axis.values]) for i, word in enumerate(axis.keys) if word != "replicas"
    }
    return (
        {word: _distinct(column) for word, column in columns.items()}
        if len(columns) == 1
        else {axis.name: list(range(len(axis.values))), **columns}
    )


def _uniform(column: list) -> list:
    """One type a column: a mixture of numbers and words becomes words."""
    if all(isinstance(item, int | float) and not isinstance(item, bool) for item in column):
        return column
    return [item if isinstance(item, str) else str(item) for item in column]


def _distinct(column: list) -> list:
    """The values of a dimension told apart: two objects may print alike."""
    return (
        [f"{item} #{i}" if column.count(item) > 1 else item for i, item in enumerate(column)]
        if len(set(column)) < len(column)
        else column
    )


def cells(axes: tuple[Axis, ...], base: Any, run: dict, replicas: int) -> list[Cell]:
    """The cells of a grid, without keys yet.

    Raises:
        ValueError: for a value that `Chain` refuses, naming the cell.
    """
    held = _held(base)
    result = []
    combinations = itertools.product(*(_objects(axis) for axis in axes))
    for combination in combinations:
        words = {}
        for axis, (_, row) in zip(axes, combination, strict=True):
            words.update(zip(axis.keys, row, strict=True))
        chain = words.pop("chain", None)
        count = words.pop("replicas", replicas)
        count = checks.integer("replicas", count, 1, MAX_REPLICAS)
        own = {word: words.pop(word) for word in RUN_WORDS if word in words}
        of_formats = {word: words.pop(word) for word in FORMAT_WORDS if word in words}
        if chain is None:
            try:
                words = expand(words, {**held, **words})
                fields = {**expand(held, {**held, **words}), **words}
                if "widths" in words:
                    fields = {**fields, "depth": words.get("depth"), "width": words.get("width")}
                elif "depth" in words or "width" in words:
                    fields["widths"] = None
                if isinstance(base, Chain) and words.get("blocks") is not None and base.blocks is None:
                    fields = {**fields, **{word: words.get(word, default) for word, default in OF_EQUAL_LAYERS.items()}}
                chain = Chain(**fields)
            except (TypeError, ValueError) as error:
                where = name(Cell(tuple(i for i, _ in combination), None, {}, 0), axes)
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"cell {where}: {error}") from None
        ran = {**run, **own}
        positions = ran.pop("positions", ())
        several = checks.positions(positions)
        positions = several if checks.iterable(positions) else int(positions)  # as keys of stores have them
        if positions != ():  # left out where there are none, as in keys of before there were any
            ran["positions"] = positions
        formats = formats_or_none(ran.pop("formats", None))
        if of_formats:
            formats = Formats.with_words(of_formats, formats)
        if formats is not None:
            ran["formats"] = formats
        result.append(Cell(tuple(i for i, _ in combination), chain, ran, count))
    return result


def expand(words: dict, every: dict) -> dict:
    """Words of a chain, named patterns replaced by the fields that they set in a chain of `every` word."""
    found = {}
    for value in words.values():
        found.update(value.of(every) if isinstance(value, Named) else {})
    return found | {word: value for word, value in words.items() if not isinstance(value, Named)}


def _held(base: Any) -> dict:
    """The fields that `base` holds."""
    if isinstance(base, Chain):
        return {field: getattr(base, field) for field in FIELDS}
    if base is None or isinstance(base, Mapping):
        for word in base or ():
            _check_word(word, list(FIELDS), set())
        return {word: _object(word, value) for word, value in (base or {}).items()}
    raise TypeError(f"base must be None, a Chain or a mapping of its fields, got {base!r}")


def _objects(axis: Axis) -> list[tuple[int, tuple]]:
    """An axis's rows with their numbers, names made into objects."""
    return [
        (i, tuple(_object(word, value) for word, value in zip(axis.keys, row, strict=True)))
        for i, row in enumerate(axis.values)
    ]


def _object(word: str, value: Any) -> Any:
    """Names of activations and inits made into objects once, not for every cell; bad ones are left to `Chain`."""
    from pykernel import activations, inits

    if word in PATTERNS:
        return _pattern(word, value)
    makers: dict[str, Callable[[Any], Any]] = {"activation": activations.get, "init": inits.get}
    if word in makers:
        with contextlib.suppress(TypeError, ValueError):
            return makers[word](value)
    return value


def require_single(run: dict[str, Any]) -> None:
    """Refuse a list where a run has one value."""
    for word, value in run.items():
        if isinstance(value, list) and word != "positions":
            raise TypeError(f"{word} must be one value, got {value!r}: several make an axis, so put them into the grid")


def columns(run: dict) -> int:
    """Inputs times positions of a run."""
    return run["batch"] * math.prod(positions(run))


def positions(run: dict) -> tuple[int, ...]:
    """Of one input of a run, along each axis."""
    given = run.get("positions", ())
    return (given,) if isinstance(given, int) else tuple(given)


def name(cell: Cell, axes: tuple[Axis, ...]) -> str:
    """A cell in words, for messages: "depth=10, init=he_normal"."""
    words = []
    for axis, at in zip(axes, cell.index, strict=True):
        if axis.name == "chain":
            words.append(f"chain {at}")
        else:
            words += [
                f"{word}={label(value)}"
                for word, value in zip(axis.keys, axis.values[at], strict=True)
                if word != "replicas"
            ]
    return ", ".join(words) or "the only cell"
