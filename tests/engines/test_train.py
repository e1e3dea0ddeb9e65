# SPDX-License-Identifier: BSD-3-Clause
"""Training: descent by hand on the same weights, the law of matrix-free training, parametrizations, the coordinate
check."""

import numpy as np
import pytest
from two_samples import smallest_p

import pykernel as pk
from pykernel.engines.heads import drawn_targets
from pykernel.lower import lower
from pykernel.ops.linear import bias
from pykernel.training import descent
from pykernel.training.parametrizations import TABLE, rates, roles

TANH = pk.Chain(widths=[5, 9, 7], activation="tanh", init="lecun_normal", bias_std=0.3, head=pk.Head("mse", 2))
NORMED = pk.Block(pk.Norm("layer"), pk.Attention(2), skip=1.0), pk.Block(pk.Norm("rms"), pk.Gated(6), pk.Linear(8))
CHAINS = {
    "tanh": TANH,
    "relu": pk.Chain(depth=4, width=8, head=pk.Head("softmax", 3)),
    "residual": pk.Chain(depth=4, width=8, norm="layer", residual=pk.Residual(2), head=pk.Head("sigmoid", 1)),
    "batch norm": pk.Chain(depth=3, width=8, norm="batch", activation="gelu", head=pk.Head("mse", 1)),
    "orthogonal": pk.Chain(depth=3, width=8, activation="tanh", init="orthogonal", head=pk.Head("linear", 1)),
    "blocks": pk.Chain(width=8, depth=2, blocks=NORMED, head=pk.Head("softmax", 4, over="mean")),
}


def words(name):
    return {"positions": 3, "batch": 2} if name == "blocks" else {"batch": 3}


@pytest.mark.parametrize("name", CHAINS)
def test_the_fresh_network_is_that_of_propagate(name):
    """All rows of step 0, to rounding: training reads what `propagate` measures."""
    chain = CHAINS[name]
    t = pk.train(chain, steps=1, replicas=2, seed=5, engine="dense", dtype="float64", **words(name))
    p = pk.propagate(chain, replicas=2, seed=5, engine="dense", backend="reference", dtype="float64", **words(name))
    for row in ("loss", "log10_grad_weight", "log10_grad_activation", "similarity", "log10_weight_factor"):
        np.testing.assert_allclose(getattr(t, row)[:, 0], getattr(p, row), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("clip", [None, pk.Clip(norm=0.2), pk.Clip(norm=0.2, per_layer=True), pk.Clip(value=0.02)])
def test_descent_by_hand(clip):
    """z = W u + b, tanh twice, squared error: three steps with momentum, matrices kept. Catches a wrong sign, a lost
    bias or head, a history that forgets momentum, clipping that does not act or acts on the head."""
    chain, steps, rate, momentum = TANH.replace(clip=clip), 3, 0.2, 0.7
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 4))
    t = pk.train(chain, x=x, steps=steps, rate=rate, momentum=momentum, dtype="float64", engine="dense")
    program = lower(chain, x=x, dtype="float64")
    W = [pk.weights(chain, layer=l) for l in (1, 2, 3)]
    b, target = [bias(program, 0, l) for l in (1, 2)], drawn_targets(program, 0, 3)
    velocity = [np.zeros_like(w) for w in [*W, *b]]
    for step in range(steps + 1):
        a1 = np.tanh(W[0] @ x + b[0])
        a2 = np.tanh(W[1] @ a1 + b[1])
        dy = (W[2] @ a2 - target) / 4
        assert t.loss[0, step] == pytest.approx(2 * (dy**2).sum(), rel=1e-10)
        d2 = (W[2].T @ dy) * (1 - a2**2)
        d1 = (W[1].T @ d2) * (1 - a1**2)
        g = [d1 @ x.T, d2 @ a1.T, dy @ a2.T, d1.sum(1, keepdims=True), d2.sum(1, keepdims=True)]
        layers = [(0, 3), (1, 4)]
        if clip is not None and clip.value:
            g = [gradient if i == 2 else np.clip(gradient, -0.02, 0.02) for i, gradient in enumerate(g)]
        elif clip is not None:
            for group in layers if clip.per_layer else [(0, 1, 3, 4)]:
                norm = np.sqrt(sum((g[i] ** 2).sum() for i in group))
                for i in group:
                    g[i] = g[i] * min(1, 0.2 / norm)
        np.testing.assert_allclose(
            t.log10_grad_weight[0, step], [np.log10(np.linalg.norm(h)) for h in g[:2]], rtol=1e-9
        )
        velocity = [momentum * v + h for v, h in zip(velocity, g)]
        W, b = (
            [w - rate * v for w, v in zip(W, velocity)],
            [w - rate * v for w, v in zip(b, velocity[3:])],
        )


@pytest.mark.parametrize("name", ["tanh", "orthogonal", "residual"])
def test_matrix_free_training_has_the_law_of_dense(name):
    """Losses and gradients of a fresh network and of three steps, with momentum, at widths of five to nine. Catches a
    step that is not added where it belongs."""
    found = []
    for engine, seed in (("dense", 1), ("matrix_free", 2)):
        t = pk.train(CHAINS[name], steps=3, rate=0.2, momentum=0.5, batch=2, replicas=250, seed=seed, engine=engine)
        product = t.log10_grad_weight[:, 3] + t.log10_grad_weight[:, 0]
        found.append(np.hstack([t.loss, t.log10_grad_weight[:, -1], t.log10_mean_square_activation[:, -1], product]))
    assert 3 * smallest_p(*(columns.T for columns in found)) > 0.01


@pytest.mark.parametrize("engine", ["dense", "matrix_free"])
def test_backends_and_threads_change_nothing(engine):
    """C++ draws are those of the definition; replicas and products cut among threads keep their bits."""
    arguments = dict(steps=2, rate=0.1, batch=3, replicas=2, engine=engine, dtype="float64")
    one, many, definition = (
        pk.train(TANH, **arguments, **more) for more in ({"threads": 1}, {"threads": 3}, {"backend": "reference"})
    )
    np.testing.assert_array_equal(one.loss, many.loss)
    np.testing.assert_allclose(one.loss, definition.loss, rtol=1e-10)


@pytest.mark.parametrize("init", ["lecun_normal", "orthogonal"])
def test_an_oracle_that_was_asked_for_everything_trains_as_its_matrix(monkeypatch, init):
    """Oracles asked for the identity have told their weights: dense training with those takes the same way to rounding,
    momentum and clipping included."""
    chain = TANH.replace(init=init, clip=pk.Clip(norm=0.5))
    told = []

    class Talkative(descent.Weights):
        def __init__(self, program, *rest):
            super().__init__(program, *rest)
            told.extend(self.forward(l, np.eye(program.layers.columns[l - 1])) for l in (1, 2))

    arguments = dict(steps=6, rate=0.3, momentum=0.6, batch=3, dtype="float64")
    with monkeypatch.context() as patched:
        patched.setattr(descent, "Weights", Talkative)
        free = pk.train(chain, engine="matrix_free", **arguments)
    biases = [bias(lower(chain), 0, l)[:, 0] for l in (1, 2)]
    dense = pk.train(chain, weights=told, biases=biases, **arguments)
    np.testing.assert_allclose(free.loss, dense.loss, rtol=1e-10)
    np.testing.assert_allclose(free.log10_grad_weight, dense.log10_grad_weight, rtol=1e-9)


def test_a_loss_without_bound_is_reported_with_its_step():
    """Far above the largest stable rate: inf from a step on, never nan, and the same said in words."""
    for engine in ("dense", "matrix_free"):
        t = pk.train(TANH.replace(activation="relu"), steps=30, rate=40.0, batch=3, replicas=4, engine=engine)
        assert not np.isnan(t.loss).any() and (t.diverged > 0).any()
        for r in np.flatnonzero(t.diverged >= 0):
            assert np.isfinite(t.loss[r, : t.diverged[r]]).all() and np.isinf(t.loss[r, t.diverged[r] :]).all()
        assert f"first at step {t.diverged[t.diverged >= 0].min()}" in str(t)


def test_a_rate_of_zero_keeps_the_network():
    t = pk.train(TANH, steps=2, rate=0.0, batch=2, dtype="float64")
    np.testing.assert_allclose(t.loss, t.loss[0, 0], rtol=1e-12)


def test_the_heads_own_bias_descends():
    """Nothing reaches the head, so that y is its bias, and y - t falls by 1 - rate a step."""
    head = pk.Head("mse", 2, init=pk.Given([np.ones((2, 4))], [np.array([0.5, -2.0])]))
    chain = pk.Chain(widths=[3, 4], head=head)
    t = pk.train(chain, steps=3, rate=0.3, weights=[np.zeros((4, 3))], dtype="float64", engine="dense")
    np.testing.assert_allclose(t.loss[0], t.loss[0, 0] * 0.7 ** (2 * np.arange(4)), rtol=1e-12)


def test_dropout_masks_are_new_at_every_step():
    """The first as of `propagate`; with a rate of zero the loss changes by the mask alone."""
    chain = pk.Chain(width=16, blocks=[pk.Linear(), "relu", pk.Dropout(0.5)], head=pk.Head("mse", 1))
    t = pk.train(chain, steps=3, rate=0.0, batch=2, dtype="float64", engine="dense")
    assert len(set(t.loss[0])) == 4
    p = pk.propagate(chain, batch=2, dtype="float64", engine="dense")
    assert t.loss[0, 0] == pytest.approx(p.loss[0], rel=1e-12)


def test_xarray_and_words():
    t = pk.train(CHAINS["blocks"], steps=2, replicas=2, **words("blocks"))
    ds = t.to_xarray()
    assert ds.log10_grad_weight.dims == ("replica", "step", "layer") and list(ds.layer.values) == list(t.chain.layers)
    assert ds.attention_entropy.shape == (2, 3, 2) and ds.diverged.dtype == np.int64
    for step in range(3):
        for at in (t.at(step), t.at(step - 3)):
            np.testing.assert_array_equal(at.loss, t.loss[:, step])
            np.testing.assert_array_equal(at.log10_grad_weight, t.log10_grad_weight[:, step])
    assert len(set(t.loss[0])) == 3
    assert "2 steps at rate 0.1" in str(t) and "<td>" in t._repr_html_()
    with pytest.raises(ValueError, match="step must be from 0 to 2"):
        t.at(3)


HEADED = pk.Chain(depth=2, width=8, head=pk.Head("mse", 1))
BAD = [
    (dict(chain=pk.Chain(depth=2, width=8)), ValueError, "training needs a loss"),
    (dict(chain=3), TypeError, "pykernel.Chain"),
    (dict(steps=-1), ValueError, "steps"),
    (dict(rate=-1.0), ValueError, "rate"),
    (dict(momentum=1.0), ValueError, "momentum must be below 1"),
    (dict(parametrization="ntp"), ValueError, "parametrization"),
    (dict(backend="numba"), ValueError, 'backend="numba" does not train'),
    (dict(engine="matrix_free", chain=HEADED.replace(init="he_uniform")), ValueError, 'engine="dense" can'),
    (dict(engine="matrix_free", chain=HEADED.replace(clip=pk.Clip(value=1.0))), ValueError, "clip by norm"),
    (dict(replicas=0), ValueError, "replicas"),
    (dict(steps=10**6, replicas=10**9), pk.TooLarge, "fewer steps"),
]


@pytest.mark.parametrize(("given", "error", "said"), BAD)
def test_bad_input(given, error, said):
    with pytest.raises(error, match=said):
        pk.train(**{"chain": HEADED, **given})


@pytest.mark.parametrize("tied", [False, True])
def test_the_clipped_norm_is_that_of_what_is_trained(tied):
    """Without biases the bound is the norm of all weight gradients, whatever that of absent biases were."""
    chain = pk.Chain(depth=4, width=9, activation="tanh", tied=tied, clip=pk.Clip(norm=0.01), head=pk.Head("mse", 1))
    t = pk.train(chain, steps=2, engine="dense", replicas=3)
    norms = t.log10_grad_weight_total if tied else t.log10_grad_weight
    np.testing.assert_allclose(np.sqrt((10 ** (2 * norms)).sum(axis=-1)), 0.01, rtol=1e-6)


# -- parametrizations


def test_rates_by_role():
    """The table of Yang et al. 2022 for SGD, and 1/fan_in of every weight for "ntk"."""
    program = lower(pk.Chain(widths=[10, 64, 64], bias_std=1.0, head=pk.Head("mse", 3)))
    assert roles(program) == ["input", "hidden"] and roles(program, grows=True) == ["hidden", "hidden"]
    mup, ntk = rates(program, "mup", 0.5), rates(program, "ntk", 0.5)
    assert mup.weights.tolist() == [32.0, 0.5] and mup.biases.tolist() == [32.0, 32.0] and mup.head == 0.5 / 64
    assert ntk.weights.tolist() == [0.05, 0.5 / 64] and ntk.biases.tolist() == [0.5, 0.5] and ntk.head == 0.5 / 64


def test_roles_in_blocks():
    """What reads the input before any weight has, gates and queries too, where the first node has other units."""
    embed = pk.Chain(width=10, first=[pk.Linear(16)], blocks=[pk.Block(pk.Linear(), skip=1.0)], head=pk.Head("mse", 1))
    assert roles(lower(embed)) == ["input", "hidden"]
    gated = pk.Chain(width=10, blocks=[pk.Gated(16), pk.Linear(16)], head=pk.Head("mse", 1))
    assert roles(lower(gated)) == ["input", "input", "hidden"]
    assert roles(lower(pk.Chain(depth=2, width=16, head=pk.Head("mse", 1)))) == ["hidden", "hidden"]


ELMAN = pk.Chain(
    depth=3, width=64, blocks=[pk.Linear(), pk.Drive(3), "tanh"], tied=True, init="lecun_normal", head=pk.Head("mse", 1)
)


def test_what_reads_a_drive_is_an_input_layer_at_every_use():
    assert roles(lower(ELMAN)) == roles(lower(ELMAN), grows=True) == ["hidden", "input"] * 3
    assert roles(lower(ELMAN), grows=False) == ["input", "input", *["hidden", "input"] * 2]
    assert rates(lower(ELMAN), "mup", 0.5).weights.tolist() == [0.5, 32.0] * 3


def test_inputs_on_the_way_are_data_at_every_width():
    c = pk.coordinate_check(ELMAN, widths=[128, 256, 512, 1024], steps=1, rate=0.01, parametrization="mup", replicas=40)
    assert c.layers == (*ELMAN.layers, "head")
    assert (np.abs(c.change[0]) < 4 * c.change_error[0] + 0.05).all()


def test_given_inputs_on_the_way():
    """Three steps on what `propagate` is given as well; each use sees its own."""
    drive = [np.full((3, 2), k + 1.0) for k in range(3)]
    words = dict(batch=2, seed=5, engine="dense")
    t = pk.train(ELMAN, steps=1, rate=0.01, drive=drive, **words)
    np.testing.assert_allclose(t.loss[:, 0], pk.propagate(ELMAN, drive=drive, **words).loss, rtol=1e-5)
    assert t.given == ("drive",) and t.loss[0, 0] != pk.train(ELMAN, steps=0, **words).loss[0, 0]
    with pytest.raises(ValueError, match="drive must hold one array a use of a Drive step, 3, got 2"):
        pk.train(ELMAN, batch=2, drive=drive[:2])


def test_mup_starts_with_a_smaller_head_and_attention():
    chain = CHAINS["blocks"].replace(head=pk.Head("mse", 1))
    one, other = (pk.train(chain, steps=0, parametrization=p, **words("blocks")) for p in ("standard", "mup"))
    assert (other.score_std / one.score_std)[0, 0, 0] == pytest.approx(4**-0.5)  # of 4 units a head
    net = pk.Chain(depth=2, width=64, head=pk.Head("linear", 1))
    one, other = (pk.train(net, steps=0, parametrization=p) for p in ("standard", "mup"))
    assert other.loss[0, 0] / one.loss[0, 0] == pytest.approx(64**-0.5, rel=1e-6)


# -- the coordinate check

DATA = pk.Chain(widths=[16, 64, 64, 64], activation="tanh", init="lecun_normal", head=pk.Head("mse", 1))


@pytest.mark.parametrize("name", TABLE)
def test_coordinates_grow_as_promised(name):
    """One step at a rate small enough that no tanh saturates, n = 128 to 8192: exponents of the theory to their own
    errors (some .05; four bounds of them)."""
    c = pk.coordinate_check(
        DATA, widths=[128, 512, 2048, 8192], steps=1, rate=1e-3 if name == "standard" else 0.1, parametrization=name
    )
    assert c.roles == ("input", "hidden", "hidden", "output")
    assert (np.abs(c.change[0] - c.change_promised) < 4 * c.change_error[0] + 0.02).all()
    assert (np.abs(c.size[0] - c.size_promised) < 4 * c.size_error[0] + 0.02).all()


def test_the_logit_after_one_step_grows_with_the_width():
    """Standard parametrization at a fixed rate, n = 64 .. 512: n^1 (sampled .98, truth table 24). A linear read-out has
    the same dJ/dy at every width, so that 40 networks say it to .03."""
    chain = pk.Chain(depth=3, width=64, activation="relu", head=pk.Head("linear", 1))
    c = pk.coordinate_check(chain, widths=[64, 128, 256, 512], steps=1, rate=1e-5, replicas=40, batch=1)
    assert c.change[0, -1] == pytest.approx(1.0, abs=0.1)


def test_a_chain_of_blocks_is_resized_as_a_whole():
    mlp = pk.Block(pk.Norm("layer"), pk.Linear(32), "gelu", pk.Linear(8), skip=1.0)
    chain = pk.Chain(width=8, blocks=[mlp], head=pk.Head("mse", 1))
    c = pk.coordinate_check(chain, widths=[64, 256], steps=2, rate=0.1, parametrization="mup")
    assert (np.abs(c.change - 0.0) < 0.35).all()
    assert c.to_xarray().change.sel(layer="head").shape == (3,)
    assert "promised" in str(c) and "<td>" in c._repr_html_()
    with pytest.raises(ValueError, match="no whole number"):
        pk.coordinate_check(chain.replace(blocks=[pk.Linear(12), pk.Linear(8)]), widths=[9, 16], steps=1)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (dict(widths=[64]), ValueError, "at least two"),
        (dict(widths="64"), TypeError, "sequence of ints"),
        (dict(widths=[64, 0]), ValueError, "widths"),
        (dict(widths=[64, 128], steps=0), ValueError, "steps"),
        (dict(widths=[64, 128], chain=pk.Chain(widths=[8, 8, 9], head=pk.Head("mse", 1))), ValueError, "equal behind"),
    ],
)
def test_bad_input_of_the_check(given, error, said):
    with pytest.raises(error, match=said):
        pk.coordinate_check(**{"chain": HEADED, **given})


def test_the_check_as_xarray():
    """Every array under its own name; a change begins with the first step."""
    c = pk.coordinate_check(HEADED, widths=[8, 16], steps=2, rate=0.05, replicas=3)
    ds = c.to_xarray()
    assert dict(ds.sizes) == {"step": 3, "layer": 3, "width": 2, "replica": 3}
    for name, found in (("size", c.size), ("size_error", c.size_error), ("root_mean_square", c.sizes)):
        np.testing.assert_array_equal(ds[name], found)
    for name, found in (("change", c.change), ("change_error", c.change_error), ("root_mean_square_change", c.changes)):
        assert np.isnan(ds[name].isel(step=0)).all()
        np.testing.assert_array_equal(ds[name].isel(step=slice(1, None)), found)
    np.testing.assert_array_equal(ds.change_promised, c.change_promised)
    np.testing.assert_array_equal(ds.size_promised, c.size_promised)


# -- every op trains

CONV = [pk.Block(pk.Conv(6, kernel=3), pk.Norm("layer"), "relu"), pk.Pool("max", 2), pk.Flatten(), pk.Linear(5), "tanh"]
OPS = {
    "convolution": (pk.Chain(width=2, blocks=CONV, head=pk.Head("mse", 1)), {"positions": (6, 6)}),
    "tied": (pk.Chain(depth=5, width=9, tied=True, activation="tanh", bias_std=0.1, head=pk.Head("mse", 1)), {}),
    "attention": (pk.Chain(width=8, depth=2, blocks=NORMED, head=pk.Head("mse", 1)), {"positions": 3}),
}


@pytest.mark.parametrize("engine", ["dense", "matrix_free"])
@pytest.mark.parametrize("name", OPS)
def test_a_small_step_lowers_the_loss_by_the_squared_gradient(name, engine):
    """dJ = -rate |dJ/dtheta|^2 for the layers, the head and biases together, to first order; catches a step of any op
    that is not along its gradient. The head's own share and the biases' are positive, so the layers' bounds it."""
    chain, words = OPS[name]
    rate = 1e-7
    t = pk.train(chain, steps=1, rate=rate, batch=3, engine=engine, dtype="float64", **words)
    fallen = (t.loss[0, 0] - t.loss[0, 1]) / rate
    weights = (10 ** (2 * t.log10_grad_weight_total[0, 0])).sum()
    biases = (10 ** (2 * t.log10_grad_bias_total[0, 0])).sum() if name == "tied" else 0.0
    assert fallen > 0.999 * (weights + biases)


def test_grouped_convolutions_are_refused():
    chain = pk.Chain(width=4, blocks=[pk.Conv(4, kernel=3, groups=2), pk.Flatten()], head=pk.Head("mse", 1))
    with pytest.raises(ValueError, match="groups=1"):
        pk.train(chain, positions=5)
    with pytest.raises(ValueError, match="groups=1"):
        pk.propagate(chain.replace(head=None), positions=5, cotangent="common")
