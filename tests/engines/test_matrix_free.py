# SPDX-License-Identifier: BSD-3-Clause
"""The matrix-free engine: the law of dense chains, exact closed forms, and numbers that stay sound where columns
collapse."""

import importlib
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from scipy.special import digamma, polygamma
from two_samples import smallest_p

import pykernel as pk
from pykernel import engines, observables, oracle, stream
from pykernel.engines import reference, reference_matrix_free
from pykernel.lower import lower

REPLICAS = 10_000
WIDTHS = [5, 8, 6, 9, 7]
# What is compared between the two laws: rows at every layer, joint quantities over layers among them.
ROWS = ("log10_grad_weight", "log10_grad_bias", "log10_mean_square_activation", "log10_weight_factor")
CHAINS = {
    **{
        f"{name} {norm}": pk.Chain(widths=WIDTHS, activation=name, norm=norm, init=init)
        for name, init in (("tanh", "lecun_normal"), ("relu", "he_normal"), ("gelu", "he_normal"))
        for norm in (None, "batch", "layer", "rms")
    },
    "residual": pk.Chain(
        depth=4, width=6, activation="relu", residual=pk.Residual(2, 0.7), order="norm-activation-linear", norm="rms"
    ),
    "residual tanh": pk.Chain(depth=4, width=6, activation="tanh", residual=pk.Residual(1, 0.7), bias_std=0.3),
    "head": pk.Chain(widths=WIDTHS, activation="tanh", head=pk.Head("softmax", 3), bias_std=0.3, init="lecun_normal"),
    "orthogonal": pk.Chain(widths=WIDTHS, activation="tanh", init="orthogonal", gain=1.5),
    "orthogonal relu": pk.Chain(depth=4, width=7, activation="relu", init="orthogonal", gain=2**0.5),
    "orthogonal norm": pk.Chain(widths=WIDTHS, activation="gelu", init="orthogonal", norm="layer"),
    # The batch fills the input space: nothing of the weight is left to the backward pass.
    "batch as wide": pk.Chain(widths=[3, 3, 2, 5, 3], activation="tanh", init="lecun_normal"),
    "orthogonal batch as wide": pk.Chain(widths=[3, 3, 2, 5, 3], activation="tanh", init="orthogonal"),
}


def run(chain, engine, replicas, seed=0, backend="cpp", **arguments):
    return pk.propagate(chain, engine=engine, backend=backend, replicas=replicas, seed=seed, **arguments)


def statistics(p):
    # constants but for rounding: bias gradients under batch norm are zero, factors of orthogonal weights one
    constant = (
        {"batch": "log10_grad_bias"}.get(p.chain.norm),
        "log10_weight_factor" if p.chain.init.distribution == "haar" else None,
    )
    rows = [row for row in ROWS if row not in constant]
    columns = {f"{row} {l}": getattr(p, row)[:, l] for row in rows for l in range(p.log10_grad_weight.shape[1])}
    columns["end to end"] = p.end_to_end
    columns["signal end to end"] = p.signal_end_to_end
    # jointly over layers, and of the forward with the backward pass
    with np.errstate(invalid="ignore"):  # dead chains
        columns["forward and backward"] = p.log10_mean_square_activation[:, -1] - p.log10_grad_activation[:, 0]
    return columns


@pytest.mark.parametrize("name", CHAINS)
def test_law_is_that_of_dense_weights(name):
    """Two-sample Kolmogorov-Smirnov tests, every layer, batches of 3. Catches: wrong conditioning, lost dependence,
    wrong rank or scale."""
    dense = statistics(run(CHAINS[name], "dense", REPLICAS, seed=1, batch=3))
    free = statistics(run(CHAINS[name], "matrix_free", REPLICAS, seed=2, batch=3))
    # .01 over the whole family of tests: CHAINS times columns
    assert smallest_p(dense.values(), free.values()) * len(CHAINS) > 0.01


@pytest.mark.parametrize("name", ["tanh None", "relu None", "gelu None", "residual tanh"])
def test_law_of_a_single_input(name):
    """Batches of one take a shorter road in C++: sums over units only."""
    dense = statistics(run(CHAINS[name], "dense", REPLICAS, seed=3))
    free = statistics(run(CHAINS[name], "matrix_free", REPLICAS, seed=4))
    assert smallest_p(dense.values(), free.values()) * 4 > 0.01


class Forgetful(reference_matrix_free.Conditioned):
    """The tempting shortcut: backward weights drawn independently of what the forward pass has seen."""

    def backward(self, layer, delta):
        rows, columns = int(self.program.layers.units[layer - 1]), int(self.program.layers.columns[layer - 1])
        return stream.matrix(self.program.seed + 1, layer, self.replica, rows, columns).T @ delta


def test_independent_backward_weights_have_another_law(monkeypatch):
    """The tests above would notice: at a twentieth of the replicas the shortcut is off beyond doubt where the right
    operator passes."""
    rng = np.random.default_rng(7)  # the stream's definition is slow, and the law is all that matters here
    monkeypatch.setattr(
        stream,
        "tall",
        lambda seed, purpose, layer, replica, units, columns=1, distribution="normal", first=0: rng.normal(
            size=(units, columns)
        ),
    )
    numbers = lambda seed, layer, replica, rows, columns, *rest: np.random.default_rng([seed, layer, replica]).normal(
        size=(rows, columns)
    )
    monkeypatch.setattr(stream, "matrix", numbers)
    plan = lower(pk.Chain(depth=4, width=8, activation="tanh", init="lecun_normal", gain=1.6), batch=3, dtype="float64")

    def statistic(operator):  # <a, dJ/da> of every layer: sees how the backward pass leans on the forward one
        kept = reference.run_operators(plan, 0, 400, operator, keep=("activation", "grad_activation"))["keep"]
        return [np.array([(k["activation"][l] * k["grad_activation"][l]).sum() for k in kept]) for l in range(4)]

    dense, wrong, right = (statistic(o) for o in (reference.Dense, Forgetful, reference_matrix_free.Conditioned))
    assert smallest_p(dense, wrong) < 1e-4
    assert smallest_p(dense, right) > 0.01


def test_backward_is_the_adjoint_of_what_forward_has_shown():
    """<W u, delta> = <u, W^T delta> holds for every draw, to rounding (n eps): the part of W that both passes see is
    one."""
    for init in ("he_normal", "orthogonal"):
        plan = lower(pk.Chain(widths=[7, 11, 4], init=init), batch=3, seed=5, dtype="float64")
        operator = reference_matrix_free.Conditioned(plan, 0)
        rng = np.random.default_rng(0)
        for layer, (n, m) in ((1, (7, 11)), (2, (11, 4))):
            u, delta = rng.normal(size=(n, 3)), rng.normal(size=(m, 3))
            z = operator.forward(layer, u)
            np.testing.assert_allclose(u.T @ operator.backward(layer, delta), z.T @ delta, atol=1e-12)


@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (9, 4), (4, 9)])
def test_orthogonal_layers_are_isometries_where_dense_ones_are(rows, columns):
    """W^T W = I (rows >= columns) or W W^T = I: lengths and angles survive forward or backward, exactly."""
    plan = lower(pk.Chain(widths=[columns, rows], init="orthogonal"), batch=3, seed=1, dtype="float64")
    operator = reference_matrix_free.Conditioned(plan, 0)
    rng = np.random.default_rng(0)
    u, delta = rng.normal(size=(columns, 3)), rng.normal(size=(rows, 3))
    z = operator.forward(1, u)
    back = operator.backward(1, delta)
    if rows >= columns:
        np.testing.assert_allclose(z.T @ z, u.T @ u, atol=1e-12)
    if rows <= columns:
        np.testing.assert_allclose(back.T @ back, delta.T @ delta, atol=1e-12)


# -- the compiled backends against the definition


COMPARED = [row.name for row in observables.ROWS]


def close(chain, p, q, tolerance):
    for row in COMPARED:
        if row == "log10_grad_bias" and chain.norm == "batch":
            continue  # exactly zero, so that only rounding is left of it
        a, b = getattr(p, row), getattr(q, row)
        if chain.norm and row.startswith("log10"):
            # a norm that leaves one live unit makes exact zeros, of which rounding is left
            a, b = np.maximum(a, -9), np.maximum(b, -9)
        np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance, err_msg=row)


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("name", CHAINS)
def test_the_compiled_backend_agrees_with_the_definition(name, batch):
    """The same draws through the same factors: float64 to rounding amplified over four layers and by thin
    directions."""
    chain = CHAINS[name]
    p, q = (
        run(chain, "matrix_free", 4, backend=backend, batch=batch, dtype="float64") for backend in ("cpp", "reference")
    )
    close(chain, p, q, 1e-7)


@pytest.mark.parametrize("init", ["he_normal", "orthogonal"])
def test_the_compiled_backend_agrees_in_float32_and_over_several_chunks(init):
    """Float32 rounding of a few eps a layer in norms of thousands of terms; widths that are no multiple of anything."""
    chain = pk.Chain(widths=[1100, 2100, 37, 1500], activation="tanh", init=init, norm="rms")
    p, q = (run(chain, "matrix_free", 2, backend=backend, batch=6) for backend in ("cpp", "reference"))
    close(chain, p, q, 2e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_batch_as_wide_as_the_layer_keeps_its_digits(dtype):
    """The frame of a square Gaussian matrix divides by its smallest singular value: in float32 sums this lost four
    digits."""
    chain = pk.Chain(depth=8, width=32, activation="tanh", init="orthogonal")
    p, q = (run(chain, "matrix_free", 20, backend=backend, batch=32, dtype=dtype) for backend in ("cpp", "reference"))
    # Gram matrices square the condition: eps times 10^8 is seen now and then
    tolerance = 2e-5 if dtype == "float32" else 1e-6
    close(chain, p, q, tolerance)


MANY = [(33, "tanh"), (64, "relu"), (150, "relu"), (201, "tanh")]  # ends of tiles, of strips and of blocks of rows


@pytest.mark.parametrize("init", ["he_normal", "orthogonal"])
@pytest.mark.parametrize(("columns", "activation"), MANY)
def test_many_columns_agree_with_the_definition(columns, activation, init):
    """Blocks of rows in the factors, strips of columns, several chunks of units; wide, narrow and narrower than the
    columns. Float64 to rounding times the condition of frames nearly as wide as they are long; float32 to a few eps in
    norms of thousands of terms."""
    for widths in ([700, 330, 1100], [columns, columns - 20, columns + 30, 5]):
        chain = pk.Chain(widths=widths, activation=activation, init=init)
        p, q, single = (
            run(chain, "matrix_free", 1, backend=backend, batch=columns, dtype=dtype)
            for backend, dtype in (("cpp", "float64"), ("reference", "float64"), ("cpp", "float32"))
        )
        close(chain, p, q, 1e-6)
        close(chain, single, q, 1e-4)


BITS = """
import pykernel as pk
for init in ("he_normal", "orthogonal"):
    for columns, dtype in ((32, "float32"), (77, "float32"), (130, "float32"), (45, "float64")):
        chain = pk.Chain(widths=[300, 700, columns - 3], activation="tanh", init=init)
        for threads in (1, 3):
            p = pk.propagate(chain, batch=columns, seed=1, dtype=dtype, engine="matrix_free", threads=threads)
            print(columns, [x.hex() for row in (p.log10_grad_weight, p.log10_grad_activation) for x in row[0]])
"""


def test_many_columns_have_the_same_bits_on_every_instruction_set_and_for_any_threads():
    """Tiles have the shape of the registers, and strips of columns are shared out: sums are in the order of units."""
    answers = set()
    for isa in ("avx512", "avx2", "baseline"):
        done = subprocess.run(
            [sys.executable, "-c", BITS], env={**os.environ, "PYKERNEL_ISA": isa}, capture_output=True, text=True
        )
        if "must be one of" in done.stderr:
            continue
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[::2] == lines[1::2]
        answers.add(done.stdout)
    assert len(answers) == 1


def test_many_columns_of_low_rank_and_very_different_length():
    """Directions found in an order that is not the columns', lost ones among them, beyond one block of rows: 140
    columns in 90 dimensions, the first of them nearly parallel, some repeated, some zero."""
    rng = np.random.default_rng(5)
    base = rng.normal(size=(400, 90))
    x = base @ rng.normal(size=(90, 140))
    x[:, 1:12] = x[:, :1] + 0.02 * x[:, 1:12]
    x[:, 50:60], x[:, 70] = x[:, 20:30], 0
    x *= 2.0 ** rng.integers(-8, 8, size=140)
    for init in ("he_normal", "orthogonal"):
        chain = pk.Chain(widths=[400, 300, 500], activation="relu", init=init)
        p, q = (run(chain, "matrix_free", 1, backend=b, x=x, dtype="float64") for b in ("cpp", "reference"))
        close(chain, p, q, 1e-6)


def test_layers_that_read_one_input_share_its_factor_and_nothing_else():
    """A gate's two layers have the law of independent weights: against dense ones, and against the definition."""
    gate = pk.Block(pk.Norm("rms"), pk.Gated(9, "silu"), pk.Linear(6), skip=1.0)
    chain = pk.Chain(depth=2, width=6, blocks=[gate], init="lecun_normal")
    p, q = (run(chain, "matrix_free", 3, backend=b, batch=4, dtype="float64") for b in ("cpp", "reference"))
    close(chain, p, q, 1e-9)
    dense, free = (run(chain, engine, 4000, seed=seed, batch=3) for engine, seed in (("dense", 1), ("matrix_free", 2)))
    rows = [(p.log10_grad_weight[:, l], q.log10_grad_weight[:, l]) for p, q in [(dense, free)] for l in range(6)]
    assert smallest_p(*zip(*rows, strict=True)) > 0.01


@pytest.mark.parametrize("activation", ["linear", "relu", "sigmoid", "tanh", "softplus", "selu"])
@pytest.mark.parametrize("order", ["linear-norm-activation", "norm-activation-linear"])
def test_single_input_agrees_with_the_definition(activation, order):
    """Float64, wide enough for several chunks; gains that leave the range of floats; every row."""
    for gain in (1.0, 1e-9, 1e5) if activation in ("linear", "relu") else (1.0,):
        chain = pk.Chain(
            widths=[3, 70, 1, 1100, 5],
            activation=activation,
            order=order,
            gain=gain,
            bias_std=0.2 if gain == 1 else 0.0,
        )
        p, q = (run(chain, "matrix_free", 3, backend=backend, dtype="float64") for backend in ("cpp", "reference"))
        close(chain, p, q, 1e-9)
        # units of the narrow layer may cancel to a few hundred eps
        close(chain, run(chain, "matrix_free", 3, dtype="float32"), q, 2e-4)


@pytest.mark.parametrize(("batch", "width"), [(1, 2100), (3, 2100), (40, 600), (140, 300)])
@pytest.mark.parametrize("init", ["he_normal", "orthogonal"])
def test_bits_do_not_depend_on_threads_or_replicas(batch, width, init):
    """Also not on whether replicas run side by side, or one network is cut among the team."""
    chain = pk.Chain(depth=3, width=width, activation="tanh", init=init)
    one = run(chain, "matrix_free", 3, batch=batch, threads=1)
    for threads in (2, 3, 5):
        other = run(chain, "matrix_free", 3, batch=batch, threads=threads)
        np.testing.assert_array_equal(one.log10_grad_weight, other.log10_grad_weight)
    first = run(chain, "matrix_free", 1, batch=batch, threads=2)
    np.testing.assert_array_equal(one.log10_grad_weight[:1], first.log10_grad_weight)


# -- exact laws


def within_errors(samples, mean, variance, errors=4):
    """Mean and variance within so many standard errors (that of the variance by the sample's fourth moment)."""
    n = samples.size
    assert abs(samples.mean() - mean) < errors * np.sqrt(variance / n)
    spread = ((samples - samples.mean()) ** 2).std() / np.sqrt(n)
    assert abs(samples.var() - variance) < errors * spread


def log_factors(chain, batch=1, replicas=20_000):
    """Natural log of the squared-norm factor of each layer, forward and backward."""
    p = run(chain, "matrix_free", replicas, seed=11, batch=batch)
    back = np.diff(p.log10_grad_activation[:, ::-1]) * 2 * np.log(10)
    forward = np.diff(p.log10_mean_square_activation, axis=1) * np.log(10)
    return forward, back


@pytest.mark.parametrize("n", [4, 50])
def test_gaussian_linear_factor_is_chi_square(n):
    """Each layer's factor is chi^2_n / n, independently (Gaussian linear chain, sigma_w = 1)."""
    forward, back = log_factors(pk.Chain(depth=3, width=n, activation="linear", init="lecun_normal"))
    for layer in (*forward.T, *back.T):
        within_errors(layer, digamma(n / 2) - np.log(n / 2), polygamma(1, n / 2))


def beta_of_binomial(n, log_moments):
    """Mean and variance over K ~ Binomial(n, 1/2), K > 0, of a log with the given conditional mean and variance."""
    from scipy.stats import binom

    k = np.arange(1, n + 1)
    weight = binom.pmf(k, n, 0.5) / (1 - 0.5**n)
    mean, variance = log_moments(k)
    total = (weight * mean).sum()
    return total, (weight * (variance + mean**2)).sum() - total**2


@pytest.mark.parametrize("init", ["he_normal", "orthogonal"])
def test_he_relu_factor_has_its_exact_law(init):
    """Gaussian: (2/n) chi^2_K; Haar: 2 Beta(K/2, (n-K)/2), K ~ Binomial(n, 1/2), which is conditioned on K > 0 only
    rarely at n = 30."""
    n = 30
    if init == "he_normal":
        moments = beta_of_binomial(n, lambda k: (np.log(2 / n) + digamma(k / 2) + np.log(2), polygamma(1, k / 2)))
        chain = pk.Chain(depth=3, width=n, activation="relu", init=init)
    else:
        moments = beta_of_binomial(
            n, lambda k: (np.log(2) + digamma(k / 2) - digamma(n / 2), polygamma(1, k / 2) - polygamma(1, n / 2))
        )
        chain = pk.Chain(depth=3, width=n, activation="relu", init=init, gain=2**0.5)
    forward, back = log_factors(chain)
    # of what goes back, the factor of layer l is that of phi' at l and W[l]; together it has the law of the forward one
    for layer in (*forward.T, *back.T):
        within_errors(layer, *moments)


def test_orthogonal_linear_keeps_lengths():
    """All factors are one, whatever the batch; float32 rounding of a few eps a layer."""
    for batch in (1, 4):
        p = run(pk.Chain(depth=50, width=8, activation="linear", init="orthogonal"), "matrix_free", 5, batch=batch)
        np.testing.assert_allclose(np.ptp(p.log10_grad_activation, axis=1), 0, atol=1e-5)
        np.testing.assert_allclose(np.ptp(p.log10_mean_square_activation, axis=1), 0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "rate"), [("linear", 6 / 5), ("relu", 1.78819)])
def test_batch_norm_rate(activation, rate):
    """Growth of the squared gradient norm a layer at B = 8 (Yang et al. 2019, theorems 7 to 9), within 1.5 percent at
    width 1500."""
    p = run(pk.Chain(depth=60, width=1500, activation=activation, norm="batch"), "matrix_free", 4, batch=8)
    slope = np.polyfit(np.arange(40), p.log10_grad_activation[:, 10:50][:, ::-1].mean(axis=0), 1)[0]
    assert abs(10 ** (2 * slope) / rate - 1) < 0.015


# -- hard places


def test_batches_that_collapse_stay_sound():
    """Ordered phase: the inputs become collinear after a hundred layers; 3000 layers on, the norms fall at the rate of
    a single input."""
    chain = pk.Chain(depth=3000, width=64, activation="tanh", init="lecun_normal", gain=0.9, bias_std=0.05)
    p, one = (run(chain, "matrix_free", 2, batch=batch) for batch in (4, 1))
    assert np.isfinite(p.log10_grad_activation).all()
    assert np.all(p.similarity[:, -1] > 1 - 1e-6)
    # two chains' slopes differ by sampling: std of the mean log factor over 3000 layers, about .4 / sqrt(64 * 3000)
    # decades, times 5
    np.testing.assert_allclose(p.slope, one.slope, atol=5e-3)


@pytest.mark.parametrize("init", ["he_normal", "orthogonal"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_repeated_and_zero_inputs(init, dtype):
    """A repeated input gives what it gives once; a zero input without bias stays zero; a scaled one is scaled."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(20, 2))
    chain = pk.Chain(depth=4, width=20, activation="relu", init=init)
    c = rng.normal(size=(20, 1))
    many = run(
        chain,
        "matrix_free",
        1,
        dtype=dtype,
        x=np.hstack([x, x[:, :1], 0 * x[:, :1], 4 * x[:, 1:]]),
        cotangent=np.repeat(c, 5, axis=1),
    )
    few = run(chain, "matrix_free", 1, dtype=dtype, x=x, cotangent=np.repeat(c, 2, axis=1))
    assert many.similarity.shape == (1, 4) and np.isfinite(many.log10_grad_weight).all()
    # squares: |a1|^2 + |a2|^2 becomes 2 |a1|^2 + 17 |a2|^2
    ratio = 5 / 2 * 10 ** (many.log10_mean_square_activation - few.log10_mean_square_activation)
    assert np.all((ratio > 2) & (ratio < 17))


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_magnitudes_far_outside_float_range(scale):
    """Homogeneous chains: the input's scale moves the logs and nothing else."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(12, 3))
    chain = pk.Chain(depth=5, width=12, activation="relu")
    p, q = (run(chain, "matrix_free", 2, x=f * x) for f in (1.0, scale))
    np.testing.assert_allclose(q.log10_grad_weight - p.log10_grad_weight, np.log10(scale), atol=1e-4)


def test_dead_chains_end_in_zeros():
    p = run(pk.Chain(depth=400, width=3, activation="relu"), "matrix_free", 50, batch=2)
    dead = np.isneginf(p.log10_mean_square_activation[:, -1])
    assert dead.mean() > 0.9  # 1 - (1 - 2^-3)^400 for one input
    assert np.isneginf(p.log10_grad_activation[dead, 0]).all()


def test_factor_reveals_rank():
    """Columns in a plane, one nearly along another: two directions, products to the accuracy of what was lost
    (2^-20)."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 30))
    columns = np.stack([a, a + 1e-9 * b, b, a - b, 1e-12 * a, 0 * a], axis=1)
    c, order = oracle.factor(columns.T @ columns)
    assert order == [0, 2]
    scale = np.linalg.norm(columns, axis=0) + (np.arange(6) == 5)
    np.testing.assert_allclose((c.T @ c - columns.T @ columns) / np.outer(scale, scale), 0, atol=1e-8)


@pytest.mark.parametrize("where", ["x", "cotangent", "both"])
@pytest.mark.parametrize("decades", [10, 25])
def test_columns_of_very_different_size(decades, where):
    """Inputs and gradients 10^20 or 10^50 apart: coefficients u X beyond float32 were lost, and columns below 2^-149 of
    the largest."""
    rng = np.random.default_rng(0)
    size = np.array([10.0**-decades, 1.0, 10.0**decades])
    x, c = rng.normal(size=(2, 40, 3))
    given = {"x": x * size if where != "cotangent" else x, "cotangent": c * size if where != "x" else c}
    for init, activation, norm in (
        ("he_normal", "relu", None),
        ("orthogonal", "tanh", None),
        ("he_normal", "tanh", "layer"),
    ):
        chain = pk.Chain(depth=3, width=40, activation=activation, init=init, norm=norm)
        p, q = (run(chain, "matrix_free", 1, 3, backend, **given) for backend in ("cpp", "reference"))
        close(chain, p, q, 2e-5)  # float32 rounding, or better


def test_control_c_ends_a_wide_batch():
    """Every pass over a wide layer looks at the flag, not only every layer: else this would go on for minutes."""
    chain = pk.Chain(depth=3000, width=100_000, activation="tanh")
    for threads in (1, 2):
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            run(chain, "matrix_free", 1, batch=4, threads=threads)
        timer.join()


def test_memory_is_not_asked_for_where_it_is_not_needed():
    """One input keeps sums; a few inputs keep segments. The issue's promise: below 2 GiB."""
    module = importlib.import_module(engines.TABLE["matrix_free", "cpp"])
    for depth, width in ((100_000, 1000), (1000, 10**6)):
        chain = pk.Chain(depth=depth, width=width)
        assert module.memory(lower(chain, batch=1), 1) < 2**25
        assert module.memory(lower(chain, batch=4), 1) < 1.85 * 2**30


REFUSED = {
    "uniform": {"init": "he_uniform"},
    "truncated": {"init": "keras_he_normal"},
    "sparse": {"init": pk.Sparse(0.5)},
    "identity": {"init": pk.Identity(1.0)},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_exact_is_refused(name):
    with pytest.raises(
        ValueError,
        match=f'engine="matrix_free" is exact for Gaussian and orthogonal weights only, not for {name} weights',
    ):
        run(pk.Chain(depth=2, width=4, **REFUSED[name]), "matrix_free", 1)


def test_other_refusals_name_what_can():
    chain = pk.Chain(depth=2, width=4)
    with pytest.raises(ValueError, match="the caller's own weights"):
        run(chain, "matrix_free", 1, weights=[np.eye(4), np.eye(4)])
    with pytest.raises(ValueError, match="clip by value"):
        run(pk.Chain(depth=2, width=4, clip=pk.Clip(value=1.0)), "matrix_free", 1)
    with pytest.raises(ValueError, match='precision="native"'):
        run(chain, "matrix_free", 1, precision="native")
    with pytest.raises(ValueError, match='does not run in backend="numba"; backend="cpp" or "reference" can'):
        run(chain, "matrix_free", 1, backend="numba")
