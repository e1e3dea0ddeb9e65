# SPDX-License-Identifier: BSD-3-Clause
"""Times pykernel and PyTorch on the same transformers, in one run, and prints a table.

The work: one pre-norm transformer (layer norm, causal attention, layer norm, feed-forward 4 times as wide, GELU) of
fresh N(0, 0.02^2) float32 weights; one input of T positions; forward, then back from a random cotangent; the Frobenius
norm of every weight's gradient. Points are WIDTHxBLOCKSxPOSITIONSxHEADS, a block being an attention and a feed-forward.
"""

from __future__ import annotations

import math

from turns import arguments_of, median, ratio, seconds_in_turns, show

POINTS = ("256x12x64x4", "2048x2x64x16", "768x12x128x12")
STD = 0.02


def weights_of(n, blocks):
    """query, key and value as one; output, up, down; of every block."""
    import torch

    draw = lambda rows, columns: torch.empty(rows, columns).normal_(std=STD)
    return [[draw(3 * n, n), draw(n, n), draw(4 * n, n), draw(n, 4 * n)] for _ in range(blocks)]


def heads_of(x, H):
    """(H, T, d) of (T, n)."""
    return x.view(len(x), H, -1).transpose(0, 1)


def torch_autograd(n, blocks, T, H):
    """PyTorch as most people would write it."""
    import torch
    from torch.nn import functional as F

    weights = [[w.requires_grad_() for w in block] for block in weights_of(n, blocks)]
    x = torch.randn(T, n)
    for stacked, output, up, down in weights:
        q, k, v = (heads_of(part, H) for part in (F.layer_norm(x, (n,)) @ stacked.T).split(n, dim=1))
        mixed = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
        x = x + mixed.transpose(0, 1).reshape(T, n) @ output.T
        x = x + F.gelu(F.layer_norm(x, (n,)) @ up.T) @ down.T
    x.backward(torch.randn(T, n))
    return [norm for s, *others in weights for norm in (*thirds(s.grad, n), *(w.grad.norm().item() for w in others))]


def thirds(gradient, n):
    return [part.norm().item() for part in gradient.split(n)]


def norm_of(delta, u):
    """The Frobenius norm of delta^T u from two matrices of positions."""
    return math.sqrt(float(((delta @ delta.T) * (u @ u.T)).sum()))


def normalised(x):
    x = x - x.mean(dim=1, keepdim=True)
    factor = (x.square().mean(dim=1, keepdim=True) + 1e-5).rsqrt()
    return x * factor, factor


def through_norm(g, u, factor):
    return factor * (g - g.mean(dim=1, keepdim=True) - u * (g * u).mean(dim=1, keepdim=True))


def torch_by_hand(n, blocks, T, H):
    """PyTorch without autograd: the backward pass written out, norms of gradients without the gradients."""
    import torch

    with torch.inference_mode():
        weights, x, tape = weights_of(n, blocks), torch.randn(T, n), []
        hidden = torch.triu(torch.full((T, T), -math.inf), 1)
        scale = (n // H) ** -0.5
        for stacked, output, up, down in weights:
            u, factor = normalised(x)
            q, k, v = (heads_of(part, H) for part in (u @ stacked.T).split(n, dim=1))
            A = torch.softmax((q @ k.mT) * scale + hidden, dim=-1)
            mixed = (A @ v).transpose(0, 1).reshape(T, n)
            x = x + mixed @ output.T
            w, second = normalised(x)
            z = w @ up.T
            half = 0.5 * (1 + torch.erf(z * 0.5**0.5))
            act = z * half
            x = x + act @ down.T
            tape.append((u, factor, q, k, v, A, mixed, w, second, z, half, act))
        g, norms = torch.randn(T, n), []
        for (stacked, output, up, down), kept in zip(reversed(weights), reversed(tape), strict=True):
            u, factor, q, k, v, A, mixed, w, second, z, half, act = kept
            dz = (g @ down) * (half + z * torch.exp(-0.5 * z * z) * (2 * math.pi) ** -0.5)
            mine = [norm_of(dz, w), norm_of(g, act)]
            g = g + through_norm(dz @ up, w, second)
            do = heads_of(g @ output, H)
            dA = do @ v.mT
            dS = A * (dA - (A * dA).sum(dim=-1, keepdim=True)) * scale
            parts = [part.transpose(0, 1).reshape(T, n) for part in (dS @ k, dS.mT @ q, A.mT @ do)]
            norms.append([*(norm_of(part, u) for part in parts), norm_of(g, mixed), *mine])
            g = g + through_norm(torch.cat(parts, dim=1) @ stacked, u, factor)
        return [norm for block in reversed(norms) for norm in block]


def pykernel_with(engine):
    """Ours."""
    import pykernel as pk

    def run(n, blocks, T, H):
        attention = pk.Block(pk.Norm("layer"), pk.Attention(H, causal=True), skip=1.0)
        feed_forward = pk.Block(pk.Norm("layer"), pk.Linear(4 * n), "gelu", pk.Linear(n), skip=1.0)
        chain = pk.Chain(depth=blocks, width=n, init=f"normal({STD})", blocks=[attention, feed_forward])
        return 10 ** pk.propagate(chain, positions=T, engine=engine, backend="cpp").log10_grad_weight[0]

    return run


def rows(arguments, peers: dict):
    """One list of cells for each point."""
    ours = {engine: pykernel_with(engine) for engine in ("dense", "matrix_free")}
    for text in arguments.points:
        point = tuple(int(number) for number in text.split("x"))
        taken = seconds_in_turns({**peers, **ours}, point, (6 * point[1],), arguments.turns, arguments.budget)
        best = min(peers, key=lambda name: median(taken[name]))
        yield [
            text,
            best,
            *(f"{median(taken[engine]) * 1e3:.1f}" for engine in ours),
            *(ratio(taken[best], taken[engine]) for engine in ours),
        ]


def main() -> None:
    arguments = arguments_of(__doc__, POINTS, "WIDTHxBLOCKSxPOSITIONSxHEADS")
    peers = {"torch autograd": torch_autograd, "torch by hand": torch_by_hand}
    peers = {name: run for name, run in peers.items() if name not in arguments.without}
    heads = [
        "transformer: width x blocks x positions x heads",
        "best of PyTorch",
        "ms a network: dense",
        "matrix-free",
        "times slower than dense",
        "than matrix-free",
    ]
    show("peers with attention", heads, rows(arguments, peers), arguments.write)


if __name__ == "__main__":
    main()
