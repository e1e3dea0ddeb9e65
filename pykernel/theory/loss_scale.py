# SPDX-License-Identifier: BSD-3-Clause
"""Which loss scale fits a chain's gradients into their format, and how deep the chain may be before a format costs too
much: by infinite-width theory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pykernel.chain import Chain
from pykernel.formats import MOST_SCALE, Formats
from pykernel.tables import Shown, Strong, Table
from pykernel.theory.columns import columns
from pykernel.theory.predict import Prediction, predict
from pykernel.theory.rounding import half_unit

FLUSHED = 0.01  # share of a node's numbers that may be lost
NEAREST = 0.01 * math.sqrt(math.pi / 2)  # |Z| below which that share of Gaussian numbers lies
MOST = int(math.log2(MOST_SCALE))  # of a loss scale, and its inverse
FARTHEST = 5.0  # deviations beyond which one Gaussian number in two million lies
TURNED = 0.9  # cosine below which a gradient counts as another one
LOST = {
    "flushed_signal": "of the signal flushes",
    "flushed_gradient": "of the gradient flushes",
    "overflowed_signal": "of the signal overflows",
    "overflowed_gradient": "of the gradient overflows",
}


@dataclass(frozen=True)
class FormatAdvice(Shown):
    """What theory says of a chain in low precision.

    Attributes:
        formats: as asked, with the loss scale that fits in place of the one asked for; unchanged where none does.
        loss_scale: a power of two with which at most 1 percent of the gradient flushes at every node, and one number in
            two million overflows, in the middle of those; None where no scale does both, 1 where gradients are not
            rounded.
        fitting: the smallest and the largest such power of two, within 2^-100 to 2^100; None where there is none to
            choose.
        depth: nodes of the chain.
        safe: nodes, counted from the output, over which the gradient keeps a cosine of .9 with what it is without
            formats and signals and gradients lose at most 1 percent; `depth` where all is safe, None where
            theory does not say how far the gradient turns (`gradient_cosine` of the prediction is nan).
        prediction: with these formats.
    """

    formats: Formats
    loss_scale: float | None
    fitting: tuple[float, float] | None
    depth: int
    safe: int | None
    prediction: Prediction

    def shown(self) -> list[str | Table]:
        """One sentence."""
        return [Strong(self._sentence())]

    def _sentence(self) -> str:
        gradients = self.formats.gradients
        if self.formats.row("gradients") is None:
            scale = "gradients are not rounded: any loss scale does"
        elif self.loss_scale is None:
            scale = f"no loss scale fits: the gradient's sizes are farther apart than {gradients} reaches"
        else:
            assert self.fitting is not None
            least, most = (f"2^{math.log2(end):.0f}" for end in self.fitting)
            scale = f"loss scales from {least} to {most} keep the gradient within {gradients}"
        if self.safe is None:
            return (
                f"{self.formats}: {scale}; how far the gradient turns, and so what is safe, theory does not say of "
                "this chain: `gradient_cosine` of a run measures it"
            )
        if self.safe == self.depth:
            return f"{self.formats}: {scale}; safe over the whole depth"
        return (
            f"{self.formats}: {scale}; safe for {self.safe} of {self.depth} blocks from the output: before them "
            f"{self._harm(self.depth - 1 - self.safe)}"
        )

    def _harm(self, node: int) -> str:
        """What is not safe at a node, counted from 0."""
        told = self.prediction
        harms = [
            f"{100 * getattr(told, name)[node]:.2g}% {what}"
            for name, what in LOST.items()
            if getattr(told, name)[node] > FLUSHED
        ]
        if told.gradient_cosine[node] < TURNED:
            harms.insert(0, f"the gradient's cosine with what it is without formats falls below {TURNED:g}")
        return " and ".join(harms)


def advise(chain: Chain, formats: Formats, batch: int = 1, positions: int | Sequence[int] = ()) -> FormatAdvice:
    """The advice for a chain.

    Raises:
        ValueError: theory does not know the chain; the message says why.

    Examples:
        >>> from pykernel import Chain, Formats
        >>> chain = Chain(depth=100, width=512)
        >>> print(advise(chain, Formats(gradients="float16")))
        gradients float16, loss scale 4: loss scales from 2^-14 to 2^18 keep the
        gradient within float16; safe over the whole depth
    """
    plain = predict(chain, batch, positions=positions, formats=replace(formats, loss_scale=1.0))
    program, row = plain.program, formats.row("gradients")
    scale: float | None = 1.0
    fitting = None
    if row is not None:
        units = program.nodes[1:].astype(float) * columns(program).nodes[1:]
        sizes = (0.5 * (plain.gradient.activation[1:] - np.log(units))) / math.log(2)
        least = math.ceil(math.log2(row.smallest_subnormal / 2 / NEAREST) - float(sizes.min()))
        most = math.floor(math.log2((row.largest - half_unit(row)) / FARTHEST) - float(sizes.max()))
        least, most = max(least, -MOST), min(most, MOST)
        fitting = (2.0**least, 2.0**most) if least <= most else None
        scale = 2.0 ** ((least + most) // 2) if fitting else None
        formats = formats if scale is None else replace(formats, loss_scale=scale)
    told = predict(chain, batch, positions=positions, formats=formats)
    shares = [getattr(told, name) for name in LOST]
    bad = (np.max(shares, axis=0) > FLUSHED) | (told.gradient_cosine < TURNED)
    depth = len(bad)
    safe: int | None = depth if not bad.any() else depth - 1 - int(np.flatnonzero(bad)[-1])
    safe = None if np.isnan(told.gradient_cosine).any() else safe
    return FormatAdvice(formats, scale, fitting, depth, safe, told)
