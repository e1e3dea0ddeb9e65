# SPDX-License-Identifier: BSD-3-Clause
"""Positions and attention in every face: heads that read one position or the mean, sweeps, tables, figures, the command
line."""

import itertools
import json

import numpy as np
import pytest

import pykernel as pk
from pykernel.cli import main

ATTENTION = pk.Block(pk.Norm("layer"), pk.Attention(2, causal=True), skip=1.0)
MLP = pk.Block(pk.Norm("layer"), pk.Linear(16), "gelu", pk.Linear(8), skip=1.0)
GPT = pk.Chain(depth=2, width=8, init="lecun_normal", blocks=[ATTENTION, MLP])
OVER = ("positions", "first", "last", "mean")
ROWS = ("log10_grad_weight", "log10_grad_bias", "log10_grad_activation", "loss")


def assert_alike(a, b, atol):
    for name in ROWS:
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=atol, err_msg=name)


@pytest.mark.parametrize("loss", ["mse", "sigmoid", "softmax", "linear"])
@pytest.mark.parametrize("over", OVER)
def test_compiled_heads_read_what_the_definition_reads(over, loss):
    chain = pk.Chain(depth=3, width=20, activation="tanh", head=pk.Head(loss, 3, over=over))
    for positions, precision in itertools.product(((), 5, (2, 3)), ("exponent", "native")):
        words = {"batch": 3, "positions": positions, "replicas": 2, "precision": precision, "dtype": "float64"}
        found = [pk.propagate(chain, engine="dense", backend=b, **words) for b in ("cpp", "reference")]
        assert_alike(*found, atol=1e-9)
    found = [pk.propagate(chain, batch=3, positions=5, engine="matrix_free", backend=b) for b in ("cpp", "reference")]
    assert_alike(*found, atol=1e-3)  # float32 against float64 arithmetic


def test_numba_heads_read_what_the_definition_reads():
    chain = pk.Chain(depth=2, width=6, head=pk.Head("softmax", 3, over="mean"))
    words = {"batch": 2, "positions": 4, "dtype": "float64", "engine": "dense"}
    assert_alike(*(pk.propagate(chain, backend=b, **words) for b in ("numba", "reference")), atol=1e-9)


@pytest.mark.parametrize("over", OVER)
def test_gradients_of_a_head_are_the_slopes_of_its_loss(over):
    """J by hand from the last block's signal, and its central differences at an entry of the input."""
    rng = np.random.default_rng(1)
    B, T, K = 2, 3, 4
    targets = rng.normal(size=(K, B, T) if over == "positions" else (K, B))
    weight = rng.normal(size=(K, 8))
    head = pk.Head("mse", K, pk.Given([weight]), targets, over=over)
    x = rng.normal(size=(8, B, T))
    words = {"positions": T, "backend": "reference", "dtype": "float64", "engine": "dense"}
    keep = ("activation", "grad_activation")
    p = pk.propagate(GPT.replace(head=head), x=x, keep=keep, **words)
    last = p.kept[0]["activation"][4].reshape(8, B, T)
    read = {"positions": last, "first": last[:, :, 0], "last": last[:, :, -1], "mean": last.mean(axis=2)}[over]
    square = np.square(np.einsum("kn,n...->k...", weight, read) - targets).sum()
    assert p.loss[0] == pytest.approx(0.5 * square / (B * T if over == "positions" else B), rel=1e-12)
    gradient = p.kept[0]["grad_activation"][0].reshape(8, B, T)
    for at in ((0, 0, 0), (5, 1, 2), (7, 0, 1)):
        step = np.zeros_like(x)
        step[at] = 1e-5
        plus, minus = (pk.propagate(GPT.replace(head=head), x=x + s * step, **words).loss[0] for s in (1, -1))
        assert gradient[at] == pytest.approx((plus - minus) / 2e-5, rel=1e-6, abs=1e-9)


def test_a_linear_head_takes_the_gradient_of_what_it_reads():
    head = pk.Head("linear", 3, over="last")
    given = np.random.default_rng(0).normal(size=(3, 2))
    one = pk.propagate(GPT.replace(head=head), batch=2, positions=4, cotangent=given, backend="reference")
    zeros = np.zeros((3, 2, 4))
    zeros[:, :, -1] = given
    all_of_them = GPT.replace(head=pk.Head("linear", 3))
    assert_alike(one, pk.propagate(all_of_them, batch=2, positions=4, cotangent=zeros, backend="reference"), 1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pk.Head("mse", 3, over="middle"), "head over must be one of 'positions', 'first', 'last', 'mean'"),
        (lambda: pk.Head("mse", 3, targets=np.zeros((3, 2, 4)), over="last"), r"shape \(3, B\), got \(3, 2, 4\)"),
        (
            lambda: pk.propagate(GPT.replace(head=pk.Head("linear", 3, over="mean")), cotangent=np.zeros((3, 2, 4))),
            r"cotangent must have shape \(units, batch\), got \(3, 2, 4\)",
        ),
        (
            lambda: pk.propagate(GPT.replace(head=pk.Head("mse", 3, targets=np.zeros((3, 2)))), positions=4),
            r"head targets must have shape \(units, batch, 4\), got \(3, 2\)",
        ),
        (lambda: pk.sweep({"depth": [2]}, {"width": 8}, profiles="score_std"), "score_std, and no chain .* attention"),
        (lambda: pk.propagate(pk.Chain(depth=2, width=8)).plot(kind="entropy"), "for chains with attention"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_head_is_told_as_it_is_made():
    head = pk.Head("softmax", 3, over="last")
    assert eval(repr(head), {"Head": pk.Head}) == head
    assert str(head) == "softmax (3 outputs) of the last position"
    three = pk.Head("mse", 2, targets=np.arange(12).reshape(2, 2, 3))
    assert eval(repr(three), {"Head": pk.Head}) == three and hash(three) == hash(three)


def test_sweeps_keep_rows_of_attention_where_chains_have_any():
    run = {"engine": "dense", "backend": "reference"}
    words = {"replicas": 3, "progress": False, **run}
    ds = pk.sweep({"positions": [2, 4], "depth": [1, 2]}, GPT, profiles=("attention_entropy", "score_std"), **words)
    for positions, depth in itertools.product((2, 4), (1, 2)):
        p = pk.propagate(GPT.replace(depth=depth), positions=positions, replicas=3, **run)
        found = ds.sel(positions=positions, depth=depth)
        expected = p.attention_entropy.mean(axis=0)
        np.testing.assert_allclose(found.attention_entropy_mean.sel(layer=range(1, depth + 1)), expected, atol=1e-6)
        assert found.attention_entropy_mean.sel(layer=slice(depth + 1, None)).isnull().all()
    assert "attention_entropy_mean" in pk.sweep({"depth": [1]}, GPT, profiles="all", **words)
    assert "attention_entropy_mean" not in pk.sweep({"depth": [2]}, {"width": 8}, profiles="all", **words)


def test_keys_of_sweeps_without_attention_do_not_know_of_it():
    """All rows of before, and a head that reads every position: what stores of before hold."""
    from pykernel.sweeps import identity
    from pykernel.sweeps.profiles import Profiles

    kept = Profiles.of("all").of_cells([pk.Chain(depth=2, width=8)], False)
    assert len(kept.rows) == 12 and not set(kept.rows) & {"attention_entropy", "score_std"}
    assert "over" not in identity.describe(pk.Head("mse", 3))
    assert identity.describe(pk.Head("mse", 3, over="last"))["over"] == "last"


def test_tables_and_text_of_a_transformer():
    p = pk.propagate(GPT, batch=2, positions=8, replicas=3)
    table = p.to_dataframe(of="attention")
    assert list(table.columns[:5]) == ["replica", "attention", "block", "attention_entropy", "score_std"]
    assert table.block.tolist() == [1, 3] * 3
    assert (p.attention_entropy <= p.uniform_entropy).all()
    assert p.uniform_entropy == pytest.approx([np.log(np.arange(1, 9)).mean()] * 2)
    text = str(p)
    assert "1.attention" in text and "of uniform" in text and "all positions of all inputs" in text
    assert max(map(len, text.splitlines()[3:])) <= 90


def test_figures_of_attention():
    import matplotlib.pyplot as plt

    ax = pk.propagate(GPT, positions=8, replicas=3).plot(kind="entropy")
    assert [len(line.get_xdata()) for line in ax.get_lines()] == [2, 2]
    assert "uniform attention" in [text.get_text() for text in ax.get_legend().get_texts()]
    plt.close(ax.figure)


def test_command_line(capsys, tmp_path):
    pattern = tmp_path / "gpt.toml"
    steps = '[{steps = ["norm(layer)", {attention = 2, causal = true}], skip = 1.0}]'
    pattern.write_text(f"blocks = {steps}\n")
    words = ["run", "--blocks", str(pattern), "--width", "8", "--positions", "6", "--replicas", "2"]
    assert main([*words, "--head", "softmax:5:last", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    chain = pk.Chain(width=8, blocks=[ATTENTION], head=pk.Head("softmax", 5, over="last"))
    p = pk.propagate(chain, positions=6, replicas=2)
    assert found["layers"]["attention_entropy"] == pytest.approx(p.median("attention_entropy").tolist())
    assert found["positions"] == [6] and found["names"]["attention"] == ["1.attention"]
