# SPDX-License-Identifier: BSD-3-Clause
"""The dense engine in Numba: a plan in the kernels' numbers, workspaces, and threads over replicas or over one large network's panels."""

from __future__ import annotations

import functools

import numpy as np

from pykernel import observables
from pykernel.engines import heads, numba_threads
from pykernel.engines.block import Block
from pykernel.kernels import activate, blocks, callbacks, chain, draws, product, rows

# Weights kept between the passes, a worker: where they fit it costs less to keep them than to draw them twice.
KEPT_BYTES = 64 << 20
# One network is cut among threads where a layer has at least this many weights: below, handing out work costs more than it gains.
SPLIT_WEIGHTS = 1 << 18
# log2 of the largest magnitude a block may have, see docs/design.md section 4.
BOUNDS = {"float32": 40, "float64": 200}
DRAWS = {name: i for i, name in enumerate(draws.NAMES)} | {
    "identity": product.IDENTITY,
    "constant": product.CONSTANT,
    "given": product.MATRIX,
    "haar": product.HAAR,
}
BIASES = {"zero": chain.BIAS_ZERO, "normal": chain.BIAS_NORMAL, "uniform": chain.BIAS_UNIFORM, "given": chain.BIAS_GIVEN}


def refusal(plan):
    """Why this module cannot run the plan, or None."""
    return None


def memory(plan, threads):
    """Bytes of workspace for so many replicas at a time."""
    sizes = _sizes(plan)
    return threads * sum(int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize for shape, dtype in sizes.values())


def run(plan, first, count, *, threads=1, keep=()):
    """Rows of replicas first .. first + count - 1, see docs/design.md section 5."""
    if keep:
        raise ValueError('backend="numba" keeps no arrays; backend="reference" does')
    out = np.full((len(observables.ROWS), count, plan.depth + 1), np.nan)
    stop = np.zeros(1, np.int64)
    with callbacks.Row(plan.activation, plan.dtype if not plan.exponent else "float64") as row:
        spec = specify(plan, row, out, stop)
        if count < threads and int((plan.widths[1:] * plan.widths[:-1]).max()) >= SPLIT_WEIGHTS:
            work = workspace(plan, threads)
            with numba_threads.Team(threads, stop) as team:
                for index in range(count):
                    _run_split(plan, spec.record, work, first + index, out, index, team)
        else:
            _run_replicas(plan, spec.record, first, count, out, threads, stop)
        row.check()
    return {
        r.name: out[(i, *map(slice, observables.shape(r, count, plan.depth)))]
        for i, r in enumerate(observables.ROWS)
        if r.extent != "replica"
    } | {"loss": out[chain.LOSS, :, 0]}


def _run_replicas(plan, spec, first, count, out, threads, stop):
    workers = min(threads, count)
    step = max(1, -(-count // (4 * workers)))
    starts = iter(range(0, count, step))

    def work_off():
        work = workspace(plan, 1)
        for start in starts:
            end = min(start + step, count)
            if not plan.loss:
                chain.replicas(spec, work.record, first, start, end, 7)
                continue
            for index in range(start, end):
                chain.replicas(spec, work.record, first, index, index + 1, 1)
                if stop[0]:
                    return
                _head(plan, work, first + index, out, index)
                chain.replicas(spec, work.record, first, index, index + 1, 4)

    with numba_threads.Team(workers, stop) as team:
        team.run([work_off] * workers)


def _run_split(plan, spec, work, replica, out, index, team):
    """One replica, the panels of each product cut among the team."""

    def share(function, layer, total):
        cuts = np.linspace(0, total, team.size + 1).astype(int)
        team.run([lambda w=w: function(spec, work.record, layer, replica, w, cuts[w], cuts[w + 1]) for w in range(team.size)])

    def alone(function, *args):
        team.run([lambda: function(spec, work.record, *args)])

    alone(chain.begin, replica)
    for layer in range(1, plan.depth + 1):
        alone(chain.before, layer, replica)
        share(chain.forward_product, layer, -(-int(plan.widths[layer]) // 16))
        alone(chain.after, layer, replica, index)
    if plan.loss:
        _head(plan, work, replica, out, index)
    else:
        alone(chain.draw_cotangent, replica)
    for layer in range(plan.depth, 0, -1):
        alone(chain.before_back, layer, replica, index)
        share(chain.backward_product, layer, -(-int(plan.widths[layer - 1]) // 64))
        alone(chain.after_back, layer, index)


def _head(plan, work, replica, out, index):
    """dJ/da[L] of a head into g: small, so the reference's NumPy does it."""
    n = int(plan.widths[-1])
    dtype = np.float64 if plan.exponent else plan.dtype
    last = Block(
        blocks.unpack(work.a[: -(-n // 16) * 16 * plan.batch], n, plan.batch).astype(dtype), int(work.exponents[chain.A]), plan.exponent
    )
    with np.errstate(all="ignore"):
        g, out[chain.LOSS, index, 0] = heads.objective(plan, replica, last)
        x, e = g.x, g.e
        if plan.exponent and x.any():
            power = int(np.frexp(np.abs(x).max())[1])
            x, e = np.ldexp(x, -power), e + power
        count = -(-n // 16) * 16 * plan.batch
        work.g[:count] = blocks.pack(x, plan.dtype)
    work.exponents[chain.G] = blocks.renormalise(work.g, count, e, BOUNDS[plan.dtype] if plan.exponent else 0)


def specify(plan, row, out, stop):
    """The plan in the kernels' numbers."""
    dtype = np.dtype(plan.dtype)
    number, parameter = rows.number(plan.activation)
    if not plan.exponent and number != rows.PIECEWISE:
        number = rows.CALLBACK
    sizes = plan.widths[1:] * plan.widths[:-1]
    return _record(
        chain.spec_dtype(dtype),
        depth=plan.depth,
        widths=plan.widths.astype(np.int64),
        scale=plan.scale.astype(np.float64),
        residual_scale=plan.residual_scale.astype(np.float64),
        bias_scale=plan.bias_scale.astype(np.float64),
        facts=activate.facts(plan.activation),
        matrices=np.zeros(1) if plan.weights is None else np.concatenate([np.ravel(w) for w in plan.weights]).astype(np.float64),
        matrix_at=np.zeros(plan.depth, np.int64) if plan.weights is None else np.cumsum(sizes) - sizes,
        biases=np.zeros(1) if plan.biases is None else np.concatenate(plan.biases).astype(np.float64),
        bias_at=np.cumsum(plan.widths[1:]) - plan.widths[1:],
        x=None if plan.x is None else blocks.pack(plan.x, dtype),
        cotangent=None if plan.cotangent is None else blocks.pack(plan.cotangent, dtype),
        batch=plan.batch,
        norm=plan.norm,
        order=plan.order,
        every=plan.residual_every,
        bound=BOUNDS[plan.dtype] if plan.exponent else 0,
        draw=DRAWS[plan.distribution],
        parameter=float(plan.distribution_parameter),
        bias_draw=BIASES[plan.bias_distribution],
        row=number,
        row_parameter=parameter,
        correlation=float(plan.correlation),
        clip=float(plan.clip_value),
        key0=np.uint32(plan.seed & 0xFFFFFFFF),
        key1=np.uint32(plan.seed >> 32),
        compiled=row.compiled,
        callback=row.address,
        count=out.shape[1],
        rows=out,
        stop=stop,
        phases=_phases(dtype.name),
        zero=0.0,
    )


class Filled:
    """A record whose addresses point into arrays that live as long as it does; the arrays are attributes."""

    def __init__(self, record, arrays):
        self.record = record
        self.__dict__.update(arrays)


def _record(dtype, **fields):
    box = np.zeros(1, dtype)
    arrays = {name: np.ascontiguousarray(value) for name, value in fields.items() if isinstance(value, np.ndarray)}
    for name, value in fields.items():
        if value is not None:
            box[0][name] = arrays[name].ctypes.data if name in arrays else value
    return Filled(box[0], arrays)


@functools.cache
def _phases(dtype):
    return chain.phases(np.dtype(dtype))


def _offsets(sizes):
    return np.cumsum(sizes) - sizes


def _layers(plan):
    """Padded widths, numbers in the kept tiles of each layer, and whether each is kept (the last layers first)."""
    n = (plan.widths + 15) // 16 * 16
    tiles = n[1:] * n[:-1]
    drawn = plan.distribution in draws.NAMES or plan.distribution == "haar"
    behind = np.cumsum(tiles[::-1].astype(np.float64))[::-1] * np.dtype(plan.dtype).itemsize
    return n, tiles, (behind <= KEPT_BYTES) & drawn


def _keeps_inputs(plan):
    """Whether the tape holds u[l] rather than its Gram matrix: for clipped entries, and where a batch is larger than the layer."""
    return bool(plan.clip_value) or 8 * plan.batch * plan.depth > np.dtype(plan.dtype).itemsize * int(plan.widths[:-1].sum())


def _sizes(plan, workers=1):
    """Shape and dtype of the arrays of a workspace."""
    n, tiles, kept = _layers(plan)
    B, L, T, top = plan.batch, plan.depth, plan.dtype, int(n.max())
    acted = n[:-1] if plan.order else n[1:]
    block = top * B
    whole = block if rows.number(plan.activation)[0] != rows.PIECEWISE or not plan.exponent else 0
    inputs = _keeps_inputs(plan)
    return {
        "a": (block, T),
        "u": (block if plan.order else 0, T),
        "z": (block, T),
        "g": (block, T),
        "held": (block if plan.residual_every else 0, T),
        "vector": (top, T),
        "tiles": ((workers, 4 * product.CHUNK * 16), T),
        "columns": ((workers, 64 * B), T),
        "wide0": (whole, "float64"),
        "wide1": (block, "float64"),
        "wide2": (whole, "float64"),
        "preimage": (int(acted.sum()) * B, T),
        "preimage_at": (L, "int64"),
        "r": (int(np.maximum(acted, B).sum()) if plan.norm else 1, "float64"),
        "r_at": (L, "int64"),
        "inputs": (int(n[:-1].sum()) * B if inputs else 0, T),
        "inputs_at": (L, "int64"),
        "gram": (B * B * (1 if inputs else L), "float64"),
        "gram_a": (B * B, "float64"),
        "gram_g": (B * B, "float64"),
        "kept": (int(tiles[kept].sum()), T),
        "kept_at": (L, "int64"),
        **dict.fromkeys(("matrix", "scratch0", "scratch1"), (int(tiles.max()) if plan.distribution == "haar" else 1, "float64")),
        "line": (64, "float32"),
        "exponents": (5, "int64"),
        "preimage_e": (L, "int64"),
        "r_e": (L, "int64"),
        "inputs_e": (L, "int64"),
    }


def workspace(plan, workers):
    """Arrays and record (chain.WORK) for one replica at a time, products cut among so many workers."""
    n, tiles, kept = _layers(plan)
    acted = n[:-1] if plan.order else n[1:]
    arrays = {name: np.empty(shape, dtype) for name, (shape, dtype) in _sizes(plan, workers).items()}
    arrays["preimage_at"][:] = _offsets(acted) * plan.batch
    arrays["r_at"][:] = _offsets(np.maximum(acted, plan.batch))
    arrays["inputs_at"][:] = _offsets(n[:-1]) * plan.batch
    arrays["kept_at"][:] = np.where(kept, _offsets(np.where(kept, tiles, 0)), -1)
    for name in ("exponents", "preimage_e", "r_e", "inputs_e"):
        arrays[name][:] = 0
    if not plan.order:
        arrays["u"] = arrays["a"]
    if not arrays["inputs"].size:
        arrays["inputs"] = None
    return _record(chain.work_dtype(), **arrays)
