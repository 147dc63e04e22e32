"""Batches: each sample once an epoch, reproducible, image and mask with the same geometry."""

import tarfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from medsass.config import ShardConfig
from medsass.data.loading.loader import Augment, Loader
from medsass.data.sharding import shard
from medsass.data.shards import manifest
from tests.support.loaded import config, keys, same


def train_keys(shards: Path, folder: Path) -> set[str]:
    """Return the keys of the training split, from the names in its tar files."""
    found = set()
    for path in shards.glob("train-*.tar"):
        with tarfile.open(path) as opened:
            found |= {name.split(".")[0] for name in opened.getnames()}
    assert found <= {path.stem for path in (folder / "images").iterdir()}
    return found


@pytest.mark.parametrize("augment", [None, Augment()], ids=["plain", "augmented"])
def test_every_sample_comes_once_an_epoch(augment: Augment | None, shards: Path, nuclei_folder: Path) -> None:
    expected = train_keys(shards, nuclei_folder)
    loader = Loader(config(shards, augment=augment))
    for _ in range(3):
        assert Counter(keys(loader)) == Counter(expected)


def test_last_batch_holds_the_rest(shards: Path) -> None:
    total = manifest.load(shards).splits["train"].samples
    batch_size = next(size for size in (7, 8, 9) if total % size)
    loader = Loader(config(shards, batch_size=batch_size))
    sizes = [len(batch.images) for batch in loader]
    assert sizes == [batch_size] * (total // batch_size) + [total % batch_size]
    assert len(loader) == len(sizes)
    assert [len(batch.info) for batch in loader] == sizes


def test_batch_larger_than_the_split(shards: Path, nuclei_folder: Path) -> None:
    (batch,) = Loader(config(shards, batch_size=500))
    assert len(batch.images) == len(train_keys(shards, nuclei_folder))


def test_batch_has_the_documented_shapes_and_types(shards: Path) -> None:
    batch = next(iter(Loader(config(shards, augment=Augment()))))
    assert batch.images.shape == (8, 32, 32, 3)
    assert batch.images.dtype == torch.uint8
    assert batch.masks is not None
    assert batch.masks.shape == (8, 32, 32)
    assert batch.masks.dtype == torch.uint8


def test_masks_hold_0_and_1(shards: Path) -> None:
    for augment in (None, Augment()):
        values = {int(v) for batch in Loader(config(shards, augment=augment)) for v in batch.masks.unique()}  # type: ignore[union-attr]
        assert values == {0, 1}


def test_masks_and_info_only_if_requested(shards: Path) -> None:
    batch = next(iter(Loader(config(shards, masks=False, info=False))))
    assert batch.masks is None
    assert batch.info == []


def test_without_augmentation_pixels_at_own_size_are_exact(shards: Path, nuclei_folder: Path) -> None:
    for batch in Loader(config(shards, size=64)):
        for image, mask, info in zip(batch.images, batch.masks, batch.info, strict=True):  # type: ignore[arg-type]
            pixels = cv2.imread(str(nuclei_folder / info["source"]), cv2.IMREAD_COLOR_RGB)
            truth = cv2.imread(str(nuclei_folder / info["source"].replace("images/", "masks/")), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(image.numpy(), pixels)
            np.testing.assert_array_equal(mask.numpy(), truth // 255)


def test_halving_is_close_to_pillows_antialiased_resize(shards: Path, nuclei_folder: Path) -> None:
    for batch in Loader(config(shards, size=32)):
        for image, info in zip(batch.images, batch.info, strict=True):
            with Image.open(nuclei_folder / info["source"]) as opened:
                expected = np.asarray(opened.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
            assert np.abs(image[..., 0].numpy() - expected).mean() < 1


def test_without_augmentation_each_epoch_is_the_same(shards: Path) -> None:
    loader = Loader(config(shards))
    assert same(list(loader), list(loader))


def test_same_seed_gives_the_same_batches_and_another_seed_others(shards: Path) -> None:
    first, again, other = (list(Loader(config(shards, augment=Augment(), seed=seed))) for seed in (3, 3, 4))
    assert same(first, again)
    assert keys(first) != keys(other)
    assert not torch.equal(first[0].images, other[0].images)


def test_epochs_differ_in_order_and_pixels(shards: Path) -> None:
    loader = Loader(config(shards, augment=Augment()))
    first, second = list(loader), list(loader)
    assert keys(first) != keys(second)
    images = [{i["key"]: p for b in e for i, p in zip(b.info, b.images, strict=True)} for e in (first, second)]
    assert not any(torch.equal(images[0][key], images[1][key]) for key in images[0])


def test_masks_have_the_geometry_of_their_images(twins: Path) -> None:
    loader = Loader(config(twins, size=64, augment=Augment(crop=0.5, jitter=0, hue=0)))
    for batch in [batch for _ in range(3) for batch in loader]:
        for image, mask in zip(batch.images, batch.masks, strict=True):  # type: ignore[arg-type]
            agree = ((image[..., 0] > 127) == mask.bool()).float().mean().item()
            assert agree >= 0.97


def test_flips_without_crop_show_all_four_orientations(twins: Path) -> None:
    plain = Loader(config(twins, size=64))
    upright = {i["key"]: m for b in plain for i, m in zip(b.info, b.masks, strict=True)}  # type: ignore[arg-type]
    loader = Loader(config(twins, size=64, augment=Augment(crop=1.0, jitter=0, hue=0)))
    seen = set()
    for batch in [batch for _ in range(2) for batch in loader]:
        for info, mask in zip(batch.info, batch.masks, strict=True):  # type: ignore[arg-type]
            turns = [torch.flip(upright[info["key"]], dims) for dims in ((), (0,), (1,), (0, 1))]
            agree = [(turn == mask).float().mean().item() for turn in turns]
            assert max(agree) >= 0.97
            seen.add(int(np.argmax(agree)))
    assert seen == {0, 1, 2, 3}


def test_crop_1_without_flip_and_jitter_equals_the_plain_resize(twins: Path) -> None:
    plain = {i["key"]: p for b in Loader(config(twins, size=64)) for i, p in zip(b.info, b.images, strict=True)}
    augment = Augment(crop=1.0, flip=False, jitter=0, hue=0)
    for batch in Loader(config(twins, size=64, augment=augment)):
        for info, image in zip(batch.info, batch.images, strict=True):
            assert (image.int() - plain[info["key"]].int()).abs().float().mean() < 0.5


def test_jitter_changes_pixels_not_masks(twins: Path) -> None:
    plain = {i["key"]: m for b in Loader(config(twins)) for i, m in zip(b.info, b.masks, strict=True)}  # type: ignore[arg-type]
    brightest = set()
    for batch in Loader(config(twins, augment=Augment(crop=1.0, flip=False, jitter=0.5, hue=6))):
        for info, image, mask in zip(batch.info, batch.images, batch.masks, strict=True):  # type: ignore[arg-type]
            assert (mask == plain[info["key"]]).float().mean() > 0.97
            brightest.add(int(image.max()))
    assert len(brightest) > 3


@pytest.mark.parametrize(("jitter", "hue"), [(0.2, 0.0), (0.0, 6.0), (0.2, 6.0)])
def test_jitter_and_hue_work_alone_and_together(jitter: float, hue: float, shards: Path) -> None:
    plain = list(Loader(config(shards)))
    order = {info["key"]: image for batch in plain for info, image in zip(batch.info, batch.images, strict=True)}
    chosen = Augment(crop=1.0, flip=False, jitter=jitter, hue=hue)
    changes = [
        (image.int() - order[info["key"]].int()).abs().float().mean().item()
        for batch in Loader(config(shards, augment=chosen))
        for info, image in zip(batch.info, batch.images, strict=True)
    ]
    assert len(changes) == len(order)
    assert max(changes) < 60  # still the same image
    assert (max(changes) > 2) == (jitter > 0)  # gray images have no hue to turn


def test_unknown_split_names_those_that_exist(shards: Path) -> None:
    with pytest.raises(ValueError, match=r"split 'trian'.* train, val, test"):
        Loader(config(shards, split="trian"))


def test_samples_without_a_mask_are_skipped_if_masks_are_requested(some_without_masks: Path) -> None:
    loader = Loader(config(some_without_masks, augment=Augment()))
    for _ in range(2):
        assert sorted(keys(loader)) == [f"{i:04d}" for i in range(0, 20, 2)]
    assert loader.samples == 10


def test_samples_without_a_mask_come_if_masks_are_not_requested(some_without_masks: Path) -> None:
    loader = Loader(config(some_without_masks, masks=False))
    assert sorted(keys(loader)) == [f"{i:04d}" for i in range(20)]


def test_split_without_masks_is_refused(nuclei_folder: Path, tmp_path: Path) -> None:
    shard.write(ShardConfig(nuclei_folder, tmp_path / "out", images="images/*"))
    with pytest.raises(ValueError, match="no image of split 'train' has a mask"):
        Loader(config(tmp_path / "out"))


def test_missing_shards_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="medsass shard"):
        Loader(config(tmp_path))


def test_missing_dali_names_the_extra(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("medsass.data.dali.importlib.import_module", absent)
    with pytest.raises(ImportError, match=r"medsass\[cuda13\]"):
        Loader(config(shards))
