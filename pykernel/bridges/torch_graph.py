# SPDX-License-Identifier: BSD-3-Clause
"""What a PyTorch module computes, followed by torch.fx: a graph of values, one a step of a block."""

from __future__ import annotations

import operator
from typing import Any

from pykernel import activations
from pykernel.bridges import torch_arithmetic as arithmetic
from pykernel.bridges import torch_attention as heads
from pykernel.bridges import torch_conv as conv
from pykernel.bridges import torch_kinds as kinds
from pykernel.bridges import torch_norms as norms
from pykernel.bridges.structure import Network, network
from pykernel.bridges.torch_trace import IN_PLACE, trace
from pykernel.bridges.values import MIXED, Read, Source, Value
from pykernel.layers import Attention, Linear

PRODUCTS = ("mul", "imul", "mul_", "truediv", "div", "div_", "itruediv")
SUMS = {"add": 1, "iadd": 1, "add_": 1, "sub": -1, "isub": -1, "sub_": -1}


def read(module, own=None) -> Network:
    """The network of a module; `own`: module classes -> activation rows."""
    if not hasattr(module, "named_modules"):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    module = getattr(module, "_orig_mod", module)  # of torch.compile
    if type(module).__name__ in ("DataParallel", "DistributedDataParallel"):
        module = module.module
    for path, part in module.named_modules():
        _refuse_changed(part, kinds.where_of(part, path))
    own = {} if own is None else {kind: activations.get(row) for kind, row in own.items()}
    known = lambda m: type(m) in own or kinds.kind_of(m) not in (None, "Sequential")
    if known(module):
        from torch import nn

        module = nn.Sequential(module)
    traced = trace(module, known)
    return network(*_Reader(module, own, traced).follow(traced.graph))


def _refuse_changed(module, where):
    """Refuse what computes something other than its class says."""
    if type(module).__module__.startswith("torch.jit"):
        raise ValueError(f"{where} is compiled by torch.jit and cannot be read; give the module that it was made from")
    if type(getattr(module, "weight", None)).__name__ == "UninitializedParameter":
        raise ValueError(f"{where} has no weight yet; call the module once on an input")
    for kind in ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks"):
        for hook in (getattr(module, kind, None) or {}).values():
            name = getattr(hook, "__name__", type(hook).__name__)
            raise ValueError(f"{where} has a hook ({name}) that may change what it computes; remove it first")
    if hasattr(module, "parametrizations"):
        raise ValueError(
            f"{where} computes its {' and '.join(module.parametrizations)} by a parametrization; a chain has plain "
            "weights: "
            "call torch.nn.utils.parametrize.remove_parametrizations first"
        )


class _Reader:
    """Follows the nodes of a graph; each is a Value, a number, a parameter, the halves of a fused layer, or None for
    sizes and the like."""

    def __init__(self, module, own, traced):
        self.module, self.own, self.arrays, self.sizes = module, own, traced.arrays, traced.sizes
        self.where = type(module).__name__
        self.values: dict[Any, Any] = {}
        self.homes: dict[Any, Any] = {}  # the node whose memory a node's value lies in
        self.input = Value("the input")
        self.used: dict[int, tuple] = {}  # weights, by identity: where first, and the bias

    def follow(self, graph):
        """The input and the output."""
        # args hold a default
        inputs = [node for node in graph.nodes if node.op == "placeholder" and node.users and not node.args]
        if len(inputs) != 1:
            raise ValueError(f"{self.where} takes {len(inputs)} inputs; a chain has one")
        for node in graph.nodes:
            self._keep(node, getattr(self, node.op)(node))
        return self.input, self.values[node]

    def _keep(self, node, value):
        """Note what a node gives. What is computed in place is seen by all that share the memory."""
        first, in_place = _first(node), self._in_place(node)
        shares = first in self.homes and node.target != "clone" and (in_place or value is self.values[first])
        self.homes[node], self.values[node] = self.homes[first] if shares else node, value
        if in_place and shares:
            for other, home in self.homes.items():
                if home is self.homes[node]:
                    self.values[other] = value

    def _in_place(self, node):
        if node.op == "call_module":
            return bool(getattr(self.module.get_submodule(str(node.target)), "inplace", False))
        if node.op not in ("call_function", "call_method"):
            return False
        name = _name(node)
        return name.endswith("_") or name in IN_PLACE or bool(self._given(name, node).get("inplace"))

    def placeholder(self, node):
        return self.input

    def output(self, node):
        if not isinstance(node.args[0], type(node)):
            raise ValueError(f"{self.where} returns {type(node.args[0]).__name__}; a chain has one output")
        return self._value(node.args[0], "the output")

    def get_attr(self, node):
        return self.arrays[node.target] if node.target in self.arrays else operator.attrgetter(node.target)(self.module)

    def call_module(self, node):
        path = str(node.target)
        module = self.module.get_submodule(path)
        where = kinds.where_of(module, path)
        kind = kinds.kind_of(module)
        if kind in ("MultiheadAttention", "TransformerEncoderLayer", "TransformerEncoder"):
            return self._attention(kind, module, node, where)
        if isinstance(self._known(_first(node)), heads.Rows | heads.Scores):
            return self._on_heads(kind, module, self._known(_first(node)), where)
        value = self._value(_first(node), where)
        if type(module) in self.own:
            return value.then(self.own[type(module)], where)
        if kind in conv.SPATIAL and kind not in kinds.NORMS:
            return self._spatial(kind, module, value, node, where)
        if kind == "Flatten":
            return conv.flatten(value, module.start_dim, module.end_dim, where)
        if kind in kinds.HARMLESS:
            return value
        if "Dropout" in kind:
            return arithmetic.dropout(value, module.p if module.training else 0.0, where, kind == "Dropout")
        if kind == "Linear":
            return self._linear(value, module.weight, module.bias, where)
        if kind == "GLU":
            return arithmetic.glu(value, module.dim, where)
        if kind in kinds.NORMS:
            return self._norm_module(value, module, where)
        return value.then(kinds.activation(kind, module, where), where)

    def call_function(self, node):
        return self._call(_name(node), node)

    call_method = call_function

    def _given(self, name, node):
        """The arguments behind the first, by name."""
        given = {**dict(zip(kinds.arguments(name), node.args[1:])), **node.kwargs}
        return {key: self._known(argument) for key, argument in given.items()}

    def _call(self, name, node):
        where = f"{name} of {self._scope(node)}"
        if name in kinds.SIZES:
            return None
        args, kwargs = self._looked_up(node)
        found = heads.call(name, args, kwargs, self.sizes, where)
        if found is not heads.NOTHING:
            return found
        found = conv.call(name, args, self._given(name, node), where, self._is_flattened(node))
        if found is not conv.NOTHING:
            return self._noted(found) if name in conv.FUNCTIONS and found.sources else found
        found = norms.call(name, args, self._given(name, node), where)
        if found is not norms.NOTHING:
            return found
        if name == "mean" and self.has_attention and isinstance(args[0], Value):
            if self._given(name, node).get("dim", None) not in (1, -2, (1,), [1]):
                raise ValueError(f"{where} takes a mean over something other than positions, the axis before the last")
            return args[0].then(Read("mean"), where)
        if name == "getitem":
            return self._item(node, where)
        if name in SUMS:
            return self._sum(node, SUMS[name], where)
        if name in PRODUCTS:
            return self._product(name, node, where)
        value = self._value(_first(node), where)
        if name in kinds.HARMLESS_FUNCTIONS:
            return value
        given = self._given(name, node)
        if name == "neg":
            return arithmetic.scaled(value, -1.0, where)
        if "dropout" in name:
            training = given.get("training", given.get("train", "alpha" not in name))
            return arithmetic.dropout(
                value, given.get("p", 0.5) if training else 0.0, where, name in ("dropout", "dropout_")
            )
        if name == "linear" and hasattr(given.get("weight"), "shape"):
            return self._linear(value, given["weight"], given.get("bias"), where)
        if name in ("layer_norm", "rms_norm"):
            conv.require_plain(value, where)
            return value.then(kinds.norm_function(name, given, where, value.units, self.module), where)
        if name == "glu":
            return arithmetic.glu(value, given.get("dim", -1), where)
        if name in ("chunk", "split"):
            size = given.get("chunks", 0) if name == "chunk" else given.get("split_size", 0)
            return arithmetic.halves(value, size, given.get("dim", 0), name, where)
        row = kinds.function(name, given)
        if row is None:
            why = f" ({kinds.LOSS})" if "softmax" in name else ""
            raise ValueError(
                f"{self._scope(node)} calls {name}, which a chain has not{why}; a chain is read from {kinds.KNOWN}"
            )
        return value.then(row, where)

    def _scope(self, node):
        """The module whose forward a node belongs to."""
        path = next(reversed(node.meta.get("nn_module_stack") or {"": None}))
        return kinds.where_of(self.module.get_submodule(path), path) if path else self.where

    # -- attention

    @property
    def has_attention(self):
        return any(isinstance(getattr(value, "step", None), Attention) for value in self.values.values())

    def _looked_up(self, node):
        """Arguments with what nodes give in their place."""
        from torch.fx.node import map_arg

        known = lambda argument: map_arg(argument, self.values.get)
        return [known(a) for a in node.args], {key: known(a) for key, a in node.kwargs.items()}

    def _attention(self, kind, module, node, where):
        """nn.MultiheadAttention (and None for its weights), nn.TransformerEncoder and its layers."""
        args, kwargs = self._looked_up(node)
        if kind == "MultiheadAttention":
            value, causal = heads.self_attention(args, kwargs, where)
            conv.require_plain(value, where)
            return heads.multihead(module, self._checked(value, where), causal, where), None
        value, causal = heads.encoder(kind, args, kwargs, where)
        conv.require_plain(value, where)
        layers = [module] if kind == "TransformerEncoderLayer" else module.layers
        value = self._checked(value, where)
        for i, layer in enumerate(layers):
            value = self._encoder_layer(layer, value, causal, where if len(layers) == 1 else f"{where}'s layer {i}")
        norm = getattr(module, "norm", None)
        return value if norm is None else self._norm_module(value, norm, f"{where}'s norm")

    def _encoder_layer(self, layer, value, causal, where):
        """Attention and two Linear layers, each with a sum and a norm before or behind it."""

        def attend(v):
            v = heads.multihead(layer.self_attn, v, causal, f"{where}'s self_attn")
            return self._dropped(v, layer.dropout1, where)

        def feed(v):
            v = self._linear(v, layer.linear1.weight, layer.linear1.bias, f"{where}'s linear1")
            act = layer.activation
            kind = kinds.kind_of(act) if hasattr(act, "named_modules") else None
            row = kinds.function(act.__name__, {}) if kind is None else kinds.activation(kind, act, where)
            if row is None:
                raise ValueError(f"{where} has the activation {act.__name__}, which is not known")
            v = self._dropped(v.then(row, where), layer.dropout, where)
            v = self._linear(v, layer.linear2.weight, layer.linear2.bias, f"{where}'s linear2")
            return self._dropped(v, layer.dropout2, where)

        for branch, norm, name in ((attend, layer.norm1, "norm1"), (feed, layer.norm2, "norm2")):
            normed = lambda v, norm=norm, name=name: self._norm_module(v, norm, f"{where}'s {name}")
            b = branch(normed(value) if layer.norm_first else value)
            value = Value(where, (value, b), factors=(1.0, 1.0), units=b.units)
            value = value if layer.norm_first else normed(value)
        return value

    def _dropped(self, value, module, where):
        return arithmetic.dropout(value, module.p if module.training else 0.0, where, True)

    def _norm_module(self, value, module, where):
        kind = kinds.kind_of(module)
        if kinds.NORMS[kind] != "batch":
            conv.require_plain(value, where)
        axes = 2 if kind == "BatchNorm2d" and value.axes is None else None
        step = kinds.norm_of(kind, module, where, value.units, self.module)
        return Value(where, (value,), step, units=value.units, axes=axes)

    def _on_heads(self, kind, module, part, where):
        """A module on queries, keys, scores or attention weights."""
        if kind == "Identity" or ("Dropout" in (kind or "") and not (module.p and module.training)):
            return part
        if isinstance(part, heads.Scores) and "Dropout" in (kind or ""):
            return heads.weights_dropped(part, module.p, where)
        if isinstance(part, heads.Scores) and kind == "Softmax":
            return heads.call("softmax", [part], {"dim": module.dim}, self.sizes, where)
        raise ValueError(
            f"{where} acts on heads that are not put together as (inputs, positions, units) again, or on "
            "scores; a chain's "
            "attention has no layers and norms in between"
        )

    # -- values

    def _checked(self, value, where):
        if not isinstance(value, Value):
            raise ValueError(f"{where} acts on something that is no output of a layer")
        return value

    def _known(self, argument):
        return self.values.get(argument) if _is_node(argument) else argument

    def _value(self, argument, where):
        value = self._known(argument)
        if isinstance(value, norms.Part):
            raise ValueError(f"{where} acts on {value}, which a chain knows on the way into a norm only")
        if not isinstance(value, Value) or not _is_node(argument):
            own = getattr(argument, "target", argument) if hasattr(value, "shape") else None
            raise ValueError(
                f"{where} uses {own}, an array of its own; a chain has weights in Linear layers only"
                if own is not None
                else f"{where} acts on something that is no output of a layer"
            )
        return value

    def _linear(self, value, weight, bias, where):
        rows, columns = map(int, weight.shape)
        conv.require_plain(value, where)
        if value.units not in (None, columns):
            raise ValueError(f"{where} takes {columns} numbers, but {value.maker} gives {value.units}")
        layer = Value(where, (value,), Linear(rows), (Source(where, weight, bias, (0, rows)),), units=rows, maker=where)
        return heads.output(value, self._noted(layer)) if value.step == MIXED else self._noted(layer)

    def _noted(self, layer):
        """A layer, unless another one has its weight and not its bias."""
        (source,) = layer.sources
        first, own = self.used.setdefault(id(source.weight), (source.where, source.bias))
        if own is not source.bias:
            raise ValueError(
                f"{first} and {source.where} share a weight and not the bias; tied layers of a chain share both"
            )
        return layer

    def _spatial(self, kind, module, value, node, where):
        """A convolution or a pool."""
        if kind in conv.CONVS:
            return self._noted(conv.layer(kind, module.weight, module.bias, vars(module), value, where))
        if kind in conv.POOLS:
            return conv.pool(kind, vars(module), value, where)
        return conv.pool_of_all(kind, module.output_size, value, where, self._is_flattened(node))

    def _is_flattened(self, node):
        """Whether all that a node gives is flattened at once."""

        def flattens(user):
            if user.op == "call_module":
                return kinds.kind_of(self.module.get_submodule(str(user.target))) == "Flatten"
            return user.op in ("call_function", "call_method") and _name(user) in ("flatten", "view", "reshape")

        sized = lambda user: user.op in ("call_function", "call_method") and _name(user) in kinds.SIZES
        users = [user for user in node.users if not sized(user)]
        return bool(users) and all(map(flattens, users))

    # -- sums and products

    def _sum(self, node, sign, where):
        left, right = (self._known(a) for a in _operands(node))
        alpha = self._constant(node.kwargs.get("alpha", 1))
        if alpha == sign == 1:
            for value, own in ((left, right), (right, left)):
                if arithmetic.is_own(own, value):
                    return arithmetic.shifted(value, own, where)
            if 0 in (self._constant(left), self._constant(right)):  # as Python's sum begins
                return self._checked(left if isinstance(left, Value) else right, where)
        if not (isinstance(left, Value) and isinstance(right, Value)) or alpha is None:
            own = next((a.target for a, v in zip(_operands(node), (left, right)) if getattr(v, "ndim", 0) > 1), None)
            if own is not None:
                raise ValueError(
                    f"{where} adds {own}, an array of its own: tables of positions are part of x; read the module "
                    "behind the sum, and give propagate x with them"
                )
            raise ValueError(f"{where} adds something that is no output of a layer; a chain adds two values")
        factors = 1.0, sign * alpha
        if left is right:
            return arithmetic.scaled(left, sum(factors), where)
        if None not in (left.units, right.units) and left.units != right.units:
            raise ValueError(f"{where} adds {left.units} and {right.units} numbers")
        return Value(where, (left, right), factors=factors, units=left.units or right.units)

    def _constant(self, argument):
        value = self._known(argument)
        if hasattr(value, "numel") and value.numel() == 1:
            return kinds.number(value)
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    def _product(self, name, node, where):
        left, right = _operands(node)
        if node.kwargs.get("rounding_mode") is not None:
            raise ValueError(f"{where} rounds, which a chain cannot")
        factor = self._constant(right)
        if factor is not None:
            return arithmetic.scaled(self._value(left, where), 1 / factor if "div" in name else factor, where)
        if "div" not in name:
            for value, own in ((left, right), (right, left)):
                value, own = self._known(value), self._known(own)
                if arithmetic.is_own(own, value):
                    return arithmetic.scaled_by_unit(value, own, where)
        factor = self._constant(left)
        if factor is not None and "div" not in name:
            return arithmetic.scaled(self._value(right, where), factor, where)
        if "div" in name:
            raise ValueError(f"{where} divides by something that is no number")
        return arithmetic.gate(self._value(left, where), self._value(right, where), where)

    def _item(self, node, where):
        value, index = self._known(node.args[0]), node.args[1]
        if value is None:
            return None
        if isinstance(value, tuple) and isinstance(index, int):
            return value[index]
        if isinstance(value, Value) and self.has_attention and isinstance(index, tuple) and len(index) > 1:
            whole, at, *rest = index
            if whole == slice(None) and at in (0, -1) and all(i in (Ellipsis, slice(None)) for i in rest):
                return value.then(Read("last" if at else "first"), where)
        if hasattr(value, "shape"):
            return value
        cut = index[-1] if isinstance(index, tuple) and index else None
        if (
            isinstance(value, Value)
            and isinstance(cut, slice)
            and all(i in (Ellipsis, slice(None)) for i in index[:-1])
        ):
            half = (value.units or 0) // 2
            for i, ends in enumerate(((None, half), (half, None))):
                if cut in (slice(*ends), slice(i * half, (i + 1) * half)):
                    return arithmetic.halves(value, 2, -1, "chunk", where)[i]
        raise ValueError(
            f"{where} takes something apart; a chain reads the two halves of a fused Linear as a gate, and nothing else"
        )


def _name(node):
    """What a function or method is called."""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def _first(node):
    """What a node acts on."""
    return node.args[0] if node.args else next(iter(node.kwargs.values()), None)


def _operands(node):
    given = {**dict(zip(("input", "other"), node.args)), **node.kwargs}
    return given.get("input"), given.get("other")


def _is_node(argument):
    from torch import fx

    return isinstance(argument, fx.Node)
