# SPDX-License-Identifier: BSD-3-Clause
"""The Numba backend: the stream's bits, rows and chains against the reference, threads, the user's own functions."""

import importlib
import signal
import subprocess
import sys
from itertools import pairwise

import numba
import numpy as np
import pytest
from places import EMBED

import pykernel.numba as pkn
from pykernel import activations, inits, stream
from pykernel.activation import Activation
from pykernel.block import Block as Blocked
from pykernel.chain import Chain
from pykernel.engines import numba_dense, reference
from pykernel.kernels import activation_lanes, sources
from pykernel.layers import Block, Dropout, Gated, Linear, Norm
from pykernel.lower import lower
from pykernel.ops.norm import normalise
from pykernel.parts import Clip, Head, Residual
from pykernel.program import NormRow

SEED = (3 << 33) + 7


def worst(chain, **kw):
    """The largest relative difference of any row from the reference; biases before batch norm left out: 0."""
    kw = {"batch": 3, "seed": SEED, "dtype": "float64", **kw}
    program = lower(chain, **kw)
    expected, found = reference.run(program, 1, 1), numba_dense.run(program, 1, 1)
    out = 0.0
    for name, a in expected.items():
        b = found[name]
        assert a.shape == b.shape, name
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        if name == "log10_grad_bias":
            same |= program.layers.centred > 0
        with np.errstate(all="ignore"):
            difference = np.where(same, 0, np.abs(a - b) / np.maximum(1, np.abs(a)))
        assert not np.isnan(difference).any(), name
        out = max(out, difference.max(initial=0.0))  # attention has no rows where there is none
    return out


@pytest.mark.parametrize(
    ("name", "parameter"),
    [("normal", 0.0), ("uniform", 0.0), ("truncated", 0.0), ("sparse", 0.3), ("student", 3.0), ("stable", 0.7)],
)
def test_draws_are_the_bits_of_the_stream(name, parameter):
    out = np.empty((37, 50), np.float32)
    pkn.weight_tile(out, 16, 8, SEED, 3, 9, rows_number(name), parameter)
    expected = stream.matrix(SEED, 3, 9, 53, 58, name, parameter)[16:, 8:]
    assert np.array_equal(out.view(np.uint32), expected.view(np.uint32))


def rows_number(name):
    return ("normal", "uniform", "truncated", "sparse", "student", "stable").index(name)


def test_tall_draws_and_words():
    out = np.empty((70, 3), np.float32)
    pkn.normals(out, SEED, stream.COTANGENT, 5, 2)
    assert np.array_equal(out, stream.tall(SEED, stream.COTANGENT, 5, 2, 70, 3))
    counter = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert pkn.philox(*counter, 0x299F31D0A4093822) == (
        0x4DFCCABA,
        0x190A87F0,
        0xC47362BA,
        0xB6B5242A,
    )  # Random123's known answer


@pytest.mark.parametrize(
    "name", [name for name in activations.ROWS if activation_lanes.number(activations.get(name))[0] > 0]
)
def test_rows_agree_with_the_table(name):
    row = activations.get(name)
    z = np.concatenate([np.linspace(-20, 20, 4000), np.geomspace(1e-20, 1e5, 96), -np.geomspace(1e-20, 1e5, 96)])
    number, parameter = activation_lanes.number(row)
    for function, expected in ((activation_lanes.values, row.value), (activation_lanes.slopes, row.slope)):
        out = np.empty_like(z)
        function(number, parameter, z, out, len(z))
        # 1e-12 of the value, and of the largest value where the formula cancels (x phi'(x) against 1 - erf far in a
        # tail).
        np.testing.assert_allclose(out, expected(z), rtol=1e-12, atol=1e-14)
        none = np.full(16, np.nan)
        function(number, parameter, none, out := np.zeros(16), 16)
        np.testing.assert_array_equal(out, expected(none))  # zero where a comparison picks the slope


CHAINS = {
    "tanh": Chain(depth=4, width=21, activation="tanh", bias_std=0.1),
    "widths, layer norm": Chain(widths=[7, 40, 18, 300, 33, 5], activation="gelu", norm="layer"),
    "batch norm, eps": Chain(depth=5, width=21, activation="silu", norm="batch", norm_eps=0.3),
    "rms norm, eps, tiny signals": Chain(depth=5, width=21, activation="tanh", norm="rms", norm_eps=1e-20, gain=1e-30),
    "batch norm, residual": Chain(
        depth=7, width=21, activation="relu", norm="batch", residual=Residual(every=2, scale=0.5)
    ),
    "rms norm, second order, residual": Chain(
        depth=7,
        width=21,
        activation="silu",
        norm="rms",
        order="norm-activation-linear",
        residual=Residual(every=3, scale=0.5),
    ),
    "haar": Chain(widths=[70, 21, 130], activation="erf", init="orthogonal"),
    "identity": Chain(depth=3, width=20, activation="leaky_relu", init=inits.Identity(1.5)),
    "constant": Chain(depth=3, width=20, activation="elu", init=inits.Constant(0.1)),
    "uniform bias": Chain(depth=3, width=20, activation="mish", init="torch_linear_default"),
    "mse": Chain(depth=3, width=21, activation="sigmoid", head=Head("mse", 4)),
    "softmax": Chain(depth=3, width=21, activation="arctan", head=Head("softmax", 4)),
    "clip": Chain(depth=3, width=21, activation="softplus", clip=Clip(value=0.01)),
    "vanishes": Chain(depth=400, width=20, activation="sigmoid", init="lecun_normal"),
    "explodes": Chain(depth=400, width=20, activation="gelu", init="he_normal", gain=4),
    "explodes with biases": Chain(depth=300, width=20, activation="softplus", init="he_normal", gain=5, bias_std=0.3),
    "underflows": Chain(depth=400, width=20, activation="silu", init="he_normal", gain=0.1),
    "saturates": Chain(depth=100, width=20, activation="sigmoid", init="he_normal", gain=1000),
}


@pytest.mark.parametrize("name", CHAINS)
def test_dense_agrees_with_the_reference(name):
    assert worst(CHAINS[name]) < 1e-10  # float64, a few hundred layers of a few eps each


def test_dense_single_precision_and_batch_one():
    for chain in (CHAINS["tanh"], CHAINS["batch norm, residual"], CHAINS["explodes"]):
        assert worst(chain, dtype="float32", batch=5) < 1e-3  # decades; float32 rounding over up to 400 layers
    assert worst(CHAINS["tanh"], batch=1) < 1e-10
    assert worst(CHAINS["tanh"], batch=70) < 1e-10  # inputs instead of Gram matrices on the tape


def test_native_precision_shows_plain_zeros():
    chain = Chain(depth=300, width=20, activation="relu", init="he_normal", gain=1e-3)
    program = lower(chain, batch=2, seed=1, dtype="float64", precision="native")
    expected, found = (
        reference.run(program, 0, 1)["log10_grad_weight"],
        numba_dense.run(program, 0, 1)["log10_grad_weight"],
    )
    assert np.isneginf(expected).any()
    assert np.array_equal(np.isfinite(expected), np.isfinite(found))


def test_callers_arrays():
    rng = np.random.default_rng(0)
    widths = [4, 6, 5]
    arrays = {
        "x": rng.normal(size=(4, 3)),
        "cotangent": rng.normal(size=(5, 3)),
        "weights": [rng.normal(size=(m, n)) for n, m in pairwise(widths)],
        "biases": [rng.normal(size=m) for m in widths[1:]],
    }
    assert worst(Chain(widths=widths, activation="tanh"), batch=3, **arrays) < 1e-12
    assert worst(CHAINS["tanh"], correlation=0.5) < 1e-12


@pytest.mark.parametrize(
    "chain",
    [
        Chain(depth=4, width=80, activation="relu"),
        Chain(depth=11, width=20, activation="tanh", residual=Residual(2, 0.7)),
    ],
)
def test_bits_do_not_depend_on_threads_or_on_what_is_kept(chain, monkeypatch):
    program = lower(chain, batch=5, seed=1)
    base = numba_dense.run(program, 0, 7, threads=1)
    ways = [lambda t=t: numba_dense.run(program, 0, 7, threads=t) for t in (2, 3, 7)]

    def redrawn():
        monkeypatch.setattr(numba_dense, "KEPT_BYTES", 0)
        return numba_dense.run(program, 0, 7, threads=2)

    def split():
        monkeypatch.setattr(numba_dense, "SPLIT_WEIGHTS", 1)
        return numba_dense.run(program, 0, 7, threads=9)

    def from_checkpoints():
        monkeypatch.setattr(numba_dense, "TAPE_BYTES", 0)
        return numba_dense.run(program, 0, 7, threads=1)

    for way in (*ways, redrawn, split, from_checkpoints):
        for name, array in way().items():
            assert np.array_equal(array, base[name], equal_nan=True), name
    assert np.array_equal(numba_dense.run(program, 3, 1)["log10_grad_weight"][0], base["log10_grad_weight"][3])


def test_users_rows_compiled_and_in_python():
    compiled = Activation(value=lambda z: np.tanh(z), slope=lambda z: 1 - np.tanh(z) ** 2, name="mine")
    table = np.vectorize(lambda z: float(np.tanh(z)))
    python = Activation(value=table, slope=lambda z: 1 - table(z) ** 2, name="plain")
    for row in (compiled, python):
        assert worst(Chain(depth=3, width=20, activation=row)) < 1e-12


def test_errors_of_a_users_row_are_raised():
    calls = []

    def fails(z):
        calls.append(len(z))
        if len(calls) > 40 and len(z) == 96:
            raise ZeroDivisionError("from the row")
        return np.vectorize(float)(z)

    row = Activation(value=fails, slope=lambda z: np.vectorize(lambda v: 1.0)(z), name="fails", flat=False)
    calls += [0] * 41
    with pytest.raises(RuntimeError, match="from the row"):
        numba_dense.run(lower(Chain(depth=3, width=20, activation=row), batch=3), 0, 1)


@numba.njit
def _value(z):
    return z / (1 + abs(z))


@numba.njit
def _slope(z):
    over = 1 / (abs(z) + 1)
    return over * over


def ends(n, B, depth, replica, dtype=np.float32):
    """Input and cotangent of a replica, as the engine draws them."""
    x, c = np.empty((n, B), dtype), np.empty((n, B), dtype)
    pkn.normals(x, SEED, stream.INPUT, 0, replica)
    pkn.normals(c, SEED, stream.COTANGENT, depth, replica)
    return x, c * dtype(1 / np.sqrt(n * B))


@pytest.mark.parametrize(
    ("activation", "gain", "n", "B", "depth"),
    [
        ("tanh", 1, 40, 3, 6),
        ("leaky_relu(.2)", 1e-3, 20, 2, 60),
        ("gelu", 9, 21, 2, 60),
        ("sigmoid", 1, 300, 1, 3),
        ("elu(0.5)", 1, 33, 1, 5),
    ],
)
def test_chains_in_a_users_loop_have_the_bits_of_the_engine(activation, gain, n, B, depth):
    program = lower(Chain(depth=depth, width=n, activation=activation, gain=gain), batch=B, seed=SEED)
    x, c = ends(n, B, depth, 1)
    _, _, norms = pkn.chain_row(
        x, c, depth, gain * np.sqrt(2 / n), *pkn.activation(activation), SEED, 1, pkn.NORMAL, 0.0
    )
    assert np.array_equal(norms, numba_dense.run(program, 1, 1)["log10_grad_weight"][0])


def test_users_own_loop_gives_the_bits_of_the_engine():
    program = lower(Chain(depth=3, width=40, activation="softsign", init="he_normal"), batch=2, seed=SEED)
    x, c = ends(40, 2, 3, 1)
    _, g, norms = pkn.chain(x, c, 3, np.sqrt(2 / 40), _value, _slope, SEED, 1, pkn.NORMAL, 0.0)
    found = numba_dense.run(program, 1, 1)
    assert np.array_equal(norms, found["log10_grad_weight"][0])
    assert np.log10(np.linalg.norm(g.astype(float))) == pytest.approx(found["log10_grad_activation"][0, 0], abs=1e-12)
    # The adjoint identity of one layer ties forward to backward at an unequal shape; kept draws are the same draws.
    u, d = np.linspace(-1, 1, 90).reshape(30, 3), np.linspace(-2, 1, 150).reshape(50, 3)
    z, du, kept = np.empty((50, 3)), np.empty((30, 3)), np.empty(pkn.kept_size(50, 30))
    pkn.layer_forward_keep(z, u, 0.3, SEED, 2, 0, pkn.UNIFORM, 0.0, kept)
    pkn.layer_backward_kept(du, d, 0.3, kept)
    assert (z * d).sum() == pytest.approx((u * du).sum(), rel=1e-12)
    assert np.allclose(z, 0.3 * stream.matrix(SEED, 2, 0, 50, 30, "uniform").astype(float) @ u, rtol=1e-12)
    again, back = np.empty_like(z), np.empty_like(du)
    pkn.layer_forward(again, u, 0.3, SEED, 2, 0, pkn.UNIFORM, 0.0)
    pkn.layer_backward(back, d, 0.3, SEED, 2, 0, pkn.UNIFORM, 0.0)
    assert np.array_equal(again, z) and np.array_equal(back, du)


def test_activation_names_for_compiled_code():
    assert pkn.activation("relu") == (0, 0.0) and pkn.activation("linear") == (0, 1.0)
    with pytest.raises(ValueError, match="no built-in row"):
        pkn.activation(Activation(value=np.sin, slope=np.cos))


def test_a_simulator_of_ones_own_with_the_librarys_layer(monkeypatch):
    # A user's own cached function knows its own file only, so it has a folder for each state of what it calls.
    monkeypatch.setattr(numba.config, "CACHE_DIR", f"{numba.config.CACHE_DIR}-{sources.digest('pykernel.numba')[:16]}")
    monkeypatch.syspath_prepend(EMBED)
    # By its name: Numba's cache must find the module again in the next process.
    solver = importlib.import_module("ode_network")
    found = solver.ensemble(32, 2, 10, 0.125, 32**-0.5, *pkn.activation("tanh"), SEED, 5, False)
    chain = Chain(depth=10, width=32, activation="tanh", init="lecun_normal", residual=Residual(1, 0.125))
    expected = numba_dense.run(lower(chain, batch=2, seed=SEED), 0, 5)["log10_grad_activation"][:, 0]
    # 0.125 is a power of two, so every rounding is the engine's; only the last sum of squares runs in another order.
    np.testing.assert_allclose(found, expected, atol=1e-14)
    tied = solver.ensemble(32, 2, 10, 0.125, 32**-0.5, *pkn.activation("tanh"), SEED, 5, True)
    assert (tied != found).all()


def test_blocks_of_ones_own_with_the_librarys_steps(monkeypatch):
    monkeypatch.syspath_prepend(EMBED)
    monkeypatch.setattr(numba.config, "CACHE_DIR", f"{numba.config.CACHE_DIR}-{sources.digest('pykernel.numba')[:16]}")
    network = importlib.import_module("pre_norm")
    found = network.ensemble(20, 33, 3, 6, SEED, 4, *pkn.activation("silu"))
    block = Block(Norm("layer"), Gated(33, "silu"), Dropout(network.P), Linear(20), skip=1.0)
    chain = Chain(depth=6, width=20, init="lecun_normal", blocks=[block])
    expected = numba_dense.run(lower(chain, batch=3, seed=SEED, dtype="float64"), 0, 4)["log10_grad_activation"][:, 0]
    # the engine's bits; only the last sum of squares runs in another order
    np.testing.assert_allclose(found, expected, atol=1e-14)


STEPS = {
    "batch norm": lambda out, x: pkn.norm(out, np.empty(32), x, pkn.BATCH_NORM, 0.1),
    "rms norm": lambda out, x: pkn.norm(out, np.empty(32), x, pkn.RMS_NORM, 0.1),
    "mask": lambda out, x: pkn.mask(out, x, 0.3, SEED, 2, 5),
    "add": lambda out, x: pkn.add(out, x, 2 * x, 0.5, -0.25),
    "affine": lambda out, x: pkn.affine(out, x, np.arange(21.0), np.ones(21)),
}


def test_steps_for_ones_own_code_are_those_of_the_reference():
    x = np.random.default_rng(2).normal(size=(21, 3))
    expected = {
        "batch norm": normalise(NormRow("batch", 0.1), Blocked(x))[0].true(),
        "rms norm": normalise(NormRow("rms", 0.1), Blocked(x))[0].true(),
        "mask": np.where(stream.mask(SEED, 2, 5, 21, 3, 0.3), x / 0.7, 0),
        "add": np.zeros_like(x),
        "affine": np.arange(21.0)[:, None] * x + 1,
    }
    for name, step in STEPS.items():
        out = np.empty_like(x)
        step(out, x)
        np.testing.assert_allclose(out, expected[name], rtol=1e-14, atol=1e-15, err_msg=name)
    # The adjoint of a gate at (g, v), by central differences along one direction: h^2 of the third derivative and eps /
    # h.
    g, v, d, h = x, x[::-1].copy(), np.cos(x), 1e-6
    dg, dv = np.empty_like(x), np.empty_like(x)
    pkn.gate_backward(dg, dv, d, g, v, *pkn.activation("gelu"))
    ends = []
    for sign in (1, -1):
        out = np.empty_like(x)
        pkn.gate(out, g + sign * h * d, v - sign * h * g, *pkn.activation("gelu"))
        ends.append((out * d).sum())
    assert (ends[0] - ends[1]) / (2 * h) == pytest.approx((dg * d - dv * g).sum(), rel=1e-8)


def test_kernels_compile_where_no_cache_folder_is_writable():
    script = (
        "import numba.core.caching as caching; caching.CacheImpl._locator_classes = []\n"
        "import numpy as np, pykernel.numba as p; p.normals(np.empty((4, 1)), 1, 3, 0, 0)"
    )
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert "in every process: no cache folder is writable" in run.stderr


def test_second_process_loads_from_the_cache():
    script = (
        "import numpy as np, pykernel.numba as p; x = np.ones((20, 2), np.float32); "
        "p.chain_row(x, x, 2, 0.2, *p.activation('tanh'), 1, 0, 0, 0.0); f = p.chain_row.stats; "
        "print(sum(f.cache_hits.values()), sum(f.cache_misses.values()))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    again = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert again.stdout.split() == ["1", "0"]


def test_machine_code_is_named_alike_in_every_process():
    """Processes share a cache by its names: if they told which dtype came first, float64 code could answer float32."""
    script = (
        "import sys, numba, numpy as np\n"
        "from pykernel.engines.numba_records import record; from pykernel.kernels import ops, records\n"
        "for d in sys.argv[1:]: numba.typeof(record(ops.spec_dtype(np.dtype(d))).record)\n"
        "kinds = [ops.spec_dtype(np.dtype(d)) for d in ('float32', 'float64')] + [records.work_dtype()]\n"
        "print([numba.typeof(record(kind).record).mangling_args for kind in kinds])"
    )
    runs = [
        subprocess.run([sys.executable, "-c", script, *o], check=True, capture_output=True)
        for o in (["float64"], ["float32", "float64"])
    ]
    assert runs[0].stdout == runs[1].stdout
    assert len(set(eval(runs[0].stdout))) == 3


def test_an_interrupt_ends_a_long_run():
    script = (
        "from pykernel.chain import Chain; from pykernel.lower import lower\n"
        "from pykernel.engines import numba_dense as d\n"
        "d.run(lower(Chain(depth=2, width=16)), 0, 1)\n"
        "try:\n    print('ready', flush=True)\n    d.run(lower(Chain(depth=10000, width=1024), batch=2), 0, 4)\n"
        "except KeyboardInterrupt:\n    print('stopped', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == "ready"
    process.send_signal(signal.SIGINT)
    # The job would take hours; the limit only keeps a failure from hanging the suite.
    assert process.communicate(timeout=120)[0].strip() == "stopped"
