# SPDX-License-Identifier: BSD-3-Clause
"""The user's own activation functions and inits, in every part of the package: what is theirs must do what ours does
under another name."""

import math

import numba
import numpy as np
import pytest
import stand_in

import pykernel as pk

MINE = pk.Activation(value=stand_in.single, slope=stand_in.single_slope, kinks=(0,), flat=False, name="mine")
OURS = pk.leaky_relu(0.1)
INIT = pk.Init("normal", scale=stand_in.steep, name="steep")


@pytest.mark.parametrize("backend", ["reference", "numba", "cpp"])
def test_own_functions_of_one_number_run_like_the_built_in_row(backend):
    jitted = pk.Activation(
        value=numba.njit(stand_in.single), slope=numba.njit(stand_in.single_slope), kinks=(0,), flat=False
    )
    base = pk.propagate(
        pk.Chain(depth=300, width=20, activation=OURS, gain=0.1),
        batch=2,
        dtype="float64",
        engine="dense",
        backend=backend,
    )
    for row in (MINE, jitted):
        chain = pk.Chain(depth=300, width=20, activation=row, init=INIT, gain=0.1)  # far below float range
        p = pk.propagate(chain, batch=2, dtype="float64", engine="dense", backend=backend)
        np.testing.assert_allclose(p.log10_grad_weight, base.log10_grad_weight, rtol=1e-12)
        np.testing.assert_array_equal(p.dead, base.dead)


def test_theory_takes_own_rows():
    mine, ours = (
        pk.Chain(depth=20, width=64, activation=row, init=init) for row, init in ((MINE, INIT), (OURS, "he_normal"))
    )
    np.testing.assert_allclose(pk.predict(mine).log10_grad_weight, pk.predict(ours).log10_grad_weight, atol=1e-6)
    assert pk.critical_gain(MINE).gain == pytest.approx(pk.critical_gain(OURS).gain, rel=1e-6)
    assert pk.recommend(mine) is not None


def test_own_rows_and_samplers_cross_into_other_processes():
    base = pk.Chain(depth=2, width=8, activation=MINE)
    for init in (INIT, pk.Init(sampler=stand_in.signs, name="signs")):
        run = dict(base=base.replace(init=init), replicas=4, progress=False)
        here, there = (pk.sweep({"depth": [2, 5]}, executor=executor, **run) for executor in (None, 2))
        np.testing.assert_array_equal(here.slope, there.slope)


def changes(z):
    z *= 2
    return z / 2


def raises(z):
    raise KeyError("from the function")


@pytest.mark.parametrize(
    ("value", "slope", "message"),
    [
        (changes, np.ones_like, "value changes the array"),
        (raises, np.ones_like, "value fails for a float64 array: KeyError: 'from the function'"),
        (np.sin, lambda z: 1.0, "arrays of the shape"),
        (np.sin, lambda z: np.cos(z)[:2], "arrays of the shape"),
        (math.tanh, lambda z: 1 - math.tanh(z), "slope is not the derivative of value: at z ="),
        (np.sin, lambda z: np.cos(z) * np.nan, "slope is not the derivative of value: at z ="),
    ],
)
def test_what_is_no_activation_is_refused_with_its_reason(value, slope, message):
    with pytest.raises(ValueError) as caught:
        pk.Activation(value=value, slope=slope)
    assert message in str(caught.value)


def test_faster_than_linear_is_said_where_it_leaves_the_range():
    square = pk.Activation(value=lambda z: z * z / 4, slope=lambda z: z / 2, name="square")
    assert (
        square.is_superlinear
        and not MINE.is_superlinear
        and not pk.Activation(value=np.arctan, slope=lambda z: 1 / (1 + z * z)).is_superlinear
    )
    chain = pk.Chain(depth=12, width=20, activation=square)
    pk.propagate(chain.replace(depth=2), backend="reference", engine="dense")  # still in range: nothing to say
    with pytest.warns(RuntimeWarning, match=r"'square' grows faster than linearly, and from layer \d+ on"):
        pk.propagate(chain.replace(gain=9.0), backend="reference", engine="dense")


def test_a_chain_is_shown_in_a_line():
    long = pk.Chain(widths=range(5, 500), activation=MINE, init=pk.Given([np.ones((6, 5))]), norm="rms")
    assert len(repr(long)) < 160 and "0x" not in repr(long)
    assert repr(pk.Chain(depth=3, width=8)) == "Chain(depth=3, width=8, activation='relu', init='he_normal')"
