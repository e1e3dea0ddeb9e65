# SPDX-License-Identifier: BSD-3-Clause
"""Everyday PyTorch modules of dense layers, small: each a function that makes one, by name. Needs torch."""

import itertools
import math

import torch
from torch import nn
from torch.nn import functional as F


class Mlp(nn.Module):
    """x + f(x) with a norm before, after, or nowhere."""

    def __init__(self, n, place="pre", norm=nn.LayerNorm, hidden=2):
        super().__init__()
        self.norm, self.up, self.down, self.place = norm(n), nn.Linear(n, hidden * n), nn.Linear(hidden * n, n), place

    def forward(self, x):
        if self.place == "pre":
            return x + self.down(F.gelu(self.up(self.norm(x))))
        return self.norm(x + self.down(F.gelu(self.up(x))))


class SwiGlu(nn.Module):
    def __init__(self, n, hidden):
        super().__init__()
        self.norm = nn.RMSNorm(n)
        self.w1, self.w2, self.w3 = (
            nn.Linear(n, hidden, bias=False),
            nn.Linear(hidden, n, bias=False),
            nn.Linear(n, hidden, bias=False),
        )

    def forward(self, x):
        u = self.norm(x)
        return x + self.w2(F.silu(self.w1(u)) * self.w3(u))


class Fused(nn.Module):
    """A gate cut out of one Linear."""

    def __init__(self, n, hidden, cut):
        super().__init__()
        self.both, self.out, self.cut, self.hidden = nn.Linear(n, 2 * hidden), nn.Linear(hidden, n), cut, hidden

    def forward(self, x):
        y = self.both(x)
        if self.cut == "chunk":
            gate, value = y.chunk(2, dim=-1)
        elif self.cut == "split":
            value, gate = torch.split(y, self.hidden, dim=-1)
        else:
            gate, value = y[:, : self.hidden], y[..., self.hidden :]
        return self.out(value * F.gelu(gate))


class Siren(nn.Module):
    def __init__(self, n, m, w0=30.0):
        super().__init__()
        self.linear, self.w0 = nn.Linear(n, m), w0

    def forward(self, x):
        return torch.sin(self.w0 * self.linear(x))


class Sum(nn.Module):
    """after(skip x + scale f(x)), or a division of the sum."""

    def __init__(self, n, m=None, skip=1.0, scale=1.0, divide=1.0, after=None, act=nn.ReLU):
        super().__init__()
        m = n if m is None else m
        self.f = nn.Sequential(nn.Linear(n, m), act(), nn.Linear(m, m))
        self.project = nn.Linear(n, m) if n != m else nn.Identity()
        self.skip, self.scale, self.divide, self.after = skip, scale, divide, after or nn.Identity()

    def forward(self, x):
        return self.after((self.skip * self.project(x) + self.f(x) * self.scale) / self.divide)


class Functional(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(n, 7), nn.Linear(7, 5), nn.Linear(5, n)

    def forward(self, x):
        x = x.view(x.size(0), -1)
        x = F.leaky_relu(self.one(x), 0.2)
        x = torch.tanh(F.layer_norm(self.two(x), (5,)))
        return self.three(F.dropout(x, 0.5, training=False)).sigmoid()


class Listed(nn.Module):
    def __init__(self, n, count):
        super().__init__()
        self.stem, self.norm = nn.Linear(n, 6), nn.LayerNorm(6)
        self.blocks = nn.ModuleList([Mlp(6) for _ in range(count)])
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Mixer(nn.Module):
    """Weights of F.linear."""

    def __init__(self, n):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(n, n) / n**0.5), nn.Parameter(torch.randn(n))

    def forward(self, x):
        return torch.relu(F.linear(x, self.weight, self.bias)).neg() * 0.5


class Swish(nn.Module):
    def __init__(self, n, m):
        super().__init__()
        self.linear = nn.Linear(n, m)

    def forward(self, x):
        x = self.linear(x)
        return torch.sigmoid(x) * x


class HandNorm(nn.Module):
    """An RMSNorm as language models write it, or a LayerNorm by its formula."""

    def __init__(self, n, centred=False):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(n) + 0.5), nn.Parameter(torch.randn(n))
        self.centred = centred

    def forward(self, x):
        if self.centred:
            variance = x.var(-1, keepdim=True, unbiased=False)
            return self.weight * (x - x.mean(-1, keepdim=True)) / torch.sqrt(variance + 1e-6) + self.bias
        x = x.to(self.weight.dtype)
        return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)).type_as(x) * self.weight


class LayerScale(Mlp):
    """x + gamma * f(norm(x)), a factor for each unit (Touvron et al. 2021)."""

    def __init__(self, n, trained=False):
        super().__init__(n)
        self.gamma = nn.Parameter(torch.rand(n) if trained else torch.full((n,), 1e-2))

    def forward(self, x):
        return x + self.gamma * self.down(F.gelu(self.up(self.norm(x))))


def trained(module):
    """With weights and biases of norms that differ by unit."""
    for part in module.modules():
        if isinstance(part, (nn.LayerNorm, nn.RMSNorm, nn.BatchNorm1d)):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            if getattr(part, "bias", None) is not None:
                nn.init.normal_(part.bias, std=0.3)
    return module


def _stack(*sizes, act=nn.ReLU, last=None):
    parts = []
    for n, m in itertools.pairwise(sizes):
        parts += [nn.Linear(n, m), act()]
    return nn.Sequential(*parts[:-1], *([last] if last else []))


def _repeat(make, count, *more):
    return nn.Sequential(*(make() for _ in range(count)), *more)


KINDS = {
    "autoencoder with a sigmoid at the end": lambda: _stack(6, 5, 3, 5, 6, last=nn.Sigmoid()),
    "generator with tanh": lambda: nn.Sequential(
        nn.Linear(6, 8),
        nn.BatchNorm1d(8),
        nn.LeakyReLU(0.2),
        nn.Linear(8, 8),
        nn.BatchNorm1d(8),
        nn.LeakyReLU(0.2),
        nn.Linear(8, 4),
        nn.Tanh(),
    ),
    "pre-norm blocks": lambda: _repeat(lambda: Mlp(6), 3, nn.LayerNorm(6), nn.Linear(6, 3)),
    "post-norm blocks": lambda: _repeat(lambda: Mlp(6, "post"), 3),
    "SwiGLU blocks": lambda: _repeat(lambda: SwiGlu(6, 8), 2, nn.RMSNorm(6)),
    "SIREN": lambda: _repeat(lambda: Siren(6, 6), 3, nn.Linear(6, 2)),
    "ReLU after the sum": lambda: _repeat(lambda: Sum(6, after=nn.ReLU()), 3),
    "projection": lambda: nn.Sequential(Sum(6, 4, scale=0.5), Sum(4), Sum(4)),
    "mixed activations": lambda: nn.Sequential(
        nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 4), nn.SiLU()
    ),
    "norms on some layers": lambda: nn.Sequential(
        nn.Linear(6, 7), nn.LayerNorm(7), nn.ReLU(), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 4)
    ),
    "dropout in eval mode": lambda: nn.Sequential(nn.Linear(6, 7), nn.Dropout(0.5), nn.ReLU(), nn.Linear(7, 3)).eval(),
    "GLU": lambda: _repeat(lambda: nn.Sequential(nn.Linear(6, 16), nn.GLU(), nn.Linear(8, 6)), 2),
    "GEGLU by chunk": lambda: _repeat(lambda: Fused(6, 5, "chunk"), 2),
    "GEGLU by split": lambda: _repeat(lambda: Fused(6, 5, "split"), 2),
    "GEGLU by slices": lambda: _repeat(lambda: Fused(6, 5, "slice"), 2),
    "RMSNorm": lambda: nn.Sequential(
        nn.RMSNorm(6, 1e-6), nn.Linear(6, 7), nn.RMSNorm(7, 1e-5), nn.ReLU(), nn.Linear(7, 3)
    ),
    "(x + f) / sqrt 2": lambda: _repeat(lambda: Sum(6, divide=math.sqrt(2)), 3, nn.Linear(6, 2)),
    "DeepNorm": lambda: _repeat(lambda: Sum(6, skip=6**0.25, after=nn.LayerNorm(6)), 3),
    "bottleneck": lambda: _repeat(lambda: nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 6)), 3),
    "nested Sequential": lambda: nn.Sequential(
        nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.ELU(), Mlp(6))), nn.Sequential(nn.Linear(6, 3))
    ),
    "ModuleList": lambda: Listed(5, 3),
    "functional forward": lambda: Functional(6),
    "F.linear": lambda: nn.Sequential(Mixer(6), Mixer(6)),
    "SiLU by hand": lambda: nn.Sequential(Swish(6, 7), Swish(7, 7), nn.Linear(7, 2)),
    "trained pre-norm blocks": lambda: trained(_repeat(lambda: Mlp(6), 3, nn.LayerNorm(6), nn.Linear(6, 3))),
    "trained post-norm blocks": lambda: trained(_repeat(lambda: Mlp(6, "post"), 3)),
    "trained RMS norms": lambda: trained(_repeat(lambda: SwiGlu(6, 8), 2, nn.RMSNorm(6))),
    "trained batch norms": lambda: trained(
        nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3), nn.Tanh())
    ),
    "an RMSNorm by hand": lambda: _repeat(lambda: Mlp(6, norm=HandNorm), 2),
    "a LayerNorm by hand": lambda: _repeat(lambda: Mlp(6, norm=lambda n: HandNorm(n, True)), 2, nn.Linear(6, 2)),
    "LayerScale as it begins": lambda: _repeat(lambda: LayerScale(6), 2),
    "LayerScale": lambda: _repeat(lambda: LayerScale(6, trained=True), 3),
    "final activation behind a sum": lambda: _repeat(lambda: Mlp(6), 2, nn.Softplus()),
}
