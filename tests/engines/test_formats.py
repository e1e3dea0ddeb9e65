# SPDX-License-Identifier: BSD-3-Clause
"""Runs with number formats: plain NumPy, both compiled backends and the reference beside each other, ends and ties."""

import math

import numpy as np
import pytest
from number_formats import CHAINS, FORMATS_OF_RUNS, LAYERS, MLP, agree

import pykernel as pk
from pykernel import observables
from pykernel.engines import cpp
from pykernel.formats import FORMATS
from pykernel.lower import lower

ROWS = [row.name for row in observables.ROWS if row.extent == "rounded"]


def by_hand(chain, formats, x, cotangent, weights, slope):
    """A plain chain in low precision, step by step in NumPy: nodes before and after rounding, forward and backward."""
    phi, dphi = slope
    weights = [formats.rounded("weights", w) for w in weights]
    a, kept, nodes = formats.rounded("signals", x), [], []
    for w in weights:
        z = formats.rounded("signals", w @ a)
        before = phi(z)
        nodes.append((phi(w @ a) if phi is relu else before, before := formats.rounded("signals", before)))
        kept.append((w, z))
        a = before
    g, back = cotangent * formats.loss_scale, []
    for w, z in kept[::-1]:
        stored = formats.rounded("gradients", g)
        back.append((g, stored))
        g = w.T @ formats.rounded("gradients", stored * dphi(z))
    return nodes, back[::-1], formats.rounded("gradients", g)


def relu(z):
    return np.maximum(z, 0)


FUNCTIONS = {"relu": (relu, lambda z: (z > 0) * 1.0), "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2)}


@pytest.mark.parametrize("backend", ["reference", "cpp"])
@pytest.mark.parametrize("activation", FUNCTIONS)
def test_a_run_is_the_chain_rounded_step_by_step(activation, backend):
    """Float64 sums differ in order only, so that a number may meet a tie once in 2^40: rows to nine digits."""
    formats = pk.Formats("bfloat16", "float8_e4m3fn", "float8_e5m2", loss_scale=2.0**-13)
    chain = pk.Chain(depth=5, width=24, activation=activation, init="lecun_normal", gain=1.3)
    rng = np.random.default_rng(3)
    x, c = rng.standard_normal((24, 3)), rng.standard_normal((24, 3))
    weights = [pk.weights(chain, layer=l, seed=4, dtype="float64") for l in range(1, 6)]
    run = dict(seed=4, x=x, cotangent=c, dtype="float64", engine="dense", backend=backend)
    p = pk.propagate(chain, formats=formats, **run)
    nodes, back, first = by_hand(chain, formats, x, c, weights, FUNCTIONS[activation])
    plain, plain_back, _ = by_hand(chain, pk.Formats(), x, c, weights, FUNCTIONS[activation])
    scale = formats.loss_scale
    share = lambda before, after: ((before != 0) & np.isfinite(before) & after).mean()
    for l in range(5):
        (b, a), (gb, ga) = nodes[l], back[l]
        (truth, _), (g_truth, _) = plain[l], plain_back[l]
        told = {name: p.rows[name][0, l] for name in ROWS}
        want = {
            "flushed_signal": share(b, a == 0),
            "flushed_gradient": share(gb, ga == 0),
            "overflowed_signal": share(b, np.abs(a) >= 448),
            "overflowed_gradient": share(gb, np.abs(ga) >= 57344),
            "log10_error_signal": np.log10(np.linalg.norm(b - truth) / np.linalg.norm(truth)),
            "gradient_cosine": (gb * g_truth).sum() / np.linalg.norm(gb) / np.linalg.norm(g_truth),
            "log10_smallest_signal": np.log10(np.abs(b)[b != 0].min()),
            "log10_largest_signal": np.log10(np.abs(b).max()),
            "log10_smallest_gradient": np.log10(np.abs(gb)[gb != 0].min() / scale),
            "log10_largest_gradient": np.log10(np.abs(gb).max() / scale),
        }
        if l < 4:  # the last node's gradient is the cotangent itself
            want["log10_error_gradient"] = np.log10(np.linalg.norm(gb / scale - g_truth) / np.linalg.norm(g_truth))
        for name, value in want.items():
            assert told[name] == pytest.approx(value, rel=1e-9, abs=1e-9), (name, l)
        assert p.log10_mean_square_activation[0, l] == pytest.approx(np.log10((a**2).mean()), abs=1e-9)
        assert p.log10_grad_activation[0, l + 1] == pytest.approx(np.log10(np.linalg.norm(ga) / scale), abs=1e-9)
    assert p.log10_grad_activation[0, 0] == pytest.approx(np.log10(np.linalg.norm(first) / scale), abs=1e-9)
    assert p.flushed_gradient.max() > 0.05  # the case is a hard one


@pytest.mark.parametrize("batch", [2, 9])
@pytest.mark.parametrize("formats", FORMATS_OF_RUNS)
@pytest.mark.parametrize("chain", CHAINS)
def test_compiled_backend_is_the_reference(chain, formats, batch):
    run = dict(batch=batch, replicas=2, dtype="float64", engine="dense", formats=FORMATS_OF_RUNS[formats])
    agree(pk.propagate(CHAINS[chain], backend="cpp", **run), pk.propagate(CHAINS[chain], backend="reference", **run))


CAUSAL = pk.Block(pk.Norm("layer"), pk.Attention(3, causal=True), skip=1.0)
POOLED = pk.Block(
    pk.Conv(8, kernel=3, groups=2), pk.Norm("batch"), "relu", pk.Conv(8, kernel=1), skip=1.0, after="relu"
)
OVER_POSITIONS = {
    "attention": pk.Chain(depth=2, width=24, blocks=[CAUSAL, MLP]),
    "shared keys": pk.Chain(depth=2, width=24, blocks=[pk.Block(pk.Attention(4, kv_heads=2), skip=1.0)]),
    "convolution": pk.Chain(depth=2, width=8, blocks=[POOLED], last=[pk.Pool("mean")], head=pk.Head("softmax", 5)),
    "largest": pk.Chain(width=8, blocks=[pk.Block(pk.Conv(8, stride=2), "tanh"), pk.Block(pk.Pool("max", 2))]),
    "tied, driven": pk.Chain(depth=4, width=24, tied=True, blocks=[pk.Block(pk.Linear(24), pk.Drive(5), "tanh")]),
}


def agree_over_positions(chain, formats, backend):
    run = dict(batch=2, positions=8, replicas=2, dtype="float64", engine="dense", formats=FORMATS_OF_RUNS[formats])
    agree(*(pk.propagate(OVER_POSITIONS[chain], backend=b, **run) for b in (backend, "reference")))


@pytest.mark.parametrize("formats", FORMATS_OF_RUNS)
@pytest.mark.parametrize("chain", OVER_POSITIONS)
def test_steps_over_positions_are_rounded_as_in_the_reference(chain, formats):
    agree_over_positions(chain, formats, "cpp")


@pytest.mark.slow
@pytest.mark.parametrize("chain", ["attention", "convolution", "largest"])
def test_steps_over_positions_in_numba(chain):
    agree_over_positions(chain, "fp8", "numba")


@pytest.mark.slow
@pytest.mark.parametrize("formats", ["bfloat16", "fp8"])
@pytest.mark.parametrize("chain", ["relu", "tanh, orthogonal, mse", "blocks, softmax"])
def test_numba_is_the_reference(chain, formats):
    run = dict(batch=3, replicas=2, dtype="float64", engine="dense", formats=FORMATS_OF_RUNS[formats])
    agree(pk.propagate(CHAINS[chain], backend="numba", **run), pk.propagate(CHAINS[chain], backend="reference", **run))


@pytest.mark.parametrize("engine", ["dense", "matrix_free"])
def test_bits_do_not_depend_on_threads_memory_or_what_else_is_asked(engine):
    """Little memory: the tape is cut into segments, and both runs computed twice."""
    weights = "bfloat16" if engine == "dense" else "float32"
    formats = pk.Formats(weights, "bfloat16", "float8_e5m2", loss_scale=16)
    chain = pk.Chain(depth=40, width=48, activation="tanh", init="lecun_normal", gain=1.2)
    program = lower(chain, batch=5, formats=formats)
    whole = cpp.run(program, 0, 3, threads=1, engine=engine)
    for threads, memory in ((2, 2**30), (7, 2**30), (1, 100_000), (3, 1)):
        again = cpp.run(program, 0, 3, threads=threads, memory=memory, engine=engine)
        assert all(np.array_equal(whole[name], again[name], equal_nan=True) for name in whole)
    last = cpp.run(program, 2, 1, threads=1, engine=engine)
    assert all(np.array_equal(whole[name][2:], last[name], equal_nan=True) for name in whole)


def test_a_run_without_rounding_is_the_run_without_formats():
    plain, none = (pk.propagate(LAYERS, batch=3, replicas=2, formats=f, engine="dense") for f in (None, pk.Formats()))
    for row in observables.ROWS:
        if row.extent != "rounded":
            assert np.array_equal(plain.rows[row.name], none.rows[row.name], equal_nan=True)
    assert plain.gradient_cosine.shape == (2, 0)
    assert (none.log10_error_gradient == -np.inf).all()
    assert none.gradient_cosine == pytest.approx(1.0, abs=1e-14)
    assert not (none.flushed_signal.any() or none.overflowed_gradient.any())


def test_loss_scale_is_divided_out_and_moves_what_flushes():
    """A format that the gradient fits in: a power of two changes nothing. One that it does not: what flushes at scale 1
    at cotangent c flushes at scale s at cotangent c / s."""
    run = dict(batch=2, replicas=3, engine="dense", seed=7)
    wide = [pk.propagate(LAYERS, formats=pk.Formats(gradients="bfloat16", loss_scale=s), **run) for s in (1, 2.0**30)]
    for row in observables.ROWS:
        if row.name != "log10_error_gradient":
            np.testing.assert_allclose(wide[0].rows[row.name], wide[1].rows[row.name], atol=1e-6, err_msg=row.name)
    c = np.random.default_rng(0).standard_normal((40, 2)) * 1e-7
    p = pk.propagate(LAYERS, cotangent=c, formats=pk.Formats(gradients="float16"), **run)
    q = pk.propagate(LAYERS, cotangent=c / 1024, formats=pk.Formats(gradients="float16", loss_scale=1024), **run)
    assert p.flushed_gradient.mean() > 0.05
    np.testing.assert_array_equal(p.flushed_gradient, q.flushed_gradient)
    np.testing.assert_allclose(p.gradient_cosine, q.gradient_cosine, atol=1e-6)


def test_overflow_goes_on_as_plain_arithmetic_makes_it():
    """Beyond 65504 a signal is inf, and inf minus inf nan; a format without inf, or one that saturates, stays at its
    largest."""
    chain = pk.Chain(depth=30, width=32, gain=3.0)
    p = pk.propagate(chain, formats=pk.Formats(signals="float16", gradients="float16"), engine="dense")
    first = int(np.argmax(~np.isfinite(p.log10_mean_square_activation[0])))
    assert p.overflowed_signal[0, first] > 0 and not p.overflowed_signal[0, :first].any()
    assert np.isnan(p.log10_mean_square_activation[0, -1])
    for formats in (pk.Formats(signals="float16", overflow="saturate"), pk.Formats(signals="float8_e4m3fn")):
        q = pk.propagate(chain, formats=formats, engine="dense")
        assert q.log10_largest_signal[0, -1] > np.log10(FORMATS[formats.signals].largest)
        assert q.overflowed_signal[0, -1] > 0.1
        assert q.log10_mean_square_activation.max() <= 2 * np.log10(FORMATS[formats.signals].largest)


@pytest.mark.parametrize("engine", ["dense", "matrix_free"])
@pytest.mark.parametrize("gain", [1e10, 1e-10, 1e300, 1e-300])
@pytest.mark.parametrize("overflow", ["inf", "saturate"])
def test_any_magnitude_ends(engine, gain, overflow):
    """No exponent hides what a format does, and none makes the run hang; a gated chain squares magnitudes."""
    formats = pk.Formats(signals="bfloat16", gradients="float16", overflow=overflow)
    gated = pk.Chain(depth=40, width=16, blocks=[GATED16])
    for chain in (pk.Chain(depth=20, width=16, gain=gain), gated.replace(gain=min(max(gain, 1e-30), 1e30))):
        p = pk.propagate(chain, batch=2, engine=engine, formats=formats)
        shares = p.flushed_signal + p.overflowed_signal
        assert ((shares >= 0) & (shares <= 1)).all()


GATED16 = pk.Block(pk.Gated(16, "relu"))


def test_matrix_free_refuses_weights_with_the_engine_that_can():
    with pytest.raises(ValueError, match='draws no weights to round; engine="dense" can'):
        pk.propagate(LAYERS, engine="matrix_free", formats=pk.Formats(weights="bfloat16"))
    assert pk.propagate(LAYERS, formats=pk.Formats(weights="bfloat16")).engine == "dense"
    assert pk.propagate(LAYERS, formats=pk.Formats(signals="bfloat16")).engine == "matrix_free"


# -- overflow: what plain arithmetic makes of true values, alike everywhere

HUGE = {
    "factors beyond float": pk.Chain(depth=3, width=8, blocks=[pk.Block(pk.Linear(8), pk.Scale(1e300), skip=-1e300)]),
    "branch beyond float": pk.Chain(depth=3, width=8, blocks=[pk.Block(pk.Linear(8), "relu", skip=1.0, scale=1e300)]),
    "scores beyond float": pk.Chain(depth=2, width=8, blocks=[pk.Block(pk.Attention(2, scale=1e300), skip=1.0)]),
    "gate": pk.Chain(depth=3, width=8, blocks=[pk.Block(pk.Scale(1e30), pk.Gated(8, "silu"), pk.Linear(8), skip=1.0)]),
    "norm behind": pk.Chain(depth=3, width=8, blocks=[pk.Block(pk.Scale(7e4), pk.Norm("rms"), pk.Linear(8), skip=1.0)]),
    "biased": pk.Chain(depth=3, width=8, activation="tanh", gain=1e5, bias_std=0.5),
    "no slope left": pk.Chain(depth=2, width=8, activation="arctan", gain=1e200),
    "softmax": pk.Chain(depth=2, width=8, gain=1e5, head=pk.Head("softmax", 3)),
    "sigmoid": pk.Chain(depth=2, width=8, gain=1e200, head=pk.Head("sigmoid", 3)),
    "mse": pk.Chain(depth=2, width=8, gain=1e200, head=pk.Head("mse", 3)),
    "linear": pk.Chain(depth=2, width=8, gain=1e200, head=pk.Head("linear", 3)),
}
NARROW = {
    "signals": pk.Formats("bfloat16", "float16"),
    "gradients": pk.Formats(gradients="float16"),
    "both": pk.Formats(signals="bfloat16", gradients="float16", loss_scale=16),
    "saturating": pk.Formats(signals="float16", gradients="float16", overflow="saturate"),
}


def kind(x):
    """0 for a number, else which inf, or nan."""
    return np.where(np.isnan(x), 2, np.where(np.isinf(x), np.sign(x), 0))


def assert_same_kinds(chain, formats, backend):
    run = dict(batch=3, formats=formats, engine="dense", positions=4 if chain.attentions else (), dtype="float64")
    p, q = (pk.propagate(chain, backend=b, **run) for b in ("reference", backend))
    for row in observables.ROWS:
        np.testing.assert_array_equal(kind(p.rows[row.name]), kind(q.rows[row.name]), err_msg=row.name)


@pytest.mark.parametrize("formats", NARROW)
@pytest.mark.parametrize("chain", HUGE)
def test_what_overflows_is_inf_or_nan_alike_in_both_backends(chain, formats):
    assert_same_kinds(HUGE[chain], NARROW[formats], "cpp")


@pytest.mark.slow
@pytest.mark.parametrize("chain", ["factors beyond float", "scores beyond float", "mse"])
def test_what_overflows_is_the_same_in_numba(chain):
    for formats in NARROW.values():
        assert_same_kinds(HUGE[chain], formats, "numba")


def test_inf_and_a_finite_number_is_inf():
    """Scale(1e300) overflows float16; -1e300 a, of a finite a, is a finite number that no float32 holds, not -inf:
    their sum is inf, not nan. Where the factors are exchanged with their signs it is -inf."""
    for factor in (1e300, -1e300):
        chain = pk.Chain(
            depth=1, width=4, init="identity", blocks=[pk.Block(pk.Linear(4), pk.Scale(factor), skip=-factor)]
        )
        for backend in ("reference", "cpp"):
            for dtype in ("float32", "float64"):
                p = pk.propagate(
                    chain,
                    x=np.ones((4, 1)),
                    formats=pk.Formats(signals="float16"),
                    backend=backend,
                    dtype=dtype,
                    engine="dense",
                )
                assert p.mean_activation[0, 0] == math.copysign(math.inf, factor), (backend, dtype)


def test_infinite_logits_are_those_of_plain_softmax():
    """e^(inf - inf) is nan: so is the gradient of an input whose logit overflowed."""
    chain = pk.Chain(depth=1, width=8, gain=1e5, activation="linear", head=pk.Head("softmax", 3))
    p = pk.propagate(chain, formats=pk.Formats(signals="float16"), engine="dense")
    assert np.isnan(p.loss[0]) and np.isnan(p.log10_grad_activation[0, 0])


def test_errors_far_beyond_float64_are_told():
    """A tanh at 1e5 lets nothing through, rounded to 65504 or inf it does by other exponents: the distance is told in
    decades, and a cosine is between -1 and 1 however far apart the sizes are."""
    chain = pk.Chain(depth=3, width=8, activation="tanh", gain=7e4)
    for backend in ("reference", "cpp"):
        formats = pk.Formats("bfloat16", "float16")
        # of seeds 0 to 29 one in three has an entry that is rounded across the edge; this one by 185 decades
        p = pk.propagate(chain, batch=3, seed=19, formats=formats, engine="dense", backend=backend, dtype="float64")
        assert p.log10_error_gradient[0, 0] > 150, backend
        assert np.isfinite(p.log10_error_gradient[0, :-1]).all() and (np.abs(p.gradient_cosine) < 1 + 1e-12).all()
        gone = pk.propagate(
            chain.replace(activation="relu", gain=1e30),
            cotangent=np.full((8, 3), 1e-200),
            formats=pk.Formats(gradients="float16"),
            backend=backend,
            engine="dense",
        )
        assert gone.log10_error_gradient[0, :-1] == pytest.approx(0.0, abs=1e-12)  # all of it is lost


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("over", ["first", "last", "mean"])
@pytest.mark.parametrize("engine", ["dense", "matrix_free"])
def test_heads_round_the_logits_of_what_they_read(engine, over, rounding):
    """Not those of every position: a mean of rounded numbers is none of the format, and chance has addresses."""
    chain = pk.Chain(depth=1, width=5, blocks=["tanh", pk.Linear()], head=pk.Head("softmax", 20, over=over))
    formats = pk.Formats(signals="float6_e2m3fn", gradients="float6_e3m2fn", loss_scale=64, rounding=rounding)
    run = dict(batch=3, positions=7, formats=formats, engine=engine, dtype="float64")
    agree(*(pk.propagate(chain, backend=b, **run) for b in ("cpp", "reference")), tolerance=1e-9)


def test_what_is_no_number_is_not_taken_for_zero():
    """Gradients that overflow, and behind them inputs that flushed: their product is no number, nor is the cosine of
    such a column with others."""
    tied = pk.Chain(depth=3, width=6, activation="tanh", gain=1e-3, tied=True)
    over = pk.Formats("float4_e2m1fn", "float8_e5m2", "float16", loss_scale=2.0**80)
    beyond = pk.Chain(depth=1, width=4, gain=1e100, blocks=[pk.Block(pk.Linear(), pk.Norm("layer"), skip=1.0)])
    for backend in ("cpp", "reference"):
        p = pk.propagate(tied, batch=2, formats=over, backend=backend, engine="dense")
        assert np.isnan(p.log10_grad_weight_total).all(), backend
        x = np.array([[0.0] * 4, [1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]]).T
        q = pk.propagate(beyond, x=x, formats=pk.Formats("bfloat16"), backend=backend, engine="dense")
        assert np.isnan(q.similarity[0, -1]), backend


# -- attention: ties


UNIFORM = pk.Chain(depth=3, width=8, blocks=[pk.Block(pk.Attention(2, scale=0.0, causal=True), skip=1.0)])


@pytest.mark.parametrize("positions", [2, 3, 4, 8])
@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn"])
def test_uniform_attention_meets_the_same_ties(name, positions):
    """A mean of numbers of a format is often a midpoint of two: it is taken as a sum of numbers, divided once, so both
    backends see the tie."""
    run = dict(
        batch=3, positions=positions, replicas=3, dtype="float64", engine="dense", formats=pk.Formats(signals=name)
    )
    agree(pk.propagate(UNIFORM, backend="cpp", **run), pk.propagate(UNIFORM, backend="reference", **run), 1e-9)


def test_ties_of_sums_of_thirds_are_bounded():
    """What flows back to a value from queries of several heads, over 3 each, may be a midpoint that no term is: the
    last bit of a sum decides, and two backends part by a unit of the format in single numbers."""
    chain = pk.Chain(depth=1, width=8, blocks=[pk.Block(pk.Attention(4, kv_heads=1, scale=0.0, causal=True), skip=1.0)])
    for seed in range(8):
        run = dict(batch=3, positions=6, seed=seed, dtype="float64", engine="dense")
        p, q = (
            pk.propagate(chain, backend=b, formats=pk.Formats("float32", "bfloat16", "float8_e5m2"), **run)
            for b in ("cpp", "reference")
        )
        for name in ("log10_grad_activation", "log10_grad_weight"):
            bound = math.log10(1 + 2.0 ** -FORMATS["float8_e5m2"].fraction)
            with np.errstate(invalid="ignore"):
                apart = np.abs(p.rows[name] - q.rows[name])
            assert np.nanmax(apart) < bound, name
        np.testing.assert_allclose(p.log10_mean_square_activation, q.log10_mean_square_activation, atol=1e-9)
