# SPDX-License-Identifier: BSD-3-Clause
"""A Propagation in print: what was run, medians in a table, the verdict, and what went wrong where."""

from __future__ import annotations

import textwrap

import numpy as np

from pykernel import observables
from pykernel.patterns import pattern_of

WIDTH = 80  # of a printed line


def text(p):
    """The whole of it: what was run, a table, the verdict and why."""
    rounded = [] if p.formats is None else ["", *_table_of_formats(p)]
    return "\n".join([*_heading(p), "", *_table(p), *rounded, "", *_closing(p)])


def _heading(p):
    r = p.replicas
    why = _why_engine(p)
    what = str(p.chain) + (f"; the caller's own {', '.join(p.given)}" if p.given else "")
    inputs = f"batch {p.batch}" + (f", {' x '.join(map(str, p.positions))} positions" if p.positions else "")
    lines = [
        *([what] if p.chain.blocks is None else textwrap.wrap(what, WIDTH)),
        f"{r} replica{'s' * (r > 1)}, {inputs}, seed {p.seed}; {p.engine} engine, {p.backend} backend, {p.dtype}",
        *([f"{p.engine}: {why}"] if why else []),
    ]
    lines += ["precision native: plain arithmetic"] * (p.precision == "native")
    return lines if p.formats is None else [*lines, f"rounded to: {p.formats}"]


def _why_engine(p) -> str:
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


def _table(p):
    yield "medians over replicas; g = log10 of a gradient norm, q = log10 of a mean square"
    if p.positions:
        pairs = "the positions" if p.batch == 1 else "all positions of all inputs"
        yield f"cosine: mean over pairs of {pairs}"
    yield from _table_of_layers(p) if p.chain.blocks is None else _table_of_blocks(p)


def _table_of_layers(p):
    yield (
        f"{'layer':>8} {'g weight':>10} {'g signal':>10} {'q preact':>10} {'q act':>10} {'saturated':>9} "
        f"{'dead':>6} {'cosine':>7}"
    )
    m = medians(p)
    for l in _sample(p.chain.depth):
        i = l - 1
        numbers = (
            m["log10_grad_weight"][i],
            m["log10_grad_activation"][l],
            m["log10_mean_square_preactivation"][i],
            m["log10_mean_square_activation"][i],
        )
        yield (
            f"{l:>8} "
            + " ".join(f"{v:>10.4g}" for v in numbers)
            + f" {m['saturated'][i]:>9.3f} {m['dead'][i]:>6.3f} {m['similarity'][i]:>7.3f}"
        )


def _table_of_formats(p):
    """A line a node: what rounding does to its signal and gradient, medians over replicas."""
    where = "layer" if p.chain.blocks is None else "block"
    yield "against the same weights without formats, before each is rounded:"
    yield f"{where:>8} {'log10 error':^19} {'gradient':>9} {'flushed to zero':^17} {'overflowed':^17}".rstrip()
    yield f"{'':>8} {'signal':>9} {'gradient':>9} {'cosine':>9}" + 2 * f" {'signal':>8} {'gradient':>8}"
    names = ("log10_error_signal", "log10_error_gradient", "gradient_cosine")
    shares = ("flushed_signal", "flushed_gradient", "overflowed_signal", "overflowed_gradient")
    m = {name: p.median(name) for name in (*names, *shares)}
    for l in _sample(p.chain.extents.node):
        numbers = [f"{m[name][l - 1]:>9.4g}" for name in names] + [f"{m[name][l - 1]:>8.2g}" for name in shares]
        yield f"{l:>8} {' '.join(numbers)}"


def _table_of_blocks(p):
    """A line a block: what leaves it, and which of its layers have the smallest and the largest weight gradient."""
    roles, block_of = [name.partition(".")[2] for name in p.layers], blocks_of(p.layers)
    wide = max([len("smallest, g weight"), *(9 + len(role) for role in set(roles))])
    yield f"{'block':>8} {'g signal':>9} {'q act':>9} {'cosine':>6}  {'smallest, g weight':<{wide}}  largest"
    m = medians(p)
    weight = m["log10_grad_weight"]
    for i in _sample(p.chain.extents.node):
        at = np.flatnonzero(block_of == i)
        said = [f"{weight[l]:>8.4g} {roles[l]}".ljust(wide) for l in _extremes(weight, at)]
        gradient, square, cosine = (
            m["log10_grad_activation"][i],
            m["log10_mean_square_activation"][i - 1],
            m["similarity"][i - 1],
        )
        yield f"{i:>8} {gradient:>9.4g} {square:>9.4g} {cosine:>6.3f}  {'  '.join(said)}".rstrip()
    if p.attentions:
        yield ""
        yield from _table_of_attentions(p, m)


def _table_of_attentions(p, m):
    """A line an attention: how sharply it looks; the entropy is that of uniform attention where it looks at all
    alike."""
    wide = max(len(name) for name in p.attentions)
    yield f"{'':>{wide}}  {'entropy':>7}  {'of uniform':>10}  {'score std':>9}"
    for i in _sample(len(p.attentions)):
        entropy, std = m["attention_entropy"][i - 1], m["score_std"][i - 1]
        uniform = p.uniform_entropy[i - 1]
        share = f"{entropy / uniform:.3f}" if uniform else ""
        yield f"{p.attentions[i - 1]:>{wide}}  {entropy:>7.4g}  {share:>10}  {std:>9.3g}".rstrip()


def medians(p):
    """Medians of all rows; where plain arithmetic made the signal nan nobody can say what is saturated or dead."""
    m = {name: p.median(name) for name in observables.NAMES}
    if p.chain.blocks is None:
        lost = dict.fromkeys(("layer", "activation", "node"), np.isnan(m["log10_mean_square_preactivation"]))
    else:
        node = np.isnan(m["log10_mean_square_activation"])
        lost = {"node": node, "activation": node[blocks_of(p.activations) - 1]}
    for row in observables.ROWS:
        if row.name in ("saturated", "dead", "similarity"):
            m[row.name] = np.where(lost[row.extent], np.nan, m[row.name])
    return m


def _closing(p):
    e, s, k = (p.median(name) for name in ("end_to_end", "signal_end_to_end", "slope"))
    yield f"verdict: {p.verdict}"
    if np.isfinite(k):
        diagnosis = p.diagnose()
        for text in (diagnosis.sentence, *diagnosis.why):
            yield textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="  ")
        yield f"  medians: signal's gradient, input over output: {s:+.4g} decades"
        yield f"           weight gradient, first over last:     {e:+.4g} decades"
    if p.chain.blocks is not None:
        yield f"  slope {k:+.4g} decades a repetition, over the ends of repetitions of the pattern"
        weight = p.median("log10_grad_weight")
        said = [f"{weight[l]:.4g} in {p.layers[l]}" for l in _extremes(weight, np.arange(len(weight)))]
        if len(said) == 2:
            yield f"  weight gradients: smallest {said[0]}, largest {said[1]}"
    if p.tied_layers:
        weight = p.median("log10_grad_weight_total")
        said = [f"{weight[w]:.4g} in {p.tied_layers[w]}" for w in _extremes(weight, np.arange(len(weight)))]
        yield f"  shared weights, gradients over all uses: {' to '.join(said)}"
    notes = _notes(p)
    if notes:
        yield textwrap.fill("; ".join(notes), 80, initial_indent="  ", subsequent_indent="  ")


def _notes(p) -> list[str]:
    """What is zero, inf or nan, in how many replicas, and why."""
    from pykernel.theory.refusals import overused

    failure, notes = p.failure, []
    if p.tied_layers and (reason := overused(pattern_of(p.chain, p.positions))) is not None:
        notes.append(f"no theory beside it: {reason}")
    if p.chain.has_batch_norm and p.columns == 1:
        from pykernel.theory.refusals import ONE_NORMED_INPUT

        return [ONE_NORMED_INPUT]
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


def _sample(depth):
    """Layers for a table: all up to 12, else about a dozen from the first to the last."""
    return range(1, depth + 1) if depth <= 12 else np.unique(np.linspace(1, depth, 12).round().astype(int)).tolist()


def blocks_of(names) -> np.ndarray:
    """The block, from 1, that each named layer or activation step lies in."""
    return np.array([int(name.partition(".")[0]) for name in names], dtype=int)


def _extremes(values, at) -> list[int]:
    """Of these places those of the smallest and the largest value, one where they are one; none where there is no
    number."""
    at = at[~np.isnan(values[at])]
    return list(dict.fromkeys([int(at[values[at].argmin()]), int(at[values[at].argmax()])])) if len(at) else []
