# SPDX-License-Identifier: BSD-3-Clause
"""What a sweep found, in words: how many cells keep their gradient, how deep each scheme reaches, what each choice
does, and what to do about it."""

from __future__ import annotations

from typing import Any

import numpy as np

from pykernel.sweeps import report
from pykernel.sweeps.report import axes, coordinates
from pykernel.webpage import again, document, grids

SHOWN = 12  # values of an axis, lines of a list
ORDER = ("stable", "vanishing", "exploding", "dead", "undefined", "failed", "missing")
MEANING = (
    "Vanishing: the gradient's norm falls by more than 3 decades (a factor of 1000) on its way from the output to the "
    "input, or from the last weights to the first, whichever changes more. Exploding: it grows by more. Stable: "
    "neither. Verdicts are of the median over draws."
)


def verdict(ds: Any) -> str:
    """The first section: sentences, tallies, and tables of how deep each scheme reaches and what each choice does."""
    counts = {word: int((ds.verdict.values == word).sum()) for word in ORDER}
    known = sum(count for word, count in counts.items() if word not in ("missing", "failed"))
    said = [f'<p class="lead">{document.escape(_lead(ds, counts, known))}</p>', _tally(counts)]
    said.append(document.paragraphs(_state(ds, counts)))
    said.append(document.paragraphs([*_always(ds), *_theory(ds)]))
    said.append(_reach(ds) + _effects(ds))
    said.append(document.paragraphs([MEANING], "quiet"))
    return "".join(said)


def _lead(ds: Any, counts: dict[str, int], known: int) -> str:
    if not known:
        return "No cell of this sweep has a number yet."
    if ds.verdict.size == 1:
        return f"The gradient of this chain: {ds.verdict.values.item()}."
    words = {"stable": "keep their gradient", "vanishing": "make it vanish", "exploding": "make it explode"}
    words |= {"dead": "leave it exactly zero", "undefined": "have no number"}
    parts = [f"{counts[word]} {text}" for word, text in words.items() if counts[word]]
    return f"Of {known} chains {_list(parts)}."


def _list(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _tally(counts: dict[str, int]) -> str:
    shown = "".join(
        f'<li><span class="badge is-{word}">{word}</span> {count}</li>' for word, count in counts.items() if count
    )
    return f'<ul class="tally" aria-label="cells by verdict">{shown}</ul>'


def _state(ds: Any, counts: dict[str, int]) -> list[str]:
    found = []
    if not ds.attrs.get("complete", 1):
        found.append(
            f"The sweep is not finished: {counts['missing']} cells have no numbers yet, and {int(ds.replicas.sum())} "
            "draws are done. Run again, it goes on from there."
        )
    if counts["failed"]:
        found.append(f"{counts['failed']} cells failed; the errors are at the end of this page.")
    return found


def _always(ds: Any) -> list[str]:
    """Which choices of one axis are stable everywhere, and which nowhere."""
    found = []
    for name in axes(ds):
        shares = [(word, tally) for word, tally in zip(grids.words_along(ds, name), _shares(ds, name), strict=True)]
        whole = [word for word, tally in shares if tally["known"] and tally["stable"] == tally["known"]]
        never = [word for word, tally in shares if tally["known"] and not tally["stable"]]
        title = "/".join(coordinates(ds, name))
        if len(shares) > 1 and name in ("activation", "init", "norm", "residual", "order", "blocks"):
            if whole:
                found.append(f"Stable everywhere on this grid: {title} {_list(_few(whole))}.")
            if never:
                found.append(f"Stable nowhere on this grid: {title} {_list(_few(never))}.")
    return found


def _few(words: list[str]) -> list[str]:
    return words if len(words) <= SHOWN else [*words[:SHOWN], f"{len(words) - SHOWN} more"]


def _theory(ds: Any) -> list[str]:
    if "z_slope" not in ds:
        return []
    text = report.beside(ds)
    return [text[0].upper() + text[1:] + "."]


def _shares(ds: Any, name: str) -> list[dict[str, int]]:
    """Of each value along an axis how many cells have which verdict."""
    words = np.moveaxis(ds.verdict.values, axes(ds).index(name), 0).reshape(ds.sizes[name], -1)
    tallies = [{word: int((row == word).sum()) for word in ORDER} for row in words]
    return [
        {**tally, "known": sum(count for word, count in tally.items() if word not in ("missing", "failed"))}
        for tally in tallies
    ]


def _reach(ds: Any) -> str:
    """How deep each pair of the two leading choices stays stable, whatever the other axes."""
    names = axes(ds)
    others = [name for name in names if name != "depth" and ds.sizes[name] > 1]
    if "depth" not in names or ds.sizes["depth"] < 2 or not others or coordinates(ds, "depth") != ["depth"]:
        return ""
    down = "init" if "init" in others else others[0]
    across = next((name for name in ("activation", *others) if name in others and name != down), None)
    if max(ds.sizes[name] for name in (down, across) if name) > 4 * SHOWN:
        return ""
    order = np.argsort(ds.depth.values)
    depths = ds.depth.values[order]
    stable = (ds.verdict == "stable").isel(depth=order)
    rest = [name for name in names if name not in (down, across, "depth")]
    # stable at a depth: for every value of the other axes, and at all smaller depths
    whole = stable.all(rest).cumprod("depth").sum("depth").transpose(down, *([across] if across else [])).values
    whole = whole.reshape(ds.sizes[down], -1).astype(int)
    rows = [
        [word, *(str(depths[n - 1]) if n else "none" for n in line)]
        for word, line in zip(grids.words_along(ds, down), whole, strict=True)
    ]
    head = [down, *(grids.words_along(ds, across) if across else ["depth"])]
    at_every = f", at every {_list(['/'.join(coordinates(ds, name)) for name in rest])}" if rest else ""
    caption = f"The largest depth up to which each is stable (of {', '.join(map(str, depths))}){at_every}"
    return document.table(caption, head, rows)


def _effects(ds: Any) -> str:
    """What each choice does: shares of its cells."""
    rows = []
    for name in axes(ds):
        title = "/".join(coordinates(ds, name))
        values = list(zip(grids.words_along(ds, name), _shares(ds, name), strict=True))
        if not 1 < len(values) <= 2 * SHOWN:
            continue
        for word, tally in values:
            known = max(tally["known"], 1)
            rest = tally["known"] - tally["stable"] - tally["vanishing"] - tally["exploding"]
            parts = (tally["stable"], tally["vanishing"], tally["exploding"], rest)
            rows.append([f"{title} {word}", *(f"{round(100 * part / known)} %" for part in parts)])
    if not rows:
        return ""
    table = document.table(
        "Share of the cells with each value", ["value", "stable", "vanishing", "exploding", "other"], rows
    )
    return f"<details><summary>What each choice does</summary>{table}</details>"


def advice(ds: Any) -> str:
    """What to do: which scheme is stable most often, at which weight scale theory keeps the gradient, and how to ask
    further."""
    said = [*_best(ds), *_critical(ds)]
    cell = again.one_cell(ds)
    worst = _worst(ds)
    asked = ""
    if cell is not None and worst is not None:
        base, typed = cell
        known = ("batch", "seed", "replicas")
        flags = [
            f"{flag} {values[i]}" for (flag, values), i in zip(typed, worst, strict=True) if _of_chain(flag, known)
        ]
        kept = [part for part in base.removeprefix("pykernel run").split(" --") if part.strip()]
        kept = [f"--{part.strip()}" for part in kept if _of_chain(f"--{part.strip()}".split()[0], known)]
        asked = document.paragraphs(
            ["For the chain whose gradient changes most, changes that keep it, each predicted and measured:"]
        ) + document.code(" ".join(["pykernel recommend", *kept, *flags]))
    return document.items(said) + asked if said else asked or document.paragraphs(["Nothing to add."])


def _of_chain(flag: str, more: tuple[str, ...]) -> bool:
    """Whether `pykernel recommend` has a flag."""
    run = ("engine", "backend", "dtype", "precision", "correlation")
    return flag.removeprefix("--").replace("-", "_") not in run or flag.removeprefix("--") in more


def _worst(ds: Any) -> tuple[int, ...] | None:
    """Where the gradient changes most."""
    with np.errstate(all="ignore"):
        change = np.abs(ds.signal_end_to_end.values[..., 0])
    change = np.where(np.isfinite(change), change, -1.0)
    return (
        tuple(map(int, np.unravel_index(change.argmax(), change.shape))) if change.size and change.max() > 3 else None
    )


def _best(ds: Any) -> list[str]:
    """Of each value of the leading axis the choices of the other that are stable most often."""
    names = axes(ds)
    if "init" not in names or ds.sizes["init"] < 2:
        return _best_value(ds)
    found = []
    inits = grids.words_along(ds, "init")
    others = "activation" if "activation" in names and ds.sizes["activation"] > 1 else None
    for i, word in enumerate(grids.words_along(ds, others) if others else [""]):
        part = ds.isel({others: [i]}) if others else ds
        shares = [(tally["stable"], tally["known"]) for tally in _shares(part, "init")]
        most = max(stable for stable, _ in shares)
        title = f"{word}: " if word else ""
        if not most:
            found.append(f"{title}no scheme of this grid keeps the gradient at any point.")
            continue
        best = [init for init, (stable, _) in zip(inits, shares, strict=True) if stable == most]
        known = max(known for stable, known in shares if stable == most)
        where = "everywhere" if most == known else f"at {most} of {known} points"
        found.append(f"{title}{_list(_few(best))} {'keep' if len(best) > 1 else 'keeps'} the gradient {where}.")
    return found


def _best_value(ds: Any) -> list[str]:
    """Which value of each axis is stable most often."""
    found = []
    for name in axes(ds):
        shares = [tally["stable"] / tally["known"] if tally["known"] else 0.0 for tally in _shares(ds, name)]
        if len(shares) < 2 or max(shares) == min(shares):
            continue
        best = [word for word, part in zip(grids.words_along(ds, name), shares, strict=True) if part == max(shares)]
        title = "/".join(coordinates(ds, name))
        found.append(f"{title}: most cells are stable with {_list(_few(best))} ({max(shares):.0%} of them).")
    return found


def _critical(ds: Any) -> list[str]:
    """At which weight scale each activation function keeps the gradient, of plain chains."""
    from pykernel.theory.critical import critical_gain
    from pykernel.webpage.phases import functions

    return [f"Theory, any depth, no biases: {critical_gain(name).note}." for name in functions(ds)]
