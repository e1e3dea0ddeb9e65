# SPDX-License-Identifier: BSD-3-Clause
"""A stand-in for the kernels, as fast as NumPy: numbers that are a function of chain, seed and replica, as a kernel's
are."""

import hashlib
import os
import signal
import struct
import sys

import numpy as np

from pykernel import observables
from pykernel.program import Counts

# What a plan is told of a run, all of it at its default.
RUN = dict(batch=1, seed=0, engine="dense", backend="reference", dtype="float32", precision="exponent", correlation=0.0)


def run_rows(piece, first, count, threads=None):
    """Rows of made-up chains: a gradient that shrinks or grows by the init's name, with noise of each replica."""
    L, width = piece.chain.depth, piece.chain.width
    words = f"{piece.chain.init} {piece.chain.activation} {piece.chain.gain} {width} {piece.run['seed']}"
    start = int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "little")
    rate = (start % 100 - 50) / 1000 + np.log10(max(piece.chain.gain, 1e-3))
    rows = {
        row.name: np.zeros(observables.shape(row, count, Counts(layer=L, activation=L, node=L)))
        for row in observables.ROWS
    }
    for r in range(count):
        rng = np.random.default_rng([start, first + r])
        steps = rate + rng.normal(size=L) / width**0.5
        rows["log10_grad_activation"][r, :L] = np.cumsum(steps)[::-1]
        rows["log10_grad_weight"][r] = rows["log10_grad_activation"][r, 1:] + rng.normal(size=L) / 10
        rows["saturated"][r] = rng.random(L)
    rows["similarity"][:] = np.nan
    rows["loss"][:] = np.nan
    return rows


def deadly(z):
    """tanh, but it kills its process where a layer has 13 units."""
    if np.ndim(z) == 2 and np.shape(z)[0] == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.tanh(z)


def deadly_slope(z):
    return 1 / np.cosh(z) ** 2


def stumbling(z):
    """tanh that kills its process the first time that the file named in the environment is absent: bad luck, once."""
    path = os.environ.get("PYKERNEL_TEST_STUMBLE")
    if np.ndim(z) == 2 and path and not os.path.exists(path):
        with open(path, "w"):
            os.kill(os.getpid(), signal.SIGKILL)
    return np.tanh(z)


def cut_off(z):
    """tanh that kills its process once, as `stumbling`, in the middle of an answer: a length, and fewer bytes than
    that."""
    path = os.environ.get("PYKERNEL_TEST_STUMBLE")
    if np.ndim(z) == 2 and path and not os.path.exists(path):
        open(path, "w").close()
        for frame in sys._current_frames().values():
            while frame is not None:
                if "result_queue" in frame.f_locals:
                    os.write(frame.f_locals["result_queue"]._writer.fileno(), struct.pack("!i", 1 << 20) + b"cut")
                    os.kill(os.getpid(), signal.SIGKILL)
                frame = frame.f_back
    return np.tanh(z)


def single(z):
    """A function of one number, as people write them first."""
    return z if z > 0 else 0.1 * z


def single_slope(z):
    return 1.0 if z > 0 else 0.1


def signs(rows, columns, seed):
    """A sampler: random signs of variance 2 / columns."""
    return np.random.default_rng(seed).choice([-1.0, 1.0], (rows, columns)) * (2 / columns) ** 0.5


def steep(fan_in, fan_out):
    return (2 / fan_in) ** 0.5
