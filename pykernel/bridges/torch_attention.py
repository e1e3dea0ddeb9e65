# SPDX-License-Identifier: BSD-3-Clause
"""Attention in a PyTorch graph: scores of queries and keys, attention weights, and the step that they make."""

from __future__ import annotations

import math
from typing import NamedTuple

from pykernel.bridges.torch_heads import LAYOUTS, Atom, Rows, is_run, kinds, layout, settled
from pykernel.bridges.values import MIXED, Source, Value
from pykernel.layers import Attention, Linear, Norm

NEVER = -1e4  # a score from there on down is looked past: e^-10000 is 0
HARMLESS = ("contiguous", "clone", "float", "double", "to", "type_as", "detach")
NAMES = {
    "chunk": ("chunks", "dim"),
    "split": ("split_size", "dim"),
    "unbind": ("dim",),
    "unflatten": ("dim", "sizes"),
    "transpose": ("dim0", "dim1"),
    "flatten": ("start_dim", "end_dim"),
    "repeat_interleave": ("repeats", "dim"),
    "permute": ("dims",),
    "scaled_dot_product_attention": ("key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa"),
    "softmax": ("dim", "dtype"),
    "masked_fill": ("mask", "value"),
    "masked_fill_": ("mask", "value"),
    "dropout": ("p", "training", "inplace"),
}
NOTHING = object()  # a call that is none of attention's


class Scores(NamedTuple):
    """Products of queries and keys, (B, heads, queries, keys); `softmax`: their attention weights."""

    query: Rows
    key: Rows
    factor: float
    causal: bool = False
    softmax: bool = False


# -- products


def scaled(part, factor):
    return part._replace(factor=part.factor * factor)


def matmul(left, right, where):
    """Queries times keys, or attention weights times values."""
    if isinstance(left, Rows) and isinstance(right, Rows):
        ends = [[kinds(axis) for axis in side.axes[-2:]] for side in (left, right)]
        if ends[0][0] <= {"T"} and ends[1][1] <= {"T"} and "T" not in ends[0][1] | ends[1][0]:
            return Scores(left, right._replace(axes=(*right.axes[:-2], right.axes[-1], right.axes[-2])), 1.0)
    if isinstance(left, Scores) and isinstance(right, Rows):
        return mixed(left, right, where)
    raise ValueError(f"{where} multiplies two arrays that are no queries and keys, nor attention weights and values")


def einsum(text, left, right, where):
    """The same, from an equation: letters name axes."""
    ins, _, out = text.replace(" ", "").partition("->")
    first, _, second = ins.partition(",")
    if isinstance(left, Rows) and isinstance(right, Rows):
        (d,) = [c for c in first if c in second and c not in out] or [""]
        q, k = (
            next((c for c in own if c in out and c not in other), "")
            for own, other in ((first, second), (second, first))
        )
        if d and q and k and out.endswith(q + k):
            lead = out[: -len(q + k)]
            move = lambda rows, letters, order: rows._replace(axes=tuple(rows.axes[letters.index(c)] for c in order))
            return Scores(move(left, first, lead + q + d), move(right, second, lead + k + d), 1.0)
    if isinstance(left, Scores) and isinstance(right, Rows):
        q, k = first[-2:]
        d = next((c for c in second if c not in first), "")
        if d and k in second and k not in out and set(out) == set(first[:-1]) | {d}:
            lead = first[:-2]
            right = right._replace(axes=tuple(right.axes[second.index(c)] for c in lead + k + d))
            result = mixed(left, right, where)
            if isinstance(result, Rows):
                return settled(result._replace(axes=tuple(result.axes[(lead + q + d).index(c)] for c in out)))
    raise ValueError(f"{where} of {text!r} is no product of queries and keys, nor of attention weights and values")


def masked(scores: Scores, dropped, where) -> Scores:
    """Scores where `dropped` (queries, keys), bool, says whom a query does not see."""
    import torch

    if getattr(dropped, "is_meta", False):
        raise ValueError(f"{where} has a mask on the meta device, without numbers")
    if not isinstance(dropped, torch.Tensor):
        raise ValueError(f"{where} masks attention by something that is no array of the module's own")
    while dropped.ndim > 2 and dropped.shape[0] == 1:
        dropped = dropped[0]
    if dropped.ndim != 2 or dropped.shape[0] != dropped.shape[1]:
        raise ValueError(
            f"{where} has a mask of shape {tuple(dropped.shape)}; a chain's attention is causal or sees all"
        )
    if not dropped.any():
        return scores
    if not torch.equal(dropped.bool(), torch.triu(torch.ones_like(dropped, dtype=torch.bool), 1)):
        raise ValueError(f"{where} has a mask that is not the causal one; a chain's attention is causal or sees all")
    return scores._replace(causal=True)


def added(mask):
    """An additive mask as whom it drops."""
    low = mask <= NEVER
    if not ((mask == 0) | low).all():
        raise ValueError("position biases: numbers are added to the scores, which a chain cannot")
    return low


def mask_of(given, where, dropped_is_true):
    """Whom an attn_mask drops: of bools as its function says, of numbers where they are far below zero."""
    import torch

    if not isinstance(given, torch.Tensor):
        raise ValueError(f"{where} has a mask that is no array of the module's own")
    if given.dtype == torch.bool:
        return given if dropped_is_true else ~given
    try:
        return added(given)
    except ValueError as error:
        raise ValueError(f"{where} has {error}") from None


def mixed(scores: Scores, value: Rows, where):
    """Attention weights times values: the heads side by side, (B, heads, T, d)."""
    if not scores.softmax:
        raise ValueError(f"{where} weighs values by scores without a softmax, which a chain's attention cannot")
    query = scores.query
    lead, (*_, size) = query.axes[:-2], value.shape
    heads, d = query.shape[:-2], query.shape[-1]
    count = math.prod(heads) // max(math.prod(a.size for axis in lead for a in axis if a.what == "B"), 1)
    sources = [_source(rows, where) for rows in (query, scores.key, value)]
    inputs = {id(rows.value.ins[0]) for rows in (query, scores.key, value)}
    if len(inputs) > 1:
        raise ValueError(f"{where} has queries and keys of two inputs (cross-attention); a chain's attention has one")
    if size != d:
        raise ValueError(
            f"{where} has values of {size} units a head and queries of {d}; a chain's attention has one size"
        )
    kv = sources[1].sizes[0] // d
    _require_heads(query, count, 1, d, where)
    for rows in (scores.key, value):
        _require_heads(rows, kv, count // max(kv, 1), d, where)
    factor = scores.factor * query.factor * scores.key.factor
    scale = None if math.isclose(factor, d**-0.5, rel_tol=1e-6) else factor
    step = Attention(count, kv_heads=None if kv == count else kv, causal=scores.causal, scale=scale)
    u = query.value.ins[0]
    if u.units not in (None, count * d):
        raise ValueError(f"{where} has {count} heads of {d} units for {u.units} units; a chain's heads share them all")
    out = Value(where, (u,), MIXED, tuple(sources), units=count * d, maker=where, heads=step)
    unit = iter(_fresh(query.axes[:-2], d))
    axes = tuple(tuple(next(unit) if a.what == "unit" else a for a in axis) for axis in lead)
    rows = Rows(out, (*axes, query.axes[-2], (Atom("unit", d, 1),) if d > 1 else ()), factor=value.factor)
    return settled(rows)


def _fresh(lead, d):
    """The atoms of heads, in order, as rows of the result."""
    sizes = [a.size for axis in lead for a in axis if a.what == "unit"]
    for i, size in enumerate(sizes):
        yield Atom("unit", size, d * math.prod(sizes[i + 1 :]))


def _require_heads(rows, heads, again, d, where):
    """Heads lie one after another in a layer's rows, each shared by the next `again` query heads."""
    atoms = [a for axis in rows.axes[:-2] for a in axis if a.what != "B"]
    repeats = [a for a in atoms if a.what == "again"]
    units = [a for a in atoms if a.what == "unit"]
    plain = atoms == [*units, *repeats] and math.prod(a.size for a in repeats) == again
    if not plain or math.prod(a.size for a in units) != heads or not is_run([*units, *rows.axes[-1]]):
        raise ValueError(
            f"{where} has heads that do not lie one after another in the layer of {rows.value.where}; a "
            "chain's head h is "
            "rows h d .. (h + 1) d - 1"
        )


def _source(rows, where):
    """The rows of the layer that query, key or value are."""
    step = rows.value.step
    if isinstance(step, Norm):
        raise ValueError(f"{where} has a norm on queries or keys, which a chain's attention has not")
    if not isinstance(step, Linear) or len(rows.value.sources) != 1:
        raise ValueError(f"{where} has queries, keys or values that come from no Linear")
    source = rows.value.sources[0]
    size = math.prod(a.size for axis in rows.axes for a in axis if a.what == "unit")
    begin = source.rows[0] + rows.offset
    return source._replace(rows=(begin, begin + size))


def output(value: Value, out: Value) -> Value:
    """The attention that a Linear on mixed heads ends."""
    (u,) = value.ins
    rows = out.sources[0].sizes[0]
    if rows != value.units:
        raise ValueError(
            f"{out.where} gives {rows} numbers of {value.units}; a chain's attention gives as many as come in"
        )
    return Value(out.where, (u,), value.heads, (*value.sources, *out.sources), units=rows, maker=out.where)


# -- modules of torch.nn


def multihead(module, value: Value, causal, where) -> Value:
    """nn.MultiheadAttention of one input."""
    if module.dropout and module.training:
        raise ValueError(
            f"{where} drops attention weights, which a chain cannot; call .eval() on it, or give it dropout=0"
        )
    if module.in_proj_weight is None or module.bias_k is not None or module.add_zero_attn:
        raise ValueError(
            f"{where} has keys and values of other sizes, or ones of its own; a chain's attention has neither"
        )
    n = module.embed_dim
    if value.units not in (None, n):
        raise ValueError(f"{where} takes {n} numbers, but {value.maker} gives {value.units}")
    stacked, bias = module.in_proj_weight, module.in_proj_bias
    names = zip(("query", "key", "value"), range(3), strict=True)
    sources = [Source(f"{where}'s {name}", stacked, bias, (i * n, (i + 1) * n)) for name, i in names]
    sources.append(Source(f"{where}'s output", module.out_proj.weight, module.out_proj.bias, (0, n)))
    step = Attention(module.num_heads, causal=causal)
    return Value(where, (value,), step, tuple(sources), units=n, maker=where)


def self_attention(args, kwargs, where):
    """(input, causal) of a call of nn.MultiheadAttention, its arguments looked up."""
    names = (
        "query",
        "key",
        "value",
        "key_padding_mask",
        "need_weights",
        "attn_mask",
        "average_attn_weights",
        "is_causal",
    )
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if not given["query"] is given.get("key") is given.get("value"):
        raise ValueError(f"{where} has queries and keys of two inputs (cross-attention); a chain's attention has one")
    if given.get("key_padding_mask") is not None:
        raise ValueError(f"{where} has a key_padding_mask; a chain's inputs are all as long")
    return given["query"], is_causal(given.get("attn_mask"), where)


def is_causal(mask, where) -> bool:
    """Whether a mask of torch.nn (True or far below zero: not seen) is the causal one; None sees all."""
    if mask is None:
        return False
    return masked(Scores(None, None, 1.0), mask_of(mask, where, True), where).causal  # type: ignore[arg-type]


def encoder(kind, args, kwargs, where):
    """(input, causal) of a call of nn.TransformerEncoder or one of its layers."""
    mask = "src_mask" if kind == "TransformerEncoderLayer" else "mask"
    given = {**dict(zip(("src", mask, "src_key_padding_mask", "is_causal"), args, strict=False)), **kwargs}
    if given.get("src_key_padding_mask") is not None:
        raise ValueError(f"{where} has a src_key_padding_mask; a chain's inputs are all as long")
    return given["src"], is_causal(given.get(mask), where)


# -- calls of functions


def call(name, args, kwargs, sizes, where):
    """What a function or method makes of heads, scores and weights; NOTHING where it has nothing to do with them."""
    parts = [a for a in args if isinstance(a, Rows | Scores)]
    if not parts and not _begins(name, args, sizes):
        return NOTHING
    whole = lambda a: _whole(a, sizes) if isinstance(a, Value) and sizes else a
    args = [whole(a) if name not in ("add", "sub") else a for a in args]
    if name in ("matmul", "bmm"):
        return matmul(args[0], args[1], where)
    if name == "einsum":
        return einsum(args[0], args[1], args[2], where)
    given = {**dict(zip(NAMES.get(name, ()), args[1:], strict=False)), **kwargs}
    if name == "scaled_dot_product_attention":
        return _sdpa(args[0], {key: whole(value) for key, value in given.items()}, where)
    first = args[0]
    if isinstance(first, Rows):
        return _on_rows(
            first, name, [*args[1:], *(kwargs[key] for key in NAMES.get(name, kwargs) if key in kwargs)], where
        )
    scores = next(a for a in args if isinstance(a, Scores))
    return _on_scores(scores, name, args, given, where)


def _begins(name, args, sizes):
    """Whether a call on plain values is the beginning of attention: a layer's output taken apart or laid out."""
    values = [a for a in args if isinstance(a, Value)]
    if not sizes or not values or not all(isinstance(v.step, Linear) for v in values):
        return False
    units = values[0].units
    if name in ("matmul", "bmm", "einsum", "scaled_dot_product_attention"):
        return True
    if name in ("view", "reshape"):
        shape = args[1] if len(args) == 2 and not isinstance(args[1], int) else args[1:]
        return len(shape) > 3 or (len(shape) == 3 and shape[-1] not in (units, -1))
    if name == "chunk":
        return args[1:2] == [3]
    if name == "split":
        size = args[1] if len(args) > 1 else 0
        return size not in (units // 2, [units // 2] * 2) if isinstance(size, int) else len(size) == 3
    if name == "getitem" and isinstance(args[1], tuple) and isinstance(args[1][-1], slice):
        begin, end, _ = args[1][-1].indices(units)
        return (begin, end) not in ((0, units), (0, units // 2), (units // 2, units))
    return name in ("transpose", "permute", "swapaxes", "unflatten")


def _whole(value, sizes):
    inputs, positions = sizes
    return Rows(value, ((Atom("B", inputs),), (Atom("T", positions),), (Atom("unit", value.units or 1, 1),)))


def _number(args):
    return next((float(a) for a in args if isinstance(a, int | float) and not isinstance(a, bool)), None)


def _on_rows(rows, name, args, where):
    if name in LAYOUTS:
        return layout(rows, name, args, where)
    if name in HARMLESS:
        return rows
    factor = _number(args) if name in ("mul", "imul", "mul_", "truediv", "div", "itruediv") else None
    if factor is not None:
        return scaled(rows, 1 / factor if "div" in name else factor)
    raise ValueError(
        f"{where} calls {name} on queries, keys or values; a chain's attention takes them as the layers give them, "
        "without rotary positions (which leave the scores' variance as it is) and norms of heads"
    )


def _on_scores(scores, name, args, given, where):
    n, number = len(scores.query.axes), _number(a for a in args if not isinstance(a, Scores))
    if name in HARMLESS:
        return scores
    if name == "softmax":
        if given.get("dim") not in (-1, n - 1):
            raise ValueError(f"{where} takes a softmax along axis {given.get('dim')}, not over the keys, the last one")
        return scores._replace(softmax=True)
    if "dropout" in name:
        return weights_dropped(scores, given.get("p", 0.5) if given.get("training", True) else 0.0, where)
    if not scores.softmax:
        if name in ("mul", "imul", "mul_", "truediv", "div", "div_", "itruediv") and number is not None:
            return scaled(scores, 1 / number if "div" in name else number)
        if name in ("masked_fill", "masked_fill_", "where"):
            drop, fill = (given["mask"], given["value"]) if name != "where" else (args[0], args[2])
            fill = float(fill)
            if fill > NEVER:
                raise ValueError(
                    f"{where} fills masked scores with {fill:g}, not with -inf or a number of -10000 and below"
                )
            return masked(scores, ~drop.bool() if name == "where" else drop.bool(), where)
        if name in ("add", "iadd", "add_"):
            (other,) = [a for a in args if not isinstance(a, Scores)]
            return masked(scores, mask_of(other, where, True), where)
    raise ValueError(
        f"{where} calls {name} on attention {'weights' if scores.softmax else 'scores'}; a chain's attention has a "
        "factor on the scores, perhaps a causal mask, and a softmax"
    )


def weights_dropped(scores, p, where):
    """Dropout on attention weights: refused where it drops."""
    if p:
        raise ValueError(f"{where} drops attention weights, which a chain cannot; call .eval() on it, or give it p = 0")
    return scores


def _sdpa(query, given, where):
    """F.scaled_dot_product_attention."""
    key, value = given["key"], given["value"]
    if not all(isinstance(part, Rows) for part in (query, key, value)):
        raise ValueError(f"{where} has queries, keys or values that come from no Linear")
    if given.get("enable_gqa"):
        times = math.prod(query.shape[:-2]) // max(math.prod(key.shape[:-2]), 1)
        at = len(key.axes) - 3
        key, value = (layout(part, "repeat_interleave", [times, at], where) for part in (key, value))
    scale = given.get("scale")
    scores = Scores(query, key, query.shape[-1] ** -0.5 if scale is None else float(scale))
    if given.get("is_causal"):
        scores = scores._replace(causal=True)
    if given.get("attn_mask") is not None:
        scores = masked(scores, mask_of(given["attn_mask"], where, False), where)
    scores = weights_dropped(scores, given.get("dropout_p", 0.0), where)
    return matmul(scores._replace(softmax=True), value, where)
