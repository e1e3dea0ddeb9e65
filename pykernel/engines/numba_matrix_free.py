# SPDX-License-Identifier: BSD-3-Clause
"""The matrix-free engine in Numba: the dense engine's run with other products behind each layer (kernels/matrix_free.py)."""

from __future__ import annotations

from functools import partial

import numpy as np

from pykernel.engines import matrix_free_refusal, numba_dense, numba_threads
from pykernel.kernels import callbacks, chain, matrix_free
from pykernel import stream

refusal = matrix_free_refusal
PRODUCTS = matrix_free.forward_product, matrix_free.backward_product


def memory(plan, threads):
    """Bytes of workspace for so many replicas at a time."""
    return numba_dense.memory(plan, threads, free=True)


def run(plan, first, count, *, threads=1, keep=()):
    """Rows of replicas first .. first + count - 1, see docs/design.md section 5."""
    if keep:
        raise ValueError('backend="numba" keeps no arrays; backend="reference" does')
    out = numba_dense.rows_array(plan, count)
    stop = np.zeros(1, np.int64)
    with callbacks.Row(plan.activation, "float64") as row:
        spec = numba_dense.specify(plan, row, out, stop, PRODUCTS)
        work_off = partial(numba_dense.replicas, plan, spec.record, first, out)
        numba_dense.in_pieces(work_off, lambda: numba_dense.workspace(plan, 1, free=True), count, threads, stop)
        row.check()
    return numba_dense.named(plan, out)
