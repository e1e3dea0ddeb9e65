# SPDX-License-Identifier: BSD-3-Clause
"""A network as a graph of values, and the Chain that it is: blocks by its sums, `depth` where they repeat, or the
sentence why none."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pykernel import inits
from pykernel.activation import Activation
from pykernel.bridges.values import MIXED, Item, Read, Source, Value
from pykernel.chain import ORDERS, Chain
from pykernel.distributions import INDEPENDENT
from pykernel.layers import NORM_EPS, Attention, Block, Linear, Norm, Scale
from pykernel.parts import Head, Residual


@dataclass
class Part:
    """A block being read; `skip` as in `Block`, a projection as a list of items."""

    items: list
    skip: Any = None
    scale: float = 1.0
    after: list = field(default_factory=list)

    @property
    def every(self):
        """All items, in the order of a block's layers."""
        return [*self.items, *(self.skip if isinstance(self.skip, list) else ()), *self.after]

    @property
    def sources(self):
        """Its weight layers."""
        return [source for item in self.every for source in item.sources]

    def block(self, words):
        """The Block, with (init, gain, bias_std) of each group of layers of an item from `words`, by its place in
        `every`."""
        places = iter(range(len(self.every)))
        spell = lambda items: [_spelled(item, words.get(next(places))) for item in items]
        steps = spell(self.items)
        skip = spell(self.skip) if isinstance(self.skip, list) else self.skip
        return Block(*steps, skip=skip, scale=self.scale, after=tuple(spell(self.after)))

    @property
    def key(self):
        """What makes two blocks the same: the units that come in and all that is said of it but the numbers of
        units."""
        entering = next((item.sources[0].sizes[1] for item in self.every if item.weighted), None)
        return entering, self.each(lambda item: item._replace(step=_bare(item.step))).block({})

    def each(self, change):
        """The block with `change` done to all items, in the order of `every`."""
        changed = lambda items: [change(item) for item in items]
        items = changed(self.items)
        skip = changed(self.skip) if isinstance(self.skip, list) else self.skip
        return replace(self, items=items, skip=skip, after=changed(self.after))


def _bare(step):
    """A step without its numbers of units: a norm's weight and bias, LayerScale's factors."""
    if isinstance(step, Norm):
        return replace(step, weight=None, bias=None)
    return Scale([0.0]) if isinstance(step, Scale) and isinstance(step.s, tuple) else step


def _repeated(parts):
    """One part for parts of one key: their numbers of units as rows, one a repetition, where they differ."""
    turns = zip(*(part.every for part in parts), strict=True)
    return parts[0].each(lambda item: item._replace(step=_in_rows([other.step for other in next(turns)])))


def _in_rows(steps):
    """A step of repetitions that differ in its numbers of units."""
    if len(set(steps)) == 1:
        return steps[0]
    if isinstance(steps[0], Scale):
        return Scale(np.array([step.s for step in steps]))
    words = {}
    for key, nothing in (("weight", 1.0), ("bias", 0.0)):
        each = [nothing if getattr(step, key) is None else getattr(step, key) for step in steps]
        units = max(np.size(value) for value in each)
        rows = np.array([np.broadcast_to(value, units) for value in each])
        words[key] = None if (rows == nothing).all() else rows
    return replace(steps[0], **words)


def _spelled(item, words):
    if not item.weighted or words is None:
        return item.step
    (init, gain, bias_std), *others = words
    step = replace(item.step, init=init, gain=gain, bias_std=bias_std)
    for output, own_gain, own_bias in others:
        if (own_gain, own_bias) != (gain, bias_std):
            raise ValueError(
                f"{item.sources[-1].where} has a gain or biases unlike those of query, key and value; read "
                "the module with "
                "weights=True"
            )
        step = step if output == init else replace(step, output=output)
    return step


def _is_factor(step):
    """Whether a step is one number that multiplies."""
    return isinstance(step, Scale) and not isinstance(step.s, tuple)


class _Series:
    """From values to parts, backwards from the output; every value belongs to one part."""

    def __init__(self):
        self.seen: set[int] = set()

    def between(self, start, end):
        """Items and Parts (sums) from one value to a later one that it dominates."""
        found, factor = [], 1.0
        while end is not start:
            if id(end) in self.seen:
                raise ValueError(
                    f"{end.where} is used in two branches that do not meet in one sum; a block is a branch and a skip"
                )
            self.seen.add(id(end))
            before = end.line[0]
            if end.step == MIXED:
                raise ValueError(f"{end.where} mixes positions, and no Linear follows; a chain's attention ends in one")
            if end.step == "half":
                raise ValueError(
                    f"{end.where} is taken apart, but its halves are no gate: an activation of one half times the other"
                )
            if len(end.ins) == 2:
                found.append(self._sum(end, factor))
                factor = 1.0
            elif _is_factor(end.step):  # a factor on a sum goes into the sum
                factor *= end.step.s
                if before is start or not (len(before.ins) == 2 or _is_factor(before.step)):
                    found.append(Item(Scale(factor)))
                    factor = 1.0
            else:
                found.append(Item(end.step, end.sources))
            end = before
        return found[::-1]

    def _sum(self, value, factor):
        start = value.line[0]
        sides = []
        for term, own in zip(value.ins, value.factors, strict=True):
            own *= factor
            while term is not start and _is_factor(term.step):
                own *= term.step.s
                term = term.ins[0]
            sides.append((own, self.between(start, term)))
            if any(isinstance(item, Part) for item in sides[-1][1]):
                raise ValueError(
                    f"{value.where} adds a branch that has a sum inside; a block has one sum: read the inner network "
                    "alone"
                )
        (a, short), (b, long) = sorted(sides, key=lambda side: (sum(item.weighted for item in side[1]), len(side[1])))
        if not long:
            return Item(Scale(a + b))
        skip = short + ([] if a == 1.0 else [Item(Scale(a))]) if short else a
        return Part(long, skip=skip, scale=b)


def _layers(items, order):
    """Items as layers of one weight each, in one of ORDERS; what is left over makes a layer without weight."""
    layers: list[list] = []
    for item in items:
        full = bool(layers) and any(other.weighted for other in layers[-1])
        if not layers or (item.weighted if order == ORDERS[0] else full):
            layers.append([])
        layers[-1].append(item)
    return layers


def _runs(parts):
    """The parts, with the items between two sums put together."""
    run: list[Item] = []
    for part in parts:
        if isinstance(part, Item):
            run.append(part)
            continue
        if run:
            yield run
        yield part
        run = []
    if run:
        yield run


def _order(parts):
    first = parts[0].items[0] if isinstance(parts[0], Part) else parts[0]
    return ORDERS[0 if first.weighted else 1]


def _blocks(parts):
    """Blocks: sums with the steps that follow them, layers between."""
    runs = list(_runs(parts))
    keys = [part.key if isinstance(part, Part) else None for part in runs]
    counts = Counter(keys)
    tails = [_unweighted(run) if isinstance(run, list) else [] for run in [*runs[1:], []]]
    bare = {key for key, tail in zip(keys, tails, strict=True) if not tail}
    out: list[Part] = []
    for i, run in enumerate(runs):
        if isinstance(run, Part):
            # what follows a sum belongs to it, unless it follows no other sum like this one, or none before
            alone = counts[keys[i]] == 1 and bool(out) and out[-1].skip is not None and not out[-1].after
            out.append(replace(run, after=[] if keys[i] in bare or alone else tails[i]))
            continue
        items = run[len(out[-1].after) :] if out else run
        activated = any(isinstance(item.step, Activation) for item in _unweighted(items))
        out += [Part(layer) for layer in _layers(items, ORDERS[1 if activated else 0])]
    return _split_end(out)


def _unweighted(items):
    """The steps before the first layer."""
    return list(itertools.takewhile(lambda item: not item.weighted, items))


def _split_end(blocks):
    """What the last block has at its end beyond a block like it is a block of its own."""
    *others, last = blocks
    known = {part.key for part in others}
    slot = "items" if last.skip is None else "after"
    row = getattr(last, slot)
    for cut in range(len(row) - 1, -1 if slot == "after" else 0, -1):
        if last.key in known or row[cut].weighted:
            break
        left = replace(last, **{slot: row[:cut]})
        if left.key in known:
            return [*others, left, Part(row[cut:])]
    return blocks


def _repetition(blocks, shared):
    """(start, period, count) of the pattern whose repetitions cover most blocks; the shortest, then the first of
    equals. shared: keys of sources that are used again, which repetitions must use at the same places."""
    keys = [(part.key, *(source.key for source in part.sources if source.key in shared)) for part in blocks]
    numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    row = [numbers[key] for key in keys]
    best = (0, len(row), 1)
    covered = 0
    for period in range(1, len(row) // 2 + 1):
        i = 0
        while i + period < len(row):
            same = 0
            while i + period + same < len(row) and row[i + same] == row[i + period + same]:
                same += 1
            count = 1 + same // period
            if count > 1 and count * period > covered:
                best, covered = (i, period, count), count * period
            i += same + 1
    return best


@dataclass
class Network:
    """What a graph of values is: parts in order, perhaps a last linear map that is read out.

    Attributes:
        layers: sources of the weight layers, in order.  head: Source or None.
        groups: layers that have the same place in a repetition, as indices into `layers`; one group for a chain of
            keywords; of tied layers each once.
        tied: whether repetitions use the same layers.
    """

    layers: list
    head: Source | None
    groups: list
    keywords: dict | None = None
    pattern: tuple = ()  # first, blocks, depth, last
    over: str = "positions"
    tied: bool = False

    def chain(self, init, *, words=None, head_init=None, loss="linear", **fields) -> Chain:
        """The Chain with this scheme; the head has the same one where its entries are independent, else lecun_normal.

        Args:
            words: (init, gain, bias_std) of each group, where they differ.
        """
        init = inits.get(init)
        head = None
        if self.head is not None:
            if head_init is None:
                head_init = init if init.distribution in INDEPENDENT else "lecun_normal"
            head = Head(loss, self.head.sizes[0], init=head_init, over=self.over)
        if self.keywords is not None:
            return Chain(**self.keywords, init=init, head=head, tied=self.tied, **fields)
        first, blocks, depth, last = self.pattern
        each = iter([] if words is None else words)
        spelled: dict[str, Any] = {}
        for key, parts in (("first", first), ("blocks", blocks), ("last", last)):
            own = lambda part: (
                {}
                if words is None
                else {i: [next(each) for _ in item.groups] for i, item in enumerate(part.every) if item.weighted}
            )
            spelled[key] = tuple(part.block(own(part)) for part in parts)
        width = self.layers[0].sizes[1]
        return Chain(depth=depth, width=width, init=init, head=head, tied=self.tied, **spelled, **fields)


def network(start: Value, end: Value) -> Network:
    """The network from the input to the output.

    Raises:
        ValueError: it is no chain: which operation, and why.
    """
    parts, over = _read(_Series().between(start, end))
    items = [item for part in parts for item in (part.every if isinstance(part, Part) else [part])]
    shared = _shared([source for item in items for source in item.sources])
    if not any(item.weighted for item in items):
        raise ValueError("the module has no Linear layer, so there is no chain to read")
    alike, listed = _keywords(parts)
    if shared:
        alike, listed = _tied(alike), None
    if alike is not None:
        return alike
    head = None
    last = parts[-1]
    is_linear = [isinstance(part, Item) and isinstance(part.step, Linear) for part in parts]
    if is_linear[-1] and not all(is_linear):
        head = last.sources[0]
        parts = parts[:-1]
        if not any(isinstance(part, Part) or part.weighted for part in parts):
            parts, head = [*parts, last], None
    _require_head(over, head)
    blocks = _blocks(parts)
    begin, period, count = _repetition(blocks, shared)
    if count == 1 and listed is not None:
        return listed
    stop = begin + period * count
    first, last = blocks[:begin], blocks[stop:]
    pattern = [_repeated(blocks[begin + i : stop : period]) for i in range(period)]
    if shared:
        _require_tied(blocks, begin, period, stop, head)
    layers, groups = _numbered(first, pattern, count, blocks, bool(shared))
    return Network(layers, head, groups, pattern=(first, pattern, count, last), over=over, tied=bool(shared))


def _read(parts):
    """The parts without the step that reads some position, and which it reads."""
    found = [i for i, part in enumerate(parts) if isinstance(part, Item) and isinstance(part.step, Read)]
    inside = any(isinstance(item.step, Read) for part in parts if isinstance(part, Part) for item in part.every)
    if inside or len(found) > 1:
        raise ValueError("positions are taken inside a branch, or twice; a chain takes them in its head")
    if not found:
        return parts, "positions"
    (at,) = found
    over = parts[at].step.over
    if any(not isinstance(part, Item) or isinstance(part.step, Attention) for part in parts[at + 1 :]):
        raise ValueError(f"the {over} of positions is taken before other blocks; a chain takes it in its head")
    if over == "mean" and len(parts) - at > 2:
        raise ValueError("the mean of positions must be what the last Linear takes, without a step between")
    return parts[:at] + parts[at + 1 :], over


def _require_head(over, head):
    if over != "positions" and head is None:
        raise ValueError(f"the {over} of positions is taken, and no last Linear reads it; a chain takes it in its head")


def _shared(sources):
    """Keys of layers that are used again.

    Raises:
        ValueError: a fused layer is cut into halves and used whole, or cut twice.
    """
    seen: dict[tuple, tuple] = {}
    for source in sources:
        for row in {source.rows[0], source.rows[1] - 1}:
            if seen.setdefault((id(source.weight), row), source.rows) != source.rows:
                raise ValueError(f"{source.where} is cut in two ways; a chain uses a layer in one")
    counts = Counter(source.key for source in sources)
    return {key for key, count in counts.items() if count > 1}


def _tied(alike):
    """Equal layers whose weight is one; None where it is not."""
    if alike is None or len({source.key for source in alike.layers}) > 1:
        return None
    if alike.head is not None and alike.head.key == alike.layers[0].key:
        return None
    return replace(alike, groups=[[0]], tied=True)


def _require_tied(blocks, begin, period, stop, head):
    """Refuse layers that are used again elsewhere than at the same place of all repetitions, and repetitions of which
    some share layers and some do not."""
    sources = [[source.key for source in part.sources] for part in blocks]
    inside = sources[begin : begin + period]
    once = [key for row in inside for key in row]
    others = [key for row in (*sources[:begin], *sources[stop:]) for key in row] + ([] if head is None else [head.key])
    same = all(row == inside[(i - begin) % period] for i, row in enumerate(sources[begin:stop], begin))
    if not same or len(set(once)) < len(once) or set(once) & set(others) or len(set(others)) < len(others):
        counts = Counter(source.where for part in blocks for source in part.sources)
        where = next((name for name, count in counts.items() if count > 1), blocks[begin].sources[0].where)
        raise ValueError(
            f"{where} is used again; tied layers of a chain are those of a pattern that repeats with all its layers, "
            "and nothing else uses them"
        )


def _numbered(first, pattern, count, blocks, tied):
    """The layers' sources, and the groups of `Network`."""
    layers: list[Source] = []
    places: dict[tuple, list] = {}
    for i, part in enumerate(blocks):
        inside = 0 <= i - len(first) < len(pattern) * count
        place = len(first) + (i - len(first)) % len(pattern) if inside else i
        for j, item in enumerate(part.every):
            for k, sources in enumerate(item.groups):
                again = inside and tied and i >= len(first) + len(pattern)
                numbers = range(len(layers), len(layers) + len(sources))
                places.setdefault((place, j, k), []).extend([] if again else numbers)
                layers += sources
    return layers, [places[key] for key in sorted(places)]


def _keywords(parts):
    """The network as equal layers, or else as layers with lists of activations and norms; None where it is not."""
    order = _order(parts)
    layers: list[dict] = []
    sums = []
    for run in _runs(parts):
        if isinstance(run, Part) and (isinstance(run.skip, list) or run.skip != 1.0):
            return None, None
        found = [_slots(layer, order) for layer in _layers(run.items if isinstance(run, Part) else run, order)]
        if None in found:
            return None, None
        if isinstance(run, Part):
            sums.append((len(layers), len(found), run.scale))
        layers += found
    plain = [set(layer) == {"linear"} for layer in layers]
    inside = bool(sums) and sums[-1][0] + sums[-1][1] == len(layers)
    head = layers.pop()["linear"] if plain[-1] and not all(plain) and not inside else None
    every, scale = sums[0][1:] if sums else (0, 1.0)
    if sums and sums != [(i, every, scale) for i in range(0, len(layers) - every + 1, every)]:
        return None, None
    rows = [(layer.get("activation", "linear"), layer.get("norm")) for layer in layers]
    norms = [norm for _, norm in rows if norm is not None]
    eps = {norm.eps for norm in norms}
    if len(eps) > 1:
        return None, None
    sizes = [layer["linear"].sizes for layer in layers]
    keywords = dict(
        widths=[sizes[0][1], *(s[0] for s in sizes)],
        activation=[activation for activation, _ in rows],
        norm=[norm and norm.kind for _, norm in rows],
        norm_eps=norms[0].eps or NORM_EPS if norms else NORM_EPS,
        order=order,
        residual=Residual(every, scale) if sums else None,
    )
    found = Network([layer["linear"] for layer in layers], head, [list(range(len(layers)))], keywords)
    return (found if len(set(rows)) == 1 else None), found


def _slots(layer, order):
    """Linear (its source), norm and activation of a layer made by keywords, or None where it is no such layer."""
    kinds = ("linear", "norm", "activation") if order == ORDERS[0] else ("norm", "activation", "linear")
    slots: dict[str, Any] = {}
    for item in layer:
        types = {"linear": Linear, "norm": Norm, "activation": Activation}
        kind = next((name for name, of in types.items() if isinstance(item.step, of)), None)
        if (
            kind is None
            or (kind == "norm" and item.step.is_affine)
            or any(kinds.index(other) >= kinds.index(kind) for other in slots)
        ):
            return None
        slots[kind] = item.sources[0] if kind == "linear" else item.step
    return slots if "linear" in slots else None
