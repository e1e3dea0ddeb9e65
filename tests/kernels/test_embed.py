# SPDX-License-Identifier: BSD-3-Clause
"""Outside consumers are built and run against the installed package, in a temporary folder, with nothing but what it
tells them."""

import contextlib
import ctypes
import io
import math
import os
import runpy
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from places import EMBED
from random_chains import random_chain

import pykernel as pk
from pykernel import activations, stream
from pykernel.chain import ORDERS
from pykernel.layers import NORMS
from pykernel.lower import lower
from pykernel.observables import ROWS
from pykernel.parts import LOSSES
from pykernel.program import BIASES

PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
CMAKE = shutil.which("cmake", path=PATH)


def run(*command, **options):
    """Run a command and give back what it prints; its own messages are the best report of a failure."""
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env={**os.environ, "PATH": PATH}, **options
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.strip()


@pytest.fixture(scope="module")
def consumers(tmp_path_factory):
    """The programs of tests/embed, built by a project that only knows pk.get_cmake_dir()."""
    if not CMAKE:
        pytest.skip("needs cmake")
    room = tmp_path_factory.mktemp("consumers")
    shutil.copytree(EMBED, room / "source")
    run(CMAKE, "-S", room / "source", "-B", room / "build", f"-Dpykernel_DIR={pk.get_cmake_dir()}")
    run(CMAKE, "--build", room / "build")
    return room / "build"


def hex_floats(text):
    return np.array([float.fromhex(word) for word in text.split()])


def same_bits(got, rows):
    """Whether numbers printed as hex floats are the rows, bit for bit (any nan equals any other)."""
    np.testing.assert_array_equal(got, np.concatenate([np.ravel(row) for row in rows]))


def numbers(array):
    """A count and as many hex floats, so that none is rounded."""
    array = [] if array is None else np.ravel(array).tolist()
    return [len(array), *(float(x).hex() for x in array)]


def described(chain, program, engine, replicas):
    """A chain of equal layers on one line, as tests/embed/any_chain.h reads it."""
    layers, head = program.layers, program.head
    every = 0 if chain.residual is None else chain.residual.every
    factor = 1.0 if chain.residual is None else chain.residual.factor(chain.depth)
    (activation,), (draw,) = program.activations, program.draws
    words = [int(program.dtype == "float64"), ("dense", "matrix_free").index(engine), replicas]
    words += [
        program.depth,
        program.batch,
        program.seed,
        int(program.exponent),
        NORMS.index(chain.norm),
        ORDERS.index(chain.order),
    ]
    words += [LOSSES.index(head.loss), head.outputs, activation.name, *numbers(activation.parameters)]
    words += [len(program.nodes), *program.nodes.tolist(), every, *numbers(np.full(program.depth, factor))]
    words += [*draw, *numbers(layers.scale), BIASES[layers.bias_draw[0]], *numbers(layers.bias_scale)]
    words += [program.correlation, *numbers(program.x), *numbers(program.cotangent)]
    words += [*head.draw, float(head.scale).hex(), *numbers(head.weight), *numbers(head.bias), *numbers(head.targets)]
    words += [program.clip_value, chain.norm_eps]
    return " ".join(map(str, words))


# chain, arguments of propagate: what a workspace holds differs between all of them
CHAINS = {
    "relu": (dict(depth=40, width=96, activation="relu", init="he_normal"), {}),
    "tanh glorot": (dict(depth=30, width=50, activation="tanh", init="glorot_normal"), {"batch": 5}),
    "uniform": (
        dict(widths=[3, 70, 1, 40, 33], activation="leaky_relu", init="he_uniform", bias_std=0.3),
        {"correlation": 0.5},
    ),
    "float64": (dict(depth=12, width=47, activation="gelu"), {"dtype": "float64", "batch": 9}),
    "residual": (
        dict(depth=24, width=40, activation="softplus", residual=pk.Residual(every=2, scale=0.5)),
        {"batch": 5},
    ),
    "pre-activation": (
        dict(depth=21, width=40, norm="layer", order="norm-activation-linear", residual=pk.Residual()),
        {"batch": 2},
    ),
    "layer norm": (dict(depth=25, width=130, activation="silu", norm="layer", norm_eps=0.2), {"batch": 3}),
    "batch norm": (dict(depth=20, width=64, norm="batch"), {"batch": 5}),
    "softmax head": (dict(depth=15, width=30, activation="tanh", head=pk.Head("softmax", 10)), {"batch": 5}),
    "head of one's own": (
        dict(depth=9, width=30, head=pk.Head("mse", 3, pk.Given([np.eye(3, 30)], [np.arange(3)]))),
        {"batch": 2},
    ),
    "linear head": (dict(depth=15, width=30, activation="selu", head=pk.Head("linear", 3)), {"batch": 2}),
    "clip by value": (dict(depth=10, width=30, activation="selu", clip=pk.Clip(value=1e-3)), {"batch": 2}),
    "orthogonal": (dict(widths=[30, 40, 40, 20, 20, 9], activation="linear", init="orthogonal"), {"batch": 2}),
    "student": (dict(depth=5, width=35, activation="elu(0.5)", init="student_t(3)", gain=0.7), {}),
    "two chunks": (dict(depth=3, width=1100, activation="sigmoid"), {"batch": 2}),
    "beyond float": (dict(depth=400, width=20, activation="relu", gain=3.0), {"batch": 2}),
    "native": (dict(depth=60, width=20, activation="sigmoid"), {"precision": "native", "batch": 2}),
    "given": (
        dict(depth=4, width=20),
        {"x": np.linspace(-1, 1, 60).reshape(20, 3), "cotangent": np.ones((20, 3)) * 1e-20},
    ),
    "matrix-free": (dict(depth=30, width=300, activation="tanh"), {"engine": "matrix_free", "batch": 5}),
    "matrix-free, one input": (dict(depth=30, width=3000, activation="relu", bias_std=0.1), {"engine": "matrix_free"}),
    "matrix-free, orthogonal": (
        dict(depth=10, width=90, norm="rms", init="orthogonal"),
        {"engine": "matrix_free", "batch": 3},
    ),
    "matrix-free, head": (
        dict(depth=10, width=90, activation="erf", head=pk.Head("mse", 3)),
        {"engine": "matrix_free", "batch": 3},
    ),
}


@pytest.mark.parametrize("program", ["any_chain_cpp", "any_chain_c"])
def test_any_chain_has_the_bits_of_propagate(consumers, program):
    for name, (fields, arguments) in CHAINS.items():
        chain = pk.Chain(**fields)
        arguments = {"seed": 2**40 + 5, "replicas": 2, "engine": "dense"} | arguments
        expected = pk.propagate(chain, backend="cpp", **arguments)
        engine = arguments["engine"]
        del arguments["engine"], arguments["replicas"]
        text = run(consumers / program, input=described(chain, lower(chain, **arguments), engine, 2))
        rows = [np.ravel(expected.rows[row.name]) for row in ROWS]
        try:
            same_bits(hex_floats(text), rows + rows)  # with the largest useful workspace, and with the smallest
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


KINDS = ("linear", "phi", "norm", "gate", "add", "scale", "mask", "node", "affine", "mix", "drive")  # as in pk_op_kind


def described_program(program, engine, replicas):
    """A program on one line, as tests/embed/any_program.c reads it."""

    def integers(array):
        return [len(array), *(int(x) for x in array)]

    layers, joins, mixes, head = program.layers, program.joins, program.mixes, program.head
    words = [int(program.dtype == "float64"), ("dense", "matrix_free").index(engine), replicas, len(program.stretches)]
    for stretch in program.stretches:
        words += [len(stretch.ops), stretch.count]
        for op in stretch.ops:
            words += [KINDS.index(op.kind), op.out, *(*op.ins, 0, 0)[:3]]
    words += [
        *integers(program.nodes),
        program.batch,
        math.prod(program.positions),
        program.seed,
        int(program.exponent),
    ]
    words += [*integers(layers.units), *integers(layers.columns), *integers(layers.draw), len(program.draws)]
    words += [word for draw in program.draws for word in draw]
    words += [*numbers(layers.scale), *numbers(layers.bias_scale if layers.bias_scale.any() else ())]
    words += [
        len(program.activations),
        *(word for row in program.activations for word in (row.name, *numbers(row.parameters))),
    ]
    words += [*integers(program.steps.row), *integers(program.steps.norm)]
    words += [
        len(program.norms) - 1,
        *(NORMS.index(norm.kind) for norm in program.norms[1:]),
        *numbers([n.eps for n in program.norms[1:]]),
    ]
    words += [
        *integers(program.norm_steps),
        *numbers(joins.skip),
        *numbers(joins.branch),
        *numbers(program.factors),
        *numbers(program.masks),
        *integers(mixes.heads),
        *integers(mixes.kv_heads),
        *(int(causal) for causal in mixes.causal),
        *numbers(mixes.scale),
    ]
    words += [*integers(program.affine_steps), *integers([len(row.weight) for row in program.affines])]
    words += [word for row in program.affines for part in row for word in numbers(part)]
    words += [program.counts.weight, *integers(layers.weight), *integers(program.drives)]
    words += [LOSSES.index(head.loss), head.outputs, *head.draw, float(head.scale).hex()]
    return " ".join(map(str, words))


GAUSSIAN = ("he_normal", "lecun_normal", "orthogonal")
PROGRAMS = {
    f"random {seed}": (random_chain(seed, width=20, inits=GAUSSIAN), {"batch": 2, "positions": 2}) for seed in range(16)
} | {
    "pre-norm": (
        pk.Chain(
            depth=9, width=40, blocks=[pk.Block(pk.Norm("layer"), pk.Linear(160), "gelu", pk.Linear(40), skip=1.0)]
        ),
        {},
    ),
    "swiglu": (
        pk.Chain(depth=5, width=1100, blocks=[pk.Block(pk.Norm("rms"), pk.Gated(300), pk.Linear(1100), skip=1.0)]),
        {"batch": 3},
    ),
    "attention": (
        pk.Chain(
            depth=3,
            width=48,
            blocks=[
                pk.Block(pk.Norm("rms"), pk.Attention(4, kv_heads=2, causal=True), skip=1.0),
                pk.Block(pk.Norm("rms"), pk.Gated(100), pk.Linear(48), skip=1.0),
            ],
            last=[pk.Attention(1, scale=3.0, bias_std=0.3)],
        ),
        {"batch": 2, "positions": 130},
    ),
    "far": (pk.Chain(depth=9, width=20, gain=30.0, blocks=[pk.Block(pk.Gated(20), pk.Linear(20))]), {"batch": 2}),
    "native": (
        pk.Chain(depth=5, width=20, blocks=[pk.Block(pk.Gated(20), pk.Linear(20))]),
        {"precision": "native", "batch": 2},
    ),
    "tied": (pk.Chain(depth=70, width=33, activation="tanh", bias_std=0.3, tied=True), {"batch": 3}),
    "tied, few uses": (pk.Chain(depth=5, width=150, tied=True, head=pk.Head("mse", 3)), {"dtype": "float64"}),
    "tied blocks": (
        pk.Chain(
            depth=3,
            width=24,
            tied=True,
            first=[pk.Linear(24)],
            blocks=[pk.Block(pk.Norm("rms"), pk.Attention(4), skip=1.0), pk.Block(pk.Gated(17), pk.Linear(24))],
            last=[pk.Linear(9)],
        ),
        {"batch": 2, "positions": 5},
    ),
    "recurrent, with inputs": (
        pk.Chain(depth=9, width=40, blocks=[pk.Block(pk.Linear(), pk.Drive(7), "tanh")], tied=True),
        {"batch": 2},
    ),
}


@pytest.mark.parametrize("engine", ["dense", "matrix_free"])
def test_any_program_has_the_bits_of_propagate(consumers, engine):
    for name, (chain, arguments) in PROGRAMS.items():
        if engine == "matrix_free" and "precision" in arguments:
            continue
        expected = pk.propagate(chain, backend="cpp", engine=engine, replicas=2, seed=2**40 + 5, **arguments)
        program = lower(chain, seed=2**40 + 5, **arguments)
        text = run(consumers / "any_program_c", input=described_program(program, engine, 2))
        rows = [np.ravel(expected.rows[row.name]) for row in ROWS]
        try:
            same_bits(hex_floats(text), rows + rows)  # with the largest useful workspace, and with the smallest
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


def test_blocks_in_c(consumers):
    block = pk.Block(pk.Norm("rms"), pk.Gated(170, "silu"), pk.Linear(64), skip=1.0)
    chain = pk.Chain(depth=6, width=64, blocks=[block], init="lecun_normal")
    expected = pk.propagate(chain, batch=2, positions=5, seed=7, engine="dense", backend="cpp")
    same_bits(hex_floats(run(consumers / "blocks_c")), [expected.log10_grad_activation])


def test_chain_in_cpp(consumers):
    chain = pk.Chain(depth=152, width=256, activation="relu", init="he_normal")
    version, *numbers = run(consumers / "chain_cpp").split("\n")
    assert version == f"pykernel {pk.__version__}"
    expected = pk.propagate(chain, batch=8, replicas=2, seed=7, engine="dense", backend="cpp")
    same_bits(hex_floats("\n".join(numbers)), [expected.log10_grad_weight])


def test_layers_in_a_loop_of_ones_own_are_the_chain(consumers):
    chain = pk.Chain(depth=40, width=100, activation="tanh", init="glorot_normal", residual=pk.Residual(every=2))
    expected = pk.propagate(chain, batch=5, seed=7, engine="dense", backend="cpp")
    same_bits(hex_floats(run(consumers / "layer_cpp")), [expected.log10_grad_activation])


def softsign(z):
    return z / (1 + np.abs(z))


def softsign_slope(z):
    return 1 / ((1 + np.abs(z)) * (1 + np.abs(z)))


def test_chain_in_c_with_its_own_activation(consumers):
    """Against the same formula compiled by Numba, which rounds as C does."""
    pytest.importorskip("numba")
    own = pk.Activation(
        value=softsign, slope=softsign_slope, left=0.0, right=0.0, max_slope=1.0, before_zero=1.0, after_zero=1.0
    )
    chain = pk.Chain(depth=64, width=1000, activation=own, init="lecun_normal")
    expected = pk.propagate(chain, replicas=3, seed=7, engine="matrix_free", backend="cpp", dtype="float64")
    same_bits(hex_floats(run(consumers / "chain_c")), [expected.log10_grad_activation])


def test_two_threads_with_separate_workspaces(consumers):
    assert run(consumers / "two_threads_cpp").endswith("equal")


def test_wrong_calls_give_a_status_and_a_sentence(consumers):
    assert run(consumers / "wrong_calls_cpp") == "0 wrong"


def test_ctypes_example():
    text = run(sys.executable, EMBED / "chain_ctypes.py", pk.get_library())
    tile, gradient = text.split("\n")
    np.testing.assert_array_equal(hex_floats(tile), stream.matrix(7, 2, 0, 16, 16)[3:6, 10:14].ravel())
    chain = pk.Chain(depth=30, width=50, activation="gelu", norm="layer", init="glorot_uniform")
    same_bits(hex_floats(gradient), [pk.propagate(chain, seed=7, engine="dense", backend="cpp").log10_grad_weight])


@pytest.mark.parametrize("source", ["chain.cpp", "chain.c"])
def test_printed_flags_are_enough(consumers, tmp_path, source):
    flags, libraries = (
        run(sys.executable, "-m", "pykernel", what, cwd=tmp_path).split() for what in ("--includes", "--libs")
    )
    compiler, standard = ("c++", ["-std=c++20"]) if source.endswith("cpp") else ("cc", [])
    if not shutil.which(compiler):
        pytest.skip(f"needs {compiler}")
    run(compiler, *standard, *flags, EMBED / source, *libraries, "-o", tmp_path / "program")
    assert run(tmp_path / "program") == run(consumers / source.replace(".", "_"))


def test_pkg_config_is_enough_for_c(consumers, tmp_path):
    config = shutil.which("pkg-config") or shutil.which("pkgconf")
    if not config or not shutil.which("cc"):
        pytest.skip("needs pkg-config and cc")
    room = {"PKG_CONFIG_PATH": str(Path(pk.get_library()).parent / "pkgconfig")}
    flags = subprocess.run(
        [config, "--cflags", "--libs", "pykernel_c"],
        capture_output=True,
        text=True,
        env={**os.environ, **room},
        check=True,
    )
    flags = flags.stdout.split()
    run("cc", EMBED / "chain.c", *flags, "-lm", "-o", tmp_path / "program")
    assert run(tmp_path / "program") == run(consumers / "chain_c")


def test_facts_of_activations_are_those_of_python():
    library = ctypes.CDLL(pk.get_library())

    class Row(ctypes.Structure):
        _fields_ = [
            ("size", ctypes.c_size_t),
            ("name", ctypes.c_char_p),
            ("parameters", ctypes.c_void_p),
            ("rest", ctypes.c_void_p * 5),
        ]
        _fields_ += [(f, ctypes.c_double) for f in FACTS] + [("flat", ctypes.c_int32)]

    message = ctypes.create_string_buffer(200)
    for name in activations.ROWS:
        for parameters in [(), (-0.3,), (0.0,), (2.0,)] if name in ("elu", "leaky_relu") else [()]:
            row = Row(size=ctypes.sizeof(Row), name=name.encode())
            if parameters:
                row.parameters = ctypes.cast((ctypes.c_double * 1)(*parameters), ctypes.c_void_p)
            assert library.pk_activation_facts(ctypes.byref(row), message, ctypes.c_size_t(200)) == 0, message.value
            expected = activations.get(name, parameters)
            assert {f: getattr(row, f) for f in FACTS} == {f: getattr(expected, f) for f in FACTS}, name
            assert bool(row.flat) == expected.flat, name


FACTS = ("left", "right", "before_zero", "after_zero", "at_zero", "max_slope")


@pytest.fixture(scope="module")
def example():
    """The ctypes example as a module: its structures and its `call`."""
    argv, sys.argv = sys.argv, ["", pk.get_library()]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return types.SimpleNamespace(**runpy.run_path(str(EMBED / "chain_ctypes.py")))
    finally:
        sys.argv = argv


BAD_PLANS = {
    "depth must be": {"depth": 0},
    "widths must be|must be given": {"widths": None},
    "batch must be": {"batch": -1},
    "unknown distribution": {"distribution": b"cauchy"},
    "distribution.*must be given": {"distribution": None},
    "size must be": {"size": 3},
    "norm must be": {"norm": 9},
    "norm_eps must be": {"norm_eps": -1.0},
    "loss must be": {"loss": -1},
    "must be given": {"scale": None},
    "correlation must be": {"correlation": 2.0},
}


@pytest.mark.parametrize("message", BAD_PLANS)
def test_bad_plan_gives_a_status_and_a_sentence(example, message):
    """Refused before any work: a status, the sentence in the caller's buffer, nothing written."""
    plan = type(example.plan).from_buffer_copy(example.plan)
    for field, value in BAD_PLANS[message].items():
        setattr(plan, field, value)
    most = ctypes.c_size_t(77)
    with pytest.raises(RuntimeError, match=message):
        example.call("pk_chain_bytes", ctypes.byref(plan), 0, 0, None, ctypes.byref(most))
    assert most.value == 77


def test_too_small_a_workspace_and_a_caller_who_stops(example):
    plan, rows = ctypes.byref(example.plan), ctypes.byref(example.rows)
    least = ctypes.c_size_t()
    example.call("pk_chain_bytes", plan, 0, 0, ctypes.byref(least), None)
    one = (ctypes.c_int64(0), ctypes.c_int64(1), rows, example.workspace)
    with pytest.raises(RuntimeError, match="too few bytes"):
        example.call("pk_chain_run", plan, 0, 0, *one, ctypes.c_size_t(least.value // 2), None, None)
    example.call("pk_chain_run", plan, 0, 0, *one, least, None, None)
    asked = []
    stop = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(lambda user: asked.append(user) or len(asked) > 3)
    with pytest.raises(RuntimeError, match="stopped by the caller"):
        example.call("pk_chain_run", plan, 0, 0, *one, least, stop, None)
    assert len(asked) == 4
    with pytest.raises(RuntimeError, match="engine must be"):
        example.call("pk_chain_run", plan, 5, 0, *one, least, None, None)


def test_a_struct_of_an_older_header_is_read(example):
    """What the caller's struct does not have yet is zero: here the head and the clip."""
    plan = type(example.plan).from_buffer_copy(example.plan)
    plan.size = type(plan).outputs.offset
    plan.clip_value = -1.0  # beyond its size: not read
    example.call("pk_chain_bytes", ctypes.byref(plan), 0, 0, None, ctypes.byref(ctypes.c_size_t()))


def test_stream_by_address(example):
    """Tiles that start anywhere, of every distribution, and tall arrays, against the definition."""
    for distribution, parameter in [
        ("normal", 0),
        ("uniform", 0),
        ("truncated", 0),
        ("sparse", 0.3),
        ("student", 3),
        ("stable", 1.5),
    ]:
        tile = (ctypes.c_float * (21 * 300))()
        where = [ctypes.c_int64(i) for i in (13, 6, 21, 300)]
        address = (ctypes.c_uint64(2**40 + 1), ctypes.c_uint32(5), ctypes.c_uint32(9))
        example.call("pk_draw_weights", *address, distribution.encode(), ctypes.c_double(parameter), *where, tile)
        expected = stream.matrix(2**40 + 1, 5, 9, 34, 306, distribution, parameter)[13:, 6:]
        np.testing.assert_array_equal(np.array(tile).reshape(21, 300), expected)
    address = (
        ctypes.c_uint64(11),
        ctypes.c_uint32(3),
        ctypes.c_uint32(0),
        ctypes.c_uint32(2),
        ctypes.c_int64(150),
        ctypes.c_int64(19),
    )
    for name, kind, expected in [
        ("pk_draw_words", ctypes.c_uint32, stream.tall_words(11, 3, 0, 2, 150, 19)),
        ("pk_draw_uniforms", ctypes.c_float, stream.tall(11, 3, 0, 2, 150, 19, "uniform")),
        ("pk_draw_normals", ctypes.c_float, stream.tall(11, 3, 0, 2, 150, 19)),
    ]:
        out = (kind * (150 * 19))()
        example.call(name, *address, out)
        np.testing.assert_array_equal(np.array(out).reshape(150, 19), expected)
    with pytest.raises(RuntimeError, match="must be from 0 to"):
        example.call(
            "pk_draw_weights", *[ctypes.c_uint64(1)] * 3, b"normal", ctypes.c_double(0), *[ctypes.c_int64(-1)] * 4, tile
        )


@pytest.mark.timeout(3600)
def test_plain_install_without_python(tmp_path_factory, consumers):
    """`cmake --install` from the sources gives a prefix from which find_package builds the same programs.

    Without optimisation and for one instruction set, which is quick to build (PYKERNEL_SLOW_TESTS=1: as users would),
    and the same bits.
    """
    room = tmp_path_factory.mktemp("plain")
    quick = ["-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O0", "-DPYKERNEL_ISAS=baseline"]
    flags = [] if os.environ.get("PYKERNEL_SLOW_TESTS") else quick
    prefix = f"-DCMAKE_INSTALL_PREFIX={room / 'prefix'}"
    run(CMAKE, "-S", EMBED.parent.parent, "-B", room / "build", "-DPYKERNEL_PYTHON=OFF", prefix, *flags)
    run(CMAKE, "--build", room / "build", "--parallel", "2")
    run(CMAKE, "--install", room / "build")
    run(CMAKE, "-S", EMBED, "-B", room / "consumers", f"-DCMAKE_PREFIX_PATH={room / 'prefix'}")
    for program in ("layer_cpp", "chain_c"):
        run(CMAKE, "--build", room / "consumers", "--target", program)
        assert run(room / "consumers" / program) == run(consumers / program)


def test_shared_library_shows_the_c_interface_only():
    library = ctypes.CDLL(pk.get_library())
    library.pk_version.restype = ctypes.c_char_p
    assert library.pk_version().decode() == pk.__version__
    if not shutil.which("nm"):
        pytest.skip("needs binutils")
    names = [line.split()[-1] for line in run("nm", "-D", "--defined-only", pk.get_library()).splitlines()]
    assert names
    assert all(name.startswith("pk_") for name in names), names


def test_pkg_config_files_say_where_they_are():
    for name in ("pykernel", "pykernel_c"):
        text = (Path(pk.get_library()).parent / "pkgconfig" / f"{name}.pc").read_text()
        assert f"Version: {pk.__version__}" in text
        assert "prefix=${pcfiledir}/../.." in text
