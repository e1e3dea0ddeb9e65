# SPDX-License-Identifier: BSD-3-Clause
"""Theory of attention: means over softmax weights, closed forms of transformers, ensembles beside the prediction."""

import math

import numpy as np
import pytest

import pykernel as pk
from pykernel import Attention, Block, Chain, Dropout, Gated, Head, Linear, Norm
from pykernel.theory.softmax import Softmax

LAYERS = np.array([1, 2, 6, 12, 24])


def transformer(n, depth, *, post=False, norm="layer", function="relu", inside=None, skip=1.0, chain=(), **attention):
    """Attention and feed-forward branches, pre-norm or post-norm, all weights of variance 1/fan_in."""
    heads = attention.pop("heads", 1)
    mixing, feeding = [Attention(heads, **attention)], [Linear(inside or n), function, Linear(n)]
    if post:
        blocks = [Block(*steps, skip=skip, after=Norm(norm)) for steps in (mixing, feeding)]
    else:
        blocks = [Block(Norm(norm), *steps, skip=skip) for steps in (mixing, feeding)]
    return Chain(**{"depth": depth, "width": n, "init": "lecun_normal", "blocks": blocks, **dict(chain)})


# -- means over softmax weights


def sampled_weights(keys, std, r, count):
    """Softmax weights of many pairs of queries whose scores have the correlation r."""
    common, own, other = np.random.default_rng(0).standard_normal((3, count, keys))
    e = np.exp(std * (np.sqrt(r) * common + np.sqrt(1 - r) * np.stack([own, other])))
    return e / e.sum(axis=2, keepdims=True)


def means_of(A, B):
    """own, flow, entropy, lean of A; own - w and flow over the pair."""
    own, third, both = (A**2).sum(1), (A**3).sum(1), (A * B).sum(1)
    entropy = -(A * np.log(np.maximum(A, 1e-300))).sum(1)
    pairs = both - (A * A * B).sum(1) - (A * B * B).sum(1) + both**2
    lean = 1 - own - 6 * third + 6 * own**2
    return [own, own - 2 * third + own**2, entropy, lean, both, pairs]


@pytest.mark.parametrize(
    ("keys", "std", "r"),
    [(2, 1.0, 0.3), (7, 0.3, 0.9), (16, 1.0, 0.0), (16, 5.0, 0.5), (64, 2.0, 0.6), (300, 1.0, 0.95)],
)
def test_means_over_softmax_weights_as_sampled(keys, std, r):
    """Within 4.5 standard errors of some 2e6 / keys draws."""
    draws = means_of(*sampled_weights(keys, std, r, 2_000_000 // keys))
    found = Softmax(keys, False).at(2 * math.log(std))
    values = (found.own, found.flow, found.entropy, found.lean, found.own - found.gap(r), found.shared_flow(r))
    for value, x in zip(values, draws, strict=True):
        assert abs(value - x.mean()) < 4.5 * x.std() / len(x) ** 0.5 + 1e-4 * abs(value)  # 1e-4: the table's


@pytest.mark.parametrize(("T", "std", "r"), [(2, 1.0, 0.4), (6, 1.5, 0.7)])
def test_causal_means_are_those_over_queries_and_pairs(T, std, r):
    """Query t sees the first t keys: means over t, and over pairs t < s of the keys that both see."""
    found, rng = Softmax(T, True).at(2 * math.log(std)), np.random.default_rng(3)
    common, own = rng.standard_normal((40_000, 1, T)), rng.standard_normal((40_000, T, T))
    scores = std * (np.sqrt(r) * common + np.sqrt(1 - r) * own)
    e = np.exp(scores) * np.tri(T)
    A = e / e.sum(axis=2, keepdims=True)
    every = [means_of(A[:, t], A[:, t]) for t in range(T)]
    pairs = [means_of(A[:, t], A[:, s]) for t in range(T) for s in range(t)]
    one = [np.mean([x[k] for x in every], axis=0) for k in range(4)]
    two = [np.mean([x[k] for x in pairs], axis=0) for k in (4, 5)]
    values = (found.own, found.flow, found.entropy, found.lean, found.own - found.gap(r), found.shared_flow(r))
    for value, x in zip(values, one + two, strict=True):
        assert abs(value - x.mean()) < 4.5 * x.std() / len(x) ** 0.5 + 1e-4 * abs(value) + 1e-9


@pytest.mark.parametrize("keys", [2, 16, 512])
@pytest.mark.parametrize("variance", [1e-3, 0.2, 1.0, 4.0])
def test_identities_of_softmax_weights(keys, variance):
    """Queries that share nothing have w = 1/T and flow (1 - own)^2/(T - 1); those that share all, the flow of one; the
    entropy falls as (own - 1)/2 + the change of own with the variance, by Gaussian integration by parts."""
    S = Softmax(keys, False)
    found = S.at(math.log(variance))
    assert keys * (found.own - found.gap(0.0)) == pytest.approx(1, abs=2e-3)
    assert found.shared_flow(0.0) == pytest.approx((1 - found.own) ** 2 / (keys - 1), rel=1e-3)
    assert found.shared_flow(1.0) == pytest.approx(found.flow, rel=1e-3)
    assert found.gap(1.0) == 0
    # log of the sum of e^g has mean H + s^2 (1 - own), and d/ds^2 of that mean is (1 - own) / 2; the table's first cell
    # is a straight line, right to 4e-3 of it
    step = 0.02
    above, below = (S.at(math.log(variance) + x) for x in (step, -step))
    mean = lambda w: w.entropy + w.variance * (1 - w.own)
    slope = (mean(above) - mean(below)) / (above.variance - below.variance)
    assert slope == pytest.approx((1 - found.own) / 2, rel=5e-3)


# -- closed forms


def test_uniform_post_norm_attention_adds_half_behind_each_feed_forward():
    """Xiong et al. 2020, lemma 2: E |x|^2 is 3/2 d before the norm behind the feed-forward branch, in every layer."""
    n = 192
    feed = Block(Linear(n), "relu", Linear(n), skip=1.0)
    for attention in (Attention(1, scale=0.0), Attention(1, init="normal(0)", output="lecun_normal")):
        value = attention.init is None  # without values attention adds nothing: only the first of both is a transformer
        blocks = [Block(attention, skip=1.0), Norm("layer"), feed, Norm("layer")]
        p = pk.predict(Chain(depth=24, width=n, init="lecun_normal", blocks=blocks), positions=16)
        np.testing.assert_allclose(10 ** p.log10_mean_square_activation[2::4], 1.5, rtol=3e-5)  # eps of the norm: 1e-5
        assert (p.similarity[0] > 0) == value


@pytest.mark.parametrize(
    ("post", "squares", "cosines"),
    [
        (True, None, [0.155, 0.362, 0.929, 0.999, 1.000]),
        (False, [1.562, 2.267, 6.175, 13.46, 29.49], [0.151, 0.295, 0.617, 0.772, 0.866]),
    ],
)
def test_uniform_attention_is_a_recursion_in_two_numbers(post, squares, cosines):
    """m = (1 + (T - 1) rho)/T to square and product, half and half the ReLU kernel behind it; norms divide."""
    p = pk.predict(transformer(192, 24, post=post, scale=0.0), positions=16)
    ends = 2 * LAYERS - 1
    np.testing.assert_allclose(p.similarity[ends], cosines, atol=6e-4)
    if squares is not None:
        np.testing.assert_allclose(10 ** p.log10_mean_square_activation[ends], squares, rtol=5e-4)
    np.testing.assert_allclose(p.attention_entropy, math.log(16), rtol=1e-12)
    np.testing.assert_array_equal(p.score_std, 0)
    l = np.arange(1, 25)
    if not post:  # Xiong et al. 2020, lemma 2
        q = 10 ** p.log10_mean_square_activation[1::2]
        assert np.all((1 + l / 2 <= q) & (q <= 1 + 3 * l / 2))


def test_squared_gradient_of_post_norm_branches():
    """Feed-forward branches pass it on unchanged; attention multiplies it by up to 1.6 in the first of 24 layers."""
    n = 192
    blocks = [Block(Attention(1, scale=0.0), skip=1.0), Norm("layer")]
    blocks += [Block(Linear(n), "relu", Linear(n), skip=1.0), Norm("layer")]
    p = pk.predict(Chain(depth=24, width=n, init="lecun_normal", blocks=blocks), positions=16)
    g = 10 ** (2 * p.log10_grad_activation)
    np.testing.assert_allclose(g[2::4] / g[4::4], 1, rtol=1e-4)
    attention = g[:-1:4] / g[2::4]
    assert 1.55 < attention[0] < 1.7
    assert np.all(np.diff(attention[:6]) < 0)


def test_gradient_times_signal_behind_a_norm():
    """Pre-norm with linear branches keeps |g|^2 q; attention takes the mean of independent gradients and does not."""
    n = 64
    for steps, constant in (([Linear()], True), ([Attention(1, scale=0.0)], False)):
        chain = Chain(depth=8, width=n, init="lecun_normal", blocks=[Block(Norm("rms"), *steps, skip=1.0)])
        p = pk.predict(chain, positions=8)
        product = 2 * p.log10_grad_activation[1:] + p.log10_mean_square_activation
        assert (np.ptp(product) < 1e-4) == constant


@pytest.mark.parametrize(("a", "T", "rho"), [(1.0, 16, 0.0), (0.5, 5, 0.3), (1.0, 2, 0.9)])
def test_rank_collapse_of_uniform_attention_with_a_skip(a, T, rho):
    """q - p stays, what positions share grows by 1 + a^2 a layer."""
    L, m = 8, (1 + (T - 1) * rho) / T
    blocks = [Block(Attention(1, scale=0.0), skip=1.0, scale=a)]
    p = pk.predict(Chain(depth=L, width=64, init="lecun_normal", blocks=blocks), positions=T, correlation=rho)
    growth = m * (1 + a * a) ** np.arange(1, L + 1)
    np.testing.assert_allclose(1 - p.similarity, (1 - rho) / ((1 - rho) * (1 - 1 / T) + growth), rtol=1e-10)


def test_pure_attention_collapses_with_the_cube_of_the_distance():
    """Dong et al. 2021: doubly exponentially. Positions d apart, whose scores then have the variance d, come out
    d^3 (T - 1)/T^2 apart."""
    T = 8
    p = pk.predict(
        Chain(depth=1, width=10**6, init="lecun_normal", blocks=[Attention(1)]), positions=T, correlation=0.999
    )
    d = 1e-3
    assert 1 - p.similarity[0] == pytest.approx(d**3 * (T - 1) / T**2, rel=0.01)


def test_positions_fall_together_and_inputs_do_not():
    """Uniform attention makes the positions of one input one; two inputs keep their product: cosine c / m,
    m = (1 + (T - 1) c)/T."""
    T, B, c = 8, 3, 0.4
    chain = Chain(depth=1, width=64, init="lecun_normal", blocks=[Attention(2, scale=0.0)])
    p = pk.predict(chain, B, positions=T, correlation=c)
    m = (1 + (T - 1) * c) / T
    partners = B * T - 1
    assert p.similarity[0] == pytest.approx(((T - 1) + (B - 1) * T * c / m) / partners, rel=1e-12)


def test_one_softmax_layer_on_independent_tokens():
    """cosine 1/(e^(b^2) + b^2 T/d) for many tokens: .212 at T = 512, d = 256, b = 1; finite T adds a little."""
    p = pk.predict(Chain(width=256, init="lecun_normal", blocks=[Attention(1)]), positions=512)
    assert p.similarity[0] == pytest.approx(0.212, abs=0.004)
    wide = pk.predict(Chain(width=10**6, init="lecun_normal", blocks=[Attention(1)]), positions=8192)
    assert wide.similarity[0] == pytest.approx(math.exp(-1), rel=3e-3)


def test_initial_loss_of_gpt_2():
    """ln V + d .02^2 / 2 = 10.9785 with an untied head of std .02 behind a layer norm."""
    chain = transformer(768, 2, heads=12, causal=True, function="gelu", inside=3072)
    chain = chain.replace(init="normal(0.02)", last=[Norm("layer")], head=Head("softmax", 50257, init="normal(0.02)"))
    assert pk.predict(chain, positions=64).loss == pytest.approx(10.9785, abs=1e-3)


@pytest.mark.parametrize("over", ["first", "mean"])
def test_heads_over_one_position(over):
    """J of one column an input: with uniform attention all positions are alike, and both heads read the same."""
    chain = transformer(
        64, 1, scale=0.0, chain={"head": Head("mse", 3, over=over), "blocks": [Attention(1, scale=0.0)]}
    )
    p = pk.predict(chain, 2, positions=8)
    q = 10 ** p.log10_mean_square_activation[-1]
    assert p.loss == pytest.approx(3 * (q + 1) / 2, rel=1e-9)
    # the first position's gradient is spread over T values, T alike ones pass as they are
    lost = 0.5 * math.log10(8) if over == "first" else 0.0
    assert p.log10_grad_preactivation[2] == pytest.approx(p.log10_grad_preactivation[3] - lost, rel=1e-9)


def test_without_positions_attention_is_its_values():
    """One key: the weight is 1, queries and keys have no gradient."""
    p = pk.predict(transformer(64, 3), 4)
    plain = pk.predict(
        Chain(
            depth=3,
            width=64,
            init="lecun_normal",
            blocks=[
                Block(Norm("layer"), Linear(), Linear(), skip=1.0),
                Block(Norm("layer"), Linear(), "relu", Linear(), skip=1.0),
            ],
        ),
        4,
    )
    np.testing.assert_allclose(p.log10_grad_activation, plain.log10_grad_activation, atol=1e-12)
    np.testing.assert_allclose(p.similarity, plain.similarity, atol=1e-12)
    assert np.all(np.isneginf(p.log10_grad_weight[[0, 1]]))
    np.testing.assert_array_equal(p.attention_entropy, 0)


def test_a_thousand_blocks():
    """Pre-norm: signal and gradient are powers of depth; in the end positions are nearly one, entropy nearly ln T."""
    p = pk.predict(transformer(512, 1000, heads=8), positions=16)
    assert p.verdict == "stable"
    assert p.log10_mean_square_activation[-1] == pytest.approx(math.log10(1500), abs=0.1)
    assert 0.95 < p.similarity[-1] < 1
    assert p.attention_entropy[0] < p.attention_entropy[-1] < math.log(16)


# -- advice


def test_diagnoses_see_positions_that_fall_together_and_scores_that_pick_keys():
    collapsed = pk.propagate(transformer(64, 12, post=True, heads=4), positions=16, replicas=4).diagnose().why
    assert any("positions of an input fall together" in text and "(theory 1 - 0.001)" in text for text in collapsed)
    sharp = pk.propagate(transformer(64, 2, heads=4, gain=3.0), positions=16, replicas=4).diagnose().why
    assert any(text.startswith("scores pick keys") and "ln 16 = 2.77" in text for text in sharp)
    healthy = pk.propagate(transformer(64, 3, heads=4), positions=16, replicas=4).diagnose().why
    assert not any("fall together" in text or "pick keys" in text for text in healthy)


def test_recommendations_see_positions_that_fall_together():
    """Post-norm, 12 blocks: the gradient is well, positions are one; branches times 1/sqrt(depth) keep them apart."""
    found = pk.recommend(transformer(64, 12, post=True, heads=4), positions=16, replicas=4)
    assert found.original.healthy
    assert found.original.similarity > 0.99
    assert "positions fall together (mean cosine 0.99" in found.summary
    scaled = next(c for c in found if c.change.startswith("branches times 1/sqrt"))
    assert scaled.similarity == pytest.approx(pk.predict(scaled.chain, positions=16).similarity[-1], abs=0.08)


# -- refusals


@pytest.mark.parametrize(
    ("chain", "words", "sentence"),
    [
        (transformer(32, 2, gain=20.0), {}, r"scores to a standard deviation of 10; in attention 1 it is 400"),
        (Chain(depth=2, width=32, blocks=[Block(Attention(1, causal=True), skip=1.0)]), {}, "one mean square"),
        (transformer(32, 2, norm="batch"), {"batch": 2}, "for one input only"),
        (transformer(32, 2, causal=True, chain={"head": Head("mse", 3, over="last")}), {}, 'no head over="last"'),
    ],
)
def test_refusals(chain, words, sentence):
    with pytest.raises(ValueError, match=sentence):
        pk.predict(chain, positions=8, **words)
    assert "theory" not in pk.propagate(chain, positions=8, replicas=2, **words).diagnose().sentence


# -- ensembles


def lecun(n, depth, blocks, **words):
    return Chain(depth=depth, width=n, init="lecun_normal", blocks=blocks, **words)


N = 192
ENSEMBLES = {  # chain, positions, inputs
    "pre-norm": (transformer(N, 4, heads=4), 16, 1),
    "post-norm": (transformer(N, 4, post=True), 16, 1),
    "two positions, three inputs": (transformer(N, 3, heads=8), 2, 3),
    "rms norm, gate, shared keys, biases": (
        lecun(
            N,
            3,
            [
                Block(Norm("rms"), Attention(8, kv_heads=2, bias_std=0.3), skip=1.0),
                Block(Norm("rms"), Gated(256), Linear(N), skip=1.0),
            ],
        ),
        12,
        2,
    ),
    "DeepNorm": (transformer(N, 4, post=True, heads=4, skip=8**0.25), 16, 1),
    "large scores": (transformer(N, 3, heads=4, gain=1.5, function="gelu"), 16, 1),
    "positions as many as units": (transformer(64, 2, heads=2), 64, 1),
    "no norm, no skip": (lecun(N, 2, [Attention(4)]), 8, 1),
    "batch norm": (transformer(N, 3, heads=4, norm="batch"), 16, 1),
    "dropout": (lecun(N, 3, [Block(Norm("layer"), Attention(4), Dropout(0.2), skip=1.0)]), 16, 1),
    "softmax head over the mean": (transformer(N, 2, heads=4, chain={"head": Head("softmax", 10, over="mean")}), 8, 2),
}
CAUSAL = {
    "pre-norm": (transformer(N, 4, heads=4, causal=True), 16, 1),
    "post-norm": (transformer(N, 3, post=True, heads=8, causal=True), 8, 2),
    "GPT-2": (
        transformer(
            N, 4, heads=6, causal=True, function="gelu", inside=4 * N, init="normal(0.02)", output="normal(.005)"
        ),
        12,
        1,
    ),
}
LOGS = (
    "log10_mean_square_preactivation",
    "log10_mean_square_activation",
    "log10_grad_preactivation",
    "log10_grad_weight",
    "log10_grad_activation",
)


def assert_beside(chain, positions, batch, atol, scores):
    p = pk.propagate(chain, batch=batch, positions=positions, replicas=16, seed=3)
    theory = pk.predict(chain, batch, positions=positions)
    for row in LOGS:
        factor = 2.0 if "grad" in row else 1.0
        mean = np.log10(np.mean(10 ** (factor * p.rows[row]), axis=0)) / factor
        alive = theory.rows[row] > -12  # the bias and key of one position, exactly zero, is rounding noise
        np.testing.assert_allclose(
            mean[alive], theory.rows[row][alive], atol=scores if "grad" in row else atol, err_msg=row
        )
    np.testing.assert_allclose(p.similarity.mean(axis=0), theory.similarity, atol=0.05)
    np.testing.assert_allclose(p.attention_entropy.mean(axis=0), theory.attention_entropy, atol=0.08)
    np.testing.assert_allclose(p.score_std.mean(axis=0), theory.score_std, rtol=0.15)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensembles_lie_beside_the_theory(name):
    """Mean squares over 16 networks of 192 units.

    Squared norms of one network vary by some 5/n a layer and by 2/n over the positions' products: over 12 layers .5 in
    the log, .06 decades for the mean of 16 of a norm, 3 standard errors below .15; of a mean square below .1. Rows of
    attention vary between heads.
    """
    assert_beside(*ENSEMBLES[name], atol=0.1, scores=0.15)


@pytest.mark.parametrize("name", CAUSAL)
def test_causal_ensembles_lie_beside_the_theory(name):
    """The same; averaging over positions costs up to .15 decades of the gradients of query and key."""
    assert_beside(*CAUSAL[name], atol=0.1, scores=0.22)


@pytest.mark.parametrize("steps", [[pk.Attention(2, scale=0.0)], [pk.Attention(2)], ["relu", pk.Attention(2)]])
def test_positions_that_have_become_one_are_looked_at_alike(steps):
    """Keys without any distance make no scores that differ: the entropy is ln T, and nothing overflows or is nan."""
    p = pk.predict(pk.Chain(depth=400, width=16, gain=0.3, blocks=steps), positions=3)
    assert p.attention_entropy[-1] == pytest.approx(np.log(3), rel=1e-12)
    assert p.similarity[-1] == pytest.approx(1)
    assert np.isfinite(p.log10_grad_activation).all()
