# SPDX-License-Identifier: BSD-3-Clause
"""Gradient norms against PyTorch autograd: the same weights, biases, input and cotangent in float64, every activation,
norm and order.

Needs torch beside pykernel: `.venv-peers/bin/python bench/peers/check_torch.py`. Prints the largest difference in
decades for each backend.
"""

from __future__ import annotations

import argparse
import itertools
import sys

import numpy as np
import torch
from torch.nn import functional

import pykernel as pk

PHI = {
    "linear": lambda z: z,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": functional.leaky_relu,
    "elu": functional.elu,
    "selu": functional.selu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda z: functional.gelu(z, approximate="tanh"),
    "silu": functional.silu,
    "softplus": functional.softplus,
    "mish": functional.mish,
    "hardtanh": functional.hardtanh,
    "softsign": functional.softsign,
    "erf": torch.erf,
    "arctan": torch.atan,
    "sin": torch.sin,
}
NORMS = (None, "batch", "layer", "rms")
ORDERS = ("linear-norm-activation", "norm-activation-linear")
BOUND = 1e-9  # decades


def norm(kind, z):
    """z is (units, batch); eps 1e-5 and biased variances, as torch.nn's layers have them."""
    if kind is None:
        return z
    axis = 1 if kind == "batch" else 0
    if kind == "rms":
        return z / torch.sqrt((z**2).mean(axis, keepdim=True) + 1e-5)
    return (z - z.mean(axis, keepdim=True)) / torch.sqrt(z.var(axis, keepdim=True, unbiased=False) + 1e-5)


def torch_norms(chain, x, cotangent, weights, biases):
    """log10 norms of dJ/dW[l] and dJ/da[l] by autograd."""
    phi, k = PHI[chain.activation.name], chain.residual.every if chain.residual else 0
    W, b = ([torch.tensor(v, requires_grad=True) for v in given] for given in (weights, biases))
    a = [torch.tensor(x, requires_grad=True)]
    for i in range(chain.depth):
        if chain.order == ORDERS[0]:
            v = phi(norm(chain.norm, W[i] @ a[i] + b[i][:, None]))
        else:
            v = W[i] @ phi(norm(chain.norm, a[i])) + b[i][:, None]
        a.append(a[i + 1 - k] + chain.residual.scale * v if k and (i + 1) % k == 0 else v)
        a[-1].retain_grad()
    (a[-1] * torch.tensor(cotangent)).sum().backward()
    return tuple(np.log10([t.grad.norm().item() for t in tensors]) for tensors in (W, a))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=["reference", "cpp", "numba"])
    args = parser.parse_args()
    worst = dict.fromkeys(args.backends, (0.0, ""))
    residuals = (None, pk.Residual(2, 0.5), pk.Residual(3, 1.0))
    for i, (name, kind, order) in enumerate(itertools.product(PHI, NORMS, ORDERS)):
        residual = residuals[i % 3]
        widths = [7] * 7 if residual else [5, 9, 17, 33, 8, 12, 6]
        chain = pk.Chain(widths=widths, activation=name, norm=kind, order=order, residual=residual)
        rng = np.random.default_rng(i)
        weights = [rng.normal(size=(m, n)) / n**0.5 for n, m in itertools.pairwise(widths)]
        biases = [0.1 * rng.normal(size=m) for m in widths[1:]]
        x, cotangent = rng.normal(size=(widths[0], 4)), rng.normal(size=(widths[-1], 4))
        expected = torch_norms(chain, x, cotangent, weights, biases)
        for backend in args.backends:
            p = pk.propagate(
                chain,
                x=x,
                cotangent=cotangent,
                weights=weights,
                biases=biases,
                engine="dense",
                backend=backend,
                dtype="float64",
            )
            found = (p.log10_grad_weight[0], p.log10_grad_activation[0])
            difference = max(float(np.abs(f - e).max()) for f, e in zip(found, expected, strict=True))
            worst[backend] = max(worst[backend], (difference, str(chain)))
    for backend, (difference, chain) in worst.items():
        print(f"{backend:10s} {difference:.1e} decades at most ({chain})")
    return int(any(difference > BOUND for difference, _ in worst.values()))


if __name__ == "__main__":
    sys.exit(main())
