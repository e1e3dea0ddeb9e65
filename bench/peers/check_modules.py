# SPDX-License-Identifier: BSD-3-Clause
"""Modules read by `from_torch` against autograd of the modules themselves: the same weights, inputs and cotangents,
norms layer by layer.

Needs torch beside pykernel: `.venv-peers/bin/python bench/peers/check_modules.py`. Prints the largest relative
difference for each module.
"""

from __future__ import annotations

import argparse
import sys
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

import pykernel as pk

BOUND = 1e-5  # relative


def mlp(widths, act, norm=None, bias=True, last=False):
    layers = []
    for i, (n, m) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(n, m, bias=bias))
        if i < len(widths) - 2 or last:
            layers += ([norm(m)] if norm else []) + [act()]
    return nn.Sequential(*layers)


def before(n, depth, act, norm):
    return nn.Sequential(*(part for _ in range(depth) for part in (norm(n), act(), nn.Linear(n, n))))


class Skip(nn.Module):
    def __init__(self, body, scale=1.0):
        super().__init__()
        self.body, self.scale = body, scale

    def forward(self, x):
        return x + self.scale * self.body(x)


class Gated(nn.Module):
    """x + alpha f(x) with a learned alpha, as ReZero has it."""

    def __init__(self, body):
        super().__init__()
        self.body, self.alpha = body, nn.Parameter(torch.tensor(0.3))

    def forward(self, x):
        return torch.add(self.body(x) * self.alpha, x)


class Written(nn.Module):
    """A forward of plain functions."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(12, 20), nn.Linear(20, 20), nn.Linear(20, 20), nn.Linear(20, 3)

    def forward(self, x):
        x = functional.gelu(self.a(x.flatten(1)))
        x = functional.gelu(self.b(x))
        return self.d(functional.gelu(self.c(x)))


ACTS = (
    nn.Tanh,
    nn.ReLU,
    lambda: nn.LeakyReLU(0.2),
    lambda: nn.PReLU(init=0.1),
    lambda: nn.ELU(1.7),
    nn.SELU,
    nn.GELU,
    lambda: nn.GELU(approximate="tanh"),
    nn.SiLU,
    nn.Mish,
    nn.Softplus,
    nn.Softsign,
    nn.Hardtanh,
    nn.Sigmoid,
)
NORMS = (None, nn.BatchNorm1d, nn.LayerNorm, nn.RMSNorm)


def modules():
    for act in ACTS:
        yield f"mlp {act()}", mlp([9, 17, 33, 8, 8, 5], act)
    for i, norm in enumerate(NORMS):
        for bias in (True, False):
            yield f"norm {i}, bias {bias}", mlp([9, 17, 17, 33, 5], nn.Tanh, norm, bias)
            yield f"norm {i}, bias {bias}, last too", mlp([9, 17, 17, 33, 5], nn.SiLU, norm, bias, last=True)
        if norm:
            yield f"norm {i} before", before(13, 6, nn.GELU, norm)
            yield f"norm {i}, skips before", nn.Sequential(*(Skip(before(13, 2, nn.ReLU, norm), 0.5) for _ in range(4)))
    yield (
        "skips after",
        nn.Sequential(*(Skip(nn.Sequential(nn.Linear(11, 11), nn.Tanh())) for _ in range(5)), nn.Linear(11, 4)),
    )
    yield "gated", nn.Sequential(*(Gated(mlp([11, 30, 11], nn.ReLU, last=True)) for _ in range(3)))
    yield "written", Written()
    yield (
        "nested",
        nn.Sequential(
            nn.Flatten(), nn.Sequential(mlp([9, 7, 7], nn.ReLU, last=True), nn.Identity()), mlp([7, 7, 2], nn.ReLU)
        ),
    )
    yield "linear", mlp([9, 17, 33, 5], nn.Identity)
    yield "one by one", nn.Sequential(nn.Linear(1, 1), nn.Tanh(), nn.Linear(1, 1))
    yield "one layer", nn.Linear(6, 4)
    yield "deep", nn.Sequential(*(Skip(mlp([16, 16], nn.Tanh, nn.LayerNorm, last=True), 0.03) for _ in range(2000)))
    yield "dropout", nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Dropout().eval(), nn.Linear(6, 3))


def largest(module, seed, backend, loss):
    """The largest relative difference of any weight, bias or input gradient's norm (biases that batch norm takes out
    left out)."""
    torch.manual_seed(seed)
    module = module.double()
    linears = [m for m in module.modules() if isinstance(m, nn.Linear)]
    for m in linears:
        with torch.no_grad():
            m.weight.mul_(1.3)
            if m.bias is not None:
                m.bias.normal_(0, 0.3)
    x = torch.randn(7, linears[0].in_features, dtype=torch.float64, requires_grad=True)
    chain = pk.from_torch(module, weights=True, loss=loss)
    y = module(x)
    cotangent = torch.randn_like(y)
    given = {"x": x.detach().T.numpy()}
    if chain.head is None or loss == "linear":
        (y * cotangent).sum().backward()
        given["cotangent"] = cotangent.T.numpy()
    else:
        targets = torch.randint(0, y.shape[1], (7,))
        functional.cross_entropy(y, targets).backward()
        chain = chain.replace(head=pk.Head("softmax", chain.head.outputs, chain.head.init, tuple(targets.tolist())))
    p = pk.propagate(chain, dtype="float64", backend=backend, **given)
    worst = abs(10.0 ** p.log10_grad_activation[0, 0] / x.grad.norm().item() - 1)
    for l, m in enumerate(linears[: chain.depth]):
        worst = max(worst, abs(10.0 ** p.log10_grad_weight[0, l] / m.weight.grad.norm().item() - 1))
        if m.bias is not None and chain.norm != "batch" and m.bias.grad.norm() > 0:
            worst = max(worst, abs(10.0 ** p.log10_grad_bias[0, l] / m.bias.grad.norm().item() - 1))
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=["reference", "numba", "auto"])
    args = parser.parse_args()
    bad = 0
    for i, (name, module) in enumerate(modules()):
        found = {}
        for backend in args.backends:
            for loss in ("linear", "softmax"):
                if loss == "softmax" and name in ("one by one",):
                    continue
                module.zero_grad()
                found[backend, loss] = largest(module, i, backend, loss)
        worst = max(found.values())
        bad += not worst < BOUND
        print(f"{name:28s} {worst:.1e}{'' if worst < BOUND else '  too large'}")
    return bad


if __name__ == "__main__":
    sys.exit(bool(main()))
