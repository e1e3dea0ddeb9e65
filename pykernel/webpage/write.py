# SPDX-License-Identifier: BSD-3-Clause
"""`report`: a sweep's store or a network in, one HTML file out, whole or not at all."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from pykernel import files
from pykernel.chain import Chain
from pykernel.engines.run import prepare
from pykernel.propagation import Propagation, propagate
from pykernel.webpage import again, document, findings, grids, networks, phases
from pykernel.webpage.document import Section

REPLICAS, FEWEST, SECONDS = 20, 3, 30.0  # draws of a network: as many as take so long, nominally, of one core


def report(
    of: Any, path: str | os.PathLike | None = None, *, weights: bool = False, source: str | None = None, **run: Any
) -> Path:
    """Write a sweep or a network as one HTML file that needs no network: verdict, advice, figures to explore, numbers
    to copy, and how to run it again.

    Args:
        of: the directory of a sweep's store (also while it runs), or the Dataset of a sweep; a Chain, a Propagation, or
            a PyTorch module, read by `from_torch`.
        path: the file; by default report.html, of a store inside it.
        weights: of a module: True to measure its very weights, False the scheme that they are a draw of.
        source: of a chain or a module: where it stands, "net.py:net", for the lines that run it again.
        run: words of `propagate`, of a chain or a module: batch, positions, replicas (by default 20, of large networks
            fewer, down to 3), seed ...

    Returns:
        The path written.

    Raises:
        ValueError, TypeError: something else is given, or words of a run that has been made.
        StoreError: there is no sweep.
        OSError: the file cannot be written; one that was there before is left as it was.

    Notes:
        Of large grids the file has an even part, and says so; it stays below 6 MB. What a module's chain would do
        deeper, shallower and under other gains is measured, too, where that takes seconds.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import pykernel as pk
        >>> with tempfile.TemporaryDirectory() as out:
        ...     ds = pk.sweep({"depth": [2, 4]}, {"width": 8}, replicas=5, progress=False)
        ...     pk.report(ds, Path(out) / "sweep.html").name
        'sweep.html'
    """
    if isinstance(of, str | os.PathLike):
        _require_no_run(run, "a store")
        from pykernel.sweeps import Store, open

        page = sweep_page(open(of), os.fspath(of), Store(of).failed())
        return _write(Path(of) / "report.html" if path is None else Path(path), page)
    target = Path("report.html" if path is None else path)
    if hasattr(of, "data_vars") and "verdict" in of:
        _require_no_run(run, "a Dataset")
        return _write(target, sweep_page(of))
    if isinstance(of, Propagation):
        _require_no_run(run, "a Propagation")
        return _write(target, network_page(of, source))
    from_module = not isinstance(of, Chain)
    if from_module:
        if not hasattr(of, "named_modules"):
            raise TypeError(
                "report needs a store's directory, a sweep's Dataset, a Chain, a Propagation or a PyTorch module, got "
                f"{type(of).__name__}"
            )
        from pykernel.bridges.torch_modules import from_torch

        of = from_torch(of, weights=weights)
    if "replicas" not in run:
        run["replicas"] = _replicas(of, run)
    found = propagate(of, **run)
    return _write(target, network_page(found, source, from_module, weights))


def _replicas(chain: Chain, run: dict) -> int:
    """How many draws, where nobody says."""
    job = prepare(chain, **{word: value for word, value in run.items() if word != "threads"})
    return max(FEWEST, min(REPLICAS, int(SECONDS / job.choice.seconds)))


def _require_no_run(run: dict, what: str) -> None:
    if run:
        raise ValueError(f"{what} has been run: {', '.join(run)} cannot be given")


def sweep_page(ds: Any, store: str | None = None, failed: dict[str, dict] | None = None) -> str:
    """The HTML of a sweep.

    Args:
        ds: its Dataset.  store: its directory, for the lines that run it again.
        failed: records of failed cells, by key.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # medians of cells without numbers
        data, left_out = grids.grid(ds)
        words = findings.verdict(ds)
        advice = findings.advice(ds)
    cell = again.one_cell(ds)
    if cell is not None:
        base, typed = cell
        data["command"] = base
        for axis, (flag, values) in zip(data["axes"], typed, strict=True):
            at = [str(value) for value in ds[axis["name"]].values.tolist()]
            kept = axis["values"] if axis["values"] is not None else axis["words"]
            axis["flag"] = flag
            axis["typed"] = values if len(kept) == len(at) else [str(value) for value in kept]
    names = phases.functions(ds)
    diagrams = phases.diagrams(names, phases.points(ds)) if names else []
    lead = f'<p class="quiet">{document.escape(grids.sizes(ds))}: {ds.verdict.size} cells</p>'
    lead += document.paragraphs([left_out], "note") if left_out else ""
    parts = [
        Section("verdict", "Verdict", words),
        Section("advice", "Advice", advice),
        *_grid_sections(data),
        *_phase_section(diagrams),
        _again_of_sweep(ds, store, failed or {}),
    ]
    return document.document(
        "Gradients against depth: a sweep", lead, parts, {"grid": data, "phases": diagrams or None}
    )


def _grid_sections(data: dict) -> list[Section]:
    """What the scripts draw of a grid of cells."""
    parts = [
        Section("map", "Map of verdicts", document.figure("map of verdicts")),
        Section("chosen", "The chosen cell", document.figure("the chosen cell")),
        Section("curve", "Gradient against depth", document.figure("gradient against depth")),
    ]
    if data.get("profiles"):
        parts.append(Section("profile", "Layers of the chosen cell", document.figure("profiles over layers")))
    return [*parts, Section("cells", "All numbers", document.figure("all numbers"))]


def _phase_section(diagrams: list) -> list[Section]:
    return [Section("phases", "Phase diagram", document.figure("phase diagram"))] if diagrams else []


def _again_of_sweep(ds: Any, store: str | None, failed: dict[str, dict]) -> Section:
    body = document.facts(again.described(ds))
    missing = again.unspelled(ds)
    if missing:
        body += document.paragraphs(
            [f"Of {', '.join(missing)} a sweep keeps names, not objects: run the script or the plan that made it."]
        )
    typed = again.command(ds, store)
    body += document.paragraphs(["On the command line:"]) + document.code(typed) if typed else ""
    body += document.paragraphs(["In Python:"]) + document.code(again.python(ds, store))
    if failed:
        errors = [f"{record.get('cell', key)}: {record.get('error', '?')}" for key, record in failed.items()]
        shown = errors if len(errors) <= 50 else [*errors[:50], f"{len(errors) - 50} more: pykernel status --failures"]
        body += "<h3>Failed cells</h3>" + document.items(shown)
    return Section("again", "What was run, and how to run it again", body)


def network_page(p: Propagation, source: str | None = None, from_module: bool = False, weights: bool = False) -> str:
    """The HTML of one network, measured; `from_module`: whether `source` names a PyTorch module."""
    data: dict[str, Any] = {"network": networks.network(p)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # medians of draws without numbers
        words, advice = networks.words(p), networks.advice(p)
        ds, reason = networks.around(p)
        parts = [
            Section("verdict", "Verdict", words),
            Section("advice", "Advice", advice),
            Section("network", "Layer by layer", document.figure("rows over layers")),
        ]
        if ds is None:
            parts.append(Section("map", "Deeper, and other gains", document.paragraphs([reason])))
        else:
            data["grid"], _ = grids.grid(ds)
            data["grid"]["chosen"] = grids.place(ds, {"depth": p.chain.depth, "gain": p.chain.gain})
            first, *rest = _grid_sections(data["grid"])
            said = document.paragraphs(
                ["The same network shallower and deeper, with all weights times a gain; predicted and measured."]
            )
            parts += [Section(first.name, "Deeper, and other gains", said + first.body), *rest]
    diagrams = _own_diagram(p, ds)
    data["phases"] = diagrams or None
    parts += _phase_section(diagrams)
    parts.append(_again_of_network(p, source, from_module, weights))
    lead = f'<p class="quiet">{document.escape(p.chain)}</p>'
    title = f"Gradients of {source}" if source else "Gradients of a network"
    return document.document(title, lead, parts, data)


def _own_diagram(p: Propagation, ds: Any) -> list[dict]:
    chain = p.chain
    plain = chain.blocks is None and chain.norm is None and chain.residual is None and not chain.has_lists
    if not plain or chain.width is None or ds is None:
        return []
    attributes = {"base_activation": str(chain.activation), "base_order": chain.order}
    names = phases.functions(ds.assign_attrs(attributes).drop_vars("activation", errors="ignore"))
    scale = phases.weight_scale(str(chain.init), chain.width, chain.gain)
    at = [] if scale is None else [(str(chain.init), scale, float(chain.bias_std), "this network")]
    return phases.diagrams(names, at) if names else []


def _again_of_network(p: Propagation, source: str | None, from_module: bool, weights: bool) -> Section:
    run = {"batch": p.batch, "positions": p.positions, "replicas": p.replicas, "seed": p.seed}
    run |= {"correlation": p.correlation, "dtype": p.dtype, "precision": p.precision}
    usual = {"batch": 1, "positions": (), "seed": 0, "correlation": 0.0, "dtype": "float32", "precision": "exponent"}
    own = {word: value for word, value in run.items() if value != usual.get(word)}
    pairs = [("chain", str(p.chain)), *((word, str(value)) for word, value in run.items() if value != ())]
    pairs += [("engine, backend", f"{p.engine}, {p.backend}")]
    pairs += [("given by the caller", ", ".join(p.given))] if p.given else []
    from pykernel._core import version

    body = document.facts([*pairs, ("pykernel", version)])
    words = "".join(f", {word}={value!r}" for word, value in own.items())
    if source:
        typed = {word: ",".join(map(str, v)) if isinstance(v, tuple) else v for word, v in own.items()}
        flags = [f"--{word} {value}" for word, value in typed.items()] + ["--weights"] * weights
        body += document.paragraphs(["On the command line:"])
        body += document.code(" ".join(["pykernel report", source, *flags]))
    body += document.paragraphs(["In Python:"])
    if from_module:
        file, _, name = (source or "net.py:net").rpartition(":")
        lines = [f"from {Path(file).stem} import {name.partition('.')[0]}", ""]
        lines.append(f"chain = pk.from_torch({name}{', weights=True' if weights else ''})")
    else:
        lines = ["", f"chain = pk.{p.chain!r}"]
    python = [
        "import pykernel as pk",
        *lines,
        f"p = pk.propagate(chain{words})",
        "print(p)",
        "print(pk.recommend(chain))",
    ]
    return Section("again", "What was run, and how to run it again", body + document.code("\n".join(python)))


def _write(path: Path, text: str) -> Path:
    with files.whole(path, "--output FILE writes elsewhere") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
