# SPDX-License-Identifier: BSD-3-Clause
"""The stretches and numbers of a chain, pattern by pattern: how blocks and keyword layers become ops over registers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from functools import cached_property
from typing import Any, TypeGuard

import numpy as np

from pykernel import ops
from pykernel.activation import Activation
from pykernel.dtypes import Floats, Ints
from pykernel.init import Init
from pykernel.layers import BRANCH_SCALES, Block, Norm
from pykernel.program import (
    BIASES,
    CENTRED,
    A,
    AffineRow,
    Counts,
    Draw,
    Layers,
    NormRow,
    Op,
    Stretch,
)
from pykernel.step import Affine, Step, Weighted
from pykernel.window import kernel_shape

# What ops say of themselves, by the table that counts them: a row of one array a name.
NUMBERS = (
    ("layer", np.int64, ("units", "columns", "groups", "kernel", "taps", "positions", "draw", "bias_draw", "centred")),
    ("layer", np.float64, ("scale", "bias_scale")),
    ("activation", np.int64, ("row", "norm")),
    ("norm", np.int64, ("norm_steps",)),
    ("window", np.int64, ("window_steps",)),
    ("drive", np.int64, ("drives",)),
    ("node", np.int64, ("nodes",)),
    ("join", np.float64, ("skip", "branch")),
    ("factor", np.float64, ("factors",)),
    ("mask", np.float64, ("masks",)),
    ("mix", np.int64, ("heads", "kv_heads")),
    ("mix", bool, ("causal",)),
    ("mix", np.float64, ("mix_scale",)),
)
LONG = 1000  # repetitions from which memory counts more than what finding equal numbers takes
TABLES_OF_ROWS = ("draws", "activations", "norms", "inits", "windows", "kernels", "affines")


class Pattern:
    """What lowering a chain's words gives for inputs of these `positions`: `stretches`, `registers`, the tables of
    rows as tuples, each row once, `positions_out` (of the last node), and one array a number.

    Arrays over layers: units, columns, groups, kernel (index into `kernels`), taps, positions, weight (its number among
    the distinct weights, in order of first use), address (in the stream, from 1), scale, gain, draw, init (index into
    `inits`), bias_draw, bias_scale, centred; `chosen_bias` is what the last two are without the scheme's own biases.
    Of each distinct weight `first_uses` is the place, from 0, of the layer that uses it first.
    """

    units: np.ndarray
    columns: np.ndarray
    groups: np.ndarray
    kernel: np.ndarray
    taps: np.ndarray
    positions: np.ndarray
    weight: np.ndarray
    address: np.ndarray
    first_uses: np.ndarray
    scale: np.ndarray
    draw: np.ndarray
    bias_draw: np.ndarray
    bias_scale: np.ndarray
    centred: np.ndarray
    nodes: np.ndarray
    # of ops that a chain may have none of
    row = norm = norm_steps = affine_steps = window_steps = drives = heads = kv_heads = np.empty(0, np.int64)
    skip = branch = factors = masks = mix_scale = np.empty(0)
    causal = np.empty(0, bool)
    draws: tuple
    activations: tuple
    norms: tuple
    inits: tuple
    windows: tuple
    kernels: tuple
    affines: tuple

    def __init__(self, chain: Any, positions: Sequence[int] = ()) -> None:
        self.chain = chain
        self.no_norm = NormRow(None, chain.norm_eps)
        self._tables: dict[str, dict] = {name: {} for name in TABLES_OF_ROWS}  # the number of each row
        self.number("norms", self.no_norm)
        self.number("kernels", ())
        self.stretches: list[Stretch] = []
        self.done, self.registers, self.widest = Counts(), 1, 1
        self._turn, self.turns = 0, 1  # of the pattern: repetitions done, and in all
        self._repeated: list[tuple] = []  # how often, and by table what each of its ops said
        self._affine_steps: list[np.ndarray] = []
        self._scales: dict = {}
        self.beyond: list[int] = []  # layers with a scale that is not finite: the first repetition's
        self.width = _units(chain, 0)
        self.field = self.field_in = tuple(positions)  # of one input, where the walk is
        first = self.width
        self._begin()
        for block in chain.first:
            self._repeat([block], 1)
        begin = self.done.layer
        if chain.blocks is None:
            self._keyword_layers()
        else:
            self._repeat(chain.blocks, chain.depth)
        end = self.done.layer
        for block in chain.last:
            self._repeat([block], 1)
        self.positions_out = self.field
        self._join_arrays()
        self.nodes = np.concatenate([[first], self.nodes])
        places = np.arange(self.done.layer + 1)
        self.weight = self.first_uses = places[:-1]
        self.address = places[1:]
        self.counts = self.done
        if chain.tied:
            self._share(begin, end)

    def _share(self, begin: int, end: int) -> None:
        """Repetitions of layers begin .. end - 1 use the weights of the first, of one shape (not behind a Flatten)."""
        self.weight = self.weight.copy()
        self.weight[begin:end] = begin + np.arange(end - begin) % max((end - begin) // self.chain.depth, 1)
        self.weight[end:] -= end - 1 - int(self.weight[begin:end].max(initial=begin - 1))
        self.first_uses = np.unique(self.weight, return_index=True)[1]
        self.address = self.first_uses[self.weight] + 1
        if len(self.first_uses) < self.done.layer:
            self.counts = self.done._replace(weight=len(self.first_uses))
        for numbers in (self.units, self.columns, self.groups, self.kernel):
            if (numbers != numbers[self.first_uses[self.weight]]).any():
                raise ValueError("tied repetitions use the same weights, and in this pattern their shapes change")

    def number(self, table: str, row: Hashable) -> int:
        """The place of a row in a table, to which it is added where it is new."""
        rows = self._tables[table]
        return rows.setdefault(row, len(rows))

    # -- the words

    @property
    def _shape(self) -> tuple[int, tuple[int, ...]]:
        """Units, and positions of one input."""
        return self.width, self.field

    def _repeat(self, blocks: Sequence[Block], count: int) -> None:
        """A pattern so many times: one after the other as long as shapes change, and what is left at once."""
        self._turn, self.turns = 0, count
        while self._turn < count:
            before = self._shape
            for block in blocks:
                self._block(block)
            if self.chain.tied and count > 1 and self.width != before[0]:
                raise ValueError(
                    "tied repetitions use the same weights, so the pattern must end in as many units as come in: "
                    f"{before[0]} come in, {self.width} out"
                )
            self._end(count - self._turn if self._shape == before else 1)

    def _keyword_layers(self) -> None:
        """The layers of a chain made by keywords: one block a layer, or one a branch of `residual.every` layers with
        nodes inside."""
        chain, L = self.chain, self.chain.depth
        every = L if chain.residual is None else chain.residual.every
        branch = 1.0 if chain.residual is None else chain.residual.factor(L)
        alike = chain.widths is None and not chain.has_lists
        if chain.residual is None:
            for l in range(1, 2 if alike else L + 1):
                self._close(self._layer(l, A, False))
                self._end(L if alike else 1)
            return
        whole = L // every
        for i in range(1 if alike else whole):
            cur = A
            for l in range(i * every + 1, (i + 1) * every + 1):
                cur = self._layer(l, cur, True)
                if l < (i + 1) * every:
                    self._node(cur, cur)
            self._join(A, cur, 1.0, branch)
            self._end(whole if alike else 1)
        rest = L - whole * every
        for l in range(L - rest + 1, L - rest + 2 if alike and rest else L + 1):
            self._close(self._layer(l, A, False))
            self._end(rest if alike else 1)

    def _layer(self, l: int, cur: int, held: bool) -> int:
        """Layer l of a keyword chain from register `cur`; where its branch's signal is then. `held`: register A is
        still needed."""
        chain = self.chain
        units = _units(chain, l)
        activation, norm = chain.layer_word("activation", l), chain.layer_word("norm", l)
        init, gain, bias_std = (chain.layer_word(name, l) for name in ("init", "gain", "bias_std"))
        weights = units, init, gain, bias_std, self._keyword_fixup(l)
        if chain.order == "linear-norm-activation":
            cur = self.linear(cur, held, *weights)
            return self.phi(cur, held, activation, NormRow(norm, chain.norm_eps))
        cur = self.phi(cur, held, activation, NormRow(norm, chain.norm_eps))
        return self.linear(cur, held, *weights)

    def _keyword_fixup(self, l: int) -> float:
        chain = self.chain
        if not chain.layer_word("init", l).fixup:
            return 1.0
        if chain.residual is None or chain.residual.every < 2:
            raise ValueError("init fixup needs residual branches of 2 layers or more, as in Residual(every=2)")
        return _fixup(chain.residual.every, max(1, chain.depth // chain.residual.every), l % chain.residual.every == 0)

    def _block(self, block: Block) -> None:
        held, before = block.skip is not None, self._shape
        cur = self._steps(block.steps, A, held, (), self._block_fixup(block))
        scale = self._factor(block.scale)
        if not held:
            if scale != 1.0:
                cur = self.elementwise("scale", cur, held, (), factors=scale)
        elif isinstance(block.skip, tuple):
            branch, (self.width, self.field) = self._shape, before
            passed = self._steps(block.skip, A, False, (cur,), [1.0] * len(block.skip))
            self._require_equal(block, self._shape, branch)
            cur = self._add(passed, cur, 1.0, scale)
        else:
            self._require_equal(block, before, self._shape)
            cur = self._add(A, cur, self._factor(block.skip), scale)
        self._close(self._steps(block.after, cur, False, (), []))

    def _block_fixup(self, block: Block) -> list[float]:
        """Fixup's factor on each layer of a branch, a gate and its value counting as one; ones without it."""
        inits = [self._last_init(step) for step in block.steps if isinstance(step, Weighted)]
        m = len(inits)
        if block.skip is None or not any(init.fixup for init in inits):
            return [1.0] * m
        if m < 2:
            raise ValueError(f"init fixup needs branches of 2 layers or more, got {m} in block {block}")
        return [_fixup(m, self.chain.branches, i == m - 1) if init.fixup else 1.0 for i, init in enumerate(inits)]

    def _steps(
        self, steps: Sequence[Any], cur: int, held: bool, busy: tuple[int, ...], factors: Sequence[float]
    ) -> int:
        """Steps one after another from register `cur`; the register of their result. `busy`: registers that hold
        something else.

        An activation takes the norm before it along, unless that has a weight or bias.
        """
        left = iter(factors)
        for before, step, behind in zip((None, *steps), steps, (*steps[1:], None), strict=False):
            if isinstance(step, Activation):
                norm = before.norm_row(self.chain) if _is_plain_norm(before) else self.no_norm
                cur = self.phi(cur, held, step, norm, busy)
            elif not (_is_plain_norm(step) and isinstance(behind, Activation)):
                self.fixup = next(left) if isinstance(step, Weighted) else 1.0
                cur = step.lower(self, cur, held, busy)
        return cur

    def field_of(self, step: Step) -> tuple[int, ...]:
        """Positions of one input, where a step needs their axes."""
        if not self.field:
            raise ValueError(
                f"{step} needs positions, of one axis or two: give positions=..., and flatten or pool to one behind it"
            )
        return self.field

    def init_of(self, step: Weighted) -> Init:
        """A step's init, or the chain's."""
        return self.chain.init if step.init is None else step.init

    def _last_init(self, step: Weighted) -> Init:
        """The init of a step's last layer, the one that Fixup acts on."""
        output = getattr(step, "output", None)
        return self.init_of(step) if output is None else output

    def words(self, step: Weighted) -> tuple[Init, float, float]:
        """The init, gain and bias_std of a step's layers."""
        chain = self.chain
        return self.init_of(step), chain.gain * step.gain, chain.bias_std if step.bias_std is None else step.bias_std

    def _factor(self, factor: float | str) -> float:
        return self.chain.branches**-0.5 if factor in BRANCH_SCALES else float(factor)

    def _require_equal(
        self, block: Block, skip: tuple[int, tuple[int, ...]], branch: tuple[int, tuple[int, ...]]
    ) -> None:
        if skip[0] != branch[0]:
            raise ValueError(
                f"a skip needs as many units as its branch: {skip[0]} pass by, {branch[0]} come out of it in block "
                f"{block}; end the branch in Linear({skip[0]}), or give the skip steps of its own, "
                f"skip=[Linear({branch[0]})]"
            )
        if skip[1] != branch[1]:
            raise ValueError(
                f"a skip needs as many positions as its branch: {skip[1]} pass by, {branch[1]} come out of it in block "
                f"{block}; give the skip steps of its own, skip=[Conv({branch[0]}, kernel=1, stride=2)]"
            )

    # -- ops

    def linear(
        self,
        cur: int,
        held: bool,
        units: int,
        init: Init,
        gain: float,
        bias_std: float,
        fixup: float,
        busy: tuple[int, ...] = (),
        taps: tuple[int, ...] = (),
        groups: int = 1,
        centred: int = 0,
    ) -> int:
        """A layer of weights, its scale times `fixup`; `centred`: index into CENTRED, a batch norm behind it aside."""
        fans = (self.width // groups, units // groups * math.prod(taps))
        bias = ("normal", bias_std) if bias_std else ("zero", 0.0)
        own = (
            bias
            if bias_std or init.bias_distribution == "zero"
            else (init.bias_distribution, self._scale(init, "bias_scale", fans))
        )
        scale = self._scale(init, "scale", fans) * gain * fixup
        if not (math.isfinite(scale) and math.isfinite(own[1])):
            self.beyond.append(self.done.layer + len(self._said["layer"]))
        self.widest = max(self.widest, self.width, units)
        columns, self.width = self.width // groups, units
        return self.emit(
            "linear",
            (cur,),
            held,
            (*busy, cur),
            units=units,
            columns=columns,
            groups=groups,
            kernel=self.number("kernels", taps),
            taps=math.prod(taps),
            positions=math.prod(self.field),
            scale=scale,
            gain=gain,
            draw=self.number("draws", _draw(init, taps)),
            init=self.number("inits", init),
            bias_draw=BIASES.index(own[0]),
            bias_scale=own[1],
            chosen_draw=BIASES.index(bias[0]),
            chosen_scale=bias[1],
            centred=centred,
        )

    def _scale(self, init: Init, key: str, fans: tuple[int, int]) -> float:
        """The scale of a scheme for a layer's fans, each distinct pair asked once."""
        asked = init, key, fans
        if (known := self._scales.get(asked)) is not None:
            return known
        try:
            scale = self._scales[asked] = float(getattr(init, key)(*fans))
        except Exception as error:
            layer = self.done.layer + len(self._said["layer"]) + 1
            where = f"init {init}: {key}{fans} of layer {layer}"
            raise ValueError(f"{where} must be a number, but raised {type(error).__name__}: {error}") from error
        return scale

    def phi(self, cur: int, held: bool, activation: Activation, norm: NormRow, busy: tuple[int, ...] = ()) -> int:
        """An activation function, on what a norm makes of its input."""
        number = 0 if norm.kind is None else self.number("norms", norm)
        row = self.number("activations", activation)
        return self.elementwise("phi", cur, held, busy, norm.kind == "batch", row=row, norm=number)

    def affine(self, step: Affine, cur: int, held: bool, busy: tuple[int, ...]) -> int:
        """What a step says of each unit."""
        each = np.array([self.number("affines", row) for row in step.rows(self.width, self.turns)])
        return self.elementwise("affine", cur, held, busy, affine_steps=each)

    def elementwise(
        self, kind: str, cur: int, held: bool, busy: tuple[int, ...], over_batch: bool = False, **numbers: Any
    ) -> int:
        """An op with one input; `over_batch`: a norm over the batch sees it first."""
        if over_batch and self._ops and self._ops[-1].kind == "linear" and self._ops[-1].out == cur:
            self._said["layer"][-1]["centred"] = CENTRED.index("columns")
        return self.emit(kind, (cur,), held, (*busy, cur), **numbers)

    def _add(self, passed: int, cur: int, skip: float, branch: float) -> int:
        return self.emit("add", (passed, cur), False, (passed, cur), out=passed, skip=skip, branch=branch)

    def _join(self, passed: int, cur: int, skip: float, branch: float) -> None:
        self._close(self._add(passed, cur, skip, branch))

    def _close(self, cur: int) -> None:
        """The end of a block: its result is the signal."""
        self._node(cur, A)

    def _node(self, cur: int, out: int) -> None:
        self.emit("node", (cur,), False, (), out=out, nodes=self.width)

    def emit(
        self, kind: str, ins: tuple[int, ...], held: bool, busy: tuple[int, ...], out: int | None = None, **numbers: Any
    ) -> int:
        """An op and its numbers; the register that it writes: A where that is free, else the first that is."""
        if out is None:
            out = 1 if held else 0
            while out in busy:
                out += 1
        said = self._said[ops.TABLES[kind]]
        self._ops.append(Op(kind, out, ins, len(said)))
        said.append(numbers)
        self.registers = max(self.registers, out + 1)
        return out

    # -- repetitions

    def _begin(self) -> None:
        self._ops, self._said = [], defaultdict(list)

    def _end(self, count: int) -> None:
        """`count` repetitions of what was emitted since the last end; joined to the stretch before where that has the
        same ops."""
        done = tuple(self._ops)
        each = Counts(**{table: len(said) for table, said in self._said.items()})
        if self.stretches and self.stretches[-1].ops == done:
            last = self.stretches[-1]
            self.stretches[-1] = last._replace(count=last.count + count)
        else:
            self.stretches.append(Stretch(done, count, self.done, each))
        self.done = self.done.plus(each, count)
        self._repeated.append((count, self._said))
        if "affine" in self._said:  # each with one number, or one a repetition
            turns = slice(self._turn, self._turn + count)
            each_step = [said["affine_steps"] for said in self._said["affine"]]
            column = [np.broadcast_to(n if len(n) == 1 else n[turns], count) for n in each_step]
            self._affine_steps.append(np.stack(column, axis=1).ravel())
        self._turn += count
        self._begin()

    def _numbers(self, table: str, dtype: type, names: Sequence[str]) -> list[np.ndarray]:
        """What ops of a table said under these names, (ops,) each; of long chains one array, not to be changed, for all
        names that said the same."""
        counts, flats = [], []
        for count, by_table in self._repeated:
            if table in by_table:
                said = by_table[table]
                flat = np.array([one[name] for name in names for one in said], dtype)  # cheaper than a list of lists
                counts.append(count)
                flats.append(flat.reshape(len(names), -1))
        places: Sequence[int] = range(len(names))
        if max(counts) > LONG:
            _, first, back = np.unique(np.hstack(flats), axis=0, return_index=True, return_inverse=True)
            places = back.ravel().tolist()
            flats = [flat[first] for flat in flats]
        parts = [flat[:, None].repeat(n, axis=1).reshape(len(flat), -1) for n, flat in zip(counts, flats, strict=True)]
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        rows.flags.writeable = False
        return [rows[place] for place in places]

    def _join_arrays(self) -> None:
        for table, dtype, names in NUMBERS:
            if getattr(self.done, table):
                vars(self).update(zip(names, self._numbers(table, dtype, names), strict=True))
        if self._affine_steps:
            self.affine_steps = np.concatenate(self._affine_steps)
        vars(self).update((name, tuple(rows)) for name, rows in self._tables.items())
        self.affines = tuple(AffineRow(*map(np.array, row)) for row in self.affines)

    # seldom asked: what the caller's weights, or a sampler's, are multiplied with

    @cached_property
    def init(self) -> Ints:
        """Of each layer the place of its scheme in `inits`."""
        return self._numbers("layer", np.int64, ("init",))[0]

    @cached_property
    def gain(self) -> Floats:
        """Of each layer."""
        return self._numbers("layer", np.float64, ("gain",))[0]

    @cached_property
    def chosen_bias(self) -> tuple[Ints, Floats]:
        """bias_draw and bias_scale without the scheme's own biases."""
        (draw,) = self._numbers("layer", np.int64, ("chosen_draw",))
        (scale,) = self._numbers("layer", np.float64, ("chosen_scale",))
        return draw, scale

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of every weight, as callers give and get it."""
        taps = [self.kernels[kernel] for kernel in self.kernel.tolist()]
        return [kernel_shape(*sizes) for sizes in zip(self.units.tolist(), self.columns.tolist(), taps, strict=True)]

    def places(self, positions: tuple[int, ...]) -> Ints:
        """Positions of one input at each layer, of inputs with these."""
        if self.chain.is_spatial or not positions:
            return self.positions
        return np.full(len(self.units), math.prod(positions))

    def layers(
        self, positions: tuple[int, ...], draw: Ints, scale: Floats, bias_draw: Ints, bias_scale: Floats
    ) -> Layers:
        """The layers for inputs of these positions, with what stands in the place of their draws."""
        shapes = (self.units, self.columns, self.groups, self.kernel, self.taps)
        placed = (self.places(positions), self.weight, self.address)
        return Layers(*shapes, *placed, draw, scale, bias_draw, bias_scale, self.centred)


def _units(chain: Any, layer: int) -> int:
    """n[layer] of a chain made by keywords, of one of blocks its input's."""
    if chain.widths is not None:
        return int(chain.widths[layer])
    assert chain.width is not None
    return chain.width


def _is_plain_norm(step: Any) -> TypeGuard[Norm]:
    return isinstance(step, Norm) and not step.is_affine


def _draw(init: Init, taps: tuple[int, ...]) -> Draw:
    """What a weight with these taps is drawn by: of one tap a delta-orthogonal one is orthogonal."""
    if init.distribution != "haar" or not init.parameter:
        return Draw(init.distribution, float(init.parameter))
    if any(k % 2 == 0 for k in taps):
        raise ValueError(f"init {init} needs kernels with a middle, an odd number of taps along each axis, got {taps}")
    return Draw("haar", float(math.prod(taps) > 1))


def _fixup(layers: int, branches: int, last: bool) -> float:
    """Factor on a layer of a branch of so many layers (Zhang, Dauphin, Ma 2019, arXiv 1901.09321)."""
    return 0.0 if last else branches ** (-1 / (2 * layers - 2))
