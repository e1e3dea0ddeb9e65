# SPDX-License-Identifier: BSD-3-Clause
"""Oracles: one matrix behind all answers, and the law of a drawn one, whatever is asked and in whatever order."""

import numpy as np
import pytest
from two_samples import smallest_p

from pykernel.oracle import Gaussian, Haar, Known, normals_at

REPLICAS = 1500


def asked(kind, rows, columns, seed, dtype="float64"):
    """An oracle of NumPy's normals: the stream's definition is slow, and the law is all that matters here."""
    rng = np.random.default_rng(seed)
    return kind(rows, columns, lambda purpose, units, first, count: rng.normal(size=(units, count)), 0.7, dtype)


class Drawn:
    """The same interface over a matrix that is drawn."""

    def __init__(self, matrix):
        self.matrix = matrix

    def forward(self, u):
        return self.matrix @ u

    def backward(self, d):
        return self.matrix.T @ d

    def step(self, d, u, rate):
        self.matrix = self.matrix - rate * d @ u.T


def drawn(kind, rows, columns, seed):
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(rows, columns))
    if kind is Gaussian:
        return Drawn(0.7 * normals)
    full = max(rows, columns)
    q, r = np.linalg.qr(rng.normal(size=(full, full)))
    return Drawn(0.7 * (q * np.sign(np.diag(r)))[:rows, :columns])


class Blind(Gaussian):
    """An oracle whose two sides ignore each other: it must fail what the right one passes."""

    def _ask(self, columns, purpose):
        keep = self._left, self._right
        if purpose == 7:
            self._left = Known(self.rows, self.columns, self.dtype)
        else:
            self._right = Known(self.columns, self.rows, self.dtype)
        try:
            return super()._ask(columns, purpose)
        finally:
            self._left, self._right = (keep[0], self._right) if purpose == 7 else (self._left, keep[1])

    def step(self, d, u, rate):
        e, c = self.coordinates(d, u)
        self.add(-rate * e @ c.T)


def stepped(oracle, d, u, rate):
    """One step of descent on W by either."""
    if isinstance(oracle, Drawn):
        return oracle.step(d, u, rate)
    e, c = oracle.coordinates(d, u)
    return oracle.add(-rate * e @ c.T)


QUESTIONS = [("forward", 2), ("backward", 1), ("backward", 2), ("forward", 1), ("forward", 2), ("backward", 1)]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", [(9, 14), (14, 9), (12, 12), (4, 30)])
@pytest.mark.parametrize("kind", [Gaussian, Haar])
def test_all_answers_are_of_one_matrix(kind, shape, dtype):
    """<d, W u> = <W^T d, u> between all questions, the same again when they are asked again, and linear in what is
    asked. To rounding: n eps of float64, of float32 what two projections leave."""
    oracle, rng = asked(kind, *shape, 1, dtype), np.random.default_rng(2)
    tolerance = {"float64": 1e-11, "float32": 1e-4}[dtype]
    seen = {"forward": [], "backward": []}
    for way, count in QUESTIONS:
        block = rng.normal(size=(shape[way == "forward"], count))
        seen[way].append((block, getattr(oracle, way)(block)))
    (u, z), (d, g) = (tuple(map(np.hstack, zip(*seen[way]))) for way in seen)
    np.testing.assert_allclose(d.T @ z, g.T @ u, atol=tolerance)
    np.testing.assert_allclose(oracle.forward(u), z, atol=tolerance)
    np.testing.assert_allclose(oracle.backward(d), g, atol=tolerance)
    mix = rng.normal(size=(u.shape[1], 3))
    np.testing.assert_allclose(oracle.forward(u @ mix), z @ mix, atol=tolerance)


@pytest.mark.parametrize("shape", [(9, 14), (14, 9), (12, 12)])
def test_haar_answers_are_of_an_orthogonal_matrix(shape):
    """Asked for everything, it is a corner of an orthogonal matrix times its scale; catches answers that are each
    uniform but not together."""
    oracle, rng = asked(Haar, *shape, 3), np.random.default_rng(4)
    oracle.forward(rng.normal(size=(shape[1], 3)))
    oracle.backward(rng.normal(size=(shape[0], 3)))
    matrix = oracle.forward(np.eye(shape[1])) / 0.7
    np.testing.assert_allclose(oracle.backward(np.eye(shape[0])).T / 0.7, matrix, atol=1e-10)
    small = matrix @ matrix.T if shape[0] < shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(small, np.eye(min(shape)), atol=1e-10)


@pytest.mark.parametrize("kind", [Gaussian, Haar])
def test_a_step_changes_the_matrix_by_what_was_asked(kind):
    """W - rate d u^T answers old questions with the step in them, and new ones of the changed matrix."""
    oracle, rng = asked(kind, 12, 10, 5), np.random.default_rng(6)
    u, d, new = rng.normal(size=(10, 2)), rng.normal(size=(12, 2)), rng.normal(size=(10, 1))
    z, g = oracle.forward(u), oracle.backward(d)
    stepped(oracle, d, u, 0.3)
    np.testing.assert_allclose(oracle.forward(u), z - 0.3 * d @ (u.T @ u), atol=1e-12)
    np.testing.assert_allclose(oracle.backward(d), g - 0.3 * u @ (d.T @ d), atol=1e-12)
    np.testing.assert_allclose(d.T @ oracle.forward(new), oracle.backward(d).T @ new, atol=1e-12)


def tied_chain(oracle, rng):
    """A recurrent net of six uses and its backward pass: norms and inner products of the two passes."""
    a, tape, out = rng.normal(size=(6, 2)), [], []
    for _ in range(6):
        z = oracle.forward(a)
        tape.append((a, z))
        a = np.tanh(1.5 * z)
        out.append((a**2).mean())
    g, total = rng.normal(size=(6, 2)) / 6, 0.0
    for u, z in reversed(tape):
        delta = 1.5 * g / np.cosh(1.5 * z) ** 2
        total = total + delta @ u.T
        g = oracle.backward(delta)
        out += [(g**2).sum(), (g * u).sum()]
    return [*out, (total**2).sum()]


def three_steps(oracle, rng):
    """Three steps of a layer between a fixed input and a fixed read-out: losses and gradient norms."""
    x, v, t, out = rng.normal(size=(6, 2)), rng.normal(size=(1, 6)) / 6**0.5, rng.normal(size=(1, 2)), []
    for _ in range(4):
        z = oracle.forward(x)
        y = v @ np.tanh(z)
        delta = v.T @ (y - t) / np.cosh(z) ** 2
        g = oracle.backward(delta)
        out += [((y - t) ** 2).mean(), (g**2).sum(), (g * x).sum()]
        stepped(oracle, delta, x, 0.4)
        x = x - 0.2 * g  # an input that moves, as behind other layers
    return out


def random_orders(oracle, rng):
    """Questions in an order of chance, each made of earlier answers: norms, and products of the last with the first."""
    u, d = rng.normal(size=(6, 1)), rng.normal(size=(6, 1))
    order = np.random.default_rng(11).integers(0, 2, 9)
    out = []
    for forward in order:
        if forward:
            d = np.tanh(oracle.forward(u)) + 0.2 * d
            out.append((d**2).mean())
        else:
            u = np.tanh(oracle.backward(d)) - 0.3 * u
            out.append((u**2).mean())
    return [*out, (d.T @ oracle.forward(u)).item()]


def sample(make, question, seed):
    return np.array([question(make(seed + r), np.random.default_rng(10**6 + seed + r)) for r in range(REPLICAS)])


@pytest.mark.parametrize("question", [tied_chain, three_steps, random_orders])
@pytest.mark.parametrize("kind", [Gaussian, Haar])
def test_the_law_is_that_of_a_drawn_matrix(kind, question):
    """Kolmogorov-Smirnov tests of all statistics at width 6, where nothing is nearly Gaussian. Catches a forgotten
    projection, a wrong scale, a core on the wrong side. .01 over the family of six."""
    ours = sample(lambda seed: asked(kind, 6, 6, seed), question, 0)
    theirs = sample(lambda seed: drawn(kind, 6, 6, seed), question, REPLICAS)
    assert 6 * smallest_p(ours.T, theirs.T) > 0.01


@pytest.mark.parametrize("question", [tied_chain, three_steps, random_orders])
def test_a_blind_oracle_is_rejected(question):
    """The tests above would notice."""
    ours = sample(lambda seed: asked(Blind, 6, 6, seed), question, 0)
    theirs = sample(lambda seed: drawn(Gaussian, 6, 6, seed), question, REPLICAS)
    assert smallest_p(ours.T, theirs.T) < 1e-6


def test_addresses_go_by_the_columns_that_were_asked():
    """The first blocks take the same numbers whatever is asked afterwards or as one block: the pair of a chain's two
    passes is the special case."""
    rng = np.random.default_rng(0)
    u, d = rng.normal(size=(8, 5)), rng.normal(size=(11, 2))
    one, two = (Gaussian(11, 8, normals_at(3, 1, 0)) for _ in range(2))
    whole = one.forward(u)
    parts = np.hstack([two.forward(u[:, :2]), two.forward(u[:, 2:])])
    np.testing.assert_allclose(parts, whole, atol=1e-12)
    np.testing.assert_allclose(two.backward(d), one.backward(d), atol=1e-12)


def test_questions_beyond_float_range_and_of_lost_rank():
    """Columns of any size, zero columns, more columns than units, and what is not finite."""
    oracle, rng = asked(Gaussian, 5, 4, 8), np.random.default_rng(9)
    u = rng.normal(size=(4, 9)) * np.array([1, 1e200, 1e-200, 0, 1, 1, 1, 1, 1])
    z = oracle.forward(u)
    matrix = oracle.forward(np.eye(4))
    np.testing.assert_allclose(z, matrix @ u, rtol=1e-9)
    assert np.isnan(oracle.forward(np.full((4, 1), np.nan))).all()
    np.testing.assert_allclose(oracle.forward(u), z, rtol=1e-9)
