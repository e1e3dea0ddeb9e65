# SPDX-License-Identifier: BSD-3-Clause
"""The content hash of a cell: a SHA-256 over everything that defines its numbers, so that a store can never mix two
things.

A field of our classes that came after format 1 is left out of it where it has its default: so stores outlive new words.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import types
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

FORMAT = 1  # of the statistics in a part: a change makes old parts foreign, never misread
# The fields that every key of format 1 names, at their default or not, in its order: never a new one.
FIRST = {
    "pykernel.chain.Chain": "depth width widths activation init gain bias_std norm norm_eps order residual head clip",
    "pykernel.chain.Residual": "every scale",
    "pykernel.chain.Head": "loss outputs init targets",
    "pykernel.chain.Clip": "norm per_layer value",
    "pykernel.activation.Activation": "value slope name parameters kinks left right before_zero after_zero at_zero "
    "max_slope flat plain_value plain_slope log2_value log2_slope builtin",
    "pykernel.inits.Init": "distribution scale parameter name bias_distribution bias_scale fixup sampler",
    "pykernel.inits.Given": "weights biases",
    "pykernel.inits._Fan": "variance mode factor",
    "pykernel.sweeps.statistics.Profiles": "rows quantiles layers replicas",
}

# What keys call a class that has moved since.
MOVED = {
    "pykernel.parts.Residual": "pykernel.chain.Residual",
    "pykernel.parts.Head": "pykernel.chain.Head",
    "pykernel.parts.Clip": "pykernel.chain.Clip",
    "pykernel.sweeps.profiles.Profiles": "pykernel.sweeps.statistics.Profiles",
    "pykernel.init.Init": "pykernel.inits.Init",
    "pykernel.init.Given": "pykernel.inits.Given",
    "pykernel.init.Fan": "pykernel.inits._Fan",
    "pykernel.init.Same": "pykernel.inits._Same",
    "pykernel.init.StableFan": "pykernel.inits._StableFan",
}


def name_of(kind: type) -> str:
    """What keys call a class."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    return MOVED.get(name, name)


def describe(value: Any) -> Any:
    """A value as plain JSON: numbers and words as they are, objects as their type and fields, functions as their
    code."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else {"float": repr(value)}
    if isinstance(value, np.generic):
        return describe(value.item())
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value)
        return {
            "array": hashlib.sha256(array.tobytes()).hexdigest(),
            "shape": list(array.shape),
            "dtype": array.dtype.str,
        }
    kind = type(value)
    name = name_of(kind)
    if getattr(value, "builtin", False):
        return {"type": "pykernel.activation.Activation", "name": value.name, "parameters": describe(value.parameters)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field: describe(getattr(value, field)) for field in _fields(value)}
        return {"type": name, **fields, **_own_code(kind)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {"type": name, **{field: describe(getattr(value, field)) for field in value._fields}, **_own_code(kind)}
    if isinstance(value, tuple | list):
        return [describe(item) for item in value]
    if isinstance(value, dict):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, functools.partial):
        return {"partial": describe(value.func), "args": describe(value.args), "keywords": describe(value.keywords)}
    plain = getattr(value, "py_func", value)  # of what Numba compiled
    if hasattr(plain, "__code__"):
        return _function(plain)
    if isinstance(value, np.ufunc):
        return {"ufunc": value.__name__}
    if isinstance(value, type):
        return {"class": name_of(value), **_own_code(value)}
    state = getattr(value, "__dict__", None)
    if state is not None:
        return {"type": name, **describe(state), **_own_code(kind)}
    raise TypeError(
        f"{value!r} cannot be part of a sweep with a store: give it fields (a dataclass or NamedTuple), so that it "
        "has an identity"
    )


def _fields(value: Any) -> Iterator[str]:
    """The fields of a dataclass that its key names: of ours without those that came after format 1 and have their
    default."""
    first, later = _since(type(value))
    yield from first
    for field in later:
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if default is dataclasses.MISSING or describe(getattr(value, field.name)) != describe(default):
            yield field.name


@lru_cache(maxsize=1024)
def _since(kind: type) -> tuple[list[str], list[dataclasses.Field]]:
    """The names of a dataclass's fields in format 1, and its other fields; a user's own class has no others."""
    fields = dataclasses.fields(kind)
    if not _is_ours(kind):
        return [field.name for field in fields], []
    ours = (FIRST.get(name_of(base), "") for base in reversed(kind.__mro__))
    first = list(dict.fromkeys(name for names in ours for name in names.split()))
    return first, [field for field in fields if field.compare and field.name not in first]


def _is_ours(value: Any) -> bool:
    return value.__module__.partition(".")[0] == "pykernel"


def _function(value: Any) -> dict:
    """A function by name and closure; of a user's own also its code, its defaults, and the functions and constants that
    these read."""
    name = f"{value.__module__}.{value.__qualname__}"
    inside = [describe(cell.cell_contents) for cell in value.__closure__ or () if cell.cell_contents is not value]
    if _is_ours(value):
        return {"function": name, "closure": inside}
    own: dict[str, Any] = {"code": _code(value.__code__)}
    if value.__defaults__ or value.__kwdefaults__:
        own["defaults"] = describe([value.__defaults__, value.__kwdefaults__])
    if read := _read(value):
        own["reads"] = read
    return {"function": name, "closure": inside, **own}


def _read(function: Any) -> dict:
    """What a user's function reads from its package: constants, and the code of other functions with what they read in
    turn."""
    package = function.__module__.partition(".")[0]
    found: dict[str, Any] = {}
    todo = [function]
    while todo:
        reader = todo.pop()
        for word in _names(reader.__code__) & reader.__globals__.keys():
            read = reader.__globals__[word]
            other = getattr(read, "py_func", read)
            where = f"{reader.__module__}.{word}"
            if where in found or other is function:
                continue
            if isinstance(read, bool | int | float | str | tuple | np.ndarray | np.generic):
                with contextlib.suppress(TypeError):
                    found[where] = describe(read)
            elif hasattr(other, "__code__") and str(other.__module__).partition(".")[0] == package:
                found[where] = _code(other.__code__)
                todo.append(other)
    return found


def _names(code: types.CodeType) -> set[str]:
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*inner)


def _code(code: types.CodeType) -> str:
    digest = hashlib.sha256(code.co_code)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            text = _code(constant)
        else:  # a set's order is another in every process
            text = repr(sorted(map(repr, constant))) if isinstance(constant, frozenset) else repr(constant)
        digest.update(text.encode())
    digest.update(repr(code.co_names).encode())
    return digest.hexdigest()


@lru_cache(maxsize=1024)
def _own_code(kind: type) -> dict:
    """The code of a user's class, whose formulas may change under the same name; ours are versioned with the
    package."""
    if _is_ours(kind):
        return {}
    members = {name: getattr(member, "__func__", member) for name, member in vars(kind).items()}
    return {
        "code": {
            name: _code(member.__code__) for name, member in sorted(members.items()) if hasattr(member, "__code__")
        }
    }


def canonical(description: Any) -> bytes:
    return json.dumps(description, sort_keys=True, separators=(",", ":")).encode()


def digest(description: Any) -> str:
    """The first 32 hex digits of the SHA-256 of a description."""
    return hashlib.sha256(canonical(description)).hexdigest()[:32]


@lru_cache(maxsize=4096)
def _part(value: Any, kind: type) -> str:
    del kind  # 1 and 1.0 and True are equal keys but not the same words
    return canonical(describe(value)).decode()


class Keys:
    """Keys of cells, one after the other: a field that the cell before had as well is not described again."""

    def __init__(self) -> None:
        self.last: dict[str, tuple[Any, str]] = {}

    def key(self, chain: Any, rest: str) -> str:
        """The key of a cell: its chain, and in `rest` the words of what else defines its numbers (`words`)."""
        texts = []
        for name in _fields(chain):
            value = getattr(chain, name)
            known = self.last.get(name)
            if known is None or known[0] is not value:
                known = self.last[name] = value, f'"{name}":{_text(value)}'
            texts.append(known[1])
        return hashlib.sha256(f"{{{','.join(texts)},{rest}}}".encode()).hexdigest()[:32]


def words(**rest: Any) -> str:
    """Seed, batch, engine, stream version ... as the words that `key` hashes."""
    return ",".join(f'"{name}":{_text(rest[name])}' for name in sorted(rest))


def _text(value: Any) -> str:
    try:
        return _part(value, type(value))
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        return canonical(describe(value)).decode()
