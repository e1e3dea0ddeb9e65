# SPDX-License-Identifier: BSD-3-Clause
"""Presets: sizes of the papers, inits of the public code, chains that a user can read back and change."""

import json

import numpy as np
import pytest

import pykernel as pk
from pykernel.cli import main

SMALL = {"layers": 2, "width": 32, "heads": 4}
ALL = {
    "gpt2": lambda **words: pk.blocks.gpt2(vocabulary=20, **words),
    "llama": lambda **words: pk.blocks.llama(vocabulary=20, **words),
    "bert": lambda **words: pk.blocks.bert(vocabulary=20, **words),
    "vit": lambda **words: pk.blocks.vit(classes=20, **words),
}


@pytest.mark.parametrize("name", ALL)
def test_what_is_printed_makes_the_chain_again(name):
    chain = ALL[name](**SMALL)
    assert eval(repr(chain), {n: getattr(pk, n) for n in pk.__all__}) == chain
    p = pk.propagate(chain, batch=2, positions=5, replicas=3)
    assert p.verdict == "stable" and np.isfinite(p.loss).all()
    assert (p.attention_entropy > 0.7 * p.uniform_entropy).all()  # scores of order 1 at most


@pytest.mark.parametrize(
    ("chain", "millions"),
    [
        (pk.blocks.gpt2("small"), 12 * (4 * 768**2 + 8 * 768**2)),
        (pk.blocks.gpt2("xl"), 48 * 12 * 1600**2),
        (pk.blocks.llama("7b"), 32 * (4 * 4096**2 + 3 * 4096 * 11008)),
        (pk.blocks.llama("8b"), 32 * (2.5 * 4096**2 + 3 * 4096 * 14336)),  # a quarter of the keys and values
        (pk.blocks.bert("base"), 12 * 12 * 768**2 + 768**2),
        (pk.blocks.vit("large"), 24 * 12 * 1024**2),
    ],
)
def test_sizes_have_the_weights_that_they_are_known_for(chain, millions):
    assert chain.weight_count == millions


def test_gpt2_begins_as_its_paper_says():
    """Standard deviation 0.02, 0.02/sqrt(24) of what ends a branch; the loss at once: ln V + d 0.02^2 / 2."""
    chain = pk.blocks.gpt2("small", layers=12)
    std = lambda layer: pk.weights(chain, layer=layer).std()
    assert std("1.key") == pytest.approx(0.02, rel=0.01)
    assert std("1.output") == pytest.approx(0.02 / 24**0.5, rel=0.01)
    assert std("2.linear2") == pytest.approx(0.02 / 24**0.5, rel=0.01)
    one = pk.blocks.gpt2("small", layers=1, vocabulary=2000)
    p = pk.propagate(one, batch=2, positions=8, replicas=4)
    assert p.loss.mean() == pytest.approx(np.log(2000) + 768 * 0.02**2 / 2, abs=0.2)  # 64 columns of spread 0.55


def test_bert_weights_have_the_spread_of_a_cut_normal():
    weight = pk.weights(pk.blocks.bert(**SMALL), layer="2.query")
    assert np.abs(weight).max() <= 0.04001
    assert weight.std() == pytest.approx(0.02 * 0.8796, rel=0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pk.blocks.gpt2("tiny"), "gpt2 size must be one of 'small', 'medium', 'large', 'xl', got 'tiny'"),
        (lambda: pk.blocks.vit(width=100, heads=3), "heads must divide"),
        (lambda: pk.blocks.llama(heads=8, kv_heads=3), "kv_heads must divide heads"),
        (lambda: pk.blocks.gpt2(width=100), "gpt2 width must be a multiple of 64, the units of a head of 'small'"),
        (lambda: pk.blocks.llama(width=192), "multiple of 128, .* unless heads= is given; got 192"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_heads_follow_a_width():
    """A head keeps its units, so that scores keep their law at any width: 64 of them, 128 of llama; heads that share
    keys keep their share where it is whole, and heads that are given stand."""
    attention = lambda chain: chain.blocks[0].steps[1]
    assert attention(pk.blocks.gpt2(width=256)).heads == attention(pk.blocks.llama(width=512)).heads == 4
    shared = attention(pk.blocks.llama("8b", width=1024))
    assert (shared.heads, shared.kv_heads) == (8, 2)
    assert attention(pk.blocks.llama("8b", width=384)).kv_heads is None  # 3 heads, no fours
    assert attention(pk.blocks.gpt2(width=100, heads=5)).heads == 5
    for name in pk.blocks.GPT2:  # what is not given is the table's
        assert attention(pk.blocks.gpt2(name)).heads == pk.blocks.GPT2[name][2]
    for name in pk.blocks.LLAMA:
        step = attention(pk.blocks.llama(name))
        assert (step.heads, step.kv_heads or step.heads) == pk.blocks.LLAMA[name][2:4]


def test_command_line(capsys):
    words = ["run", "--blocks", "gpt2", "--depth", "2", "--width", "64", "--positions", "4", "--head", "softmax:9"]
    assert main([*words, "--replicas", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    chain = pk.blocks.gpt2(layers=2, width=64).replace(head=pk.Head("softmax", 9))
    p = pk.propagate(chain, positions=4, replicas=2)
    assert found["layers"]["log10_grad_weight"] == pytest.approx(p.median("log10_grad_weight").tolist())
    assert main(["run", "--blocks", "gpt2:huge"]) == 2
    assert "gpt2 size must be one of" in capsys.readouterr().err


def test_sweeps_over_presets():
    chains = {"gpt2": ALL["gpt2"](**SMALL), "bert": ALL["bert"](**SMALL)}
    ds = pk.sweep(list(chains.values()), replicas=2, positions=4, progress=False)
    assert ds.slope.shape == (2, 2)
