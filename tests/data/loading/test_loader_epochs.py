"""Epochs that are resumed, abandoned or divided among processes; and the release of threads and files."""

import gc
import threading
import time
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import pytest
import torch

from medsass.data.loading.loader import Augment, Loader
from medsass.data.shards import manifest
from tests.support import built
from tests.support.loaded import ALL, assert_same, config


@pytest.mark.parametrize("options", [{}, {"augment": Augment()}, ALL, {**ALL, "fraction": 0.6, "micro_batches": 2}])
@pytest.mark.parametrize("depth", [8, 16])
def test_a_new_loader_resumes_from_any_batch(options: dict[str, object], depth: int, tmp_path: Path) -> None:
    chosen = config(built.build(tmp_path / "out", depth), **options, seed=7)
    whole = Loader(chosen)
    epochs = [list(whole.epoch(number)) for number in range(3)]
    other = Loader(chosen)
    for number, start in [(2, 0), (0, 1), (0, 0), (2, 2), (1, len(whole) - 1), (1, 1)]:
        found = list(other.epoch(number, start))
        assert len(found) == len(whole) - start
        for one, again in zip(epochs[number][start:], found, strict=True):
            assert_same(one, again)
    for number in (1, 2):
        fresh = Loader(chosen).epoch(number, 1)
        assert_same(epochs[number][1], next(fresh))


def test_an_epoch_past_its_end_is_empty(shards: Path) -> None:
    loader = Loader(config(shards))
    assert list(loader.epoch(3, len(loader))) == []
    assert list(loader.epoch(3, len(loader) + 5)) == []


def test_abandoned_and_interleaved_epochs_do_not_disturb_others(shards: Path) -> None:
    loader = Loader(config(shards, augment=Augment()))
    epochs = [list(loader.epoch(number)) for number in range(2)]
    abandoned = loader.epoch(0)
    next(abandoned)
    one, other = loader.epoch(0), loader.epoch(1)
    for number in range(len(loader)):
        assert_same(next(one), epochs[0][number])
        assert_same(next(other), epochs[1][number])
    assert_same(next(abandoned), epochs[0][1])


def test_iterating_a_loader_gives_epoch_after_epoch(shards: Path) -> None:
    loader, other = (Loader(config(shards, augment=Augment())) for _ in range(2))
    for number in range(3):
        for one, again in zip(loader, other.epoch(number), strict=True):
            assert_same(one, again)


def test_batches_may_be_kept(shards: Path) -> None:
    """DALI must not write to memory that it has handed over."""
    loader = Loader(config(shards, **ALL))
    kept = [(batch, [view.clone() for view in batch.views], batch.masks.clone()) for _ in range(3) for batch in loader]  # type: ignore[union-attr]
    assert len({batch.images.data_ptr() for batch, *_ in kept}) == len(kept)
    for batch, views, masks in kept:
        assert all(map(torch.equal, batch.views, views))
        assert torch.equal(batch.masks, masks)  # type: ignore[arg-type]


def test_keys_equal_those_in_the_json(shards: Path) -> None:
    for options in ({}, {"augment": Augment(), "info": True}):
        for batch in Loader(config(shards, **{**options, "info": True})):
            assert list(batch.keys) == [info["key"] for info in batch.info]
    (batch, *_) = Loader(config(shards, masks=False, info=False))
    assert len(batch.keys) == len(batch.images) == 8


@pytest.mark.parametrize("options", [ALL, {"augment": None}, {"augment": Augment()}], ids=["all", "plain", "augmented"])
@pytest.mark.parametrize(("world", "micro"), [(1, 2), (2, 1), (2, 2), (4, 1)])
def test_any_division_sees_the_same_images(world: int, micro: int, options: dict[str, object], shards: Path) -> None:
    chosen = config(shards, batch_size=12, seed=3, **options)
    ranks = [Loader(replace(chosen, world=world, rank=rank, micro_batches=micro)) for rank in range(world)]
    assert {loader.steps for loader in ranks} == {Loader(chosen).steps}
    for number in range(2):
        whole = list(Loader(chosen).epoch(number))
        found = [list(loader.epoch(number)) for loader in ranks]
        assert [len(batches) for batches in found] == list(map(len, ranks))
        for number_of_step, one in enumerate(whole):
            places = slice(number_of_step * micro, (number_of_step + 1) * micro)
            rows = zip_longest(*(batches[places] for batches in found))
            step = [batch for row in rows for batch in row if batch]
            count = len(one.images)
            for index in range(len(one.views)):
                views = torch.cat([batch.views[index] for batch in step])
                assert torch.equal(views[:count], one.views[index])
            keys = [key for batch in step for key in batch.keys]
            assert tuple(keys[:count]) == one.keys
            assert tuple(keys[count:]) == whole[0].keys[: len(keys) - count]
            assert [info["key"] for batch in step for info in batch.info] == (keys if chosen.info else [])
            assert sum(batch.share for batch in step) == pytest.approx(1)
            if chosen.masks:
                assert torch.equal(torch.cat([batch.masks for batch in step])[:count], one.masks)  # type: ignore[misc, arg-type]


def test_a_rank_without_a_batch_has_none(shards: Path) -> None:
    total = manifest.load(shards).split("test").samples
    world = total + 2
    loaders = [Loader(config(shards, split="test", batch_size=world, world=world, rank=rank)) for rank in range(world)]
    assert [len(loader) for loader in loaders] == [1] * total + [0, 0]
    assert [[len(batch.images) for batch in loader] for loader in loaders] == [[1]] * total + [[], []]


def test_a_batch_size_that_cannot_be_divided_is_refused(shards: Path) -> None:
    with pytest.raises(ValueError, match=r"--batch-size 10 .* 4 such as 8"):
        Loader(config(shards, batch_size=10, world=2, micro_batches=2))


def test_loaders_leave_neither_threads_nor_files_behind(shards: Path) -> None:
    def held() -> tuple[int, int]:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.exists()]
        return len(list(Path("/proc/self/task").iterdir())), sum(".tar" in str(link.readlink()) for link in links)

    list(Loader(config(shards)))
    gc.collect()
    deadline = time.monotonic() + 30
    before = held()
    for number in range(50):
        loader = Loader(config(shards, augment=Augment(), cache="host" if number % 5 == 0 else "none"))
        batches = iter(loader)
        next(batches)  # the rest is abandoned
        if number % 2:
            loader.close()
    assert held()[1] > 0
    del loader, batches
    gc.collect()
    while held() > before and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    threads, files = held()
    assert threads <= before[0]
    assert files == 0


def test_a_closed_loader_can_be_used_again(shards: Path) -> None:
    loader = Loader(config(shards, augment=Augment()))
    first = list(loader.epoch(0))
    loader.close()
    loader.close()
    for one, again in zip(first, loader.epoch(0), strict=True):
        assert_same(one, again)
