# SPDX-License-Identifier: BSD-3-Clause
"""Random convolutional chains against PyTorch's automatic differentiation: shapes, strides, paddings, groups, pools."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import pykernel as pk

EXACT = 1e-9  # decades in float64; sums of up to some thousand terms, a few layers one after another
SEED = 5
ZERO = -300  # decades: a dead network
BACKENDS = ("reference", "cpp", "numba")
FUNCTIONS = {"tanh": torch.tanh, "relu": torch.relu, "gelu": F.gelu, "sigmoid": torch.sigmoid}


def random_conv_chain(seed):
    """A chain over one axis of positions or two, its positions, and its batch."""
    rng = np.random.default_rng(seed)
    pick = lambda *options: options[rng.integers(len(options))]
    axes = int(rng.integers(1, 3))
    positions = tuple(int(n) for n in rng.integers(5, 12, axes))
    units = width = int(rng.integers(1, 7)) * pick(1, 8)
    steps, left = [], positions
    for _ in range(rng.integers(2, 5)):
        groups = pick(1, 1, 2, 3, units)
        groups = groups if units % groups == 0 else 1
        channels = groups * int(rng.integers(1, 5)) * pick(1, 1, 4)
        most = min(left)
        kernel = pick(int(rng.integers(1, min(4, most) + 1)), tuple(int(rng.integers(1, min(5, n) + 1)) for n in left))
        stride = pick(1, 1, 2, tuple(int(s) for s in rng.integers(1, 3, axes)))
        padding = pick("zero", "circular", "valid")
        taps = np.broadcast_to(kernel, axes)
        most = [int(n - 1) // max(int(k) - 1, 1) if k > 1 else 3 for n, k in zip(left, taps, strict=True)]
        apart = pick(1, 1, tuple(int(rng.integers(1, max(min(d, 3), 1) + 1)) for d in most))
        words = {"stride": stride, "padding": padding, "groups": groups, "dilation": apart}
        conv = pk.Conv(channels, kernel, bias_std=pick(None, 0.3), **words)
        left, units = field(conv, left), channels
        steps.append(conv)
        steps += pick([], [], [pk.Norm("batch")]) if math.prod(left) > 3 else []
        steps.append(pick(*FUNCTIONS))
        if rng.random() < 0.4 and min(left) > 2:
            pool = pk.Pool(pick("mean", "max"), 2, stride=pick(None, 1, 2), padding=pick(0, 1))
            left = field(pool, left)
            steps.append(pool)
    steps += pick([], [pk.Pool("mean")], [pk.Pool("max")], [pk.Flatten(), pk.Linear(5)])
    return pk.Chain(width=width, init="torch_conv_default", gain=1.5, blocks=[pk.Block(*steps)]), positions


def field(step, positions):
    return step.window(positions).out[2 - len(positions) :]


def torch_run(chain, positions, x, weights, biases, cotangent):
    """Gradients of x, weights and biases, and the output, by PyTorch; x (B, channels, *positions)."""
    conv = {1: F.conv1d, 2: F.conv2d}[len(positions)]
    means, maxima = ((F.avg_pool1d, F.max_pool1d), (F.avg_pool2d, F.max_pool2d))[len(positions) - 1]
    a, place = x, 0
    for step in chain.blocks[0].steps:
        if isinstance(step, pk.Conv):
            padding = step.window(a.shape[2:]).padding[2 - len(positions) :]
            if step.padding == "circular":
                a = F.pad(a, [p for n in padding[::-1] for p in (n, n)], mode="circular")
            own = padding if step.padding == "zero" else 0
            a = conv(a, weights[place], biases[place], step.stride, own, step.dilation, step.groups)
            place += 1
        elif isinstance(step, pk.Linear):
            a, place = F.linear(a, weights[place], biases[place]), place + 1
        elif isinstance(step, pk.Norm):
            a = F.batch_norm(a, None, None, training=True)
        elif isinstance(step, pk.Flatten):
            a = a.flatten(1)
        elif isinstance(step, pk.Pool) and step.size is None:
            a = a.flatten(2).mean(2) if step.kind == "mean" else a.flatten(2).max(2).values
        elif isinstance(step, pk.Pool):
            pool = means if step.kind == "mean" else maxima
            a = pool(a, step.size, step.stride, step.padding)
        else:
            a = FUNCTIONS[step.name](a)
    ((a if cotangent is None else a * cotangent).sum()).backward()
    return a


def given(chain, positions, batch, seed):
    """Tensors: x, weights, biases and a cotangent."""
    rng = np.random.default_rng(seed)
    tensor = lambda array: torch.tensor(array, dtype=torch.float64, requires_grad=True)
    names = range(1, len(chain.layers) + 1)
    weights = [tensor(pk.weights(chain, layer=l, seed=SEED, positions=positions)) for l in names]
    biases = [tensor(rng.normal(size=len(w))) for w in weights]
    x = tensor(rng.normal(size=(batch, chain.width, *positions)))
    with torch.no_grad():
        shape = torch_run_shape(chain, positions, x, weights, biases)
    return x, weights, biases, torch.tensor(rng.normal(size=shape))


def torch_run_shape(chain, positions, x, weights, biases):
    with torch.enable_grad():
        copies = [[t.detach().requires_grad_() for t in ts] for ts in ([x], weights, biases)]
        return torch_run(chain, positions, copies[0][0], *copies[1:], None).shape


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(24))
def test_gradients_of_every_kernel(seed, backend):
    chain, positions = random_conv_chain(seed)
    batch = 2 + seed % 3
    x, weights, biases, cotangent = given(chain, positions, batch, seed)
    torch_run(chain, positions, x, weights, biases, cotangent)
    plain = lambda tensors: [t.detach().numpy() for t in tensors]
    p = pk.propagate(
        chain,
        positions=positions,
        x=x,
        cotangent=cotangent.numpy(),
        batch_first=True,
        seed=SEED,
        biases=plain(biases),
        weights=plain(weights) if seed % 2 else None,
        dtype="float64",
        engine="dense",
        backend=backend,
    )
    norm = lambda tensors: np.array([math.log10(max(t.grad.norm().item(), 10.0**ZERO)) for t in tensors])
    expected, found = norm(weights), p.log10_grad_weight[0]
    told = expected > max(expected.max() - 11, ZERO)  # elsewhere exact arithmetic has a zero, and both are rounding
    np.testing.assert_allclose(found[told], expected[told], atol=EXACT)
    expected, largest = norm(biases), expected.max()
    told = expected > max(largest - 11, ZERO)
    np.testing.assert_allclose(p.log10_grad_bias[0][told], expected[told], atol=EXACT)
    (expected,) = norm([x])
    assert expected <= ZERO or abs(p.log10_grad_activation[0, 0] - expected) < EXACT


@pytest.mark.parametrize("seed", range(4))
def test_the_gradients_themselves(seed):
    """Entry by entry, so that no tap or group is taken for another."""
    chain, positions = random_conv_chain(seed)
    x, weights, biases, cotangent = given(chain, positions, 2, seed)
    torch_run(chain, positions, x, weights, biases, cotangent)
    found = pk.gradients(
        chain,
        positions=positions,
        x=x,
        cotangent=cotangent.numpy(),
        batch_first=True,
        biases=[b.detach().numpy() for b in biases],
        seed=SEED,
    )
    for mine, theirs in zip(found, weights, strict=True):
        assert mine.shape == tuple(theirs.shape)
        np.testing.assert_allclose(mine, theirs.grad, rtol=1e-9, atol=1e-11 * float(theirs.grad.abs().max()))
