# SPDX-License-Identifier: BSD-3-Clause
"""Modules and functions of PyTorch as steps of a block: activations, norms, dropout, and parameters as NumPy arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pykernel import activations
from pykernel.activation import Activation
from pykernel.dtypes import Floats
from pykernel.layers import NORM_EPS, Norm

THRESHOLD = 20  # softplus is the identity beyond, as torch has it by default: off by e^-20 = 2e-9
EPS = (1e-30, 1e30)  # as Chain.norm_eps
# Modules and functions without parameters, each the name of a row.
PLAIN = {
    "ReLU": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "SELU": "selu",
    "SiLU": "silu",
    "Mish": "mish",
    "Softsign": "softsign",
}
FUNCTIONS = {
    "relu": "relu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "selu": "selu",
    "silu": "silu",
    "mish": "mish",
    "softsign": "softsign",
}
FUNCTIONS |= {
    "erf": "erf",
    "atan": "arctan",
    "arctan": "arctan",
    "sin": "sin",
    "relu_": "relu",
    "tanh_": "tanh",
    "sigmoid_": "sigmoid",
}
HARMLESS = ("Identity", "Flatten")
HARMLESS_FUNCTIONS = (
    "flatten",
    "view",
    "reshape",
    "contiguous",
    "clone",
    "squeeze",
    "float",
    "double",
    "to",
    "type_as",
)
# asserts: arguments left at their defaults
SIZES = ("size", "getattr", "numel", "dim", "eq", "_assert", "_assert_is_none")
NORMS = {"BatchNorm1d": "batch", "BatchNorm2d": "batch", "LayerNorm": "layer", "RMSNorm": "rms"}
KNOWN = (
    "Linear, Conv1d, Conv2d, pools of windows or of all positions, ReLU, Sigmoid, Tanh, LeakyReLU, PReLU, ELU, SELU, "
    "GELU, SiLU, Mish, Softplus, Softsign, Hardtanh, GLU, BatchNorm1d, BatchNorm2d, LayerNorm, RMSNorm, Identity, "
    "Flatten, Dropout, MultiheadAttention, TransformerEncoder and its layers, attention by "
    "scaled_dot_product_attention or written out, gates of two Linear layers, products with a number, and sums of "
    "two values"
)
LOSS = 'a softmax belongs to the loss: read the module without it, with loss="softmax"'
# What is read by none of these words, and why.
REASONS = {
    "Transformer": "a decoder has two inputs",
    "ConvTranspose": "a chain has no transposed convolution",
    "Conv": "a chain's convolutions are over one axis of positions or two",
    "GroupNorm": "a chain's norms are over the units of one position, or over inputs and positions",
    "InstanceNorm": "a chain's norms are over the units of one position, or over inputs and positions",
    "Embedding": "an embedding looks its input up: read the module of the blocks behind it, and give propagate as x "
    "what enters them, positions included",
    "Softmax": LOSS,
    "LogSoftmax": LOSS,
    **dict.fromkeys(("LSTM", "GRU", "LSTMCell", "GRUCell"), "its gates act on the state; a chain's act on its input"),
}
ARGUMENTS: dict[str, tuple[str, ...]] = dict.fromkeys(("relu", "selu", "silu", "mish"), ("inplace",))
ARGUMENTS |= {
    "gelu": ("approximate",),
    "leaky_relu": ("negative_slope", "inplace"),
    "elu": ("alpha", "inplace"),
    "softplus": ("beta", "threshold"),
    "hardtanh": ("min_val", "max_val", "inplace"),
    "dropout": ("p", "training", "inplace"),
    "glu": ("dim",),
    "chunk": ("chunks", "dim"),
    "split": ("split_size", "dim"),
    "linear": ("weight", "bias"),
    "mean": ("dim", "keepdim"),
    "amax": ("dim", "keepdim"),
    "flatten": ("start_dim", "end_dim"),
    **dict.fromkeys(("conv1d", "conv2d"), ("weight", "bias", "stride", "padding", "dilation", "groups")),
    **dict.fromkeys(
        ("max_pool1d", "max_pool2d"), ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    ),
    **dict.fromkeys(
        ("avg_pool1d", "avg_pool2d"),
        ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    ),
    **dict.fromkeys((f"adaptive_{word}_pool{n}d" for word in ("avg", "max") for n in (1, 2)), ("output_size",)),
    "var": ("dim", "unbiased", "keepdim"),
    "pow": ("exponent",),
    "clamp": ("min", "max"),
    "clamp_min": ("min",),
    "layer_norm": ("normalized_shape", "weight", "bias", "eps"),
    "rms_norm": ("normalized_shape", "weight", "eps"),
}


def arguments(name: str) -> tuple[str, ...]:
    """Names of what a function takes behind its input, in order."""
    return ARGUMENTS.get("dropout" if "dropout" in name else name.removesuffix("_"), ())


def kind_of(module: Any) -> str | None:
    """The name of a class of torch.nn, or None: a module with a forward of its own."""
    for base in type(module).__mro__:
        if base.__module__.partition(".")[0] == "torch":
            own = type(module).forward is not getattr(base, "forward", None)
            return None if own or base.__name__ == "Module" else base.__name__
    return None


def where_of(module: Any, path: str) -> str:
    """How messages call a module."""
    return f"layer {path} ({type(module).__name__})" if path else type(module).__name__


def activation(kind: str, module: Any, where: str) -> Activation:
    """The row of an activation module."""
    if kind in PLAIN:
        return activations.get(PLAIN[kind])
    if kind == "LeakyReLU":
        return activations.leaky_relu(float(module.negative_slope))
    if kind == "PReLU":
        if math.prod(module.weight.shape) != 1:
            raise ValueError(f"{where} has a slope of its own for every unit; a chain has one")
        return activations.leaky_relu(number(module.weight, where))
    if kind in ("ELU", "CELU"):
        if kind == "CELU" and module.alpha != 1:
            raise ValueError(f"{where} has alpha {module.alpha:g}; a chain knows it with alpha 1 only, where it is ELU")
        return activations.elu(float(module.alpha))
    if kind == "GELU":
        return _gelu(module.approximate, where)
    if kind == "Softplus":
        if module.beta != 1 or module.threshold < THRESHOLD:
            raise ValueError(
                f"{where} has beta {module.beta:g} and threshold {module.threshold:g}; a chain knows softplus with "
                "beta 1 only, "
                f"and without a threshold, which one from {THRESHOLD} on cannot be told from"
            )
        return activations.get("softplus")
    if kind == "Hardtanh":
        if (module.min_val, module.max_val) != (-1, 1):
            raise ValueError(
                f"{where} clips at {module.min_val:g} and {module.max_val:g}; a chain knows hardtanh from -1 to 1 only"
            )
        return activations.get("hardtanh")
    reason = next((why for name, why in REASONS.items() if kind.startswith(name)), None)
    raise ValueError(
        f"{where} is not known{f': {reason}' if reason else ''}; a chain is read from {KNOWN}; for one of your own "
        "give "
        f"activations={{{kind}: pykernel.Activation(...)}}"
    )


def _gelu(approximate: str, where: str) -> Activation:
    if approximate not in ("none", "tanh"):
        raise ValueError(f"{where} has approximate={approximate!r}, not 'none' or 'tanh'")
    return activations.get("gelu_tanh" if approximate == "tanh" else "gelu")


def function(name: str, given: dict[str, Any]) -> Activation | None:
    """The row of a function of torch or torch.nn.functional, or None."""
    if name in FUNCTIONS:
        return activations.get(FUNCTIONS[name])
    if name == "leaky_relu":
        return activations.leaky_relu(given.get("negative_slope", 0.01))
    if name == "elu":
        return activations.elu(given.get("alpha", 1.0))
    if name == "gelu":
        return _gelu(given.get("approximate", "none"), "gelu")
    if name == "softplus" and given.get("beta", 1) == 1 and given.get("threshold", THRESHOLD) >= THRESHOLD:
        return activations.get("softplus")
    if name in ("clamp", "clamp_", "clamp_min") and (given.get("min"), given.get("max")) == (0, None):
        return activations.get("relu")
    if name in ("clamp", "clamp_") and (given.get("min"), given.get("max")) == (-1, 1):
        return activations.get("hardtanh")
    if name == "hardtanh" and (given.get("min_val", -1), given.get("max_val", 1)) == (-1, 1):
        return activations.get("hardtanh")
    return None


def norm_of(kind: str, module: Any, where: str, width: int | None, root: Any) -> Norm:
    """The step of a norm module."""
    eps = _rounding(module.weight, root) if module.eps is None else float(module.eps)
    if NORMS[kind] == "batch":
        if not module.training and module.running_mean is not None:
            raise ValueError(
                f"{where} is in eval mode and normalises by running statistics; a chain by the batch's: call "
                ".train() on it"
            )
        shape = (module.num_features,)
    else:
        shape = tuple(module.normalized_shape)
    return norm(NORMS[kind], shape, (module.weight, getattr(module, "bias", None)), eps, where, width)


def norm_function(name: str, given: dict[str, Any], where: str, width: int | None, root: Any) -> Norm:
    """The same of F.layer_norm or F.rms_norm."""
    weight, bias = given.get("weight"), given.get("bias")
    eps = given.get("eps", 1e-5 if name == "layer_norm" else None)
    eps = _rounding(weight, root) if eps is None else float(eps)
    return norm(name.partition("_")[0], tuple(given["normalized_shape"]), (weight, bias), eps, where, width)


def norm(
    kind: str, shape: tuple[int, ...], parameters: tuple[Any, Any], eps: float, where: str, width: int | None
) -> Norm:
    """The same of a norm of these numbers."""
    if not EPS[0] <= eps <= EPS[1]:
        raise ValueError(f"{where} has eps {eps:g}; a chain's norms have one from {EPS[0]:g} to {EPS[1]:g}")
    if len(shape) != 1 or width not in (None, shape[0]):
        raise ValueError(f"{where} normalises over shape {shape}; a chain over all {width or ''} units of a layer")
    weight, bias = (plainest(p, nothing, where) for p, nothing in zip(parameters, (1.0, 0.0), strict=True))
    return Norm(kind, None if eps == NORM_EPS else eps, weight, bias)


def plainest(parameter: Any, nothing: float, where: str) -> float | Floats | None:
    """A norm's parameter: None where it does nothing, one number where all units have the same, else an array."""
    if parameter is None or parameter.is_meta:
        return None
    numbers = array(parameter, where)
    if (numbers != numbers.flat[0]).any():
        return numbers
    return None if numbers.flat[0] == nothing else float(numbers.flat[0])


def _rounding(weight: Any, root: Any) -> float:
    """The eps of an RMSNorm without one: torch takes the rounding of the dtype that comes in, of half precisions
    float32's."""
    dtype = next((str(p.dtype) for p in (weight, *root.parameters()) if p is not None), "float32")
    return float(np.finfo("float64" if dtype.endswith("float64") else "float32").eps)


def array(parameter: Any, where: str) -> Floats:
    """A parameter as float64 NumPy."""
    require_numbers(parameter, where, "read it with init=..., or materialise it with .to_empty()")
    return parameter.detach().cpu().double().numpy()


def number(parameter: Any, where: str = "a factor") -> float:
    """A parameter of one entry."""
    return float(array(parameter, where).reshape(-1)[0])


def require_numbers(parameter: Any, where: str, advice: str = "materialise it with .to_empty(device=...)") -> None:
    """Refuse parameters without numbers, or of whole or complex ones."""
    if parameter.is_meta:
        raise ValueError(f"{where} is on the meta device and has no numbers; {advice}")
    if not parameter.dtype.is_floating_point:
        raise TypeError(f"{where} has weights of {parameter.dtype}; a chain has real floating-point ones")
