# SPDX-License-Identifier: BSD-3-Clause
"""Times pykernel and PyTorch on the same convolutional networks, in one run, and prints a table.

The work: one network of fresh He normal float32 weights; forward, then back from a random cotangent; the Frobenius norm
of every weight's gradient. Points are CHANNELSxSIDExBATCHxLAYERS, 3 x 3 convolutions with zero padding and ReLU; and
resnet50xSIDExBATCH, He et al.'s bottlenecks with batch norm.
"""

from __future__ import annotations

import math

from turns import arguments_of, median, ratio, seconds_in_turns, show

POINTS = ("16x32x1x20", "64x16x4x20", "resnet50x64x1")
STAGES = (3, 4, 6, 3)  # of ResNet-50: blocks of 64, 128, 256, 512 channels inside


def numbers_of(point: str) -> tuple:
    """(channels, side, batch, layers); no channels for a ResNet-50."""
    sizes = point.removeprefix("resnet50").split("x")
    return (0, *(int(size) for size in sizes[1:]), 0) if point.startswith("resnet50") else tuple(map(int, sizes))


def bottlenecks():
    """(units in, inside, stride) of every block of ResNet-50."""
    entering = 64
    for stage, count in enumerate(STAGES):
        for place in range(count):
            yield entering, 64 << stage, 2 if stage and not place else 1
            entering = 256 << stage


def plain(weights, x):
    """The chain of equal layers."""
    from torch.nn import functional as F

    for w in weights:
        x = F.relu(F.conv2d(x, w, padding=1))
    return x


def resnet(weights, x):
    """ResNet-50 up to its mean over positions."""
    from torch.nn import functional as F

    drawn = iter(weights)

    def conv(x, stride=1):
        w = next(drawn)
        return F.batch_norm(F.conv2d(x, w, stride=stride, padding=w.shape[-1] // 2), None, None, training=True)

    x = F.max_pool2d(F.relu(conv(x, 2)), 3, 2, 1)
    for entering, inside, stride in bottlenecks():
        branch = conv(F.relu(conv(F.relu(conv(x)), stride)))
        x = F.relu(branch + (conv(x, stride) if stride > 1 or entering != 4 * inside else x))
    return x.mean((2, 3))


def shapes_of(channels, layers):
    """Of all weights, in order of use."""
    if channels:
        return [(channels, channels, 3, 3)] * layers
    shapes = [(64, 3, 7, 7)]
    for entering, inside, stride in bottlenecks():
        shapes += [(inside, entering, 1, 1), (inside, inside, 3, 3), (4 * inside, inside, 1, 1)]
        if stride > 1 or entering != 4 * inside:
            shapes.append((4 * inside, entering, 1, 1))
    return shapes


def torch_autograd(in_channels_last: bool):
    """PyTorch as most people would write it, with either order of memory."""

    def run(channels, side, batch, layers):
        import torch

        memory = torch.channels_last if in_channels_last else torch.contiguous_format
        weights = []
        for shape in shapes_of(channels, layers):
            fan = math.prod(shape[1:]) if channels else shape[0] * shape[2] * shape[3]
            weights.append(torch.empty(shape, memory_format=memory).normal_(std=math.sqrt(2 / fan)).requires_grad_())
        x = torch.randn(batch, channels or 3, side, side).contiguous(memory_format=memory)
        out = (plain if channels else resnet)(weights, x)
        out.backward(
            torch.randn(out.shape).contiguous(memory_format=memory) if out.dim() == 4 else torch.randn_like(out)
        )
        return [w.grad.norm().item() for w in weights]

    return run


def pykernel_dense(channels, side, batch, layers):
    """Ours."""
    import pykernel as pk

    if channels:
        block = pk.Block(pk.Conv(channels, 3), "relu")
        chain = pk.Chain(depth=layers, width=channels, init="he_normal", blocks=[block])
    else:
        chain = pk.blocks.resnet(50, classes=None)
    run = pk.propagate(chain, positions=(side, side), batch=batch, engine="dense", backend="cpp")
    return 10 ** run.log10_grad_weight[0]


def rows(arguments, peers: dict):
    """One list of cells for each point."""
    for text in arguments.points:
        point = numbers_of(text)
        shape = (len(shapes_of(point[0], point[3])),)
        taken = seconds_in_turns({**peers, "pykernel": pykernel_dense}, point, shape, arguments.turns, arguments.budget)
        ours = taken["pykernel"]
        yield [text, f"{median(ours) * 1e3:.1f}", *(ratio(taken[name], ours) for name in peers)]


def main() -> None:
    arguments = arguments_of(__doc__, POINTS, "POINT")
    peers = {"torch": torch_autograd(False), "torch, channels last": torch_autograd(True)}
    peers = {name: run for name, run in peers.items() if name not in arguments.without}
    heads = [
        "convolutions: channels x side x batch x layers",
        "ms a network",
        *(f"times slower: {name}" for name in peers),
    ]
    show("peers with convolutions", heads, rows(arguments, peers), arguments.write)


if __name__ == "__main__":
    main()
