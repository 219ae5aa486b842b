"""The order of samples is a permutation, the same for any number of ranks, from any step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from januslm.config import Refused
from januslm.data.sampler import BLOCK, Sampler, portions, schedule

SEEDS = st.integers(0, 2**64 - 1)


@pytest.mark.slow
@given(size=st.integers(1, 3000), seed=SEEDS, epoch=st.integers(0, 50))
def test_every_epoch_is_a_permutation(size, seed, epoch):
    ids = np.arange(epoch * size, (epoch + 1) * size)
    _, index, epochs = Sampler([size], [1], seed).locate(ids)
    assert sorted(index) == list(range(size))
    assert (epochs == epoch).all()


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6, 12])
def test_the_global_order_is_the_same_for_any_number_of_ranks(world):
    alone, many = (Sampler([70, 31], [3, 2], seed=5) for _ in range(2))
    for step in range(20):
        whole = alone.locate(alone.ids(step, 12))
        shared = [many.locate(many.ids(step, 12, rank, world)) for rank in range(world)]
        for one, parts in zip(whole, zip(*shared, strict=True), strict=True):
            assert (one == np.concatenate(parts)).all()


@pytest.mark.slow
@given(steps=st.lists(st.integers(0, 10**7), max_size=6), seed=SEEDS)
@settings(max_examples=40)
def test_seeking_back_and_forth_never_changes_a_step(steps, seed):
    walked = Sampler([1000, 77], [1, 4], seed)
    for step in steps:
        fresh = Sampler([1000, 77], [1, 4], seed)
        ids = walked.ids(step, 16)
        for one, other in zip(walked.locate(ids), fresh.locate(ids), strict=True):
            assert (one == other).all()


def test_two_resumes_in_a_row_continue_the_order_of_one_run():
    sizes, weights = [50, 20], [2, 1]
    run = Sampler(sizes, weights, seed=3)
    straight = [run.locate(run.ids(step, 8))[1].tolist() for step in range(50)]
    resumed = []
    for first, end in ((0, 11), (11, 12), (12, 50)):
        part = Sampler(sizes, weights, seed=3)
        resumed += [part.locate(part.ids(step, 8))[1].tolist() for step in range(first, end)]
    assert resumed == straight


@given(weights=st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any))
def test_every_prefix_is_within_one_sample_of_the_mixing_weights(weights):
    table = schedule(weights)
    taken = np.cumsum(table[:, None] == np.arange(len(weights)), axis=0)
    share = np.arange(1, len(table) + 1)[:, None] * np.array(weights) / sum(weights)
    assert (np.abs(taken - share) < 1).all()
    assert (taken[-1] == weights).all()


def test_a_small_source_begins_its_next_epoch_in_another_order():
    source, index, epoch = Sampler([100, 1000], [1, 1], seed=1).locate(np.arange(400))
    first = index[(source == 0) & (epoch == 0)].tolist()
    second = index[(source == 0) & (epoch == 1)].tolist()
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second


def test_other_seeds_and_other_sources_have_other_orders():
    ids = np.arange(200)
    orders = [Sampler([200], [1], seed).locate(ids)[1].tolist() for seed in range(20)]
    source, index, _ = Sampler([200, 200], [1, 1], 0).locate(np.arange(400))
    orders += [index[source == which].tolist() for which in (1,)]
    assert len({tuple(order) for order in orders}) == 21


@pytest.mark.slow
def test_neighbours_in_the_order_are_unrelated():
    index = Sampler([1_000_003], [1], seed=9).locate(np.arange(100_000))[1]
    assert abs(np.corrcoef(index[:-1], index[1:])[0, 1]) < 0.01
    counts = np.histogram2d(np.arange(100_000), index, bins=50)[0]
    assert ((counts - 40) ** 2 / 40).mean() < 1.1


@pytest.mark.parametrize("first", [0, BLOCK - 5, 7 * BLOCK - 1, 10**12])
def test_a_batch_across_blocks_equals_its_samples_one_by_one(first):
    sampler = Sampler([10**10, 999], [7, 2], seed=4)
    ids = first + np.random.default_rng(0).permutation(20)
    together = sampler.locate(ids)
    alone = [Sampler([10**10, 999], [7, 2], seed=4).locate(ids[i : i + 1]) for i in range(3)]
    for column, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert column[:3].tolist() == [int(part[0]) for part in parts]


def test_the_order_of_a_seed_never_changes_between_versions():
    # a run that is resumed with a newer version must not see samples twice
    sampler = Sampler([1000, 10], [3, 1], seed=7)
    source, index, _ = sampler.locate(np.arange(10))
    assert source.tolist() == [0, 0, 0, 1, 0, 0, 0, 1, 0, 0]
    assert index.tolist() == [579, 831, 228, 8, 516, 246, 730, 2, 904, 508]


@pytest.mark.parametrize(
    ("sizes", "weights", "message"),
    [
        ([10], [1, 2], "1 sources need as many weights"),
        ([10], [0], "not all 0"),
        ([10, 0], [1, 1], "source 1 has no samples but the weight 1"),
        ([10, 10], [65537, 2], "at most 65536, got 65539"),
    ],
)
def test_impossible_mixes_are_refused(sizes, weights, message):
    with pytest.raises(Refused, match=message):
        Sampler(sizes, weights, seed=0)


def test_a_batch_that_ranks_cannot_share_equally_is_refused():
    with pytest.raises(Refused, match="batch of 10 cannot be shared by 3 ranks"):
        Sampler([10], [1], seed=0).ids(0, 10, 0, 3)


# --- groups of blocks


@pytest.mark.slow
@given(
    size=st.integers(1, 3000),
    seed=SEEDS,
    epoch=st.integers(0, 50),
    block=st.integers(1, 400),
    group=st.integers(1, 9),
)
def test_every_epoch_in_groups_of_blocks_is_a_permutation(size, seed, epoch, block, group):
    ids = np.arange(epoch * size, (epoch + 1) * size)
    _, index, epochs = Sampler([size], [1], seed, [block], group).locate(ids)
    assert sorted(index) == list(range(size))
    assert (epochs == epoch).all()


@pytest.mark.slow
@given(
    blocks=st.integers(1, 40),
    block=st.integers(1, 50),
    short=st.integers(0, 49),
    group=st.integers(1, 9),
    seed=SEEDS,
)
def test_a_group_reads_its_own_blocks_and_few_others(blocks, block, short, group, seed):
    size = max(1, blocks * block - short % block)  # the last block is shorter
    _, index, _ = Sampler([size], [1], seed, [block], group).locate(np.arange(size))
    read, astray = [], 0
    for first in range(0, size, group * block):
        found, times = np.unique(index[first : first + group * block] // block, return_counts=True)
        own = found[np.argsort(-times, kind="stable")[:group]]
        read += own.tolist()
        astray += int(times.sum() - times[np.isin(found, own)].sum())
    assert astray < block  # no more than the places that the last block is short of
    if not short % block:
        assert astray == 0
        assert sorted(read) == [*range(blocks)]  # each block in one group alone


def test_groups_and_what_is_inside_them_come_in_another_order_each_epoch():
    sampler = Sampler([6400], [1], 3, [100], 4)
    index = sampler.locate(np.arange(12800))[1]
    first, second = index[:6400], index[6400:]
    assert (first != second).any()
    order = [[*dict.fromkeys(epoch // 100)] for epoch in (first, second)]
    assert order[0] != order[1]
    assert order[0] != sorted(order[0])
    inside = first[:400]
    assert len(set(inside // 100)) == 4
    assert abs(np.corrcoef(inside[:-1], inside[1:])[0, 1]) < 0.2  # of blocks far apart, mixed
    assert (np.diff(inside) == 1).mean() < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 3, 4, 6, 12])
def test_the_order_in_groups_is_the_same_for_any_number_of_ranks_and_from_any_step(world):
    def made():
        return Sampler([700, 310], [3, 2], 5, [16, 8], 3)

    whole = [made().locate(made().ids(step, 12)) for step in range(90)]
    ranks = [made() for _ in range(world)]
    for step in range(41, 90):  # resumed there
        parts = [one.locate(one.ids(step, 12, r, world)) for r, one in enumerate(ranks)]
        for one, several in zip(whole[step], zip(*parts, strict=True), strict=True):
            assert (one == np.concatenate(several)).all()


def test_the_order_in_groups_never_changes_between_versions():
    sampler = Sampler([1000, 10], [3, 1], 7, [50, 4], 2)
    assert sampler.locate(np.arange(10))[1].tolist() == [
        180,
        328,
        158,
        4,
        156,
        150,
        152,
        7,
        196,
        344,
    ]


@given(
    batch=st.integers(1, 40),
    world=st.integers(1, 5),
    accumulate=st.integers(1, 4),
    before=st.integers(0, 100),
    updates=st.integers(0, 4),
)
def test_ranks_share_each_update_whatever_their_number(batch, world, accumulate, before, updates):
    of = [list(portions(before, updates, batch, accumulate, r, world)) for r in range(world)]
    assert {len(mine) for mine in of} == {updates}
    for update in range(updates):
        taken = [part for mine in of for part in mine[update]]
        assert len(taken) == world * accumulate
        ids = sorted(np.concatenate(taken).tolist())
        assert ids == list(range(before + update * batch, before + (update + 1) * batch))
        assert max(map(len, taken)) - min(map(len, taken)) <= 1
