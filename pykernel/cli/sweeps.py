# SPDX-License-Identifier: BSD-3-Clause
"""The command `sweep`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from pykernel.cli import plans, words

_SWEEP = f"""\
Run a grid of chains: from flags that take several values, from a TOML file,
or, without either, the default sweep into results/. A sweep with a store can
be stopped at any moment and goes on where it was.

{words.RANGES}"""
_SWEEP_EXAMPLES = """\
examples:
  pykernel sweep
  pykernel sweep --depth 10:1000:7:log --width 64 256 \\
      --init he_normal orthogonal --activation relu gelu --store out
  pykernel sweep study.toml --store out --workers 8
  pykernel sweep study.toml --store out --dask tcp://head:8786
  pykernel sweep study.toml --store out --shard $SLURM_ARRAY_TASK_ID/20
  pykernel sweep study.toml --dry-run
  pykernel sweep --blocks pre.toml post.toml --width 64 --depth 4 16 64

a TOML file:
  replicas = 100
  store = "out"
  [base]
  width = 128
  [grid]
  depth = [10, 100, 1000]
  gain = {start = 0.5, stop = 2.0, count = 16}
  init = ["lecun_normal", "orthogonal"]

patterns of blocks in it:
  [patterns.pre]
  blocks = [{steps = ["norm(layer)", "linear(64)", "tanh"], skip = 1.0}]
  [patterns.post]
  blocks = [{steps = ["linear(64)", "tanh"], skip = 1.0, after = "norm(layer)"}]
  [grid]
  blocks = ["pre", "post"]
"""


def add(command: Any) -> None:
    sweep = command(
        "sweep", help="a grid of chains, resumable", description=_SWEEP, epilog=_SWEEP_EXAMPLES + "\n" + words.BLOCKS
    )
    sweep.add_argument("file", nargs="?", metavar="FILE.toml", help="the sweep's description")
    sweep.add_argument("--default", action="store_true", help="the default sweep (also without any argument)")
    words.add_flags(sweep.add_argument_group("chain: several values make an axis"), words.CHAIN, many=True)
    words.add_flags(
        sweep.add_argument_group("run: several values make an axis, too (but one of replicas and of threads)"),
        words.RUN,
        many=True,
        defaults={**words.USUAL, "replicas": 100},
    )
    where = sweep.add_argument_group("where")
    where.add_argument("--store", metavar="DIR", help="keep results here; the default sweep uses results")
    where.add_argument("--workers", type=int, metavar="N", help="run in N processes of one thread each")
    where.add_argument("--dask", metavar="ADDRESS", help="run on the Dask cluster of this scheduler")
    where.add_argument(
        "--shard", metavar="i/N", help="run the i-th of N shares (1/N .. N/N) into the same or another store"
    )
    where.add_argument(
        "--until", metavar="SCALAR:ERROR", help="add replicas until the standard error is as small: slope:0.001"
    )
    where.add_argument(
        "--predict",
        action=argparse.BooleanOptionalAction,
        help="theory beside every cell to the end (default: up to 1000 cells, half a minute)",
    )
    where.add_argument("--no-profiles", action="store_true", help="keep scalars only: little memory and disk")
    where.add_argument("--dry-run", action="store_true", help="print cells, time, memory and disk; run nothing")
    where.add_argument("--quiet", action="store_true", help="no progress, no table")
    sweep.set_defaults(call=_sweep)


def _describe(given: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `pykernel.sweep` that the command line means."""
    import pykernel as pk

    flags = {name: words.values(name, getattr(given, name)) for name in words.CHAIN if getattr(given, name) is not None}
    run, several = {}, {}
    for name in words.RUN:
        found = words.values(name, getattr(given, name) or [])
        if len(found) > 1 and name in ("replicas", "threads"):
            raise ValueError(f"--{name} takes one value, got {len(found)}")
        if found:
            (several if len(found) > 1 else run)[name] = found if len(found) > 1 else found[0]
    if given.file:
        result = plans.read(given.file)
        result["grid"].update({name: found for name, found in flags.items() if len(found) > 1})
        singles = {name: found[0] for name, found in flags.items() if len(found) == 1}
        result["base"] = {**result["base"], **singles}
        for name in (*singles, *run):
            result["grid"].pop(name, None)
            if held := [key for key in result["grid"] if name in key and isinstance(key, tuple)]:
                raise ValueError(
                    f"{given.file} zips {', '.join(held[0])}: --{name.replace('_', '-')} cannot replace one of them"
                )
        result = words.with_formats({**result, **run})
        result["grid"].update(several)
    elif flags and not given.default:
        grid = {name: found for name, found in flags.items() if len(found) > 1}
        base = {name: found[0] for name, found in flags.items() if len(found) == 1}
        if not (grid or several):
            name = "depth" if "depth" in base else next(iter(base))
            grid = {name: [base.pop(name)]}
        result = {"grid": {**grid, **several}, "base": base, **words.with_formats(run)}
    else:
        from pykernel.sweeps import default

        if flags:
            raise ValueError(f"--default has its own grid; leave out --{next(iter(flags)).replace('_', '-')}")
        if several:
            raise ValueError(
                f"the default sweep has its own grid: --{next(iter(several))} takes one value, or give --depth and "
                "others"
            )
        result = {"grid": default.GRID, "base": None, "store": "results", **default.RUN, **words.with_formats(run)}
    if given.store:
        result["store"] = given.store
    if given.no_profiles:
        result["profiles"] = False
    if given.predict is not None:
        result["predict"] = given.predict
    if given.until:
        scalar, colon, error = given.until.partition(":")
        if not colon:
            raise ValueError(f"--until must be SCALAR:ERROR, as in slope:0.001, got {given.until!r}")
        result["until"] = pk.StandardError(scalar, words.number("--until's error", error))
    if given.shard:
        which, slash, of = given.shard.partition("/")
        if not (slash and which.strip().isdigit() and of.strip().isdigit()):
            raise ValueError(f"--shard must be i/N, as in 1/20, got {given.shard!r}")
        result["shard"] = (int(which), int(of))
    return result


def _find_file(given: argparse.Namespace) -> None:
    """A file after a flag of several values is the file, not one of them."""
    for name in (*words.CHAIN, *words.RUN):
        found = getattr(given, name)
        if name != "blocks" and found and len(found) > 1 and found[-1].endswith(".toml") and given.file is None:
            given.file = found.pop()


def _sweep(given: argparse.Namespace) -> int:
    import pykernel as pk
    from pykernel.sweeps import SweepInterrupted, report

    _find_file(given)
    arguments = _describe(given)
    is_default = given.default or not (given.file or any(getattr(given, name) is not None for name in words.CHAIN))
    if given.workers is not None and given.dask:
        raise ValueError("give --workers or --dask, not both")
    if given.dry_run:
        return _dry_run(arguments, given.workers)
    client = None
    if given.dask:
        try:
            from distributed import Client
        except ImportError:
            raise ValueError(
                "--dask needs distributed: pip install distributed; --workers N needs nothing more"
            ) from None

        client = Client(given.dask)
    try:
        ds = pk.sweep(**arguments, executor=client or given.workers, progress=not given.quiet)
    except SweepInterrupted as stopped:
        if stopped.dataset is not None and not (given.quiet or given.shard):
            print(report.table(stopped.dataset))
        raise
    finally:
        if client is not None:
            client.close()
    if given.shard and not given.quiet:
        print(
            f"shard {given.shard} is done; where shards share this store, `pykernel status {arguments['store']}` "
            "says whether all are; "
            "where each has its own, `pykernel merge ALL SHARD ...` joins them and `pykernel status ALL` says so",
            file=sys.stderr,
        )
    elif not given.quiet:
        print(report.table(ds))
    elif not arguments.get("store"):
        print("pykernel sweep: done, and nothing is kept: --store DIR keeps results", file=sys.stderr)
    if is_default and not given.shard:
        _keep(ds, Path(arguments["store"]))
    return 1 if ds.attrs["failed_cells"] else 0


def _keep(ds: Any, directory: Path) -> None:
    """What the default sweep leaves beside its store: table, CSV, NetCDF, figures and a report."""
    from pykernel.plot import sweeps
    from pykernel.sweeps import report
    from pykernel.webpage import write

    made = [report.export(ds, directory / "sweep.csv"), report.export(ds, directory / "sweep.nc")]
    (directory / "verdicts.txt").write_text(report.table(ds) + "\n")
    made.append(directory / "verdicts.txt")
    made += [*sweeps.save(ds, directory, "all", "png"), write.report(directory)]
    print("\nwritten: " + "\n         ".join(str(path) for path in made))


def _dry_run(arguments: dict[str, Any], workers: int | None) -> int:
    import inspect

    import pykernel as pk
    from pykernel import machine
    from pykernel.sweeps import blocks, estimate, theory
    from pykernel.sweeps.beside import PATIENCE
    from pykernel.sweeps.grid import RUN_WORDS
    from pykernel.sweeps.plan import SweepPlan
    from pykernel.sweeps.profiles import Profiles
    from pykernel.sweeps.reading import goals, recall
    from pykernel.sweeps.store import Store

    known = {name: p.default for name, p in inspect.signature(pk.sweep).parameters.items()}
    full = {**known, **arguments}
    run = {name: full[name] for name in RUN_WORDS}
    plan = SweepPlan.make(
        full["grid"], full["base"], run, full["replicas"], full["until"], Profiles.of(full["profiles"])
    )
    shelf = recall(full["store"], plan)
    description = plan.description()
    pieces = plan.pieces(shelf, goals(description, shelf))
    pace = blocks.Pace()
    cores = workers or machine.cores(full["threads"])
    estimate.calibrate(pieces, pace, plan.kept, min(cores, machine.cores(None)))
    figures = estimate.resources(plan, pieces, cores, pace, workers or 1)
    predicted = Store(full["store"]).predictions() if full["store"] else {}
    asked = full["predict"] if full["predict"] is not None else len(plan.cells) <= theory.FREELY
    ahead = theory.seconds(cell for cell in plan.cells if cell.key not in predicted) if asked else 0.0
    chains = sum(goals(description, shelf).values())
    print(f"cells    {figures['cells']}: " + " x ".join(f"{len(axis.values)} {axis.name}" for axis in plan.axes))
    print(f"chains   {chains}, {figures['chains']} of them still to run")
    if plan.until:
        most = plan.until.most or 100 * plan.replicas
        print(f"until    adds chains, up to {most} a cell: how many more than these, only draws tell")
    print(f"time     about {_span(figures['seconds'])} on {cores} core{'s' * (cores > 1)}")
    if not asked:
        print("theory   left out; --predict asks for it")
    elif ahead >= 0.5:
        bound = (
            ""
            if full["predict"]
            else f"; what is not done {PATIENCE:.0f} s after the numbers is left out, --predict asks for it"
        )
        print(f"theory   about {_span(ahead)} on one core, meanwhile{bound}")
    print(f"memory   about {machine.bytes_text(figures['memory_bytes'])}")
    print(
        f"disk     about {machine.bytes_text(figures['disk_bytes'])}"
        + ("" if full["store"] else " (if it had a store)")
    )
    print(f"plan     {description['hash']}")
    return 0


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
