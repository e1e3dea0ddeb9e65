# SPDX-License-Identifier: BSD-3-Clause
"""The one room for tables: what a result shows of itself, lines and tables, in print and in a notebook."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pykernel import checks, observables

WIDTH = 80  # of a printed line


class Strong(str):
    """A line that stands out in a notebook."""

    __slots__ = ()


@dataclass(frozen=True)
class Table:
    """Texts in columns.

    Attributes:
        titles: of the columns, on as many lines as they say.
        lines: texts, one a column each.
        left: titles of the columns that are aligned left, as words are; numbers are aligned right.
        notes: what stands below each line in print and behind it in a notebook; none where it is empty.
        gap: between columns in print.
        wrapped: the width in print of columns whose texts go on below.
    """

    titles: Sequence[str]
    lines: Sequence[Sequence[str]]
    left: Collection[str] = ()
    notes: Sequence[str] = ()
    gap: str = "  "
    wrapped: Mapping[str, int] = field(default_factory=dict)

    def printed(self) -> Iterator[str]:
        """Its lines in print, columns as wide as they must be."""
        cells = [[title.split("\n") for title in self.titles], *map(self._wrapped, self.lines)]
        widths = [max(len(text) for cell in column for text in cell) for column in zip(*cells, strict=True)]
        for i, row in enumerate(cells):
            for texts in itertools.zip_longest(*row, fillvalue=""):
                columns = zip(self.titles, texts, widths, strict=True)
                aligned = [text.ljust(n) if title in self.left else text.rjust(n) for title, text, n in columns]
                yield self.gap.join(aligned).rstrip()
            if self.notes and i:
                yield from textwrap.wrap(self.notes[i - 1], WIDTH, initial_indent="  ", subsequent_indent="  ")

    def _wrapped(self, line: Sequence[str]) -> list[list[str]]:
        """The texts of each cell, one below the other."""
        goes_on = ((text, self.wrapped.get(title)) for title, text in zip(self.titles, line, strict=True))
        return [[text] if n is None else textwrap.wrap(text, n, subsequent_indent="  ") for text, n in goes_on]

    def frame(self) -> Any:
        """The texts as a pandas.DataFrame."""
        import pandas

        titles = [" ".join(title.split()) for title in self.titles]
        frame = pandas.DataFrame([list(line) for line in self.lines], columns=titles)
        return frame.assign(note=list(self.notes)) if self.notes else frame

    def html(self) -> str:
        """An HTML table, every text escaped."""
        import pandas

        with pandas.option_context("display.max_colwidth", None):
            return self.frame().to_html(index=False, border=0, escape=True, justify="left")


def printed(parts: Iterable[str | Table]) -> str:
    """Lines and tables as text; a line that is too long goes on below its own beginning."""
    lines: list[str] = []
    for part in parts:
        if isinstance(part, Table):
            lines += part.printed()
        else:
            lines += textwrap.wrap(part, WIDTH, subsequent_indent=_indent(part)) or [""]
    return "\n".join(lines)


def in_notebook(parts: Iterable[str | Table]) -> str:
    """Lines and tables as HTML, every text escaped."""
    return f"<div>{''.join(_element(part) for part in parts)}</div>"


def _element(part: str | Table) -> str:
    if isinstance(part, Table):
        return part.html()
    from html import escape  # for notebooks only

    text = escape(part.strip())
    if isinstance(part, Strong):
        text = f"<strong>{text}</strong>"
    margin = len(_indent(part)) / 2
    return f'<div style="margin-left: {margin:g}em; max-width: 60em">{text}</div>' if text else ""


def _indent(text: str) -> str:
    return text[: len(text) - len(text.lstrip())]


def tidy(chain: Any, rows: Mapping[str, np.ndarray], of: str) -> Any:
    """Rows of a chain as a pandas.DataFrame, one line for each replica and layer (or activation step, attention,
    block).

    Args:
        chain: whose rows they are.
        rows: by name, (replicas, places) or (replicas,) as `observables.ROWS` says.
        of: "layer", "activation", "attention" or "block".

    Raises:
        ValueError: another word.
    """
    import pandas

    checks.choice("of", of, ("layer", "activation", "attention", "block"))
    extent = {"layer": "layer", "activation": "activation", "attention": "mix", "block": "node"}[of]
    axes, replicas = observables.axes(chain), len(rows["log10_grad_weight"])
    labels = observables.labels(chain, extent)
    index = pandas.MultiIndex.from_product([range(replicas), labels], names=["replica", axes[extent]])
    columns = {}
    if chain.modules and axes[extent] == "layer":
        columns["module"] = np.tile(chain.modules, replicas)
    if axes[extent] != axes["node"] and axes[extent] != "block" and chain.blocks is not None:
        columns["block"] = np.tile(observables.blocks_of(labels), replicas)
    for row in observables.ROWS:
        if row.name not in rows:
            continue
        values = rows[row.name]
        if row.extent == "replica":
            columns[row.name] = np.repeat(values, len(labels))
        elif axes[row.extent] == axes[extent] and values.size:
            columns[row.name] = values.ravel()
        elif row.extent == "input" and axes["node"] == axes[extent]:
            columns[row.name] = values[:, 1:].ravel()
    return pandas.DataFrame(columns, index=index).reset_index()


def places(count: int, most: int = 12) -> list[int]:
    """Lines for a table, from 0: all up to `most`, else so many from the first to the last.

    Examples:
        >>> places(100, most=4)
        [0, 33, 66, 99]
    """
    return list(range(count)) if count <= most else np.linspace(0, count - 1, most).round().astype(int).tolist()


class Shown:
    """A result that shows itself: what `shown` says is its text and what a notebook displays."""

    def shown(self) -> Iterable[str | Table]:
        """Its lines and tables."""
        raise NotImplementedError

    def __str__(self) -> str:
        return printed(self.shown())

    def _repr_html_(self) -> str:
        return in_notebook(self.shown())
