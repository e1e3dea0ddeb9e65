# SPDX-License-Identifier: BSD-3-Clause
"""Every example runs and gives the answer that its text gives."""

import math
import re
import runpy
import sys

import numpy as np
import pytest
from places import ROOT
from scipy.special import digamma, polygamma

import pykernel as pk

EXAMPLES = sorted((ROOT / "examples").glob("[0-9][0-9]_*.py"))
ANSWERS = {}


def answer(function):
    ANSWERS[function.__name__.split("_")[1]] = function
    return function


# A logarithm of a squared norm that is multiplied by a random factor a layer has mean -beta/2 and variance beta beside
# the theory of infinite width, beta = v L/n (Hanin and Nica 2018): v = 3 E[phi'^4] / E[phi'^2]^2 - 1, that is 2 for
# linear chains, 5 for ReLU. In decades of the norm both shrink by 2 ln 10 (the standard deviation) or its like for the
# mean.


def drift(beta):
    """How far the typical norm lies below the mean-field one, in decades."""
    return beta / 2 / (2 * math.log(10))


def error(beta, replicas, middle=np.mean):
    """Five standard errors of a mean, or of a median, over replicas, in decades."""
    return 5 * math.sqrt(beta / replicas) / (2 * math.log(10)) * (1.2533 if middle is np.median else 1)


def mean_field(value, slope, scale, q=1.0, layers=300):
    """q, chi and v after so many layers with weights of standard deviation scale/sqrt(n)."""
    z = np.linspace(-12, 12, 4001)  # the trapezium rule, exact for what is smooth and gone at the ends
    w = np.exp(-z * z / 2) / np.exp(-z * z / 2).sum()
    for _ in range(layers):
        q = scale**2 * (w @ value(math.sqrt(q) * z) ** 2)
    squares = slope(math.sqrt(q) * z) ** 2
    return q, scale**2 * (w @ squares), 3 * (w @ squares**2) / (w @ squares) ** 2 - 1


def tanh_slope(z):
    return 1 - np.tanh(z) ** 2


def sigmoid(z):
    return 0.5 + 0.5 * np.tanh(z / 2)


def sigmoid_slope(z):
    return tanh_slope(z / 2) / 4


def batch_norm_rate(batch):
    """Factor a layer on the squared gradient of a ReLU chain with batch norm (Yang et al. 2019, theorems 7 to 9)."""
    c = -1 / (batch - 1)
    angle = math.acos(c)
    k0, k1 = 1 - angle / math.pi, (math.sqrt(1 - c * c) + (math.pi - angle) * c) / math.pi
    return (k0 + batch - 1) / ((batch - 3) * (1 - k1)) - 1 / (batch - 3)


@answer
def of_00(x):
    wanted = ["exploding", "exploding", "stable", "stable", "vanishing", "vanishing", "vanishing"]
    assert list(x["verdicts"].values()) == wanted
    beta = 5 * 200 / 256
    for measured, theory in x["ends"].values():
        assert abs(measured - theory) < drift(beta) + error(beta, 10, np.median)
    ends = {name: theory for name, (_, theory) in x["ends"].items()}
    assert abs(ends["ReLU, He x 1.5"] - 200 * math.log10(1.5)) < 1e-6
    assert abs(ends["ReLU, LeCun (1/n)"] + 100 * math.log10(2)) < 1e-6


@answer
def of_01(x):
    # c^l is exact in binary for a while and then correctly rounded: the logarithm is off by at most L eps / ln 10.
    for c, decades in x["decades"].items():
        assert abs(decades - x["deep"] * math.log10(c)) < x["deep"] * 2.0**-23
    for ends in (x["forward"], x["backward"]):
        assert ends[1.5, "float32"] == math.ceil(128 * math.log(2) / math.log(1.5))
        assert ends[1.5, "float64"] == math.ceil(1024 * math.log(2) / math.log(1.5))
        # 2^-149 is the smallest float32; a processor that flushes denormals gives up at 2^-126.
        assert ends[0.5, "float32"] in (127, 150)
        assert ends[0.5, "float64"] in (1023, 1075)


@answer
def of_02(x):
    # A factor's log, in one layer, over 50 draws; ReLU's v = 5 bounds the others. The drift of one layer is 5/(4n) of
    # it.
    tolerance = math.log(10) * (drift(5 / 512) + error(5 / 512, 50))
    for name, value in (("sigmoid", 0.236), ("ReLU", math.sqrt(0.5))):
        assert abs(x["derivative"][name][-1] / value - 1) < tolerance
        assert abs(x["weight"][name] - 1).max() < tolerance
        # Float32: the factors are ratios of the very norms whose quotient is the gradient.
        assert x["gap"][name] < 60 * 2.0**-23 * math.sqrt(512)
    _, chi, _ = mean_field(sigmoid, sigmoid_slope, 1.0)
    assert abs(math.sqrt(chi) - 0.236) < 0.001
    assert np.all(np.diff(x["derivative"]["tanh"][::5]) > 0)
    assert abs(x["derivative"]["tanh"][-1] / math.sqrt(1 - 1 / 30) - 1) < tolerance + 1 / 30**2 * math.log(
        30
    )  # chi = 1 - 1/l to that order


@answer
def of_03(x):
    verdicts = {name: p.verdict for name, p in x["measured"].items()}
    assert verdicts == {
        "sigmoid": "vanishing",
        "(a) tanh": "stable",
        "(b) ReLU, same weights": "vanishing",
        "(b) ReLU, He weights": "stable",
        "(c) sigmoid, batch norm": "stable",
        "(c) ReLU, batch norm": "exploding",
        "(d) sigmoid, weights x 4": "vanishing",
        "(d) sigmoid, weights x 10": "stable",
    }
    beta = 5 * 50 / 128  # of one input; 32 scatter less
    tolerance = drift(beta) + error(beta, 10, np.median)
    _, chi, _ = mean_field(sigmoid, sigmoid_slope, 1.0)
    assert abs(x["decades"]["sigmoid"] - 25 * math.log10(chi)) < tolerance + 0.05  # the first layers' q is not yet q*
    assert abs(x["decades"]["(b) ReLU, same weights"] + 25 * math.log10(2)) < tolerance
    assert (
        abs(x["measured"]["(c) ReLU, batch norm"].median("slope") - math.log10(batch_norm_rate(32)) / 2)
        < tolerance / 50
    )
    # chi = 1 - 1/l up to ln(l)/l^2, which from layer 100 on changes the exponent by less than ln(100)/100.
    assert abs(x["power"] + 0.5) < 0.046
    beta = 2 * 1000 / 4096  # tanh on small z is linear
    assert abs(x["measured_fall"][-1] - x["theory"][-1]) < drift(beta) + error(beta, 10, np.median)


@answer
def of_04(x):
    assert abs(x["theory"] - 10.149) < 0.001
    assert abs(mean_field(sigmoid, sigmoid_slope, x["theory"])[1] - 1) < 1e-6
    # Decades over L layers rise by slope L for each decade of gain. The drift counts twice: the forward norm has its
    # own.
    v = mean_field(sigmoid, sigmoid_slope, 10.149)[2]
    low, high = (mean_field(sigmoid, sigmoid_slope, gain)[1] for gain in (10.0, 11.0))
    slope = math.log10(high / low) / 2 / math.log10(1.1)
    for depth, measured in x["measured"].items():
        beta = v * depth / 256
        assert abs(math.log10(measured / x["theory"])) < (2 * drift(beta) + error(beta, 20, np.median)) / (
            slope * depth
        )


@answer
def of_05(x):
    # A least-squares slope of a random walk of L steps has 6/5 of the variance of its mean step.
    for name, v in (("relu", 5), ("tanh", 2)):
        below = x["gains"] < (3 if name == "relu" else 0.85)
        off = np.log10(x["factor"][name] / x["gains"])[below] + drift(v / 256)
        # 6/L^2 of the decades that tanh loses in its first layers, where z is not small yet: below .25.
        assert np.abs(off).max() < error(1.2 * v / (256 * 50), 30) + 6 * 0.25 / 50**2 + 1 / 256**2
    _, chi, v = mean_field(np.tanh, tanh_slope, 2.0)
    off = math.log10(x["factor"]["tanh"][-1]) - math.log10(chi) / 2
    assert abs(off) < 2 * drift(v / 256) + error(1.2 * v / (256 * 50), 30) + 6 * 0.25 / 50**2


@answer
def of_06(x):
    verdict = x["verdict"]
    assert set(verdict.loc[["linear", "tanh", "softsign", "arctan", "selu"], "lecun_normal"]) == {"stable"}
    assert verdict.loc["relu"].tolist() == ["vanishing", "vanishing", "stable", "vanishing", "vanishing"]
    assert set(verdict.loc["sigmoid"]) == {"vanishing"} == set(verdict["torch_linear_default"])
    assert verdict["he_normal"][["gelu", "silu", "mish", "softplus"]].tolist() == [
        "vanishing",
        "vanishing",
        "stable",
        "stable",
    ]
    assert (verdict["lecun_normal"] == verdict["glorot_normal"]).all()
    for (name, depth), (low, best, high) in x["window"].items():
        beta = 5 * depth / 256
        tolerance = drift(beta) + error(beta, 20, np.median)
        # Where the measured gradient keeps its size, theory must see it kept, but for the drift and the error of the
        # median.
        chain = pk.Chain(
            depth=depth, width=256, activation=name, init={"relu": "he_normal", "tanh": "lecun_normal"}[name]
        )
        assert abs(pk.predict(chain.replace(gain=float(best))).signal_end_to_end) < tolerance
        # scaling by g adds L log10 g to the same draws: exact, but for the interpolation of straight lines in float32
        if name == "relu":
            assert abs(math.log10(high / low) - 6 / depth) < 1e-3 / depth
    best = [x["window"]["tanh", depth][1] for depth in (10, 30, 100)]
    assert best[0] > best[1] > best[2] > 1


@answer
def of_07(x):
    n = x["width"]
    k = np.arange(1, n + 1)
    p = np.array([math.comb(n, i) for i in k.tolist()], dtype=float) / 2.0**n
    # One layer's factor is (2/n) chi^2_K, K binomial: exact mean and variance of its log.
    mean = math.log(4 / n) + p @ digamma(k / 2)
    variance = p @ polygamma(1, k / 2) + p @ digamma(k / 2) ** 2 - (p @ digamma(k / 2)) ** 2
    for depth, squared in x["squared"].items():
        five = 5 * math.sqrt(depth * variance / squared.size)
        assert abs(np.log(squared).mean() - depth * mean) < five
        # A sum of many: the median lies a sixth of third over second cumulant from the mean, below 1/n here.
        assert abs(np.log(np.median(squared)) - depth * mean) < 1.2533 * five + 1 / n
        beta = 5 * depth / n
        if beta < 3:  # the square of a lognormal has relative variance e^beta - 1, measurable up to there
            assert abs(squared.mean() - 1) < 5 * math.sqrt((math.exp(beta) - 1) / squared.size)
    # log10 of sqrt(variance/2) per layer, on top of the same draws: exact to rounding.
    for variance in (1.8, 2.2):
        assert abs(x["rate"][variance] - x["rate"][2.0] - 100 * math.log10(variance / 2)) < 1e-3


@answer
def of_08(x):
    factor = {name: np.log(f / x["gains"]) for name, f in x["factor"].items()}
    # The log of one layer's factor on the norm, over 3 networks and 15 layers of 256 units.
    for name, value, slope in (("tanh", np.tanh, tanh_slope), ("sigmoid", sigmoid, sigmoid_slope)):
        for gain, measured in zip(x["gains"], factor[name], strict=True):
            _, chi, v = mean_field(value, slope, gain, layers=22)  # the middle of layers 16 to 30
            tolerance = math.log(10) * (2 * drift(v / 256) + error(v / 256, 45))
            # The mean square of z itself scatters as a sum over layers of chances of 1/n each.
            assert abs(measured - math.log(math.sqrt(chi) / gain)) < tolerance + 0.5 / 15**2 + abs(1 - chi) / math.sqrt(
                256
            )
    for gain, measured in zip(x["gains"][:2], factor["4 sigmoid - 2"], strict=False):  # both all but linear
        chain = pk.Chain(depth=30, width=256, activation="tanh", init="lecun_normal", gain=gain)
        same = pk.propagate(chain, replicas=3, engine="dense")  # the draws that a function of one's own has
        rate = same.log10_derivative_factor[:, 15:] + same.log10_weight_factor[:, 15:]
        assert abs(measured - math.log(10) * rate.mean() + math.log(gain)) < 0.01
    assert np.exp(factor["sigmoid"]).max() < 0.25
    assert (x["factor"]["sigmoid"] < 1).all()


@answer
def of_09(x):
    dead, error = x["dead"], 5 * math.sqrt(0.25 / (128 * 8))
    assert np.abs(dead["batch 1"] - 0.5).max() < error  # each z has an even chance to be negative, whatever came before
    assert abs(dead["batch 8"][0] - 2.0**-8) < 5 * math.sqrt(2.0**-8 / (128 * 8))
    assert dead["batch 64"][0] == 0
    for name in ("batch 64", "batch 64, width 512 (dotted)"):
        assert np.all(np.diff(dead[name][[0, 9, 99]]) > 0) and dead[name].max() < 0.5 + error
    assert np.array_equal(dead["batch 64"], dead["batch 64, gain 2"])  # powers of two commute with rounding
    assert not dead["batch 64, leaky ReLU"].any()
    for n, measured in x["chance"].items():
        p = 1 - (1 - 2.0**-n) ** x["depths"]
        assert (np.abs(measured - p) < 5 * np.sqrt(p * (1 - p) / x["replicas"]) + 1 / x["replicas"]).all()


@answer
def of_10(x):
    for name, bits in (("bfloat16", 7), ("float16", 10), ("float32", 23), ("float64", 52)):
        # 1 + exp(-z) rounds to 1 from exp(-z) = 2^-(bits + 1) on, but for the rounding of z and exp, and the grid of
        # 1/32.
        assert abs(x["edge"][name] - (bits + 1) * math.log(2)) < 2.0**-bits * 16 + 1 / 32
    assert (x["s"] * (1 - x["s"]))[-1] == 0
    for head in ("sigmoid", "softmax"):
        stable, plain = x["loss"][head, "exponent"], x["loss"][head, "native"]
        assert np.isfinite(stable).all() and not np.isfinite(plain[-1])
        # 640 terms in float32; near 1 - s = eps the plain formula has lost most of its digits
        finite = np.isfinite(plain)
        assert np.allclose(plain[finite], stable[finite], rtol=0.02)
    # |y| > 16.6 kills one of 640 sigmoids, y > 88.7 one of 640 exponentials: first at a third of that, some three
    # standard deviations.
    first = {head: x["scales"][~np.isfinite(x["loss"][head, "native"])][0] for head in ("sigmoid", "softmax")}
    assert 16.6 / 4.5 < first["sigmoid"] < 16.6 and 88.7 / 4.5 < first["softmax"] < 88.7


@answer
def of_11(x):
    d, theory = x["decades"], x["theory"]
    # The same draws; in float64, since float32's rounding moves some of 6e6 units over the edge of their ReLU.
    double = [
        pk.propagate(x["chains"][name], batch=32, replicas=2, dtype="float64").signal_end_to_end
        for name in ("plain", "plain, 20 % less weight")
    ]
    np.testing.assert_allclose(double[1] - double[0], 152 * math.log10(0.8), atol=1e-9)
    # A plain layer brings 5/n to the variance of the log. A block with a skip, g + J^T g, has of its two layers' 10/n a
    # quarter, as J^T g is half of the sum, and 1/n of the cosine between the two; scaled by 1/76, only the cosine's
    # 4/76 n.
    beta = {
        "plain": 5 * 152 / 128,
        "plain, 20 % less weight": 5 * 152 / 128,
        "batch norm": 5 * 152 / 128,
        "skips": 3.5 * 76 / 128,
        "skips / sqrt(blocks)": 4 / 128,
    }
    for name, b in beta.items():
        assert abs(d[name] - theory[name]) < drift(b) + error(b, 10, np.median), name
    assert abs(theory["skips"] - 38 * math.log10(2)) < 1e-6
    assert abs(theory["skips / sqrt(blocks)"] - 38 * math.log10(1 + 1 / 76)) < 1e-6
    # ends of the chain
    assert abs(theory["batch norm"] - 76 * math.log10(batch_norm_rate(32))) < math.log10(batch_norm_rate(32)) * 3
    # Both: a block's branch adds (pi - 1)/pi to a variance that starts at 1, and pays pi/(pi - 1) for it (large
    # batches).
    r = math.pi / (math.pi - 1)
    closed = 0.5 * np.log10(1 + r / (1 + np.arange(76) / r)).sum()
    assert abs(pk.predict(x["chains"]["skips and batch norm"], batch=1000).signal_end_to_end / closed - 1) < 5 / 1000
    assert abs(d["skips and batch norm"] - theory["skips and batch norm"]) < drift(beta["skips"]) + error(
        beta["skips"], 10, np.median
    )
    # Outputs that are never negative add up: the sum gains on its parts, and the 1/n of the squared gradient that lies
    # along it with it.
    assert d["skips, ReLU last"] > d["skips"] + 3
    resnets_of_11(*x["images"])


def resnets_of_11(profiles, decades, theory):
    """Bands as of dense layers: each brings 5/fan_in, and a block with a skip .35 of its layers' sum, as above."""
    stages = {16: 3, 32: 8, 64: 36, 128: 3}
    block = {inside: 5 / (4 * inside) + 5 / (9 * inside) + 5 / inside for inside in stages}
    beta = sum(count * block[inside] for inside, count in stages.items())
    for name, b in {
        "plain": beta,
        "batch norm": beta,
        "skips": 0.35 * beta,
        "skips and batch norm": 0.35 * beta,
    }.items():
        assert abs(decades[name] - theory[name]) < drift(b) + error(b, 5, np.median), name
    # 34 equal blocks of the third stage, three layers each, batch norms over four images of 8 x 8 positions
    beta, rate = 34 * block[64], 3 / 2 * math.log10(batch_norm_rate(4 * 8 * 8))
    grown = profiles["batch norm"][13] - profiles["batch norm"][47]
    assert abs(grown - 34 * rate) < drift(beta) + error(beta, 5, np.median)
    # A block that is its skip passes on what comes, and the gradient changes where a stage begins.
    still = profiles["last norm at 0"]
    for begin, end in ((2, 4), (5, 12), (13, 48), (49, 51)):
        assert np.ptp(still[begin:end]) < 1e-6


@answer
def of_12(x):
    runs, ratio = x["runs"], x["ratio"]
    assert ratio["exploding", "none"] > 3 and ratio["vanishing", "none"] < -3
    for kind in ("exploding", "vanishing"):
        before = runs[kind, "none"].log10_grad_weight
        layer = np.logaddexp(2 * math.log(10) * before, 2 * math.log(10) * runs[kind, "none"].log10_grad_bias * 1.0)
        # 64 x 64 entries
        assert (runs[kind, "value 0.01"].log10_grad_weight <= np.minimum(before, math.log10(0.01 * 64)) + 1e-5).all()
        for name, norm in (
            ("norm 1, all together", np.logaddexp.reduce(layer, axis=1)[:, None]),
            ("norm 1, each layer", layer),
        ):
            after = before - np.maximum(0, norm) / (2 * math.log(10))  # weights and biases count together
            assert np.allclose(runs[kind, name].log10_grad_weight, after, atol=1e-9)
    # By value, entry by entry, of the gradients themselves: float32 against float64 through 60 chaotic layers.
    chain = x["exploding"].replace(clip=x["clips"]["value 0.01"])
    mine = [np.clip(g, -0.01, 0.01) for g in pk.gradients(x["exploding"], batch=4)]
    assert np.allclose([np.abs(g).max() for g in pk.gradients(chain, batch=4)], [np.abs(g).max() for g in mine])
    norms = [math.log10(np.linalg.norm(g)) for g in mine]
    assert np.allclose(runs["exploding", "value 0.01"].log10_grad_weight[0], norms, atol=0.02)


@answer
def of_13(x):
    # Scales only differ: exact to rounding. The paper's own figures are rounded to two digits, 5.9 * 4.2^2 * 2.9^2 *
    # 2.1^4.
    assert abs(x["vgg_ratio"] * 1.7e4 - 1) < 0.02
    assert abs(x["vgg_ratio"] * np.prod([math.sqrt(9 * d / 2) * 0.01 for d in x["channels"][1:]]) ** -1 - 1) < 1e-3
    assert abs(x["xavier_ratio"] / 2**-15 - 1) < 1e-3
    # Mean field, layer by layer: z has variance sigma^2 q from the small images on; |dJ/dz| and |dJ/dz| |a| follow.
    z, w = np.polynomial.hermite_e.hermegauss(101)
    w = w / w.sum()
    for name, variance in (("standard", 1 / 3), ("normalised", 1.0)):
        square, chi, a = (x["images"] ** 2).mean(), [], []
        fan = [1024 / 1012 if name == "normalised" else 1.0] + 4 * [1.0]  # 2 / (n_in + n_out) of the first matrix
        for l in range(5):
            a.append(square)
            q = variance * square * fan[l]
            square, d = w @ np.tanh(math.sqrt(q) * z) ** 2, w @ tanh_slope(math.sqrt(q) * z) ** 2
            chi.append(d * variance)
        back, weight = x["back"][name], x["weight"][name]
        beta = 2 * 4 / 1000
        tolerance = 2 * drift(beta) + error(beta, 5)  # one input; ten scatter less
        # delta_1 comes from delta_5 through the matrices 2 .. 5 and the slopes of layers 1 .. 4; delta_5 has its own
        # slope.
        assert abs(back[0] - back[-1] - 0.5 * sum(np.log10(chi[:4]))) < tolerance
        width = 0.5 * math.log10(1024 / 1000)
        assert (
            abs(weight[0] - weight[-1] - (0.5 * sum(np.log10(chi[:4])) + 0.5 * math.log10(a[0] / a[4]) + width))
            < tolerance
        )


@answer
def of_14(x):
    scale, alike = zip(*x["forgets"].values(), strict=True)
    assert max(scale) <= 10 and max(alike) < 80
    # Sixteen inputs of five networks; v = 5 bounds tanh's, and the first layers count as for 05: five layers of half a
    # decade.
    tolerance = math.sqrt(2) * error(1.2 * 5 / (512 * 80), 5)
    for slope in x["slope"].values():
        assert abs(slope - x["theory"].slope) < 2 * drift(5 / 512) + tolerance + 6 * 0.5 * 5 / 80**2
    relu = x["relu_slope"]
    # the same draws, the gradient sees signs only
    assert abs(relu["digits, 0 .. 16"] - relu["digits, scaled to 1"]) < 1e-6
    assert abs(relu["noise"] - relu["digits, 0 .. 16"]) < tolerance
    # A cosine takes a step of 1/sqrt(n) a layer and forgets it in xi/2 = 8.5; about 5 networks times 16/2 independent
    # pairs.
    assert np.abs(x["alike"]["digits, scaled to 1"] - x["theory"].similarity).max() < 5 * math.sqrt(8.5 / 512 / 40)


@answer
def of_15(x):
    # v for the sigmoid at its fixed point is below 5: beta = 1e-4 at a million units; five standard deviations.
    assert x["gap"] < error(5 * 20 / 1e6, 1)
    # Log-variance 5/n a layer, the exact mean of (1/n) chi^2_K, K binomial; least squares over 1e5 layers.
    k = np.arange(1, 33)
    mean = math.log(2 / 32) + np.array([math.comb(32, int(i)) for i in k]) / 2.0**32 @ digamma(k / 2)
    assert abs(x["exact"] - mean / (2 * math.log(10))) < 1e-4
    assert abs(x["slope"] - mean / (2 * math.log(10))) < error(1.2 * 6 / 32 / 1e5, 1)
    assert x["slope"] < x["wide_slope"] - 0.005


@pytest.mark.examples
@answer
def of_16(x):
    forward, backward = 0.4252215, 0.4558509  # E phi^2, E phi'^2 of gelu at mean square 1
    assert abs(x["factor"]["post-norm"] - math.sqrt((1 + backward) / (1 + forward))) < 1e-4  # eps of the norms
    beta = 2 * 64 / 256  # a branch scatters less than a linear layer of the width
    for name, rise in x["rise"].items():
        assert abs(rise - x["theory"][name]) < drift(beta) + error(beta, 20, np.median)
    # The signal's mean square after N pre-norm blocks is 1 + .425 N. Two layers of a weight's own make its gradient
    # scatter.
    tolerance = error(2 * 5 / 256, 20, np.median)
    depth = x["last"].depth.values
    falls = -0.5 * np.log10((1 + forward * depth) / (1 + forward))
    assert np.abs(x["last"].sel(blocks="pre-norm") - falls).max() < tolerance
    assert np.abs(x["last"].sel(blocks="post-norm")).max() < tolerance


@answer
def of_17(x):
    n = x["blocks"]
    sums = {"x + f": n * math.log10(2), "x + f / sqrt(blocks)": n * math.log10(1 + 1 / n)}
    sums |= dict.fromkeys(("x + f(norm(x))", "x + norm(f)"), math.log10(1 + n))
    sums |= dict.fromkeys(("(x + f) / sqrt(2)", "norm(x + f)"), 0.0)
    beta = 2 * n / x["n"]  # of a linear chain, which scatters more
    tolerance = drift(beta) + error(beta, 20, np.median)
    for name, decades in sums.items():
        assert abs(x["theory"][name] - decades / 2) < 1e-4  # eps of the norms
        assert abs(x["measured"][name] - decades / 2) < tolerance
        assert abs(math.log10(x["square"][name]) - decades) < 2 * tolerance


@answer
def of_18(x):
    _, chi, v = mean_field(np.sin, np.cos, math.sqrt(2))
    assert abs(x["exact"]() - math.sqrt(chi)) < 1e-6
    for name, width in (("without biases", lambda n: None), ("with the code's biases", lambda n: n)):
        for n, measured in zip(x["widths"], x["factor"][name], strict=True):
            tolerance = drift(v / n) + error(1.2 * v / (n * 50), 20) + 0.5 / 50**2
            assert abs(math.log10(measured / x["exact"](width(n)))) < tolerance
    assert x["factor"]["with the code's biases"][2] < 1 < x["factor"]["without biases"].min()


@answer
def of_19(x):
    z = np.linspace(-12, 12, 4001)
    w = np.exp(-z * z / 2) / np.exp(-z * z / 2).sum()
    silu, slope = z * sigmoid(z), sigmoid(z) + z * sigmoid_slope(z)
    assert abs(x["gain"] - (w @ silu**2) ** -0.5) < 1e-6
    assert abs(x["elasticity"] - 1 - (w @ (silu * slope * z)) / (w @ silu**2)) < 1e-3
    # Far from 1 silu is z / 2 or ReLU, and a block squares: but for a constant, which is small against the last of
    # twelve.
    for name in ("0.8 of the gain", "the gain", "1.25 of it"):
        assert abs(x["square"][name][-1] / x["square"][name][-2] - 2) < 0.02
    assert list(x["verdict"].values()) == ["vanishing", "vanishing", "exploding", "stable", "stable"]
    # one block: a gate of two layers and a layer
    assert np.abs(x["square"]["norm"]).max() < 2 * error(10 / x["n"], 20, np.median)
    theory = pk.predict(
        pk.Chain(depth=12, width=256, init="lecun_normal", blocks=x["patterns"]["norm"])
    ).signal_end_to_end
    beta = 10 * 12 / 256
    assert abs(x["decades"]["norm"] - theory) < drift(beta) + error(beta, 20, np.median)


@answer
def of_20(x):
    change = x["ds"].signal_end_to_end
    assert (abs(change) < 3).all() and (abs(change.sel(blocks="post-norm").median("replica")) < 1.2).all()
    # the recursion in mean square and mean product of positions gives 0.999 and 0.77; single networks of 128 units
    # stray
    assert x["cosine"]["post-norm"][11] > 0.99 and 0.6 < x["cosine"]["pre-norm"][11] < 0.85
    assert (np.diff(x["beside"]["post-norm"][:10]) < 0.1).all() and x["beside"]["post-norm"][20:].max() < -3
    # Feed-forwards keep half of what is apart, D, beside a stream of q = 3 l / 2: D' = D / (2 q). So 1 - cos = D / q
    # falls as l^(-2/3), with a term of the ReLU kernel of order its root; and queries with it, not by a factor a layer.
    T, layer, deep = x["T"], np.arange(6, 49), 400
    chain = pk.Chain(depth=deep, **x["base"], blocks=x["pre"])
    theory = pk.predict(chain, positions=T)
    apart = 1 - theory.similarity[1::2]
    g = dict(zip(chain.layers, theory.log10_grad_weight, strict=True))
    beside = np.array([g[f"{2 * i - 1}.query"] - g[f"{2 * i - 1}.value"] for i in range(1, deep + 1)])
    fades, queries = (row[-1] - row[deep // 2 - 1] for row in (np.log10(apart), beside))
    assert -2 / 3 - 0.2 * apart[deep // 2 - 1] ** 0.5 < fades / math.log10(2) < -2 / 3
    assert abs(queries - fades) < 0.005
    power = lambda row: np.polyfit(np.log10(layer), row[layer - 1], 1)[0]
    # a layer's row strays by .07 decades: its power by .07 / (43^(1/2) .25) = .04
    assert abs(power(x["beside"]["pre-norm"]) - power(beside)) < 0.12


@answer
def of_21(x):
    apart, L = x["apart"], x["L"]
    assert apart["attention alone"].max() < 1e-12
    # The common part's square |c + W c|^2 scatters by 6/n about its double, a quarter of that relative to it, and the
    # input's by 2/n: the mean of its inverse over 40 networks, five standard errors.
    beta = (1.5 * x["layer"] + 2) / x["n"]
    for name in ("with a skip", "skip and norm after"):
        told = np.log(apart[name] / x["theory"](x["layer"]))
        assert (abs(told - beta / 2) < beta / 2 + 5 * np.sqrt(beta / 40)).all()
    power = np.polyfit(np.log(x["layer"][11:]), np.log(apart["skip and norm before"][11:]), 1)[0]
    assert -1.6 < power < -0.7  # the common part grows by its own square over l, what is apart does not
    assert apart["the last, and ReLUs"][L - 1] > 2 * apart["skip and norm before"][L - 1]


@answer
def of_22(x):
    scaled, forgotten = x["growth"]["with 1/sqrt(2N)"], x["growth"]["forgotten"]
    assert max(scaled) < 1.3 * min(scaled) and 0.04 < max(scaled) < 0.08
    for layers, plain in zip(x["depths"], forgotten, strict=True):
        assert 0.8 < plain / (2 * layers * scaled[0]) < 2
    assert x["slope"]["with 1/sqrt(2N)"][-1] < 1.1 and x["slope"]["forgotten"][-1] > 2.5
    assert abs(x["loss"]["forgotten"][-1] - x["expected"]) < 0.1


@answer
def of_23(x):
    assert max(np.abs(x["cosine"]["DeepNorm"])) < 0.1 and min(x["cosine"]["post-norm"]) > 0.98
    assert abs(x["change"]["DeepNorm"]) < 0.05
    assert max(x["beside"]["post-norm"][1:]) < -10 and min(x["beside"]["DeepNorm"]) > -0.7


@answer
def of_24(x):
    assert abs(x["size"]["unit-scaled"][0] - 1) < 0.1
    assert abs(np.log(x["growth"][2:]).mean() - np.log(x["factor"])) < 0.1
    assert x["size"]["with a norm before"][-1] < 1.1 * x["factor"]
    assert x["size"]["skip and branch by sqrt(1/2)"][-1] > 100


@answer
def answer_30_bf16_turns_relu_gradients_not_signals(x):
    """At 100 layers of 512 units cosines of single networks spread by a sixth: eight of them by a sixteenth."""
    cosine = {what: values[0] for what, values in x["cosine"].items()}
    assert 0.4 < cosine["relu, bfloat16"] < 0.85 and 0.9 < cosine["relu, float16"] < 0.99
    assert min(cosine["tanh, bfloat16"], cosine["tanh, float16"]) > 0.995
    assert 10 ** x["error"]["relu, bfloat16"][-1] < 0.05
    assert abs(x["theory"]["relu, bfloat16"][0] - 0.62) < 0.02


@answer
def answer_31_loss_scales_have_a_window_or_none(x):
    for name, advice in x["advice"].items():
        flushed, lost = x["lost"][name].T
        assert lost[-1] > 0  # the largest scale of all overflows
        fits = (flushed < 0.02) & (lost == 0)
        assert fits.any() == (advice.loss_scale is not None)
        if advice.loss_scale:
            assert fits[np.argmin(np.abs(np.log2(x["scales"] / advice.loss_scale)))]
    assert [advice.loss_scale is None for advice in x["advice"].values()] == [False, False, True]


@answer
def answer_32_float8_lasts_some_layers(x):
    cosine = x["cosine"]
    ten, hundred = x["depths"].index(10), x["depths"].index(100)
    # 64 networks: over a hundred layers cosines scatter by .3 about .12 and, of gradients only, by .14 about .85
    assert 0.5 < cosine["all three"][ten] < 0.9 and cosine["all three"][hundred] < 0.25
    assert (cosine["gradients e5m2"] > cosine["signals e4m3"])[1:].all()
    assert cosine["gradients e5m2"][hundred] > 0.8


@answer
def answer_25_delta_orthogonal_keeps_ten_thousand_layers(x):
    L, n = x["L"], x["n"]
    # E tanh^2 = q - 2 q^2: q = 1/(2 l), chi = 1 - 1/l, and fluctuations that die out with q. Of n numbers on a sphere
    # E z^4 is n/(n + 2) of a normal's; the first layers, where q is not small, give a constant.
    assert abs(x["size"]["delta-orthogonal"] + math.log10(2 * L)) < 0.05
    assert abs(np.median(x["decades"]["delta-orthogonal"]) + math.log10(L) / 2) < 0.15
    assert abs(x["theory"] + math.log10(L) / 2) < 0.15
    # Of an n x n matrix of complex normals of variance 1/n a vector's log norm gains (psi(n) - ln n)/2, variance
    # psi'(n)/4; the largest of seven wave numbers (sixteen positions, four of them real, conjugates together) at most
    # so much more.
    loss = L * (math.log(n) - digamma(n)) / 2 / math.log(10)
    sigma = math.sqrt(L * polygamma(1, n) / 4) / math.log(10)
    gaussian = np.median(x["decades"]["Gaussian"])
    assert -loss - 5 * sigma / 5**0.5 < gaussian < -loss + 2 * sigma
    assert np.median(x["decades"]["orthogonal rows"]) < -loss / 2


@answer
def of_40(x):
    """Slopes over fifty steps of 100 units: the largest eigenvalue lies a few hundredths beyond the disc, and 30
    networks tell it to as much."""
    slope = {key: p.median("slope") for key, p in x["runs"].items()}
    for radius in x["radii"]:
        assert abs(slope["linear", radius] - math.log10(radius)) < 0.025
        assert slope["tanh", radius] < slope["linear", radius]
    assert abs(10 ** slope["tanh", 0.9] - 0.78) < 0.03 and abs(10 ** slope["tanh", 3.0] - 1.32) < 0.05
    squares = 10 ** (2 * x["runs"]["tanh", 0.9].log10_grad_weight[:, 0::2])
    recent = np.cumsum(squares[:, ::-1], axis=1) / squares.sum(axis=1, keepdims=True)
    assert 3 <= np.median((recent < 0.9).sum(axis=1)) + 1 <= 7
    assert abs(x["old"] - x["new"] - 6) < 0.7
    # one number for the weights and biases of all uses
    assert abs(x["after"]) < 0.05 and x["before"] > 6
    np.testing.assert_array_equal(x["clipped"].log10_grad_weight, x["runs"]["tanh", 3.0].log10_grad_weight)


@answer
def answer_41_coordinates_grow_as_promised(x):
    promised = {"standard": (-0.5, 0.5, 0.5, 1), "ntk": (-0.5, -0.5, -0.5, 0), "mup": (0, 0, 0, 0)}
    for name, exponents in promised.items():  # errors of .02 to .05
        np.testing.assert_allclose(x["slopes"][name][0], exponents, atol=0.15)


@answer
def answer_42_a_stable_network_that_does_not_train(x):
    deep = np.array(x["depths"])[:, None] / x["xi"]
    assert (x["left"][deep <= 1] < 0.1).all() and (x["left"][deep > 6] > 1 / 3).all()
    assert x["verdict"][70, 1.2] == "stable" and x["left"][-1, 1] > 1 / 3
    assert x["condition"][-1, 1] > 100 * x["condition"][0, 1]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example_gives_its_answer(path, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    import matplotlib.pyplot as plt

    if "sklearn" in path.read_text():
        pytest.importorskip("sklearn")
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])  # what a notebook has there
    monkeypatch.chdir(tmp_path)
    try:
        ANSWERS[path.stem[:2]](runpy.run_path(str(path)))
        (figure,) = shown
        figure.savefig("figure.png")
    finally:
        plt.close("all")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert [left.name for left in tmp_path.iterdir()] == ["figure.png"]  # it writes nothing


def test_examples_are_short_and_complete():
    assert [path.stem[:2] for path in EXAMPLES] == sorted(ANSWERS)
    for path in EXAMPLES:
        lines = path.read_text().splitlines()
        assert len(lines) < 80 and max(map(len, lines)) <= 110, path.name  # a column of a page
        assert "pykernel." not in re.sub(r'"""[\s\S]*?"""', "", path.read_text()), f"{path.name} reaches into a module"
