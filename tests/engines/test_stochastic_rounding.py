# SPDX-License-Identifier: BSD-3-Clause
"""Stochastic rounding: words against the rule, means and variances, addresses, runs in every backend, and the law."""

import math
from dataclasses import replace

import numpy as np
import pytest
from number_formats import CHAINS, FORMATS_OF_RUNS, GATED, MLP, agree, bits, hard_cases, random_numbers

import pykernel as pk
from pykernel import _core, observables, stream
from pykernel.engines import cpp
from pykernel.formats import FORMATS, Formats, rounded
from pykernel.lower import lower
from pykernel.theory.rounding import noise_power


def by_chance(**words):
    return Formats(**words, rounding="stochastic")


def hard_words(shape):
    """Random words, and those at which the rule has its edges."""
    words = np.random.default_rng(2).integers(0, 2**32, shape, dtype=np.uint32)
    for i, edge in enumerate((0, 1, 2**31 - 1, 2**31, 2**32 - 1)):
        words.ravel()[i::11] = edge
    return words


# -- single numbers


@pytest.mark.parametrize("isa", _core.kernels.isas())
@pytest.mark.parametrize("name", FORMATS)
def test_compiled_rounding_by_chance_is_the_rule(name, isa):
    """Numbers of the format, midpoints, neighbours and random ones; float64 has fractions of more bits than words."""
    row = FORMATS[name]
    x = np.concatenate([hard_cases(name), random_numbers(10**5)])
    x = np.resize(x, (-(-len(x) // 16), 16))
    words = hard_words(x.shape)
    for dtype, function in ((np.float32, _core.kernels.round_f32), (np.float64, _core.kernels.round_f64)):
        y = x.astype(dtype) * (1 + (dtype == np.float64) * 2.0**-40)
        got = function(isa, y, row.fraction, row.lowest, row.largest, row.infinite, 1, words)[: len(y)]
        np.testing.assert_array_equal(bits(got), bits(rounded(y, row, words=words)))


@pytest.mark.parametrize("name", FORMATS)
def test_mean_is_exact_and_variance_that_of_two_neighbours(name):
    """Of k + f units: mean exact, variance f (1 - f) squared units, normal and subnormal numbers alike; five standard
    errors over 200 000 words each. Numbers of the format stay, whatever the word."""
    row, rng = FORMATS[name], np.random.default_rng(0)
    units = 2.0 ** rng.integers(0, row.fraction + 3, 24) * rng.uniform(0.05, 2, 24)
    x = np.minimum(units * row.smallest_subnormal, 0.99 * row.largest) * rng.choice([-1, 1], 24)
    unit = 2.0 ** (np.maximum(np.floor(np.log2(np.abs(x))), row.lowest) - row.fraction)
    f = np.abs(x) / unit % 1
    words = rng.integers(0, 2**32, (200_000, 24), dtype=np.uint32)
    y = rounded(np.broadcast_to(x, words.shape), row, words=words)
    up = (np.abs(y / unit) - np.floor(np.abs(x) / unit)).mean(axis=0)  # in units, a mean of zeros and ones
    assert (np.abs(up - f) < 5 * np.sqrt(f * (1 - f) / len(words)) + 1e-9).all()
    assert np.isin(np.abs(y / unit) - np.floor(np.abs(x) / unit), (0, 1)).all()
    held = rounded(x, row)
    assert (rounded(np.broadcast_to(held, (5, 24)), row, words=hard_words((5, 24))) == held).all()


def test_beyond_the_largest_number_a_share_overflows():
    """A quarter of a unit beyond it, one in four does."""
    row = FORMATS["float8_e5m2"]
    words = np.random.default_rng(3).integers(0, 2**32, 40_000, dtype=np.uint32)
    x = np.full(len(words), row.largest + 2048.0)  # units are 8192
    over = np.isinf(rounded(x, row, words=words)).mean()
    assert over == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / len(words)))
    assert (rounded(x, row, "saturate", words) == row.largest).all()


# -- addresses


def test_bits_are_those_of_their_addresses():
    """One layer, rounded by hand with the words that the map of the stream names; the input's number is 0, the
    activation's that of its op, from 1, and gradients are of another purpose."""
    chain = pk.Chain(depth=1, width=70, activation="tanh", init="lecun_normal")
    formats = by_chance(weights="bfloat16", signals="float8_e4m3fn", gradients="float8_e5m2")
    rng = np.random.default_rng(5)
    x, c = rng.standard_normal((70, 3)), rng.standard_normal((70, 3))
    seed, replica = 11, 0
    tall = lambda purpose, op: stream.tall_words(seed, purpose, op, replica, 70, 3)
    w = pk.weights(chain, layer=1, seed=seed, dtype="float64")
    w = formats.rounded("weights", w, stream.matrix_words(seed, stream.ROUND_WEIGHT, 1, replica, 70, 70)[0])
    a0 = formats.rounded("signals", x, tall(stream.ROUND_SIGNAL, 0))
    z = formats.rounded("signals", w @ a0, tall(stream.ROUND_SIGNAL, 1))
    a1 = formats.rounded("signals", np.tanh(z), tall(stream.ROUND_SIGNAL, 2))
    g = formats.rounded("gradients", c, tall(stream.ROUND_GRADIENT, 3))  # at the node
    dz = formats.rounded("gradients", g * (1 - np.tanh(z) ** 2), tall(stream.ROUND_GRADIENT, 1))
    da = formats.rounded("gradients", w.T @ dz, tall(stream.ROUND_GRADIENT, 0))
    for backend in ("cpp", "reference"):
        p = pk.propagate(
            chain, formats=formats, x=x, cotangent=c, seed=seed, dtype="float64", engine="dense", backend=backend
        )
        assert p.log10_mean_square_activation[0, 0] == pytest.approx(np.log10((a1**2).mean()), abs=1e-12), backend
        assert p.log10_grad_preactivation[0, 0] == pytest.approx(np.log10(np.linalg.norm(dz)), abs=1e-12), backend
        assert p.log10_grad_activation[0, 0] == pytest.approx(np.log10(np.linalg.norm(da)), abs=1e-12), backend


# -- runs

MORE = {
    **CHAINS,
    "attention": pk.Chain(depth=2, width=24, blocks=[pk.Block(pk.Norm("layer"), pk.Attention(3), skip=1.0), MLP]),
    "tied orthogonal": pk.Chain(depth=4, width=24, init="orthogonal", tied=True),
    "convolution in groups": pk.Chain(
        depth=2, width=8, blocks=[pk.Block(pk.Conv(8, kernel=3, groups=2), "relu", pk.Conv(8, kernel=1), skip=1.0)]
    ),
}


@pytest.mark.parametrize("formats", FORMATS_OF_RUNS)
@pytest.mark.parametrize("chain", MORE)
def test_compiled_backend_is_the_reference(chain, formats):
    """Constant and identity weights, too, whose entries are rounded one by one; and networks deeper than the tape."""
    chosen, given = MORE[chain], replace(FORMATS_OF_RUNS[formats], rounding="stochastic")
    positions = 4 if chosen.attentions or chain.startswith("convolution") else ()
    for batch in (1, 9):
        run = dict(batch=batch, positions=positions, replicas=2, dtype="float64", engine="dense", formats=given)
        agree(*(pk.propagate(chosen, backend=b, **run) for b in ("cpp", "reference")))


@pytest.mark.parametrize("engine", ["dense", "matrix_free"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_do_not_depend_on_threads_memory_or_what_else_is_asked(engine, dtype):
    weights = "bfloat16" if engine == "dense" else "float32"
    formats = by_chance(weights=weights, signals="float8_e4m3fn", gradients="float8_e5m2", loss_scale=16)
    program = lower(pk.Chain(depth=6, width=24, blocks=[MLP, GATED]), batch=5, formats=formats, dtype=dtype)
    whole = cpp.run(program, 0, 3, threads=1, engine=engine)
    for threads, memory in ((2, 2**30), (7, 100_000), (3, 1)):
        again = cpp.run(program, 0, 3, threads=threads, memory=memory, engine=engine)
        assert all(np.array_equal(whole[name], again[name], equal_nan=True) for name in whole)
    last = cpp.run(program, 2, 1, threads=1, engine=engine)
    assert all(np.array_equal(whole[name][2:], last[name], equal_nan=True) for name in whole)
    nearest = cpp.run(replace(program, formats=replace(formats, rounding="nearest")), 0, 3, threads=1, engine=engine)
    assert not np.array_equal(whole["gradient_cosine"], nearest["gradient_cosine"])


def test_mean_over_roundings_is_the_run_without():
    """A linear chain is linear in its roundings: over many replicas of the rounding, with one given network, the mean
    gradient of the input is that without formats. What nearest rounding flushes altogether, chance keeps on average."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((16, 16)) / 4 for _ in range(3)]
    chain, run = pk.Chain(depth=3, width=16, activation="linear"), dict(weights=weights, engine="dense", batch=1)
    x, c = rng.standard_normal((16, 1)), rng.standard_normal((16, 1)) * 2.0**-18  # a quarter of a unit of e5m2
    formats = by_chance(gradients="float8_e5m2")
    p = pk.propagate(
        chain, x=x, cotangent=c, formats=formats, replicas=1500, keep=("grad_activation",), backend="reference", **run
    )
    found = np.array([kept["grad_activation"][0] for kept in p.kept])[:, :, 0]
    told = (weights[2] @ weights[1] @ weights[0]).T @ c[:, 0]
    error = found.std(axis=0) / math.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - told) < 5 * error).all()
    nearest = pk.propagate(chain, x=x, cotangent=c / 16, formats=replace(formats, rounding="nearest"), **run)
    assert nearest.flushed_gradient[0, -1] > 0.9


# -- theory


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn"])
def test_noise_of_a_rounding_by_chance(name):
    """Twice the power of nearest rounding where numbers are normal, and below the smallest number u the mean of
    x (u - x); 400 000 normals."""
    row, rng = FORMATS[name], np.random.default_rng(1)
    z = rng.standard_normal(400_000)
    words = rng.integers(0, 2**32, z.shape, dtype=np.uint32)
    for scale in (1.0, 3 * row.smallest_subnormal, 0.1 * row.smallest_subnormal):
        x = scale * z
        power = ((rounded(x, row, words=words) - x) ** 2).mean() / (x * x).mean()
        assert noise_power(row, math.log(scale), True) == pytest.approx(power, rel=0.05), scale
    if name != "float4_e2m1fn":  # most of whose numbers at 1 are subnormal
        assert noise_power(row, 0.0, True) == pytest.approx(2 * noise_power(row, 0.0), rel=0.05)


def test_how_far_a_chain_turns():
    """The correlation map with twice the source, against 24 networks of 512 units, as far as for nearest rounding."""
    formats = by_chance(weights="bfloat16", signals="bfloat16", gradients="bfloat16", loss_scale=16)
    chain = pk.Chain(depth=10, width=512)
    p, told = pk.propagate(chain, formats=formats, replicas=24, engine="dense"), pk.predict(chain, formats=formats)
    lost = 1 - p.gradient_cosine[:, 0]
    error = 3 * lost.std() / math.sqrt(24)
    assert lost.mean() == pytest.approx(1 - told.gradient_cosine[0], rel=0.2, abs=error)
    squares = 10 ** (2 * p.log10_error_signal)
    assert squares[:, -1].mean() == pytest.approx(10 ** (2 * told.log10_error_signal[-1]), rel=0.2)
    nearest = pk.predict(chain, formats=replace(formats, rounding="nearest"))
    ratio = 10 ** (2 * (told.log10_error_signal[0] - nearest.log10_error_signal[0]))
    assert ratio == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_shares_that_flush_and_overflow(activation):
    chain = pk.Chain(depth=4, width=512, activation=activation, gain=0.2)
    signals, gradients = by_chance(signals="float8_e4m3fn"), by_chance(gradients="float8_e5m2", loss_scale=2.0**-3)
    for name, formats in (("flushed_signal", signals), ("flushed_gradient", gradients)):
        p = pk.propagate(chain, formats=formats, batch=8, replicas=8, engine="dense")
        told, measured = pk.predict(chain, 8, formats=formats), p.rows[name].mean(axis=0)
        np.testing.assert_allclose(measured[:2], told.rows[name][:2], rtol=0.15, atol=0.02, err_msg=name)
    loud = by_chance(gradients="float16", loss_scale=2.0**23)
    p, told = pk.propagate(chain, batch=8, replicas=8, formats=loud), pk.predict(chain, 8, formats=loud)
    top = p.overflowed_gradient[:, -1].mean()
    assert top == pytest.approx(told.overflowed_gradient[-1], rel=0.15) and top > 0.01


# -- faces


def test_word_is_one_of_runs_sweeps_plans_and_the_command_line(capsys, tmp_path):
    from pykernel.cli import main, plans

    chain = pk.Chain(depth=4, width=16)
    ds = pk.sweep(
        {"rounding": ["nearest", "stochastic"]},
        chain,
        replicas=3,
        formats=pk.Formats(signals="float8_e4m3fn"),
        profiles=["gradient_cosine"],
        progress=False,
    )
    cosine = ds.gradient_cosine_mean.sel(layer=1)
    assert ds.rounding.values.tolist() == ["nearest", "stochastic"] and cosine[0] != cosine[1]
    flags = ["--depth", "4", "--width", "16", "--signals-format", "bfloat16", "--rounding", "stochastic"]
    assert main(["run", *flags]) == 0
    assert "rounded to: signals bfloat16, stochastic rounding" in capsys.readouterr().out
    assert main(["run", *flags[:-1], "up"]) == 2
    (tmp_path / "plan.toml").write_text('signals_format = "bfloat16"\nrounding = "stochastic"\n[grid]\ndepth = [3]\n')
    assert plans.read(str(tmp_path / "plan.toml"))["formats"] == by_chance(signals="bfloat16")


def test_nothing_is_random_where_nothing_is_rounded():
    plain, by = (pk.propagate(pk.Chain(depth=3, width=16), formats=f, engine="dense") for f in (Formats(), by_chance()))
    assert all(np.array_equal(plain.rows[r.name], by.rows[r.name], equal_nan=True) for r in observables.ROWS)


def test_numba_refuses_it_with_who_can():
    with pytest.raises(ValueError, match='backend="numba" rounds to nearest only; backend="cpp" and'):
        pk.propagate(pk.Chain(depth=3, width=8), engine="dense", backend="numba", formats=by_chance(signals="bfloat16"))
    # what rounds nothing is no question of how
    assert lower(pk.Chain(depth=3, width=8), formats=by_chance()).formats.stochastic is False
