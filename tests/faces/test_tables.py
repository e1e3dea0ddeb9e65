# SPDX-License-Identifier: BSD-3-Clause
"""What results show of themselves: in print within 80 columns, in a notebook as HTML with every text escaped, as Python
that makes them again."""

import math
from html.parser import HTMLParser

import numpy as np
import pytest

import pykernel as pk
from pykernel import activations, inits, tables
from pykernel.sweeps import identity

EVIL = "<script>alert('&')</script>"
MLP = pk.Block(pk.Norm("layer"), pk.Linear(16), "gelu", pk.Linear(8), skip=1.0)
CHAIN = pk.Chain(depth=4, width=8, activation="tanh")
TRAINED = CHAIN.replace(head=pk.Head("mse", 1))


def results():
    """One of every class that a cell of a notebook can return."""
    p = pk.propagate(CHAIN, replicas=3)
    recommendation = pk.recommend(CHAIN, replicas=3)
    return [
        CHAIN,
        pk.Chain(depth=2, width=8, blocks=[MLP, pk.Attention(2)]),
        p,
        pk.propagate(CHAIN, formats=pk.Formats(signals="bfloat16")),
        pk.propagate(pk.Chain(depth=2, width=8, blocks=[MLP, pk.Attention(2)]), positions=4),
        p.diagnose(),
        recommendation,
        recommendation.candidates[0],
        pk.predict(CHAIN),
        pk.phase_diagram("tanh", np.linspace(0.5, 2, 9), np.linspace(0, 1, 9)),
        pk.critical_gain("tanh"),
        pk.critical_gain(CHAIN),
        pk.depth_scales(CHAIN),
        pk.jacobian_spectrum(CHAIN),
        pk.trace(CHAIN, against="cpp"),
        pk.train(TRAINED, steps=20),
        pk.coordinate_check(TRAINED, widths=[8, 16], steps=5),
    ]


class Reader(HTMLParser):
    """The elements that a text of HTML has, refusing what does not close."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(html):
    reader = Reader()
    reader.feed(html)
    assert not reader.open
    return reader


def test_every_result_shows_itself_in_print_and_in_a_notebook():
    for result in results():
        html = read(result._repr_html_())
        assert {"div", "strong"} <= set(html.seen) and "script" not in html.seen
        lines = str(result).splitlines()
        assert lines and (isinstance(result, pk.Chain) or max(map(len, lines)) <= 80)
        first = str(result).split()[0]
        assert first in html.text, f"{type(result).__name__} says something else in a notebook"
        assert len(repr(result)) < 1500


def test_texts_of_the_user_are_escaped():
    mine = pk.Activation(value=np.tanh, slope=lambda z: 1 / np.cosh(z) ** 2, name=EVIL)
    scheme = pk.Init("normal", lambda fan_in, fan_out: 1 / math.sqrt(fan_in), name=EVIL)
    chain = pk.Chain(depth=2, width=8, activation=mine, init=scheme).named([EVIL, "b"])
    for shown in (chain, pk.propagate(chain), pk.predict(chain), tables.Table([EVIL], [[EVIL]], notes=[EVIL])):
        html = shown.html() if isinstance(shown, tables.Table) else shown._repr_html_()
        assert "<script" not in html and EVIL in read(html).text


def test_a_table_is_the_same_in_print_and_in_html():
    table = tables.Table(
        ["name", "two\nlines"], [("a", "1.5"), ("a long name that goes on", "-22")], ["name"], wrapped={"name": 12}
    )
    printed = """
name           two
             lines
a              1.5
a long name    -22
  that goes
  on"""
    assert "\n".join(["", *table.printed()]) == printed
    assert table.frame().to_dict("list") == {
        "name": ["a", "a long name that goes on"],
        "two lines": ["1.5", "-22"],
    }


PARTS = [
    pk.Normal(0.02 / math.sqrt(6)),
    pk.VarianceScaling(1.5, mode="fan_out"),
    pk.StudentT(3.3),
    pk.Sparse(0.3, std=0.1),
    pk.Orthogonal(),
    pk.leaky_relu(1 / 3),
    pk.elu(1.0),
    pk.Head("softmax", 5, init=pk.Normal(1 / 3)),
    pk.Clip(norm=1.0),
    pk.Residual(every=2, scale="inverse_sqrt_depth"),
    pk.Formats(gradients="float16", loss_scale=4.0),
    pk.Linear(8, init=pk.Normal(1 / 3), gain=0.1),
    pk.Norm("layer", weight=[1.0, 2.0]),
    pk.Gated(8, activation=pk.leaky_relu(1 / 3)),
    pk.Attention(2, kv_heads=1, causal=True),
    pk.Dropout(0.1),
    pk.Scale([0.1, 0.2]),
    pk.Block(pk.Linear(8), "tanh", skip=[pk.Linear(8)], scale=0.5, after="relu"),
    pk.Chain(depth=3, width=8, activation=["relu", pk.leaky_relu(1 / 3), "tanh"], init=pk.Normal(1 / 3)),
    pk.blocks.gpt2(layers=3, width=48, heads=3),
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
def test_a_part_of_a_chain_is_said_as_the_python_that_makes_it(part):
    again = eval(repr(part), vars(pk) | {name: getattr(pk, name) for name in pk.__all__})
    assert again == part and type(again) is type(part)


def test_inits_and_activations_are_said_by_name_where_the_name_makes_them():
    assert inits.word(inits.get("he_normal")) == "'he_normal'"
    assert inits.word(pk.Normal(0.5)) == "'normal(0.5)'"
    assert inits.word(pk.Normal(1 / 3)) == "Normal(0.3333333333333333)"
    assert activations.word(activations.get("gelu")) == "'gelu'"
    assert activations.word(pk.elu(1 / 3)) == "elu(0.3333333333333333)"


def test_names_of_modules_are_shown_and_change_nothing():
    chain = pk.Chain(depth=3, width=8, blocks=[MLP])
    names = [f"net.{i}.{part}" for i in range(3) for part in ("up", "down")]
    named = chain.named(names)
    assert named == chain and hash(named) == hash(chain) and repr(named) == repr(chain)
    assert identity.describe(named) == identity.describe(chain)
    assert named.replace(init="lecun_normal").modules == tuple(names) and named.replace(depth=5).modules == ()
    p = pk.propagate(named, replicas=2)
    assert np.array_equal(p.log10_grad_weight, pk.propagate(chain, replicas=2).log10_grad_weight)
    assert "net.1.up" in str(p) and "net.2.down" in named._repr_html_()
    assert p.to_dataframe().module.tolist() == names * 2
    assert p.to_xarray().module.values.tolist() == names
    assert p.to_dict()["modules"] == names
    with pytest.raises(ValueError, match="one name a weight layer, 6, got 2"):
        chain.named(["a", "b"])
    with pytest.raises(TypeError, match="texts"):
        chain.named([1] * 6)


def test_figures_call_lines_by_what_names_of_modules_share():
    plt = pytest.importorskip("matplotlib.pyplot")
    names = [f"net.{i}.{part}" for i in range(3) for part in ("up", "down")]
    ax = pk.propagate(pk.Chain(depth=3, width=8, blocks=[MLP]).named(names)).plot(kind="weights")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["net.*.up", "net.*.down"]
    ax = pk.propagate(CHAIN.named(["a", "b", "c", "d"])).plot(kind="weights")
    assert [text.get_text() for text in ax.get_xticklabels()] == ["a", "b", "c", "d"]
    plt.close("all")


def test_frames_have_a_line_for_each_layer_candidate_and_pair_of_scales():
    predicted = pk.predict(CHAIN)
    frame = predicted.to_dataframe()
    assert frame.log10_grad_weight.tolist() == predicted.log10_grad_weight.tolist()
    assert frame.log10_grad_activation_std.tolist() == predicted.log10_grad_activation_std[1:].tolist()
    blocks = pk.predict(pk.Chain(depth=2, width=8, blocks=[MLP]))
    assert blocks.to_dataframe(of="block").block.tolist() == [1, 2]
    advice = pk.recommend(CHAIN, replicas=3)
    assert advice.to_dataframe().change.tolist() == [c.change for c in (advice.original, *advice)]
    diagram = pk.phase_diagram("relu", [0.5, 1.0, 2.0], [0.0, 0.1])
    frame = diagram.to_dataframe()
    assert len(frame) == 6 and frame.set_index(["sigma_w", "sigma_b"]).q.loc[0.5, 0.1] == diagram.q[1, 0]
