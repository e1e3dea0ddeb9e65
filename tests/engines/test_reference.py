# SPDX-License-Identifier: BSD-3-Clause
"""The definition itself: gradients against finite differences, the adjoint identity, closed forms, and magnitudes
beyond float range."""

import itertools
import tracemalloc

import numpy as np
import pytest
from combinations import CASES, NORMS, ORDERS, RESIDUALS

import pykernel as pk
from pykernel import activations
from pykernel.block import Block
from pykernel.engines import cpp, heads, reference
from pykernel.engines import run as runs
from pykernel.engines.reference import Kept
from pykernel.lower import lower

LOG10_2 = np.log10(2)


def run(chain, **arguments):
    return pk.propagate(chain, engine="dense", backend="reference", dtype="float64", **arguments)


def net(chain, rng, batch=3):
    n = chain.layer_widths
    return {
        "x": rng.normal(size=(n[0], batch)),
        "cotangent": None if chain.head else rng.normal(size=(n[-1], batch)),
        "weights": [0.8 * rng.normal(size=(n[i + 1], n[i])) for i in range(chain.depth)],
        "biases": [0.3 * rng.normal(size=n[i + 1]) for i in range(chain.depth)],
    }


def objective(chain, arrays):
    p = run(chain, **arrays, keep=Kept.NAMES)
    kept = p.kept[0]
    return (p.loss[0] if chain.head else (kept["activation"][chain.depth] * arrays["cotangent"]).sum()), kept, p


@pytest.mark.parametrize("case", range(len(CASES)))
def test_gradients_are_those_of_finite_differences(case):
    name, norm, order, residual, head = CASES[case]
    chain = pk.Chain(
        widths=[4, 4, 4, 4] if residual else [4, 5, 3, 6],
        activation=name,
        norm=norm,
        order=order,
        residual=residual,
        head=head,
    )
    rng = np.random.default_rng(case)
    arrays = net(chain, rng)
    _, kept, p = objective(chain, arrays)
    h = 1e-6
    for array, gradient in (
        (arrays["x"], kept["grad_activation"][0]),
        (arrays["weights"][0], kept["grad_weight"][1]),
        (arrays["weights"][2], kept["grad_weight"][3]),
        (arrays["biases"][1], kept["grad_bias"][2]),
    ):
        direction = rng.normal(size=array.shape)
        ends = []
        for sign in (1, -1):
            array += sign * h * direction
            ends.append(objective(chain, arrays)[0])
            array -= sign * h * direction
        # Central differences: h^2 phi''' is 1e-12, rounding of J is eps |J| / h, some 1e-9; with norms both grow by
        # their condition.
        assert (ends[0] - ends[1]) / (2 * h) == pytest.approx((gradient * direction).sum(), rel=1e-5, abs=2e-7)
    for layer in (1, 2, 3):  # rows are the norms of the very arrays
        for row, array in (
            ("log10_grad_weight", "grad_weight"),
            ("log10_grad_bias", "grad_bias"),
            ("log10_grad_preactivation", "grad_preactivation"),
        ):
            norm_of = np.linalg.norm(kept[array][layer])
            if norm_of > 1e-12:  # a bias under batch norm has gradient zero up to rounding
                assert p.rows[row][0, layer - 1] == pytest.approx(np.log10(norm_of), abs=1e-10)


@pytest.mark.parametrize(("norm", "order", "residual"), list(itertools.product(NORMS, ORDERS, RESIDUALS)))
def test_backward_is_the_adjoint_of_forward(norm, order, residual):
    """<J v, c> = <v, J^T c>, with J v by complex-free central differences of the whole chain."""
    chain = pk.Chain(widths=[5, 5, 5, 5, 5], activation="tanh", norm=norm, norm_eps=0.1, order=order, residual=residual)
    rng = np.random.default_rng(3)
    arrays = net(chain, rng)
    v = rng.normal(size=arrays["x"].shape)
    h = 1e-6
    ends = [objective(chain, {**arrays, "x": arrays["x"] + s * h * v})[1]["activation"][4] for s in (1, -1)]
    back = objective(chain, arrays)[1]["grad_activation"][0]
    assert (((ends[0] - ends[1]) / (2 * h)) * arrays["cotangent"]).sum() == pytest.approx(
        (v * back).sum(), rel=1e-6, abs=1e-8
    )


def test_the_factors_of_the_chain_rule_multiply_to_the_ratio():
    """Without norms and residuals, log10 |dJ/da[l-1]| - log10 |dJ/da[l]| = derivative factor + weight factor, in both
    orders."""
    for order in ORDERS:
        p = run(pk.Chain(widths=[6, 7, 5, 8], activation="gelu", init="lecun_normal", order=order), batch=3, replicas=2)
        step = p.log10_grad_activation[:, :-1] - p.log10_grad_activation[:, 1:]
        np.testing.assert_allclose(step, p.log10_derivative_factor + p.log10_weight_factor, atol=1e-12)


@pytest.mark.parametrize("c", [1.5, 0.5, -2.0, 1e-3])
def test_identity_chain_is_a_power(c):
    p = run(pk.Chain(depth=3000, width=3, activation="linear", init=pk.Identity(c)))
    exact = np.log10(abs(c)) * np.arange(3000, -1, -1)
    np.testing.assert_allclose(
        p.log10_grad_activation[0] - p.log10_grad_activation[0, -1], exact, rtol=1e-12, atol=1e-11
    )
    np.testing.assert_allclose(p.slope, np.log10(abs(c)), rtol=1e-12)
    forward = 0.5 * (p.log10_mean_square_activation[0] - p.log10_mean_square_activation[0, 0])
    np.testing.assert_allclose(forward, np.log10(abs(c)) * np.arange(3000), rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("name", [n for n in activations.ROWS if n not in ("relu", "hardtanh")])
def test_no_gain_turns_a_gradient_into_zero_inf_or_nan(name):
    # A saturated slope is e^-z: its log2 must stay an int64, so z may reach 1e15 or so.
    saturates = activations.get(name).left == activations.get(name).right == 0 and name not in (
        "sin",
        "softsign",
        "arctan",
    )
    for gain in (1e-300, 1e-6, 30.0, 1e6 if saturates else 1e150):
        for order in ORDERS:
            p = run(pk.Chain(depth=12, width=6, activation=name, gain=gain, order=order), batch=2)
            for row in (
                "log10_grad_weight",
                "log10_grad_activation",
                "log10_mean_square_preactivation",
                "log10_mean_square_activation",
            ):
                assert np.isfinite(p.rows[row]).all(), (gain, order, row)


def test_sigmoid_slopes_beyond_float_range_follow_the_closed_form():
    """One unit, W = w: z[l] = w sigmoid(z[l-1]) is w, so each layer multiplies by w e^-w: -172 000 decades over 200
    layers."""
    w, L = 2000.0, 200
    p = run(
        pk.Chain(depth=L, width=1, activation="sigmoid", init=pk.Identity(w)),
        x=np.ones((1, 1)),
        cotangent=np.ones((1, 1)),
    )
    exact = L * (np.log10(w) - w * np.log10(np.e))
    assert p.signal_end_to_end[0] == pytest.approx(exact, rel=1e-12)


def test_homogeneous_chains_scale_exactly():
    """ReLU, gain 2^k: every backward factor gains k bits, at any magnitude; exponents lose nothing."""
    base = run(pk.Chain(depth=40, width=16), batch=2, replicas=2)
    for k in (-40, 7, 300):
        scaled = run(pk.Chain(depth=40, width=16, gain=2.0**k), batch=2, replicas=2)
        shift = k * LOG10_2 * np.arange(40, -1, -1)
        np.testing.assert_allclose(
            scaled.log10_grad_activation, base.log10_grad_activation + shift, rtol=1e-13, atol=1e-11
        )


@pytest.mark.parametrize("norm", ["batch", "layer", "rms"])
@pytest.mark.parametrize("order", ORDERS)
def test_norms_hide_the_gain(norm, order):
    """A norm cancels the scale of what it normalises: the forward signal is the same at gain 1 and 2^400, far beyond
    float range."""
    rows = [
        run(pk.Chain(depth=8, width=10, norm=norm, order=order, gain=g), batch=4, seed=1) for g in (2.0**30, 2.0**400)
    ]
    name = "log10_mean_square_activation" if order == ORDERS[0] else "saturated"
    # At gain 2^30 eps = 1e-5 is 1e-23 of the variance; what is left is rounding.
    np.testing.assert_allclose(rows[0].rows[name], rows[1].rows[name], atol=1e-12)


def test_native_precision_shows_where_plain_arithmetic_ends():
    """1.5^l passes the largest float32, 2^128, at l = 128 / log2(1.5) = 218.8, for an input of order one."""
    chain = pk.Chain(depth=400, width=4, activation="linear", init=pk.Identity(1.5))
    p = pk.propagate(
        chain, x=np.ones((4, 1)), cotangent=np.ones((4, 1)), engine="dense", backend="reference", precision="native"
    )
    assert (p.failure.layer, p.failure.direction, p.failure.kind) == (219, "forward", "inf")
    p64 = run(chain, x=np.ones((4, 1)), cotangent=np.ones((4, 1)), precision="native")
    assert p64.failure is None
    assert p64.slope[0] == pytest.approx(np.log10(1.5), rel=1e-9)


def test_native_sigmoid_slope_rounds_to_zero_where_theory_says():
    """s (1 - s) is exactly 0 once s rounds to 1: at z = ln(2/eps) by the plain formula (theory, section 7, trap 6)."""
    for dtype, eps in (("float32", 2.0**-23), ("float64", 2.0**-52)):
        edge = np.log(2 / eps)
        for z, alive in ((edge - 1, True), (edge + 1, False)):
            chain = pk.Chain(depth=1, width=1, activation="sigmoid", init=pk.Identity(1.0))
            p = pk.propagate(
                chain, x=[[z]], cotangent=[[1.0]], engine="dense", backend="reference", dtype=dtype, precision="native"
            )
            assert np.isfinite(p.log10_grad_preactivation[0, 0]) == alive
            stable = pk.propagate(chain, x=[[z]], cotangent=[[1.0]], engine="dense", backend="reference", dtype=dtype)
            assert stable.log10_grad_preactivation[0, 0] == pytest.approx(-z * np.log10(np.e), rel=1e-6)


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_heads_survive_huge_logits(loss):
    head = pk.Head(loss, 3, targets=[[1.0], [0.0], [0.0]] if loss == "sigmoid" else [0])
    chain = pk.Chain(depth=2, width=6, activation="linear", gain=1e30, head=head)
    stable, plain = run(chain), run(chain, precision="native")
    assert np.isfinite(stable.loss).all()
    assert np.isfinite(stable.log10_grad_weight).all()
    assert not np.isfinite(plain.loss).all()


def test_a_clipped_replica_does_not_depend_on_the_others():
    """To the bit, whichever way NumPy would add up arrays of so many replicas."""
    rng = np.random.default_rng(0)
    for depth in (2, 9, 40):
        logs = rng.normal(size=(2, 60, depth))

        def clip(some, logs=logs):
            rows = dict(zip(runs.CLIPPED, logs[:, some].copy(), strict=True))
            rows["log10_grad_weight_total"] = np.zeros((len(rows["log10_grad_weight"]), 0))
            runs.clip_by_norm(pk.Clip(norm=0.1), rows)
            return rows["log10_grad_weight"]

        np.testing.assert_array_equal(np.concatenate([clip(slice(r, r + 1)) for r in range(60)]), clip(slice(None)))


def test_clipping():
    rng = np.random.default_rng(5)
    free = pk.Chain(widths=[5, 6, 4], activation="tanh")
    arrays = net(free, rng)
    kept = objective(free, arrays)[1]
    entries = np.concatenate([np.append(kept["grad_weight"][k].ravel(), kept["grad_bias"][k]) for k in (1, 2)])
    total = np.linalg.norm(entries)

    clipped = run(free.replace(clip=pk.Clip(norm=total / 3)), **arrays)
    norms = np.concatenate([clipped.log10_grad_weight, clipped.log10_grad_bias], axis=1)
    assert np.sqrt((10 ** (2 * norms)).sum()) == pytest.approx(total / 3, rel=1e-12)
    untouched = run(free.replace(clip=pk.Clip(norm=total * 1.01)), **arrays)
    np.testing.assert_array_equal(untouched.log10_grad_weight, run(free, **arrays).log10_grad_weight)

    layered = run(free.replace(clip=pk.Clip(norm=total / 100, per_layer=True)), **arrays)
    np.testing.assert_allclose(
        np.hypot(10**layered.log10_grad_weight, 10**layered.log10_grad_bias), total / 100, rtol=1e-12
    )

    bound = np.median(np.abs(entries))
    by_value = run(free.replace(clip=pk.Clip(value=bound)), **arrays)
    for k in (1, 2):
        assert 10 ** by_value.log10_grad_weight[0, k - 1] == pytest.approx(
            np.linalg.norm(np.clip(kept["grad_weight"][k], -bound, bound)), rel=1e-12
        )
    # Gradients are what is clipped, not the signal that flows back.
    np.testing.assert_array_equal(by_value.log10_grad_activation, run(free, **arrays).log10_grad_activation)


def test_observables_of_a_chain_small_enough_to_see():
    """Two units, two inputs, by hand: ReLU of [[1, -1], [2, -3]] and [[-1, -1]..]: saturation, death, cosine."""
    x = np.array([[1.0, 2.0], [-1.0, -3.0]])
    p = run(pk.Chain(depth=1, width=2, init="identity"), x=x, cotangent=np.ones((2, 2)))
    assert p.saturated[0, 0] == 0.5
    assert p.dead[0, 0] == 0.5
    assert p.mean_activation[0, 0] == 0.75
    assert p.similarity[0, 0] == pytest.approx(1.0)
    assert 10 ** p.log10_mean_square_preactivation[0, 0] == pytest.approx(15 / 4)
    assert 10 ** p.log10_grad_weight[0, 0] == pytest.approx(np.linalg.norm([[3.0, -4.0], [0.0, 0.0]]))
    assert 10 ** p.log10_grad_bias[0, 0] == pytest.approx(2.0)


def test_input_correlation():
    p = run(pk.Chain(depth=1, width=4000, activation="linear", init="identity"), batch=3, replicas=4, correlation=0.6)
    assert p.similarity.mean() == pytest.approx(0.6, abs=5 / np.sqrt(4000 * 4))


@pytest.mark.parametrize(("outputs", "width", "batch"), [(3000, 128, 256), (1000, 800, 8)])
@pytest.mark.parametrize("loss", ["softmax", "mse", "sigmoid", "linear"])
def test_memory_of_a_head_is_counted(loss, outputs, width, batch):
    """Of wide heads it is most of a run's: no backend is proposed as the smaller one that needs more than it says."""
    chain = pk.Chain(depth=1, width=width, head=pk.Head(loss, outputs))
    program = lower(chain, batch=batch, formats=pk.Formats("bfloat16", "bfloat16", "bfloat16"))
    last = Block(np.random.default_rng(0).standard_normal((width, batch)))
    tracemalloc.start()
    heads.objective(program, 0, last)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert heads.memory(program) / 1.5 < taken < 1.02 * heads.memory(program)
    assert reference.memory(program) > taken and cpp.memory(program) > 8 * outputs * batch
