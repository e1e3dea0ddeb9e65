# SPDX-License-Identifier: BSD-3-Clause
"""The matrix-free engine in Numba: the dense engine's run with other products behind each layer, and one input by sums alone."""

from __future__ import annotations

import numpy as np

from pykernel import stream
from pykernel.engines import matrix_free_refusal, numba_dense, numba_threads
from pykernel.kernels import callbacks, matrix_free, single

refusal = matrix_free_refusal
PRODUCTS = matrix_free.forward_product, matrix_free.backward_product
# One network is cut among threads where a layer has at least this many units times inputs: handing out work costs some microseconds.
SPLIT = 1 << 17


def memory(plan, threads):
    """Bytes of workspace for so many replicas at a time."""
    if one_input(plan):
        return threads * sum(8 * size for size in _single_sizes(plan, 1).values())
    return numba_dense.memory(plan, threads, free=True)


def one_input(plan):
    """Whether sums over units are enough: Gaussian weights, one drawn input and a drawn cotangent, no norm, residual or head."""
    plain = not (plan.norm or plan.residual_every or plan.loss)
    given = plan.x is not None or plan.cotangent is not None or plan.biases is not None
    return plan.batch == 1 and plan.distribution == "normal" and plain and not given and plan.correlation == 0


def run(plan, first, count, *, threads=1, keep=()):
    """Rows of replicas first .. first + count - 1, see docs/design.md section 5."""
    if keep:
        raise ValueError('backend="numba" keeps no arrays; backend="reference" does')
    out = numba_dense.rows_array(plan, count)
    stop = np.zeros(1, np.int64)
    with callbacks.Row(plan.activation, "float64") as row:
        left = range(count)
        if one_input(plan):
            left = _run_single(plan, row, first, out, stop, threads)
        if len(left):
            _run_blocks(plan, row, first, left, out, stop, threads)
        row.check()
    return numba_dense.named(plan, out)


def _run_blocks(plan, row, first, indices, out, stop, threads):
    spec = numba_dense.specify(plan, row, out, stop, PRODUCTS)
    if len(indices) < threads and int(plan.widths.max()) * plan.batch >= SPLIT:
        work = numba_dense.workspace(plan, threads, free=True)
        with numba_threads.Team(threads, stop) as team:
            for index in indices:
                numba_dense.run_split(plan, spec.record, work, first + index, out, index, team, _split)
        return

    def work_off(work, start, end):
        for index in indices[start:end]:
            numba_dense.replicas(plan, spec.record, first, out, work, index, index + 1)
            if stop[0]:
                return

    numba_dense.in_pieces(work_off, lambda: numba_dense.workspace(plan, 1, free=True), len(indices), threads, stop)


def _split(plan, spec, work, replica, team):
    """The products of a layer, their passes over units cut among the team."""
    units = [int(n) for n in plan.widths]
    haar = plan.distribution == "haar"
    chunks = lambda n: -(-n // (16 * matrix_free.CHUNK))
    full = lambda layer, n: max(units[layer], units[layer - 1]) if haar else n
    alone = lambda function, layer: team.run([lambda: function(spec, work.record, layer)])
    share = lambda function, n, *args: numba_dense.share(team, function, spec, work, chunks(n), *args)

    def forward(layer):
        n = units[layer]
        alone(matrix_free.forward_open, layer)
        if haar:
            share(matrix_free.sums, full(layer, n), layer, replica, stream.FORWARD, matrix_free.INPUT, n, 0, 0, False)
        alone(matrix_free.forward_close, layer)
        share(matrix_free.expand, n, layer, replica)

    def backward(layer):
        n, n_in, record = units[layer], units[layer - 1], work.record
        alone(matrix_free.forward_open, layer)
        share(matrix_free.sums, full(layer, n), layer, replica, stream.FORWARD, matrix_free.INPUT, n, int(record["g"]), 0, False)
        alone(matrix_free.backward_middle, layer)
        at = int(work.inputs_at[layer - 1])
        u = int(record["inputs"])
        share(matrix_free.sums, full(layer, n_in), layer, replica, stream.BACKWARD, matrix_free.COTANGENT, n_in, u, at, True)
        alone(matrix_free.backward_close, layer)
        share(matrix_free.combine, n_in, layer)

    return forward, backward


# -- one input


def _single_sizes(plan, workers):
    chunks = -(-int(plan.widths.max()) // single.CHUNK)
    return {
        "nodes": (plan.depth + 1) * int(single.NODE),
        "parts": chunks * single.SUMS,
        "now": int(single.NOW),
        "room": workers * single.ROOMS * single.STRETCH,
    }


def _single_workspace(plan, workers):
    return numba_dense.record(single.work_dtype(), **{name: np.empty(size) for name, size in _single_sizes(plan, workers).items()})


def _run_single(plan, row, first, out, stop, threads):
    """All replicas by sums; the rows of those whose magnitudes leave the kernels' range, which are to be run as blocks."""
    filled, count, left = numba_dense.specify(plan, row, out, stop, None, "float64"), out.shape[1], []
    spec = filled.record  # of addresses into `filled`, which stays alive
    if count < threads and int(plan.widths.max()) >= SPLIT:
        work = _single_workspace(plan, threads)
        with numba_threads.Team(threads, stop) as team:
            for index in range(count):
                if not _single_split(plan, spec, work, first + index, index, team):
                    left.append(index)
        return left

    def work_off(work, start, end):
        for index in range(start, end):
            if not single.replica(spec, work.record, first + index, index):
                left.append(index)
            if stop[0]:
                return

    numba_dense.in_pieces(work_off, lambda: _single_workspace(plan, 1), count, threads, stop)
    return sorted(left)


def _single_split(plan, spec, work, replica, index, team):
    for layer in range(plan.depth + 1):
        if not single.open_node(spec, work.record, layer):
            return False
        chunks = -(-int(plan.widths[layer]) // single.CHUNK)
        numba_dense.share(team, single.sums, spec, work, chunks, layer, replica)
        if not single.close_node(spec, work.record, layer, index):
            return False
    single.backward(spec, work.record, index)
    return True
