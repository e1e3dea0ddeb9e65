# SPDX-License-Identifier: BSD-3-Clause
"""One table of bad input: each case with the exception it must raise, before any work, and what the message must
name."""

import numpy as np
import pytest

import pykernel as pk
from pykernel.engines import run as runs

NAN, INF = float("nan"), float("inf")


def chain(**fields):
    return pk.Chain(**{"depth": 3, "width": 4, **fields})


def run(chain_fields=(), **arguments):
    return pk.propagate(chain(**dict(chain_fields)), **arguments)


def sweep(grid):
    return pk.sweep(grid, {"depth": 3, "width": 4}, replicas=1, progress=False)


X = np.ones((4, 2))
BLOCK = pk.Block(pk.Linear(5), "tanh", pk.Linear(4), skip=1.0)
WEIGHTS = [np.eye(4)] * 3

CASES = [
    # sizes
    (lambda: pk.Chain(depth=0, width=4), ValueError, "depth must be a positive int, got 0"),
    (lambda: pk.Chain(depth=-1, width=4), ValueError, "depth must be a positive int, got -1"),
    (lambda: pk.Chain(depth=2**63, width=4), ValueError, "depth must be an int from 1"),
    (lambda: pk.Chain(depth=2, width=0), ValueError, "width must be a positive int, got 0"),
    (lambda: pk.Chain(depth=2.0, width=4), TypeError, "depth must be an int, got 2.0"),
    (lambda: pk.Chain(depth=True, width=4), TypeError, "depth must be an int, got True"),
    (lambda: pk.Chain(depth="3", width=4), TypeError, "depth must be an int, got '3'"),
    (lambda: pk.Chain(depth=2), TypeError, "depth and width, or widths"),
    (lambda: pk.Chain(widths=[4]), ValueError, "n[0] .. n[L]"),
    (lambda: pk.Chain(widths=[]), ValueError, "n[0] .. n[L]"),
    (lambda: pk.Chain(widths=[4, 0, 4]), ValueError, "widths[1] must be a positive int, got 0"),
    (lambda: pk.Chain(widths="44"), TypeError, "widths must be a sequence of ints"),
    (lambda: pk.Chain(widths=[4, 5], depth=3), ValueError, "contradicts widths"),
    # sizes of presets
    (lambda: pk.blocks.gpt2(layers=0), ValueError, "gpt2 layers must be a positive int, got 0"),
    (lambda: pk.blocks.gpt2(layers=-1), ValueError, "gpt2 layers must be a positive int, got -1"),
    (lambda: pk.blocks.gpt2(layers="x"), TypeError, "gpt2 layers must be an int, got 'x'"),
    (lambda: pk.blocks.gpt2(layers=10**400), ValueError, "gpt2 layers must be an int from 1 to"),
    (lambda: pk.blocks.gpt2(width={}), TypeError, "gpt2 width must be an int, got {}"),
    (lambda: pk.blocks.gpt2(width=96.0), TypeError, "gpt2 width must be an int, got 96.0"),
    (lambda: pk.blocks.llama(kv_heads=np.float32(2)), TypeError, "llama kv_heads must be an int"),
    (lambda: pk.blocks.gpt2([]), TypeError, "gpt2 size must be one of"),
    (lambda: pk.blocks.bert(hidden=True), TypeError, "bert hidden must be an int, got True"),
    (lambda: pk.blocks.gpt2(vocabulary=1), ValueError, "vocabulary must be an int from 2"),
    (lambda: pk.blocks.vit(classes=2.0), TypeError, "classes must be an int, got 2.0"),
    # schemes and functions of one's own
    (
        lambda: pk.Init("sparse"),
        ValueError,
        'init parameter (the density of "sparse") must be above 0 and at most 1, got 0',
    ),
    (lambda: pk.Init("sparse", parameter=5.0), ValueError, "at most 1, got 5"),
    (lambda: pk.Init("sparse", parameter="x"), TypeError, "must be a number, got 'x'"),
    (lambda: pk.Init("student"), ValueError, 'degrees of freedom of "student") must be from 1 to'),
    (lambda: pk.Init("student", parameter=NAN), ValueError, "must be finite, got nan"),
    (lambda: pk.Init("stable", parameter=77), ValueError, "must be from 0.5 to 2, got 77"),
    (lambda: pk.Init("normal", bias_distribution="foo"), ValueError, "init bias_distribution must be one of"),
    (lambda: pk.Init("normal", bias_distribution="uniform"), TypeError, "init bias_scale must be a function"),
    (lambda: pk.Init("normal", name=None), TypeError, "init name must be a text, got None"),
    (
        lambda: run({"init": pk.Init("normal", scale=lambda i, o: 1 / 0, name="mine")}),
        ValueError,
        "init mine: scale(4, 4) of layer 1",
    ),
    (
        lambda: run({"init": pk.Init(sampler=lambda r, c, s: 1 / 0)}),
        RuntimeError,
        "raised ZeroDivisionError for layer 1",
    ),
    (lambda: pk.Activation(np.sin, np.cos, left="a"), TypeError, "activation left must be a number, got 'a'"),
    (lambda: pk.Activation(np.sin, np.cos, left=NAN), ValueError, "activation left must be finite, got nan"),
    (
        lambda: pk.Activation(np.sin, np.cos, max_slope=-1),
        ValueError,
        "activation max_slope must be 0 or a positive number, got -1",
    ),
    (lambda: pk.Activation(np.sin, np.cos, name=3), TypeError, "activation name must be a text, got 3"),
    (lambda: pk.Activation(np.sin, np.cos, plain_value=3), TypeError, "activation plain_value must be a function"),
    (lambda: pk.Activation(np.sin, np.cos, log2_slope=3), TypeError, "activation log2_slope must be a function"),
    (lambda: pk.Activation(lambda z: z * 1j, np.cos), TypeError, "must return real numbers, got complex"),
    (lambda: chain(activation="leaky_relu(1e308)"), ValueError, "at most 1e+15 in magnitude"),
    (lambda: pk.critical_gain("tanh", bias_std=1e300), ValueError, "bias_std must be from 0 to 1e+100, got 1e+300"),
    (lambda: pk.weights(3, layer=1), TypeError, "chain must be a pykernel.Chain, got int"),
    (lambda: pk.gradients(3), TypeError, "chain must be a pykernel.Chain, got int"),
    (lambda: pk.Given([np.eye(2) * 1j]), TypeError, "weights[0] must be real, got a complex array"),
    (
        lambda: pk.propagate(pk.Chain(widths=[2, 3, 2], init=pk.Given([np.ones((3, 2)), np.ones((2, 2))]))),
        ValueError,
        "weights[1] must have shape (2, 3), got (2, 2)",
    ),
    (lambda: pk.Given([np.ones((3, 2))], biases=[np.ones(2)]), ValueError, "biases[0] must have shape (3,)"),
    (lambda: run().judge(3, -3), ValueError, "vanishing must be below exploding"),
    (lambda: run().judge(NAN), ValueError, "vanishing must be finite, got nan"),
    (lambda: run().assert_healthy(vanishing=3), ValueError, "vanishing must be below exploding"),
    (lambda: chain(activation="relu("), ValueError, "must close its parenthesis"),
    (lambda: chain(init="normal(0.1"), ValueError, "must close its parenthesis"),
    (lambda: chain(norm=np.array(["batch"])), TypeError, "norm must be one of"),
    # names and numbers of the chain
    (lambda: chain(activation="rel"), ValueError, "did you mean 'relu'"),
    (lambda: chain(activation="leaky_relu(a)"), ValueError, "parameters must be numbers"),
    (lambda: chain(activation="relu(1)"), ValueError, "takes 0 parameters, got 1"),
    (lambda: chain(activation=3), TypeError, "activation must be a name"),
    (lambda: chain(init="he_norml"), ValueError, "did you mean 'he_normal'"),
    (lambda: chain(init="normal"), ValueError, "needs its numbers"),
    (lambda: chain(init=0.1), TypeError, "init must be a name"),
    (lambda: chain(gain=NAN), ValueError, "gain must be finite, got nan"),
    (lambda: chain(gain=INF), ValueError, "gain must be finite, got inf"),
    (lambda: chain(gain="1"), TypeError, "gain must be a number, got '1'"),
    (lambda: chain(bias_std=-0.1), ValueError, "bias_std must be 0 or a positive number, got -0.1"),
    (lambda: chain(norm="bach"), ValueError, "did you mean 'batch'"),
    (lambda: chain(norm_eps=0), ValueError, "norm_eps must be from 1e-30 to 1e+30, got 0"),
    (lambda: chain(norm_eps="1"), TypeError, "norm_eps must be a number"),
    (lambda: chain(order="activation-first"), ValueError, "order must be one of"),
    (lambda: chain(tied=1), TypeError, "tied must be True or False, got 1"),
    (lambda: pk.Chain(widths=[3, 4, 3], tied=True), ValueError, "all must be as wide; widths say from 3 to 4"),
    (lambda: chain(tied=True, gain=[1.0, 2.0, 3.0]), ValueError, "gain must be one value, got a list of 3"),
    (
        lambda: chain(tied=True, init="fixup", residual=pk.Residual(2)),
        ValueError,
        "init fixup scales the layers of a branch apart",
    ),
    (
        lambda: pk.Chain(depth=2, width=4, blocks=[pk.Linear(5)], tied=True),
        ValueError,
        "must end in as many units as come in: 4 come in, 5 out",
    ),
    (lambda: chain(residual=2), TypeError, "residual must be None or a pykernel.Residual"),
    (lambda: chain(residual=pk.Residual(every=4)), ValueError, "more than the depth 3"),
    (lambda: pk.Chain(widths=[4, 5, 6], residual=pk.Residual()), ValueError, "equal widths at both ends"),
    (lambda: pk.Residual(every=0), ValueError, "residual every must be a positive int"),
    (lambda: pk.Residual(scale=INF), ValueError, "residual scale must be finite, got inf"),
    (lambda: pk.Residual(scale="small"), ValueError, "inverse_sqrt_depth"),
    (lambda: pk.Head(loss="hinge"), ValueError, "head loss must be one of"),
    (lambda: pk.Head(loss="softmax", outputs=1), ValueError, "head outputs"),
    (lambda: pk.Head(loss="softmax", outputs=3, targets=[0, 3]), ValueError, "classes from 0 to 2"),
    (lambda: pk.Head(loss="sigmoid", outputs=1, targets=[[2.0]]), ValueError, "from 0 to 1"),
    (lambda: pk.Head("mse", 2, targets=[[10**400], [1]]), ValueError, "head targets must fit in float64"),
    (lambda: pk.Head("mse", 2, targets=[[1j], [1]]), TypeError, "head targets must be real, got a complex array"),
    (
        lambda: pk.Head("mse", 2, targets=[[1, 2], [1]]),
        ValueError,
        "head targets must be an array of numbers, got lists",
    ),
    (lambda: pk.Head("softmax", 3, targets=["a", 1]), TypeError, "head targets must be an array of numbers"),
    (lambda: pk.Head(init="orthogonal"), ValueError, "independently"),
    (lambda: pk.Clip(), ValueError, "one of norm and value"),
    (lambda: pk.Clip(norm=1.0, value=1.0), ValueError, "one of norm and value"),
    (lambda: pk.Clip(norm=0), ValueError, "clip norm must be a positive number, got 0"),
    (lambda: chain().replace(dept=3), ValueError, "did you mean 'depth'"),
    # init schemes and activation functions
    (lambda: pk.Sparse(0.0), ValueError, "density must be above 0"),
    (lambda: pk.Sparse(1.5), ValueError, "density must be above 0 and at most 1, got 1.5"),
    (lambda: pk.StudentT(0.5), ValueError, "degrees must be from 1"),
    (lambda: pk.Stable(2.5), ValueError, "alpha must be from 0.5 to 2, got 2.5"),
    (lambda: pk.Norm("layer", weight=NAN), ValueError, "norm weight must be finite, got nan"),
    (lambda: pk.Norm("layer", bias="b"), TypeError, "norm bias must be a number, got"),
    (lambda: pk.Norm("layer", weight=[1.0, NAN]), ValueError, "norm weight must be finite, got nan at index (1,)"),
    (
        lambda: pk.Norm("layer", weight=[[1], [1, 2]]),
        ValueError,
        "norm weight must be an array of numbers, got lists of",
    ),
    (lambda: pk.Norm("layer", weight={1}), TypeError, "norm weight must be an array of numbers, got set"),
    (lambda: pk.Norm("layer", weight=10**400), ValueError, "must fit in a float64, got an int of about 400 digits"),
    (lambda: pk.Norm("layer", weight=[10**400]), ValueError, "norm weight must fit in float64"),
    (lambda: pk.Norm("layer", weight=b"1"), TypeError, "norm weight must be an array of numbers, got bytes"),
    (lambda: pk.Scale([[1], [1, 2]]), ValueError, "scale s must be an array of numbers, got lists of unequal lengths"),
    (lambda: pk.Norm("layer", weight=[]), ValueError, "norm weight must be a number, one a unit, or"),
    (
        lambda: pk.Norm("layer", bias=np.ones((2, 2, 2))),
        ValueError,
        "or (repetitions, units) numbers, got shape (2, 2, 2)",
    ),
    (
        lambda: pk.Chain(width=4, blocks=[pk.Norm("rms", weight=[1, 2]), pk.Linear(4)]),
        ValueError,
        "norm weight must be a number or one for each of the 4 units, got 2",
    ),
    (
        lambda: pk.Chain(width=2, depth=3, blocks=[pk.Norm("rms", bias=np.ones((2, 2))), pk.Linear(2)]),
        ValueError,
        "norm bias must have one row, or one for each of the 3 repetitions, got 2 rows",
    ),
    (lambda: pk.Normal(NAN), ValueError, "std must be finite, got nan"),
    (lambda: pk.VarianceScaling(2.0, "fan_on"), ValueError, "did you mean 'fan_in'"),
    (lambda: pk.VarianceScaling(-1.0), ValueError, "init scale must be a positive number, got -1"),
    (lambda: pk.Activation(value=np.sin, slope=np.sin), ValueError, "not the derivative of value: at z ="),
    (lambda: pk.Activation(value=3, slope=np.sin), TypeError, "activation value must be a function"),
    (lambda: pk.Activation(value=lambda z: z.sum(), slope=np.cos), ValueError, "arrays of the shape"),
    # arguments of propagate
    (lambda: pk.propagate("relu"), TypeError, "chain must be a pykernel.Chain, got str"),
    (lambda: run(batch=0), ValueError, "batch must be a positive int, got 0"),
    (lambda: run(replicas=0), ValueError, "replicas must be a positive int, got 0"),
    (lambda: run(replicas=1.5), TypeError, "replicas must be an int, got 1.5"),
    (lambda: run(keep=np.array(3)), TypeError, "keep must be a sequence of names"),
    (lambda: pk.Chain(widths=np.array(3)), TypeError, "widths must be a sequence of ints"),
    (lambda: pk.Chain(width=4, blocks=np.array(3)), TypeError, "blocks must be a sequence of Blocks and steps"),
    (lambda: pk.Chain(depth=2, width=4, first=np.zeros(2)), ValueError, "first goes with blocks"),
    (lambda: pk.Chain(depth=2, width=4, last=np.zeros(0)), ValueError, "last goes with blocks"),
    (lambda: run(seed=-1), ValueError, "seed must be an int from 0"),
    (lambda: run(seed=2**64), ValueError, "seed must be an int from 0"),
    (lambda: run(engine="dens"), ValueError, "did you mean 'dense'"),
    (lambda: run(backend="c++"), ValueError, "backend must be one of"),
    (lambda: run(dtype="float16"), ValueError, "dtype must be one of"),
    (lambda: run(precision="double"), ValueError, "precision must be one of"),
    (lambda: run(threads=0), ValueError, "threads must be a positive int, got 0"),
    (lambda: run(correlation=1.5), ValueError, "correlation must be from 0 to 1, got 1.5"),
    (lambda: run(keep="activation"), TypeError, "keep must be a sequence of names"),
    (lambda: run(keep=("activations",)), ValueError, "did you mean 'activation'"),
    (lambda: run(x=np.ones((5, 2))), ValueError, "x must have shape (4, 2), got (5, 2)"),
    (lambda: run(x=np.ones(4)), ValueError, "x must have shape (units, batch)"),
    (lambda: run(x=np.ones((4, 0))), ValueError, "at least one input"),
    (lambda: run(x=np.full((4, 2), NAN)), ValueError, "x must be finite, got nan at index (0, 0)"),
    (lambda: run(x=np.ones((4, 2), complex)), TypeError, "x must be real"),
    (lambda: run(x=[[1, 2], [1], [1], [1]]), ValueError, "x must be an array of numbers, got lists of unequal lengths"),
    (lambda: run(x=[[10**400] * 2] * 4), ValueError, "x must fit in float64"),
    (lambda: run(x={}), TypeError, "x must be an array of numbers, got dict"),
    (lambda: run(cotangent=[[1], [1, 2]]), ValueError, "cotangent must be an array of numbers, got lists"),
    (lambda: run(x=[["a"] * 2] * 4), TypeError, "x must be an array of numbers"),
    (lambda: run(x=X, cotangent=np.ones((4, 3))), ValueError, "contradicts"),
    (lambda: run(x=X, batch=3), ValueError, "batch=3 contradicts x of 2 inputs"),
    (lambda: run(x=X, cotangent=np.full((4, 2), INF)), ValueError, "cotangent must be finite, got inf"),
    (lambda: run(x=X, weights=WEIGHTS[:2]), ValueError, "weights must hold one array a layer, 3, got 2"),
    (
        lambda: run(x=X, weights=[np.eye(4), np.eye(5), np.eye(4)]),
        ValueError,
        "weights[1] must have shape (4, 4), got (5, 5)",
    ),
    (
        lambda: run(x=X, weights=[np.eye(4), np.eye(4) * NAN, np.eye(4)]),
        ValueError,
        "weights[1] must be finite, got nan",
    ),
    (lambda: run(x=X, biases=[np.ones(4)] * 4), ValueError, "biases must hold one array a layer"),
    (lambda: run({"head": pk.Head("mse", 2)}, cotangent=np.ones((4, 1))), ValueError, "a head has its own objective"),
    (
        lambda: run({"head": pk.Head("softmax", 3, targets=[0, 1])}, batch=3),
        ValueError,
        "batch=3 contradicts head targets of 2 inputs",
    ),
    (lambda: run({"init": "fixup"}), ValueError, "fixup needs residual branches"),
    (lambda: run(formats=dict(weights="bfloat16")), TypeError, "as in pykernel.Formats(**words), got {'weights'"),
    (lambda: pk.recommend(chain(), formats={}), TypeError, "formats must be None or a pykernel.Formats"),
    (lambda: pk.Formats(loss_scale="auto"), TypeError, "got 'auto'; recommend says which one fits a chain"),
    (lambda: pk.trace(chain(), replicas=3), TypeError, "argument 'replicas'"),
    (lambda: pk.critical_gain(chain(), bias_std=np.ones(3)), ValueError, "takes no bias_std beside a Chain"),
    # combinations that an engine refuses, with one that can
    (lambda: run({"init": "he_uniform"}, engine="matrix_free"), ValueError, 'engine="dense" can'),
    (lambda: run({"clip": pk.Clip(value=1.0)}, engine="matrix_free"), ValueError, "clip by norm"),
    (lambda: run(engine="matrix_free", precision="native"), ValueError, 'engine="dense"'),
    (lambda: run(x=X, weights=WEIGHTS, engine="matrix_free"), ValueError, 'engine="dense"'),
    (
        lambda: run({"tied": True}, weights=[np.eye(4)] * 2),
        ValueError,
        "weights must hold one array a layer, 3 or one a tied weight, 1, got 2",
    ),
    (
        lambda: run({"tied": True}, weights=[np.eye(4), np.eye(4), np.ones((4, 4))]),
        ValueError,
        "layers 1 and 3 use one weight, and weights[0] and weights[2] differ",
    ),
    (lambda: run(keep=("activation",), backend="cpp"), ValueError, 'backend="reference" does'),
    # jobs that cannot fit
    (
        lambda: pk.propagate(pk.Chain(depth=10**6, width=10**4), batch=4, engine="matrix_free", backend="reference"),
        pk.TooLarge,
        'backend="cpp" can run this in',
    ),
    (lambda: pk.propagate(pk.Chain(depth=1000, width=8), replicas=2**32), pk.TooLarge, "ask for fewer replicas"),
    (lambda: pk.propagate(pk.Chain(depth=10**6, width=10**6), engine="dense", batch=1000), MemoryError, "is free"),
    (
        lambda: pk.weights(pk.Chain(depth=1, width=10**6), layer=1),
        ValueError,
        "1000000 x 1000000 weight matrix needs about",
    ),
    (lambda: pk.gradients(pk.Chain(depth=1000, width=10**5)), MemoryError, "every gradient matrix"),
    # blocks and positions
    (lambda: run(positions=0), ValueError, "positions must be a positive int, got 0"),
    (lambda: run(positions=(2, 0)), ValueError, "positions"),
    (lambda: run(positions=2.5), TypeError, "positions"),
    (lambda: run(positions="8"), TypeError, "positions"),
    (lambda: run(positions=b"\x02"), TypeError, "positions must be an int or a sequence of one or two ints, got b'"),
    (lambda: run(positions={}), TypeError, "positions must be an int or a sequence of one or two ints, got {}"),
    (lambda: run(positions={1}), TypeError, "positions must be an int or a sequence of one or two ints, got {1}"),
    (lambda: pk.predict(chain(), positions={1}), TypeError, "positions must be an int or a sequence"),
    (lambda: sweep({"positions": [{}]}), TypeError, "positions must be an int or a sequence"),
    (lambda: run(positions=2, x=np.ones((4, 2))), ValueError, "x must have shape"),
    (lambda: run(positions=2, x=np.ones((4, 2, 3))), ValueError, "x must have shape (units, batch, 2), got (4, 2, 3)"),
    (lambda: run({"blocks": ["linear"]}), ValueError, "weight layers"),
    (lambda: run({"blocks": [BLOCK]}, weights=WEIGHTS), ValueError, "weights must hold one array a layer, 6, got 3"),
    (lambda: run({"blocks": [BLOCK], "init": ["he_normal", "orthogonal"]}), ValueError, "a step takes its own init"),
    (lambda: run({"blocks": [BLOCK], "widths": [4, 4]}), ValueError, "widths is for chains of equal layers"),
    (lambda: run({"blocks": {"a": [BLOCK]}}), TypeError, "blocks must be a sequence of Blocks and steps"),
    (lambda: run({"blocks": BLOCK}), TypeError, "skip=1.0); wrap it in a list"),
    (lambda: run({"blocks": pk.blocks.gpt2()}), TypeError, "got a Chain: give its blocks, chain.blocks"),
    (lambda: run({"blocks": [pk.blocks.gpt2()]}), TypeError, "got a Chain: give its blocks, chain.blocks"),
    (
        lambda: pk.weights(chain(blocks=[BLOCK]), layer="4.linear1"),
        ValueError,
        "layer must be a name from '1.linear1' to '3.linear2'",
    ),
    (lambda: pk.weights(chain(blocks=[BLOCK]), layer=7), ValueError, "layer must be an int from 1 to 6, got 7"),
    (lambda: pk.gradients(chain(blocks=[BLOCK]), positions=-1), ValueError, "positions must be a positive int, got -1"),
    (
        lambda: run().to_dataframe(of="node"),
        ValueError,
        "of must be one of 'layer', 'activation', 'attention', 'block'",
    ),
    (lambda: run().plot(kind="layers"), ValueError, "kind must be one of"),
    (lambda: sweep({"blocks": {"a": 3}}), TypeError, "pattern 'a': blocks: a pattern must be a list"),
    (lambda: sweep({"blocks": {"a": pk.blocks.gpt2()}}), TypeError, "got a Chain: give its blocks, chain.blocks"),
    (lambda: sweep({"blocks": ["attention(4, causal)"]}), ValueError, "as in {attention = 4, causal = true}"),
    (lambda: sweep({"blocks": {"a": ["rellu"]}}), ValueError, "pattern 'a': blocks: "),
    (lambda: sweep({"blocks": {"a": {"blocks": [BLOCK], "frist": []}}}), ValueError, "did you mean 'first'"),
    (lambda: sweep({"blocks": {"a": {"first": [BLOCK]}}}), ValueError, "needs blocks"),
    (lambda: sweep({"blocks": {}}), ValueError, "at least one value"),
    (lambda: sweep({"blocks": BLOCK}), TypeError, "grid['blocks'] must be a list of values"),
    (lambda: sweep({"blocks": [[BLOCK]], "norm": ["rms"]}), ValueError, "norm is for chains of equal layers"),
    (lambda: sweep({"positions": [0]}), ValueError, "positions must be a positive int, got 0"),
    (lambda: sweep({"activation": [["relu"]]}), ValueError, "one a layer, 3"),
    (lambda: sweep({"blok": [1]}), ValueError, "did you mean 'blocks'"),
    # windows, where no positions can be given
    (
        lambda: pk.depth_scales(pk.Chain(width=4, blocks=[pk.Conv(4), "tanh"])),
        ValueError,
        "depth scales do not know convolutions",
    ),
    (
        lambda: pk.jacobian_spectrum(pk.Chain(width=4, blocks=[pk.Conv(4), "tanh"])),
        ValueError,
        "chains of equal layers, each one activation",
    ),
    # addresses
    (lambda: pk.weights(chain(), layer=0), ValueError, "layer must be a positive int, got 0"),
    (lambda: pk.weights(chain(), layer=4), ValueError, "layer must be an int from 1 to 3, got 4"),
    (lambda: pk.weights(chain(), layer=1, replica=-1), ValueError, "replica must be an int from 0"),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_bad_input_is_refused_by_name(case):
    call, kind, words = CASES[case]
    with pytest.raises(kind) as caught:
        call()
    assert words in str(caught.value)


def test_arrays_of_any_layout_are_taken():
    """Views, other byte orders, integers and lists are the same numbers, so they must give the same rows."""
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (4, 2)).astype(float)
    same = [x, np.asfortranarray(x), x.astype(">f8"), x.astype(int), x.tolist(), np.repeat(x, 2, axis=1)[:, ::2]]
    rows = [pk.propagate(chain(), x=given, engine="dense", backend="reference").log10_grad_weight for given in same]
    assert all(np.array_equal(rows[0], r) for r in rows)


def test_what_takes_years_is_refused():
    job = runs.prepare(pk.Chain(2**10, 2**31 - 64), engine="dense", backend="cpp")
    with pytest.raises(pk.TooLarge, match=r"would take about .* years on 2 threads"):
        runs.require_time(job, 1, 2)
    runs.require_time(runs.prepare(pk.Chain(100_000, 512), engine="dense", backend="cpp"), 1, 1)
