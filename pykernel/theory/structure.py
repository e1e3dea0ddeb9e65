# SPDX-License-Identifier: BSD-3-Clause
"""What is known of a program's registers whatever its numbers are, and so whether infinite-width theory can follow it
at all."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from pykernel.ops import TABLES
from pykernel.program import Op, Program, Stretch, distinct

# phi(-z) = -phi(z): its outputs have no mean, and so sums over skip connections have none that a finite net would
# amplify.
ODD = ("linear", "tanh", "hardtanh", "softsign", "erf", "arctan", "sin")


# Half-width up to which uniform biases inside a sine count as normal ones of their variance, where they are summed or
# gated (else `uniform` knows them): E sin^2 is off by 0.09 of its fourth power.
NARROW = 0.5


WAYS = ("", "density", "population", "every column")


class NoTheory(ValueError):
    """No infinite-width theory is known for a program; the message says why."""


@dataclass(frozen=True)
class Law:
    """Of the entries of one register, at infinite width.

    Attributes:
        gaussian: whether a unit's entries (over the columns) are jointly normal with mean zero.
        made: the step that made them otherwise, in words.
        followed: whether their distribution can be followed (`density`) although they are not normal: functions of
            normal entries, and sums of such with a layer's output.
        alike: whether all units have one law, so that a population of them can stand for it (`population`).
        sources: numbers of what they come from unit by unit: registers without a common one are independent given their
            means.
        mean: the activation function that gave them a mean, "" where they have none.
        spread: half-width of the uniform biases among them, 0 without.  summed: whether a sum added them to something.
        uneven: whether positions of one input have mean squares of their own, behind causal attention.
    """

    gaussian: bool = True
    made: str = ""
    sources: frozenset = frozenset()
    mean: str = ""
    spread: float = 0.0
    summed: bool = False
    followed: bool = False
    alike: bool = True
    uneven: bool = False


@dataclass
class Structure:
    """A walk over the laws of registers.

    Attributes:
        program: what is walked.
        laws: register -> Law.
        functions: registers that hold a function of normal entries, entry by entry.  pooled: those that hold the
            largest of normal entries.
        means: activation functions whose outputs a skip adds up although they have a mean.
        follows: how the distribution of entries that are not normal is followed, where functions act on such:
            "density", "population" where columns are tied together, or other steps made them, "every column" where
            batch norm acts on them; "" where none does.
    """

    program: Program
    laws: dict[int, Law] = field(default_factory=dict)
    functions: frozenset = frozenset()
    pooled: frozenset = frozenset()
    means: list[str] = field(default_factory=list)
    follows: str = ""
    _fresh: Any = field(default_factory=count)

    def fresh(self) -> frozenset:
        """A source that nothing else comes from."""
        return frozenset([next(self._fresh)])

    def rows(self, stretch: Stretch, op: Op) -> list[Any]:
        """The activation functions of an op, over all repetitions."""
        first, each = place(stretch, op)
        chosen = distinct(self.program.steps.row[first : first + each * stretch.count : each])
        return [self.program.activations[i] for i in chosen]

    def norms(self, stretch: Stretch, op: Op, table: str = "step") -> set[str | None]:
        """The norms of an op, over all repetitions."""
        first, each = place(stretch, op)
        numbers = self.program.steps.norm if table == "step" else self.program.norm_steps
        return {self.program.norms[i].kind for i in distinct(numbers[first : first + each * stretch.count : each])}

    def step(self, stretch: Stretch, op: Op, law: Any) -> None:
        """Walk one op: `law` is that of its kind."""
        normal, read, written = self.laws[op.ins[0]].gaussian if op.ins else False, {*op.ins[:1]}, {op.out}
        passed = op.kind == "node"
        functions = (op.kind == "phi" and normal) or (passed and bool(read & self.functions))
        pooled = (op.kind == "pool" and normal) or (passed and bool(read & self.pooled))
        self.laws[op.out] = law(self, stretch, op)
        self.functions = self.functions | written if functions else self.functions - written
        self.pooled = self.pooled | written if pooled else self.pooled - written

    def require_gaussian(self, register: int, what: str) -> None:
        """Refuse what acts on entries that are not normal."""
        law = self.laws[register]
        if not law.gaussian:
            where = f"{'a sum with ' if law.summed else ''}the output of {law.made}"
            apart = law.made == "batch norm" and not law.summed  # a function in another Block than its norm
            raise NoTheory(
                f"mean field follows {what} behind weights only; here it acts on {where}, whose entries are not "
                f"normal; {'put both into one Block, or ' if apart else ''}use propagate"
            )

    def follow(self, register: int, what: str, batch: bool = False) -> None:
        """Note that a function, or batch norm, acts on entries that are not normal, or refuse it."""
        law, program = self.laws[register], self.program
        if not law.alike or "sin" in what.split(", "):
            self.require_gaussian(register, what)
        if positions_apart(program) > 1:
            raise NoTheory(
                f"mean field follows {what} behind a sum where all columns are alike, and attention or a head tells "
                "the positions of one input from other inputs; use propagate"
            )
        norms = [norm.kind for norm in program.norms_used]
        pools = any(step.kind == "pool" for stretch in program.stretches for step in stretch.ops)
        tied = program.columns > 1 and (program.head.loss is not None or "batch" in norms or pools)
        way = "every column" if batch else "density" if law.followed and not tied else "population"
        self.follows = max(self.follows, way, key=WAYS.index)

    def require_narrow(self, register: int, what: str) -> None:
        """Refuse biases whose distribution a sine tells from a normal one."""
        if self.laws[register].spread > NARROW:
            raise NoTheory(
                f"mean field takes biases in {what} as normal, and a sine tells uniform ones as wide as "
                f"{self.laws[register].spread:.3g} from them; use propagate"
            )

    def same(self, register: int, **changes: Any) -> Law:
        """The law of a register with changes."""
        return replace(self.laws[register], **changes)


def positions_apart(program: Program) -> int:
    """Positions of one input where attention, or a head over one of them or their mean, tells them from inputs; else
    1."""
    told = program.counts.mix or (program.head.loss is not None and program.read_columns < program.columns_out)
    return program.columns // program.batch if told else 1


def place(stretch: Stretch, op: Op, offset: int = 0) -> tuple[int, int]:
    """Number of an op in the first repetition of its stretch, and the step to the next."""
    table = TABLES[op.kind]
    return getattr(stretch.first, table) + op.at + offset, max(getattr(stretch.each, table), 1)
