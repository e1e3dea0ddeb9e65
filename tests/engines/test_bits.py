# SPDX-License-Identifier: BSD-3-Clause
"""The pinned stream: draws and rows of stream version 2, the same on every instruction set, for any threads and any
memory.

`data/rows-2.npz` is written by `PYTHONPATH=tests python tests/engines/test_bits.py`, and only where the stream gets a
new version or a case joins.
"""

import hashlib

import bits
import pytest
from places import DATA

from pykernel import stream
from pykernel.distributions import INDEPENDENT

kernels = pytest.importorskip("pykernel._core").kernels

ROWS = DATA / "rows-2.npz"
CASES = (
    "layers: 60 gelu layer linear",
    "layers: 180 tanh batch linear",
    "layers: 239 tanh rms",
    "schemes: stable(1.5) batch 9",
    "schemes: student_t(3) batch 1",
    "schemes: torch_linear_default batch 9",
    "schemes: orthogonal batch 9",
    "callers: weights 2^200",
    "clips: value 0.001 batch",
    "heads: init sparse",
    "gains: sigmoid 30",
    "wide: replicas",
    "attention: 8 8 16",
    "tied: driven, given",
    "tied: looped blocks",
    "tied: convolutions",
    "images: grouped",
    "images: circular",
    "images: pooled",
    "formats: nearest",
    "formats: by chance",
    "formats: overflow",
)
# SHA-256 of 40 x 130 draws of each, little endian float32: first 16 hex digits
DRAWS = {
    ("normal", 0): "b1d9d85b4b246e0b",
    ("uniform", 0): "0e685e35db7d393b",
    ("truncated", 0): "396f8f2b4915dc73",
    ("sparse", 0.25): "2c253e2b6917d695",
    ("sparse", 1.0): "b1d9d85b4b246e0b",
    ("student", 1.0): "e1c0c33026385eaf",
    ("student", 3.5): "588009778484bbb4",
    ("stable", 0.5): "21dd876655fe406b",
    ("stable", 1.0): "8e310b21989cdc29",
    ("stable", 1.7): "bc99a657c21c7b5c",
    ("stable", 2.0): "5a37aa4f25957fbb",
}


def test_the_stream_has_a_new_version_where_pins_change():
    assert stream.VERSION == 2


@pytest.mark.parametrize("isa", kernels.isas())
@pytest.mark.parametrize("case", DRAWS, ids=str)
def test_draws_are_pinned(isa, case):
    distribution, parameter = case
    number = INDEPENDENT.index(distribution)
    draws = kernels.draws(isa, number, parameter, 2**63 + 11, 7, 9, 40, 130)
    assert hashlib.sha256(draws.astype("<f4").tobytes()).hexdigest()[:16] == DRAWS[case]


@pytest.fixture(scope="module", params=kernels.isas())
def measured(request, tmp_path_factory):
    """(rows by case, ways that differ) of one instruction set, each for 1, 2, 3 and 7 threads with little and with much
    memory."""
    path = tmp_path_factory.mktemp("bits") / "rows.npz"
    return bits.in_a_process(path, "cpp", request.param, ["--case", *CASES])[1:]


FIRST = {}


def test_rows_depend_neither_on_threads_nor_on_memory_nor_on_the_instruction_set(measured):
    found, odd = measured
    assert not odd
    for key, rows in found.items():
        assert rows.tobytes() == FIRST.setdefault(key, rows).tobytes(), key


def test_rows_are_pinned(measured):
    """Within 1e-13: the logarithm of another C library may round otherwise; a single draw that changes is 1e-7 away."""
    names, pinned, _ = bits.load(ROWS)
    assert pinned.keys() == measured[0].keys()
    for key, rows in measured[0].items():
        assert bits.difference(names, pinned[key], rows, exact=False) is None, key


if __name__ == "__main__":
    bits.save(ROWS, bits.in_a_process(ROWS, "cpp", None, ["--case", *CASES])[1])
