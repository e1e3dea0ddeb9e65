# SPDX-License-Identifier: BSD-3-Clause
"""PyTorch modules as chains: read by their layers' names and numbers, or by torch.fx where a module has a forward of its own."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from pykernel import activations, checks, inits
from pykernel.activation import Activation
from pykernel.bridges import recognise
from pykernel.bridges.steps import Network, Step, assemble
from pykernel.chain import Chain

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
FUNCTIONS = {"relu": "relu", "sigmoid": "sigmoid", "tanh": "tanh", "selu": "selu", "silu": "silu", "mish": "mish", "softsign": "softsign"}
FUNCTIONS |= {"erf": "erf", "atan": "arctan", "arctan": "arctan", "sin": "sin", "relu_": "relu", "tanh_": "tanh", "sigmoid_": "sigmoid"}
HARMLESS = ("Identity", "Flatten")
HARMLESS_FUNCTIONS = ("flatten", "view", "reshape", "contiguous", "clone", "squeeze", "float", "double")
SIZES = ("size", "getattr", "getitem", "numel", "dim")
KNOWN = (
    "Linear, ReLU, Sigmoid, Tanh, LeakyReLU, PReLU, ELU, SELU, GELU, SiLU, Mish, Softplus, Softsign, Hardtanh, BatchNorm1d, LayerNorm, "
    "RMSNorm, Identity, Flatten, Dropout in eval mode, and sums of a value with an earlier one"
)


def from_torch(module, *, weights: bool = False, init=None, loss: str = "linear", activations=None) -> Chain:
    """The chain that a PyTorch module is, to diagnose the network you have.

    Args:
        module: an `nn.Sequential`, nested if you like, or a module whose `forward` torch.fx can trace: Linear layers of any widths with one
            activation function and one norm throughout, before or after the Linear, and sums x + s f(x) at equal distances.
            A last Linear without activation becomes the chain's Head.
        weights: True to read the very weights and biases, so that `propagate` measures this network; False for the scheme that they are
            a fresh draw of, found by likelihood, so that `propagate` measures its ensemble.
        init: the scheme, where you know it better; the weights are then not looked at, and may be on the meta device.
        loss: of the Head: "linear" (the logits' random read-out, or the `cotangent` you give), "mse", "sigmoid" or "softmax".
        activations: dict of your own module classes -> pykernel.Activation or a name.

    Returns:
        Chain. `pk.propagate(chain, x=batch, batch_first=True)` takes the module's own inputs, (batch, units); a `cotangent` likewise.

    Raises:
        ValueError: the module is no chain, or its weights no fresh draw of a known scheme: which layer, and why.
        TypeError: it is no module.

    Notes:
        Norms must have one eps and affine parameters 1 and 0, batch norm its batch's statistics (training mode). Clipping, optimisers
        and the gradients of a norm's own parameters are left out; so are a head's own gradient, and its bias in a drawn scheme.

    Examples:
        >>> import torch  # doctest: +SKIP
        >>> net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 10))  # doctest: +SKIP
        >>> str(pk.from_torch(net))  # doctest: +SKIP
        '1 layers of 64 units, tanh, torch_linear_default, head linear (10 outputs)'
    """
    if not isinstance(weights, bool):
        raise TypeError(f"weights must be True or False, got {weights!r}")
    if weights and init is not None:
        raise ValueError("give either weights=True, to read the module's own weights, or init, to name their scheme")
    network = read(module, activations)
    if init is not None:
        return network.chain(init, loss=loss)
    arrays = [_parameters(layer.linear) for layer in network.layers]
    matrices, biases = [w for w, _ in arrays], [b for _, b in arrays]
    head = None if network.head is None else _parameters(network.head)
    if weights:
        given = inits.Given(matrices, _filled(matrices, biases), name="the module's weights")
        last = None if head is None else inits.Given(head[:1], None if head[1] is None else head[1:], name="the module's head")
        return network.chain(given, head_init=last, loss=loss)
    found, gain, bias_std = recognise.scheme(matrices, biases)
    return network.chain(
        found, head_init=None if head is None else _head_scheme(head[0], found, gain), loss=loss, gain=gain, bias_std=bias_std
    )


def init_torch_(module, scheme, *, seed: int = 0, replica: int = 0, gain: float = 1.0, bias_std: float = 0.0, activations=None) -> Chain:
    """Fill a PyTorch module with the weights that `propagate` uses: a draw of a scheme at a seed and replica, in place.

    Args:
        module: as `from_torch` reads it; weights of any real dtype and device.
        scheme: a name or a pykernel.Init; or a Chain or an entry of `pk.recommend(...)`, whose init, gain and bias_std are taken, and
            whose other parts the module must have.
        seed, replica: the address of the draw.
        gain, bias_std: as in Chain. Biases are zero without.
        activations: as in `from_torch`.

    Returns:
        The Chain: layer l of a float32 module has the bits of `pk.weights(chain, layer=l, replica=replica, seed=seed, dtype="float32")`.
        A last Linear without activation is the head, layer L + 1: of the same scheme where its entries are independent, else lecun_normal;
        its bias is zero.

    Raises:
        ValueError, TypeError: as `from_torch`; weights on the meta device, or of whole or complex numbers; a recommendation of something
            that the module is not.

    Examples:
        >>> import torch  # doctest: +SKIP
        >>> net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh())  # doctest: +SKIP
        >>> str(pk.init_torch_(net, "orthogonal", seed=1))  # doctest: +SKIP
        '1 layers of 64 units, tanh, orthogonal'
        >>> pk.init_torch_(net, pk.recommend(pk.from_torch(net)).best).gain  # doctest: +SKIP
        1.0
    """
    from pykernel.lower import lower
    from pykernel.ops.linear import bias as bias_of
    from pykernel.simulate import weights

    network = read(module, activations)
    wanted = getattr(scheme, "chain", scheme)
    if isinstance(wanted, Chain):
        chain = _as_wanted(network, wanted, gain, bias_std)
    elif scheme is None:
        raise TypeError("scheme must be a name, an Init, a Chain or a recommendation, got None: pk.recommend found no healthy candidate")
    else:
        chain = network.chain(scheme, gain=checks.finite("gain", gain), bias_std=checks.not_negative("bias_std", bias_std))
    program = lower(chain, seed=seed)
    linears = [layer.linear for layer in network.layers] + ([network.head] if network.head is not None else [])
    for step in linears:
        _require_numbers(step)
    for i, step in enumerate(linears, 1):
        _fill(step.linear.weight, weights(chain, layer=i, replica=replica, seed=seed, dtype="float32"))
        if getattr(step.linear, "bias", None) is not None:
            drawn = i <= program.depth and program.layers.bias_draw[i - 1]
            _fill(step.linear.bias, bias_of(program, replica, i)[:, 0] if drawn else np.zeros(step.sizes[0]))
    return chain


def _as_wanted(network, wanted, gain, bias_std):
    """The network as a chain with the init, gain and biases of another one, which must have its other parts."""
    if gain != 1 or bias_std != 0:
        raise ValueError("the recommended chain brings its own gain and bias_std: give it alone")
    own = network.chain(wanted.init, gain=wanted.gain, bias_std=wanted.bias_std)
    if not np.array_equal(own.layer_widths, wanted.layer_widths):
        raise ValueError(f"the module has {own}; the recommended chain has {wanted}")
    for part in ("activation", "norm", "order", "residual"):
        mine, theirs = getattr(own, part), getattr(wanted, part)
        if mine != theirs:
            raise ValueError(
                f"the recommended chain has {part} {theirs}, the module {mine}: weights alone cannot make up for it; change the module "
                "first, or choose another entry of pk.recommend(...)"
            )
    return own


def _fill(parameter, array):
    import torch

    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)))


def read(module, own=None) -> Network:
    """The network of a module."""
    if not hasattr(module, "named_modules"):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    module = getattr(module, "_orig_mod", module)  # of torch.compile
    for path, part in module.named_modules():
        _refuse_changed(part, _where(part, path))
    reader = _Reader(module, {} if own is None else {kind: activations.get(row) for kind, row in own.items()})
    reader.walk(module, "")
    _refuse_shared([s for s in reader.steps if s.kind == "linear"])
    return assemble(reader.steps)


def _refuse_shared(linears):
    seen: dict[int, Step] = {}
    for step in linears:
        first = seen.setdefault(id(step.linear.weight), step)
        if first is not step:
            raise ValueError(f"{first.where} and {step.where} share one weight; a chain has a weight of its own at every layer")


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
            f"{where} computes its {' and '.join(module.parametrizations)} by a parametrization; a chain has plain weights: "
            "call torch.nn.utils.parametrize.remove_parametrizations first"
        )


class _Reader:
    """Collects the steps of a module, in order."""

    def __init__(self, root, own):
        self.steps: list[Step] = []
        self.root, self.own = root, own

    def walk(self, module, path):
        if type(module) in self.own:
            self.steps.append(Step("activation", _where(module, path), activation=self.own[type(module)]))
        elif _kind(module) == "Sequential":
            for name, child in module._modules.items():  # named_children() leaves out what comes twice
                self.walk(child, f"{path}.{name}" if path else name)
        elif _kind(module) is not None:
            self.leaf(module, path)
        else:
            self.trace(module, path)

    def leaf(self, module, path):
        """A module of torch.nn."""
        kind, where = _kind(module), _where(module, path)
        if kind in HARMLESS:
            return
        if "Dropout" in kind:
            if module.p and module.training:
                raise ValueError(f"{where} drops units at random in training mode; call .eval() on it to read the network without")
        elif kind == "Linear":
            rows, columns = module.weight.shape
            self.steps.append(Step("linear", where, linear=module, sizes=(int(rows), int(columns))))
        elif kind in ("BatchNorm1d", "LayerNorm", "RMSNorm"):
            self.steps.append(Step("norm", where, norm=_norm(kind, module, where, self._width(), self.root)))
        else:
            self.steps.append(Step("activation", where, activation=_activation(kind, module, where)))

    def _width(self):
        """Units of the value so far, or None before the first Linear."""
        linears = [s for s in self.steps if s.kind == "linear"]
        return linears[-1].sizes[0] if linears else None

    def trace(self, module, path):
        """A module with a forward of its own."""
        from torch import fx

        where = _where(module, path)
        reader = self

        class Tracer(fx.Tracer):
            def is_leaf_module(self, m, name):
                return type(m) in reader.own or (_kind(m) is not None and _kind(m) != "Sequential")

        try:
            graph = Tracer().trace(module)
        except Exception as error:
            reason = str(error).strip().splitlines()
            raise ValueError(
                f"{where} is not known, and torch.fx cannot follow its forward ({reason[0] if reason else type(error).__name__}); "
                f"a chain is read from {KNOWN}"
            ) from None
        _Graph(self, module, path).follow(graph)


class _Graph:
    """Follows the nodes of a traced forward; a value is (steps before it, factor on it), or None for sizes and the like."""

    def __init__(self, reader, module, path):
        self.reader, self.module, self.path = reader, module, path
        self.where = _where(module, path)
        self.values: dict[Any, tuple[int, float] | float | None] = {}

    def follow(self, graph):
        inputs = [node for node in graph.nodes if node.op == "placeholder" and node.users]
        if len(inputs) != 1:
            raise ValueError(f"{self.where} takes {len(inputs)} inputs; a chain has one")
        for node in graph.nodes:
            self.values[node] = getattr(self, node.op)(node)

    def placeholder(self, node):
        return len(self.reader.steps), 1.0

    def output(self, node):
        if not isinstance(node.args[0], type(node)):
            raise ValueError(f"{self.where} returns {type(node.args[0]).__name__}; a chain has one output")
        self._now(node.args[0], "the output")

    def get_attr(self, node):
        value = operator.attrgetter(node.target)(self.module)
        numbers = _number(value) if value.numel() == 1 else None
        if numbers is None:
            raise ValueError(f"{self.where} uses {node.target}, an array of its own; a chain has weights in Linear layers only")
        return numbers

    def call_module(self, node):
        self._now(node.args[0], str(node.target))
        self.reader.walk(self.module.get_submodule(node.target), f"{self.path}.{node.target}" if self.path else str(node.target))
        return len(self.reader.steps), 1.0

    def call_function(self, node):
        return self._call(getattr(node.target, "__name__", str(node.target)), node)

    def call_method(self, node):
        return self._call(node.target, node)

    def _call(self, name, node):
        if name in SIZES:
            return None
        if name in ("add", "iadd", "add_"):
            return self._add(node)
        if name in ("sub", "isub", "sub_"):
            return self._add(node, -1)
        if name in ("mul", "imul", "mul_", "truediv", "div", "div_", "itruediv"):
            return self._scale(name, node)
        now = self._now(node.args[0], name)
        if name in HARMLESS_FUNCTIONS:
            return now
        given = {**dict(zip(_ARGUMENTS.get(name, ()), node.args[1:])), **node.kwargs}
        if "dropout" in name:
            if given.get("training", True) and given.get("p", 0.5):
                raise ValueError(f"{self.where} drops units at random in training mode; call .eval() on it to read the network without")
            return now
        row = _function(name, given)
        if row is None:
            raise ValueError(f"{self.where} calls {name}, which a chain has not; a chain is read from {KNOWN}")
        self.reader.steps.append(Step("activation", f"{name} of {self.where}", activation=row))
        return len(self.reader.steps), 1.0

    def _now(self, node, what):
        """The value of a node, which must be the latest one."""
        value = self.values.get(node) if isinstance(node, _node_type()) else None
        if not isinstance(value, tuple):
            raise ValueError(f"{self.where}: {what} acts on something that is no output of a layer")
        if value[0] != len(self.reader.steps):
            raise ValueError(f"{self.where}: {what} acts on an earlier value, so that layers form two branches; a chain has one")
        if value[1] != 1.0:
            raise ValueError(f"{self.where}: {what} acts on a scaled value; a chain scales the branch of a sum only")
        return value

    def _constant(self, argument):
        value = self.values.get(argument) if isinstance(argument, _node_type()) else argument
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    def _scale(self, name, node):
        left, right = node.args[:2]
        divides = "div" in name
        factor, base = self._constant(right), left
        if factor is None and not divides:
            factor, base = self._constant(left), right
        value = self.values.get(base) if isinstance(base, _node_type()) else None
        if factor is None or not isinstance(value, tuple):
            raise ValueError(f"{self.where} multiplies two values; a chain scales the branch of a sum by one number")
        return value[0], value[1] / factor if divides else value[1] * factor

    def _add(self, node, sign=1):
        left, right = (self.values.get(a) if isinstance(a, _node_type()) else None for a in node.args[:2])
        alpha = sign * node.kwargs.get("alpha", 1)
        if not (isinstance(left, tuple) and isinstance(right, tuple)):
            raise ValueError(f"{self.where} adds something that is no output of a layer; a chain adds an earlier value")
        right = (right[0], right[1] * alpha)
        now = len(self.reader.steps)
        branch, skip = (left, right) if left[0] == now and right[0] != now else (right, left)
        if branch[0] != now or skip[0] == now or skip[1] != 1.0:
            raise ValueError(f"{self.where}: a sum must be of the latest value, scaled or not, and an earlier one as it is")
        self.reader.steps.append(Step("sum", f"the sum of {self.where}", start=skip[0], scale=branch[1]))
        return len(self.reader.steps), 1.0


def _node_type():
    from torch import fx

    return fx.Node


def _kind(module):
    """The name of a class of torch.nn, or None: a module with a forward of its own."""
    for base in type(module).__mro__:
        if base.__module__.partition(".")[0] == "torch":
            own = type(module).forward is not getattr(base, "forward", None)
            return None if own or base.__name__ == "Module" else base.__name__
    return None


def _where(module, path):
    return f"layer {path} ({type(module).__name__})" if path else type(module).__name__


def _activation(kind, module, where) -> Activation:
    if kind in PLAIN:
        return activations.get(PLAIN[kind])
    if kind == "LeakyReLU":
        return activations.leaky_relu(float(module.negative_slope))
    if kind == "PReLU":
        if math.prod(module.weight.shape) != 1:
            raise ValueError(f"{where} has a slope of its own for every unit; a chain has one")
        return activations.leaky_relu(_number(module.weight, where))
    if kind in ("ELU", "CELU"):
        if kind == "CELU" and module.alpha != 1:
            raise ValueError(f"{where} has alpha {module.alpha:g}; a chain knows it with alpha 1 only, where it is ELU")
        return activations.elu(float(module.alpha))
    if kind == "GELU":
        return _gelu(module.approximate, where)
    if kind == "Softplus":
        if module.beta != 1:
            raise ValueError(f"{where} has beta {module.beta:g}; a chain knows softplus with beta 1 only")
        return activations.get("softplus")
    if kind == "Hardtanh":
        if (module.min_val, module.max_val) != (-1, 1):
            raise ValueError(f"{where} clips at {module.min_val:g} and {module.max_val:g}; a chain knows hardtanh from -1 to 1 only")
        return activations.get("hardtanh")
    raise ValueError(
        f"{where} is not known; a chain is read from {KNOWN}; for one of your own give activations={{{kind}: pykernel.Activation(...)}}"
    )


def _gelu(approximate, where):
    if approximate not in ("none", "tanh"):
        raise ValueError(f"{where} has approximate={approximate!r}, not 'none' or 'tanh'")
    return activations.get("gelu_tanh" if approximate == "tanh" else "gelu")


_ARGUMENTS = {
    "gelu": ("approximate",),
    "leaky_relu": ("negative_slope", "inplace"),
    "elu": ("alpha", "inplace"),
    "softplus": ("beta", "threshold"),
    "hardtanh": ("min_val", "max_val", "inplace"),
    "dropout": ("p", "training", "inplace"),
}


def _function(name, given):
    """The row of a function of torch or torch.nn.functional, or None."""
    if name in FUNCTIONS:
        return activations.get(FUNCTIONS[name])
    if name == "leaky_relu":
        return activations.leaky_relu(given.get("negative_slope", 0.01))
    if name == "elu":
        return activations.elu(given.get("alpha", 1.0))
    if name == "gelu":
        return _gelu(given.get("approximate", "none"), "gelu")
    if name == "softplus" and given.get("beta", 1) == 1:
        return activations.get("softplus")
    if name == "hardtanh" and (given.get("min_val", -1), given.get("max_val", 1)) == (-1, 1):
        return activations.get("hardtanh")
    return None


def _rounding(module, root):
    """The eps of an RMSNorm without one: torch takes the rounding of the dtype that comes in, of half precisions float32's."""
    parameters = [module.weight, *root.parameters()]
    dtype = next((str(p.dtype) for p in parameters if p is not None), "float32")
    return float(np.finfo("float64" if dtype.endswith("float64") else "float32").eps)


def _norm(kind, module, where, width, root):
    eps = _rounding(module, root) if module.eps is None else float(module.eps)
    if not EPS[0] <= eps <= EPS[1]:
        raise ValueError(f"{where} has eps {eps:g}; a chain's norms have one from {EPS[0]:g} to {EPS[1]:g}")
    if kind == "BatchNorm1d":
        if not module.training and module.running_mean is not None:
            raise ValueError(f"{where} is in eval mode and normalises by running statistics; a chain by the batch's: call .train() on it")
        shape = (module.num_features,)
    else:
        shape = tuple(module.normalized_shape)
    if len(shape) != 1 or width not in (None, shape[0]):
        raise ValueError(f"{where} normalises over shape {shape}; a chain over all {width or ''} units of a layer")
    for name, plain in (("weight", 1.0), ("bias", 0.0)):
        parameter = getattr(module, name, None)
        if parameter is not None and not _is_meta(parameter) and not (_array(parameter, where) == plain).all():
            raise ValueError(f"{where} has a trained {name}; a chain's norms have weight 1 and bias 0")
    return {"BatchNorm1d": "batch", "LayerNorm": "layer", "RMSNorm": "rms"}[kind], eps


def _is_meta(parameter):
    return parameter.is_meta


def _array(parameter, where):
    """A parameter as float64 NumPy."""
    if _is_meta(parameter):
        raise ValueError(f"{where} is on the meta device and has no numbers; read it with init=..., or materialise it with .to_empty()")
    if not parameter.dtype.is_floating_point:
        raise TypeError(f"{where} has weights of {parameter.dtype}; a chain has real floating-point ones")
    return parameter.detach().cpu().double().numpy()


def _number(parameter, where="a factor"):
    return float(_array(parameter, where).reshape(-1)[0])


def _require_numbers(step):
    for name in ("weight", "bias"):
        parameter = getattr(step.linear, name, None)
        if parameter is None:
            continue
        if _is_meta(parameter):
            raise ValueError(f"{step.where} is on the meta device and has no numbers; materialise it with .to_empty(device=...)")
        if not parameter.dtype.is_floating_point:
            raise TypeError(f"{step.where} has weights of {parameter.dtype}; a draw is of real floating-point numbers")


def _parameters(step):
    """The weight and bias (or None) of a linear step, float64."""
    bias = getattr(step.linear, "bias", None)
    return _array(step.linear.weight, step.where), None if bias is None else _array(bias, step.where)


def _filled(matrices, biases):
    """The biases with zeros for layers without, None where no layer has any."""
    if all(b is None for b in biases):
        return None
    return [np.zeros(len(w)) if b is None else b for w, b in zip(matrices, biases, strict=True)]


def _head_scheme(weight, found, gain):
    """The scheme of a head's weight: the layers' own where it fits, else what the weight shows by itself, else its own variance."""
    fans = (weight.shape[1], weight.shape[0])
    if found.distribution in ("normal", "uniform", "truncated") and gain == 1:
        variance = (found.scale(*fans) * inits.unit_std(found.distribution)) ** 2
        if abs(np.square(weight).mean() / variance - 1) < recognise.SIGMAS * math.sqrt(2 / weight.size):
            return found
    try:
        own = recognise.scheme([weight], [None])[0]
    except ValueError:
        own = found
    return (
        own
        if own.distribution in ("normal", "uniform", "truncated") and own is not found
        else inits.Normal(float(np.sqrt(np.square(weight).mean())))
    )
