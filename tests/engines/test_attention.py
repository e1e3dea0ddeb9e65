# SPDX-License-Identifier: BSD-3-Clause
"""Attention in the compiled backends against the definition: every shape, scores of every size, the same bits on every
way to run it, and the law of dense weights in the matrix-free engine."""

import os
import subprocess
import sys

import numpy as np
import pytest
from memory import peaks
from places import TESTS
from random_chains import random_chain
from rounding import definition_and_moved
from two_samples import smallest_p

import pykernel as pk
from pykernel import Attention, Block, Chain, Linear, Norm, stream
from pykernel.engines import cpp, cpp_matrix_free, reference, reference_matrix_free
from pykernel.lower import lower

SHAPES = {  # heads, heads of keys, units of a head
    "one head": (1, 1, 5),
    "shared keys": (2, 1, 16),
    "heads within a panel": (4, 2, 3),
    "a head over two panels": (3, 3, 24),
}


def assert_agrees(run, program, tolerance):
    """Rows within `tolerance` decades of the definition, plus what a rounding error of every weight does to that.

    Where attention makes all positions alike, differences between them are made of rounding errors, in any engine.
    """
    wanted, moved = definition_and_moved(program)
    got = run(program, 0, 1, threads=2)
    for name, row in wanted.items():
        with np.errstate(invalid="ignore"):
            change, scale = np.nan_to_num(np.abs(moved[name] - row), nan=0.0, posinf=np.inf), np.maximum(1, np.abs(row))
            error = np.where(got[name] == row, 0.0, np.abs(got[name] - row) / scale)
        # the rounding errors of a few hundred operations, not only that of one factor; what they change tenfold or make
        # zero is made of them
        sure = (1e3 * change < 1) & ~(np.isnan(row) & np.isnan(got[name]))
        if name == "log10_grad_bias":  # of keys it is zero but for rounding, since no softmax sees what all keys share
            noise = wanted["log10_grad_preactivation"] - (9 if program.dtype == "float64" else 4)
            sure &= (row > noise) | (got[name] > noise)
        exact = program.dtype == "float64"
        assert (error <= tolerance + 1e3 * change * exact)[sure].all(), (name, row, got[name])


@pytest.mark.parametrize("seed", range(30))
def test_random_chains_agree_with_the_reference(seed):
    """Every step beside attention, 1 to 17 positions of 1 to 3 inputs, float64."""
    rng = np.random.default_rng(seed)
    chain = random_chain(seed, attention=True)
    program = lower(
        chain, batch=int(rng.integers(1, 4)), positions=int(rng.integers(1, 18)), seed=seed, dtype="float64"
    )
    assert_agrees(cpp.run, program, 1e-9)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_scores_of_every_size(name, causal):
    """From uniform weights to one-hot ones whose others no number holds, and negative factors, forward and back."""
    heads, kv_heads, d = SHAPES[name]
    for scale in (0.0, None, -1.0, 30.0, 1e4, 1e30):
        step = Attention(heads, kv_heads=kv_heads, causal=causal, scale=scale)
        chain = Chain(depth=2, width=heads * d, blocks=[Block(step, skip=1.0)])
        for positions in (1, 2, 17):
            assert_agrees(cpp.run, lower(chain, batch=2, positions=positions, seed=3, dtype="float64"), 1e-9)


def test_long_inputs_are_cut_into_tiles_and_shares():
    """More keys than a tile of queries has room for, and fewer heads than tasks."""
    for heads, causal, positions in ((1, True, 130), (2, False, 200)):
        chain = Chain(width=40, depth=1, blocks=[Block(Attention(heads, causal=causal, scale=1.0), skip=1.0)])
        assert_agrees(cpp.run, lower(chain, positions=positions, seed=3, dtype="float64"), 1e-9)


def test_float32_holds_its_digits():
    """Scores of order one are sums of 24 products, weights and gradients of a few more: errors of some 100 units in the
    last place, 1e-5 of each number and so of its decades; where 17 positions are averaged twice, ten times that."""
    chain = Chain(depth=2, width=48, blocks=[Block(Norm("layer"), Attention(2, causal=True), skip=1.0)])
    for positions in (1, 5, 17):
        assert_agrees(cpp.run, lower(chain, batch=2, positions=positions, seed=1, dtype="float32"), 1e-4)


def test_gradients_through_one_hot_weights_in_float32():
    """Weights of e^-500 beside one of 1: what flows through their scores is far below float32, and kept."""
    chain = Chain(depth=1, width=16, blocks=[Block(Attention(1, scale=200.0))])
    program = lower(chain, positions=2, seed=5, dtype="float32")
    wanted, got = (module.run(program, 0, 1, threads=1)["log10_grad_weight"] for module in (reference, cpp))
    assert wanted[0, 0] < -50
    # an error of 1e-7 of a score of a thousand is 1e-4 of the logarithm's unit
    np.testing.assert_allclose(got, wanted, atol=1e-3)


def test_plain_arithmetic_shows_what_plain_arithmetic_does():
    """Where nothing overflows it is the same; where the exponential does, there is no number."""
    chain = Chain(depth=2, width=16, blocks=[Block(Attention(2), skip=1.0)])
    near = lower(chain, positions=6, seed=1, precision="native", dtype="float32")
    assert_agrees(cpp.run, near, 1e-4)
    far = lower(
        chain.replace(blocks=[Block(Attention(2, scale=100.0))]), positions=6, precision="native", dtype="float32"
    )
    for module in (reference, cpp):
        assert np.isnan(module.run(far, 0, 1, threads=1)["log10_mean_square_activation"]).any()


BITS = """
import hashlib
from test_attention import programs
from pykernel.engines import cpp, cpp_matrix_free
digest = hashlib.sha256()
for program in programs():
    for run in (cpp.run, cpp_matrix_free.run):
        for row in run(program, 0, 1, threads=1).values():
            digest.update(row.tobytes())
print(digest.hexdigest())
"""


def programs():
    """Small heads and large, shares and tiles, one-hot weights."""
    shapes = ((1, 1, 24, 130, True), (2, 2, 64, 70, False), (8, 4, 20, 40, True), (4, 1, 16, 1, False))
    for i, (heads, kv_heads, d, positions, causal) in enumerate(shapes):
        step = Attention(heads, kv_heads=kv_heads, causal=causal, scale=(None, 60.0)[i % 2])
        chain = Chain(width=heads * d, depth=2, blocks=[Block(Norm("rms"), step, skip=1.0)], init="he_normal")
        yield lower(chain, batch=1 + i % 2, positions=positions, seed=5, dtype=("float32", "float64")[i % 3 == 2])


def test_bits_do_not_depend_on_threads_or_memory():
    for program in programs():
        for run in (cpp.run, cpp_matrix_free.run):
            one = run(program, 0, 2, threads=1)
            for threads, memory in ((2, None), (3, 0), (7, 200_000)):
                for name, row in run(program, 0, 2, threads=threads, memory=memory).items():
                    np.testing.assert_array_equal(row, one[name], err_msg=name)


def test_bits_do_not_depend_on_the_instruction_set():
    answers = set()
    places = os.pathsep.join([str(TESTS), os.path.dirname(__file__)])
    for isa in ("avx512", "avx2", "baseline"):
        environment = {**os.environ, "PYKERNEL_ISA": isa, "PYTHONPATH": places}
        done = subprocess.run([sys.executable, "-c", BITS], env=environment, capture_output=True, text=True)
        if "must be one of" not in done.stderr:
            assert done.returncode == 0, done.stderr
            answers.add(done.stdout)
    assert len(answers) == 1


def test_numba_agrees_with_the_reference():
    """Every shape, uniform to one-hot weights, several inputs, keys seen or not."""
    numba_dense = pytest.importorskip("pykernel.engines.numba_dense")
    for i, (heads, kv_heads, d) in enumerate(SHAPES.values()):
        for scale, positions in ((None, 17), (0.0, 3), (40.0, 5), (1e30, 4), (1.0, 1)):
            step = Attention(heads, kv_heads=kv_heads, causal=i % 2 == 0, scale=scale, bias_std=0.2)
            chain = Chain(depth=2, width=heads * d, blocks=[Block(step, skip=1.0)])
            assert_agrees(numba_dense.run, lower(chain, batch=2, positions=positions, seed=3, dtype="float64"), 1e-9)


# -- matrix-free: query, key and value are three weights on one input

LAW = Chain(
    depth=2,
    width=6,
    init="lecun_normal",
    blocks=[Block(Attention(2, causal=True, scale=1.5), skip=0.5), Block(Linear(5), "tanh", Linear(6), skip=1.0)],
)
REPLICAS = 6000


def statistics(rows):
    """Rows of every layer, and what ties layers and passes together."""
    names = (
        "log10_grad_weight",
        "log10_mean_square_activation",
        "attention_entropy",
        "score_std",
        "log10_weight_factor",
    )
    columns = [rows[name][:, l] for name in names for l in range(rows[name].shape[1])]
    weight, signal = rows["log10_grad_weight"], rows["log10_mean_square_activation"]
    columns += [weight[:, 0] - weight[:, 1], weight[:, 1] - weight[:, 2], weight[:, 0] - weight[:, -1]]
    return [*columns, signal[:, -1] - rows["log10_grad_activation"][:, 0]]


def test_law_is_that_of_dense_weights():
    """Two-sample Kolmogorov-Smirnov tests jointly over layers. Catches: a query that forgets what the key has seen."""
    dense = cpp.run(lower(LAW, batch=1, positions=3, seed=1), 0, REPLICAS, threads=2)
    free = cpp_matrix_free.run(lower(LAW, batch=1, positions=3, seed=2), 0, REPLICAS, threads=2)
    assert smallest_p(statistics(dense), statistics(free)) > 0.01


class Forgetful(reference_matrix_free.Conditioned):
    """Backward weights drawn independently of what the forward pass has seen."""

    def backward(self, layer, delta):
        rows, columns = (int(of[layer - 1]) for of in (self.program.layers.units, self.program.layers.columns))
        weight = stream.matrix(self.program.seed + 1, layer, self.replica, rows, columns)
        return self.program.layers.scale[layer - 1] * weight.T @ delta


def test_an_engine_that_forgets_one_side_has_another_law():
    """The tests above would notice: at a twentieth of the replicas."""
    chain = Chain(depth=2, width=6, init="lecun_normal", blocks=[Block(Attention(1, scale=1.5))])

    def statistic(operator, seed):  # <a, dJ/da> of every block: sees how the backward pass leans on the forward one
        program = lower(chain, positions=3, seed=seed, dtype="float64")
        kept = reference.run_operators(program, 0, 300, operator, keep=("activation", "grad_activation"))["keep"]
        return [np.array([(k["activation"][l] * k["grad_activation"][l]).sum() for k in kept]) for l in range(2)]

    operators = (reference.Dense, Forgetful, reference_matrix_free.Conditioned)
    dense, wrong, right = (statistic(operator, seed) for seed, operator in enumerate(operators))
    assert smallest_p(dense, wrong) < 1e-4
    assert smallest_p(dense, right) > 0.01


# -- at length


def test_a_thousand_blocks_in_little_memory():
    """1000 attention blocks of 512 units, 16 positions, gradients of 10^-1000 and below: under 1 GiB."""
    code = """
chain = pk.Chain(depth=1000, width=512, gain=0.3, blocks=[pk.Block(pk.Attention(8))])
p = pk.propagate(chain, positions=16, engine="dense", backend="cpp")
assert p.log10_grad_activation[0, 0] < -300 and abs(p.log10_grad_activation[0, 0]) < 1e4
"""
    assert peaks(code)[1] < 1024


def test_scores_are_not_kept():
    """2048 positions, 16 heads: scores of one layer alone would take 256 MiB, of forward and backward as much again."""
    code = """
chain = pk.Chain(depth=1, width=256, blocks=[pk.Block(pk.Attention(16, causal=True))])
p = pk.propagate(chain, positions=2048, engine="dense", backend="cpp")
"""
    assert peaks(code)[1] < 700


def test_the_memory_answer_grows_with_positions():
    chain = Chain(depth=1, width=64, blocks=[Block(Attention(2))])
    answers = [cpp.memory(lower(chain, positions=T)) for T in (64, 256, 1024)]
    assert answers == sorted(answers) and answers[-1] < 2**28
    assert pk.propagate(chain, positions=64, backend="cpp").attention_entropy.shape == (1, 1)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("backend", ["cpp", "reference"])
def test_key_gradients_survive_positions_that_hardly_differ(backend, causal):
    """The gradient of keys sums to zero over the positions of an input, so Gram matrices of the whole input cancel to
    nothing there; the gradient matrices themselves say what is right."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 2, 1)) + 3e-4 * rng.normal(size=(16, 2, 5))
    chain = Chain(width=16, init="lecun_normal", blocks=[Attention(2, causal=causal)])
    exact = [np.log10(np.linalg.norm(g)) for g in pk.gradients(chain, x=x, positions=5, seed=1)]
    p = pk.propagate(chain, x=x, positions=5, seed=1, engine="dense", backend=backend)
    # float32 holds differences of 3e-4 to 2e-4 of themselves; with the mean in the Gram matrices the key is lost
    np.testing.assert_allclose(p.log10_grad_weight[0], exact, atol=1e-3)
