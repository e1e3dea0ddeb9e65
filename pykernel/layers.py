# SPDX-License-Identifier: BSD-3-Clause
"""The words of a chain of blocks: Block and its steps, frozen, hashable, validated where they are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pykernel import activations, checks, inits
from pykernel.activation import Activation
from pykernel.conv import Conv, Flatten, Pool
from pykernel.drive import Drive
from pykernel.program import CENTRED, NormRow
from pykernel.step import MAX_WIDTH, Roles, Step, Weighted, Words, Writer, set_fields, word

NORMS = (None, "batch", "layer", "rms")
NORM_EPS = 1e-5  # by default, as in most frameworks
BRANCH_SCALES = ("inverse_sqrt_depth",)


@dataclass(frozen=True, repr=False)
class Linear(Weighted):
    """A layer of weights, z = W u + b.

    Args:
        units: rows of W; by default as many as come in.
        init: name, "name(numbers)" or `Init`; by default the chain's.
        gain: factor on the standard deviation of the weights, beside the chain's.
        bias_std: standard deviation of normal biases; by default the chain's.

    Raises:
        ValueError, TypeError: units that are no positive int, an unknown init, a gain or bias_std that is not a finite
            number.

    Examples:
        >>> Linear(3072, init="normal(0.02)").units
        3072
    """

    units: int | None = None
    init: Any = None
    gain: float = 1.0
    bias_std: float | None = None

    def __post_init__(self) -> None:
        if self.units is not None:
            set_fields(self, units=checks.integer("linear units", self.units, 1, MAX_WIDTH))
        self._check_draw("linear")

    def lower(self, pattern: Writer, cur: int, held: bool, busy: tuple[int, ...]) -> int:
        """One layer."""
        units = self.units or pattern.width
        return pattern.linear(cur, held, units, *pattern.words(self), pattern.fixup, busy)

    def __str__(self) -> str:
        return "linear" if self.units is None else f"linear {self.units}"


@dataclass(frozen=True, repr=False)
class Norm(Step):
    """A normalisation, differentiated through its statistics; then, if given, weight * x + bias unit by unit.

    Args:
        kind: "batch" (per unit over all inputs and positions), "layer" or "rms" (per input and position over the
            units).
        eps: what is added to the variance before the root divides; by default the chain's norm_eps.
        weight, bias: scale and shift of what comes out, as trained norms have them: a number for all units, a sequence
            of one a unit, or an array (repetitions, units) of one row a repetition of the pattern; None: 1 and 0.

    Raises:
        ValueError, TypeError: an unknown kind, an eps outside 1e-30 to 1e30, a weight or bias that is no number and no
            array of finite numbers in one or two dimensions.

    Notes:
        The activation function behind a norm with a weight or a bias acts on weight * x + bias.

    Examples:
        >>> Norm("rms", eps=1e-6).kind
        'rms'
        >>> print(Norm("layer", weight=0.0), "or", Norm("layer", weight=[1.0, 0.9], bias=[0.0, 0.1]))
        layer norm (weight 0) or layer norm (own weight, own bias)
    """

    kind: str
    eps: float | None = None
    weight: Any = None
    bias: Any = None

    def __post_init__(self) -> None:
        checks.choice("norm kind", self.kind, NORMS[1:])
        if self.eps is not None:
            set_fields(self, eps=checks.within("norm eps", self.eps, 1e-30, 1e30))
        for key in ("weight", "bias"):
            set_fields(self, **{key: checks.number_or_array(f"norm {key}", getattr(self, key), none=True)})

    def lower(self, pattern: Writer, cur: int, held: bool, busy: tuple[int, ...]) -> int:
        """A norm that no activation function takes along, and what is done to what comes out."""
        number = pattern.number("norms", self.norm_row(pattern.chain))
        cur = pattern.elementwise("norm", cur, held, busy, self.kind == "batch", norm_steps=number)
        return pattern.affine(self, cur, held, busy) if self.is_affine else cur

    def norm_row(self, chain: Words) -> NormRow:
        """The norm in a chain's program."""
        return NormRow(self.kind, chain.norm_eps if self.eps is None else self.eps)

    @property
    def is_affine(self) -> bool:
        """Whether something is done to what comes out."""
        return self.weight is not None or self.bias is not None

    def rows(self, units: int, repetitions: int) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
        """(weight, bias), tuples of `units` floats, one pair for all repetitions or one for each.

        Raises:
            ValueError: a weight or bias for another number of units or repetitions.
        """
        each = [
            checks.spread(f"norm {key}", default if value is None else value, units, repetitions)
            for key, value, default in (("weight", self.weight, 1.0), ("bias", self.bias, 0.0))
        ]
        count = max(map(len, each))
        return list(zip(*(rows * count if len(rows) == 1 else rows for rows in each), strict=True))

    def __str__(self) -> str:
        each = [(key, getattr(self, key)) for key in ("weight", "bias") if getattr(self, key) is not None]
        said = [f"own {key}" if isinstance(value, tuple) else f"{key} {value:g}" for key, value in each]
        return f"{self.kind} norm" + (f" ({', '.join(said)})" if said else "")


@dataclass(frozen=True, repr=False)
class Gated(Weighted):
    """Two layers on one input, multiplied entry by entry: z = phi(G u) * (V u).

    Args:
        units: rows of G and of V; by default as many as come in.
        activation: phi, as for a chain ("silu": SwiGLU, "gelu": GEGLU, "relu": ReGLU, "sigmoid": GLU).
        init, gain, bias_std: of both, as for `Linear`.

    Raises:
        ValueError, TypeError: as for `Linear`; an unknown activation.

    Notes:
        Dauphin et al. 2017 (arXiv 1612.08083); Shazeer 2020 (2002.05202).

    Examples:
        >>> str(Gated(2048))
        'silu gate 2048'
    """

    brackets = 2
    units: int | None = None
    activation: Any = "silu"
    init: Any = None
    gain: float = 1.0
    bias_std: float | None = None

    def __post_init__(self) -> None:
        if self.units is not None:
            set_fields(self, units=checks.integer("gated units", self.units, 1, MAX_WIDTH))
        set_fields(self, activation=activations.get(self.activation))
        self._check_draw("gated")

    def roles(self) -> Roles:
        """Two layers and an activation step."""
        return Roles(("gate", "value"), (self.activation.name,))

    def lower(self, pattern: Writer, cur: int, held: bool, busy: tuple[int, ...]) -> int:
        """Two layers on one input, and their gate."""
        words, width = pattern.words(self), pattern.width
        units = self.units or width
        gate = pattern.linear(cur, True, units, *words, 1.0, (*busy, cur))
        pattern.width = width
        value = pattern.linear(cur, True, units, *words, pattern.fixup, (*busy, cur, gate))
        row = pattern.number("activations", self.activation)
        return pattern.emit("gate", (gate, value), held, (*busy, gate, value), row=row, norm=0)

    def __str__(self) -> str:
        return f"{self.activation} gate" + ("" if self.units is None else f" {self.units}")


@dataclass(frozen=True, repr=False)
class Attention(Weighted):
    """Every position looks at the others of its input: softmax attention, with four layers query, key, value and
    output.

    Args:
        heads: H, heads of n / H units each, n the units that come in.
        kv_heads: heads of key and value, each shared by heads / kv_heads query heads in turn; by default as many as
            `heads`.
        causal: whether a position sees itself and earlier ones only.
        scale: factor on the scores; by default 1 / sqrt(n / H); 0 makes attention uniform.
        init: of query, key and value, by default the chain's.  output: of the output layer, by default as `init`.
        gain, bias_std: of all four, as for `Linear`.

    Raises:
        ValueError, TypeError: heads that are no positive int, kv_heads that do not divide them, an unknown init,
            numbers that are not finite.

    Notes:
        Q, K, V = W_q u, W_k u, W_v u; for each input and head A = softmax over the keys of scale K^T Q; o = V A; out =
        W_o o (Vaswani et al. 2017, arXiv 1706.03762). No dropout on A.

    Examples:
        >>> str(Attention(12, causal=True))
        'causal attention of 12 heads'
    """

    heads: int
    kv_heads: int | None = None
    causal: bool = False
    scale: float | None = None
    init: Any = None
    output: Any = None
    gain: float = 1.0
    bias_std: float | None = None

    def __post_init__(self) -> None:
        set_fields(self, heads=checks.integer("attention heads", self.heads, 1, MAX_WIDTH))
        if self.kv_heads is not None:
            set_fields(self, kv_heads=checks.integer("attention kv_heads", self.kv_heads, 1, self.heads))
            if self.heads % self.kv_heads:
                raise ValueError(f"attention kv_heads must divide heads, got {self.kv_heads} and {self.heads}")
        if not isinstance(self.causal, bool):
            raise TypeError(f"attention causal must be True or False, got {self.causal!r}")
        if self.scale is not None:
            set_fields(self, scale=checks.finite("attention scale", self.scale))
        set_fields(self, output=None if self.output is None else inits.get(self.output))
        self._check_draw("attention")

    def roles(self) -> Roles:
        """Four layers and an attention."""
        return Roles(("query", "key", "value", "output"), (), ("attention",))

    def lower(self, pattern: Writer, cur: int, held: bool, busy: tuple[int, ...]) -> int:
        """Three layers on one input, what the positions make of them, and a layer."""
        n, words = pattern.width, pattern.words(self)
        if n % self.heads:
            raise ValueError(
                f"attention heads must divide the units that come in, got {self.heads} heads for {n} units"
            )
        kv_heads = self.heads if self.kv_heads is None else self.kv_heads
        shared = n // self.heads * kv_heads
        registers: list[int] = []
        for units, centred in ((n, "no"), (shared, "positions"), (shared, "no")):
            pattern.width, over = n, CENTRED.index(centred)
            registers.append(pattern.linear(cur, True, units, *words, 1.0, (*busy, cur, *registers), centred=over))
        pattern.width = n
        scale = (n // self.heads) ** -0.5 if self.scale is None else self.scale
        numbers: dict[str, Any] = {"heads": self.heads, "kv_heads": kv_heads, "causal": self.causal, "mix_scale": scale}
        mixed = pattern.emit("mix", tuple(registers), held, (*busy, *registers), **numbers)
        output = (words[0] if self.output is None else self.output, *words[1:])
        return pattern.linear(mixed, held, n, *output, pattern.fixup, (*busy, mixed))

    def __str__(self) -> str:
        return f"{'causal ' if self.causal else ''}attention of {self.heads} head{'s' if self.heads > 1 else ''}"


@dataclass(frozen=True, repr=False)
class Dropout(Step):
    """Entries zeroed with probability p, the rest divided by 1 - p; backward sees the same mask.

    Args:
        p: the probability, from 0 to below 1.

    Raises:
        ValueError, TypeError: p is not such a number.

    Examples:
        >>> str(Dropout(0.1))
        'dropout 0.1'
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        set_fields(self, p=checks.within("dropout p", self.p, 0.0, 1.0))
        if self.p == 1:
            raise ValueError("dropout p must be below 1, got 1")

    def lower(self, pattern: Writer, cur: int, held: bool, busy: tuple[int, ...]) -> int:
        """A mask, where entries are zeroed at all."""
        return pattern.elementwise("mask", cur, held, busy, masks=self.p) if self.p else cur

    def __str__(self) -> str:
        return f"dropout {self.p:g}"


@dataclass(frozen=True, repr=False)
class Scale(Step):
    """A number that multiplies the signal, or one a unit (LayerScale).

    Args:
        s: a number, a sequence of one a unit, or an array (repetitions, units) of one row a repetition of the pattern.

    Raises:
        ValueError, TypeError: s is no finite number and no array of such in one or two dimensions.

    Notes:
        LayerScale: Touvron et al. 2021, arXiv 2103.17239.

    Examples:
        >>> str(Scale(0.5)), str(Scale([0.1, 0.2]))
        ('times 0.5', 'times own numbers')
    """

    s: Any = 1.0

    def __post_init__(self) -> None:
        set_fields(self, s=checks.number_or_array("scale s", self.s))

    def lower(self, pattern: Writer, cur: int, held: bool, busy: tuple[int, ...]) -> int:
        """A factor, or one a unit."""
        if isinstance(self.s, tuple):
            return pattern.affine(self, cur, held, busy)
        return pattern.elementwise("scale", cur, held, busy, factors=self.s)

    def rows(self, units: int, repetitions: int) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
        """As `Norm.rows`."""
        return [(weight, (0.0,) * units) for weight in checks.spread("scale s", self.s, units, repetitions)]

    def __str__(self) -> str:
        return "times own numbers" if isinstance(self.s, tuple) else f"times {self.s:g}"


@dataclass(frozen=True, init=False, repr=False)
class Block:
    """Steps one after another, with or without a skip: a[i] = after(skip a[i-1] + scale f(a[i-1])).

    Args:
        *steps: f: `Linear`, `Norm`, `Gated`, `Attention`, `Drive`, `Conv`, `Pool`, `Flatten`, `Dropout`, `Scale`, an
            activation's name or `Activation`.
        skip: factor on what passes by the steps, or "inverse_sqrt_depth" for (blocks of the chain that have a
            skip)^(-1/2), or steps of its own (a projection); None for no skip.
        scale: factor on f, or "inverse_sqrt_depth".
        after: a step or several that act on the sum; no layers among them.

    Raises:
        ValueError, TypeError: no steps, something that is no step, layers in `after`, "inverse_sqrt_depth" without a
            skip.

    Notes:
        Pre-norm: f begins with a norm, skip=1. Post-norm: `after` is a norm. DeepNorm: skip=(2 N)**.25 (Wang et al.
        2022, arXiv 2203.00555). ResNet v1: after="relu" (He et al. 2016).

    Examples:
        >>> print(Block(Norm("layer"), Linear(256), "gelu", Linear(64), skip=1.0))
        a + (layer norm, linear 256, gelu, linear 64)
    """

    steps: tuple
    skip: Any
    scale: float | str
    after: tuple

    def __init__(self, *steps: Any, skip: Any = None, scale: float | str = 1.0, after: Any = ()) -> None:
        if not steps:
            raise ValueError("a block needs at least one step")
        set_fields(self, steps=tuple(step_of(s) for s in steps), after=_steps("block after", after))
        for step in self.after:
            if isinstance(step, Weighted):
                raise ValueError(
                    f"block after must hold no layers, got {step}; they belong among the steps of the next block"
                )
        if skip is None or (isinstance(skip, str) and skip in BRANCH_SCALES):
            set_fields(self, skip=skip)
        elif isinstance(skip, str | Step | Activation | tuple | list):
            set_fields(self, skip=_steps("block skip", skip))
        else:
            set_fields(self, skip=checks.finite("block skip", skip))
        if isinstance(scale, str):
            checks.choice("block scale", scale, BRANCH_SCALES)
            if skip is None:
                raise ValueError(
                    f'scale="{scale}" counts the blocks that have a skip, and this block has none; '
                    "give skip or a number"
                )
            set_fields(self, scale=scale)
        else:
            set_fields(self, scale=checks.finite("block scale", scale))

    def __repr__(self) -> str:
        words = [word(s) for s in self.steps]
        if isinstance(self.skip, tuple):
            words.append(f"skip=[{', '.join(map(word, self.skip))}]")
        elif self.skip is not None:
            words.append(f"skip={self.skip!r}")
        words += [f"scale={self.scale!r}"] if self.scale != 1.0 else []
        if self.after:
            words.append(f"after=({', '.join(map(word, self.after))},)")
        return f"Block({', '.join(words)})"

    def __str__(self) -> str:
        inside = ", ".join(map(str, self.steps))
        out = inside if self.scale == 1.0 else f"{_factor(self.scale)} ({inside})"
        if self.skip is not None:
            projection = f"({', '.join(map(str, self.skip))})(a)" if isinstance(self.skip, tuple) else None
            a = projection or ("a" if self.skip == 1.0 else f"{_factor(self.skip)} a")
            out = f"{a} + {out}" if self.scale != 1.0 else f"{a} + ({inside})"
        return out + (f", then {', '.join(map(str, self.after))}" if self.after else "")


# The kinds of step, in the order in which they are named to people.
STEPS: tuple[Any, ...] = (Linear, Norm, Gated, Attention, Drive, Conv, Pool, Flatten, Dropout, Scale)


def roles(block: Block) -> Roles:
    """What the layers, activation steps and attentions of a block are called; numbered where it has several of one
    name.

    Examples:
        >>> roles(Block(Norm("layer"), Linear(256), "gelu", Linear(64), skip=1.0))
        Roles(layer=('linear1', 'linear2'), activation=('gelu',), mix=())
    """
    passing = block.skip if isinstance(block.skip, tuple) else ()
    names: tuple[list[str], ...] = ([], [], [])
    for prefix, steps in (("", block.steps), ("skip.", passing), ("after.", block.after)):
        for step in steps:
            own = Roles((), (step.name,)) if isinstance(step, Activation) else step.roles()
            for kind, added in zip(names, own, strict=True):
                kind += [prefix + name for name in added]
    return Roles(*map(_numbered, names))


def _numbered(names: list[str]) -> tuple[str, ...]:
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(f"{name}{seen[name]}" if names.count(name) > 1 else name)
    return tuple(out)


def step_of(step: Any) -> Step | Activation:
    """A step as it is kept: an activation's name becomes its `Activation`."""
    if isinstance(step, Step | Activation):
        return step
    if isinstance(step, str):
        return activations.get(step)
    raise TypeError(
        f"a step must be a {', '.join(kind.__name__ for kind in STEPS)} or an activation (a name or an Activation), "
        f"got {said(step)}"
    )


def said(given: Any) -> str:
    """What stands where blocks or steps belong, and how it gets there: a chain by its blocks, a step in a list."""
    if hasattr(given, "blocks"):
        return "a Chain: give its blocks, chain.blocks (and chain.first, chain.last)"
    return f"{given!r}; wrap it in a list" if isinstance(given, Block | Step | Activation) else repr(given)


def blocks_of(name: str, given: Any) -> tuple[Block, ...]:
    """A pattern's blocks, of a list of Blocks and bare steps."""
    if isinstance(given, dict | set) or not checks.iterable(given):  # a set has no order
        raise TypeError(f"{name} must be a sequence of Blocks and steps, got {said(given)}")
    return tuple(block_of(part) for part in given)


def block_of(part: Any) -> Block:
    """A block of a pattern: a bare step is a block of one step without skip."""
    return part if isinstance(part, Block) else Block(part)


def is_spatial(step: Any) -> bool:
    """Whether a step looks at positions as a field: it needs their number along each axis."""
    return isinstance(step, Step) and step.is_spatial


def _steps(name: str, given: Any) -> tuple[Step | Activation, ...]:
    given = given if isinstance(given, tuple | list) else (given,)
    if name == "block skip" and not given:
        raise ValueError("block skip must be a number or hold at least one step, got none")
    return tuple(step_of(s) for s in given)


def _factor(factor: float | str) -> str:
    return factor.replace("_", " ") if isinstance(factor, str) else f"{factor:g}"
