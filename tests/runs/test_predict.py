"""Prediction: a mask for each image at its own size, and nothing lost or overwritten."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import load_file

from medsass.config import PredictConfig
from medsass.models import unet
from medsass.runs.predict import predict


def _pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def _image(path: Path, height: int = 40, width: int = 56) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_pixels(height, width)).save(path)
    return path


def _predict(trained: Path, out: Path, *images: Path, **options: bool) -> list[tuple[Path, str]]:
    return predict(PredictConfig(trained, images, out, device="cpu", **options))


def _files(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_masks_have_the_images_size_and_only_0_and_255(trained: Path, tmp_path: Path) -> None:
    images = _image(tmp_path / "a.png", 40, 56), _image(tmp_path / "b.jpg", 33, 17)
    assert _predict(trained, tmp_path / "out", *images) == []
    assert _files(tmp_path / "out") == {"a.png", "b.png"}
    for name, shape in (("a.png", (40, 56)), ("b.png", (33, 17))):
        mask = _read(tmp_path / "out" / name)
        assert (mask.shape, mask.dtype) == (shape, np.uint8)
        assert set(np.unique(mask)) <= {0, 255}


def test_a_mask_at_the_training_size_is_the_networks_answer(trained: Path, nuclei_folder: Path, tmp_path: Path) -> None:
    with Image.open(sorted((nuclei_folder / "images").iterdir())[0]) as image:
        small = image.convert("RGB").resize((32, 32))
    small.save(tmp_path / "a.png")
    _predict(trained, tmp_path / "out", tmp_path / "a.png", probability=True)
    model = unet.build("unet-resnet18")
    model.load_state_dict(load_file(trained / "model.safetensors"))
    with torch.no_grad():
        chance = model.eval()(unet.normalise(torch.from_numpy(np.asarray(small).copy())[None])).sigmoid()[0, 0].numpy()
    mask, stored = _read(tmp_path / "out" / "a.png"), _read(tmp_path / "out" / "a_probability.png")
    assert np.abs(stored.astype(float) / 65535 - chance).max() < 1e-4
    assert np.array_equal(mask[np.abs(chance - 0.5) > 1e-4] > 0, chance[np.abs(chance - 0.5) > 1e-4] > 0.5)


def test_folders_keep_their_sub_folders(trained: Path, tmp_path: Path) -> None:
    for name in ("in/a.png", "in/x/a.png", "in/x/y/b.jpg"):
        _image(tmp_path / name)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    assert _predict(trained, tmp_path / "out", tmp_path / "in") == []
    assert _files(tmp_path / "out") == {"a.png", "x/a.png", "x/y/b.png"}


def test_overlay_and_probability_stand_beside_the_mask(trained: Path, tmp_path: Path) -> None:
    _predict(trained, tmp_path / "out", _image(tmp_path / "a.png"), overlay=True, probability=True)
    assert _files(tmp_path / "out") == {"a.png", "a_overlay.png", "a_probability.png"}
    chance, mask = _read(tmp_path / "out" / "a_probability.png"), _read(tmp_path / "out" / "a.png")
    assert (chance.dtype.itemsize, chance.shape) == (2, (40, 56))
    assert chance[mask == 0].max(initial=0) <= 32768
    assert chance[mask == 255].min(initial=65535) >= 32767
    assert _read(tmp_path / "out" / "a_overlay.png").shape == (40, 56, 3)


def test_an_unreadable_image_is_reported_and_the_others_are_written(trained: Path, tmp_path: Path) -> None:
    images = _image(tmp_path / "in" / "a.png"), tmp_path / "in" / "bad.png", _image(tmp_path / "in" / "c.png")
    images[1].write_bytes(b"not an image")
    failed = _predict(trained, tmp_path / "out", tmp_path / "in")
    assert failed == [(images[1], "not an image file that can be read")]
    assert _files(tmp_path / "out") == {"a.png", "c.png"}


def test_a_truncated_image_is_reported(trained: Path, tmp_path: Path) -> None:
    path = _image(tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:800])
    ((failed, reason),) = _predict(trained, tmp_path / "out", path)
    assert failed == path
    assert "truncated" in reason


def test_two_images_that_would_write_one_mask_are_refused(trained: Path, tmp_path: Path) -> None:
    images = _image(tmp_path / "x" / "a.png"), _image(tmp_path / "y" / "a.jpg")
    with pytest.raises(ValueError, match="would both write"):
        _predict(trained, tmp_path / "out", *images)
    assert not (tmp_path / "out").exists()


def test_an_existing_mask_is_kept_unless_overwrite(trained: Path, tmp_path: Path) -> None:
    path, out = _image(tmp_path / "a.png"), tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        _predict(trained, out, path)
    assert (out / "a.png").read_text() == "mine"
    _predict(trained, out, path, overwrite=True)
    assert _read(out / "a.png").shape == (40, 56)


@pytest.mark.parametrize("kind", ["overlay", "probability"])
def test_an_existing_overlay_or_probability_is_kept_unless_overwrite(trained: Path, tmp_path: Path, kind: str) -> None:
    path, out = _image(tmp_path / "a.png"), tmp_path / "out"
    out.mkdir()
    (out / f"a_{kind}.png").write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        _predict(trained, out, path, **{kind: True})
    assert (out / f"a_{kind}.png").read_text() == "mine"


def test_the_mask_of_one_image_never_replaces_the_overlay_of_another(trained: Path, tmp_path: Path) -> None:
    images = _image(tmp_path / "in" / "a.png"), _image(tmp_path / "in" / "a_overlay.png")
    with pytest.raises(ValueError, match="would both write"):
        _predict(trained, tmp_path / "out", *images, overlay=True)


def test_an_input_is_never_replaced_by_its_mask(trained: Path, tmp_path: Path) -> None:
    path = _image(tmp_path / "a.png")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is an input image"):
        _predict(trained, tmp_path, path, overwrite=True)
    assert path.read_bytes() == before


def test_an_input_is_never_replaced_by_the_mask_of_another(trained: Path, tmp_path: Path) -> None:
    images = _image(tmp_path / "x" / "a.jpg"), _image(tmp_path / "a.png")
    before = images[1].read_bytes()
    with pytest.raises((ValueError, FileExistsError)):
        _predict(trained, tmp_path, *images, overwrite=True)
    assert images[1].read_bytes() == before


def test_a_missing_image_is_named(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.png: no such image or folder"):
        _predict(trained, tmp_path / "out", tmp_path / "none.png")


def test_a_folder_without_images_says_so(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(FileNotFoundError, match="no image in this folder"):
        _predict(trained, tmp_path / "out", tmp_path / "in")


def test_no_image_at_all_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no image given"):
        _predict(trained, tmp_path / "out")


@pytest.mark.parametrize("kind", ["gray", "rgba", "cmyk", "palette", "tiff16", "tiff16 colour"])
def test_other_kinds_of_image_work(trained: Path, tmp_path: Path, kind: str) -> None:
    image, path = Image.fromarray(_pixels(24, 31)), tmp_path / "a.png"
    if kind.startswith("tiff16"):
        deep = _pixels(24, 31).astype(np.uint16) * 257
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, deep if "colour" in kind else deep[..., 0])
    elif kind == "cmyk":
        path = tmp_path / "a.jpg"
        image.convert("CMYK").save(path)
    else:
        image.convert({"gray": "L", "rgba": "RGBA", "palette": "P"}[kind]).save(path)
    assert _predict(trained, tmp_path / "out", path, overlay=True) == []
    assert _read(tmp_path / "out" / "a.png").shape == (24, 31)
    assert _read(tmp_path / "out" / "a_overlay.png").shape == (24, 31, 3)


def test_a_16_bit_image_is_predicted_as_its_8_bit_twin(trained: Path, tmp_path: Path) -> None:
    gray = _pixels(32, 32)[..., 0]
    gray[0, :2] = 0, 255
    tifffile.imwrite(tmp_path / "deep.tif", gray.astype(np.uint16) * 257)
    Image.fromarray(gray).save(tmp_path / "flat.png")
    _predict(trained, tmp_path / "out", tmp_path / "deep.tif", tmp_path / "flat.png", probability=True)
    deep, flat = (_read(tmp_path / "out" / f"{name}_probability.png") for name in ("deep", "flat"))
    assert np.array_equal(deep, flat)
