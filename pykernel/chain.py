# SPDX-License-Identifier: BSD-3-Clause
"""Chain and its parts: frozen, hashable specifications, validated where they are made."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from dataclasses import replace as _replace
from typing import Any

import numpy as np

from pykernel import activations, checks, inits, wording
from pykernel.init import Given
from pykernel.layers import NORM_EPS, NORMS, Norm, Roles, blocks_of, is_spatial, roles
from pykernel.parts import MAX_DEPTH, Clip, Head, Residual
from pykernel.patterns import pattern_of
from pykernel.program import Counts
from pykernel.step import MAX_WIDTH, Weighted
from pykernel.tables import in_notebook

ORDERS = ("linear-norm-activation", "norm-activation-linear")
# Words of a chain made by keywords that take one value a layer, and how one value becomes its plain form.
PER_LAYER: dict[str, Callable[[Any], Any]] = {
    "activation": activations.get,
    "init": inits.get,
    "gain": lambda value: checks.finite("gain", value),
    "bias_std": lambda value: checks.not_negative("bias_std", value),
    "norm": lambda value: checks.choice("norm", value, NORMS),
}
SIZES = {"depth", "width", "widths", "blocks", "first", "last"}  # words that say which layers there are


@dataclass(frozen=True)
class Chain:
    """A deep network of random weights: `depth` equal layers by keywords, or `depth` repetitions of a pattern of
    blocks.

    Args:
        depth: number of weight layers L; with `blocks`, repetitions of the pattern (by default 1).
        width: units of every layer, the input's included; with `blocks`, units of the input.
        widths: instead of both, the L + 1 widths n[0] .. n[L].
        activation: name, "name(parameter)" or `Activation`; by default "relu".
        init: name, "name(numbers)" or `Init`: how weights are drawn; with `blocks`, of the steps that name none.
        gain: multiplier on the standard deviation of the weights, beside a step's own.
        bias_std: standard deviation of normal biases; 0 leaves the scheme's own (zero for all but
            "torch_linear_default").
        norm: None, "batch", "layer" or "rms".
        norm_eps: what the norm adds to the variance (mean square for "rms") before it divides by the root.
        order: "linear-norm-activation" or "norm-activation-linear" (pre-activation).
        residual: None or `Residual`.
        head: None or `Head`.
        clip: None or `Clip`.
        blocks: the pattern that is repeated, a Block each, or bare steps (a bare step is a block without skip). Beside
            it activation, norm, order, residual and widths have nothing to say and are refused.
        first, last: blocks once before and once after.
        tied: whether repetitions use the same weights and biases: the layers of a chain of equal layers one weight,
            those of blocks the weights of the first repetition. `first`, `last` and the head keep their own.

    Attributes:
        modules: names of your own for its weight layers, see `named`; () without.

    Without `blocks`, activation, init, gain, bias_std and norm also take a list, one value a layer.

    Raises:
        ValueError, TypeError: before any work, saying what was given and what is allowed.

    Examples:
        >>> Chain(widths=[4, 5, 6]).depth
        2
        >>> Chain(depth=3, width=8) == Chain(widths=[8, 8, 8, 8])
        True
        >>> from pykernel.layers import Block, Linear, Norm
        >>> mlp = Block(Norm("layer"), Linear(256), "gelu", Linear(64), skip=1.0)
        >>> Chain(depth=12, width=64, blocks=[mlp]).layers[:2]
        ('1.linear1', '1.linear2')
    """

    depth: int = None  # type: ignore[assignment]  # always an int once made
    width: int | None = None
    widths: Sequence[int] | None = None
    activation: Any = None  # a name becomes its Activation, a list a tuple of them; None with blocks
    init: Any = "he_normal"  # a name becomes its Init
    gain: Any = 1.0
    bias_std: Any = 0.0
    norm: Any = None
    norm_eps: float = NORM_EPS
    order: str = ORDERS[0]
    residual: Residual | None = None
    head: Head | None = None
    clip: Clip | None = None
    blocks: tuple | None = None
    first: tuple = ()
    last: tuple = ()
    tied: bool = False
    modules: tuple[str, ...] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.blocks is None:
            for key in ("first", "last"):
                given = getattr(self, key)
                if given is not None and not (isinstance(given, Sequence) and not given):
                    raise ValueError(f"{key} goes with blocks: give the pattern that is repeated, too")
                self._set(**{key: ()})
            self._set(activation="relu" if self.activation is None else self.activation)
            self._check_sizes()
        else:
            self._check_blocks()
        for key, plain in PER_LAYER.items():
            if key != "activation" or self.blocks is None:
                self._set(**{key: self._one_or_each(key, getattr(self, key), plain)})
        self._set(norm_eps=checks.within("norm_eps", self.norm_eps, 1e-30, 1e30))
        checks.choice("order", self.order, ORDERS)
        for key, kind in (("residual", Residual), ("head", Head), ("clip", Clip)):
            value = getattr(self, key)
            if value is not None and not isinstance(value, kind):
                raise TypeError(f"{key} must be None or a pykernel.{kind.__name__}, got {value!r}")
        if self.residual is not None:
            self._check_residual(self.residual.every)
        self._check_tied()
        if self.blocks is not None and not self.is_spatial:
            pattern_of(self)  # says what does not fit together; with windows only positions tell

    def _one_or_each(self, key: str, value: Any, plain: Callable[[Any], Any]) -> Any:
        """The plain form of one value, or of a list with one value a layer."""
        if not isinstance(value, (list, tuple)):
            return plain(value)
        if self.blocks is not None:
            raise ValueError(
                f"{key} must be one value beside blocks, got a list of {len(value)}; a step takes its own {key}"
            )
        if len(value) != self.depth:
            raise ValueError(
                f"{key} must be one value or a list of one a layer, {self.depth}, got a list of {len(value)}"
            )
        each = tuple(plain(v) for v in value)
        if key == "init" and any(isinstance(init, Given) for init in each):
            raise ValueError("init as a list must hold schemes: weights of your own for all layers go into one Given")
        return each[0] if len(set(each)) == 1 else each

    def _check_tied(self) -> None:
        if not isinstance(self.tied, bool):
            raise TypeError(f"tied must be True or False, got {self.tied!r}")
        if not self.tied or self.blocks is not None:
            return
        if self.widths is not None:
            raise ValueError(
                "tied layers use one weight, so all must be as wide; widths say from "
                f"{min(self.widths)} to {max(self.widths)}"
            )
        for key in ("init", "gain", "bias_std"):
            if isinstance(getattr(self, key), tuple):
                raise ValueError(f"tied layers use one weight, so {key} must be one value, got a list of {self.depth}")
        if self.init.fixup:
            raise ValueError("init fixup scales the layers of a branch apart, and tied layers use one weight")

    def _check_blocks(self) -> None:
        for key, default in (
            ("activation", None),
            ("norm", None),
            ("order", ORDERS[0]),
            ("residual", None),
            ("widths", None),
        ):
            if getattr(self, key) != default:
                raise ValueError(
                    f"{key} is for chains of equal layers; beside blocks say it in a step or a Block, got "
                    f"{key}={getattr(self, key)!r}"
                )
        if self.width is None:
            raise TypeError("a chain of blocks needs width, the units of its input")
        self._set(depth=checks.integer("depth", 1 if self.depth is None else self.depth, 1, MAX_DEPTH))
        self._set(width=checks.integer("width", self.width, 1, MAX_WIDTH))
        for key in ("first", "blocks", "last"):
            self._set(**{key: blocks_of(key, getattr(self, key))})
        if not self.blocks:
            raise ValueError("blocks must hold at least one Block or step")
        each = [len(roles(block).layer) for block in self.blocks]
        once = sum(len(roles(block).layer) for block in (*self.first, *self.last))
        count = once + self.depth * sum(each)
        if not 1 <= count <= MAX_DEPTH:
            raise ValueError(f"a chain must have 1 to {MAX_DEPTH} weight layers, these blocks have {count}")

    def _set(self, **values: Any) -> None:
        vars(self).update(values)

    def _check_sizes(self) -> None:
        if self.widths is None:
            if self.depth is None or self.width is None:
                raise TypeError("a chain needs depth and width, or widths")
            self._set(
                depth=checks.integer("depth", self.depth, 1, MAX_DEPTH),
                width=checks.integer("width", self.width, 1, MAX_WIDTH),
            )
            return
        if not checks.iterable(self.widths) or not isinstance(self.widths, (Sequence, np.ndarray)):
            raise TypeError(f"widths must be a sequence of ints n[0] .. n[L], got {self.widths!r}")
        widths = tuple(checks.integer(f"widths[{i}]", n, 1, MAX_WIDTH) for i, n in enumerate(self.widths))
        if not 2 <= len(widths) <= MAX_DEPTH + 1:
            raise ValueError(f"widths must hold n[0] .. n[L] with L from 1 to {MAX_DEPTH}, got {len(widths)} numbers")
        for key, value in (("depth", len(widths) - 1), ("width", widths[0] if len(set(widths)) == 1 else None)):
            given = getattr(self, key)
            if given is not None and given != value:
                raise ValueError(
                    f"{key}={given} contradicts widths, which say "
                    f"{value if value is not None else 'that it differs by layer'}"
                )
        if len(set(widths)) == 1:
            self._set(depth=len(widths) - 1, width=widths[0], widths=None)
        else:
            self._set(depth=len(widths) - 1, width=None, widths=widths)

    def _check_residual(self, k: int) -> None:
        n = self.layer_widths
        if k > self.depth:
            raise ValueError(f"residual every={k} is more than the depth {self.depth}")
        ends = np.arange(k, self.depth + 1, k)
        wrong = ends[n[ends] != n[ends - k]]
        if wrong.size:
            end = int(wrong[0])
            raise ValueError(
                f"a residual sum needs equal widths at both ends: layer {end - k} has {n[end - k]} units, layer "
                f"{end} has {n[end]}"
            )

    @property
    def layer_widths(self) -> np.ndarray:
        """n[0] .. n[L] of a chain of equal layers, n[0] .. n[N] at the ends of its blocks of one of blocks, int64.

        Raises:
            ValueError: a chain with convolutions, whose widths depend on the positions of an input.
        """
        if self.blocks is not None:
            return pattern_of(self).nodes
        return np.full(self.depth + 1, self.width) if self.widths is None else np.array(self.widths)

    @property
    def weight_count(self) -> int:
        """Entries of all weight matrices, a tied one counted once."""
        if self.tied or self.blocks is not None:
            pattern = pattern_of(self)
            return int((pattern.units.astype(object) * pattern.columns)[pattern.first_uses].sum())
        if self.width is not None:
            return self.depth * self.width**2
        return sum(a * b for a, b in itertools.pairwise(self.layer_widths.tolist()))

    @property
    def has_lists(self) -> bool:
        """Whether some word has one value a layer."""
        return any(isinstance(getattr(self, key), tuple) for key in PER_LAYER)

    def layer_word(self, key: str, layer: int) -> Any:
        """The value of "activation", "init", "gain", "bias_std" or "norm" at layer 1 .. L of a chain made by
        keywords."""
        value = getattr(self, key)
        return value[layer - 1] if isinstance(value, tuple) else value

    @property
    def branches(self) -> int:
        """Blocks that have a skip, what "inverse_sqrt_depth" counts; at least 1."""
        if self.blocks is None:
            return 1 if self.residual is None else max(1, self.depth // self.residual.every)
        skips = lambda blocks: sum(block.skip is not None for block in blocks)
        return max(1, skips(self.first) + self.depth * skips(self.blocks) + skips(self.last))

    @property
    def extent(self) -> int:
        """How many places the longest of its rows has: weight layers, activation steps or blocks; the depth of a chain
        of equal layers."""
        return max(self.extents)

    @property
    def ends(self) -> slice:
        """Which nodes the slope is taken over: all of a chain of equal layers, those at the ends of repetitions of
        blocks."""
        if self.blocks is None:
            return slice(None)
        return slice(len(self.first), len(self.first) + self.depth * len(self.blocks) + 1, len(self.blocks))

    @property
    def alike(self) -> tuple[slice, slice]:
        """The weight layers whose gradients `end_to_end` compares, like with like: of blocks that repeat all layers of
        the first and of the last repetition, else the first and the last layer."""
        extents = self.extents
        once = [sum(len(roles(block).layer) for block in part) for part in (self.first, self.last)]
        each = (extents.layer - sum(once)) // self.depth
        if self.blocks is None or self.depth == 1 or not each:
            return slice(0, 1), slice(extents.layer - 1, extents.layer)
        end = extents.layer - once[1]
        return slice(once[0], once[0] + each), slice(end - each, end)

    @property
    def has_slope(self) -> bool:
        """Whether there is something to count by the slope: layers, or a pattern that is repeated."""
        return self.blocks is None or self.depth > 1

    @property
    def unit(self) -> str:
        """What depth counts and the slope is taken by: "layer", of blocks "repetition"."""
        return "layer" if self.blocks is None else "repetition"

    @property
    def extents(self) -> Counts:
        """How many weight layers, activation steps and nodes it has: the lengths of its rows (see
        `pykernel.observables`)."""
        shares = self.tied and self.depth > 1
        if self.blocks is None:
            return Counts(layer=self.depth, activation=self.depth, node=self.depth, weight=int(shares))
        once, each = (*self.first, *self.last), self.blocks
        count = lambda part, which: sum(len(getattr(roles(block), which)) for block in part)
        found = {which: count(once, which) + self.depth * count(each, which) for which in Roles._fields}
        weight = (count(once, "layer") + count(each, "layer")) * (shares and count(each, "layer") > 0)
        return Counts(**found, node=len(once) + self.depth * len(each), weight=weight)

    @property
    def inits(self) -> tuple:
        """The schemes that weights are drawn by, each once."""
        own = self.init if isinstance(self.init, tuple) else (self.init,)
        if self.blocks is not None:
            own = tuple(step.init or self.init for step in self._steps() if isinstance(step, Weighted))
        return tuple(dict.fromkeys(own))

    @property
    def has_batch_norm(self) -> bool:
        """Whether some norm is over the batch."""
        if self.blocks is not None:
            return any(isinstance(step, Norm) and step.kind == "batch" for step in self._steps())
        return "batch" in (self.norm if isinstance(self.norm, tuple) else (self.norm,))

    @property
    def is_spatial(self) -> bool:
        """Whether some step looks at positions as a field, so that shapes depend on how many there are."""
        return self.blocks is not None and any(is_spatial(step) for step in self._steps())

    def _steps(self) -> Iterator[Any]:
        for block in (*self.first, *(self.blocks or ()), *self.last):
            yield from (*block.steps, *(block.skip if isinstance(block.skip, tuple) else ()), *block.after)

    def _names(self, which: str) -> tuple[str, ...]:
        if self.blocks is None:
            words = {
                "layer": ["linear"] * self.depth,
                "activation": [self.layer_word("activation", l).name for l in range(1, self.depth + 1)],
                "mix": [],
            }
            return tuple(f"{l}.{word}" for l, word in enumerate(words[which], 1))
        every = (*self.first, *self.blocks * self.depth, *self.last)
        known = {block: getattr(roles(block), which) for block in set(every)}
        return tuple(f"{i}.{role}" for i, block in enumerate(every, 1) for role in known[block])

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the weight layers: block, from 1 through first, blocks and last, and what the layer is in it."""
        return self._names("layer")

    @property
    def tied_layers(self) -> tuple[str, ...]:
        """Of a chain whose layers share weights the name of each weight, that of the layer which uses it first; else
        ()."""
        if not self.extents.weight:
            return ()
        names = self.layers
        if self.blocks is None:
            return names[:1]
        first, each = (sum(len(roles(block).layer) for block in part) for part in (self.first, self.blocks))
        return (*names[: first + each], *names[first + self.depth * each :])

    @property
    def activations(self) -> tuple[str, ...]:
        """Names of the activation steps: block and function."""
        return self._names("activation")

    @property
    def attentions(self) -> tuple[str, ...]:
        """Names of the attentions: block, and "attention", numbered where a block has several."""
        return self._names("mix")

    def named(self, modules: Sequence[str]) -> Chain:
        """The same chain, its weight layers called by names of your own in tables and figures, as `from_torch` does.

        Args:
            modules: one name a weight layer, in the order of `layers`. No number depends on them; `replace` keeps
                them unless it changes the layers.

        Raises:
            ValueError, TypeError: not as many texts as there are weight layers.

        Examples:
            >>> Chain(depth=2, width=8).named(["encoder", "decoder"]).modules
            ('encoder', 'decoder')
        """
        names, count = tuple(modules), self.extents.layer
        if isinstance(modules, str) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"modules must be texts, one a weight layer, got {modules!r}")
        if len(names) != count:
            raise ValueError(f"modules must be one name a weight layer, {count}, got {len(names)}")
        chain = _replace(self)
        chain._set(modules=names)
        return chain

    def replace(self, **changes: Any) -> Chain:
        """A copy with other fields; `depth` or `width` replace `widths`, and the other way round.

        Examples:
            >>> Chain(depth=3, width=8).replace(depth=5).depth
            5
        """
        unknown = set(changes) - {f.name for f in fields(self)}
        if unknown:
            name = sorted(unknown)[0]
            checks.choice("chain field", name, tuple(f.name for f in fields(self)))
        if changes.get("blocks") is not None and self.blocks is None:
            keyword = {"activation": None, "norm": None, "order": ORDERS[0], "residual": None}
            changes = {
                **keyword,
                **({} if self.widths is None else {"widths": None, "width": self.widths[0]}),
                **changes,
            }
        elif "widths" in changes:
            changes = {"depth": None, "width": None, **changes}
        elif self.widths is not None and ("depth" in changes or "width" in changes):
            changes = {"widths": None, **changes}
        changed = _replace(self, **changes)
        return changed.named(self.modules) if self.modules and not SIZES & changes.keys() else changed

    def __repr__(self) -> str:
        return wording.spelled(self)

    def __str__(self) -> str:
        return wording.said(self)

    def _repr_html_(self) -> str:
        return in_notebook(wording.shown(self, None if self.is_spatial else pattern_of(self)))


FIELDS = tuple(f.name for f in fields(Chain) if f.init)  # the words of a chain: what sweeps and stores go by
