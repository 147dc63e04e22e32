"""Near-duplicates: real photographs that were resized and compressed again are found."""

import io
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from medsass.data.sharding.journal import Journal
from medsass.data.sharding.phash import MOST_BITS, near_duplicate, perceptual_hash


def found(known: np.ndarray, asked: np.ndarray) -> tuple[str, int] | None:
    journal = Journal(None)
    meta: dict[str, Any] = {"key": "a", "width": 1, "height": 1, "class": None, "converted": "", "sha256": "00" * 32}
    journal.store(0, "train", "png", meta, perceptual_hash(known))
    return near_duplicate(perceptual_hash(asked), *journal.perceptual_hashes("val"))


def test_perceptual_hash_is_imagehashs_phash() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    expected = int(str(imagehash.phash(Image.fromarray(image))), 16)
    assert perceptual_hash(image) % 2**64 == expected


def test_sixteen_bit_images_are_seen_in_eight() -> None:
    image = np.random.default_rng(1).integers(0, 256, (40, 50, 1), np.uint8)
    assert perceptual_hash(image.astype(np.uint16) * 256 + 200) == perceptual_hash(image)


def test_nothing_stored_nothing_found() -> None:
    assert near_duplicate(0, *Journal(None).perceptual_hashes("val")) is None


def test_real_photographs_are_found_again_and_told_apart(real_data: Path) -> None:
    paths = sorted((real_data / "isic2017" / "ISIC-2017_Validation_Data").glob("*.jpg"))[:40]
    for path in paths[:8]:
        image = Image.open(path)
        buffer = io.BytesIO()
        ImageEnhance.Brightness(image.resize((200, 200))).enhance(1.05).save(buffer, "JPEG", quality=60)
        changed = np.asarray(Image.open(buffer))
        hit = found(np.asarray(image), changed)
        assert hit
        assert hit[0] == "train/a"
        assert hit[1] <= MOST_BITS
    hashes = [perceptual_hash(np.asarray(Image.open(path))) for path in paths]
    near = sum(((a ^ b) % 2**64).bit_count() <= MOST_BITS for i, a in enumerate(hashes) for b in hashes[:i])
    assert near <= 2


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "imagehash", None)
    with pytest.raises(ImportError, match=r"--near-duplicates needs ImageHash: pip install 'medsass\[duplicates\]'"):
        perceptual_hash(np.zeros((4, 4, 3), np.uint8))
