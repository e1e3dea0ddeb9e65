# SPDX-License-Identifier: BSD-3-Clause
"""Chains that are read from PyTorch modules, run with formats: norms with scale and shift, attention, convolution, in
every backend; and a transformer block in bfloat16 against the run."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import pykernel as pk
from pykernel import observables

FORMATS = {
    "bfloat16": pk.Formats("bfloat16", "bfloat16", "bfloat16"),
    "fp8": pk.Formats("float8_e4m3fn", "float8_e4m3fn", "float8_e5m2", loss_scale=2.0**6),
}
RESIDUES = ("log10_grad_bias", "log10_smallest_signal", "log10_smallest_gradient", "flushed_signal", "flushed_gradient")


def trained(module):
    """Norms whose scale and shift are no longer one and zero."""
    torch.manual_seed(3)
    for part in module.modules():
        if isinstance(part, nn.LayerNorm | nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
    return module


class Attending(nn.Module):
    """A pre-norm transformer block written out."""

    def __init__(self, width=24, heads=3):
        super().__init__()
        self.heads = heads
        self.before, self.behind = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        B, T, n = x.shape
        split = lambda y: y.view(B, T, self.heads, n // self.heads).transpose(1, 2)
        q, k, v = self.qkv(self.before(x)).chunk(3, dim=-1)
        o = nn.functional.scaled_dot_product_attention(split(q), split(k), split(v), is_causal=True)
        x = x + self.out(o.transpose(1, 2).reshape(B, T, n))
        return x + self.down(nn.functional.gelu(self.up(self.behind(x))))


def modules():
    torch.manual_seed(1)
    return {
        "norms": (
            trained(nn.Sequential(nn.Linear(16, 24), nn.LayerNorm(24), nn.ReLU(), nn.Linear(24, 24), nn.LayerNorm(24))),
            (),
        ),
        "attention": (trained(nn.Sequential(Attending(), Attending())), (5,)),
        "convolution": (
            trained(
                nn.Sequential(
                    *(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
                    *(nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(128, 6)),
                )
            ),
            (8, 8),
        ),
    }


@pytest.mark.parametrize("backend", ["cpp", pytest.param("numba", marks=pytest.mark.slow)])
@pytest.mark.parametrize("formats", FORMATS)
@pytest.mark.parametrize("name", ["norms", "attention", "convolution"])
def test_backends_round_what_was_read_alike(name, formats, backend):
    """Float64 sums differ in order only, and may meet a tie once in 2^40."""
    module, positions = modules()[name]
    chain = pk.from_torch(module, weights=True)
    run = dict(batch=3, positions=positions, dtype="float64", formats=FORMATS[formats])
    p, q = (pk.propagate(chain, backend=b, **run) for b in (backend, "reference"))
    for row in observables.ROWS:
        if row.name not in RESIDUES:
            np.testing.assert_allclose(p.rows[row.name], q.rows[row.name], atol=1e-6, err_msg=row.name)
    assert (q.gradient_cosine < 1 - 1e-7)[:, :-1].all() and (q.gradient_cosine > 0.7).all()


def test_a_transformer_in_bfloat16_is_the_run():
    """Inside a norm, the softmax and a sum of products PyTorch rounds where we do not, or keeps more: the run tells how
    far its output lies from that in float64 within a factor of 1.5, and so it does of the gradient."""
    module = trained(nn.Sequential(*(Attending(48, 4) for _ in range(4))))
    torch.manual_seed(7)
    x, c = torch.randn(6, 12, 48), torch.randn(6, 12, 48)
    found = []
    for kind in (torch.float64, torch.bfloat16):
        copied = copy.deepcopy(module).to(kind)
        given = x.to(kind).requires_grad_()
        y = copied(given)
        y.backward(c.to(kind))
        found.append([t.detach().double().numpy() for t in (y, given.grad)])
    apart = [np.linalg.norm(a - b) / np.linalg.norm(a) for a, b in zip(*found, strict=True)]
    chain = pk.from_torch(module, weights=True)
    as_columns = lambda t: t.permute(2, 0, 1).double().numpy()
    p = pk.propagate(chain, x=as_columns(x), cotangent=as_columns(c), positions=12, formats=FORMATS["bfloat16"])
    told = 10 ** p.log10_error_signal[0, -1], 10 ** p.log10_error_gradient[0, 0]
    for measured, run in zip(apart, told, strict=True):
        assert run / 1.5 < measured < run * 1.5
