# SPDX-License-Identifier: BSD-3-Clause
"""Words of the command line and of TOML files, made into chains, grids and run arguments."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

CHAIN = ("depth", "width", "widths", "activation", "init", "gain", "bias_std", "norm", "order", "residual", "head", "clip")
RUN = ("batch", "replicas", "seed", "engine", "backend", "dtype", "threads", "precision", "correlation")
_INTS = {"depth", "width", "batch", "replicas", "seed", "threads"}
_FLOATS = {"gain", "bias_std", "correlation"}
_HELP = {
    "depth": "weight layers",
    "width": "units of every layer",
    "widths": "units of each layer, input first: 784,512,512,10",
    "activation": "relu, tanh, gelu, leaky_relu(0.2) ...",
    "init": "he_normal, orthogonal, normal(0.01), identity(0.5) ...",
    "gain": "multiplier on the weights' standard deviation",
    "bias_std": "standard deviation of the biases",
    "norm": "none, batch, layer or rms",
    "order": "linear-norm-activation or norm-activation-linear",
    "residual": "a sum at every K-th layer: K or K:SCALE",
    "head": "a loss on top: mse, sigmoid or softmax, or LOSS:OUTPUTS",
    "clip": "clip gradients: a norm, layer:NORM or value:BOUND",
    "batch": "inputs propagated together",
    "replicas": "independent draws of all weights",
    "seed": "key of the random stream",
    "engine": "auto, dense or matrix_free",
    "backend": "auto, cpp, numba or reference",
    "dtype": "float32 or float64",
    "threads": "threads; by default all cores",
    "precision": "exponent, or native to see plain arithmetic fail",
    "correlation": "pairwise correlation of the inputs",
}
RANGES = """\
Numbers may be ranges: 0.5:2:16 is sixteen values from 0.5 to 2, and
10:1000:5:log five values in equal ratios."""


def add_flags(parser: argparse.ArgumentParser, names: tuple[str, ...], many: bool, defaults: dict[str, Any] | None = None) -> None:
    """Flags for words; `many` lets each take several values."""
    for name in names:
        default = (defaults or {}).get(name)
        text = _HELP[name] + (f" (default {default})" if default is not None else "")
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar="X", nargs="+" if many else None, default=None, help=text)


def value(name: str, text: Any) -> Any:
    """One word of a field, from text as on the command line or a value as in TOML.

    Raises:
        ValueError: naming the field, what was given and what is allowed.
    """
    import pykernel as pk

    if isinstance(text, str) and text.lower() == "none":
        return None
    if name in _INTS and isinstance(text, str):
        try:
            return int(text)
        except ValueError:
            raise ValueError(f"{name} must be an int, got {text!r}") from None
    if name in _FLOATS and isinstance(text, str):
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"{name} must be a number, got {text!r}") from None
    if name == "widths":
        return tuple(value("width", part) for part in text.split(",")) if isinstance(text, str) else tuple(text)
    if name == "residual" and not isinstance(text, pk.Residual):
        every, scale = _pair(text, "every", "scale")
        return pk.Residual(value("width", every), 1.0 if scale is None else _number(scale))
    if name == "head" and not isinstance(text, pk.Head):
        loss, outputs = _pair(text, "loss", "outputs")
        return pk.Head(loss) if outputs is None else pk.Head(loss, value("width", outputs))
    if name == "clip" and not isinstance(text, pk.Clip):
        if isinstance(text, dict):
            return pk.Clip(**text)
        kind, _, bound = str(text).rpartition(":")
        if kind not in ("", "layer", "value"):
            raise ValueError(f"clip must be a norm, layer:NORM or value:BOUND, got {text!r}")
        bound = value("gain", bound)
        return pk.Clip(value=bound) if kind == "value" else pk.Clip(norm=bound, per_layer=kind == "layer")
    return text


def _pair(text: Any, first: str, second: str) -> tuple[Any, Any]:
    if isinstance(text, dict):
        unknown = set(text) - {first, second}
        if unknown:
            raise ValueError(f"unknown word {sorted(unknown)[0]!r}; allowed are {first} and {second}")
        return text.get(first), text.get(second)
    head, _, tail = str(text).partition(":")
    return head, tail or None


def _number(text: Any) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def values(name: str, given: Any) -> list:
    """All values that a flag or a TOML entry means, ranges spelled out."""
    if isinstance(given, dict) and {"start", "stop", "count"} <= set(given):
        return _range(name, given["start"], given["stop"], given["count"], bool(given.get("log", False)))
    result: list = []
    for item in given if isinstance(given, list) else [given]:
        parts = item.split(":") if isinstance(item, str) and name in _INTS | _FLOATS else []
        if len(parts) in (3, 4) and (len(parts) == 3 or parts[3] == "log"):
            start, stop = (value("gain", part) for part in parts[:2])
            result += _range(name, start, stop, value("width", parts[2]), len(parts) == 4)
        else:
            result.append(value(name, item))
    return result


def _range(name: str, start: float, stop: float, count: int, log: bool) -> list:
    if count < 2:
        raise ValueError(f"a range of {name} needs at least 2 values, got {count}")
    if log and not (start > 0 and stop > 0):
        raise ValueError(f"a logarithmic range of {name} needs positive ends, got {start:g} and {stop:g}")
    shares = [i / (count - 1) for i in range(count)]
    points = [start * math.pow(stop / start, t) if log else start + (stop - start) * t for t in shares]
    if name in _INTS:
        return list(dict.fromkeys(round(point) for point in points))
    return [float(f"{point:.12g}") for point in points]


def chain(given: argparse.Namespace) -> Any:
    """The one chain that flags describe."""
    import pykernel as pk

    return pk.Chain(**{name: value(name, getattr(given, name)) for name in CHAIN if getattr(given, name) is not None})


def run(given: argparse.Namespace, names: tuple[str, ...] = RUN) -> dict[str, Any]:
    """The run's arguments that flags give."""
    return {name: value(name, getattr(given, name)) for name in names if getattr(given, name, None) is not None}


def read_toml(path: str) -> dict[str, Any]:
    """A sweep's description: {"grid": ..., "base": ..., and the arguments of `pykernel.sweep`}.

    Raises:
        ValueError: naming the file and the key that is wrong.
        OSError: if the file cannot be read.
    """
    import tomllib

    import pykernel as pk

    with Path(path).open("rb") as file:
        try:
            text = tomllib.load(file)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path} is no TOML: {error}") from None
    allowed = {"grid", "zip", "base", "store", "until", "profiles", "predict", *RUN}
    unknown = sorted(set(text) - allowed)
    if unknown:
        raise ValueError(f"{path}: unknown key {unknown[0]!r}; allowed are {', '.join(sorted(allowed))}")
    try:
        grid: dict[Any, list] = {name: values(name, given) for name, given in text.pop("grid", {}).items()}
        zips = text.pop("zip", [])
        for table in zips if isinstance(zips, list) else [zips]:
            columns = {name: values(name, given) for name, given in table.items()}
            if len({len(column) for column in columns.values()}) != 1:
                raise ValueError(f"[[zip]] of {', '.join(columns)} needs lists of equal length")
            grid[tuple(columns)] = list(zip(*columns.values(), strict=True))
        base = {name: value(name, given) for name, given in text.pop("base", {}).items()}
        unknown = sorted(set(base) - set(CHAIN))
        if unknown:
            raise ValueError(f"[base] has an unknown key {unknown[0]!r}; allowed are {', '.join(CHAIN)}")
        if isinstance(text.get("until"), dict):
            text["until"] = pk.StandardError(**text["until"])
        if isinstance(text.get("profiles"), dict):
            text["profiles"] = pk.Profiles(**{k: tuple(v) if isinstance(v, list) else v for k, v in text["profiles"].items()})
        return {"grid": grid, "base": base, **text}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
