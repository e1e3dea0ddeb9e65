# SPDX-License-Identifier: BSD-3-Clause
"""The PyTorch module that a chain of blocks is, from the words: the same weights, biases and masks, autograd for its
gradients."""

import numpy as np
import torch
from torch import nn

import pykernel as pk
from pykernel import stream
from pykernel.activation import Activation
from pykernel.layers import Dropout, Gated, Linear, Norm, Scale
from pykernel.lower import lower
from pykernel.ops import linear

MODULES = {
    "linear": nn.Identity,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "silu": nn.SiLU,
    "softplus": lambda: nn.Softplus(threshold=100),  # beyond 20, by default, it is the identity
    "mish": nn.Mish,
    "hardtanh": nn.Hardtanh,
    "softsign": nn.Softsign,
    "erf": lambda: Function(torch.erf),
    "arctan": lambda: Function(torch.atan),
    "sin": lambda: Function(torch.sin),
}


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.register_buffer("factor", factor)

    def forward(self, x):
        return self.factor * x


class Shift(nn.Module):
    """A bias behind a norm that has none."""

    def __init__(self, bias):
        super().__init__()
        self.bias = nn.Parameter(torch.from_numpy(bias.copy()))

    def forward(self, x):
        return x + self.bias


class Mask(nn.Module):
    """Dropout with a mask of its own, (batch, units)."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, x):
        return x * self.mask


class Gate(nn.Module):
    def __init__(self, gate, function, value):
        super().__init__()
        self.gate, self.function, self.value = gate, function, value

    def forward(self, x):
        return self.function(self.gate(x)) * self.value(x)


class Sum(nn.Module):
    """after(skip x + scale f(x)), or without a skip after(scale f(x))."""

    def __init__(self, branch, skip, scale, after):
        super().__init__()
        self.branch, self.after, self.scale = branch, after, scale
        self.passing = skip if isinstance(skip, nn.Module) else None
        self.factor = None if isinstance(skip, nn.Module) else skip

    def forward(self, x):
        y = self.branch(x) * self.scale
        if self.passing is not None:
            y = self.passing(x) + y
        elif self.factor is not None:
            y = self.factor * x + y
        return self.after(y)


class Twin:
    """Builds the module of a chain: `module`, `linears` in the order of the chain's layers, `head` or None; all
    float64.

    Args:
        chain: Chain of blocks.  seed, replica: the address of its weights, biases and masks.
        batch: rows of the masks; None for nn.Dropout in their place.
    """

    def __init__(self, chain, *, seed=0, replica=0, batch=None):
        self.chain, self.seed, self.replica, self.batch = chain, seed, replica, batch
        self.program = lower(chain, seed=seed)
        self.linears, self.masks, self.width, self.turn = [], 0, chain.width, 0
        parts = [self._block(block) for block in chain.first]
        for self.turn in range(chain.depth):
            parts += [self._block(block) for block in chain.blocks]
        parts += [self._block(block) for block in chain.last]
        self.head = None
        if chain.head is not None:
            self.head = nn.Linear(self.width, chain.head.outputs, bias=False)
            self._fill(self.head.weight, pk.weights(chain, layer=self.program.depth + 1, replica=replica, seed=seed))
            parts.append(self.head)
        self.module = nn.Sequential(*parts).double().train()

    def gradients(self, x, end, loss=None):
        """log10 of the norms of dJ/dx, of dJ/dW and of dJ/db (-inf where there is none), layer by layer.

        Args:
            x: (batch, n[0]).  end: dJ/d output (batch, outputs), or the targets of a loss.
            loss: as of a Head; by default the chain's.
        """
        loss = self.chain.head.loss if loss is None and self.chain.head is not None else loss
        x = torch.from_numpy(x).requires_grad_()
        y, end = self.module(x), torch.from_numpy(end)
        functional = nn.functional
        J = {
            None: lambda: (y * end).sum(),
            "linear": lambda: (y * end).sum(),
            "mse": lambda: 0.5 * (y - end).square().sum() / len(y),
            "sigmoid": lambda: functional.binary_cross_entropy_with_logits(y, end, reduction="sum") / len(y),
            "softmax": lambda: functional.cross_entropy(y, end),
        }[loss]()
        J.backward()
        norm = lambda tensor: 0.0 if tensor is None else tensor.grad.norm().item()
        with np.errstate(divide="ignore"):
            return (
                np.log10(norm(x)),
                np.log10([norm(part.weight) for part in self.linears]),
                np.log10([norm(part.bias) for part in self.linears]),
            )

    def _block(self, block):
        branches = self.chain.branches**-0.5
        number = lambda factor: branches if isinstance(factor, str) else factor
        width = self.width
        branch = self._steps(block.steps)
        skip = number(block.skip) if not isinstance(block.skip, tuple) else None
        if isinstance(block.skip, tuple):
            self.width = width
            skip = self._steps(block.skip)
        return Sum(branch, skip, number(block.scale), self._steps(block.after))

    def _steps(self, steps):
        return nn.Sequential(*map(self._step, steps))

    def _step(self, step):
        if isinstance(step, Activation):
            return MODULES[step.name]()
        if isinstance(step, Linear):
            return self._linear(step.units)
        if isinstance(step, Gated):
            width = self.width
            gate = self._linear(step.units)
            self.width = width
            return Gate(gate, MODULES[step.activation.name](), self._linear(step.units))
        if isinstance(step, Norm):
            eps = self.chain.norm_eps if step.eps is None else step.eps
            return self._norm(step, {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "rms": nn.RMSNorm}[step.kind], eps)
        if isinstance(step, Scale):
            return Times(torch.tensor(step.s, dtype=torch.float64))
        assert isinstance(step, Dropout)
        if self.batch is None:
            return nn.Dropout(step.p)
        self.masks += 1
        kept = stream.mask(self.seed, self.masks, self.replica, self.width, self.batch, step.p)
        return Mask(torch.from_numpy(kept.T / (1 - step.p)))

    def _norm(self, step, kind, eps):
        norm = kind(self.width, eps=eps)
        for name in ("weight", "bias"):
            value = getattr(step, name)
            rows = value if isinstance(value, tuple) and isinstance(value[0], tuple) else (value,)
            row = rows[self.turn if len(rows) > 1 else 0]
            if row is None:
                continue
            if not hasattr(norm, name):  # an RMSNorm has no bias
                return nn.Sequential(norm, Shift(np.broadcast_to(row, self.width)))
            self._fill(getattr(norm, name), np.broadcast_to(row, self.width))
        return norm

    def _linear(self, units):
        units = self.width if units is None else units
        layer = len(self.linears) + 1
        biased = self.program.layers.bias_draw[layer - 1] > 0
        part = nn.Linear(self.width, units, bias=bool(biased), dtype=torch.float64)
        self._fill(part.weight, pk.weights(self.chain, layer=layer, replica=self.replica, seed=self.seed))
        if biased:
            self._fill(part.bias, linear.bias(self.program, self.replica, layer)[:, 0])
        self.linears.append(part)
        self.width = units
        return part

    @staticmethod
    def _fill(parameter, array):
        parameter.data = torch.from_numpy(np.array(array, dtype=np.float64))
