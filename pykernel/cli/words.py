# SPDX-License-Identifier: BSD-3-Clause
"""Words of the command line and of TOML files, made into chains, axes and run arguments."""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any

from pykernel import checks
from pykernel.formats import NAMES as FORMAT_NAMES
from pykernel.formats import WHICH_SCALE
from pykernel.formats import WORDS as FORMATS

CHAIN = (
    *("depth", "width", "widths", "blocks", "activation", "init", "gain", "bias_std", "norm", "norm_eps", "order"),
    *("residual", "head", "clip", "tied"),
)
RUN = (
    *("batch", "positions", "replicas", "seed", "engine", "backend", "dtype", "threads", "precision", "correlation"),
    *FORMATS,
)
REPLICAS = 10  # of one chain
# What stands in the place of words that are left out, as help says it.
USUAL = dict(activation="relu", init="he_normal", gain=1, batch=1, replicas=REPLICAS, seed=0, dtype="float32")
_INTS = {"depth", "width", "batch", "positions", "replicas", "seed", "threads", "steps"}
_BOOLS = {"tied"}
_FLOATS = {"gain", "bias_std", "norm_eps", "correlation", "loss_scale", "rate", "momentum"}
_HELP = {
    "depth": "weight layers; with blocks, repetitions of the pattern",
    "width": "units of every layer; with blocks, of the input",
    "blocks": "a TOML file with a pattern (see below), or gpt2, llama, bert, vit, resnet, vgg, perhaps with a size: "
    "gpt2:xl, resnet:18; of transformers --depth and --width change heads and feed-forward, too, the units of a head "
    "stay (64; of llama 128, of vit:huge 80), so that --width is a multiple of them; of resnet and vgg --width is the "
    "channels of the first stage",
    "widths": "units of each layer, input first: 784,512,512,10",
    "activation": "relu, tanh, gelu, leaky_relu(0.2) ...",
    "init": "he_normal, orthogonal, normal(0.01), identity(0.5) ...",
    "gain": "multiplier on the weights' standard deviation",
    "bias_std": "standard deviation of the biases",
    "norm": "none, batch, layer or rms",
    "norm_eps": "what the norm adds to the variance",
    "order": "linear-norm-activation or norm-activation-linear",
    "residual": "a sum at every K-th layer: K or K:SCALE",
    "head": "a loss on top: mse, sigmoid, softmax or linear; LOSS:OUTPUTS; or LOSS:OUTPUTS:OVER, over positions, "
    "first, last or mean",
    "clip": "clip gradients: a norm, layer:NORM or value:BOUND",
    "tied": "whether repetitions use the same weights: true or false",
    "batch": "inputs propagated together",
    "positions": "of one input (tokens, pixels): 128, or 32,32",
    "replicas": "independent draws of all weights",
    "seed": "key of the random stream",
    "engine": "auto, dense or matrix_free",
    "backend": "auto, cpp, numba or reference",
    "dtype": "float32 or float64",
    "threads": "threads; by default all cores",
    "precision": "exponent, or native to see plain arithmetic fail",
    "correlation": "pairwise correlation of the inputs",
    "steps": "of full-batch gradient descent",
    "rate": "learning rate, which the parametrization multiplies by layer",
    "momentum": "from 0 to 1, without 1",
    "parametrization": "standard, ntk or mup",
    "weights_format": f"number format that weights are rounded to: {', '.join(FORMAT_NAMES)}",
    "signals_format": "number format of signals",
    "gradients_format": "number format of gradients",
    "loss_scale": "factor on the objective before gradients are rounded",
    "overflow": "beyond a format's largest number: inf or saturate",
    "rounding": "to formats: nearest or stochastic",
}
BLOCKS = """\
a TOML file of --blocks (first and last may be left out):
  first = ["linear(64)"]
  blocks = [{steps = ["norm(layer)", "linear(256)", "gelu", "linear(64)"],
             skip = 1.0}]
  last = ["norm(layer)"]
steps: linear(UNITS), norm(KIND), gated(UNITS, ACTIVATION), attention(HEADS),
dropout(P), scale(S), an activation; more words in a table:
  {attention = 4, causal = true}, {linear = 64, init = "normal(0.02)"}
"""
RANGES = """\
Numbers may be ranges: 0.5:2:16 is sixteen values from 0.5 to 2, and
10:1000:5:log five values in equal ratios."""
MAX_VALUES = 100_000  # of one axis: a slip of the pen, not a study


def add_flags(
    parser: argparse.ArgumentParser, names: tuple[str, ...], many: bool, defaults: dict[str, Any] | None = None
) -> None:
    """Flags for words; `many` lets each take several values."""
    for name in names:
        default = (defaults or {}).get(name)
        text = _HELP[name] + (f" (default {default})" if default is not None else "")
        parser.add_argument(
            f"--{name.replace('_', '-')}", dest=name, metavar="X", nargs="+" if many else None, default=None, help=text
        )


def value(name: str, text: Any) -> Any:
    """One word of a field, from text as on the command line or a value as in TOML.

    Raises:
        ValueError: naming the field, what was given and what is allowed.
    """
    import pykernel as pk

    if isinstance(text, str) and text.lower() == "none":
        return None
    if name == "blocks":
        return blocks(text) if isinstance(text, str) else text
    if name == "positions" and isinstance(text, str | list) and (isinstance(text, list) or "," in text):
        parts = text.split(",") if isinstance(text, str) else text
        return tuple(integer("positions", part) if isinstance(part, str) else part for part in parts)
    for names, read in ((_BOOLS, _truth), (_INTS, integer), (_FLOATS, number)):
        if name in names and isinstance(text, str):
            return read(name, text)
    if name == "widths":
        if isinstance(text, str):
            return tuple(integer("widths", part) for part in text.split(","))
        if not isinstance(text, list | tuple):
            raise TypeError(f"widths must be a list of ints, input first, got {text!r}")
        return tuple(text)
    if name == "residual":
        return _residual(pk.Residual, text)
    if name == "head":
        return _head(pk.Head, text)
    if name == "clip":
        return _clip(pk.Clip, text)
    return text


def blocks(path: str) -> Any:
    """The pattern in a TOML file, named after the file; or all of a preset's chain ("gpt2", "llama:8b").

    Raises:
        ValueError, OSError: naming the file and the key.
    """
    from pykernel.blocks import PRESETS, preset_fields
    from pykernel.sweeps.grid import Named, fields_of

    if known := preset_fields(path):
        return Named(path, known, is_preset=True)
    if not path.endswith(".toml") and not Path(path).exists():
        raise ValueError(f"--blocks must be a TOML file or {', '.join(PRESETS)}, perhaps with a size; got {path!r}")
    try:
        return Named(Path(path).stem, fields_of(toml(path)))
    except (ValueError, TypeError) as error:
        raise ValueError(in_file(path, error)) from None


def toml(path: str) -> dict[str, Any]:
    """The table in a TOML file.

    Raises:
        ValueError, OSError: naming the file.
    """
    import tomllib

    try:
        return tomllib.loads(Path(path).read_bytes().decode())
    except OSError as error:
        raise OSError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no TOML: {error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no TOML: it must be UTF-8, and byte {error.start} is not") from None


def in_file(path: str, error: Exception) -> str:
    """What is wrong with a file, said once."""
    return str(error) if str(error).startswith(path) else f"{path}: {error}"


def integer(name: str, text: str) -> int:
    """The int that a text says; errors bear the name."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name} must be an int, got {text!r}") from None


def number(name: str, text: str) -> float:
    """The number that a text says; errors bear the name."""
    try:
        return float(text)
    except ValueError:
        hint = f"; {WHICH_SCALE}" if name == "loss_scale" else ""
        raise ValueError(f"{name} must be a number, got {text!r}{hint}") from None


def _truth(name: str, text: str) -> bool:
    """The bool that a text says; errors bear the name."""
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{name} must be true or false, got {text!r}")
    return text.lower() == "true"


def _residual(kind: Any, text: Any) -> Any:
    if isinstance(text, dict):
        return object_of("residual", kind, text)
    if isinstance(text, int) and not isinstance(text, bool):
        return kind(text)
    if not isinstance(text, str) or text.count(":") > 1:
        raise ValueError(f"residual must be K or K:SCALE, got {text!r}")
    every, _, scale = text.partition(":")
    if scale and not scale[0].isalpha():
        return kind(integer("residual every", every), number("residual scale", scale))
    return kind(integer("residual every", every), scale or 1.0)


def _head(kind: Any, text: Any) -> Any:
    if isinstance(text, dict):
        return object_of("head", kind, text)
    if not isinstance(text, str) or text.count(":") > 2:
        raise ValueError(f"head must be LOSS, LOSS:OUTPUTS or LOSS:OUTPUTS:OVER, got {text!r}")
    loss, *more = text.split(":")
    words = {"outputs": integer("head outputs", more[0])} if more else {}
    return kind(loss, **words, **({"over": more[1]} if len(more) > 1 else {}))


def _clip(kind: Any, text: Any) -> Any:
    if isinstance(text, dict):
        return object_of("clip", kind, text)
    how, _, bound = str(text).rpartition(":")
    if how not in ("", "layer", "value") or isinstance(text, bool | list):
        raise ValueError(f"clip must be a norm, layer:NORM or value:BOUND, got {text!r}")
    found = number("clip", bound)
    return kind(value=found) if how == "value" else kind(norm=found, per_layer=how == "layer")


def object_of(name: str, kind: Any, table: Any) -> Any:
    """The object that a TOML table describes by its fields."""
    fields = dataclasses.fields(kind)
    if not isinstance(table, dict):
        raise TypeError(f"{name} must be a table of {', '.join(field.name for field in fields)}, got {table!r}")
    checks.known(name, table, [field.name for field in fields])
    for field in fields:
        if field.name not in table and field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{name} needs {field.name!r}, got only {', '.join(table) or 'nothing'}")
    return kind(**{word: tuple(item) if isinstance(item, list) else item for word, item in table.items()})


def values(name: str, given: Any) -> list:
    """All values that a flag or a TOML entry means, ranges spelled out."""
    if isinstance(given, dict) and (name in _INTS | _FLOATS or {"start", "stop", "count"} & set(given)):
        return _table_range(name, given)
    result: list = []
    for item in given if isinstance(given, list) else [given]:
        parts = item.split(":") if isinstance(item, str) and name in _INTS | _FLOATS else []
        if len(parts) in (3, 4) and (len(parts) == 3 or parts[3] == "log"):
            start, stop = (number(f"the range of {name}", part) for part in parts[:2])
            result += _range(name, start, stop, integer(f"the count of the range of {name}", parts[2]), len(parts) == 4)
        else:
            result.append(value(name, item))
    return result


def _table_range(name: str, given: dict) -> list:
    checks.known(f"the range of {name}", given, ("start", "stop", "count", "log"))
    for word in ("start", "stop", "count"):
        if word not in given:
            raise ValueError(f"a range of {name} needs start, stop and count; {word} is missing")
    start, stop = (checks.finite(f"{word} of the range of {name}", given[word]) for word in ("start", "stop"))
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise TypeError(f"log of the range of {name} must be true or false, got {log!r}")
    return _range(
        name, start, stop, checks.integer(f"count of the range of {name}", given["count"], 2, MAX_VALUES), log
    )


def _range(name: str, start: float, stop: float, count: int, log: bool) -> list:
    if not (math.isfinite(start) and math.isfinite(stop)):
        raise ValueError(f"a range of {name} needs finite ends, got {start:g} and {stop:g}")
    if not 2 <= count <= MAX_VALUES:
        raise ValueError(
            f"a range of {name} needs {'at least 2' if count < 2 else f'at most {MAX_VALUES}'} values, got {count}"
        )
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
    from pykernel.blocks import preset
    from pykernel.sweeps.grid import expand

    number = lambda name: value(name, getattr(given, name))
    sizes = {"layers": number("depth"), "width": number("width")}
    known = preset(given.blocks, **sizes) if given.blocks is not None else None
    if known is not None:
        others = [name for name in CHAIN if name not in ("blocks", "depth", "width")]
        return known.replace(**{name: number(name) for name in others if getattr(given, name) is not None})
    found = {name: number(name) for name in CHAIN if getattr(given, name) is not None}
    return pk.Chain(**expand(found, found))


def run(given: argparse.Namespace, names: tuple[str, ...] = RUN) -> dict[str, Any]:
    """The run's arguments that flags give, words of formats as one."""
    return with_formats({name: value(name, text) for name in names if (text := getattr(given, name, None)) is not None})


def with_formats(run: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a run with the words of formats made into `formats`, over those that are there."""
    from pykernel.formats import Formats

    found = {name: run[name] for name in FORMATS if name in run}
    rest = {name: item for name, item in run.items() if name not in found}
    return {**rest, "formats": Formats.with_words(found, rest.get("formats"))} if found else rest
