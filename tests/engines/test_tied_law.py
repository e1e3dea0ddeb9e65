# SPDX-License-Identifier: BSD-3-Clause
"""Tied chains without weights have the law of drawn ones, jointly over uses; theory holds while depth is small beside
the root of the width."""

import numpy as np
import pytest
from two_samples import smallest_p

import pykernel as pk
from pykernel import oracle, stream
from pykernel.engines import cpp_matrix_free, reference, reference_matrix_free
from pykernel.lower import lower

REPLICAS = 700
ROWS = ("log10_grad_weight", "log10_mean_square_activation", "log10_weight_factor", "log10_grad_weight_total")
TANH = pk.Chain(depth=4, width=8, activation="tanh", init="lecun_normal", gain=1.6, bias_std=0.2, tied=True)
CHAINS = {
    "recurrent": TANH,
    "relu": TANH.replace(activation="relu", init="he_normal", gain=1.0),
    "more columns than units": TANH.replace(width=5, depth=5),
    "orthogonal": TANH.replace(init="orthogonal"),
    "linear": TANH.replace(activation="linear", gain=1.0, bias_std=0.0, depth=6),
    "looped": pk.Chain(
        depth=3, width=6, blocks=[pk.Block(pk.Norm("rms"), pk.Linear(9), "gelu", pk.Linear(6), skip=1.0)], tied=True
    ),
}


class FreshEachTime(reference_matrix_free.Conditioned):
    """Blind: every use has a weight of its own."""

    def oracle(self, layer):
        layers = self.program.layers
        return self.oracles.setdefault(
            layer,
            oracle.Gaussian(
                int(layers.units[layer - 1]),
                int(layers.columns[layer - 1]),
                oracle.normals_at(self.program.seed, 1000 + layer, self.replica),
            ),
        )


class Forgetful(reference_matrix_free.Conditioned):
    """Blind: the backward pass asks a weight that the forward pass has not seen."""

    def backward(self, layer, delta):
        rows, columns = int(self.program.layers.units[layer - 1]), int(self.program.layers.columns[layer - 1])
        return stream.matrix(self.program.seed + 1, 1, self.replica, rows, columns).T @ delta


@pytest.fixture
def fast_draws(monkeypatch):
    """The stream's definition is slow, and the law is all that matters here."""
    rng = np.random.default_rng(11)

    def tall(seed, purpose, layer, replica, units, columns=1, distribution="normal", first=0):
        return rng.normal(size=(units, columns))

    def matrix(seed, layer, replica, rows, columns, *rest):  # the same for every use and both passes
        return np.random.default_rng([seed, layer, replica]).normal(size=(rows, columns))

    monkeypatch.setattr(stream, "tall", tall)
    monkeypatch.setattr(stream, "matrix", matrix)


def statistics(chain, operator, batch=2):
    """Every row at every use, the total, and what ties uses and passes together: <a, dJ/da> at every node, and how much
    of the sum over uses is cancelled."""
    plan = lower(chain, batch=batch, dtype="float64", seed=3)
    rows = reference.run_operators(plan, 0, REPLICAS, operator, keep=("activation", "grad_activation"))
    # factors of orthogonal weights are one but for rounding
    names = [name for name in ROWS if name != "log10_weight_factor" or plan.draw(1).distribution != "haar"]
    found = [rows[name][:, i] for name in names for i in range(rows[name].shape[1])]
    kept = rows["keep"]
    for l in range(plan.counts.node):
        found.append(np.array([(k["activation"][l] * k["grad_activation"][l]).sum() for k in kept]))
    with np.errstate(invalid="ignore"):  # dead chains
        found.append(rows["log10_grad_weight_total"][:, 0] - rows["log10_grad_weight"].max(axis=1))
    return found


@pytest.mark.parametrize("name", CHAINS)
def test_the_law_is_that_of_one_drawn_weight(name, fast_draws):
    free = statistics(CHAINS[name], reference_matrix_free.Conditioned)
    dense = statistics(CHAINS[name], reference.Dense)
    assert smallest_p(dense, free) * len(CHAINS) > 0.01


@pytest.mark.parametrize("blind", [FreshEachTime, Forgetful])
def test_an_oracle_that_forgets_is_found_out(blind, fast_draws):
    chain = CHAINS["linear"]  # powers of one matrix are far from products of six
    assert smallest_p(statistics(chain, reference.Dense), statistics(chain, blind)) < 1e-4


COMPILED = {
    **CHAINS,
    # first, shared and last weights, all of them asked; more uses than the weight has dimensions
    "first and last": CHAINS["looped"].replace(
        depth=2, first=[pk.Linear(6)], last=[pk.Linear(3)], head=pk.Head("softmax", 2), bias_std=0.3
    ),
    "driven": pk.Chain(
        depth=4, width=5, blocks=[pk.Block(pk.Linear(), skip=1.0), pk.Drive(3), "tanh"], gain=0.7, tied=True
    ),
    "wide orthogonal": CHAINS["looped"].replace(init="orthogonal"),
    "exhausted": TANH.replace(width=3, depth=9),
    "orthogonal exhausted": TANH.replace(width=3, depth=6, init="orthogonal"),
}


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("name", COMPILED)
def test_the_compiled_oracle_agrees_with_the_definition(name, batch):
    """The same questions at the same addresses: float64 to rounding over the uses, amplified where directions are thin;
    float32 to a few eps a use, of frames times their condition."""
    words = dict(engine="matrix_free", batch=batch, replicas=3, seed=4)
    expected = pk.propagate(COMPILED[name], backend="reference", dtype="float64", **words)
    for dtype, tolerance in (("float64", 1e-9), ("float32", 1e-3)):
        found = pk.propagate(COMPILED[name], backend="cpp", dtype=dtype, **words)
        floor = expected.log10_grad_weight.max() - (11 if dtype == "float64" else 4)  # what is zero but for rounding
        for row, values in expected.rows.items():
            a, b = (np.maximum(v, floor) if "bias" in row else v for v in (found.rows[row], values))
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=row)


@pytest.mark.parametrize(("width", "init"), [(2100, "he_normal"), (2100, "orthogonal")])
def test_the_compiled_oracle_agrees_where_its_sums_are_cut(width, init):
    """Two groups of 2048 units (float64), and two strips of 64 directions: what a part lost would be of order one."""
    words = dict(engine="matrix_free", batch=11, dtype="float64", seed=4)
    chain = pk.Chain(depth=6, width=width, activation="tanh", init=init, tied=True)
    found, expected = (pk.propagate(chain, backend=backend, **words) for backend in ("cpp", "reference"))
    for row in ("log10_grad_weight_total", "log10_grad_activation", "log10_mean_square_preactivation"):
        np.testing.assert_allclose(found.rows[row], expected.rows[row], rtol=1e-9, atol=1e-9, err_msg=row)


@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_the_compiled_oracle_answers_for_what_a_factor_lets_go(activation):
    """Gradients 3e-7 of their length apart have one direction (below 2^-20); what is known of the rest is in the answer
    all the same, and 1e-8 in rows."""
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((2, 20, 3))
    cotangent = rng.standard_normal((20, 1)) * [1, 0.5, 2] + 3e-7 * noise
    chain = pk.Chain(depth=4, width=20, activation=activation, tied=True)
    if activation == "tanh":  # columns alike, for the gradient to stay so
        x = x[:, :1] + 1e-7 * x
    words = dict(engine="matrix_free", dtype="float64", x=x, cotangent=cotangent, seed=4)
    found, expected = (pk.propagate(chain, backend=backend, **words) for backend in ("cpp", "reference"))
    for row in ("log10_grad_weight_total", "log10_grad_weight", "log10_grad_activation"):
        np.testing.assert_allclose(found.rows[row], expected.rows[row], rtol=0, atol=1e-11, err_msg=row)


@pytest.mark.parametrize("name", COMPILED)
def test_the_compiled_law_is_that_of_one_drawn_weight(name):
    """.01 over the family; every use, the totals, and the two passes together."""
    dense, free = (_columns(COMPILED[name], engine, seed) for engine, seed in (("dense", 1), ("matrix_free", 2)))
    assert smallest_p(dense, free) * len(COMPILED) > 0.01


def test_what_forgets_is_found_out_among_compiled_laws():
    """Weights of their own for every use, as blind as an oracle can be, have another law."""
    dense = _columns(CHAINS["linear"], "dense", 1)
    assert smallest_p(dense[: 6 * 3], _columns(CHAINS["linear"].replace(tied=False), "matrix_free", 2)[: 6 * 3]) < 1e-6


def _columns(chain, engine, seed):
    """Statistics of 4000 compiled replicas; rows first, totals last."""
    p = pk.propagate(chain, engine=engine, backend="cpp", batch=2, replicas=4000, seed=seed)
    orthogonal = chain.init is not None and chain.init.distribution == "haar"
    names = [name for name in ROWS if not (orthogonal and name == "log10_weight_factor")]
    found = [p.rows[name][:, i] for name in names for i in range(p.rows[name].shape[1])]
    with np.errstate(invalid="ignore"):
        joint = [p.log10_mean_square_activation[:, -1] - p.log10_grad_activation[:, 0], p.end_to_end]
        cancelled = p.log10_grad_weight_total[:, 0] - p.log10_grad_weight.max(axis=1)
        return [*found, *joint, np.round(cancelled, 5)]  # of a weight that is used once it may be 0 but for rounding


@pytest.mark.parametrize("formats", [("bfloat16", "float16"), ("float8_e4m3fn", "float8_e5m2")])
def test_runs_with_and_without_formats_ask_one_oracle(formats):
    """Op by op, the run without formats first. Rounding to a format turns the last bit of float64 into a step of it,
    which seldom happens, so medians."""
    words = dict(engine="matrix_free", batch=3, replicas=4, dtype="float64", formats=pk.Formats("float32", *formats))
    p, q = (pk.propagate(TANH.replace(width=30), backend=backend, **words) for backend in ("cpp", "reference"))
    for name in ("log10_error_signal", "gradient_cosine", "log10_grad_weight_total"):
        assert np.median(np.abs(p.rows[name] - q.rows[name])) < 1e-8, name


@pytest.mark.parametrize(("width", "init"), [(33, "he_normal"), (5000, "he_normal"), (1500, "orthogonal")])
def test_an_oracles_bits_do_not_depend_on_threads_or_memory(width, init):
    """Several groups of units and strips of directions; a network cut among a team; no room for stored blocks."""
    program = lower(pk.Chain(depth=9, width=width, activation="tanh", init=init, tied=True), batch=9)
    one = cpp_matrix_free.run(program, 0, 2, threads=1)
    for threads, memory in ((3, None), (2, 0)):
        other = cpp_matrix_free.run(program, 0, 2, threads=threads, memory=memory)
        for name, row in one.items():
            np.testing.assert_array_equal(other[name], row, err_msg=name)


def test_auto_takes_one_engine_whatever_the_backend():
    wide, long = (pk.Chain(depth=L, width=n, activation="tanh", tied=True) for L, n in ((10, 2000), (600, 64)))
    assert pk.propagate(wide).engine == "matrix_free" and pk.propagate(long).engine == "dense"
    small = wide.replace(width=20)
    engines = {b: pk.propagate(small, backend=b).engine for b in ("cpp", "reference")}
    assert set(engines.values()) == {"matrix_free"}


def test_powers_of_one_gaussian_matrix():
    """|W^L x|^2 / |x|^2, W of 64 x 64 entries N(0, 1/64): medians .99, 2.5 and 2e4 after 8, 32 and 128 steps, where
    factors of their own leave .88, .61 and .135; the mean after 8 steps 1.13. Equal while L << sqrt(n) only."""
    chain = pk.Chain(depth=128, width=64, activation="linear", init="lecun_normal", tied=True)
    x = np.ones((64, 1))  # any direction: the law of W has none
    power = {
        tied: pk.propagate(chain.replace(tied=tied), x=x, engine="dense", replicas=3000).log10_mean_square_activation
        for tied in (True, False)
    }
    assert np.mean(10 ** power[True][:, 7]) == pytest.approx(1.13, rel=0.05)
    for tied, medians in ((True, {8: 0.99, 32: 2.5, 128: 2e4}), (False, {8: 0.88, 32: 0.61, 128: 0.135})):
        for steps, median in medians.items():
            found = power[tied][:, steps - 1]
            error = 1.2533 * found.std() / np.sqrt(len(found))  # of a median, in decades
            assert np.median(found) == pytest.approx(np.log10(median), abs=4 * error + 0.02), (tied, steps)
    from pykernel.theory.refusals import overused

    judged = {L: overused(lower(chain.replace(depth=L)).layers) for L in (2, 8, 9, 128)}
    assert judged[2] is judged[8] is None and judged[9] and "128 times" in judged[128]


def test_theory_is_that_of_untied_layers_while_uses_are_few():
    chain = pk.Chain(depth=8, width=400, activation="tanh", init="lecun_normal", gain=1.3, bias_std=0.2, tied=True)
    tied, untied = pk.predict(chain, batch=2), pk.predict(chain.replace(tied=False), batch=2)
    for name, row in untied.rows.items():
        if not name.endswith("_total"):
            np.testing.assert_array_equal(tied.rows[name], row, err_msg=name)
    measured = pk.propagate(chain, batch=2, replicas=60, engine="dense")
    for name in ("log10_grad_weight", "log10_grad_weight_total", "log10_grad_bias_total", "log10_grad_activation"):
        np.testing.assert_allclose(measured.median(name), getattr(tied, name), atol=0.05, err_msg=name)
    assert any("every use of a tied weight counts" in text for text in tied.validity)
    deep = chain.replace(depth=60)
    assert any("is used 60 times" in text for text in pk.predict(deep).validity)
    assert "no theory beside it" in str(pk.propagate(deep, replicas=2))
    with pytest.raises(ValueError, match="a skip carries the answers of earlier uses"):
        pk.predict(chain.replace(residual=pk.Residual(1)))
