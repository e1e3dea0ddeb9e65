# SPDX-License-Identifier: BSD-3-Clause
"""Deep random chains in other tools.

The work, for all: R independent ReLU chains of L layers of n units with B inputs, fresh float32 weights of variance
2 / n, normal ("he_normal") or uniform ("he_uniform"); forward, then back from a random cotangent; the Frobenius norm of
dJ/dW at every layer, an array (R, L). Signature: run(n, L, B, R, init). None is written to lose.
"""

from __future__ import annotations

import functools
import math
import time

import numpy as np
from turns import cores, elsewhere


def bound(n: int) -> float:
    """Uniform weights of variance 2 / n lie between -bound and bound."""
    return math.sqrt(6 / n)


def chain_in_numpy(n, L, B, R, normals, weights):
    """The chain on NumPy arrays; normals(*shape) draws float32, weights(n) a matrix."""
    norms = np.empty((R, L))
    for r in range(R):
        W = [weights(n) for _ in range(L)]
        a = [normals(n, B)]
        for weight in W:
            a.append(np.maximum(weight @ a[-1], 0))
        da = normals(n, B)
        for layer in reversed(range(L)):
            delta = np.where(a[layer + 1] > 0, da, np.float32(0))
            norms[r, layer] = math.sqrt(np.vdot(delta.T @ delta, a[layer].T @ a[layer]))
            da = W[layer].T @ delta
    return norms


def numpy_alone(n, L, B, R, init):
    """NumPy's fastest generator and its BLAS."""
    generator = np.random.Generator(np.random.SFC64(1))
    normals = functools.partial(_float32_normals, generator)

    def weights(n):
        if init == "he_normal":
            return normals(n, n) * np.float32(math.sqrt(2 / n))
        drawn = generator.random((n, n), dtype=np.float32)
        drawn -= np.float32(0.5)
        drawn *= np.float32(2 * bound(n))
        return drawn

    return chain_in_numpy(n, L, B, R, normals, weights)


def _float32_normals(generator, *shape):
    return generator.standard_normal(shape, dtype=np.float32)


def numpy_with_mkl(n, L, B, R, init):
    """NumPy's BLAS with the vectorised generator of Intel MKL, which draws float64."""
    import mkl_random

    state = mkl_random.MKLRandomState(1, brng="SFMT19937")

    def normals(*shape):
        return state.standard_normal(shape, method="ICDF").astype(np.float32)

    def weights(n):
        if init == "he_normal":
            return normals(n, n) * np.float32(math.sqrt(2 / n))
        return state.uniform(-bound(n), bound(n), (n, n)).astype(np.float32)

    return chain_in_numpy(n, L, B, R, normals, weights)


@functools.cache
def _processes():
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    return ProcessPoolExecutor(cores(), mp_context=get_context("spawn"), initializer=_one_thread)


@functools.cache
def _one_thread():
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)


def _share(n, L, B, R, init):
    start = time.process_time()
    return numpy_with_mkl(n, L, B, R, init), time.process_time() - start


def numpy_with_mkl_and_processes(n, L, B, R, init):
    """The same with one single-threaded process for each core: the most that we know how to compose."""
    shares = [len(range(core, R, cores())) for core in range(cores())]
    jobs = [_processes().submit(_share, n, L, B, share, init) for share in shares if share]
    results = [job.result() for job in jobs]
    elsewhere[0] += sum(seconds for _, seconds in results)
    return np.concatenate([norms for norms, _ in results])


def _torch_weights(*shape, init):
    import torch

    n = shape[-1]
    if init == "he_normal":
        return torch.empty(*shape).normal_(std=math.sqrt(2 / n))
    return torch.empty(*shape).uniform_(-bound(n), bound(n))


def torch_autograd(n, L, B, R, init):
    """PyTorch as most people would write it."""
    import torch

    norms = np.empty((R, L))
    for r in range(R):
        W = [_torch_weights(n, n, init=init).requires_grad_() for _ in range(L)]
        a = torch.randn(n, B)
        for weight in W:
            a = torch.relu(weight @ a)
        a.backward(torch.randn(n, B))
        norms[r] = [weight.grad.norm().item() for weight in W]
    return norms


def torch_batched(n, L, B, R, init):
    """PyTorch with batched products over replicas and the backward pass by hand."""
    import torch

    norms = np.empty((R, L))
    at_once = max(1, int(1.5e9 / (4 * n * n * L)))
    with torch.inference_mode():
        for first in range(0, R, at_once):
            count = min(at_once, R - first)
            W = [_torch_weights(count, n, n, init=init) for _ in range(L)]
            a = [torch.randn(count, n, B)]
            for weight in W:
                a.append(torch.bmm(weight, a[-1]).relu_())
            da = torch.randn(count, n, B)
            for layer in reversed(range(L)):
                delta = da * (a[layer + 1] > 0)
                products = torch.bmm(delta.mT, delta) * torch.bmm(a[layer].mT, a[layer])
                norms[first : first + count, layer] = products.sum((1, 2)).sqrt().numpy()
                da = torch.bmm(W[layer].mT, delta)
    return norms


@functools.cache
def _compiled_jax_chain(n, L, B, init):
    import jax
    import jax.numpy as jnp

    def chain(key):
        for_weights, for_input, for_cotangent = jax.random.split(key, 3)
        if init == "he_normal":
            W = math.sqrt(2 / n) * jax.random.normal(for_weights, (L, n, n))
        else:
            W = jax.random.uniform(for_weights, (L, n, n), minval=-bound(n), maxval=bound(n))

        def forward(a, weight):
            after = jax.nn.relu(weight @ a)
            return after, (a, after)

        _, (before, after) = jax.lax.scan(forward, jax.random.normal(for_input, (n, B)), W)

        def backward(da, layer):
            weight, a, output = layer
            delta = jnp.where(output > 0, da, 0)
            return weight.T @ delta, jnp.sqrt(jnp.vdot(delta.T @ delta, a.T @ a))

        return jax.lax.scan(backward, jax.random.normal(for_cotangent, (n, B)), (W, before, after), reverse=True)[1]

    return jax.jit(chain)


def jax_scan(n, L, B, R, init):
    """JAX, compiled, a scan over layers in both directions."""
    import jax

    run = _compiled_jax_chain(n, L, B, init)
    return np.stack([np.asarray(norms) for norms in [run(key) for key in jax.random.split(jax.random.key(1), R)]])


def pykernel_with(engine, backend):
    """Ours."""
    import pykernel as pk

    def run(n, L, B, R, init):
        chain = pk.Chain(depth=L, width=n, activation="relu", init=init)
        return 10 ** pk.propagate(chain, batch=B, replicas=R, seed=1, engine=engine, backend=backend).log10_grad_weight

    return run


FRAMEWORKS = {
    "numpy": numpy_alone,
    "torch autograd": torch_autograd,
    "torch batched": torch_batched,
    "jax scan": jax_scan,
}
COMPOSED = {"numpy + mkl": numpy_with_mkl, "numpy + mkl, processes": numpy_with_mkl_and_processes}
