"""DALI batches: each sample once an epoch, reproducible, image and mask under one geometry."""

import gc
import shutil
import tarfile
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from medsass.config import ShardConfig
from medsass.data import manifest, shard
from medsass.data.loader import Augment, Batch, Loader, LoaderConfig, View
from tests import built


def config(shards: Path, **changes: object) -> LoaderConfig:
    options = {"split": "train", "size": 32, "batch_size": 8, "masks": True, "info": True, "threads": 1}
    return LoaderConfig(shards, **{**options, **changes})  # type: ignore[arg-type]


def epoch(loader: Loader) -> list[Batch]:
    return list(loader)


def keys(batches: list[Batch]) -> list[str]:
    return [info["key"] for batch in batches for info in batch.info]


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a.images.int(), b.images.int()) and torch.equal(a.masks, b.masks) and a.info == b.info  # type: ignore[arg-type]
        for a, b in zip(left, right, strict=True)
    )


def train_keys(shards: Path, folder: Path) -> set[str]:
    """Keys of the training split by the names in its tar files, with Python's tarfile."""
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
        assert Counter(keys(epoch(loader))) == Counter(expected)


def test_last_batch_holds_the_rest(shards: Path) -> None:
    total = manifest.load(shards).splits["train"].samples
    batch_size = next(size for size in (7, 8, 9) if total % size)
    loader = Loader(config(shards, batch_size=batch_size))
    sizes = [len(batch.images) for batch in epoch(loader)]
    assert sizes == [batch_size] * (total // batch_size) + [total % batch_size]
    assert len(loader) == len(sizes)
    assert [len(batch.info) for batch in epoch(loader)] == sizes


def test_batch_larger_than_the_split(shards: Path, nuclei_folder: Path) -> None:
    (batch,) = epoch(Loader(config(shards, batch_size=500)))
    assert len(batch.images) == len(train_keys(shards, nuclei_folder))


def test_batch_has_the_documented_shapes_and_types(shards: Path) -> None:
    batch = epoch(Loader(config(shards, augment=Augment())))[0]
    assert batch.images.shape == (8, 32, 32, 3)
    assert batch.images.dtype == torch.uint8
    assert batch.masks is not None
    assert batch.masks.shape == (8, 32, 32)
    assert batch.masks.dtype == torch.uint8


def test_masks_hold_0_and_1(shards: Path) -> None:
    for augment in (None, Augment()):
        values = {int(v) for batch in epoch(Loader(config(shards, augment=augment))) for v in batch.masks.unique()}  # type: ignore[union-attr]
        assert values == {0, 1}


def test_masks_and_info_only_where_asked_for(shards: Path) -> None:
    batch = epoch(Loader(config(shards, masks=False, info=False)))[0]
    assert batch.masks is None
    assert batch.info == []


def test_without_augmentation_pixels_at_own_size_are_exact(shards: Path, nuclei_folder: Path) -> None:
    for batch in epoch(Loader(config(shards, size=64))):
        for image, mask, info in zip(batch.images, batch.masks, batch.info, strict=True):  # type: ignore[arg-type]
            pixels = cv2.imread(str(nuclei_folder / info["source"]), cv2.IMREAD_COLOR_RGB)
            truth = cv2.imread(str(nuclei_folder / info["source"].replace("images/", "masks/")), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(image.numpy(), pixels)
            np.testing.assert_array_equal(mask.numpy(), truth // 255)


def test_halving_is_close_to_pillows_antialiased_resize(shards: Path, nuclei_folder: Path) -> None:
    for batch in epoch(Loader(config(shards, size=32))):
        for image, info in zip(batch.images, batch.info, strict=True):
            with Image.open(nuclei_folder / info["source"]) as opened:
                expected = np.asarray(opened.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
            assert np.abs(image[..., 0].numpy() - expected).mean() < 1


def test_without_augmentation_each_epoch_is_the_same(shards: Path) -> None:
    loader = Loader(config(shards))
    assert same(epoch(loader), epoch(loader))


def test_same_seed_gives_the_same_batches_and_another_seed_others(shards: Path) -> None:
    first, again, other = (epoch(Loader(config(shards, augment=Augment(), seed=seed))) for seed in (3, 3, 4))
    assert same(first, again)
    assert keys(first) != keys(other)
    assert not torch.equal(first[0].images, other[0].images)


def test_epochs_differ_in_order_and_pixels(shards: Path) -> None:
    loader = Loader(config(shards, augment=Augment()))
    first, second = epoch(loader), epoch(loader)
    assert keys(first) != keys(second)
    images = [{i["key"]: p for b in e for i, p in zip(b.info, b.images, strict=True)} for e in (first, second)]
    assert not any(torch.equal(images[0][key], images[1][key]) for key in images[0])


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards in which each image is its mask times 255: three blobs in each, not symmetric."""
    folder = tmp_path_factory.mktemp("twins")
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        mask = np.zeros((96, 128), np.uint8)
        for _ in range(3):
            centre = (int(rng.integers(15, 113)), int(rng.integers(15, 81)))
            cv2.circle(mask, centre, int(rng.integers(8, 20)), 255, -1)
        for kind in ("images", "masks"):
            cv2.imwrite(str(folder / kind / f"{i}.png"), mask)
    out = tmp_path_factory.mktemp("twin_shards") / "out"
    shard.write(ShardConfig(folder, out, images="images/*", masks="masks/*"))
    return out


def test_masks_take_the_geometry_of_their_images(twins: Path) -> None:
    loader = Loader(config(twins, size=64, augment=Augment(crop=0.5, jitter=0, hue=0)))
    for batch in [batch for _ in range(3) for batch in epoch(loader)]:
        for image, mask in zip(batch.images, batch.masks, strict=True):  # type: ignore[arg-type]
            agree = ((image[..., 0] > 127) == mask.bool()).float().mean().item()
            assert agree >= 0.97


def test_flips_without_crop_show_all_four_orientations(twins: Path) -> None:
    plain = Loader(config(twins, size=64))
    upright = {i["key"]: m for b in epoch(plain) for i, m in zip(b.info, b.masks, strict=True)}  # type: ignore[arg-type]
    loader = Loader(config(twins, size=64, augment=Augment(crop=1.0, jitter=0, hue=0)))
    seen = set()
    for batch in [batch for _ in range(2) for batch in epoch(loader)]:
        for info, mask in zip(batch.info, batch.masks, strict=True):  # type: ignore[arg-type]
            turns = [torch.flip(upright[info["key"]], dims) for dims in ((), (0,), (1,), (0, 1))]
            agree = [(turn == mask).float().mean().item() for turn in turns]
            assert max(agree) >= 0.97
            seen.add(int(np.argmax(agree)))
    assert seen == {0, 1, 2, 3}


def test_crop_1_without_flip_and_jitter_is_the_plain_resize(twins: Path) -> None:
    plain = {i["key"]: p for b in epoch(Loader(config(twins, size=64))) for i, p in zip(b.info, b.images, strict=True)}
    augment = Augment(crop=1.0, flip=False, jitter=0, hue=0)
    for batch in epoch(Loader(config(twins, size=64, augment=augment))):
        for info, image in zip(batch.info, batch.images, strict=True):
            assert (image.int() - plain[info["key"]].int()).abs().float().mean() < 0.5


def test_jitter_changes_pixels_not_masks(twins: Path) -> None:
    plain = {i["key"]: m for b in epoch(Loader(config(twins))) for i, m in zip(b.info, b.masks, strict=True)}  # type: ignore[arg-type]
    brightest = set()
    for batch in epoch(Loader(config(twins, augment=Augment(crop=1.0, flip=False, jitter=0.5, hue=6)))):
        for info, image, mask in zip(batch.info, batch.images, batch.masks, strict=True):  # type: ignore[arg-type]
            assert (mask == plain[info["key"]]).float().mean() > 0.97
            brightest.add(int(image.max()))
    assert len(brightest) > 3


@pytest.mark.parametrize(("jitter", "hue"), [(0.2, 0.0), (0.0, 6.0), (0.2, 6.0)])
def test_jitter_and_hue_work_alone_and_together(jitter: float, hue: float, shards: Path) -> None:
    plain = epoch(Loader(config(shards)))
    order = {info["key"]: image for batch in plain for info, image in zip(batch.info, batch.images, strict=True)}
    chosen = Augment(crop=1.0, flip=False, jitter=jitter, hue=hue)
    changes = [
        (image.int() - order[info["key"]].int()).abs().float().mean().item()
        for batch in epoch(Loader(config(shards, augment=chosen)))
        for info, image in zip(batch.info, batch.images, strict=True)
    ]
    assert len(changes) == len(order)
    assert max(changes) < 60  # still the same image
    assert (max(changes) > 2) == (jitter > 0)  # a turn of the hue leaves gray images as they are


def test_unknown_split_names_those_that_exist(shards: Path) -> None:
    with pytest.raises(ValueError, match=r"split 'trian'.* train, val, test"):
        Loader(config(shards, split="trian"))


@pytest.fixture(scope="module")
def some_without_masks(nuclei_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 20 images, of which those with an even number have a mask."""
    folder = tmp_path_factory.mktemp("some")
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
        for i in range(0, 20, 1 if kind == "images" else 2):
            (folder / kind / f"{i:04d}.png").symlink_to(nuclei_folder / kind / f"nuclei_{i:04d}.png")
    text = 'name = "some"\n[[images]]\npath = "images/*"\nmasks = "masks/*"\nsplit = "train"\n'
    (folder / "some.toml").write_text(text)
    out = tmp_path_factory.mktemp("some_shards") / "out"
    shard.write(ShardConfig(folder, out, recipe=str(folder / "some.toml")))
    return out


def test_samples_without_a_mask_are_passed_over_where_masks_are_asked_for(some_without_masks: Path) -> None:
    loader = Loader(config(some_without_masks, augment=Augment()))
    for _ in range(2):
        assert sorted(keys(epoch(loader))) == [f"{i:04d}" for i in range(0, 20, 2)]
    assert loader.samples == 10


def test_samples_without_a_mask_come_where_masks_are_not_asked_for(some_without_masks: Path) -> None:
    loader = Loader(config(some_without_masks, masks=False))
    assert sorted(keys(epoch(loader))) == [f"{i:04d}" for i in range(20)]


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

    monkeypatch.setattr("medsass.data.decoder.importlib.import_module", absent)
    with pytest.raises(ImportError, match=r"medsass\[cuda13\]"):
        Loader(config(shards))


@pytest.fixture(scope="module", params=["png", "jp2"])
def deep(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 16-bit images, 40 x 48 pixels."""
    return built.build(tmp_path_factory.mktemp("deep") / "out", 16, request.param)


def by_key(batches: list[Batch]) -> dict[str, np.ndarray]:
    """Images by key, computed with as int64."""
    pairs = [(i["key"], p.numpy().astype(np.int64)) for b in batches for i, p in zip(b.info, b.images, strict=True)]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@pytest.mark.parametrize("augment", [None, Augment()], ids=["plain", "augmented"])
def test_16_bit_batches_have_the_documented_shape_and_type(deep: Path, augment: Augment | None) -> None:
    loader = Loader(config(deep, augment=augment))
    assert loader.depth == 16
    for batch in epoch(loader):
        assert batch.images.dtype == torch.uint16
        assert batch.images.shape == (len(batch.info), 32, 32)
        assert batch.masks is not None
        assert batch.masks.shape == batch.images.shape
        assert set(batch.masks.unique().tolist()) == {0, 1}


def square(folder: Path, depth: int, side: int) -> Path:
    """Shards whose images `built.sample` gives, cut to a square, so that a resize to their own size does nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(built, "SIZE", (side, side))
        return built.build(folder, depth)


def test_16_bit_pixels_at_own_size_are_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = square(tmp_path / "square", 16, 40)
    monkeypatch.setattr(built, "SIZE", (40, 40))
    found = by_key(epoch(Loader(config(folder, size=40))))
    assert len(found) == 20
    for key, image in found.items():
        np.testing.assert_array_equal(image, built.sample(key, 16)[0])


def test_16_bit_halving_is_pillows_antialiased_resize(deep: Path) -> None:
    for key, image in by_key(epoch(Loader(config(deep, size=20)))).items():
        source = Image.fromarray(built.sample(key, 16)[0].astype(np.float32), "F")
        expected = np.asarray(source.resize((20, 20), Image.Resampling.BILINEAR))
        inner = np.abs(image - expected)[1:-1, 1:-1]
        assert inner.max() <= 1
        assert np.abs(image - expected).mean() < 0.01 * (expected.max() - expected.min())


def test_16_bit_images_and_masks_take_the_same_geometry(deep: Path) -> None:
    loader = Loader(config(deep, size=40, augment=Augment(jitter=0)))
    for batch in [batch for _ in range(3) for batch in epoch(loader)]:
        for image, mask in zip(batch.images.int(), batch.masks, strict=True):  # type: ignore[arg-type]
            middle = (int(image.max()) + 300) / 2
            assert ((image > middle) == mask.bool()).float().mean() > 0.94


def test_16_bit_flips_move_pixels_and_change_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = square(tmp_path / "square", 16, 40)
    monkeypatch.setattr(built, "SIZE", (40, 40))
    seen = set()
    loader = Loader(config(folder, size=40, augment=Augment(crop=1, jitter=0, hue=0)))
    for _ in range(2):
        for key, image in by_key(epoch(loader)).items():
            upright = built.sample(key, 16)[0]
            turns = [upright, upright[::-1], upright[:, ::-1], upright[::-1, ::-1]]
            seen.add(next(i for i, turn in enumerate(turns) if np.array_equal(image, turn)))
    assert seen == {0, 1, 2, 3}


def test_16_bit_jitter_scales_brightness_and_contrast_about_the_mean(deep: Path) -> None:
    """y = b (m + c (x - m)): a straight line through (m, b m), with b and c within 1 +- jitter."""
    plain = by_key(epoch(Loader(config(deep))))
    slopes = []
    for key, image in by_key(epoch(Loader(config(deep, augment=Augment(1.0, False, 0.3, 6.0))))).items():
        x, y = plain[key].ravel().astype(float), image.ravel()
        kept = y > 0  # what is not clipped to black
        slope, start = np.polyfit(x[kept], y[kept], 1)
        assert np.abs(np.clip(slope * x + start, 0, None) - y).max() <= 1
        brightness = (slope * x.mean() + start) / x.mean()
        assert 0.69 <= brightness <= 1.31
        assert 0.69 <= slope / brightness <= 1.31
        slopes.append((round(brightness, 2), round(slope / brightness, 2)))
    assert len({b for b, _ in slopes}) > 5
    assert len({c for _, c in slopes}) > 5


def test_16_bit_without_jitter_ignores_hue(deep: Path) -> None:
    plain, turned = (by_key(epoch(Loader(config(deep, augment=a)))) for a in (None, Augment(1.0, False, 0.0, 90.0)))
    for key, image in plain.items():
        assert np.abs(image - turned[key]).max() <= 1


def test_png_and_jpeg_2000_give_the_same_16_bit_batches(tmp_path: Path) -> None:
    one, other = (built.build(tmp_path / e, 16, e) for e in ("png", "jp2"))
    assert same(*(epoch(Loader(config(folder, augment=Augment()))) for folder in (one, other)))


def test_real_16_bit_microscopy_comes_through_exactly(real_data: Path, tmp_path: Path) -> None:
    paths = sorted((real_data / "bitdepth_nucseg" / "images_16bit").glob("*.tif"))[:4]
    images = {f"train_{i:03d}": cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for i, path in enumerate(paths)}
    assert all(image.dtype == np.uint16 and image.shape == (512, 512) for image in images.values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(built, "sample", lambda key, _: (images[key], np.zeros((512, 512), np.uint8)))
        folder = built.build(tmp_path / "real", 16, splits={"train": len(images)})
    found = by_key(epoch(Loader(config(folder, size=512))))
    assert found.keys() == images.keys()
    for key, image in found.items():
        np.testing.assert_array_equal(image, images[key])


@pytest.mark.gpu
def test_16_bit_batches_of_the_gpu_are_the_cpus(deep: Path) -> None:
    plain, other = (epoch(Loader(config(deep, device=device))) for device in ("cpu", "cuda"))
    for a, b in zip(plain, other, strict=True):
        assert b.images.is_cuda
        assert b.images.dtype == torch.uint16
        assert (a.images.int() - b.images.cpu().int()).abs().max() <= 1
        assert (a.masks != b.masks.cpu()).float().mean() < 0.01  # type: ignore[union-attr]


@pytest.mark.gpu
def test_16_bit_jitter_on_the_gpu_is_a_straight_line(deep: Path) -> None:
    plain = by_key(epoch(Loader(config(deep))))
    batches = epoch(Loader(config(deep, device="cuda", augment=Augment(1.0, False, 0.3, 6.0))))
    for key, image in by_key([Batch(b.images.cpu(), b.masks, b.info) for b in batches]).items():
        kept = image.ravel() > 0
        slope, start = np.polyfit(plain[key].ravel()[kept], image.ravel()[kept], 1)
        assert np.abs(np.clip(slope * plain[key] + start, 0, None) - image).max() <= 2


def cloned(batches: Loader) -> list[list[torch.Tensor]]:
    """Of each batch its views, computed with as int32."""
    return [[view.int() for view in batch.views] for batch in batches]


BYOL = Augment(
    area=(0.08, 1.0), vertical=False, jitter=0.4, hue=36.0, saturation=0.2, jitter_chance=0.8, gray=0.2, blur=1.0
)
FURTHER = (View(32, replace(BYOL, blur=0.1, solarize=0.2)), View(16, replace(BYOL, area=(0.05, 0.4))), View(24))


@pytest.fixture(scope="module")
def plain_colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 20 images of which each has one red and one blue of its own; green is random."""

    def sample(key: str, _depth: int) -> tuple[np.ndarray, np.ndarray]:
        number = int(key.split("_")[1])
        bgr = np.random.default_rng(number).integers(0, 256, (40, 48, 3)).astype(np.uint8)
        bgr[..., 0], bgr[..., 2] = number, 255 - number
        return bgr, (bgr[..., 1] > 127).astype(np.uint8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(built, "sample", sample)
        return built.build(tmp_path_factory.mktemp("colours") / "out")


def test_views_are_of_the_same_image_and_differ(plain_colours: Path) -> None:
    augment = Augment(crop=0.3, jitter=0, hue=0)
    loader = Loader(config(plain_colours, augment=augment, more=(View(32, augment), View(20, augment))))
    for batch in loader:
        numbers = torch.tensor([int(info["key"].split("_")[1]) for info in batch.info])
        for view in batch.views:
            assert (view[..., 2] == numbers[:, None, None]).all()
            assert (view[..., 0] == 255 - numbers[:, None, None]).all()
        assert not any(torch.equal(a, b) for a, b in zip(batch.images, batch.more[0], strict=True))


@pytest.mark.parametrize("depth", [8, 16])
def test_each_view_has_its_own_size_and_repeats_with_its_seed(depth: int, tmp_path: Path) -> None:
    chosen = config(built.build(tmp_path / "out", depth), augment=BYOL, more=FURTHER, masks=False)
    loader = Loader(chosen)
    first = cloned(loader)
    assert [view.shape[1:3] for view in first[0]] == [(32, 32), (32, 32), (16, 16), (24, 24)]
    for a, b in zip(first, cloned(Loader(chosen)), strict=True):
        assert all(map(torch.equal, a, b))


def test_further_views_leave_the_first_views_masks_and_stay_plain_where_asked(twins: Path) -> None:
    augment = Augment(crop=0.5, jitter=0, hue=0)
    plain = {i["key"]: p for b in epoch(Loader(config(twins, size=64))) for i, p in zip(b.info, b.images, strict=True)}
    for batch in Loader(config(twins, size=64, augment=augment, more=(View(64, augment), View(64)))):
        agree = [((view[..., 0] > 127) == batch.masks.bool()).float().mean((1, 2)) for view in batch.views]  # type: ignore[union-attr]
        assert (agree[0] >= 0.97).all()
        assert (agree[1] < 0.97).any()
        for info, view in zip(batch.info, batch.more[1], strict=True):
            assert torch.equal(view, plain[info["key"]])


def test_samples_are_shuffled_where_any_view_is_augmented(shards: Path) -> None:
    plain, mixed = (Loader(config(shards, more=more)) for more in ((), (View(16, Augment()),)))
    assert [keys(epoch(plain)), keys(epoch(plain))] != [keys(epoch(mixed)), keys(epoch(mixed))]
    first, second = keys(epoch(mixed)), keys(epoch(mixed))
    assert first != second


ALL = {"augment": BYOL, "more": (View(20, replace(BYOL, crop=0.5)), View(24)), "masks": True, "info": True}


def assert_same(one: Batch, other: Batch) -> None:
    for a, b in zip(one.views, other.views, strict=True):
        assert torch.equal(a.int(), b.int())
    assert (one.masks is None) == (other.masks is None)
    assert one.masks is None or torch.equal(one.masks, other.masks)  # type: ignore[arg-type]
    assert (one.keys, one.info, one.share) == (other.keys, other.info, other.share)


@pytest.mark.parametrize("options", [{}, {"augment": Augment()}, ALL, {**ALL, "fraction": 0.6, "parts": 2}])
@pytest.mark.parametrize("depth", [8, 16])
def test_a_new_loader_goes_on_from_any_batch(options: dict[str, object], depth: int, tmp_path: Path) -> None:
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


def test_an_epoch_behind_its_end_is_empty(shards: Path) -> None:
    loader = Loader(config(shards))
    assert list(loader.epoch(3, len(loader))) == []
    assert list(loader.epoch(3, len(loader) + 5)) == []


def test_abandoned_and_interleaved_epochs_disturb_no_other(shards: Path) -> None:
    loader = Loader(config(shards, augment=Augment()))
    epochs = [list(loader.epoch(number)) for number in range(2)]
    abandoned = loader.epoch(0)
    next(abandoned)
    one, other = loader.epoch(0), loader.epoch(1)
    for number in range(len(loader)):
        assert_same(next(one), epochs[0][number])
        assert_same(next(other), epochs[1][number])
    assert_same(next(abandoned), epochs[0][1])


def test_going_through_a_loader_gives_epoch_after_epoch(shards: Path) -> None:
    loader, other = (Loader(config(shards, augment=Augment())) for _ in range(2))
    for number in range(3):
        for one, again in zip(loader, other.epoch(number), strict=True):
            assert_same(one, again)


def test_batches_may_be_kept(shards: Path) -> None:
    """DALI must not write to memory that it has given away."""
    loader = Loader(config(shards, **ALL))
    kept = [(batch, [view.clone() for view in batch.views], batch.masks.clone()) for _ in range(3) for batch in loader]  # type: ignore[union-attr]
    assert len({batch.images.data_ptr() for batch, *_ in kept}) == len(kept)
    for batch, views, masks in kept:
        assert all(map(torch.equal, batch.views, views))
        assert torch.equal(batch.masks, masks)  # type: ignore[arg-type]


def test_keys_are_those_of_the_samples(shards: Path) -> None:
    for options in ({}, {"augment": Augment(), "info": True}):
        for batch in Loader(config(shards, **{**options, "info": True})):
            assert list(batch.keys) == [info["key"] for info in batch.info]
    (batch, *_) = Loader(config(shards, masks=False, info=False))
    assert len(batch.keys) == len(batch.images) == 8


@pytest.mark.parametrize("options", [ALL, {"augment": None}, {"augment": Augment()}], ids=["all", "plain", "augmented"])
@pytest.mark.parametrize(("world", "parts"), [(1, 2), (2, 1), (2, 2), (4, 1)])
def test_any_ranks_and_parts_see_the_same_images(
    world: int, parts: int, options: dict[str, object], shards: Path
) -> None:
    chosen = config(shards, batch_size=12, seed=3, **options)
    ranks = [Loader(replace(chosen, world=world, rank=rank, parts=parts)) for rank in range(world)]
    assert {loader.steps for loader in ranks} == {Loader(chosen).steps}
    for number in range(2):
        whole = list(Loader(chosen).epoch(number))
        found = [list(loader.epoch(number)) for loader in ranks]
        assert [len(batches) for batches in found] == list(map(len, ranks))
        steps = [
            [batches[step * parts + part] for part in range(parts) for batches in found if step * parts + part < len(batches)]
            for step in range(len(whole))
        ]  # fmt: skip
        for one, step in zip(whole, steps, strict=True):
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


def test_a_batch_size_that_cannot_be_dealt_out_is_refused(shards: Path) -> None:
    with pytest.raises(ValueError, match=r"--batch-size 10 .* 4 such as 8"):
        Loader(config(shards, batch_size=10, world=2, parts=2))


@pytest.fixture
def copy(shards: Path, tmp_path: Path) -> Path:
    """Shards that may be damaged."""
    return Path(shutil.copytree(shards, tmp_path / "copy"))


def member(shards: Path, extension: str) -> tuple[Path, str, int, int]:
    """Of a member of the last training tar file: tar, key, offset and size."""
    path = sorted(shards.glob("train-*.tar"))[-1]
    with tarfile.open(path) as opened:
        found = [
            info for info in opened if info.name.endswith(f"0.{extension}") or info.name.endswith(f"1.{extension}")
        ][-1]
    return path, found.name.split(".")[0], found.offset_data, found.size


@pytest.mark.parametrize("cache", ["none", "host"])
@pytest.mark.parametrize("extension", ["png", "mask.png"])
def test_a_sample_that_cannot_be_decoded_is_named(extension: str, cache: str, copy: Path) -> None:
    path, key, offset, size = member(copy, extension)
    data = bytearray(path.read_bytes())
    data[offset + 30 : offset + size] = bytes(size - 30)
    path.write_bytes(data)
    loader = Loader(config(copy, cache=cache, augment=Augment()))
    with pytest.raises(ValueError, match=rf"^{path}: sample {key}: the training decoder .*verify {copy}$") as error:
        list(loader)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("cache", ["none", "host"])
def test_a_tar_that_is_cut_off_while_it_is_read_is_named(cache: str, copy: Path) -> None:
    loader = Loader(config(copy, cache=cache))
    path, _, offset, _ = member(copy, "png")
    path.write_bytes(path.read_bytes()[: offset + 10])
    with pytest.raises(
        ValueError, match=rf"^{path}: sample .*: the tar file ends before it does; run: .*verify {copy}$"
    ):
        list(loader)


def test_a_json_that_cannot_be_read_is_named_where_it_is_needed(copy: Path) -> None:
    path, key, offset, size = member(copy, "json")
    data = bytearray(path.read_bytes())
    data[offset : offset + size] = b"x" * size
    path.write_bytes(data)
    assert sum(len(batch.images) for batch in Loader(config(copy, info=False)))
    for options in ({"info": True}, {"augment": Augment(area=(0.2, 1.0)), "info": False}):
        with pytest.raises(ValueError, match=rf"^{path}: sample {key}: its JSON cannot be read; run: .*verify {copy}$"):
            list(Loader(config(copy, **options)))


def test_a_json_without_sizes_is_named_where_they_are_needed(copy: Path) -> None:
    path, key, offset, size = member(copy, "json")
    data = path.read_bytes()
    text = data[offset : offset + size].replace(b'"width"', b'"wydth"')
    path.write_bytes(data[:offset] + text + data[offset + size :])
    assert sum(len(batch.images) for batch in Loader(config(copy)))
    with pytest.raises(ValueError, match=f"sample {key}: its JSON does not say its height and width"):
        list(Loader(config(copy, augment=Augment(area=(0.2, 1.0)))))


def test_sizes_in_the_json_are_those_of_the_decoded_images(tmp_path: Path) -> None:
    """By which crops by area go: also of files that say that they are to be turned."""
    source = tmp_path / "source"
    source.mkdir()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for name in ("jpg", "png", "tif", "webp"):
            picture.save(source / f"{orientation}.{name}", exif=exif)
    picture.save(source / "plain.jp2")
    picture.convert("L").save(source / "gray.jpg")
    text = 'name = "turned"\n[[images]]\npath = "source/*"\nsplit = "train"\n'
    (tmp_path / "turned.toml").write_text(text)
    shard.write(ShardConfig(tmp_path, tmp_path / "out", recipe=str(tmp_path / "turned.toml"), near_duplicates=False))
    plain = Loader(config(tmp_path / "out", masks=False, cache="host", batch_size=1))
    sizes = [(batch.info[0]["height"], batch.info[0]["width"]) for batch in plain]
    assert plain._cache
    assert len(sizes) > 20
    assert {(20, 30), (30, 20)} == set(sizes)
    assert [tuple(size) for size in plain._cache.sizes.tolist()] == sizes


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
        next(batches)  # and the rest is left
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
