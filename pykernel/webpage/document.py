# SPDX-License-Identifier: BSD-3-Clause
"""One HTML file from its sections and its data, with style and scripts inside and nothing asked for outside."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

SCRIPTS = ("scales.js", "figures.js", "tables.js", "sweep.js", "page.js")
DIGITS = 5  # of a number on the page


class Section(NamedTuple):
    """A part of the page: its name in links, its title, and its content as HTML."""

    name: str
    title: str
    body: str


def escape(text: Any) -> str:
    """A text as HTML, whatever it holds."""
    return html.escape(str(text))


def paragraphs(texts: Iterable[str], kind: str = "") -> str:
    """Sentences as paragraphs, of a class where one is given."""
    attribute = f' class="{kind}"' if kind else ""
    return "".join(f"<p{attribute}>{escape(text)}</p>" for text in texts)


def items(texts: Iterable[str]) -> str:
    """Sentences as a list."""
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def code(text: str) -> str:
    """Something to type, with room for a button that copies it."""
    return f'<div class="code"><pre><code>{escape(text)}</code></pre></div>'


def facts(pairs: Iterable[tuple[str, Any]]) -> str:
    """Names and what they are."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in pairs)}</dl>"


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A small table: numbers to the right, the first column as heads of lines."""
    lines = []
    for first, *rest in rows:
        cells = "".join(
            f'<td class="number">{escape(_short(one))}</td>'
            if isinstance(one, int | float)
            else f'<td class="words">{escape(one)}</td>'
            if len(str(one)) > 30
            else f"<td>{escape(one)}</td>"
            for one in rest
        )
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    titles = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    return (
        f'<div class="wide whole" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{titles}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _short(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}".replace("-", "−")


def figure(caption: str) -> str:
    """Room for what the scripts draw."""
    return f'<figure class="here" role="group" aria-label="{escape(caption)}"></figure>'


def plain(values: Any, digits: int = DIGITS) -> Any:
    """Numbers as JSON holds them, rounded: nested lists, None for nan, "inf" and "-inf" as texts."""
    array = np.asarray(values, dtype=float)
    if array.ndim > 1:
        return [plain(row, digits) for row in array]
    return [_number(value, digits) for value in array.ravel().tolist()]


def _number(value: float, digits: int) -> float | int | str | None:
    if not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def document(title: str, lead: str, sections: Sequence[Section], data: dict) -> str:
    """The file.

    Args:
        title: of the page.  lead: HTML below it.
        sections: in order.
        data: what the scripts draw, as JSON holds it.

    Returns:
        HTML in UTF-8; the same for the same arguments.
    """
    read = lambda name: resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    style = read("page.css")
    script = '"use strict";\n' + "\n".join(read(name) for name in SCRIPTS)
    told = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False).replace("<", "\\u003c")
    links = "".join(f'<li><a href="#{part.name}">{escape(part.title)}</a></li>' for part in sections)
    parts = "".join(
        f'<section id="{part.name}" aria-labelledby="{part.name}-title">'
        f'<h2 id="{part.name}-title">{escape(part.title)}</h2>{part.body}</section>\n'
        for part in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; base-uri 'none'; \
form-action 'none'; style-src {_hash(style)}; script-src {_hash(script)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="pykernel">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<a class="skip" href="#{sections[0].name}">Skip to the verdict</a>
<header>
<h1>{escape(title)}</h1>
{lead}
<nav aria-label="Sections"><ul>{links}</ul></nav>
<noscript><p><strong>Figures and tables of numbers need scripts, which are switched off here.</strong></p></noscript>
</header>
<main>
{parts}</main>
<footer><p>Written by pykernel; this file asks for nothing from any network.</p></footer>
<script type="application/json" id="data">{told}</script>
<script>{script}</script>
</body>
</html>
"""


def _hash(text: str) -> str:
    """What a policy allows: this very text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
