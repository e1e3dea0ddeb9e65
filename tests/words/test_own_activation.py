# SPDX-License-Identifier: BSD-3-Clause
"""The user's own activation functions in the compiled backend: C functions, Numba functions and plain Python."""

import ctypes
import math
import pickle

import numpy as np
import pytest

import pykernel as pk
from pykernel import cfunctions

ROWS = ("log10_grad_weight", "log10_mean_square_activation", "saturated", "log10_derivative_factor")


def value(z):
    return z / np.sqrt(1 + z * z)


def slope(z):
    return 1 / np.sqrt(1 + z * z) ** 3


def rows(activation, backend, **arguments):
    chain = pk.Chain(depth=12, width=37, activation=activation, gain=1.2, norm=arguments.pop("norm", None))
    p = pk.propagate(chain, backend=backend, **({"batch": 3, "replicas": 2, "engine": "dense"} | arguments))
    assert p.backend == backend
    return np.concatenate([np.ravel(getattr(p, row)) for row in ROWS])


@pytest.fixture(scope="module")
def numba():
    return pytest.importorskip("numba")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("engine", ["dense", "matrix_free"])
def test_a_plain_function_runs_compiled_and_agrees_with_the_reference(numba, dtype, engine):
    own = pk.Activation(value=value, slope=slope)
    if engine == "dense":
        tolerance = 1e-4 if dtype == "float32" else 1e-12  # 12 layers, sums over 37 units, relative rounding each
        np.testing.assert_allclose(
            rows(own, "cpp", dtype=dtype), rows(own, "reference"), rtol=tolerance, atol=tolerance
        )
    bits = [rows(own, "cpp", dtype=dtype, engine=engine, threads=threads) for threads in (1, 3)]
    np.testing.assert_array_equal(*bits)


def test_auto_takes_the_compiled_backend(numba):
    chain = pk.Chain(depth=2, width=4, activation=pk.Activation(value=numba.njit(value), slope=numba.njit(slope)))
    assert pk.propagate(chain).backend == "cpp"


def test_the_same_function_as_a_built_in_row_gives_its_numbers(numba):
    own = pk.Activation(value=lambda z: z / (1 + np.abs(z)), slope=lambda z: (1 / (1 + np.abs(z))) ** 2, flat=False)
    for norm in (None, "batch", "layer"):
        for batch in (1, 70):  # more than one piece of a callback
            got, expected = (rows(row, "cpp", norm=norm, dtype="float64", batch=batch) for row in (own, "softsign"))
            np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_every_kind_of_c_function_gives_the_same_bits(numba):
    array = "void(CPointer(float64), CPointer(float64), int64, voidptr)"

    def arrays(f):
        def fill(z, out, n, user):
            for i in range(n):
                out[i] = f(z[i])

        return numba.cfunc(array)(fill)

    value_1, slope_1 = numba.njit(value), numba.njit(slope)
    scalar = [numba.cfunc("float64(float64)")(f) for f in (value, slope)]
    kinds = {
        "numba arrays": (arrays(value_1), arrays(slope_1)),
        "numba numbers": scalar,
        "ctypes numbers": [cfunctions.SCALAR(f.address) for f in scalar],
        "one of each": (arrays(value_1), scalar[1]),
    }
    found = {name: rows(pk.Activation(value=v, slope=s), "cpp", dtype="float64") for name, (v, s) in kinds.items()}
    for name, got in found.items():
        np.testing.assert_array_equal(got, found["numba arrays"], err_msg=name)
    reference = rows(pk.Activation(value=kinds["numba arrays"][0], slope=scalar[1]), "reference")
    np.testing.assert_allclose(found["numba arrays"], reference, rtol=1e-12, atol=1e-12)


def test_a_function_of_a_c_library():
    """libm's tanh, without Numba: its slope is a Python function of the same, so only `value` is C; with both as C it
    is compiled."""
    libm = ctypes.CDLL(None)
    libm.tanh.argtypes, libm.tanh.restype = (ctypes.c_double,), ctypes.c_double
    slope = cfunctions.SCALAR(lambda x: 1 - math.tanh(x) ** 2)
    own = pk.Activation(value=libm.tanh, slope=slope, flat=False)
    assert own.name == "tanh"
    np.testing.assert_allclose(
        rows(own, "cpp", dtype="float64"), rows("tanh", "cpp", dtype="float64"), rtol=1e-10, atol=1e-10
    )


def wrong():
    libm = ctypes.CDLL(None)
    yield libm.fabsf, "arguments"
    yield ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_double)(lambda x: x), "c_float c_double"
    yield ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double, ctypes.c_int)(lambda x, n: x), "c_int"


def test_another_signature_is_refused(numba):
    """A wrong signature would be a crash inside the kernel: it is read before anything is called."""
    given = [f for f, _ in wrong()] + [numba.cfunc("float32(float32)")(lambda x: x)]
    for function in given:
        with pytest.raises(TypeError, match=r"must be double \(double\) or void"):
            pk.Activation(value=function, slope=np.ones_like)


def test_a_c_function_is_not_pickled():
    f = cfunctions.SCALAR(math.tanh)
    own = pk.Activation(value=f, slope=cfunctions.SCALAR(lambda x: 1 - math.tanh(x) ** 2))
    with pytest.raises(TypeError, match="means nothing in another process"):
        pickle.dumps(own)


def test_what_cannot_be_compiled_is_refused_with_what_can(numba):
    table = np.vectorize(math.tanh)
    own = pk.Activation(value=table, slope=lambda z: 1 - table(z) ** 2, name="table")
    with pytest.raises(ValueError, match=r'backend="cpp" needs C functions.*cannot run activation.*"reference" can'):
        rows(own, "cpp")
    logarithms = pk.Activation(value=value, slope=slope, log2_slope=lambda z: (1.0, np.log2(slope(z))))
    with pytest.raises(ValueError, match="value and slope only"):
        rows(logarithms, "cpp")


@pytest.mark.parametrize("backend", ["cpp", "numba", "reference"])
@pytest.mark.parametrize("what", ["value", "slope"])
def test_an_error_inside_compiled_code_is_told_with_its_row(numba, backend, what):
    """An exception cannot leave compiled code: without a note of it the numbers of the failed block would be
    anything."""

    @numba.njit
    def value(z):
        if what == "value" and 0.0305 < z < 0.0345:  # not where the row is checked
            raise ValueError("too small for me")
        return math.tanh(z)

    @numba.njit
    def slope(z):
        if what == "slope" and 0.0305 < z < 0.0345:
            raise ValueError("too small for me")
        return 1 - math.tanh(z) ** 2

    own = pk.Activation(value=value, slope=slope, name="brittle")
    chain = pk.Chain(depth=3, width=100, activation=own, init="lecun_normal")
    for seed in (0, 1):  # the second call finds the note of the first one wiped
        with pytest.raises(RuntimeError, match=f"activation 'brittle': {what} raised ValueError: too small for me"):
            pk.propagate(chain, batch=5, seed=seed, backend=backend, engine="dense")
    large = np.full((100, 5), 3.0)
    weights = [np.eye(100)] * 3
    pk.propagate(chain, x=large, weights=weights, backend=backend, engine="dense")


def test_float32_from_a_row_is_refused():
    with pytest.raises(TypeError, match="'narrow': value must keep the float64 it is given, got float32"):
        pk.Activation(value=lambda z: np.tanh(z).astype(np.float32), slope=lambda z: 1 - np.tanh(z) ** 2, name="narrow")


def test_slopes_beyond_float32_are_kept(numba):
    """exp(-z^2 / 2) at |z| of 30 is 1e-196: lost in float32, not in the double numbers of the callback."""
    own = pk.Activation(
        value=lambda z: z * np.exp(-z * z / 2), slope=lambda z: (1 - z * z) * np.exp(-z * z / 2), left=0.0, right=0.0
    )
    chain = pk.Chain(depth=1, width=1, activation=own)
    arguments = {"x": [[30.0]], "cotangent": [[1.0]], "weights": [np.ones((1, 1))], "engine": "dense"}
    got, expected = (
        pk.propagate(chain, backend=backend, **arguments).log10_grad_weight[0, 0] for backend in ("cpp", "reference")
    )
    assert got < -190
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_functions_with_other_facts_are_other_functions():
    """Chains of the same words share what they are lowered to; those whose functions differ in a fact alone do not."""
    sharp, blunt = (pk.Activation(value=value, slope=slope, max_slope=top) for top in (1.0, 1e6))
    assert sharp != blunt and sharp == pk.Activation(value=value, slope=slope, max_slope=1.0)
    runs = [pk.propagate(pk.Chain(3, 8, activation=own), backend="reference").saturated for own in (sharp, blunt)]
    assert (runs[0] < 1).all() and (runs[1] == 1).all()


def test_chains_of_the_same_words_are_lowered_once(monkeypatch):
    from pykernel import patterns

    read: list[pk.Chain] = []
    whole = patterns.Pattern
    monkeypatch.setattr(patterns, "Pattern", lambda chain, positions: read.append(chain) or whole(chain, positions))
    for gain in (1.2345, 1.2345, 1.5432):
        pk.propagate(pk.Chain(3, 8, gain=gain))
    assert [chain.gain for chain in read] == [1.2345, 1.5432]
