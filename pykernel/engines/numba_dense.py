# SPDX-License-Identifier: BSD-3-Clause
"""The dense engine in Numba: a plan in the kernels' numbers, workspaces, and threads over replicas or over one large network's panels."""

from __future__ import annotations

import functools
from functools import partial

import numpy as np

from pykernel import observables
from pykernel.engines import heads, numba_threads
from pykernel.block import Block
from pykernel.kernels import activate, blocks, callbacks, chain, draws, product, rows

# Weights kept between the passes, a worker: where they fit it costs less to keep them than to draw them twice.
KEPT_BYTES = 64 << 20
# What the backward pass needs of the forward one, a worker: beyond it, layers are computed twice, from checkpoints.
TAPE_BYTES = 512 << 20
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
    out = rows_array(plan, count)
    stop = np.zeros(1, np.int64)
    with callbacks.Row(plan.activation, plan.dtype if not plan.exponent else "float64") as row:
        spec = _specify(plan, row, out, stop)
        if count < threads and int((plan.widths[1:] * plan.widths[:-1]).max()) >= SPLIT_WEIGHTS:
            work = workspace(plan, threads)
            with numba_threads.Team(threads, stop) as team:
                for index in range(count):
                    _run_split(plan, spec.record, work, first + index, out, index, team)
        else:
            work_off = partial(replicas, plan, spec.record, first, out)
            in_pieces(work_off, lambda: workspace(plan, 1), count, threads, stop)
        row.check()
    return named(plan, out)


def rows_array(plan, count):
    """What kernels write rows into: (rows, count, L + 1) float64."""
    return np.full((len(observables.ROWS), count, plan.depth + 1), np.nan)


def named(plan, out):
    """Rows by name from that array."""
    count = out.shape[1]
    return {
        r.name: out[(i, *map(slice, observables.shape(r, count, plan.depth)))]
        for i, r in enumerate(observables.ROWS)
        if r.extent != "replica"
    } | {"loss": out[chain.LOSS, :, 0]}


def in_pieces(work_off, make, count, threads, stop):
    """work_off(workspace, start, end) over pieces of range(count), a thread each with a workspace of its own from `make`."""
    workers = min(threads, count)
    step = max(1, -(-count // (4 * workers)))
    starts = iter(range(0, count, step))

    def worker():
        work = make()
        for start in starts:
            work_off(work, start, min(start + step, count))

    with numba_threads.Team(workers, stop) as team:
        team.run([worker] * workers)


def replicas(plan, spec, first, out, work, start, end):
    """Replicas first + start .. first + end - 1 into rows start .. end - 1 of `out`."""
    if not plan.loss:
        chain.replicas(spec, work.record, first, start, end, 7)
        return
    for index in range(start, end):
        chain.replicas(spec, work.record, first, index, index + 1, 1)
        _head(plan, work, first + index, out, index)
        chain.replicas(spec, work.record, first, index, index + 1, 4)


def _run_split(plan, spec, work, replica, out, index, team):
    """One replica, the products of each layer cut among the team."""
    alone = lambda function, *args: team.run([lambda: function(spec, work.record, *args)])
    forward_product, backward_product = _split_products(plan, spec, work, replica, team)
    segments, length = int(work.record["segments"]), int(work.record["length"])
    layers = lambda s: range(s * length + 1, min((s + 1) * length, plan.depth) + 1)

    def forward(s):
        for layer in layers(s):
            alone(chain.before, layer, replica)
            forward_product(layer)
            alone(chain.after, layer, replica, index)

    alone(chain.begin, replica)
    for s in range(segments):
        if segments > 1:
            alone(chain.save, s)
        forward(s)
    if plan.loss:
        _head(plan, work, replica, out, index)
    else:
        alone(chain.draw_cotangent, replica)
    for s in reversed(range(segments)):
        if s < segments - 1:
            alone(chain.resume, s)
            forward(s)
        for layer in reversed(layers(s)):
            alone(chain.before_back, layer, replica, index)
            backward_product(layer)
            alone(chain.after_back, layer, index)


def share(team, function, spec, work, total, *args):
    """function(spec, work, *args, worker, from, to) over range(total), cut among the team."""
    cuts = np.linspace(0, total, team.size + 1).astype(int)
    team.run([lambda w=w: function(spec, work.record, *args, w, cuts[w], cuts[w + 1]) for w in range(team.size)])


def _split_products(plan, spec, work, replica, team):
    forward = lambda layer: share(team, chain.forward_product, spec, work, -(-int(plan.widths[layer]) // 16), layer, replica)
    backward = lambda layer: share(team, chain.backward_product, spec, work, -(-int(plan.widths[layer - 1]) // 64), layer, replica)
    return forward, backward


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


def _specify(plan, row, out, stop):
    """The plan in the kernels' numbers."""
    dtype = np.dtype(plan.dtype)
    number, parameter = rows.number(plan.activation)
    if not plan.exponent and number != rows.PIECEWISE:
        number = rows.CALLBACK
    sizes = plan.widths[1:] * plan.widths[:-1]
    x, x_exponent = _own(plan, plan.x, dtype)
    cotangent, cotangent_exponent = _own(plan, plan.cotangent, dtype)
    return record(
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
        x=x,
        x_exponent=x_exponent,
        cotangent=cotangent,
        cotangent_exponent=cotangent_exponent,
        batch=plan.batch,
        norm=plan.norm,
        norm_eps=float(plan.norm_eps),
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


def _own(plan, array, dtype):
    """The caller's (n, B) array as a block and its exponent, so that 1e308 fits in float32."""
    if array is None:
        return None, 0
    power = int(np.frexp(np.abs(array).max())[1])
    power = power if plan.exponent and abs(power) > 40 else 0
    with np.errstate(over="ignore", under="ignore"):  # what native arithmetic does with them
        return blocks.pack(np.ldexp(array, -power), dtype), power


class Filled:
    """A record whose addresses point into arrays that live as long as it does; the arrays are attributes."""

    def __init__(self, record, arrays):
        self.record = record
        self.__dict__.update(arrays)


def record(dtype, **fields):
    """A record of numbers and of the addresses of arrays."""
    chain.record_type(dtype)  # before a kernel meets it
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


def _segments(plan):
    """How many segments the layers are cut into, and layers in each: one where the tape fits, else what needs the least memory."""
    n, size, B = (plan.widths + 15) // 16 * 16, np.dtype(plan.dtype).itemsize, plan.batch
    tape = (n[1:] + n[:-1] * _keeps_inputs(plan)) * B * size + 8 * B * B
    if tape.sum(dtype=float) <= TAPE_BYTES:
        return 1, plan.depth
    checkpoint = int(n.max()) * B * size * (2 if plan.residual_every else 1)
    length = max(1, round((plan.depth * checkpoint / int(tape.max())) ** 0.5))
    return -(-plan.depth // length), length


def _tape(sizes, length):
    """Offsets of layers within their segment, and the size of the largest segment."""
    at = np.concatenate([_offsets(sizes[start : start + length]) for start in range(0, len(sizes), length)])
    return at, int((at + sizes).max())


def _sizes(plan, workers=1):
    """Shape and dtype of the arrays of a workspace."""
    n, tiles, kept = _layers(plan)
    segments, length = _segments(plan)
    B, L, T, top = plan.batch, plan.depth, plan.dtype, int(n.max())
    acted = n[:-1] if plan.order else n[1:]
    block = top * B
    whole = block if rows.number(plan.activation)[0] != rows.PIECEWISE or not plan.exponent else 0
    inputs = _keeps_inputs(plan)
    haar = plan.distribution == "haar"
    return {
        "a": (block, T),
        "u": (block if plan.order else 0, T),
        "z": (block, T),
        "g": (block, T),
        "held": (block if plan.residual_every else 0, T),
        "skip": (block if plan.residual_every else 0, T),
        "vector": (top, T),
        "tiles": ((workers, 4 * product.CHUNK * 16), T),
        "columns": ((workers, 64 * B), T),
        "wide0": (whole, "float64"),
        "wide1": (block, "float64"),
        "wide2": (whole, "float64"),
        "preimage": (_tape(acted, length)[1] * B, T),
        "preimage_at": (L, "int64"),
        "r": (_tape(np.maximum(acted, B), length)[1] if plan.norm else 1, "float64"),
        "r_at": (L, "int64"),
        "inputs": (_tape(n[:-1], length)[1] * B if inputs else 0, T),
        "inputs_at": (L, "int64"),
        "gram": (B * B * (length if not inputs else 1), "float64"),
        "gram_at": (L, "int64"),
        "gram_a": (B * B, "float64"),
        "gram_g": (B * B, "float64"),
        "kept": (int(tiles[kept].sum()), T),
        "kept_at": (L, "int64"),
        **dict.fromkeys(("matrix", "scratch0", "scratch1"), (int(tiles.max()) if haar else 1, "float64")),
        "line": (64, "float32"),
        "exponents": (6, "int64"),
        "checkpoints": (segments * block * (2 if plan.residual_every else 1) if segments > 1 else 0, T),
        "checkpoint_e": (2 * segments, "int64"),
        "preimage_e": (L, "int64"),
        "r_e": (L, "int64"),
        "inputs_e": (L, "int64"),
    }


def workspace(plan, workers):
    """Arrays and record (chain.WORK) for one replica at a time, products cut among so many workers."""
    n, tiles, kept = _layers(plan)
    segments, length = _segments(plan)
    acted = n[:-1] if plan.order else n[1:]
    arrays = {name: np.empty(shape, dtype) for name, (shape, dtype) in _sizes(plan, workers).items()}
    arrays["preimage_at"][:] = _tape(acted, length)[0] * plan.batch
    arrays["r_at"][:] = _tape(np.maximum(acted, plan.batch), length)[0]
    arrays["inputs_at"][:] = _tape(n[:-1], length)[0] * plan.batch
    keeps_grams = not arrays["inputs"].size
    arrays["gram_at"][:] = np.arange(plan.depth) % length * plan.batch**2 if keeps_grams else -1
    arrays["kept_at"][:] = np.where(kept, _offsets(np.where(kept, tiles, 0)), -1)
    for name in ("exponents", "preimage_e", "r_e", "inputs_e"):
        arrays[name][:] = 0
    if not plan.order:
        arrays["u"] = arrays["a"]
    if not arrays["inputs"].size:
        arrays["inputs"] = None
    block = int(n.max()) * plan.batch
    return record(chain.work_dtype(), **arrays, segments=segments, length=length, checkpoint_size=block)
