# SPDX-License-Identifier: BSD-3-Clause
"""The tangent kernel: from the gradients of single inputs, in every backend, and against infinite and finite width."""

import numpy as np
import pytest
from two_samples import smallest_p

import pykernel as pk
from pykernel import stream
from pykernel.lower import lower
from pykernel.program import BIASES

BLOCKS = (
    pk.Block(pk.Norm("layer"), pk.Attention(2, causal=True), skip=1.0),
    pk.Block(pk.Norm("rms"), pk.Gated(6), pk.Linear(8, bias_std=0.3), skip=1.0),
)
CHAINS = {
    "biases": (pk.Chain(widths=[5, 9, 7], activation="tanh", init="lecun_normal", bias_std=0.4), {}),
    "relu": (pk.Chain(depth=4, width=8, norm="layer", residual=pk.Residual(2)), {}),
    "orthogonal": (pk.Chain(depth=3, width=8, activation="gelu", init="orthogonal"), {}),
    "blocks": (pk.Chain(width=8, depth=2, blocks=BLOCKS), {"positions": 3}),
    "convolution": (
        pk.Chain(width=2, blocks=[pk.Conv(4, kernel=3, bias_std=0.2), "tanh", pk.Conv(3)]),
        {"positions": 5},
    ),
    "magnitudes": (
        pk.Chain(depth=8, width=8, activation="linear", gain=[2.0**70] * 4 + [2.0**-70] * 4, bias_std=0.3),
        {},
    ),
    "tied": (pk.Chain(depth=4, width=7, activation="tanh", tied=True, bias_std=0.2), {}),
}


def kernel_of_gradients(chain, replica, batch, **words):
    """Every input by itself, its gradients as matrices: what the definition says."""
    program = lower(chain, batch=batch, dtype="float64", **words)
    n, each = int(program.nodes[-1]), program.columns // batch
    c = stream.tall(0, stream.COTANGENT, program.depth, replica, n).astype(np.float64) / n**0.5
    has = program.layers.bias_draw != BIASES.index("zero")
    found = []
    for b in range(batch):
        cotangent = np.zeros((n, batch, each))
        cotangent[:, b] = c[:, :1]
        shape = (n, batch, *program.positions)
        p = pk.propagate(
            chain,
            cotangent=cotangent.reshape(shape),
            replicas=replica + 1,
            engine="dense",
            dtype="float64",
            keep=("grad_weight", "grad_bias"),
            **words,
        )
        kept, sums = p.kept[replica], {}
        for l, address in enumerate(program.layers.address.tolist(), 1):
            sums["w", address] = sums.get(("w", address), 0.0) + kept["grad_weight"][l]
            if has[l - 1]:
                sums["b", address] = sums.get(("b", address), 0.0) + kept["grad_bias"][l]
        found.append(np.concatenate([part.ravel() for part in sums.values()]))
    return np.stack(found) @ np.stack(found).T


@pytest.mark.parametrize("name", CHAINS)
def test_it_is_what_the_gradients_of_single_inputs_say(name):
    """Gram matrices against products of whole gradients, float64 to rounding. Catches a missing bias, positions that
    are not summed, uses of a tied weight that do not meet."""
    chain, words = CHAINS[name]
    p = pk.propagate(
        chain, batch=3, cotangent="common", replicas=2, engine="dense", backend="reference", dtype="float64", **words
    )
    expected = kernel_of_gradients(chain, 1, 3, **words)
    np.testing.assert_allclose(p.tangent_kernel[1], expected, rtol=1e-10, atol=1e-10 * expected.max())
    np.testing.assert_allclose(p.tangent_eigenvalues[1], np.linalg.eigvalsh(expected), rtol=1e-8)
    assert p.tangent_rate_bound[1] == pytest.approx(2 / np.linalg.eigvalsh(expected)[-1])


@pytest.mark.parametrize("engine", ["dense", "matrix_free"])
@pytest.mark.parametrize("name", [name for name in CHAINS if name not in ("tied", "convolution")])
def test_backends_agree(name, engine):
    """The rows too: C++ draws the same one vector for all columns. Float32 to a thousand roundings."""
    chain, words = CHAINS[name]
    run = lambda backend, dtype: pk.propagate(
        chain, batch=4, cotangent="common", replicas=3, engine=engine, backend=backend, dtype=dtype, **words
    )
    p, q, single = run("cpp", "float64"), run("reference", "float64"), run("cpp", "float32")
    scale = np.abs(q.tangent_kernel).max()
    np.testing.assert_allclose(p.tangent_kernel, q.tangent_kernel, atol=1e-8 * scale)
    np.testing.assert_allclose(single.tangent_kernel, q.tangent_kernel, atol=2e-3 * scale)
    np.testing.assert_allclose(p.log10_grad_activation, q.log10_grad_activation, atol=1e-7)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("backend", ["cpp", "reference"])
def test_at_any_magnitude(backend):
    """Far from 1: exact products, without warnings. Catches a factor 2**e made before the product,
    and layers without a gradient that push out those with one."""
    run = lambda chain, **words: pk.propagate(
        chain, batch=2, cotangent="common", engine="dense", backend=backend, dtype="float64", **words
    ).tangent_kernel[0]
    linear = pk.Chain(widths=[3, 3, 3], activation="linear")
    x, ones = np.arange(6.0).reshape(3, 2) + 1, np.ones((3, 3))
    base = run(linear, x=x, weights=[ones, ones])
    far = run(linear, x=x * 1e-150, weights=[1e150 * ones, 1e150 * ones])  # mantissas small, exponents large
    np.testing.assert_allclose(far, base, rtol=1e-12)
    assert np.all(np.abs(run(linear.replace(gain=1e200), x=x)) > 1e300)
    flat = pk.Chain(width=3, blocks=[pk.Linear(3), pk.Linear(3), "hardtanh"])  # saturated: no layer has a gradient
    assert np.all(run(flat, x=x, weights=[1e200 * ones, 1e200 * ones]) == 0)
    ends = pk.Chain(width=3, blocks=[pk.Linear(3), "hardtanh", pk.Linear(3)])
    np.testing.assert_allclose(run(ends, x=x * 1e250, weights=[ones, ones]), run(ends, x=x, weights=[ones, ones]))


def test_matrix_free_has_the_law_of_dense():
    """Entries, eigenvalues and the rate bound of width-seven networks."""
    chain = pk.Chain(depth=3, width=7, activation="tanh", init="lecun_normal", gain=1.5)
    found = []
    for engine, seed in (("dense", 1), ("matrix_free", 2)):
        p = pk.propagate(chain, batch=3, cotangent="common", replicas=4000, engine=engine, seed=seed)
        found.append(
            np.hstack([p.tangent_kernel.reshape(4000, 9), p.tangent_eigenvalues, p.tangent_rate_bound[:, None]])
        )
    assert smallest_p(*(columns.T for columns in found)) > 0.01


def test_threads_and_depth_change_nothing():
    """Checkpoints and teams; the kernel of a deep chain is summed over the same layers."""
    chain = pk.Chain(depth=300, width=40)
    kernels = [
        pk.propagate(chain, batch=3, cotangent="common", replicas=2, threads=t, engine="dense").tangent_kernel
        for t in (1, 3)
    ]
    np.testing.assert_array_equal(*kernels)


NORMED = pk.Block(pk.Norm("layer"), pk.Linear(800), "gelu", pk.Linear(400), skip=1.0)


@pytest.mark.parametrize(
    ("chain", "correlation"),
    [
        (pk.Chain(depth=6, width=400, activation="tanh", init="lecun_normal", gain=1.3, bias_std=0.2), 0.3),
        (pk.Chain(depth=10, width=400), 0.0),
        (pk.Chain(depth=6, width=400, norm="layer", residual=pk.Residual(2)), 0.5),
        (pk.Chain(width=400, depth=3, blocks=[NORMED]), 0.2),
    ],
)
def test_infinite_width(chain, correlation):
    """Means over 2000 networks of 400 units: 3 percent of both numbers. Ten ReLU layers spread most, by .33 of the mean
    a network (the second moment, E K^2 / (E K)^2, is 1.11), so the standard error is .007; corrections are 1/n."""
    p = pk.propagate(chain, batch=3, cotangent="common", replicas=2000, correlation=correlation)
    measured, theory = p.tangent_kernel.mean(axis=0), pk.predict(chain, 3, correlation=correlation).tangent_kernel
    np.testing.assert_allclose(measured, theory, rtol=0.03)


@pytest.mark.parametrize(("width", "depth", "expected"), [(50, 5, 1.420), (50, 10, 2.075), (100, 10, 1.433)])
def test_the_second_moment_of_a_relu_kernel(width, depth, expected):
    """Truth table 7: all weights and the read-out's, each in units of its own mean: mean over l, m of exp((5 L - 4
    |l - m|) / n). An input of fixed length; 20 000 networks, errors of .02 to .06, the first order's of (L/n)^2."""
    l = np.arange(depth + 1)
    formula = np.exp((5 * depth - 4 * np.abs(l[:, None] - l)) / width).mean()
    assert formula == pytest.approx(expected, abs=6e-4)
    chain = pk.Chain(depth=depth, width=width)
    p = pk.propagate(chain, x=np.ones((width, 1)), cotangent="common", replicas=20_000, engine="matrix_free")
    k = 2 * p.tangent_kernel[:, 0, 0] / width + 10 ** p.log10_mean_square_activation[:, -1]
    assert (k**2).mean() / k.mean() ** 2 == pytest.approx(formula, rel=0.08)


@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_the_second_moment_of_our_kernel(activation):
    """The L layers only, inputs drawn: 20 000 networks, an error of .02."""
    init = "he_normal" if activation == "relu" else "lecun_normal"
    chain = pk.Chain(depth=8, width=100, activation=activation, init=init)
    k = pk.propagate(chain, cotangent="common", replicas=20_000, engine="matrix_free").tangent_kernel[:, 0, 0]
    expected = pk.predict(chain).tangent_second_moment
    assert (k**2).mean() / k.mean() ** 2 == pytest.approx(expected, rel=0.05)
    assert np.isnan(pk.predict(chain.replace(activation="tanh")).tangent_second_moment)


def test_xarray_has_it():
    p = pk.propagate(pk.Chain(depth=2, width=6), batch=3, cotangent="common", replicas=2)
    assert p.to_xarray().tangent_kernel.dims == ("replica", "input", "other_input")
    assert p.given == () and (p.tangent_condition >= 1).all()
    plain = pk.propagate(pk.Chain(depth=2, width=6), batch=3)
    assert plain.tangent_kernel is None and "tangent_kernel" not in plain.to_xarray()
    with pytest.raises(ValueError, match='cotangent="common"'):
        _ = plain.tangent_eigenvalues


PLAIN = pk.Chain(depth=2, width=6)


@pytest.mark.parametrize(
    ("chain", "words", "said"),
    [
        (PLAIN, dict(cotangent="comon"), "cotangent must be"),
        (PLAIN.replace(head=pk.Head("mse", 1)), {}, "leave the head out"),
        (PLAIN.replace(norm="batch"), dict(batch=4), "batch norm mixes"),
        (PLAIN, dict(formats=pk.Formats(signals="bfloat16")), "without formats"),
        (PLAIN, dict(backend="numba", engine="dense"), 'backend="cpp" and backend="reference" do'),
        (PLAIN.replace(tied=True), dict(backend="cpp", engine="dense"), 'backend="reference" can'),
    ],
)
def test_bad_input(chain, words, said):
    with pytest.raises(ValueError, match=said):
        pk.propagate(chain, **{"cotangent": "common", **words})
