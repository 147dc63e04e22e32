"""The check by the training decoder: what it sees, what it forgives, and what it says on stderr."""

import io
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pytest
import skimage.data
from PIL import Image

from medsass.config import ShardConfig
from medsass.data.formats.damage import REMEDY
from medsass.data.sharding import shard
from medsass.data.sharding.phash import perceptual_hash
from medsass.data.sharding.sample import Sample
from medsass.data.sharding.workers.decodable import checker, looks_like_mask
from medsass.data.sharding.workers.tasks import Made, Rejected
from tests.support.effort import counted


def jpeg(seed: int) -> bytes:
    array = np.random.default_rng(seed).integers(0, 256, (40, 56, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG")
    return buffer.getvalue()


def made(data: bytes, width: int = 56) -> Made:
    meta = {"source": "a.jpg", "width": width, "height": 40}
    return Made(0, 0, Sample("a", "train", {"jpg": data}, "jpg", meta))


def checked(*samples: Made, near_duplicates: bool = False) -> list[Made]:
    return checker(ShardConfig(Path(), Path(), near_duplicates=near_duplicates))(list(samples))


def reason(one: Made) -> str:
    assert isinstance(one.result, Rejected)
    return one.result.reason


def test_good_samples_pass_beside_bad_ones(capfd: pytest.CaptureFixture[str]) -> None:
    cut = jpeg(1)[:-900] + b"\xff\xd9"  # libjpeg paints the rest gray, and warns
    assert Image.open(io.BytesIO(cut)).convert("RGB").size == (56, 40)
    rubbish = jpeg(2)[:-2] + b"\0\0rubbish\xff\xd9"  # a harmless warning
    samples = [made(jpeg(0)), made(cut), made(rubbish), made(b"no image"), made(jpeg(3), width=50), Made(1, 0, None)]
    found = checked(*samples)
    assert [found[0], found[2], found[5]] == [samples[0], samples[2], samples[5]]
    assert reason(found[1]) == f"truncated JPEG: its pixel data end early; {REMEDY}"
    assert reason(found[3]).startswith("not an image file that can be read; ")
    assert reason(found[4]) == "the training decoder sees 56x40 pixels, the file says 50x40; save it anew as PNG"
    assert "premature end of data segment" in capfd.readouterr().err  # handed on


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_decoding_as_gray_finds_the_damage_that_decoding_in_colour_finds(options: dict[str, Any]) -> None:
    """Bytes are changed or cut out anywhere behind the headers, so also where they hold colour alone."""
    rng, buffer, samples = random.Random(0), io.BytesIO(), list[Made]()
    Image.fromarray(skimage.data.astronaut()[40:80, 200:256]).save(buffer, "JPEG", **options)
    whole = buffer.getvalue()
    start = whole.index(b"\xff\xda")
    for _ in range(counted(60, 1500)):
        data = bytearray(whole)
        for _ in range(rng.randint(0, 2)):
            at = rng.randrange(start, len(data) - 2)
            data[at : at + rng.choice((0, 1))] = rng.choice((b"", rng.randbytes(1), b"\xff\xd9"))
        samples.append(made(bytes(data)))
    checkers = [checker(ShardConfig(Path(), Path(), near_duplicates=near)) for near in (False, True)]
    by_gray, by_colour = (
        [one for sample in samples for one in check([sample])] for check in checkers
    )  # DALI may die of batches
    assert [type(one.result) for one in by_gray] == [type(one.result) for one in by_colour]
    assert {type(one.result) for one in by_gray} == {Sample, Rejected}


def test_more_images_than_the_decoder_takes_at_once_keep_their_order() -> None:
    samples = [made(jpeg(seed)) for seed in range(70)]
    for one, sample in zip(checked(*samples, near_duplicates=True), samples, strict=True):
        assert one.result is sample.result
        assert isinstance(sample.result, Sample)
        pixels = np.asarray(Image.open(io.BytesIO(sample.result.files["jpg"])))
        assert one.phash is not None
        assert np.bitwise_count(np.int64(one.phash) ^ np.int64(perceptual_hash(pixels))) <= 2


def test_images_of_two_gray_values_are_told_and_no_others() -> None:
    disc = cv2.circle(np.zeros((90, 200), np.uint8), (60, 40), 30, 255, -1)
    noise = np.random.default_rng(0).normal(0, 2, disc.shape)
    soft = cv2.imdecode(cv2.imencode(".jpg", disc)[1], cv2.IMREAD_COLOR)
    for image, lossy, expected in (
        (disc[..., None], False, True),
        (disc[..., None] // 255, False, True),
        (np.repeat(disc[..., None], 3, 2), False, True),
        (soft, True, True),
        (soft, False, True),
        (np.clip(disc + noise, 0, 255).astype(np.uint8)[..., None], False, False),
        (np.stack([disc, disc // 2, disc], 2), False, False),  # two colours
        (np.zeros((90, 200, 1), np.uint8), False, None),
        (disc[:1, :1, None], False, None),
    ):
        assert looks_like_mask(image, lossy) is expected
    photo = skimage.data.retina()[:600, :600]
    assert not looks_like_mask(photo, True)
    assert not looks_like_mask(photo, False)


@pytest.mark.parametrize("scale", [1, 40])
def test_label_maps_are_told_from_pictures_of_as_few_values(scale: int) -> None:
    rng, labels = np.random.default_rng(0), np.zeros((128, 160), np.uint8)
    for label in (3, 1, 6, 2, 5, 4):
        x, y = (int(v) for v in rng.integers(20, 110, 2))
        cv2.circle(labels, (x, y), 14, label * scale, -1)
    palette = rng.integers(0, 256, (256, 3), np.uint8)
    nested = cv2.circle(
        cv2.circle(np.zeros((128, 160), np.uint8), (80, 60), 40, scale, -1), (80, 60), 20, 2 * scale, -1
    )
    for shown in (labels[..., None], palette[labels], nested[..., None]):
        assert looks_like_mask(shown, lossy=False)
    smooth = cv2.GaussianBlur(rng.normal(size=(128, 160)), (0, 0), 6)
    smooth = cv2.normalize(smooth, None, 0, 12, cv2.NORM_MINMAX).astype(np.uint8) * np.uint8(min(scale, 20))
    dim = rng.poisson(1.5, (128, 160)).astype(np.uint8) * np.uint8(min(scale, 20))
    spots = np.zeros((128, 160))
    for x, y in rng.integers(20, 108, (12, 2)):
        spots[y, x] = 1
    spots = cv2.normalize(cv2.GaussianBlur(spots, (0, 0), 5), None, 0, 5, cv2.NORM_MINMAX).round().astype(np.uint8)
    green = np.stack([spots * 0, spots, spots * 0], 2)
    for picture in (smooth[..., None], dim[..., None], spots[..., None], green):
        assert not looks_like_mask(picture, lossy=False)


def test_label_volumes_among_images_are_refused_though_slices_are_blank(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for case in range(3):
        (tmp_path / "source" / f"{case}").mkdir(parents=True)
        labels = np.zeros((40, 48, 4), np.uint8)
        labels[10:20, 12 + case : 30, 1:3], labels[20:30, 12 + case : 30, 2] = 1, 2
        for name, array in (("flair", rng.integers(0, 900, labels.shape, np.int16)), ("wmh", labels)):
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / f"source/{case}/{name}.nii")
    with pytest.raises(
        ValueError, match=r"3 of 6 images hold few values in flat areas, as masks do, such as '\d/wmh.nii'"
    ):
        shard.write(ShardConfig(tmp_path / "source", tmp_path / "out"))


def test_a_png_that_is_sure_is_decoded_only_where_its_pixels_are_wanted() -> None:
    """The wrong size in its JSON, which no file has, tells whether it was decoded."""
    noise = np.random.default_rng(0).integers(0, 100, (80, 70), np.uint8)
    two = np.where(noise > 49, 255, 0).astype(np.uint8)
    for pixels, level, near, seen in (
        (noise, 3, False, False),
        (noise, 3, True, True),
        (two, 9, False, True),
        (two, 0, False, True),
    ):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=level)
        meta = {"source": "a.png", "width": 70, "height": 79}
        sample = Sample("a", "train", {"png": buffer.getvalue()}, "png", meta, sure=True)
        (found,) = checked(Made(0, 0, sample), near_duplicates=near)
        assert isinstance(found.result, Rejected if seen else Sample)
        (found,) = checked(Made(0, 0, replace(sample, sure=False)))
        assert isinstance(found.result, Rejected)


def test_images_that_look_like_masks_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 30), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"source/a{i}.png")
        Image.fromarray(np.where(pixels > 99, 255, 0).astype(np.uint8)).save(tmp_path / f"source/a{i}_lesion.png")
    for images in ("*", "**/*"):
        notes = shard.write(ShardConfig(tmp_path / "source", tmp_path / "out", images=images, overwrite=True)).notes
        told = r"WARNING: 4 of 8 images hold few values in flat areas, as masks do, such as a\d_lesion.png; if they are masks, --images"
        assert any(re.match(told, note) for note in notes)
    reason = "source: 4 of 8 images hold .*, such as 'a._lesion.png', unlike 'a..png'; --images .* if all are images$"
    with pytest.raises(ValueError, match=reason):
        shard.write(ShardConfig(tmp_path / "source", tmp_path / "refused"))
    assert not (tmp_path / "refused").exists()
    for i in range(2):
        (tmp_path / f"source/a{i}_lesion.png").unlink()  # two of six may be by chance
    notes = shard.write(ShardConfig(tmp_path / "source", tmp_path / "few")).notes
    assert any(note.startswith("WARNING: 2 of 6 images hold few values in flat areas") for note in notes)
    for path in (tmp_path / "source").glob("a?.png"):
        path.unlink()
    notes = shard.write(ShardConfig(tmp_path / "source", tmp_path / "flat")).notes
    assert any(note.startswith("WARNING: 2 of 2 images hold few values in flat areas") for note in notes)


def test_a_few_bright_spots_between_the_pixels_that_are_looked_at_are_more_than_two_values() -> None:
    pixels = np.zeros((1024, 1024, 1), np.uint8)
    pixels[64, 64] = 200
    assert looks_like_mask(pixels, lossy=False)
    pixels[65:70, 65:70, 0] = np.arange(25).reshape(5, 5) + 100
    assert not looks_like_mask(pixels, lossy=False)
