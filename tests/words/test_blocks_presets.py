# SPDX-License-Identifier: BSD-3-Clause
"""Presets: sizes of the papers, inits of the public code, chains that a user can read back and change."""

import json

import numpy as np
import pytest

import pykernel as pk
from pykernel.cli import main
from pykernel.lower import lower

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


CONVOLUTIONAL = {
    "resnet 18": (pk.blocks.resnet(18, width=8, classes=20, small=True), (16, 16)),
    "resnet 50": (pk.blocks.resnet(50, width=8, classes=20), (64, 64)),
    "vgg 11": (pk.blocks.vgg(11, width=8, hidden=16, classes=20), (32, 32)),
    "vgg 13": (pk.blocks.vgg(13, width=8, hidden=None, classes=20, norm="batch"), (32, 32)),
}


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_what_is_printed_makes_the_convolutional_chain_again(name):
    chain, positions = CONVOLUTIONAL[name]
    assert eval(repr(chain), {n: getattr(pk, n) for n in pk.__all__}) == chain
    p = pk.propagate(chain, batch=2, positions=positions, replicas=2)
    assert np.isfinite(p.loss).all() and np.isfinite(p.log10_grad_weight).all()


@pytest.mark.parametrize(
    ("chain", "positions", "weights", "rest"),
    [  # parameters that torchvision's models are known for, and what of them is no weight of a layer
        (pk.blocks.resnet(18), 224, 11_689_512, 2 * 4800 + 1000),  # norms' weights and biases, the head's bias
        (pk.blocks.resnet(34), 224, 21_797_672, 2 * 8512 + 1000),
        (pk.blocks.resnet(50), 224, 25_557_032, 2 * 26_560 + 1000),
        (pk.blocks.resnet(101), 224, 44_549_160, 2 * 52_672 + 1000),
        (pk.blocks.resnet(152), 224, 60_192_808, 2 * 75_712 + 1000),
        (pk.blocks.vgg(11), 224, 132_863_336, 2752 + 2 * 4096 + 1000),  # biases
        (pk.blocks.vgg(16), 224, 138_357_544, 4224 + 2 * 4096 + 1000),
        (pk.blocks.vgg(19), 224, 143_667_240, 5504 + 2 * 4096 + 1000),
    ],
)
def test_convolutions_have_the_weights_that_they_are_known_for(chain, positions, weights, rest):
    program = lower(chain, positions=(positions, positions))
    sizes = program.layers.units.astype(object) * program.layers.columns
    head = chain.head.outputs * int(program.nodes[-1])
    assert sizes.sum() + head == weights - rest


def test_convolutions_begin_as_torchvision_has_them():
    """Standard deviation sqrt(2 / (channels out * taps)); the last norm of a block at zero takes its branch out of the
    signal, and all gradients but those of stem and projections."""
    weight = pk.weights(pk.blocks.resnet(18, width=32), layer="1.conv", positions=(32, 32))
    assert weight.shape == (32, 3, 7, 7)
    assert weight.std() == pytest.approx((2 / (32 * 49)) ** 0.5, rel=0.05)
    chain = pk.blocks.resnet(18, width=8, classes=10, small=True, zero_last=True)
    p = pk.propagate(chain, batch=2, positions=(16, 16))
    alive = [name for name, row in zip(chain.layers, p.log10_grad_weight[0], strict=True) if np.isfinite(row)]
    assert alive == ["1.conv", "4.skip.conv", "6.skip.conv", "8.skip.conv"]


def test_convolutional_presets_by_name(capsys):
    words = ["run", "--blocks", "resnet:18", "--width", "8", "--positions", "32,32", "--batch", "2"]
    assert main([*words, "--replicas", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    p = pk.propagate(pk.blocks.resnet(18, width=8), batch=2, positions=(32, 32), replicas=3)
    assert found["layers"]["log10_grad_weight"] == pytest.approx(p.median("log10_grad_weight").tolist())
    assert main(["run", "--blocks", "vgg", "--depth", "3"]) == 2
    assert "vgg has its layers in its name, as vgg:19" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: pk.blocks.resnet(20), ValueError, "resnet layers must be one of 18, 34, 50, 101, 152, got 20"),
        (lambda: pk.blocks.vgg(True), ValueError, "vgg layers must be one of 11, 13, 16, 19, got True"),
        (lambda: pk.blocks.resnet(small=1), TypeError, "resnet small must be True or False, got 1"),
        (lambda: pk.blocks.vgg(norm="layer"), ValueError, "vgg norm must be"),
        (lambda: pk.blocks.vgg(width=0), ValueError, "vgg width"),
        (lambda: pk.blocks.resnet(classes=1), ValueError, "classes"),
    ],
)
def test_what_does_not_fit_a_convolution_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


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
