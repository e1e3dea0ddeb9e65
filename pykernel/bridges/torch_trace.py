# SPDX-License-Identifier: BSD-3-Clause
"""The graph of a module's forward by torch.fx, with sizes as numbers: an input of a few positions is sent along."""

from __future__ import annotations

import inspect
import operator
from typing import Any, NamedTuple

from pykernel.bridges import torch_kinds as kinds
from pykernel.bridges.torch_conv import SPATIAL

IN_PLACE = ("iadd", "isub", "imul", "itruediv")
INPUTS, POSITIONS = 7, 5  # of the input that is sent along: sizes that no layer is likely to have


class Trace(NamedTuple):
    """A graph of torch.fx, the arrays by name that the forward makes, and (inputs, positions) of what was sent along,
    None where it knows no sizes."""

    graph: Any
    arrays: dict
    sizes: tuple | None


def trace(module, known) -> Trace:
    """The graph of torch.fx, with modules of torch.nn as leaves.

    Raises:
        ValueError: torch.fx cannot follow the forward.
    """
    is_spatial = any(kinds.kind_of(part) in SPATIAL for part in module.modules())  # positions are before no units
    for units in () if is_spatial else _entering(module):
        try:
            return _follow(module, known, units)
        except Exception:  # another size, or sizes that are no numbers
            continue
    inner: list[str] = []
    try:
        return _follow(module, known, None, inner)
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"{inner[-1] if inner else kinds.where_of(module, '')} is not known, and torch.fx cannot follow its "
            "forward "
            f"({reason[0] if reason else type(error).__name__}); a chain is read from {kinds.KNOWN}"
        ) from None


def _entering(module):
    """How many units the input may have: what its parts take, in their order."""
    found: dict[int, None] = {}
    for part in module.modules():
        for name in ("in_features", "normalized_shape", "embed_dim", "num_features"):
            size = getattr(part, name, None)
            size = size[-1] if isinstance(size, tuple) and size else size
            if isinstance(size, int) and size > 0:
                found[size] = None
    return list(found)[:4]


def _positions(module) -> int:
    """As many as the smallest table of a mask has."""
    square = [b.shape[-1] for b in module.buffers() if b.ndim > 1 and b.shape[-1] == b.shape[-2]]
    return min([POSITIONS, *square])


def _follow(module, known, units, inner=None):
    import torch
    from torch import fx

    inner = [] if inner is None else inner  # modules whose forward is being followed
    arrays: dict[str, Any] = {}

    class Proxy(fx.Proxy):
        """fx itself takes x += y for x = x + y, which is another thing to whoever else holds x; and knows no sizes."""

        sample: Any = None

        def __getattr__(self, name):
            if self.sample is not None and name in ("shape", "device", "dtype", "ndim"):
                return getattr(self.sample, name)
            return super().__getattr__(name)

        if units is not None:  # fx itself looks at its caller's code

            def __iter__(self):
                return (self[i] for i in range(len(self.sample)))

            def __len__(self):
                return len(self.sample)

    for name in IN_PLACE:
        act = lambda self, other, name=name: self.tracer.create_proxy(
            "call_function", getattr(operator, name), (self, other), {}
        )
        setattr(Proxy, f"__{name}__", act)
    for name in ("size", "dim", "ndimension", "numel"):

        def ask(self, *args, name=name, **kwargs):
            if self.sample is None:
                return self.tracer.create_proxy("call_method", name, (self, *args), kwargs)
            return getattr(self.sample, name)(*args, **kwargs)

        setattr(Proxy, name, ask)

    def sample_of(argument):
        if isinstance(argument, fx.Proxy):
            return getattr(argument, "sample", None)
        if isinstance(argument, torch.Tensor) and argument.is_floating_point():
            return torch.zeros(argument.shape)
        return argument

    class Tracer(fx.Tracer):
        def proxy(self, node):
            return Proxy(node, self)

        def create_proxy(self, kind, target, args, kwargs, *more, **others):
            proxy = super().create_proxy(kind, target, args, kwargs, *more, **others)
            if units is not None:
                proxy.sample = self._sample(kind, target, args, kwargs)
            return proxy

        def _sample(self, kind, target, args, kwargs):
            """What it gives for an input of zeros, in shape."""
            if kind == "placeholder":
                return torch.zeros(INPUTS, _positions(module), units)
            if kind == "get_attr":
                return torch.zeros(operator.attrgetter(target)(self.root).shape)
            args, kwargs = fx.node.map_aggregate(args, sample_of), fx.node.map_aggregate(kwargs, sample_of)
            if kind == "call_module":
                return _of_module(self.root.get_submodule(target), args, kwargs)
            if kind == "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)
            return target(*args, **kwargs) if kind == "call_function" else None

        def create_arg(self, a):
            own = isinstance(a, torch.Tensor) and not isinstance(a, torch.nn.Parameter)
            if own:  # fx itself would hang it into the module
                name = next((n for n, b in self.root.named_buffers() if b is a), None) or f"array {len(arrays)}"
                arrays[name] = a
                return self.create_node("get_attr", name, (), {})
            return super().create_arg(a)

        def is_leaf_module(self, m, name):
            return known(m)

        def call_module(self, m, forward, args, kwargs):
            if not any(m is part for part in self.root.modules()):  # made in the forward, as nn.Softmax(-1)(x)
                return m.forward(*args, **kwargs)
            inner.append(kinds.where_of(m, self.path_of_module(m)))
            answer = super().call_module(m, forward, args, kwargs)
            inner.pop()
            return answer

    optional = list(inspect.signature(module.forward).parameters.values())[1:]
    defaults = {p.name: p.default for p in optional if isinstance(p.default, bool | int | float | str | None)}
    graph = Tracer().trace(module, concrete_args=defaults or None)
    return Trace(graph, arrays, None if units is None else (INPUTS, _positions(module)))


def _of_module(module, args, kwargs):
    """The shape that a module of torch.nn gives."""
    import torch

    x = args[0] if args else next(iter(kwargs.values()))
    kind = kinds.kind_of(module)
    if kind == "Linear":
        if x.shape[-1] != module.in_features:
            raise ValueError("another size")
        return torch.zeros(*x.shape[:-1], module.out_features)
    if kind == "MultiheadAttention":
        return x, None
    if kind in ("GLU", "Flatten", "Unflatten", "Softmax"):
        return module.forward(x)  # fx has calls of modules in its hands
    return x
