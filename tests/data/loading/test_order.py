"""The samples of each rank's micro-batches, and random numbers that depend on seed, epoch and step alone."""

from itertools import chain, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from medsass.data.loading import order
from medsass.data.loading.order import MicroBatch, Order

SPLITS = [(1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (1, 4), (3, 2)]  # ranks and micro-batches


def steps_of(size: tuple[int, int], split: tuple[int, int], epoch: int, **options: object) -> list[list[MicroBatch]]:
    """Return the micro-batches of all ranks by step, in the order of their images; split: ranks and micro-batches."""
    ranks = [Order(*size, rank=r, world=split[0], micro_batches=split[1], **options) for r in range(split[0])]  # type: ignore[arg-type]
    steps: dict[int, list[MicroBatch]] = {}
    for rank in ranks:
        for index in range(len(rank)):
            batch = rank.micro_batch(epoch, index)
            assert batch.epoch == epoch
            steps.setdefault(batch.step, []).append(batch)
    return [sorted(steps[step], key=lambda batch: batch.place.start) for step in range(ranks[0].steps)]


def joined(step: list[MicroBatch]) -> list[int]:
    return [number for batch in step for number in batch.samples.tolist()]


def sizes() -> st.SearchStrategy[tuple[int, int]]:
    """Draw a number of samples, and a batch size that all of `SPLITS` divide."""
    return st.tuples(st.integers(1, 150), st.integers(1, 4).map(lambda n: 12 * n))


@given(sizes(), st.integers(0, 5))
def test_any_ranks_and_micro_batches_see_the_same_steps(size: tuple[int, int], epoch: int) -> None:
    samples, batch_size = size
    whole = [joined(step) for step in steps_of(size, (1, 1), epoch, shuffled=True, seed=7)]
    assert [len(step) for step in whole[:-1]] == [batch_size] * (len(whole) - 1)
    first = list(chain(*whole))
    assert sorted(first) == list(range(samples))
    for world, micro in SPLITS:
        found = [joined(step) for step in steps_of(size, (world, micro), epoch, shuffled=True, seed=7)]
        assert found[:-1] == whole[:-1]
        repeated = found[-1][len(whole[-1]) :]
        assert found[-1] == whole[-1] + (first * 6)[: len(repeated)]
        assert len(repeated) < world * micro


@given(sizes())
def test_without_shuffling_every_sample_comes_once_in_stored_order(size: tuple[int, int]) -> None:
    for world, micro in SPLITS:
        steps = steps_of(size, (world, micro), 3)
        assert list(chain(*map(joined, steps))) == list(range(size[0]))
        for step in steps:
            counts = [len(batch.samples) for batch in step] + [0] * (world * micro - len(step))
            assert max(counts) - min(counts) <= 1
            assert 0 not in counts[: len(step)]


@given(sizes(), st.booleans(), st.sampled_from(SPLITS))
def test_shares_places_and_sizes_add_up(size: tuple[int, int], shuffled: bool, split: tuple[int, int]) -> None:
    world, micro = split
    ranks = [Order(*size, shuffled, rank=rank, world=world, micro_batches=micro) for rank in range(world)]
    steps = steps_of(size, (world, micro), 0, shuffled=shuffled)
    assert sum(map(len, ranks)) == sum(map(len, steps))
    for step in steps:
        assert sum(len(batch.samples) / batch.step_images for batch in step) == pytest.approx(1)
        assert [batch.step_images for batch in step] == [len(joined(step))] * len(step)
        places = [number for batch in step for number in range(batch.step_images)[batch.place]]
        assert places == list(range(step[0].step_images))
        assert max(len(batch.samples) for batch in step) <= ranks[0].largest
        if shuffled:
            assert len({len(batch.samples) for batch in step}) == 1
            assert len(step) == world * micro


@pytest.mark.parametrize("shuffled", [False, True])
def test_two_micro_batches_of_one_rank_equal_the_batches_of_two_ranks(shuffled: bool) -> None:
    one = Order(53, 8, shuffled, micro_batches=2)
    two = [Order(53, 8, shuffled, rank=rank, world=2) for rank in range(2)]
    for index in range(len(one)):
        mine, other = one.micro_batch(4, index), two[index % 2].micro_batch(4, index // 2)
        assert mine.samples.tolist() == other.samples.tolist()
        assert (mine.place, mine.step, mine.step_images) == (other.place, other.step, other.step_images)


def test_epochs_and_seeds_have_their_own_orders() -> None:
    orders = {tuple(order.permutation(seed, epoch, 50).tolist()) for seed, epoch in product(range(5), range(5))}
    assert len(orders) == 25


def test_every_sample_is_as_likely_at_every_place() -> None:
    firsts = [order.permutation(0, epoch, 10)[[0, 4, 9]] for epoch in range(2000)]
    for column in np.array(firsts).T:
        assert chisquare(np.bincount(column, minlength=10)).pvalue > 0.001


def test_random_numbers_are_uniform_and_differ_by_seed_epoch_and_step() -> None:
    drawn = [order.uniform(seed, epoch, step, (40,)) for seed, epoch, step in product(range(3), repeat=3)]
    assert kstest(np.concatenate(drawn), "uniform").pvalue > 0.001
    assert len({float(numbers[0]) for numbers in drawn}) == len(drawn)


def test_random_numbers_do_not_depend_on_what_was_drawn_before() -> None:
    first = order.uniform(1, 2, 3, (4, 5)).copy()
    order.uniform.cache_clear()
    order.uniform(9, 9, 9, (7,))
    order.permutation(1, 2, 30)
    assert (order.uniform(1, 2, 3, (4, 5)) == first).all()


def test_more_images_do_not_change_the_numbers_of_the_first() -> None:
    assert (order.uniform(1, 2, 3, (9, 2, 5))[:7] == order.uniform(1, 2, 3, (7, 2, 5))).all()


def test_the_numbers_of_a_step_are_philoxs_of_its_place() -> None:
    """Written out again, because a change would break the resumption of every training."""
    sequence = np.random.SeedSequence(5, spawn_key=(2, 4))
    expected = np.random.Generator(np.random.Philox(sequence)).random((3, 2))
    assert (order.uniform(5, 2, 3, (3, 2)) == expected).all()
    shuffled = np.random.Generator(np.random.Philox(np.random.SeedSequence(5, spawn_key=(2, 0)))).permutation(9)
    assert (order.permutation(5, 2, 9) == shuffled).all()


@pytest.mark.parametrize(
    ("batch_size", "world", "micro", "said"),
    [
        (
            10,
            2,
            2,
            r"--batch-size 10 cannot be divided equally among 2 processes with 2 micro-batches each .* 4 such as 8",
        ),
        (3, 4, 1, r"--batch-size 3 cannot be divided equally among 4 processes with 1 micro-batch each .* 4 such as 4"),
        (5, 1, 3, r"--batch-size 5 cannot be divided equally among 1 process with 3 micro-batches each .* 3 such as 3"),
    ],
)
def test_a_batch_size_that_cannot_be_divided_is_refused(batch_size: int, world: int, micro: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Order(100, batch_size, world=world, micro_batches=micro)
