# SPDX-License-Identifier: BSD-3-Clause
"""The words of blocks: what is refused and how, names, plain data and back, and what a chain of blocks says of
itself."""

import pickle

import pytest
from random_chains import random_chain

import pykernel as pk
from pykernel.chain import Chain
from pykernel.layers import Block, Dropout, Gated, Linear, Norm, Scale
from pykernel.parts import Head
from pykernel.spelling import pattern, plain

WORDS = {
    "Block": Block,
    "Chain": Chain,
    "Head": Head,
    "Linear": Linear,
    "Norm": Norm,
    "Gated": Gated,
    "Dropout": Dropout,
    "Scale": Scale,
}
MLP = Block(Norm("layer"), Linear(32), "gelu", Linear(8), skip=1.0)


@pytest.mark.parametrize("seed", range(30))
def test_chains_of_blocks_survive_every_way_of_writing_them_down(seed):
    chain = random_chain(seed)
    for part in (*chain.first, *chain.blocks, *chain.last):
        assert pattern([plain(part)]) == (part,)
    assert eval(repr(chain), WORDS) == chain
    assert pickle.loads(pickle.dumps(chain)) == chain
    assert hash(chain) == hash(chain.replace())
    assert str(chain)


def test_layers_are_named_in_the_order_of_use():
    chain = Chain(
        width=8,
        depth=2,
        first=[Linear(8)],
        blocks=[MLP, Block(Gated(16), Linear(4), skip=[Linear(4)]), Linear(8)],
        last=["tanh"],
    )
    each = [["linear1", "linear2"], ["gate", "value", "linear", "skip.linear"], ["linear"]]
    expected = ["1.linear"]
    for i, roles in enumerate(each * 2, 2):
        expected += [f"{i}.{role}" for role in roles]
    assert list(chain.layers) == expected
    assert chain.activations == ("2.gelu", "3.silu", "5.gelu", "6.silu", "8.tanh")


BAD = [
    (lambda: Block(), ValueError, "at least one step"),
    (lambda: Block(3), TypeError, "a step must be"),
    (lambda: Block("rellu"), ValueError, "did you mean"),
    (lambda: Block("relu", scale="inverse_sqrt_depth"), ValueError, "this block has none"),
    (lambda: Block("relu", skip="inverse"), ValueError, "inverse"),
    (lambda: Block("relu", skip=float("nan")), ValueError, "finite"),
    (lambda: Block("relu", skip=[]), ValueError, "at least one step"),
    (lambda: Block("relu", after=Linear(3)), ValueError, "no layers"),
    (lambda: Block("relu", scale=None), TypeError, "must be a number"),
    (lambda: Linear(0), ValueError, "positive int"),
    (lambda: Linear(3, init="hee"), ValueError, "unknown init"),
    (lambda: Linear(3, bias_std=-1), ValueError, "bias_std"),
    (lambda: Norm("group"), ValueError, "norm kind"),
    (lambda: Norm("rms", eps=0), ValueError, "norm eps"),
    (lambda: Gated(3, "glu"), ValueError, "unknown activation"),
    (lambda: Dropout(1), ValueError, "below 1"),
    (lambda: Dropout(-0.1), ValueError, "from 0"),
    (lambda: Scale("2"), TypeError, "must be a number"),
    (lambda: Chain(width=8, blocks=[]), ValueError, "at least one"),
    (lambda: Chain(width=8, blocks="relu"), TypeError, "sequence"),
    (lambda: Chain(width=8, blocks=["relu"]), ValueError, "weight layers"),
    (lambda: Chain(blocks=[MLP]), TypeError, "needs width"),
    (lambda: Chain(width=8, blocks=[MLP], activation="relu"), ValueError, "activation is for chains of equal layers"),
    (lambda: Chain(width=8, blocks=[MLP], norm="rms"), ValueError, "norm is for chains"),
    (lambda: Chain(width=8, blocks=[MLP], residual=pk.Residual(1)), ValueError, "residual is for chains"),
    (lambda: Chain(width=8, blocks=[MLP], gain=[1, 2]), ValueError, "one value beside blocks"),
    (lambda: Chain(width=9, blocks=[MLP]), ValueError, "as many units as its branch: 9 pass by, 8"),
    (lambda: Chain(width=8, depth=2, blocks=[Block(Linear(4), skip=[Linear(5)])]), ValueError, "as many units"),
    (lambda: Chain(width=8, first=[MLP]), ValueError, "goes with blocks"),
    (lambda: Chain(width=8, depth=2**24, blocks=[MLP]), ValueError, "depth must be"),
    (lambda: Chain(width=8, depth=2**23, blocks=[MLP]), ValueError, "weight layers"),
    (lambda: Chain(width=8, blocks=[Block(Linear(), skip=1.0)], init="fixup"), ValueError, "2 layers or more"),
    (lambda: Chain(depth=3, width=8, gain=[1, 2]), ValueError, "one a layer, 3"),
    (lambda: Chain(depth=2, width=8, activation=["relu", "sigmoidd"]), ValueError, "did you mean"),
    (lambda: Chain(depth=2, width=8, norm=["rms", 3]), TypeError, "norm must be"),
    (lambda: pattern(["linear(3, 4)"]), ValueError, "at most units"),
    (lambda: pattern([{"linear": 3, "gian": 1}]), ValueError, "did you mean 'gain'"),
    (lambda: pattern([{"steps": "relu"}]), TypeError, "must be a list"),
    (lambda: pattern([{"steps": ["relu"], "skpi": 1}]), ValueError, "did you mean 'skip'"),
    (lambda: pattern(3), TypeError, "list of blocks"),
    (lambda: pattern([{"a": 1}]), ValueError, "one key among"),
]


@pytest.mark.parametrize("i", range(len(BAD)))
def test_what_makes_no_sense_is_refused_with_a_sentence(i):
    make, kind, words = BAD[i]
    with pytest.raises(kind, match=words):
        make()


def test_replacing_the_pattern_of_a_keyword_chain_drops_its_keyword_words():
    chain = Chain(depth=3, width=8, activation="tanh", norm="rms").replace(blocks=[MLP])
    assert chain == Chain(depth=3, width=8, blocks=[MLP])
