# SPDX-License-Identifier: BSD-3-Clause
"""Verdicts with their certainty, advice on sick chains, Jacobian spectra, figures of a chain."""

import math

import numpy as np
import pytest

import pykernel as pk
from pykernel.theory import recommend as advice
from pykernel.theory.diagnosis import Unhealthy, median_interval


def test_interval_of_a_median_covers():
    """The order-statistics interval holds the true median as often as it says: 2000 ensembles of 15, five standard
    errors."""
    samples = np.random.default_rng(0).lognormal(size=(2000, 15))
    inside = [low <= 1 <= high for low, high, _ in map(median_interval, samples)]
    coverage = median_interval(samples[0])[2]
    assert coverage >= 0.95
    assert np.mean(inside) == pytest.approx(coverage, abs=5 * math.sqrt(0.05 * 0.95 / 2000))
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0, 0.75)


def test_laws_are_told_apart_at_any_magnitude():
    """To twelve digits, not twelve places: gains of 1e-300 and 1e-30 are two laws, and 1e300 overflows nothing."""
    law = lambda gain: advice._law(pk.Chain(depth=3, width=8, gain=gain), ())
    with np.errstate(all="raise"):
        laws = [law(gain) for gain in (1e-300, 1e-30, 1.0, 1e30, 1e300)]
    assert all(a != b for i, a in enumerate(laws) for b in laws[:i])
    assert law(1.0) == law(1.0 + 1e-15)


def test_diagnosis_of_a_sigmoid_chain():
    p = pk.propagate(
        pk.Chain(depth=30, width=64, activation="sigmoid", init="lecun_normal"), replicas=12, engine="dense"
    )
    d = p.diagnose()
    assert d.verdict == "vanishing"
    assert d.slope == pytest.approx(d.slope_theory, abs=4 * d.slope_error)
    assert d.interval[0] <= d.decades <= d.interval[1]
    assert abs(d.z) < 4
    least = math.log10(2.0**-149)
    assert d.layers_float32 == math.ceil(least / d.slope)
    # 71 by theory; the slope's standard error of .3 percent is .2 layers
    assert abs(d.layers_float32 - least / d.slope_theory) < 2
    for words in (
        "vanishes: -0.63",
        "theory -0.63",
        f"below float32 after {d.layers_float32} layers",
        "the derivative contributes -0.63",
    ):
        assert words in d.sentence
    with pytest.raises(Unhealthy, match="vanishes"):
        p.assert_healthy()
    p.assert_healthy(vanishing=-100)
    healthy = pk.propagate(pk.Chain(depth=20, width=64), replicas=4, engine="dense")
    healthy.assert_healthy()
    assert "stable" in str(healthy)


def test_weight_gradients_cannot_hide_a_vanishing_signal():
    """W = 0.5 I: every weight gradient is the same, the signal's falls as 0.5^L."""
    d = pk.propagate(pk.Chain(depth=40, width=8, activation="linear", init=pk.Identity(0.5)), replicas=2).diagnose()
    assert (d.verdict, d.measure) == ("vanishing", "signal_end_to_end")
    assert d.decades == pytest.approx(40 * math.log10(0.5), rel=1e-9)
    assert d.decades_theory == pytest.approx(d.decades, rel=1e-9)


SICK = {
    "sigmoid": pk.Chain(depth=50, width=48, activation="sigmoid", init="lecun_normal"),
    "torch default": pk.Chain(depth=100, width=48, init="torch_linear_default"),
    "gain 3": pk.Chain(depth=50, width=48, gain=3.0),
    "gelu": pk.Chain(depth=200, width=64, activation="gelu"),
    "batch norm": pk.Chain(depth=100, width=32, norm="batch"),
    "post-norm": pk.Chain(depth=100, width=48, norm="layer", residual=pk.Residual()),
    "chaotic tanh": pk.Chain(depth=100, width=48, activation="tanh", init="lecun_normal", gain=2.5),
    "softplus": pk.Chain(depth=80, width=48, activation="softplus", init="lecun_normal"),
    "big branches": pk.Chain(depth=100, width=48, order="norm-activation-linear", residual=pk.Residual()),
}


@pytest.mark.parametrize("name", SICK)
def test_advice_is_measured_healthy(name, monkeypatch):
    """The first piece of advice holds under other draws than those it was measured with."""
    chain = SICK[name]
    few = lambda *a: [c for c in every(*a) if c.chain.init.distribution != "haar" and c.chain.layer_widths.max() < 100][
        :5
    ]
    every = advice.proposals_for
    # enough to find one; the reference engine draws Haar matrices slowly
    monkeypatch.setattr(advice, "proposals_for", few)
    r = pk.recommend(chain, replicas=6)
    assert r.best is not None
    assert r.best.healthy
    assert max(map(len, str(r).splitlines())) <= 80
    batch = 16 if r.best.chain.norm == "batch" else 1
    again = pk.propagate(r.best.chain, replicas=9, seed=99, batch=batch, engine="dense")
    assert abs(np.median(again.signal_end_to_end)) < 3
    if r.original.healthy:
        assert "healthy as it is" in r.summary


def test_narrow_chain_names_its_spread():
    """64 wide, 500 deep: He weights lose about 4 decades at the median, and any plain draw spreads widely."""
    r = pk.recommend(pk.Chain(depth=500, width=64), replicas=2)
    assert r.original.predicted == pytest.approx(-0.543 * 500 / 64, rel=0.03)
    assert r.best is not None
    changes = [c.change for c in r]
    # branches of scale 0 measure exactly 0 and teach nothing: they do not come before other skip connections
    assert changes.index("skip connections, branches times 1/sqrt(depth)") < changes.index(
        "skip connections, branches start at 0"
    )


def test_no_advice_is_said_so():
    c = advice.Candidate("as it is", SICK["gelu"], 0, "nothing", verdict="vanishing", measured=-30.0)
    assert "none of the candidates" in advice.Recommendation(c, []).summary


@pytest.mark.parametrize(
    "fields",
    [{}, {"norm": "rms", "residual": pk.Residual(1, 0.7)}, {"norm": "layer", "order": "norm-activation-linear"}],
)
def test_spectrum_against_the_product(fields):
    """Small depth: numpy's singular values of central differences (error h^2), for every part of a layer."""
    chain = pk.Chain(depth=4, width=10, activation="tanh", init="lecun_normal", **fields)
    x, h = np.linspace(-1, 2, 10), 1e-5

    def out(at):
        p = pk.propagate(
            chain, x=at[:, None], engine="dense", backend="reference", dtype="float64", keep=("activation",)
        )
        return np.asarray(p.kept[0]["activation"][4]).ravel()

    J = np.stack([(out(x + h * e) - out(x - h * e)) / (2 * h) for e in np.eye(10)], axis=1)
    ours = pk.jacobian_spectrum(chain, x=x).log10_singular[0]
    np.testing.assert_allclose(10**ours, np.linalg.svd(J, compute_uv=False), rtol=1e-4, atol=1e-7)


def test_spectrum_at_depth():
    """Against 300 digits; the largest of n = 6 at L = 200 spans 10^-200 .. 1."""
    mpmath = pytest.importorskip("mpmath")
    chain = pk.Chain(depth=60, width=5, activation="linear", init="lecun_normal")
    s = pk.jacobian_spectrum(chain)
    with mpmath.workdps(200):
        M = mpmath.eye(5)
        for layer in range(1, 61):
            M = mpmath.matrix(pk.weights(chain, layer=layer).tolist()) * M
        exact = sorted((float(mpmath.log10(v)) for v in mpmath.svd_r(M, compute_uv=False)), reverse=True)
    np.testing.assert_allclose(s.log10_singular[0], exact, atol=1e-6)


def test_lyapunov_exponents_of_gaussian_products():
    """Newman 1986; four standard errors, variance of one step trigamma((n-k+1)/2) / 4."""
    from pykernel.theory.laws import trigamma

    n, L = 6, 600
    s = pk.jacobian_spectrum(pk.Chain(depth=L, width=n, activation="linear", init="lecun_normal"))
    error = np.sqrt([trigamma((n - k + 1) / 2) / 4 / L for k in range(1, n + 1)])
    np.testing.assert_array_less(np.abs(s.lyapunov[0] - s.lyapunov_theory), 4 * error)
    orthogonal = pk.jacobian_spectrum(pk.Chain(depth=20, width=12, activation="linear", init="orthogonal"))
    np.testing.assert_allclose(orthogonal.log10_singular, 0, atol=1e-5)  # float32 draws
    wide = pk.jacobian_spectrum(pk.Chain(depth=4, width=200, activation="linear", init="lecun_normal"))
    assert wide.log10_singular[0, 0] == pytest.approx(wide.largest_theory, abs=0.03)


def test_figures():
    plot = pytest.importorskip("matplotlib") and pytest.importorskip("pykernel.plot.chain")
    p = pk.propagate(pk.Chain(depth=8, width=16), replicas=6, engine="dense")
    theory = pk.predict(p.chain)
    for ax in (p.plot(), plot.gradient(p, prediction=theory), plot.factors(p), plot.distribution(p, prediction=theory)):
        assert "decade" in ax.get_ylabel() + ax.get_xlabel()
        assert ax.get_legend_handles_labels()[1]
    labels = p.plot().get_legend_handles_labels()[1]
    assert any("80 %" in label for label in labels)
    assert "sigma_w" in pk.phase_diagram("tanh", np.linspace(0.5, 2, 7), np.linspace(0, 0.5, 5)).plot().get_xlabel()


def test_the_sentence_names_bounds_interval_and_theory():
    p = pk.propagate(pk.Chain(depth=40, width=64), replicas=12, engine="dense")
    for words in (
        "within +-3 decades",
        "96% interval of the median",
        "order statistics of 12 replicas",
        "theory -0.348, z = ",
    ):
        assert words in p.diagnose().sentence
    assert "beyond -0.01" in p.diagnose(vanishing=-0.01).sentence
    for activation in ("relu", "tanh"):  # a rough law of the batch; none
        pair = pk.propagate(pk.Chain(depth=40, width=64, activation=activation), replicas=6, batch=2).diagnose()
        assert math.isnan(pair.z)
        assert ("theory for one input" in pair.sentence) == (activation == "tanh")


def test_numbers_for_json_keep_zero_and_nan_apart():
    """float32, gain 3: the signal overflows at about layer 80 and turns to nan; gain 0: exact zeros. Nobody knows what
    of a nan is dead."""
    p = pk.propagate(pk.Chain(depth=200, width=16, gain=3.0), precision="native", replicas=3)
    d = p.to_dict()
    assert d["layers"]["dead"][-1] is None
    assert d["layers"]["saturated"][0] == np.median(p.saturated[:, 0]) > 0
    assert (d["failure"]["kind"], d["failure"]["direction"]) == ("inf", "forward")
    assert str(d["failure"]["layer"]) in d["failure"]["sentence"]
    assert "1.000  1.000" not in str(p)
    zero = pk.propagate(pk.Chain(depth=4, width=8, gain=0.0), replicas=2).to_dict()
    assert zero["signal_end_to_end"] == "-inf"
    assert pk.predict(pk.Chain(depth=4, width=8, gain=0.0)).to_dict()["layers"]["log10_grad_activation"][0] == "-inf"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "fields",
    [
        {"gain": 0.0},
        {"bias_std": 1e300},
        {"gain": 0.0, "activation": "sigmoid"},
        {"gain": 1e150},
        {"gain": 1e-8, "norm": "rms"},
    ],
)
def test_extremes_warn_nobody(fields, batch):
    chain = pk.Chain(depth=5, width=8, **fields)
    for precision in ("exponent", "native"):
        p = pk.propagate(chain, replicas=3, batch=batch, precision=precision)
        str(p), p.diagnose(), p.to_dict()
    str(pk.predict(chain, batch))


@pytest.mark.parametrize("order", ["linear-norm-activation", "norm-activation-linear"])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_spectrum_is_of_the_chain_that_propagate_runs(order, every):
    """Same weights, biases and input: |J^T c| from the spectrum's own layers against the measured gradient: 1e-6."""
    from pykernel.lower import lower
    from pykernel.theory.plain import plain
    from pykernel.theory.spectrum import _steps

    chain = pk.Chain(depth=7, width=9, activation="gelu", order=order, residual=pk.Residual(every, 0.8), bias_std=0.3)
    C = np.linspace(-1, 1, 9)[:, None]
    p = pk.propagate(chain, replicas=2, seed=5, cotangent=C, engine="dense", dtype="float64")
    for replica in (0, 1):
        v = C[:, 0]
        for step in list(_steps(plain(lower(chain, seed=5, dtype="float64")), replica))[::-1]:
            v = step(v, transpose=True)
        assert math.log10(np.linalg.norm(v)) == pytest.approx(p.log10_grad_activation[replica, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("fields", "smallest"),
    [
        ({"depth": 12, "width": 24, "activation": "tanh", "bias_std": 0.2}, "finite"),
        ({"depth": 400, "width": 20, "activation": "softplus"}, "finite"),
        ({"depth": 1, "width": 40, "activation": "linear"}, "finite"),
        ({"depth": 6, "width": 24, "activation": "arctan", "residual": pk.Residual(2, 0.5)}, "finite"),
        ({"depth": 5, "width": 24, "activation": "gelu", "order": "norm-activation-linear", "norm": "rms"}, "finite"),
        ({"depth": 12, "width": 24, "order": "norm-activation-linear", "norm": "rms"}, "zero"),
        ({"widths": [24, 30, 20], "activation": "tanh"}, "unknown"),
    ],
)
def test_ends_of_the_spectrum_of_wide_chains(fields, smallest, monkeypatch):
    """Lanczos on layers and on their inverses against the full spectrum of the same draws: 1e-8 (layers of condition
    1e3 to 1e5)."""
    from pykernel.theory import spectrum

    chain = pk.Chain(**fields)
    full = pk.jacobian_spectrum(chain, replicas=2)
    monkeypatch.setattr(spectrum, "LARGEST_FULL", 8)
    ends = pk.jacobian_spectrum(chain, replicas=2)
    assert not ends.complete
    np.testing.assert_allclose(ends.log10_singular[:, 0], full.log10_singular[:, 0], atol=1e-8)
    if smallest == "unknown":
        assert np.isnan(ends.log10_condition).all()
    else:
        assert np.isfinite(ends.log10_condition).all() == (smallest == "finite")
        np.testing.assert_allclose(ends.log10_singular[:, 1], full.log10_singular[:, -1], atol=1e-8)
    assert {"finite": "condition", "zero": "smallest: 0", "unknown": "not computed"}[smallest] in str(ends)


@pytest.mark.parametrize("order", ["linear-norm-activation", "norm-activation-linear"])
@pytest.mark.parametrize(
    "fields",
    [{"activation": "softplus", "gain": 1.05, "depth": 200}, {"activation": "tanh", "gain": 12.0, "depth": 40}],
)
def test_singular_values_where_slopes_differ_by_any_factor(fields, order):
    """Their logs add up to that of the determinant, slopes of 1e-20 and all: 1e-8 decades (with rows as they come 5
    decades are lost)."""
    from pykernel.lower import lower
    from pykernel.theory.plain import plain
    from pykernel.theory.spectrum import _steps

    chain = pk.Chain(width=20, order=order, **fields)
    parts = [step.layers[0] for step in _steps(plain(lower(chain, dtype="float64")), 0)]
    determinant = sum(np.log10(part.slope).sum() + np.linalg.slogdet(part.W)[1] / math.log(10) for part in parts)
    assert min(part.slope.min() for part in parts) < 1e-12
    assert pk.jacobian_spectrum(chain).log10_singular.sum() == pytest.approx(determinant, abs=1e-8)


def test_spectrum_from_the_narrow_end(monkeypatch):
    """A wide input and a narrow output: all singular values, by the transpose."""
    from pykernel.theory import spectrum

    chain = pk.Chain(widths=[40, 30, 36, 7], activation="gelu")
    full = pk.jacobian_spectrum(chain)
    monkeypatch.setattr(spectrum, "LARGEST_FULL", 8)
    np.testing.assert_allclose(pk.jacobian_spectrum(chain).log10_singular, full.log10_singular, atol=1e-10)


@pytest.mark.parametrize("depth", [1000, pytest.param(4000, marks=pytest.mark.slow)])
def test_lyapunov_exponents_stay_finite_at_depth(depth):
    """Signals of 1e+300 and 1e+1200: finite, ordered, and their sum is log |det J| / L."""
    s = pk.jacobian_spectrum(pk.Chain(depth=depth, width=3, activation="leaky_relu(0.2)", gain=3.0, bias_std=0.1))
    assert np.isfinite(s.lyapunov).all()
    assert (np.diff(s.log10_singular) <= 0).all()
    assert s.lyapunov.sum() == pytest.approx(math.log(10) * s.log10_singular.sum() / depth, rel=1e-6)


@pytest.mark.parametrize(
    ("activation", "init", "gain"),
    [("linear", "lecun_normal", 1), ("relu", "he_normal", 1), ("relu", "orthogonal", 2**0.5)],
)
def test_variance_of_squared_singular_values(activation, init, gain):
    """L, 2 L and L at infinite width; at 100 wide and 3 deep within 15 percent (L / n and the spread over 4 draws)."""
    s = pk.jacobian_spectrum(pk.Chain(depth=3, width=100, activation=activation, init=init, gain=gain), replicas=4)
    assert s.variance_theory == pytest.approx({"lecun_normal": 3, "he_normal": 6, "orthogonal": 3}[init])
    assert s.relative_variance.mean() == pytest.approx(s.variance_theory, rel=0.15)


def test_words_say_whose_law_it_is():
    """A batch is compared with no z; the law of living networks is not the law of chains that mostly die; lines fit a
    terminal."""
    p = pk.propagate(pk.Chain(depth=152, width=512, activation="elu", init="lecun_normal"), batch=8, replicas=8)
    d = p.diagnose()
    assert math.isnan(d.z) and "z =" not in d.sentence and "theory for one input" in d.sentence
    narrow = pk.Chain(depth=100, width=4)
    predicted, measured = pk.predict(narrow), pk.propagate(narrow, replicas=30)
    assert predicted.verdict == measured.verdict == "dead" and "without a dead layer" in str(predicted)
    assert "30 replicas die, at layer" in " ".join(str(measured).split())
    normed = pk.Chain(depth=50, width=64, norm="batch", residual=pk.Residual(2))
    for text in (str(predicted), str(d), str(pk.predict(normed)), str(pk.propagate(normed))):
        assert max(map(len, text.splitlines())) <= 80 and "nan deca" not in text and "-inf a layer" not in text


def test_long_dense_runs_are_announced():
    from pykernel.engines import run

    with pytest.warns(UserWarning, match="hours.*he_normal"):
        run.announce(
            run.prepare(pk.Chain(depth=20, width=10**6, init="he_uniform"), engine="dense", backend="cpp"), 1, 2
        )


def test_a_healthy_median_of_unsure_draws_says_so():
    """Half of the draws beyond the bounds: the next seed's median may be, too."""
    r = pk.recommend(pk.Chain(80, 128, activation="softplus"))
    assert r.original.healthy and r.original.outside > 0.2
    assert "only in the median" in r.summary and "surer: gain" in r.summary


@pytest.mark.parametrize(
    "words", [{"gain": [1, 2, 3.0]}, {"activation": ["relu", "relu", "tanh"]}, {"norm": [None, "rms", None]}]
)
def test_depth_scales_of_layers_that_differ_are_refused(words):
    with pytest.raises(ValueError, match="this one has layers that differ"):
        pk.depth_scales(pk.Chain(depth=3, width=8, **words))
