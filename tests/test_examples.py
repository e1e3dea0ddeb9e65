# SPDX-License-Identifier: BSD-3-Clause
"""Every example runs and gives the answer that its text gives; every snippet of the documentation runs."""

import doctest
import math
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("[0-9][0-9]_*.py"))
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "guides").glob("*.md")])
ANSWERS = {}


def answer(function):
    ANSWERS[function.__name__.split("_")[1]] = function
    return function


@answer
def of_00(x):
    wanted = ["exploding", "exploding", "stable", "stable", "vanishing", "vanishing", "vanishing"]
    assert list(x["verdicts"].values()) == wanted
    # A median of ten networks of 256 units: beta = 5 L/n for ReLU, so the log10 of the norm lies off by up to
    # beta/2/2.3/2 = .43 with a standard deviation of sqrt(beta)/2/2.3 * 1.25/sqrt(10) = .17; five of them.
    for measured, theory in x["ends"].values():
        assert abs(measured - theory) < 0.43 + 5 * 0.17 + 0.02 * abs(theory)


@answer
def of_01(x):
    # c^l is exact in binary for a while and then correctly rounded: the logarithm is off by at most L eps / ln 10.
    for c, decades in x["decades"].items():
        assert abs(decades - x["deep"] * math.log10(c)) < x["deep"] * 2.0**-23
    assert x["first_bad"][1.5, "float32"] == math.ceil(128 * math.log(2) / math.log(1.5))
    assert x["first_bad"][1.5, "float64"] == math.ceil(1024 * math.log(2) / math.log(1.5))
    # 2^-149 is the smallest float32; a processor that flushes denormals gives up at 2^-126.
    assert x["first_bad"][0.5, "float32"] in (127, 150)
    assert x["first_bad"][0.5, "float64"] in (1023, 1075)


@answer
def of_02(x):
    # E log is below log E by half of the factor's relative variance, about 5/(4n) = .0024; the mean of 50 draws scatters
    # by sqrt(5/n)/2/sqrt(50) = .007 of it at most: five of them.
    tolerance = 0.0024 + 5 * 0.007
    for name, value in (("sigmoid", 0.236), ("relu", math.sqrt(0.5))):
        assert abs(x["derivative"][name][-1] / value - 1) < tolerance
        assert abs(x["weight"][name] - 1).max() < tolerance
    assert np.all(np.diff(x["derivative"]["tanh"][::5]) > 0)
    assert 1 - x["derivative"]["tanh"][-1] < 1 / 30  # chi = 1 - 1/l, and its root


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
    # .236 and 1/sqrt(2) a layer; beta/2 of finite width and five standard errors of a median of ten, as for 00.
    assert abs(x["decades"]["sigmoid"] - 50 * math.log10(0.236)) < 0.43 + 5 * 0.17
    assert abs(x["decades"]["(b) ReLU, same weights"] + 25 * math.log10(2)) < 0.43 + 5 * 0.17
    # The exponent -1/2 is reached from below: the first layers, where q is not yet 1/(2l), cost a factor more.
    assert -0.55 < x["power"] < -0.40


@answer
def of_04(x):
    # The curve of depth 80 crosses zero with a slope of 80 log10(gain) / 2 decades or more; a shift of beta/2 (5 L/n = 1.6, .35 decades)
    # and an error of the median of .25 move the crossing by no more than 1.25 / 40 in log10.
    assert abs(math.log10(x["measured"] / x["theory"])) < 1.25 / 40
    assert abs(x["theory"] - 10.149) < 0.001


@answer
def of_05(x):
    # slope = log10(gain) + a random part with variance 5/(n L) / (2 ln 10)^2 and mean -5/(2n) / (2 ln 10) = -.002.
    error = np.abs(np.log10(x["factor"]["relu"] / x["gains"]))
    assert error.max() < 0.0022 + 5 * math.sqrt(5 / (256 * 50)) / (2 * math.log(10)) * 1.25 / math.sqrt(30)
    assert x["factor"]["tanh"][-1] < 1.5 < x["factor"]["relu"][-1]
    assert abs(x["factor"]["tanh"][0] - 0.5) < 0.02


@answer
def of_06(x):
    verdict = x["verdict"]
    assert set(verdict.loc[["linear", "tanh", "selu"], "lecun_normal"]) == {"stable"}
    assert verdict.loc["relu"].tolist() == ["vanishing", "vanishing", "stable"]
    assert set(verdict.loc["sigmoid"]) == {"vanishing"}
    assert (verdict["lecun_normal"] == verdict["glorot_normal"]).all()
    # 10^(6/L); depth 10 is cut at the ends of the grid (a factor 4). beta/2 and its error shift both ends alike.
    for depth in (30, 100):
        assert abs(math.log10(x["window"][depth]) / (6 / depth) - 1) < 0.05


@answer
def of_07(x):
    for depth, squared in x["squared"].items():
        beta = 5 * depth / x["width"]
        # The square of a lognormal: relative variance e^beta - 1, measurable up to beta of 3.
        if beta < 3:
            assert abs(squared.mean() - 1) < 5 * math.sqrt((math.exp(beta) - 1) / squared.size)
        # Median exp(-beta/2), its log scattering by 1.25 sqrt(beta / R); the law itself is off by terms of order L/n^2.
        assert abs(np.log(np.median(squared)) + beta / 2) < 5 * 1.25 * math.sqrt(beta / squared.size) + 25 * depth / x["width"] ** 2
    # log10 of sqrt(variance/2) per layer, on top of the same draws: exact to rounding.
    for variance in (1.8, 2.2):
        assert abs(x["rate"][variance] - x["rate"][2.0] - 100 * math.log10(variance / 2)) < 1e-3


@answer
def of_08(x):
    tanh, sigmoid, centred = (x["factor"][name] / x["gains"] for name in ("tanh", "sigmoid", "4 sigmoid - 2"))
    # Mean of the log of a factor at width 256: -5/(4n) off, and 5 standard errors over 3 x 15 layers.
    tolerance = 0.005 + 5 * math.sqrt(5 / 256) / 2 / math.sqrt(45)
    assert np.abs(tanh[:2] - 1).max() < tolerance
    assert sigmoid.max() < 0.25 and abs(sigmoid[0] - 0.25) < 0.02
    assert (x["factor"]["sigmoid"][:-1] < 1).all()
    assert np.abs(centred[:2] - 1).max() < tolerance


@answer
def of_09(x):
    dead = x["dead"]
    error = 5 * math.sqrt(0.25 / (128 * 10))
    assert np.abs(dead["batch 1"] - 0.5).max() < error
    assert abs(dead["batch 8"][0] - 2.0**-8) < error
    assert np.all(np.diff([dead["batch 64"][i] for i in (0, 9, 99)]) > 0)
    assert np.array_equal(dead["batch 64"], dead["batch 64, gain 2"])  # powers of two commute with rounding
    assert not dead["batch 64, leaky"].any()
    for n, measured in x["chance"].items():
        p = 1 - (1 - 2.0**-n) ** x["depths"]
        assert (np.abs(measured - p) < 5 * np.sqrt(p * (1 - p) / x["replicas"]) + 1 / x["replicas"]).all()


@answer
def of_10(x):
    for name, eps in (("float16", 2.0**-10), ("float32", 2.0**-23), ("float64", 2.0**-52)):
        # ln(2/eps) up to the rounding of exp near it: half a unit of the last place of 1 + exp(-z) is a change of z below ln 2.
        assert abs(x["edge"][name] - math.log(2 / eps)) < math.log(2)
    assert x["plain"][-1] == 0 < x["stable"][-1]
    for loss in ("sigmoid", "softmax"):
        assert np.isfinite(x["logits"][loss, "exponent"]).all()
        assert not np.isfinite(x["logits"][loss, "native"][-1])


@answer
def of_11(x):
    d = x["decades"]
    assert abs(d["plain, 20 % less weight"] - d["plain"] - 152 * math.log10(0.8)) < 1e-3
    # 76 blocks of two layers double the squared norm; the spread of a plain chain (5 L/n) bounds theirs.
    beta = 5 * 152 / 128
    slack = beta / (4 * math.log(10)) + 5 * math.sqrt(beta) / (2 * math.log(10)) * 1.25 / math.sqrt(10)
    for name in ("plain", "skips", "batch norm", "skips / sqrt(blocks)"):
        assert abs(d[name] - x["theory"][name]) < slack
    assert abs(x["theory"]["skips"] - 38 * math.log10(2)) < 0.2  # the first block sees an input that is not a sum yet
    # Branches of positive outputs add up: the signal grows by 2 + 2/sqrt(pi) squared a block, and the gradient along it with it.
    assert d["skips, ReLU last"] > d["skips"] + 3
    assert d["skips and batch norm"] < 3 and x["theory"]["skips / sqrt(blocks)"] < 0.5 * math.log10(math.e)


@answer
def of_12(x):
    ratio, after = x["ratio"], x["after"]
    assert ratio["exploding", "none"] > 3 and ratio["vanishing", "none"] < -3
    assert abs(ratio["exploding", "norm 1, all together"] - ratio["exploding", "none"]) < 1e-9  # one factor for all
    assert abs(ratio["exploding", "norm 1, each layer"]) < 0.5
    assert ratio["exploding", "value 0.01"] < 3
    before = after["vanishing", "none"]
    for name in x["clips"]:
        assert (after["vanishing", name] <= before + 1e-6).all()  # value clipping measures entries, norms Gram matrices: float32 rounding
        assert ratio["vanishing", name] < -30
    assert np.array_equal(after["vanishing", "norm 1, each layer"][:, 0], before[:, 0])  # adding 0 decades is exact


@answer
def of_13(x):
    # Scales only differ: exact to rounding. The paper's own figures are rounded to two digits, 5.9 * 4.2^2 * 2.9^2 * 2.1^4.
    assert abs(x["vgg_ratio"] * 1.7e4 - 1) < 0.02
    assert abs(x["xavier_ratio"] / 2**-15 - 1) < 1e-3
    fall = {name: (back[-1] - back[0]) / 4 for name, back in x["back"].items()}
    # 1/sqrt(3) a layer where tanh is linear (z is small), 1 for the normalised rule less tanh's own loss (1 - q each).
    assert abs(fall["standard"] - 0.5 * math.log10(3)) < 0.05
    assert 0 <= fall["normalised"] < 0.12
    weight = x["weight"]["standard"]
    assert np.ptp(weight) < 0.25 < 0.5 < np.ptp(x["back"]["standard"])


@answer
def of_14(x):
    scale, alike = zip(*x["forgets"].values(), strict=True)
    assert max(scale) <= 10 and max(alike) <= 80
    slopes = list(x["slope"].values())
    # Sixteen inputs of ten networks of 256 units: the slope of L layers scatters by sqrt(2/(n L)) / 2 ln(10) / sqrt(10).
    assert np.ptp(slopes) < 0.01
    assert np.ptp(list(x["relu_slope"].values())) < 0.01


@answer
def of_15(x):
    # beta = 5 L/n at a million units: 1e-4, that is a standard deviation of .0022 decades; five of them and the forward part.
    assert x["gap"] < 5 * math.sqrt(5 * 20 / 1e6) / (2 * math.log(10)) + 1e-3
    # Log-variance 5/n a layer (and the exact mean): standard error of a mean over 1e5 layers.
    assert abs(x["slope"] - x["exact"]) < 5 * math.sqrt(6 / 32 / 1e5) / (2 * math.log(10))
    assert x["slope"] < x["wide_slope"] - 0.005


@pytest.mark.examples
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example_gives_its_answer(path, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    import matplotlib.pyplot as plt

    if "sklearn" in path.read_text():
        pytest.importorskip("sklearn")
    monkeypatch.setattr(sys, "argv", [str(path), str(tmp_path)])
    try:
        ANSWERS[path.stem[:2]](runpy.run_path(str(path)))
    finally:
        plt.close("all")
    assert (tmp_path / f"{path.stem}.png").stat().st_size > 10_000


def test_examples_are_short_and_complete():
    assert [path.stem[:2] for path in EXAMPLES] == sorted(ANSWERS)
    for path in EXAMPLES:
        assert len(path.read_text().splitlines()) < 60, path.name
        assert "pykernel." not in re.sub(r'"""[\s\S]*?"""', "", path.read_text()), f"{path.name} reaches into a module"


@pytest.mark.examples
@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_snippets_of_the_documentation_run(path):
    blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S)
    snippets = "\n".join(b for b in blocks if ">>>" in b)
    if snippets:
        test = doctest.DocTestParser().get_doctest(snippets, {}, path.name, str(path), 0)
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        assert runner.run(test).failed == 0
