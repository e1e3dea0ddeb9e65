# SPDX-License-Identifier: BSD-3-Clause
"""Advice on chains of blocks: critical gains, proposals that measure as theory says, why a block does what it does."""

import math

import numpy as np
import pytest

import pykernel as pk
from pykernel import Block, Chain, Dropout, Gated, Linear, Norm
from pykernel.theory.block_proposals import BLOCK_PROPOSALS
from pykernel.theory.proposals import Situation


def chain_of(*blocks, n=128, depth=40, init="lecun_normal", **words):
    return Chain(depth=depth, width=n, init=init, blocks=blocks, **words)


# -- critical gains


@pytest.mark.parametrize(("function", "init"), [("relu", "lecun_normal"), ("leaky_relu(0.2)", "glorot_uniform")])
def test_critical_factor_of_homogeneous_blocks_is_the_closed_form(function, init):
    """Where chi does not depend on the size of the signal the chain's own depth does not matter."""
    point = pk.critical_gain(chain_of(Linear(), function, init=init, gain=0.7))
    assert point.exists and not point.others
    assert point.gain == pytest.approx(pk.critical_gain(function).gain, rel=1e-9)
    assert point.factor == pytest.approx(point.gain / 0.7, rel=1e-12)
    assert point.chi == pytest.approx(1, abs=1e-9)
    assert point.chi_now == pytest.approx((0.7 / point.gain) ** 2, rel=1e-9)


def test_critical_factor_of_keyword_chains_with_lists():
    chain = Chain(depth=4, width=64, init="lecun_normal", activation=["relu", "linear"] * 2, gain=[1.0, 2.0, 1.0, 0.5])
    point = pk.critical_gain(chain)
    again = pk.predict(chain.replace(gain=point.gain))
    assert again.slope == pytest.approx(0, abs=1e-9)
    assert point.gain == tuple(g * point.factor for g in chain.gain)


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ([Linear(), "sigmoid"], {}),
        ([Linear(96), "tanh", Linear(128), "silu"], {"bias_std": 0.3}),
        ([Block(Linear(), skip=0.6, scale=0.5), Block(Linear(), "relu", Dropout(0.3))], {}),
        ([Linear(), Norm("layer"), "tanh"], {"bias_std": 0.2}),
        ([Linear(), Block("tanh", Linear(gain=0.4), skip=0.9)], {"norm_eps": 1e-3}),
    ],
)
def test_critical_factors_are_roots_that_draws_keep(blocks, words):
    """The theory's slope is zero there and has another sign on either side; 30 networks of 512 units keep the gradient
    to .4 decades over 20 repetitions (5/n of log-variance a layer: .03 of standard error, .1 of shift)."""
    chain = chain_of(*blocks, n=128, depth=20, **words)
    point = pk.critical_gain(chain)
    assert point.exists
    slope = lambda factor: pk.predict(chain.replace(gain=point.gain * factor)).slope
    assert slope(1) == pytest.approx(0, abs=1e-7)
    assert slope(1.05) * slope(1 / 1.05) < 0
    m = pk.propagate(chain.replace(gain=point.gain), replicas=30)
    assert abs(np.median(m.slope) * 20) < 0.4


def test_chains_without_a_critical_gain_say_why():
    said = {
        "every gain is critical": chain_of(Block(Linear(), skip=1.0, after=Norm("rms", eps=1e-30))),
        "above 1 at every gain": chain_of(Block(Norm("layer"), Linear(), "gelu", Linear(), skip=1.0)),
        "tends to 1 only as the gain tends to 0": chain_of(Block("tanh", Linear(), skip=1.0)),
        "below 1 at every gain": chain_of(Linear(), Norm("rms", eps=1e-30), "sigmoid"),
        "no gain holds": chain_of(Gated(128, "silu"), Linear()),
    }
    for words, chain in said.items():
        point = pk.critical_gain(chain)
        assert words in point.note
        assert point.exists == (words == "every gain is critical")
    assert point.factor == pytest.approx(1.177, abs=1e-3)  # where SwiGLU passes through 1


def test_critical_gain_refuses_what_a_chain_says_itself():
    chain = chain_of(Linear(), "relu")
    with pytest.raises(ValueError, match=r"takes no bias_std beside a Chain: .* are the chain's own"):
        pk.critical_gain(chain, bias_std=0.1)
    with pytest.raises(ValueError, match="use propagate"):
        pk.critical_gain(chain.replace(init="constant(1)"))


# -- proposals

SICK = {
    "plain sigmoid": chain_of(Linear(), "sigmoid"),
    "mixed functions": chain_of(Linear(96), "relu", Linear(128), "tanh", gain=0.5),
    "exploding skips": chain_of(Block(Linear(), "relu", Linear(), skip=1.0), init="he_normal"),
    "SwiGLU without a norm": chain_of(Gated(128, "silu"), Linear(), depth=10),
    "post-norm with large branches": chain_of(
        Block(Linear(gain=3.0), "tanh", Linear(gain=3.0), skip=0.3, after=Norm("layer")), depth=60
    ),
    "ReLU after the sum": chain_of(Block(Linear(), "relu", Linear(), skip=1.0, after="relu"), init="he_normal"),
    "dropout": chain_of(Linear(), Block("relu", Dropout(0.5)), init="he_normal"),
    "batch norm": chain_of(Linear(), Norm("batch"), "relu", n=64),
}


@pytest.mark.parametrize("name", SICK)
def test_advice_on_blocks_holds_under_other_draws(name):
    chain = SICK[name]
    r = pk.recommend(chain, replicas=8)
    assert not r.original.healthy
    assert r.best is not None and r.best.healthy
    batch = 16 if r.best.chain.has_batch_norm else 1
    again = pk.propagate(r.best.chain, replicas=9, seed=99, batch=batch)
    assert abs(np.median(again.signal_end_to_end)) < 3
    assert max(map(len, str(r).splitlines())) <= 80
    for c in r:  # predicted and measured: one standard deviation of a draw, and a half decade for the narrow chain
        if math.isfinite(c.predicted) and c.outside < 0.2:
            assert abs(c.measured - c.predicted) < 0.5 + 1.5 * c.spread, c.change


def change(chain, start):
    """The proposal whose words begin so, or None."""
    found = [p.change(Situation(chain, 1)) for p in BLOCK_PROPOSALS]
    return next((made for words, made in (c for c in found if isinstance(c, tuple)) if words.startswith(start)), None)


def test_deep_norm_has_the_published_numbers():
    """skip (2N)^(1/4), weights of the branch times (8N)^(-1/4); as a gain of the init or multiplied in afterwards they
    are one law (Wang et al. 2022)."""
    N = 12
    post = Block(Linear(256), "gelu", Linear(64, gain=0.5), skip=1.0, after=Norm("layer"))
    made = change(Chain(depth=N, width=64, init="glorot_normal", blocks=[post]), "DeepNorm")
    block, beta = made.blocks[0], (8 * N) ** -0.25
    assert block.skip == (2 * N) ** 0.25
    assert [s.gain for s in block.steps if isinstance(s, Linear)] == pytest.approx([beta, 0.5 * beta])
    assert block.after == post.after
    scaled = pk.VarianceScaling(beta**2, "fan_avg", "normal")
    other = Block(Linear(256), "gelu", Linear(64, gain=0.5), skip=block.skip, after=Norm("layer"))
    p, q = pk.predict(made), pk.predict(Chain(depth=N, width=64, init=scaled, blocks=[other]))
    for row in ("log10_grad_activation", "log10_mean_square_activation"):
        np.testing.assert_allclose(p.rows[row], q.rows[row], atol=1e-12)
    wide = made.replace(width=64)
    m = pk.propagate(wide, replicas=40)
    assert np.median(m.signal_end_to_end) == pytest.approx(p.signal_end_to_end, abs=0.05)
    pre = chain_of(Block(Norm("layer"), Linear(), skip=1.0))
    assert change(pre, "DeepNorm") is None
    assert any("DeepNorm: no norm stands after a sum" in text for text in pk.recommend(pre, replicas=2).left_out)


def test_fixup_is_the_init_of_that_name_for_any_block():
    """The same scales as the scheme gives, on weights of any scheme and on branches with gates."""
    block = Block("relu", Linear(96), "relu", Linear(128), skip=1.0)
    chain = chain_of(block, init="he_normal", depth=25)
    ours, scheme = pk.predict(change(chain, "Fixup")), pk.predict(chain.replace(init="fixup"))
    np.testing.assert_allclose(ours.log10_grad_weight, scheme.log10_grad_weight, atol=1e-12)
    gated = change(chain_of(Block(Norm("rms"), Gated(96), Linear(64), Linear(128), skip=1.0), depth=16), "Fixup")
    gains = [s.gain for s in gated.blocks[0].steps if hasattr(s, "gain")]
    assert gains == pytest.approx([16 ** (-1 / 4), 16 ** (-1 / 4), 0.0])
    assert pk.predict(gated).signal_end_to_end == pytest.approx(0, abs=1e-12)


def test_places_of_norms():
    post = chain_of(Block(Linear(), "tanh", Linear(), skip=1.0, after=[Norm("layer"), "relu"]))
    assert str(change(post, "pre-norm").blocks[0]) == "a + (layer norm, linear, tanh, linear), then relu"
    assert str(change(post, "the function after").blocks[0]) == "a + (relu, linear, tanh, linear), then layer norm"
    bare = chain_of(Linear(), "sigmoid")
    assert [str(b) for b in change(bare, "a skip around").blocks] == ["a + (rms norm, sigmoid, linear)"]
    assert [str(b) for b in change(chain_of(Gated(128), Linear()), "rms norm before").blocks] == [
        "rms norm, silu gate 128",
        "linear",
    ]
    skips = chain_of(Block("tanh", Linear(), skip=1.0), first=[Linear(128)])
    made = change(skips, "rms norm at the beginning")
    assert str(made.blocks[0]) == "a + (rms norm, tanh, linear)" and made.first == skips.first
    batch = chain_of(Linear(), Norm("batch"), "relu")
    assert not change(batch, "rms norm in the place").has_batch_norm


def test_gain_behind_each_function():
    """sqrt 2 behind ReLU and 1 behind tanh, round the end of a repetition."""
    made = change(chain_of(Linear(), "relu", Linear(), "tanh"), "init lecun_normal")
    assert [b.steps[0].gain for b in made.blocks if isinstance(b.steps[0], Linear)] == pytest.approx([1.0, 2**0.5])
    first = change(chain_of(Linear(), "relu", first=[Linear()]), "init lecun_normal")
    assert first.first[0].steps[0].gain == 1.0 and first.blocks[0].steps[0].gain == pytest.approx(2**0.5)


def test_skip_factor_is_tuned_by_theory():
    """skip^2 + 1/4 = 1 for a linear branch of half the deviation, and a little more at 128 units."""
    made = change(chain_of(Block(Linear(gain=0.5), skip=0.6)), "skip ")
    assert 0 < made.blocks[0].skip - 0.75**0.5 < 0.003
    assert pk.predict(made).signal_end_to_end_mean == pytest.approx(0, abs=0.01)
    assert np.median(pk.propagate(made, replicas=30).signal_end_to_end) == pytest.approx(0, abs=0.3)


# -- words


def test_why_a_chain_of_blocks_does_what_it_does():
    said = {
        "nothing divides the sum": SICK["exploding skips"],
        "the norm after the sum divides skip and branch": SICK["post-norm with large branches"],
        "growth by sums": chain_of(Block(Norm("rms"), Linear(), skip=1.0)),
        "a gate's mean square goes as a power above 1": SICK["SwiGLU without a norm"],
        "(2.17 in the first one)": chain_of(Gated(2048, "silu"), Linear(1024), n=1024, depth=2),
        "dropout 0.5 adds 0.151 decades": SICK["dropout"],
        "its functions -0.628": SICK["plain sigmoid"],
    }
    for words, chain in said.items():
        p = pk.propagate(chain, x=np.ones((chain.width, 1)), replicas=6)
        flat = " ".join(" ".join(p.diagnose().why).split())
        assert words in flat, (words, flat)
        assert words in " ".join(str(p).split())
    assert pk.propagate(Chain(depth=3, width=8)).diagnose().why == ()


def test_why_names_the_branch_s_part_of_the_sum():
    """x + W norm(x), W of variance 1/n: the branch is 1 of l + 1 after l branches."""
    p = pk.propagate(chain_of(Block(Norm("rms"), Linear(), skip=1.0), depth=24), replicas=6)
    assert "0.04 of the sum's mean square" in p.diagnose().why[0]
    assert "why" in p.to_dict() and "why" not in pk.propagate(Chain(depth=3, width=8)).to_dict()


# -- the command line


def test_commands_take_blocks_from_a_file(tmp_path, capsys):
    from pykernel.cli import main

    path = tmp_path / "mlp.toml"
    path.write_text('blocks = ["linear()", "relu"]\nlast = ["norm(layer)"]\n')
    words = ["--blocks", str(path), "--width", "64", "--depth", "20"]
    assert main(["critical", *words, "--init", "lecun_normal"]) == 0
    assert capsys.readouterr().out.startswith("chi = 1 at 1.41421 times the chain's gain")
    assert main(["critical", "--activation", "tanh", "--bias-std", "0.05"]) == 0
    assert capsys.readouterr().out.startswith("tanh keeps its gradient at sigma_w = 1.12")
    assert main(["recommend", *words, "--gain", "0.5", "--replicas", "3"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "best: gain 0.77" in said  # the norm at the end divides by what the signal has grown by
    assert "not proposed: branch scales, DeepNorm, Fixup: no block has a skip" in said
    assert main(["predict", *words, "--positions", "4"]) == 0
    assert "a repetition" in capsys.readouterr().out
    assert main(["critical", "--gain", "2"]) == 2
    assert "--gain is of a chain: give --depth and --width or --blocks, too" in capsys.readouterr().err
