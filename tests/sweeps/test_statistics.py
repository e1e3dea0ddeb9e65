# SPDX-License-Identifier: BSD-3-Clause
"""Statistics of profiles: the same bits for every cut into blocks, and equal to NumPy's on the whole."""

import itertools

import numpy as np
import pytest
import stand_in
from hypothesis import given, settings
from hypothesis import strategies as st

import pykernel as pk
from pykernel import patterns
from pykernel.sweeps import blocks as costs
from pykernel.sweeps import grid, statistics
from pykernel.sweeps.blocks import OVERHEAD, Pace, Piece, Queue, halve, shard
from pykernel.sweeps.shelf import Shelf
from pykernel.sweeps.statistics import KEPT, QUANTILES, decompose, gather, missing, summarise
from pykernel.sweeps.tally import Tally
from pykernel.sweeps.work import Entry, decode, encode

P, S = 3, 5
WITH_QUANTILES = [0, 2]


def values_of(replicas, seed=0, holes=True):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(P, replicas, S)) * 10.0 ** rng.integers(-3, 4, size=(P, 1, S))
    if holes:
        values[0][rng.random((replicas, S)) < 0.1] = -np.inf
        values[1, :, 0] = np.nan
    return values


def summary_of(values, cuts):
    nodes = []
    for first, stop in itertools.pairwise(cuts):
        nodes += statistics.reduce(values[:, first:stop], first, WITH_QUANTILES).items()
    return summarise(gather(nodes))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.lists(st.integers(1, 199), max_size=6), st.randoms(use_true_random=False))
def test_bits_do_not_depend_on_the_cut_nor_on_order(replicas, inner, random):
    values = values_of(replicas)
    cuts = sorted({0, replicas, *(cut for cut in inner if cut < replicas)})
    whole = summary_of(values, [0, replicas])
    nodes = []
    for first, stop in itertools.pairwise(cuts):
        nodes += statistics.reduce(values[:, first:stop], first, WITH_QUANTILES).items()
    random.shuffle(nodes)
    nodes += nodes[:2]  # a block computed twice must not count twice
    cut = summarise(gather(nodes))
    for a, b in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(a, b)


def test_cells_side_by_side_have_the_bits_of_each_alone(monkeypatch):
    monkeypatch.setattr(statistics, "LAYERS_AT_ONCE", 8)  # two cells at once
    forests = []
    for seed, (replicas, layers, holes) in enumerate(
        itertools.product((1, 7, 70), (2, 3, 5), (True, False, True, True))
    ):
        nodes = statistics.reduce(values_of(replicas, seed, holes)[:, :, :layers], 0, WITH_QUANTILES)
        forests.append(gather(nodes.items()))
    forests.append(gather(statistics.reduce(values_of(7)[:2], 0, [0]).items()))  # another batch keeps fewer rows
    for alone, together in zip(map(summarise, forests), statistics.summaries(forests), strict=True):
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_array_equal(a, b)
    assert statistics.summaries([]) == []


@pytest.mark.parametrize("replicas", [1, 2, 7, 32, 100, 1000])
def test_moments_are_those_of_the_finite_values(replicas):
    values = values_of(replicas)
    got = summary_of(values, [0, replicas])
    finite = np.where(np.isfinite(values), values, np.nan)
    count = np.isfinite(values).sum(axis=1)
    np.testing.assert_array_equal(got.count, count)
    some = count > 0
    scale = np.nanmax(np.abs(finite), axis=1, initial=0)[some]
    # pairwise sums of n values: error log2(n) eps relative to the largest
    assert np.all(
        np.abs(got.mean - np.nansum(finite, axis=1) / np.maximum(count, 1))[some] <= 12 * 2.3e-16 * scale + 1e-300
    )
    two = count > 1
    deviations = finite - (np.nansum(finite, axis=1) / np.maximum(count, 1))[:, None]
    std = np.sqrt(np.nansum(deviations**2, axis=1) / np.maximum(count - 1, 1))
    np.testing.assert_allclose(got.std[two], std[two], rtol=1e-13)
    assert np.isnan(got.std[~two]).all()
    assert np.isnan(got.mean[~some]).all()


def test_quantiles_are_exact_up_to_the_kept_number_and_close_beyond():
    few = values_of(KEPT, holes=False)
    exact = np.quantile(few[WITH_QUANTILES], QUANTILES, axis=1, method="hazen").transpose(1, 0, 2)
    np.testing.assert_allclose(summary_of(few, [0, KEPT]).quantiles, exact, rtol=1e-12)
    replicas = 3000
    many = np.random.default_rng(1).random((P, replicas, S))
    got = summary_of(many, [0, replicas]).quantiles
    # uniform values: a quantile's error is its rank error, at most half a step of 1 / KEPT for each of 7 levels; in
    # practice a fifth
    assert np.abs(got - np.array(QUANTILES)[None, :, None]).max() < 7 / (2 * KEPT) / 2


def test_a_quantile_between_zeros_is_a_zero_not_nan():
    values = np.full((P, 10, S), -np.inf)
    assert (summary_of(values, [0, 10]).quantiles == -np.inf).all()


@given(st.integers(0, 5000), st.integers(1, 5000))
def test_decomposition_covers_once_with_few_nodes(first, count):
    covered = []
    for level, index in decompose(first, first + count):
        covered += [(index << level, (index + 1) << level)]
    assert covered[0][0] == first and covered[-1][1] == first + count
    assert all(a[1] == b[0] for a, b in itertools.pairwise(covered))
    assert len(covered) <= 2 * count.bit_length()


@given(st.integers(1, 300), st.lists(st.tuples(st.integers(0, 300), st.integers(1, 100)), max_size=5))
def test_missing_and_known_share_the_replicas(replicas, ranges):
    shelf = Shelf()
    covered = np.zeros(500, dtype=bool)
    for first, count in ranges:
        values = values_of(count)
        nodes = statistics.reduce(values, first, WITH_QUANTILES)
        shelf.add([("cell", Entry(first, count, np.zeros((len(statistics.SCALARS), count)), nodes, None))])
        covered[first : first + count] = True
    gaps = np.zeros(500, dtype=bool)
    for first, stop in shelf.missing("cell", replicas):
        assert 0 <= first < stop <= replicas
        gaps[first:stop] = True
    # nothing that is absent is believed known; a node that reaches beyond `replicas` may have to be computed again
    assert not (~covered & ~gaps)[:replicas].any()
    inside = [(first, count) for first, count in ranges if first + count <= replicas]
    if len(inside) == len(ranges):
        assert not (covered & gaps).any()


def test_missing_counts_from_parents_of_siblings():
    assert missing({(3, 0)}, 0, 8) == []
    assert missing({(2, 0)}, 0, 8) == [(4, 8)]


def test_a_part_decodes_to_what_was_encoded():
    values = values_of(37)
    nodes = statistics.reduce(values, 11, WITH_QUANTILES)
    scalars = np.random.default_rng(0).normal(size=(len(statistics.SCALARS), 37))
    from pathlib import Path

    from pykernel.sweeps import store

    content = encode(
        [("a" * 32, Entry(11, 37, scalars, nodes, values)), ("b" * 32, Entry(11, 37, scalars, nodes, None))]
    )
    entries = decode(*store.decode(content, Path("x")))
    assert [key for key, _ in entries] == ["a" * 32, "b" * 32]
    got = entries[0][1]
    np.testing.assert_array_equal(got.scalars, scalars)
    np.testing.assert_array_equal(got.replicas, values)
    for place, node in nodes.items():
        for a, b in zip(node, got.nodes[place], strict=True):
            np.testing.assert_array_equal(a, b)


def chain_pieces(n=7, count=100):
    run = {"batch": 1, "engine": "dense", "backend": "cpp", "dtype": "float32"}
    return [Piece(f"{i}", pk.Chain(depth=10 * (i + 1), width=64), run, 0, count) for i in range(n)]


def replicas_of(blocks):
    found = {}
    for block in blocks:
        for piece in block:
            found.setdefault(piece.key, []).extend(range(piece.first, piece.first + piece.count))
    return {key: sorted(numbers) for key, numbers in found.items()}


@pytest.mark.parametrize("seconds", [1e-9, 0.01, 0.3, 1e9])
def test_blocks_cover_every_replica_once_and_keep_to_their_time(seconds):
    pieces = chain_pieces()
    queue = Queue(pieces, Pace())
    blocks = []
    while queue:
        blocks.append(queue.take(seconds))
    assert replicas_of(blocks) == {piece.key: list(range(100)) for piece in pieces}
    for block in blocks:
        dearest = max(Pace().per_replica(piece) for piece in block)
        assert sum(Pace().of(piece) for piece in block) <= seconds + dearest + OVERHEAD


@pytest.mark.parametrize("of", [1, 2, 3, 8])
def test_shards_are_disjoint_complete_and_of_like_cost(of):
    pieces = chain_pieces()
    shares = [shard(pieces, i, of) for i in range(1, of + 1)]
    assert replicas_of(shares) == {piece.key: list(range(100)) for piece in pieces}
    costs = [sum(Pace().of(piece) for piece in share) for share in shares]
    # units of an eighth of a share are dealt to the lightest: no share is further than two units from the mean
    assert max(costs) < sum(costs) / of * 1.3


def test_shard_refuses_what_is_no_share():
    with pytest.raises(ValueError, match="1 <= i <= N, got 4/3"):
        shard(chain_pieces(), 4, 3)


def test_a_block_is_halved_down_to_one_replica():
    blocks = [chain_pieces(2, 5)]
    for _ in range(10):
        blocks = [half for block in blocks for half in halve(block)]
    assert all(len(block) == 1 and block[0].count == 1 for block in blocks)
    assert replicas_of(blocks) == {"0": list(range(5)), "1": list(range(5))}


def test_a_sweep_reads_each_chain_once(monkeypatch):
    """Every stage asks for the pattern of a chain: its check, memory, cost, run and progress."""
    read: list[pk.Chain] = []
    whole = patterns.Pattern
    monkeypatch.setattr(patterns, "Pattern", lambda chain, positions: read.append(chain) or whole(chain, positions))
    base = {"width": 4, "blocks": [pk.Block(pk.Linear(4), "tanh", skip=1.0)]}
    gains = [1 + 0.01 * i for i in range(30)]
    pk.sweep({"gain": gains, "depth": [1, 2]}, base, replicas=1, progress=False, predict=False, profiles=False)
    assert len({id(chain) for chain in read}) == len(read) <= 61  # with the base


def test_what_a_chain_costs_is_asked_once(monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(costs, "seconds_per_replica", lambda chain, run: asked.append("") or 1e-3)
    pieces, pace = chain_pieces(3, 2), Pace()
    tally = Tally(pieces, 0.0, pace)
    for piece in pieces:
        pace.learn(piece, 2 * pace.of(piece))
        tally.count(piece)
    assert len(asked) == 3 and tally.spent == pytest.approx(tally.cost) == pytest.approx(6e-3)


def test_pace_learns_what_a_machine_needs():
    piece = chain_pieces(1)[0]
    pace = Pace()
    before = pace.of(piece)
    for _ in range(20):
        pace.learn(piece, 3 * before)
    assert pace.of(piece) == pytest.approx(3 * before, rel=0.05)


def test_cells_stand_in_c_order_of_the_grids_keys():
    axes = grid.axes({"depth": [2, 3], ("width", "gain"): [(4, 1.0), (5, 2.0)]})
    cells = grid.cells(axes, {"activation": "tanh"}, {"batch": 1}, 7)
    assert [(c.chain.depth, c.chain.width, c.chain.gain) for c in cells] == [
        (2, 4, 1.0),
        (2, 5, 2.0),
        (3, 4, 1.0),
        (3, 5, 2.0),
    ]
    assert [c.index for c in cells] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert {str(c.chain.activation) for c in cells} == {"tanh"}


def test_dear_cells_may_have_fewer_replicas():
    from pykernel.sweeps.plan import SweepPlan

    budget = pk.Replicas(most=20, seconds=20.0, least=2)
    plan = SweepPlan.make({"width": [4, 64, 1024]}, {"depth": 10}, stand_in.RUN, budget, None, pk.Profiles())
    counts = [cell.replicas for cell in plan.cells]
    assert counts[0] == 20 and counts[0] >= counts[1] >= counts[2] == 2
    with pytest.raises(ValueError, match="1 <= least <= most"):
        pk.Replicas(most=2, seconds=1.0, least=3)


def test_without_cpp_auto_takes_the_cheapest_engine():
    from pykernel.engines import run

    def chosen(width, batch=1, activation="tanh", **words):
        chain = pk.Chain(depth=3, width=width, activation=activation, init="lecun_normal")
        choice = run.prepare(chain, batch=batch, **words).choice
        return choice.engine, choice.backend

    mine = pk.Activation(value=np.tanh, slope=lambda z: 1 / np.cosh(z) ** 2, name="mine")
    assert chosen(64) == chosen(4096) == ("matrix_free", "cpp")
    # a layer of matrix-free algebra in NumPy takes as long as drawing 500 x 500 weights
    assert chosen(64, activation=mine) == chosen(256, 8, mine) == ("dense", "numba")
    assert chosen(2048, activation=mine) == ("matrix_free", "reference")
    assert chosen(64, activation=mine, engine="matrix_free") == ("matrix_free", "reference")
    assert chosen(64, backend="numba") == ("dense", "numba")
    assert chosen(64, activation=mine, backend="reference") == ("matrix_free", "reference")


def test_rows_of_blocks_keep_their_own_places():
    """A chain of blocks has more layers than blocks, and another number of activation steps: a row shifted by one would
    not be seen."""
    block = pk.Block(pk.Norm("layer"), pk.Linear(24), "tanh", pk.Linear(12), "tanh", pk.Linear(8), skip=1.0)
    chain = pk.Chain(depth=3, width=8, init="lecun_normal", first=[pk.Linear(8)], blocks=[block])
    keep = pk.Profiles(rows="all")
    ds = pk.sweep([chain], replicas=5, batch=2, profiles=keep, progress=False, predict=False)
    p = pk.propagate(chain, replicas=5, batch=2, engine=ds.run_engine, backend=ds.run_backend)
    assert p.log10_grad_weight.shape[1] == 10 and p.dead.shape[1] == 6 and p.log10_grad_activation.shape[1] == 5
    for name in keep.rows:
        begin = int(name != "log10_grad_activation")
        found = ds[f"{name}_mean"].isel(chain=0).values
        row = p.rows[name]
        np.testing.assert_allclose(found[begin : begin + row.shape[1]], row.mean(axis=0), rtol=1e-12, err_msg=name)
        assert np.isnan(found[begin + row.shape[1] :]).all() and np.isnan(found[:begin]).all()
    np.testing.assert_allclose(ds.slope.isel(chain=0), p.slope, rtol=1e-12)
    np.testing.assert_allclose(ds.dead.isel(chain=0), p.dead.mean(axis=1))
