# SPDX-License-Identifier: BSD-3-Clause
"""A sweep's description in a TOML file, as the arguments of `pykernel.sweep`."""

from __future__ import annotations

from typing import Any

from pykernel import checks
from pykernel.cli import words


def read(path: str) -> dict[str, Any]:
    """A sweep's description: {"grid": ..., "base": ..., and the arguments of `pykernel.sweep`}.

    Raises:
        ValueError: naming the file and the key that is wrong.
        OSError: if the file cannot be read.
    """
    import pykernel as pk

    text = words.toml(path)
    try:
        patterns = _patterns(_table("[patterns]", text.pop("patterns", {})))
        misplaced = next((name for name in text if name in words.CHAIN), None)
        if misplaced:
            raise ValueError(f"{misplaced!r} belongs under [base], or with several values under [grid]")
        known = sorted(
            {"grid", "zip", "base", "patterns", "store", "until", "profiles", "predict", "formats", *words.RUN}
        )
        checks.known("a sweep", text, known)
        grid: dict[Any, list] = {
            name: _axis(name, given, patterns) for name, given in _table("[grid]", text.pop("grid", {})).items()
        }
        zips = text.pop("zip", [])
        for table in zips if isinstance(zips, list) else [zips]:
            columns = {name: _axis(name, given, patterns) for name, given in _table("[[zip]]", table).items()}
            if len({len(column) for column in columns.values()}) != 1:
                raise ValueError(f"[[zip]] of {', '.join(columns) or 'nothing'} needs lists of equal length")
            grid[tuple(columns)] = list(zip(*columns.values(), strict=True))
        checks.known(
            "the grid",
            [word for key in grid for word in (key if isinstance(key, tuple) else (key,))],
            (*words.CHAIN, *words.RUN, "formats"),
        )
        base = _table("[base]", text.pop("base", {}))
        misplaced = next((name for name in base if name in known), None)
        if misplaced:
            raise ValueError(f"{misplaced!r} says how chains are run: it belongs above the tables, outside [base]")
        checks.known("[base]", base, (*words.CHAIN, "first", "last"))
        base = {name: _held(name, given, patterns) for name, given in base.items()}
        for word, kind in (("until", pk.StandardError), ("profiles", pk.Profiles)):
            if isinstance(text.get(word), dict):
                text[word] = words.object_of(word, kind, text[word])
        if "formats" in text:
            text["formats"] = _formats(text["formats"])
        return words.with_formats({"grid": grid, "base": base, **text})
    except (ValueError, TypeError) as error:
        raise ValueError(words.in_file(path, error)) from None


def _patterns(tables: dict) -> dict[str, Any]:
    """The patterns of [patterns.NAME] tables by their names."""
    from pykernel.sweeps.grid import Named, fields_of

    found = {}
    for name, table in tables.items():
        try:
            found[name] = Named(name, fields_of(_table(f"[patterns.{name}]", table)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"[patterns.{name}] {error}" if "patterns" not in str(error) else str(error)) from None
    return found


def _pattern(name: Any, patterns: dict[str, Any]) -> Any:
    if not isinstance(name, str) or name not in patterns:
        known = ", ".join(patterns) or "none, there is no [patterns.NAME] table"
        raise ValueError(f"blocks must name patterns of [patterns.NAME] tables ({known}), got {name!r}")
    return patterns[name]


def _held(name: str, given: Any, patterns: dict[str, Any]) -> Any:
    """A value of [base]: `blocks` is the name of a pattern, or the pattern itself."""
    if name != "blocks":
        return given if name in ("first", "last") else words.value(name, given)
    if isinstance(given, str):
        return _pattern(given, patterns)
    return patterns[given[0]] if isinstance(given, list) and len(given) == 1 and given[0] in [*patterns] else given


def _table(name: str, given: Any) -> dict:
    if not isinstance(given, dict):
        raise TypeError(f"{name} must be a table of words and their values, got {given!r}")
    return given


def _axis(name: str, given: Any, patterns: dict[str, Any]) -> list:
    if not isinstance(given, list | dict) or (name == "formats" and isinstance(given, dict)):
        raise TypeError(
            f"{name} in the grid must be a list of values or a range, got {given!r}; a single value belongs in [base]"
        )
    if name == "formats":
        return [_formats(one) for one in given]
    return [_pattern(one, patterns) for one in given] if name == "blocks" else words.values(name, given)


def _formats(given: Any) -> Any:
    import pykernel as pk

    if given == "none":
        return None
    if not isinstance(given, dict):
        raise TypeError(f'formats must be a table such as {{signals = "bfloat16"}}, or "none", got {given!r}')
    return words.object_of("formats", pk.Formats, given)
