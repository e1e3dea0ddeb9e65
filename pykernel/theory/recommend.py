# SPDX-License-Identifier: BSD-3-Clause
"""What to change so that a chain keeps its gradient: candidates predicted by theory, then measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pykernel import checks
from pykernel.chain import FIELDS, Chain
from pykernel.engines import run
from pykernel.formats import Formats, formats_or_none
from pykernel.tables import Shown, Strong, Table
from pykernel.theory.block_proposals import BLOCK_PROPOSALS
from pykernel.theory.diagnosis import governing
from pykernel.theory.loss_scale import FormatAdvice, advise
from pykernel.theory.proposals import PART, PROPOSALS, Situation, predicted_decades
from pykernel.theory.reasons import TOGETHER
from pykernel.theory.trainability import Trainability, trainability
from pykernel.verdict import EXPLODING, classify

if TYPE_CHECKING:  # they take long to import
    from pandas import DataFrame

UNSURE = 0.2  # share of draws beyond the bounds from which a healthy median may be luck
NUMBERS = ("theory", "measured", "spread", "bad")  # what a table says of a candidate, see `Recommendation`
FORWARD_BOUND = 4.0  # decades of mean square: a factor 100 in amplitude


@dataclass(frozen=True)
class Candidate(Shown):
    """One change, predicted and measured.

    Attributes:
        change: in words.  chain: the changed chain.  effort: 0 none, 1 a number, 2 another init, 3 a new part, 4
            another function or shape.
        cost: what it costs.  source: the paper it comes from, or "".
        predicted: decades that theory gives for the measured ratio, at this width where a law is known (nan without).
        measured: median over replicas of the ratio that the verdict is taken from, in decades.  spread: its standard
            deviation over replicas.
        outside: share of replicas beyond the bounds.  forward: change of log10 mean square from a[1] to a[L].
        similarity: of positions, the median of the mean cosine at the last node; nan for inputs without positions.
        verdict: measured.  healthy: verdict "stable".
    """

    change: str
    chain: Chain
    effort: int
    cost: str
    source: str = ""
    predicted: float = math.nan
    measured: float = math.nan
    spread: float = math.nan
    outside: float = math.nan
    forward: float = math.nan
    similarity: float = math.nan
    verdict: str = ""

    @property
    def healthy(self) -> bool:
        return self.verdict == "stable"

    def numbers(self) -> tuple[str, ...]:
        """In words what tables say of it, see NUMBERS."""
        return _number(self.predicted), _number(self.measured), f"{self.spread:.2f}", f"{self.outside:.0%}"

    def shown(self) -> Iterator[Strong | str]:
        """The change, its chain, what was measured and what it costs."""
        yield Strong(self.change)
        yield f"  {self.chain}"
        yield f"  {self.verdict}: " + ", ".join(f"{n} {w}" for n, w in zip(NUMBERS, self.numbers(), strict=True))
        yield f"  preserves {self.preserves}; {self.cost}" + (f"; {self.source}" if self.source else "")

    @property
    def preserves(self) -> str:
        """ "both", "backward", "forward" or "neither"."""
        ahead = abs(self.forward) <= FORWARD_BOUND
        return {(True, True): "both", (True, False): "backward", (False, True): "forward", (False, False): "neither"}[
            self.healthy, ahead
        ]


@dataclass(frozen=True, repr=False)
class Recommendation(Shown):
    """Candidates for a chain, the best first; index, iterate or print it.

    Attributes:
        original: the chain as it is, measured.
        candidates: list of `Candidate`.
        replicas, batch: of each measurement.
        bound: decades over the whole chain that count as healthy.
        left_out: of a chain of blocks what was not proposed, and why, a phrase each; "..., by theory": what theory
            predicts to lie far beyond the bound, which is not measured.
        formats: `FormatAdvice` where formats were given, else None.
        trainability: `Trainability` of the best, what its tangent kernel says, or None where it is not measured.
    """

    original: Candidate
    candidates: list = field(default_factory=list)
    replicas: int = 0
    batch: int = 1
    bound: float = EXPLODING
    left_out: tuple[str, ...] = ()
    formats: FormatAdvice | None = None
    trainability: Trainability | None = None

    @property
    def best(self) -> Candidate | None:
        """The first healthy candidate (the chain itself if it is healthy), or None."""
        return next((c for c in [self.original, *self.candidates] if c.healthy), None)

    def __repr__(self) -> str:
        return f"<Recommendation for {self.original.chain}: {len(self.candidates)} candidates>"

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.candidates)

    def __len__(self) -> int:
        return len(self.candidates)

    def __getitem__(self, i: int) -> Candidate:
        return self.candidates[i]

    def shown(self) -> Iterator[Strong | Table | str]:
        """The chain as it is, a line a candidate, and the best."""
        o = self.original
        yield Strong(f"{o.chain}: measured {o.verdict}, {o.measured:+.3g} decades end to end{self._theory()}")
        yield ""
        if self.candidates:
            titles = ("change", *NUMBERS, "preserves")
            lines = [(c.change, *c.numbers(), c.preserves) for c in self.candidates]
            notes = [c.cost + (f"; {c.source}" if c.source else "") for c in self.candidates]
            yield Table(titles, lines, left=("change", "preserves"), notes=notes, wrapped={"change": 36}, gap=" ")
            yield ""
        yield Strong(self.summary)
        if self.slowly:
            yield self.slowly
        if self.left_out:
            yield f"not proposed: {'; '.join(self.left_out)}"
        if self.formats is not None:
            yield f"of the chain as it is, not of a change: {self.formats}"
        yield (
            f"decades of the gradient from output to input, {self.replicas} replicas, batch {self.batch}; "
            f"bad: share of replicas beyond {self.bound:g} decades; preserves: the gradient within these bounds "
            f"(backward), the signal's mean square within {FORWARD_BOUND:g} decades (forward), or both. Order: healthy "
            f"medians first, at most {UNSURE:.0%} bad draws before more, then the smaller change (a number, an init, a "
            "part, another function or shape), then what preserves both; the best is the first healthy one"
        )

    def to_dataframe(self) -> DataFrame:
        """A pandas.DataFrame, a line each: the chain as it is, then its candidates, with what `Candidate` says of
        them."""
        import pandas

        names = [f.name for f in fields(Candidate)]
        everyone = [self.original, *self.candidates]
        frame = pandas.DataFrame([[getattr(c, name) for name in names] for c in everyone], columns=names)
        return frame.assign(healthy=[c.healthy for c in everyone], preserves=[c.preserves for c in everyone])

    def _theory(self) -> str:
        """What theory says of the original, with its verdict where that is not the measured one."""
        decades = self.original.predicted
        if math.isnan(decades):
            return ""
        verdict = classify([math.nan], [decades], vanishing=-self.bound, exploding=self.bound)
        return f" (theory {_number(decades)}" + ("" if verdict == self.original.verdict else f", {verdict}") + ")"

    def _apart(self) -> str:
        """Positions that have fallen together, and what keeps them further apart; "" where they have not."""
        alike = self.original.similarity
        if not alike > TOGETHER:
            return ""
        text = f"its gradient asks for no change, but positions fall together (mean cosine {alike:.4g} at the end)"
        others = [c for c in self.candidates if c.healthy and c.effort <= PART and c.similarity < TOGETHER]
        return text + (f"; apart with {others[0].change} ({others[0].similarity:.3g})" if others else "")

    @property
    def slowly(self) -> str:
        """That the best trains slowly for all its healthy gradient, in one sentence; "" where it does not."""
        if self.trainability is None or not self.trainability.slow:
            return ""
        return ("" if self.original.healthy else "of the best: ") + str(self.trainability)

    @property
    def summary(self) -> str:
        """One sentence."""
        if self.original.healthy:
            text = f"the chain is healthy as it is, measured{self._theory()}"
            if self.original.outside <= UNSURE:
                return f"{text}: " + (self._apart() or "nothing has to change")
            surer = next((c for c in self.candidates if c.healthy and c.outside <= UNSURE), None)
            text += f", but only in the median: {self.original.outside:.0%} of the draws end beyond the bounds"
            return text + (f"; surer: {surer.change}" if surer else "")
        best = self.best
        if best is None:
            return (
                "none of the candidates in this list keeps the gradient within bounds: a shallower or wider chain "
                "is needed"
            )
        unsure = ", and another seed's median may, too" if best.outside > 2 * UNSURE else ""
        tail = f"; still {best.outside:.0%} of the draws end beyond the bounds{unsure}" if best.outside > 0.05 else ""
        return f"best: {best.change}{tail}"


def _number(x: float) -> str:
    return f"{x if abs(x) > 1e-9 else 0.0:+.3g}" if math.isfinite(x) else "-" if math.isnan(x) else f"{x:+}"


def recommend(
    chain: Chain,
    target: float | None = None,
    *,
    batch: int | None = None,
    positions: int | tuple[int, ...] = (),
    replicas: int = 24,
    seed: int = 0,
    formats: Formats | None = None,
) -> Recommendation:
    """The smallest changes that keep this chain's gradient within bounds over its depth, each predicted and measured.

    Args:
        chain: what is wrong, or might be.
        target: bound in decades, either way, on the gradient's change end to end; 3 by default.
        batch: inputs of each measurement; by default 16 with batch norm, else 1.
        positions: of one input, as for `propagate`.
        replicas: of each measurement (fewer for chains that take long).
        seed: of the measurements.
        formats: `Formats` that the chain shall run in: then its `formats` says which loss scale fits the chain as it
            is, or that none does, and over how many blocks it is safe.

    Returns:
        Recommendation: candidates, healthy ones first, smaller changes before larger ones (a number, another init, a
            new part, another function or shape), then those that keep the signal as well as the gradient, then by how
            many words change and by the share of bad draws. Where none is healthy it says so.

    Raises:
        ValueError, TypeError: target or replicas are not positive.

    Examples:
        >>> r = recommend(Chain(depth=30, width=32, activation="tanh", init="lecun_normal", gain=0.5), replicas=8)
        >>> r.best.healthy
        True
    """
    if not isinstance(chain, Chain):
        raise TypeError(f"chain must be a pykernel.Chain, got {type(chain).__name__}")
    bound = EXPLODING if target is None else checks.positive("target", target)
    replicas = checks.integer("replicas", replicas, 1, 10**6)
    batch = (16 if chain.has_batch_norm else 1) if batch is None else checks.integer("batch", batch, 1, 4096)
    formats = formats_or_none(formats)
    bench = _Bench(batch, positions, replicas, seed, bound)
    original = bench.measure(Candidate("as it is", chain, 0, "nothing"))
    proposals = []
    known = {_law(chain, positions)}
    for candidate in proposals_for(chain, batch, positions):
        law = _law(candidate.chain, positions)
        if law not in known:
            known.add(law)
            proposals.append(bench.predict(candidate))
    promising = [c for c in proposals if not abs(c.predicted) > 1.5 * bound]
    left_out = reasons_against(chain, batch, positions)
    if chain.blocks is not None:
        left_out += [f"{c.change}: {_number(c.predicted)} decades by theory" for c in proposals if c not in promising]
    measured = [bench.measure(c) for c in promising]
    order = sorted(
        measured,
        key=lambda c: (
            not c.healthy,
            c.outside > UNSURE,
            c.effort,
            c.preserves != "both",
            _changes(chain, c.chain),
            round(c.outside, 1),
        ),
    )
    advice = None if formats is None else advise(chain, formats, batch, positions)
    found = Recommendation(original, order, replicas, batch, bound, tuple(left_out), advice)
    best = found.best
    return found if best is None else replace(found, trainability=trainability(best.chain, positions, seed))


def _changes(before: Chain, after: Chain) -> int:
    """How many words of a chain another one changes."""
    return sum(getattr(before, word) != getattr(after, word) for word in FIELDS)


def _law(chain: Chain, positions: Any) -> tuple:
    """What makes two chains the same in law: two schemes may differ in name only."""
    program = run.lowered(chain, positions=positions)
    layers, steps, joins = program.layers, program.steps, program.joins
    arrays = (
        program.nodes,
        layers.units,
        layers.draw,
        layers.bias_draw,
        steps.row,
        steps.norm,
        program.norm_steps,
        program.affine_steps,
        program.masks,
    )
    numbers = (layers.scale, layers.bias_scale, joins.skip, joins.branch, program.factors)
    tables = (program.stretches, program.draws, program.activations, program.norms)
    affines = [part for row in program.affines for part in row]
    return (
        *tables,
        *(a.tobytes() for a in affines),
        *(a.tobytes() for a in arrays),
        *(part.tobytes() for a in numbers for part in _to_digits(a)),
    )


def _to_digits(a: Any) -> tuple[Any, Any]:
    """Numbers of any magnitude to twelve digits, so that schemes of one law agree: mantissas and exponents."""
    mantissa, exponent = np.frexp(a)
    return np.round(mantissa, 12), exponent


class _Bench:
    """Predicts and measures candidates under the same conditions."""

    def __init__(self, batch: int, positions: Any, replicas: int, seed: int, bound: float) -> None:
        self.batch, self.positions, self.replicas, self.seed, self.bound = batch, positions, replicas, seed, bound

    def predict(self, candidate: Candidate) -> Candidate:
        decades = predicted_decades(candidate.chain, self.batch, positions=self.positions)
        return _with(candidate, predicted=decades)

    def measure(self, candidate: Candidate) -> Candidate:
        chain, replicas = candidate.chain, self.replicas
        program = run.lowered(chain, positions=self.positions)
        if not {draw.distribution for draw in program.draws} <= {"normal", "haar"}:
            # every entry is drawn: about 2 ns each, a few seconds at most
            entries = float((program.layers.units * program.layers.columns.astype(float)).sum())
            replicas = max(min(replicas, int(2e9 / entries)), min(replicas, 4))
        p = run.measure(chain, batch=self.batch, positions=self.positions, replicas=replicas, seed=self.seed)
        measure = governing(p.end_to_end, p.signal_end_to_end)
        values = np.asarray(getattr(p, measure))
        finite = values[np.isfinite(values)]
        ahead = p.log10_mean_square_activation
        with np.errstate(invalid="ignore"):
            outside = float(np.mean(~(np.abs(values) <= self.bound)))
            forward = float(np.median(ahead[:, -1] - ahead[:, 0]))
        return _with(
            candidate,
            predicted=predicted_decades(chain, self.batch, measure, self.positions),
            measured=float(np.median(values)),
            spread=float(finite.std(ddof=1)) if len(finite) > 1 else math.nan,
            outside=outside,
            forward=forward,
            similarity=float(np.median(p.similarity[:, -1])) if math.prod(p.positions) > 1 else math.nan,
            verdict=p.judge(-self.bound, self.bound),
        )


def _with(candidate: Candidate, **changes: Any) -> Candidate:
    return replace(candidate, **changes)


def proposals_for(chain: Chain, batch: int = 1, positions: Any = ()) -> list[Candidate]:
    """Changes worth trying, unmeasured."""
    found = _answers(chain, batch, positions)
    return [
        Candidate(answer[0], answer[1], proposal.effort, proposal.cost, proposal.source)
        for proposal, answer in found
        if isinstance(answer, tuple)
    ]


def reasons_against(chain: Chain, batch: int = 1, positions: Any = ()) -> list[str]:
    """Why changes that one may expect are not among them."""
    return [answer for _, answer in _answers(chain, batch, positions) if isinstance(answer, str)]


def _answers(chain: Chain, batch: int, positions: Any) -> list:
    situation = Situation(chain, batch, positions)
    table = PROPOSALS if chain.blocks is None else BLOCK_PROPOSALS
    return [(proposal, proposal.change(situation)) for proposal in table]
