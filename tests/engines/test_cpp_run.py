# SPDX-License-Identifier: BSD-3-Clause
"""The compiled run loop against the definition: every activation, norm, order, residual and head; exponents; threads;
memory."""

import dataclasses
import itertools
import os
import signal
import threading

import numpy as np
import pytest
from memory import peaks
from random_chains import INITS, random_chain
from rounding import definition_and_moved

import pykernel as pk
from pykernel import (
    Chain,
    Clip,
    Constant,
    Given,
    Head,
    Identity,
    Normal,
    Residual,
    Sparse,
    StudentT,
    TruncatedNormal,
    _core,
    activations,
)
from pykernel.activations import ROWS
from pykernel.chain import ORDERS
from pykernel.engines import cpp, cpp_matrix_free, matrix_free_refusal, reference
from pykernel.layers import NORMS, Block, Gated, Linear, Norm
from pykernel.lower import lower
from pykernel.parts import LOSSES
from pykernel.program import Program

HEADS = (None, Head("mse", 5), Head("sigmoid", 5), Head("softmax", 5), Head("linear", 5))
RESIDUALS = (None, Residual(every=1, scale=0.7), Residual(every=2, scale=1.0))


def assert_rows(lowered, replicas=1, tolerance=1e-10, skip=(), threads=2):
    """Every row of cpp within `tolerance` of the reference, in decades (relative where a row is a plain number)."""
    expected, got = (module.run(lowered, 0, replicas, threads=threads) for module in (reference, cpp))
    for name, wanted in expected.items():
        if name not in skip:
            scale = np.maximum(1, np.abs(np.where(np.isfinite(wanted), wanted, 1)))
            np.testing.assert_allclose(got[name] / scale, wanted / scale, rtol=0, atol=tolerance, err_msg=name)


def assert_same_bits(one, two):
    for name, array in one.items():
        np.testing.assert_array_equal(two[name], array, err_msg=name)


def cases():
    for i, (activation, norm, order, residual) in enumerate(itertools.product(ROWS, NORMS, ORDERS, RESIDUALS)):
        yield i, activation, norm, order, residual, HEADS[i % 4]


@pytest.mark.parametrize("activation", ROWS)
@pytest.mark.parametrize("norm", NORMS)
def test_every_layer_agrees_with_the_reference(activation, norm):
    for i, a, n, order, residual, head in cases():
        if (a, n) != (activation, norm):
            continue
        chain = Chain(
            depth=5,
            width=37,
            activation=a,
            norm=n,
            order=order,
            residual=residual,
            head=head,
            bias_std=0.1 * (i % 3 == 0),
        )
        chain = chain.replace(norm_eps=(1e-5, 0.3, 1e-20)[i % 3])
        # Behind batch norm the sum of delta over the batch is zero but for rounding, which differs.
        skip = ("log10_grad_bias",) if n == "batch" else ()
        batch, correlation = (1, 3, 5)[i % 3], (0.0, 0.3)[i % 2]
        assert_rows(lower(chain, batch=batch, seed=i, dtype="float64", correlation=correlation), skip=skip)


@pytest.mark.parametrize("activation", ROWS)
def test_single_precision_stays_within_its_rounding(activation):
    lowered = lower(Chain(depth=6, width=50, activation=activation, head=Head("softmax", 7)), batch=4, seed=3)
    # 6 layers of sums over 50 terms, eps 6e-8, amplified by the chain's condition, about 10: below 5e-5 of a magnitude.
    assert_rows(lowered, tolerance=5e-5, skip=("saturated",))


@pytest.mark.parametrize(
    "init",
    ["he_uniform", "orthogonal", Identity(1.5), Constant(0.01), TruncatedNormal(0.1), Sparse(0.3), StudentT(3.0)],
    ids=str,
)
def test_every_kind_of_weight_with_unequal_widths(init):
    for batch in (1, 5):
        assert_rows(
            lower(Chain(widths=[20, 37, 16, 50], activation="tanh", init=init), batch=batch, dtype="float64"), 2
        )


def test_clip_by_value_and_callers_arrays():
    assert_rows(lower(Chain(depth=5, width=20, clip=Clip(value=0.01)), batch=3, dtype="float64"))
    rng = np.random.default_rng(0)
    weights, biases = [rng.normal(size=(6, 4)), rng.normal(size=(5, 6))], [rng.normal(size=6), rng.normal(size=5)]
    given = dict(x=rng.normal(size=(4, 3)), cotangent=rng.normal(size=(5, 3)), weights=weights, biases=biases)
    assert_rows(lower(Chain(widths=[4, 6, 5], activation="gelu"), dtype="float64", **given))


@pytest.mark.parametrize("loss", LOSSES[1:])
@pytest.mark.parametrize("size", [1.0, 1e-70, 1e70])  # float32 holds neither of the latter
def test_a_head_of_ones_own(loss, size):
    rng = np.random.default_rng(1)
    for biases, norm, (dtype, tolerance) in itertools.product(
        (None, [size * rng.normal(size=21)]), (None, "layer"), (("float64", 1e-10), ("float32", 5e-5))
    ):
        head = Head(loss, 21, Given([size * rng.normal(size=(21, 18))], biases), targets=np.eye(21)[:, :3])
        chain = Chain(widths=[20, 37, 18], activation="tanh", norm=norm, head=head)
        assert_rows(lower(chain, batch=3, dtype=dtype), 2, tolerance=tolerance, skip=("saturated",))
    shown = lower(chain.replace(activation="relu"), batch=3, dtype="float64", precision="native")
    if size == 1:  # beyond, plain arithmetic gives up
        assert_rows(shown, tolerance=1e-10)


def test_a_head_of_ones_own_with_the_other_engine():
    """No draw is left but those of the layers: behind an input of all zeros both engines compute the same numbers."""
    head = Head("softmax", 3, Given([np.arange(12.0).reshape(3, 4)], [np.arange(3.0)]), targets=(0, 2))
    chain = Chain(depth=2, width=4, activation="sigmoid", init=Normal(0.0), head=head)
    rows = [
        pk.propagate(chain, x=np.zeros((4, 2)), engine=e, backend="cpp", dtype="float64")
        for e in ("dense", "matrix_free")
    ]
    y = np.arange(12.0).reshape(3, 4).sum(axis=1) / 2 + np.arange(3.0)
    p = np.exp(y) / np.exp(y).sum()
    assert rows[0].loss[0] == pytest.approx(-0.5 * np.log(p[0]) - 0.5 * np.log(p[2]), rel=1e-12)
    assert rows[1].loss[0] == pytest.approx(rows[0].loss[0], rel=1e-12)
    np.testing.assert_allclose(rows[1].log10_grad_activation[0, -1], rows[0].log10_grad_activation[0, -1], atol=1e-12)


@pytest.mark.parametrize("activation", [name for name in ROWS if name != "sin"])
def test_magnitudes_beyond_floating_point(activation):
    for gain in (1e-3, 30.0):  # sin is chaotic there: rounding decides
        deep = lower(Chain(depth=150, width=16, activation=activation, gain=gain), batch=2, dtype="float64")
        (expected, moved), got = definition_and_moved(deep), cpp.run(deep, 0, 1, threads=2)
        for name, row in expected.items():  # relative, and ten times what a rounding error of every layer does to it
            with np.errstate(invalid="ignore"):  # -inf less -inf
                error, change = np.abs(got[name] - row), np.abs(moved[name] - row)
            same = (got[name] == row) | (np.isnan(got[name]) & np.isnan(row))
            assert (same | (error <= 1e-9 * np.maximum(1, np.abs(row)) + 10 * change)).all(), name
    # float32: a few layers, so that the rounding of tails e^-z with z near 1e3 stays in the second decimal
    assert_rows(
        lower(Chain(depth=6, width=16, activation=activation, gain=30.0), batch=2), tolerance=1e-3, skip=("saturated",)
    )


def test_identity_chain_is_exact_at_any_depth():
    lowered = lower(Chain(depth=50_000, width=4, activation="linear", init=Identity(1.5)), dtype="float64")
    g = cpp.run(lowered, 0, 1, threads=1)["log10_grad_activation"][0]
    assert (g[0] - g[-1]) == pytest.approx(50_000 * np.log10(1.5), rel=1e-12)


def test_deep_chains_stay_finite():
    sigmoid = cpp.run(lower(Chain(depth=5000, width=16, activation="sigmoid", init="lecun_normal")), 0, 1, threads=1)
    assert np.isfinite(sigmoid["log10_grad_weight"]).all()
    for activation in ("gelu", "silu", "elu", "softplus"):
        rows = cpp.run(lower(Chain(depth=3000, width=32, activation=activation, gain=3.0)), 0, 1, threads=1)
        assert np.isfinite(rows["log10_grad_weight"]).all(), activation


def test_native_precision_shows_zeros_and_infinities():
    for activation, gain, depth in (("relu", 1e3, 30), ("relu", 1e-3, 30), ("sigmoid", 100.0, 10), ("tanh", 1.0, 10)):
        lowered = lower(Chain(depth=depth, width=16, activation=activation, gain=gain), batch=1, precision="native")
        expected, got = (module.run(lowered, 0, 1, threads=1) for module in (reference, cpp))
        for name in ("log10_grad_weight", "log10_mean_square_activation"):
            # the layer where it starts may differ by one
            assert (np.isfinite(got[name]) == np.isfinite(expected[name])).mean() > 0.9, name
            both = np.isfinite(got[name]) & np.isfinite(expected[name])
            # subnormal numbers have few digits
            np.testing.assert_allclose(got[name][both], expected[name][both], atol=1e-2)


CHAINS = {
    "plain": {},
    "everything": dict(norm="layer", residual=Residual(every=3), order=ORDERS[1], head=Head("softmax", 10)),
    "batch norm": dict(norm="batch", residual=Residual(every=4), clip=Clip(value=0.01)),
}


@pytest.mark.parametrize("name", CHAINS)
def test_bits_do_not_depend_on_threads_replicas_or_memory(name):
    for width, replicas in ((40, 5), (1100, 1)):
        lowered = lower(Chain(depth=12, width=width, activation="gelu", **CHAINS[name]), batch=3)
        one = cpp.run(lowered, 0, replicas, threads=1)
        for threads in (2, 3, 7):
            assert_same_bits(one, cpp.run(lowered, 0, replicas, threads=threads))
        for memory in (0, 10_000, 60_000):
            assert_same_bits(one, cpp.run(lowered, 0, replicas, threads=2, memory=memory))
        last = cpp.run(lowered, replicas - 1, 1, threads=2)
        assert_same_bits({key: array[-1:] for key, array in one.items()}, last)


def test_control_c_ends_a_long_run():
    lowered = lower(Chain(depth=100_000, width=1000, activation="relu"))
    for threads in (1, 2):
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            cpp.run(lowered, 0, 1, threads=threads)
        timer.join()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_fork_and_from_several_python_threads():
    lowered = lower(Chain(depth=10, width=64, activation="relu"))  # 40 replicas: long enough that threads take part
    one = cpp.run(lowered, 0, 40, threads=2)
    results = []
    callers = [threading.Thread(target=lambda: results.append(cpp.run(lowered, 0, 40, threads=3))) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 4
    for result in results:
        assert_same_bits(one, result)
    child = os.fork()
    if child == 0:
        try:
            again = cpp.run(lowered, 0, 40, threads=2)
            os._exit(0 if all(np.array_equal(one[key], again[key], equal_nan=True) for key in one) else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def test_the_compiled_door_checks_what_it_is_given():
    lowered = lower(Chain(depth=2, width=4))
    with pytest.raises(ValueError, match="threads must be positive"):
        cpp.run(lowered, 0, 1, threads=0)
    with pytest.raises(ValueError, match="count"):
        cpp.run(lowered, 0, -1, threads=1)


@pytest.mark.parametrize("seed", range(30))
def test_random_programs_agree_with_the_reference(seed):
    """Every op, with positions; ahead of a batch norm the sum of delta is zero but for rounding."""
    for positions in ((), (3,)):
        program = lower(random_chain(seed), batch=3, positions=positions, seed=seed, dtype="float64")
        skip = ("log10_grad_bias",) if any(norm.kind == "batch" for norm in program.norms) else ()
        assert_rows(program, replicas=2, tolerance=1e-9, skip=skip)


@pytest.mark.parametrize("seed", range(6))
def test_bits_of_programs_do_not_depend_on_threads_or_memory(seed):
    drawn = [init for init in INITS if init != "orthogonal"]  # whose frames of 1600 units cost seconds each
    program = lower(random_chain(seed, width=900, inits=drawn), batch=2, positions=2, seed=seed)
    for run in (cpp.run, cpp_matrix_free.run):
        if run is cpp_matrix_free.run and matrix_free_refusal(program):
            continue
        one = run(program, 0, 2, threads=1)
        for threads, memory in ((2, None), (3, 0), (7, 200_000)):
            assert_same_bits(one, run(program, 0, 2, threads=threads, memory=memory))


UP = [1e30, -2e30, 3e29, 1e30, 1e30, 1e30, 1e30, 5e30]
TRAINED_NORMS = {
    "large": Block(Norm("layer", weight=UP, bias=[i * 1e28 for i in range(8)]), Linear(8), "relu", Linear(8), skip=1.0),
    "after the sum": Block(Linear(8), "relu", Linear(8), skip=1.0, after=Norm("layer", weight=UP)),
    "beyond float32": Block(Norm("rms", weight=[1e270 * w for w in UP], bias=1e-300), Linear(8), skip=1.0),
    "below it": Block(
        Norm("rms", weight=[1e-270 / w for w in UP], bias=[0] * 7 + [1e-300]), Linear(8, bias_std=1e-250)
    ),
    "large entries meet small weights": Block(Norm("rms", weight=[1e-30] * 4 + [1e-3] * 4), Linear(8), skip=1.0),
    "bias only": Block(Norm("rms", weight=0.0, bias=2e100), Linear(8), skip=1.0),
    "nothing": Block(Norm("rms", weight=0.0), Linear(8), skip=1.0),
}


@pytest.mark.parametrize("name", TRAINED_NORMS)
def test_weights_and_biases_of_norms_at_any_magnitude(name):
    for dtype, tolerance in (("float64", 1e-11), ("float32", 1e-4)):
        program = lower(Chain(width=8, depth=14, blocks=[TRAINED_NORMS[name]]), dtype=dtype, seed=5)
        assert_rows(program, tolerance=tolerance)


def test_gates_and_products_beyond_floating_point():
    """Magnitudes square at every gate, exponents add."""
    for activation, gain in (("silu", 1e15), ("relu", 1e15), ("silu", 1e-15), ("tanh", 1e-15)):
        chain = Chain(depth=6, width=16, gain=gain, blocks=[Block(Gated(16, activation), Linear(16))])
        for dtype, tolerance in (("float64", 1e-9), ("float32", 1e-3)):
            assert_rows(lower(chain, batch=2, dtype=dtype), tolerance=tolerance, skip=("saturated",))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_without_a_common_entry_are_zero(dtype):
    """A small gradient where a gate's other side is zero, zero where it is not: exactly zero, not 0 times inf."""
    words = {"x": [[1.0], [-1.0]], "weights": [np.eye(2), np.eye(2)], "cotangent": [[0.0], [1e-10]]}
    chain = Chain(width=2, blocks=[Gated(2, "relu")])
    p = pk.propagate(chain, **words, dtype=dtype, engine="dense", backend="cpp")
    np.testing.assert_array_equal(p.log10_grad_preactivation, -np.inf)
    np.testing.assert_array_equal(p.log10_grad_activation[:, 0], -np.inf)
    words["cotangent"] = [[1e-10], [0.0]]  # where the other side is one, each side has it
    p = pk.propagate(chain, **words, dtype=dtype, engine="dense", backend="cpp")
    np.testing.assert_allclose(p.log10_grad_preactivation, -10, rtol=1e-7)
    np.testing.assert_allclose(p.log10_grad_activation[:, 0], np.log10(2e-10), rtol=1e-7)


def test_numbers_that_python_and_cpp_share_are_the_same():
    shared = _core.constants
    assert (shared.log2_e, shared.log10_2) == (activations.LOG2_E, np.log10(2))
    assert (shared.selu_alpha, shared.selu_lambda) == (activations.SELU_ALPHA, activations.SELU_LAMBDA)
    assert shared.gelu_cubic == activations.GELU_CUBIC


def test_a_field_that_the_compiled_engine_does_not_read_is_an_error():
    @dataclasses.dataclass(eq=False)
    class Newer(Program):
        temperature: float = 1.0

    program = lower(Chain(depth=2, width=4))
    newer = Newer(**{f.name: getattr(program, f.name) for f in dataclasses.fields(program)})
    with pytest.raises(TypeError, match="does not read temperature of Newer"):
        cpp.run(newer, 0, 1, threads=1)


def test_programs_that_make_no_sense_are_refused():
    program = lower(Chain(depth=3, width=4, blocks=[Block(Linear(5), "tanh", Linear(4), skip=1.0)]))
    stretch = program.stretches[0]
    ops = list(stretch.ops)
    cases = {
        "as many registers": dataclasses.replace(
            program, stretches=(stretch._replace(ops=(ops[0]._replace(ins=(0, 1)), *ops[1:])),)
        ),
        "below the program's": dataclasses.replace(program, registers=1),
        "no op": dataclasses.replace(
            program, stretches=(stretch._replace(ops=(ops[0]._replace(kind="fold"), *ops[1:])),)
        ),
        "a repetition must read": dataclasses.replace(
            program, stretches=(stretch._replace(ops=(ops[0]._replace(out=0), *ops[1:])),)
        ),
        "as many columns": dataclasses.replace(program, layers=program.layers._replace(columns=program.layers.units)),
        "masks": dataclasses.replace(program, masks=np.array([0.5])),
    }
    for message, wrong in cases.items():
        with pytest.raises(ValueError, match=message):
            cpp.run(wrong, 0, 1, threads=1)


@pytest.mark.parametrize("factor", [2.0**200, 2.0**-200])
def test_the_callers_weights_may_lie_beyond_float32(factor):
    """A power of two on every weight shifts the gradient by its decades, exactly: 3 layers, linear."""
    weights = [np.random.default_rng(i).normal(size=(4, 4)) for i in range(3)]
    chain = pk.Chain(depth=3, width=4, activation="linear")
    plain, scaled = (
        pk.propagate(chain, weights=[w * f for w in weights], engine="dense", backend="cpp") for f in (1, factor)
    )
    # The mantissas are the same float32 numbers, so only the logarithm rounds.
    np.testing.assert_allclose(scaled.signal_end_to_end, plain.signal_end_to_end + 3 * np.log10(factor), rtol=1e-12)


def test_weight_gradients_under_batch_norm_survive_an_input_that_hardly_varies():
    """The Gram matrices of an uncentred input cancel there; the gradient matrices themselves say what is right."""
    chain = pk.Chain(depth=6, width=24, activation="softplus", norm="batch", gain=1e-4)
    exact = [np.log10(np.linalg.norm(g)) for g in pk.gradients(chain, batch=8, seed=1)]
    for backend in ("cpp", "reference"):
        p = pk.propagate(chain, batch=8, seed=1, engine="dense", backend=backend, dtype="float64")
        # Six layers of deviations 1e-4 and less of the input's size leave 2e-10; with the mean in the Gram matrices it
        # is 0.09 decades.
        np.testing.assert_allclose(p.log10_grad_weight[0], exact, atol=2e-9)


# what a block with one exponent must not lose in float32: exact zeros, small columns, units that saturate 1e100 apart
UNEVEN = {
    "an input of zeros beside one that grows": (
        dict(depth=200, width=64, activation="elu", init="he_normal", gain=2.0),
        1,
    ),
    "only the small columns reach the weights": (
        dict(depth=200, width=64, activation="selu", init="lecun_normal", gain=2.0),
        3,
    ),
    "squares of a column below float32": (dict(depth=3, width=64, activation="arctan", init="he_normal", gain=1e8), 1),
    "idle units beside saturated ones": (dict(widths=[32] + [64] * 150, activation="tanh", init="identity(2)"), 0),
    "idle units beside growing ones": (dict(widths=[32] + [64] * 150, activation="silu", init="identity(2)"), 0),
}


@pytest.mark.parametrize("engine", ["dense", "matrix_free"])
@pytest.mark.parametrize("case", UNEVEN)
def test_uneven_blocks_in_float32_agree_with_float64(case, engine):
    """To 2e-3 decades: a float32 rounding of 6e-8 a layer and product, over 200 layers of a chaotic chain."""
    arguments, others = UNEVEN[case]
    if engine == "matrix_free" and arguments["init"] == "identity(2)":
        pytest.skip("identity weights are dense")
    chain = Chain(**arguments)
    x = np.random.default_rng(0).standard_normal((chain.layer_widths[0], others + 1))
    if others:
        x[:, -1] = 0
    single, double = (pk.propagate(chain, x=x, seed=3, engine=engine, dtype=dtype) for dtype in ("float32", "float64"))
    for row in ("log10_grad_weight", "log10_grad_activation", "log10_mean_square_activation", "saturated"):
        np.testing.assert_allclose(getattr(single, row), getattr(double, row), atol=2e-3, err_msg=row)


def test_what_is_held_between_calls_is_bounded():
    # Each call keeps 200 to 256 MiB of draws, of sizes that do not fit each other's places: a list that never lets go
    # would reach 1.1 GiB.
    code = """
for width, depth in ((512, 230), (1024, 55), (300, 640), (1500, 27), (2048, 15)):
    pk.propagate(pk.Chain(depth=depth, width=width), engine="dense", threads=1)
"""
    before, after = peaks(code)
    assert after - before < 576 + 64  # docs/design.md, section 5, and what a run has beside its draws
