# SPDX-License-Identifier: BSD-3-Clause
"""What a Propagation shows of itself: what was run, medians in a table, the verdict, and what went wrong where."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pykernel import observables
from pykernel.dtypes import Bools, Floats, Ints
from pykernel.lower import lower
from pykernel.measured import Measured
from pykernel.patterns import pattern_of
from pykernel.tables import Strong, Table, places
from pykernel.wording import compared

LONGEST = 16  # characters of a module's name in a table of blocks


def shown(p: Measured) -> list[str | Table]:
    """The whole of it, lines and tables: what was run, medians, the verdict and why."""
    rounded = [] if p.formats is None else ["", *_formats(p)]
    return [*_heading(p), "", *_medians(p), *rounded, "", *_closing(p)]


def _heading(p: Measured) -> list[Strong | str]:
    r = p.replicas
    why = _why_engine(p)
    what = str(p.chain) + (f"; the caller's own {', '.join(p.given)}" if p.given else "")
    inputs = f"batch {p.batch}" + (f", {' x '.join(map(str, p.positions))} positions" if p.positions else "")
    lines = [
        Strong(what),
        f"{r} replica{'s' * (r > 1)}, {inputs}, seed {p.seed}; {p.engine} engine, {p.backend} backend, {p.dtype}",
        *([f"{p.engine}: {why}"] if why else []),
    ]
    lines += ["precision native: plain arithmetic"] * (p.precision == "native")
    return lines if p.formats is None else [*lines, f"rounded to: {p.formats}"]


def _why_engine(p: Measured) -> str:
    """Why this engine fits the chain: what `auto` goes by; nothing where dense was asked for by name."""
    drawn = dict.fromkeys(init.distribution for init in p.chain.inits)
    if p.engine == "matrix_free":
        return f"exact for {' and '.join('orthogonal' if name == 'haar' else 'Gaussian' for name in drawn)} weights"
    if "weights" in p.given:
        return "the caller's own weights are used as they are"
    lawless = [name for name in drawn if name not in ("normal", "haar")]
    if lawless:
        return f"{' and '.join(lawless)} weights have no exact law"
    if p.precision == "native":
        return "plain arithmetic needs every weight"
    if p.chain.clip is not None and p.chain.clip.value:
        return "clipping by value needs every entry of a gradient"
    return ""


def _medians(p: Measured) -> Iterator[Table | str]:
    yield "medians over replicas; g = log10 of a gradient norm, q = log10 of a mean square"
    if p.positions:
        pairs = "the positions" if p.batch == 1 else "all positions of all inputs"
        yield f"cosine: mean over pairs of {pairs}"
    m = medians(p)
    yield _table_of_layers(p, m) if p.chain.blocks is None else _table_of_blocks(p, m)
    if p.attentions:
        yield from ("", _table_of_attentions(p, m))


def _table_of_layers(p: Measured, m: dict[str, Floats]) -> Table:
    titles = ("layer", "g weight", "g signal", "q preact", "q act", "saturated", "dead", "cosine")
    lines = []
    for l in _sample(p.chain.depth):
        i = l - 1
        numbers = (
            m["log10_grad_weight"][i],
            m["log10_grad_activation"][l],
            m["log10_mean_square_preactivation"][i],
            m["log10_mean_square_activation"][i],
        )
        shares = (m["saturated"][i], m["dead"][i], m["similarity"][i])
        modules = p.chain.modules[i : i + 1]
        lines.append((str(l), *(f"{v:.4g}" for v in numbers), *(f"{v:.3f}" for v in shares), *modules))
    return Table((*titles, "module") if p.chain.modules else titles, lines, left=("module",))


def _formats(p: Measured) -> Iterator[Table | str]:
    """A line a node: what rounding does to its signal and gradient, medians over replicas."""
    names = {
        "log10_error_signal": "error\nsignal",
        "log10_error_gradient": "error\ngradient",
        "gradient_cosine": "gradient\ncosine",
        "flushed_signal": "flushed\nsignal",
        "flushed_gradient": "flushed\ngradient",
        "overflowed_signal": "overflow\nsignal",
        "overflowed_gradient": "overflow\ngradient",
    }
    m = {name: p.median(name) for name in names}
    gone, finer = _gone(p), list(names)[:3]
    lines = []
    for l in _sample(p.chain.extents.node):
        cells = [
            "gone" if gone[l - 1] and "gradient" in name else format(m[name][l - 1], ".4g" if name in finer else ".2g")
            for name in names
        ]
        lines.append((str(l), *cells))
    yield (
        "against the same weights without formats, before each is rounded: log10 of the error's share of the norm, "
        "the gradient's cosine, and shares of entries that are flushed to zero or overflow"
    )
    yield Table(("\nlayer" if p.chain.blocks is None else "\nblock", *names.values()), lines)
    if gone.any():
        yield "gone: no gradient is left to round"


def _gone(p: Measured) -> Bools:
    """Of each node, whether nothing of the gradient comes to it in the median replica, (N,)."""
    return np.isneginf(p.median("log10_largest_gradient")) & np.isneginf(p.median("log10_grad_activation")[1:])


def _killers(p: Measured) -> str:
    """Whose doing a dead gradient is: the formats that flush all there was, "" where it is zero without formats too."""
    if p.formats is None or not (p.median("log10_error_gradient") == 0).any():  # all is lost of what is not zero
        return ""
    where = "layer" if p.chain.blocks is None else "block"
    zero = np.flatnonzero(np.isneginf(p.median("log10_grad_activation")[1:]))
    at = f"at {where} {zero[-1] + 1} and before" if zero.size else "behind the input"
    words = [word for word in ("signals", "gradients") if (p.median(f"flushed_{word[:-1]}") > 0).any()]
    words = [word for word in ("gradients", "signals") if word in words] or ["weights"]
    return f"by {getattr(p.formats, words[0])} of {words[0]}: without formats the gradient is not zero {at}"


def _table_of_blocks(p: Measured, m: dict[str, Floats]) -> Table:
    """A line a block: what leaves it, and which of its layers have the smallest and the largest weight gradient."""
    block_of = observables.blocks_of(p.layers)
    weight = m["log10_grad_weight"]
    names = [_end(name) for name in p.chain.modules] or [name.partition(".")[2] for name in p.layers]
    lines = []
    for i in _sample(p.chain.extents.node):
        said = [f"{weight[l]:.4g} {names[l]}" for l in _extremes(weight, np.flatnonzero(block_of == i))]
        numbers = (m["log10_grad_activation"][i], m["log10_mean_square_activation"][i - 1])
        cosine = f"{m['similarity'][i - 1]:.3f}"
        lines.append((str(i), *(f"{v:.4g}" for v in numbers), cosine, *[*said, "", ""][:2]))
    titles = ("block", "g signal", "q act", "cosine", "smallest, g weight", "largest")
    return Table(titles, lines, left=titles[-2:])


def _table_of_attentions(p: Measured, m: dict[str, Floats]) -> Table:
    """A line an attention: how sharply it looks; the entropy is that of uniform attention where it looks at all
    alike."""
    lines = []
    for i in _sample(len(p.attentions)):
        entropy, std = m["attention_entropy"][i - 1], m["score_std"][i - 1]
        uniform = p.uniform_entropy[i - 1]
        share = f"{entropy / uniform:.3f}" if uniform else ""
        lines.append((p.attentions[i - 1], f"{entropy:.4g}", share, f"{std:.3g}"))
    return Table(("attention", "entropy", "of uniform", "score std"), lines)


def medians(p: Measured) -> dict[str, Floats]:
    """Medians of all rows; where plain arithmetic made the signal nan nobody can say what is saturated or dead."""
    m = {name: p.median(name) for name in observables.NAMES}
    if p.chain.blocks is None:
        lost = dict.fromkeys(("layer", "activation", "node"), np.isnan(m["log10_mean_square_preactivation"]))
    else:
        node = np.isnan(m["log10_mean_square_activation"])
        lost = {"node": node, "activation": node[observables.blocks_of(p.activations) - 1]}
    for row in observables.ROWS:
        if row.name in ("saturated", "dead", "similarity"):
            m[row.name] = np.where(lost[row.extent], np.nan, m[row.name])
    return m


def _closing(p: Measured) -> Iterator[Strong | str]:
    e, s, k = (p.median(name) for name in ("end_to_end", "signal_end_to_end", "slope"))
    killers = _killers(p) if p.verdict == "dead" else ""
    yield Strong(f"verdict: {p.verdict}{f', {killers}' if killers else ''}")
    if np.isfinite(k):
        from pykernel.theory import diagnosis  # takes long to import

        found = diagnosis.diagnose(p)
        yield from (f"  {text}" for text in (found.sentence, *found.why))
        yield f"  medians: signal's gradient, input over output: {s:+.4g} decades"
        yield f"           {f'weight gradient, {compared(p.chain)}:':<37} {e:+.4g} decades"
    if p.chain.blocks is not None and p.chain.has_slope:
        yield f"  slope {k:+.4g} decades a repetition, over the ends of repetitions of the pattern"
    if p.chain.blocks is not None:
        weight = p.median("log10_grad_weight")
        names = p.chain.modules or p.layers
        said = [f"{weight[l]:.4g} in {names[l]}" for l in _extremes(weight, np.arange(len(weight)))]
        if len(said) == 2:
            yield f"  weight gradients: smallest {said[0]}, largest {said[1]}"
    if p.tied_layers:
        weight = p.median("log10_grad_weight_total")
        said = [f"{weight[w]:.4g} in {p.tied_layers[w]}" for w in _extremes(weight, np.arange(len(weight)))]
        yield f"  shared weights, gradients over all uses: {' to '.join(said)}"
    notes = _notes(p)
    if notes:
        yield f"  {'; '.join(notes)}"


def _notes(p: Measured) -> list[str]:
    """What is zero, inf or nan, in how many replicas, and why."""
    from pykernel.theory.refusals import ONE_NORMED_INPUT, few_normed, overused

    failure, notes = p.failure, []
    if p.tied_layers and (reason := overused(pattern_of(p.chain, p.positions))) is not None:
        notes.append(f"no theory beside it: {reason}")
    if p.chain.has_batch_norm and p.columns == 1:
        return [ONE_NORMED_INPUT]
    if p.chain.has_batch_norm and p.chain.is_spatial:
        few = few_normed(lower(p.chain, batch=p.batch, positions=p.positions))
        notes += [] if few is None else [few]
    if failure is None:
        return notes
    notes.append(str(failure))
    table = p.log10_mean_square_activation if failure.direction == "forward" else p.log10_grad_activation[:, ::-1]
    bad = ~np.isfinite(table)
    lost = bad.any(axis=1)
    if p.replicas > 1:
        first = bad[lost].argmax(axis=1)
        places = first + 1 if failure.direction == "forward" else p.chain.extents.node - first
        which = "all" if lost.all() else f"{lost.sum()} of"
        verb = "die" if failure.kind == "zero" else "leave the numbers"
        notes.append(f"{which} {p.replicas} replicas {verb}, at {failure.place} {np.median(places):g} in the median")
    if failure.direction == "forward" and failure.kind != "zero":
        backward = p.median("log10_grad_activation")
        if not np.isposinf(backward).any():
            notes.append(
                "backward, slopes of zero or nan meet these numbers and leave zero or nan: the verdict is that "
                "of the signal, "
                "which comes first"
            )
    return notes


def _end(name: str) -> str:
    """The end of a module's name, where a table has no room for all of it."""
    return name if len(name) <= LONGEST else f"..{name[2 - LONGEST :]}"


def _sample(count: int) -> list[int]:
    """Layers, blocks, ... of a table, from 1."""
    return [i + 1 for i in places(count)]


def _extremes(values: Floats, at: Ints) -> list[int]:
    """Of these places those of the smallest and the largest value, one where they are one; none where there is no
    number."""
    at = at[~np.isnan(values[at])]
    return list(dict.fromkeys([int(at[values[at].argmin()]), int(at[values[at].argmax()])])) if len(at) else []
