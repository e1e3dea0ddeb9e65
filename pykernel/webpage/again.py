# SPDX-License-Identifier: BSD-3-Clause
"""How to run a sweep again: what was run in words, as a command and as Python; what its labels do not spell is said."""

from __future__ import annotations

import shlex
from typing import Any

from pykernel import activations, inits
from pykernel.sweeps import default
from pykernel.sweeps.report import USUAL, axes

# Words whose labels are what one types.
TYPED = (
    *("depth", "width", "activation", "init", "gain", "bias_std", "norm", "norm_eps", "order", "tied"),
    *("batch", "seed", "engine", "backend", "dtype", "precision", "correlation"),
)
_CHOSEN = ("engine", "backend")  # by auto, unless an axis of the grid
_READ: dict[Any, Any] = {"none": None, "True": True, "False": False}  # labels of what has no number and no text
LINE = 88


def held(ds: Any) -> dict[str, Any]:
    """What all cells have in common, of chain and run, by its word."""
    return {key.partition("_")[2]: value for key, value in ds.attrs.items() if key.partition("_")[0] in ("base", "run")}


def described(ds: Any) -> list[tuple[str, str]]:
    """What was run: axes with their values, and what is common to all cells."""
    pairs = []
    for name in axes(ds):
        for word in [str(word) for word in ds.coords if ds[word].dims == (name,) and _counts(ds, name, str(word))]:
            pairs.append((word, ", ".join(map(str, _some(ds[word].values.tolist())))))
    pairs += [(word, str(value)) for word, value in held(ds).items()]
    low, high = int(ds.replicas.min()), int(ds.replicas.max())
    pairs.append(("draws of each cell", str(low) if low == high else f"{low} to {high}"))
    pairs.append(("pykernel", str(ds.attrs.get("pykernel", ""))))
    pairs += [("plan", str(ds.attrs["plan"]))] if "plan" in ds.attrs else []
    return pairs


def _counts(ds: Any, name: str, word: str) -> bool:
    """Whether a coordinate is more than the number of a row."""
    return word != name or not any(ds[other].dims == (name,) for other in ds.coords if other != name)


def _some(values: list) -> list:
    return values if len(values) <= 40 else [*values[:20], f"... ({len(values)} in all)", *values[-2:]]


def is_default(ds: Any) -> bool:
    """Whether this is the default sweep."""
    own = axes(ds) == list(default.GRID) and held(ds).get("batch") == default.RUN["batch"]
    grid: dict[str, Any] = dict(default.GRID)
    return own and all(ds[name].values.tolist() == list(values) for name, values in grid.items())


def unspelled(ds: Any) -> list[str]:
    """Words whose values are objects that a store names but does not spell."""
    columns: dict[str, list] = {}
    for name in axes(ds):
        own = [str(word) for word in ds.coords if ds[word].dims == (name,)]
        columns |= {word: ds[word].values.tolist() for word in own if _counts(ds, name, word)}
    columns |= {word: [value] for word, value in held(ds).items()}
    return [word for word, values in columns.items() if not all(_is_typed(word, value) for value in values)]


def _is_typed(word: str, value: Any) -> bool:
    """Whether a label is what one types to get the same again."""
    if word not in TYPED:
        return False
    if word not in ("activation", "init"):
        return True
    try:
        activations.get(value) if word == "activation" else inits.get(value)
    except (TypeError, ValueError):
        return False
    return True


def base_flags(ds: Any) -> list[str]:
    """Flags for what all cells have in common and is not as usual."""
    words = {word: value for word, value in held(ds).items() if word not in _CHOSEN and _is_typed(word, value)}
    return [f"{flag(word)} {shlex.quote(str(value))}" for word, value in words.items() if value != USUAL.get(word)]


def flag(word: str) -> str:
    return f"--{word.replace('_', '-')}"


def one_cell(ds: Any) -> tuple[str, list[tuple[str, list[str]]]] | None:
    """The command that runs one cell, without its place: what comes first, and of each axis its flag and typed values;
    None where words are not spelled or zipped."""
    names = axes(ds)
    if unspelled(ds) or any(name not in TYPED for name in names):
        return None
    typed = [(flag(name), [shlex.quote(str(value)) for value in ds[name].values.tolist()]) for name in names]
    return " ".join(["pykernel run", *base_flags(ds)]), typed


def command(ds: Any, store: str | None) -> str:
    """The command that runs the sweep again, or an empty text where it cannot be typed."""
    if is_default(ds):
        return "pykernel sweep --default" + (f" --store {shlex.quote(store)}" if store not in (None, "results") else "")
    names = axes(ds)
    if unspelled(ds) or any(name not in TYPED for name in names):
        return ""
    flags = [f"{flag(name)} {' '.join(shlex.quote(str(v)) for v in ds[name].values.tolist())}" for name in names]
    flags += [*base_flags(ds), f"--replicas {ds.attrs.get('replicas', int(ds.replicas.max()))}"]
    flags += [f"--store {shlex.quote(store)}"] if store else []
    lines = ["pykernel sweep"]
    for part in flags:
        if len(lines[-1]) + len(part) + 1 > LINE:
            lines[-1] += " \\"
            lines.append(f"   {part}" if lines else part)
        else:
            lines[-1] += f" {part}"
    return "\n".join(lines)


def python(ds: Any, store: str | None) -> str:
    """Python that opens the sweep, and runs it again where its words are spelled."""
    lines = ["import pykernel as pk", ""]
    if store:
        lines += [f"ds = pk.open({store!r})  # these numbers, labelled", "pk.plot_sweep(ds)", ""]
    if is_default(ds):
        return "\n".join(
            [
                *lines,
                "from pykernel.sweeps import default",
                "ds = pk.sweep(default.GRID, store='results', **default.RUN)",
            ]
        )
    missing = unspelled(ds)
    if missing:
        return "\n".join([*lines, f"# {', '.join(missing)}: objects that labels name and do not spell"])
    grid = []
    for name in axes(ds):
        own = [str(word) for word in ds.coords if ds[word].dims == (name,) and _counts(ds, name, str(word))]
        columns = [ds[word].values.tolist() for word in own]
        key = repr(own[0]) if len(own) == 1 else repr(tuple(own))
        values = columns[0] if len(own) == 1 else list(zip(*columns, strict=True))
        grid.append(f"    {key}: {[_READ.get(value, value) for value in values]!r},")
    common = {word: _READ.get(value, value) for word, value in held(ds).items() if value != USUAL.get(word)}
    run = {word: common.pop(word) for word in list(common) if f"run_{word}" in ds.attrs}
    run = {word: value for word, value in run.items() if word not in _CHOSEN}
    words = [f"replicas={ds.attrs.get('replicas', int(ds.replicas.max()))}"]
    words += [f"{word}={value!r}" for word, value in run.items()]
    words += [f"store={store!r}"] if store else []
    return "\n".join([*lines, "grid = {", *grid, "}", f"ds = pk.sweep(grid, {common!r}, {', '.join(words)})"])
