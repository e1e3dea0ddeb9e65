# SPDX-License-Identifier: BSD-3-Clause
"""JAX's own arrays and gradients: what `from_jax` reads and `init_jax` hands over, against jax.grad."""

import jax
import numpy as np
import pytest

import pykernel as pk

jax.config.update("jax_enable_x64", True)
jnp = jax.numpy
FUNCTIONS = {
    "linear": lambda x: x,
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": jax.nn.gelu,
    "silu": jax.nn.silu,
    "selu": jax.nn.selu,
    "elu": jax.nn.elu,
    "softplus": jax.nn.softplus,
    "mish": jax.nn.mish,
    "leaky_relu": jax.nn.leaky_relu,
    "softsign": jax.nn.soft_sign,
    "hardtanh": jax.nn.hard_tanh,
    "erf": jax.scipy.special.erf,
    "arctan": jnp.arctan,
    "sin": jnp.sin,
}


def forward(parameters, x, phi, read_out):
    for i, (w, b) in enumerate(parameters, 1):
        x = x @ w + b
        x = x if read_out and i == len(parameters) else phi(x)
    return x


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("read_out", [True, False])
def test_gradients_of_jax(name, read_out):
    chain = pk.Chain(
        widths=[6, 17, 8], activation=name, init="torch_linear_default", head=pk.Head("linear", 6) if read_out else None
    )
    parameters = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), pk.init_jax(chain, seed=3))
    keys = jax.random.split(jax.random.key(0), 2)
    # as wide as the batch
    x, c = jax.random.normal(keys[0], (6, 6)), jax.random.normal(keys[1], (6, 6 if read_out else 8))
    gradient, at_input = jax.grad(lambda w, x: (forward(w, x, FUNCTIONS[name], read_out) * c).sum(), argnums=(0, 1))(
        parameters, x
    )
    mine = pk.from_jax(parameters, activation=name, loss="linear" if read_out else None)
    p = pk.propagate(mine, x=x, cotangent=c, batch_first=True, dtype="float64")
    assert p.backend == "cpp"
    expected = [float(jnp.linalg.norm(w)) for w, _ in gradient[: mine.depth]]
    np.testing.assert_allclose(10 ** p.log10_grad_weight[0], expected, rtol=1e-11)  # float64, a few layers
    np.testing.assert_allclose(10 ** p.log10_grad_activation[0, 0], float(jnp.linalg.norm(at_input)), rtol=1e-11)


def test_draws_are_a_pytree_with_the_bits_of_the_stream():
    chain = pk.Chain(widths=[5, 8, 6], activation="gelu", head=pk.Head("softmax", 4))
    parameters = pk.init_jax(chain, seed=3, replica=2)
    on_device = jax.device_put(parameters)
    assert [leaf.shape for leaf in jax.tree.leaves(on_device)] == [(5, 8), (8,), (8, 6), (6,), (6, 4), (4,)]
    for l, (w, _) in enumerate(on_device, 1):
        np.testing.assert_array_equal(np.asarray(w).T, pk.weights(chain, layer=l, seed=3, replica=2, dtype="float32"))


def test_dicts_as_libraries_keep_them():
    chain = pk.Chain(widths=[5, 8, 6], activation="relu", head=pk.Head("linear", 4))
    pairs = jax.device_put(pk.init_jax(chain))
    flax = {"params": {f"Dense_{i}": {"kernel": w, "bias": b} for i, (w, b) in enumerate(pairs)}}
    haiku = {f"mlp/~/linear_{i}": {"w": w, "b": b} for i, (w, b) in enumerate(pairs)}
    for parameters in (flax, haiku):
        assert pk.from_jax(parameters).init == pk.from_jax(pairs).init
