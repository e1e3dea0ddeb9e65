# SPDX-License-Identifier: BSD-3-Clause
"""The matrix-free engine with its draws in Numba: the reference's conditioning, whose cost is the draws, with those a hundred times faster.

The B x B algebra stays in NumPy and float64 whatever the dtype, so results equal `reference_matrix_free` to rounding.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from pykernel import observables
from pykernel.engines import matrix_free_refusal, numba_threads, reference, reference_matrix_free
from pykernel.kernels import blocks

refusal = matrix_free_refusal
memory = reference_matrix_free.memory


class Conditioned(reference_matrix_free.Conditioned):
    """The reference's operator, normals by the compiled stream."""

    def __init__(self, plan, replica, stop):
        super().__init__(plan, replica)
        self._stop = stop

    def _normals(self, purpose, layer, units, columns, order):
        if self._stop[0]:
            raise KeyboardInterrupt
        seed = self.plan.seed
        flat = np.empty(-(-units // 16) * 16 * columns, np.float32)
        keys = np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32)
        blocks.draw_tall(flat, units, columns, False, *keys, np.uint32(layer | purpose << 24), np.uint32(self.replica))
        g = np.zeros((units, columns))
        g[:, order] = blocks.unpack(flat, units, columns)[:, order]
        return g


def run(plan, first, count, *, threads=1, keep=()):
    """Rows of replicas first .. first + count - 1, see docs/design.md section 5."""
    if keep:
        raise ValueError('backend="numba" keeps no arrays; backend="reference" does')
    out = {row.name: np.full(observables.shape(row, count, plan.depth), np.nan) for row in observables.ROWS}
    stop = np.zeros(1, np.int64)
    operator = partial(Conditioned, stop=stop)
    indices = iter(range(count))

    def work_off():
        for index in indices:
            rows = reference.run_operators(plan, first + index, 1, operator)
            for name, array in out.items():
                array[index] = rows[name][0]

    workers = min(threads, count)
    with numba_threads.Team(workers, stop) as team:
        team.run([work_off] * workers)
    return out
