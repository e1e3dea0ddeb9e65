# SPDX-License-Identifier: BSD-3-Clause
"""Sweeps killed at random moments; PYKERNEL_KILLS=30 kills as often as `python tests/survive.py` does."""

import os

import pytest
import survive

KILLS = int(os.environ.get("PYKERNEL_KILLS", "3"))


@pytest.fixture(scope="module")
def whole():
    return survive.run(None)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_driver_goes_on_to_the_same_bits(whole, tmp_path):
    survive.kill_drivers(tmp_path, whole, KILLS)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("executor", survive.EXECUTORS[1:])
def test_killed_workers_cost_no_bit(whole, tmp_path, executor):
    if executor == "dask":
        pytest.importorskip("distributed")
    survive.kill_workers(tmp_path, whole, min(KILLS, 10), executor)
