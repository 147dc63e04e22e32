"""Subsets of a split: chosen by hashes, computed here again, and read by a loader alone."""

import hashlib
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from medsass.config import ShardConfig
from medsass.data.loading import order
from medsass.data.loading.loader import Augment, Loader, LoaderConfig
from medsass.data.sharding import shard
from tests.support import built


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 57 training samples in six tar files."""
    return built.build(tmp_path_factory.mktemp("built") / "out", splits={"train": 57})


@pytest.fixture(scope="module")
def half_masked(nuclei_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 20 images; those with an even number have a mask."""
    source = tmp_path_factory.mktemp("half")
    for kind in ("images", "masks"):
        (source / kind).mkdir()
        for i in range(0, 20, 1 if kind == "images" else 2):
            (source / kind / f"{i:04d}.png").hardlink_to(nuclei_folder / kind / f"nuclei_{i:04d}.png")
    text = 'name = "half"\n[[images]]\npath = "images/*"\nmasks = "masks/*"\nsplit = "train"\n'
    (source / "half.toml").write_text(text)
    out = tmp_path_factory.mktemp("half_shards") / "out"
    shard.write(ShardConfig(source, out, recipe=str(source / "half.toml")))
    return out


def loader(shards: Path, fraction: float, **changes: object) -> Loader:
    options = {"split": "train", "size": 16, "batch_size": 8, "info": True, "threads": 1, "fraction": fraction}
    return Loader(LoaderConfig(shards, **{**options, **changes}))  # type: ignore[arg-type]


def epoch(one: Loader) -> list[str]:
    return [info["key"] for batch in one for info in batch.info]


def expected(keys: list[str], count: int, seed: int = 0) -> set[str]:
    return set(sorted(keys, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).hexdigest())[:count])


def names(tar: Path) -> set[str]:
    """Return the keys of the samples in a tar file."""
    with tarfile.open(tar) as opened:
        return {name.split(".")[0] for name in opened.getnames()}


def stored(shards: Path) -> list[str]:
    """Return the keys of the training split."""
    return sorted(set().union(*map(names, shards.glob("train-*.tar"))))


@pytest.mark.parametrize("augment", [None, Augment()], ids=["plain", "augmented"])
@pytest.mark.parametrize(("fraction", "count"), [(0.5, 29), (0.1, 6), (1e-6, 1), (1.0, 57)])
def test_smallest_hashes_in_every_epoch(fraction: float, count: int, augment: Augment | None, folder: Path) -> None:
    one = loader(folder, fraction, augment=augment, seed=3)
    assert one.samples == count
    for _ in range(3):
        assert Counter(epoch(one)) == Counter(expected(stored(folder), count, seed=3))


def test_a_larger_subset_holds_a_smaller_one_and_another_seed_chooses_others(folder: Path) -> None:
    subsets = [set(epoch(loader(folder, fraction))) for fraction in (0.1, 0.3, 0.7)]
    assert subsets[0] < subsets[1] < subsets[2]
    assert set(epoch(loader(folder, 0.3, seed=1))) != subsets[1]


def test_a_fraction_counts_samples_with_a_mask_if_masks_are_requested(half_masked: Path) -> None:
    masked = [f"{i:04d}" for i in range(0, 20, 2)]
    assert set(epoch(loader(half_masked, 0.5, masks=True))) == expected(masked, 5)
    assert set(epoch(loader(half_masked, 0.5))) == expected(stored(half_masked), 10)


def test_ranks_cover_the_subset(folder: Path) -> None:
    ranks = [epoch(loader(folder, 0.3, augment=Augment(), rank=rank, world=3, batch_size=9)) for rank in range(3)]
    assert set().union(*ranks) == expected(stored(folder), 18)


def test_another_loader_resumes_with_the_same_subset(folder: Path) -> None:
    one, other = (loader(folder, 0.4, augment=Augment(), seed=5) for _ in range(2))
    epoch(one)
    for a, b in zip(one, other.epoch(1), strict=True):
        assert torch.equal(a.images, b.images)
        assert a.info == b.info


def test_pixels_and_masks_equal_those_of_the_whole_split(folder: Path) -> None:
    whole, some = (
        {
            i["key"]: (p, m)
            for b in loader(folder, f, masks=True)
            for i, p, m in zip(b.info, b.images, b.masks, strict=True)
        }  # type: ignore[arg-type]
        for f in (1.0, 0.2)
    )
    assert len(some) == 12
    for key, found in some.items():
        assert all(map(torch.equal, found, whole[key]))


def test_a_subset_has_the_smallest_hashes_and_stays_in_order() -> None:
    keys = [f"{i * 7919 % 500:03d}" for i in range(500)]
    for count, seed in ((1, 0), (37, 0), (37, 5), (500, 2)):
        found = order.subset([key.encode() for key in keys], count, seed)
        assert (np.diff(found) > 0).all()
        assert {keys[number] for number in found} == expected(keys, count, seed)


def test_a_fraction_is_counted_exactly_and_rounded_up() -> None:
    assert [order.subset_size(100, fraction) for fraction in (0.07, 0.29, 0.001, 1.0)] == [7, 29, 1, 100]
    assert order.subset_size(3, 0.34) == 2


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float, folder: Path) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1; got"):
        loader(folder, fraction)
