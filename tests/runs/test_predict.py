"""Prediction: a mask for each image at its own size, and nothing lost or overwritten."""

from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import load_file

from medsass.config import PredictConfig, TrainConfig
from medsass.data import sources
from medsass.models import checkpoint, unet
from medsass.runs import directory
from medsass.runs.predict import predict

SIZE = 32  # that the runs of this file were trained at


def _pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def _image(path: Path, height: int = 40, width: int = 56) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_pixels(height, width)).save(path)
    return path


def _slide(path: Path, array: np.ndarray, **options: object) -> Path:
    """A tiled TIFF; named .svs, .ndpi or .scn it is a slide."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, tile=(64, 64), compression="zlib", metadata=None, **options)
    return path


def _run(path: Path, **facts: object) -> Path:
    """A run directory with the weights that training would begin with."""
    directory.create(TrainConfig(Path("shards"), path, model="unet-resnet18", size=SIZE), facts)
    torch.manual_seed(0)
    checkpoint.save_weights(path / directory.WEIGHTS, unet.build("unet-resnet18"))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on whole images. Read it, never change it."""
    return _run(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on tiles of 96 pixels. Read it, never change it."""
    return _run(tmp_path_factory.mktemp("tiled") / "run", tile=96)


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """One convolution in place of the U-Net, for tests of what stands around it."""
    torch.manual_seed(0)
    model = torch.nn.Conv2d(3, 1, 7, padding=3).eval()
    monkeypatch.setattr(checkpoint, "load_model", lambda *_: model)


def _predict(trained: Path, out: Path, *images: Path, **options: float) -> list[tuple[Path, str]]:
    return predict(PredictConfig(trained, images, out, device="cpu", **options))  # type: ignore[arg-type]


def _files(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


def _read(path: Path) -> np.ndarray:
    if path.suffix == ".tif":
        return np.asarray(tifffile.imread(path))
    with Image.open(path) as image:
        return np.asarray(image)


def test_masks_have_the_images_size_and_only_0_and_255(trained: Path, tmp_path: Path) -> None:
    images = _image(tmp_path / "a.png", 40, 56), _image(tmp_path / "b.jpg", 33, 17)
    assert _predict(trained, tmp_path / "out", *images) == []
    assert _files(tmp_path / "out") == {"a.png", "b.png"}
    for name, shape in (("a.png", (40, 56)), ("b.png", (33, 17))):
        mask = _read(tmp_path / "out" / name)
        assert (mask.shape, str(mask.dtype)) == (shape, "uint8")
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


def _smooth(height: int, width: int) -> np.ndarray:
    """(height, width) in 0..1, with the whole range within 400 pixels."""
    y, x = np.mgrid[:height, :width]
    return np.asarray(0.5 + 0.5 * np.sin(y / 37) * np.cos(x / 53))


@pytest.mark.usefixtures("light")
def test_a_slide_gets_a_tiled_tiff_of_its_size(trained: Path, tmp_path: Path) -> None:
    slide = _slide(tmp_path / "in" / "a.SVS", _pixels(700, 530))
    assert _predict(trained, tmp_path / "out", slide, tile=128) == []
    assert _files(tmp_path / "out") == {"a.tif"}
    with tifffile.TiffFile(tmp_path / "out" / "a.tif") as tiff:
        page = tiff.pages.first
        assert (page.shape, str(page.dtype), page.tile) == ((700, 530), "uint8", (512, 512))
        assert page.compression.name == "ADOBE_DEFLATE"
    assert set(np.unique(_read(tmp_path / "out" / "a.tif"))) <= {0, 255}


@pytest.mark.usefixtures("light")
def test_a_slides_tile_is_that_of_the_runs_shards_or_the_trained_size(
    trained: Path, tiled: Path, tmp_path: Path
) -> None:
    slide = _slide(tmp_path / "a.svs", _pixels(100, 110))
    for run, side in ((trained, SIZE), (tiled, 96)):
        _predict(run, tmp_path / f"{side}", slide, probability=True)
        for tile in (SIZE, 96):
            _predict(run, tmp_path / f"{side}-{tile}", slide, probability=True, tile=tile)
            same = np.array_equal(
                _read(tmp_path / f"{side}" / "a_probability.tif"),
                _read(tmp_path / f"{side}-{tile}" / "a_probability.tif"),
            )
            assert same == (tile == side)


@pytest.mark.usefixtures("light")
def test_an_image_is_predicted_whole_unless_tile(tiled: Path, tmp_path: Path) -> None:
    image = _image(tmp_path / "a.png", 80, 100)
    for tile in (0, 100, 60):
        _predict(tiled, tmp_path / f"{tile}", image, probability=True, tile=tile)
        assert _files(tmp_path / f"{tile}") == {"a.png", "a_probability.png"}
    whole, one, many = (_read(tmp_path / f"{tile}" / "a_probability.png").astype(int) for tile in (0, 100, 60))
    assert np.array_equal(whole, one)
    assert np.abs(whole - many).max() > 100


def test_tiles_of_the_trained_size_are_the_networks_answers_at_their_middle(trained: Path, tmp_path: Path) -> None:
    pixels = _pixels(64, 96)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    _predict(trained, tmp_path / "out", tmp_path / "a.png", tile=32, overlap=0.0, probability=True)
    model = unet.build("unet-resnet18")
    model.load_state_dict(load_file(trained / "model.safetensors"))
    stored = _read(tmp_path / "out" / "a_probability.png") / 65535
    for y in (0, 32):
        for x in (0, 32, 64):
            tile = torch.from_numpy(pixels[y : y + 32, x : x + 32].copy())[None]
            with torch.no_grad():
                chance = model.eval()(unet.normalise(tile)).sigmoid()[0, 0].numpy()
            assert np.abs(stored[y : y + 32, x : x + 32] - chance).max() < 1e-4


@pytest.mark.usefixtures("light")
def test_an_image_of_too_many_pixels_is_treated_as_a_slide(
    tiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = _slide(tmp_path / "large.tif", _pixels(130, 150)), _slide(tmp_path / "small.tif", _pixels(90, 100))
    monkeypatch.setattr(sources, "MOST_PIXELS", 10_000)
    assert _predict(tiled, tmp_path / "out", large, small) == []
    assert _files(tmp_path / "out") == {"large.tif", "small.png"}
    assert _read(tmp_path / "out" / "large.tif").shape == (130, 150)


@pytest.mark.usefixtures("light")
def test_mask_and_probability_of_a_slide_agree_and_do_not_depend_on_one_another(trained: Path, tmp_path: Path) -> None:
    slide = _slide(tmp_path / "a.svs", _pixels(600, 140))
    _predict(trained, tmp_path / "both", slide, tile=140, probability=True)
    _predict(trained, tmp_path / "mask", slide, tile=140)
    assert _files(tmp_path / "both") == {"a.tif", "a_probability.tif"}
    chance, mask = _read(tmp_path / "both" / "a_probability.tif"), _read(tmp_path / "both" / "a.tif")
    assert (str(chance.dtype), chance.shape) == ("uint16", (600, 140))
    assert 0 < (mask > 0).mean() < 1
    assert np.array_equal(mask > 0, chance > 32767)
    assert np.array_equal(mask, _read(tmp_path / "mask" / "a.tif"))


@pytest.mark.usefixtures("light")
def test_the_overlay_of_a_slide_is_an_overview(trained: Path, tmp_path: Path) -> None:
    slide = _slide(tmp_path / "a.svs", np.repeat((_smooth(300, 4100) * 255).astype(np.uint8)[..., None], 3, 2))
    _predict(trained, tmp_path / "out", slide, tile=512, overlay=True)
    assert _files(tmp_path / "out") == {"a.tif", "a_overlay.png"}
    overlay = _read(tmp_path / "out" / "a_overlay.png")
    assert overlay.shape[2] == 3
    assert 1024 < overlay.shape[1] <= 2048
    assert abs(overlay.shape[1] / overlay.shape[0] - 4100 / 300) < 0.2


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("suffix", [".png", ".svs"])
def test_a_16_bit_image_in_tiles_is_predicted_as_its_8_bit_twin(trained: Path, tmp_path: Path, suffix: str) -> None:
    gray = np.rint(_smooth(250, 400) * 255).astype(np.uint8)  # no tile has the whole range
    assert (gray.min(), gray.max()) == (0, 255)
    name = "probability.tif" if suffix == ".svs" else "probability.png"
    if suffix == ".svs":
        images = _slide(tmp_path / "flat.svs", gray), _slide(tmp_path / "deep.svs", gray.astype(np.uint16) * 257)
    else:
        images = tmp_path / "flat.png", tmp_path / "deep.tif"
        Image.fromarray(gray).save(images[0])
        tifffile.imwrite(images[1], gray.astype(np.uint16) * 257)
    assert _predict(trained, tmp_path / "out", *images, tile=64, probability=True) == []
    flat, deep = (_read(tmp_path / "out" / f"{kind}_{name}") for kind in ("flat", "deep"))
    assert np.array_equal(flat, deep)


def test_a_network_of_16_bits_sees_more_than_8(tmp_path: Path) -> None:
    run, shallow = _run(tmp_path / "run16", depth=16), _run(tmp_path / "run8")
    few = np.random.default_rng(3).integers(0, 200, (SIZE, SIZE)).astype(np.uint16)
    few[0, 0] = 65535  # 8 bits of the whole range leave nothing of the others
    tifffile.imwrite(tmp_path / "a.tif", few)
    _predict(run, tmp_path / "out16", tmp_path / "a.tif", probability=True)
    _predict(shallow, tmp_path / "out8", tmp_path / "a.tif", probability=True)
    model = unet.build("unet-resnet18")
    model.load_state_dict(load_file(run / "model.safetensors"))
    normal = (few[..., None] / 65535 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    with torch.no_grad():
        chance = model.eval()(torch.from_numpy(normal).float().permute(2, 0, 1)[None]).sigmoid()[0, 0].numpy()
    deep, flat = (_read(tmp_path / name / "a_probability.png") / 65535 for name in ("out16", "out8"))
    assert np.abs(deep - chance).max() < 1e-4
    assert np.abs(flat - chance).max() > 1e-4


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_a_network_of_16_bits_does_not_see_the_type_of_a_gray_image(tmp_path: Path, kind: str) -> None:
    gray = _pixels(70, 50)[..., 0]
    gray[0, :2] = 0, 255
    run = _run(tmp_path / "run", depth=16)
    _slide(
        tmp_path / "a.svs", gray.astype(kind) * np.dtype(kind).type({"uint8": 1, "uint16": 257, "float32": 0.01}[kind])
    )
    Image.fromarray(gray).save(tmp_path / "b.png")
    assert _predict(run, tmp_path / "out", tmp_path / "a.svs", tmp_path / "b.png", tile=40, probability=True) == []
    one, other = (_read(tmp_path / "out" / f"{n}").astype(int) for n in ("a_probability.tif", "b_probability.png"))
    assert np.abs(one - other).max() <= 2


def test_a_stack_of_frames_is_refused(trained: Path, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 40, 40), np.uint8))
    ((path, reason),) = _predict(trained, tmp_path / "out", tmp_path / "a.tif")
    assert path == tmp_path / "a.tif"
    assert "5 frames where one image is expected" in reason
    assert _files(tmp_path / "out") == set()


@pytest.mark.usefixtures("light")
def test_a_damaged_slide_leaves_nothing_and_the_others_are_written(trained: Path, tmp_path: Path) -> None:
    damaged, _ = (_slide(tmp_path / "in" / name, _pixels(600, 200)) for name in ("damaged.svs", "whole.svs"))
    with tifffile.TiffFile(damaged) as tiff:
        offset, size = tiff.pages.first.dataoffsets[-1], tiff.pages.first.databytecounts[-1]
    data = bytearray(damaged.read_bytes())
    data[offset : offset + size] = b"\xff" * size
    damaged.write_bytes(data)
    failed = _predict(trained, tmp_path / "out", damaged.parent, tile=64, overlay=True, probability=True)
    assert [path for path, _ in failed] == [damaged]
    assert _files(tmp_path / "out") == {"whole.tif", "whole_overlay.png", "whole_probability.tif"}


@pytest.mark.usefixtures("light")
def test_a_failure_of_the_disk_leaves_nothing(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    for image in (_slide(tmp_path / "a.svs", _pixels(70, 70)), _slide(tmp_path / "b.tif", _pixels(70, 70))):
        with pytest.raises(OSError, match="No space left"):
            _predict(trained, tmp_path / "out", image, tile=70, overlay=True)
    assert _files(tmp_path / "out") == set()


@pytest.mark.usefixtures("light")
def test_a_folder_holds_slides_and_images(trained: Path, tmp_path: Path) -> None:
    _slide(tmp_path / "in" / "x" / "a.scn", _pixels(80, 90))
    _slide(tmp_path / "in" / "b.svs", _pixels(80, 90))
    _image(tmp_path / "in" / "b.png")
    assert _predict(trained, tmp_path / "out", tmp_path / "in", tile=64) == []
    assert _files(tmp_path / "out") == {"x/a.tif", "b.tif", "b.png"}


def test_two_slides_that_would_write_one_mask_are_refused(trained: Path, tmp_path: Path) -> None:
    slides = _slide(tmp_path / "a.svs", _pixels(8, 8)), _slide(tmp_path / "a.ndpi", _pixels(8, 8))
    with pytest.raises(ValueError, match="would both write"):
        _predict(trained, tmp_path / "out", *slides)


def test_a_slide_and_an_image_that_would_write_one_overlay_are_refused(trained: Path, tmp_path: Path) -> None:
    images = _slide(tmp_path / "a.svs", _pixels(8, 8)), _image(tmp_path / "a.png")
    with pytest.raises(ValueError, match="would both write"):
        _predict(trained, tmp_path / "out", *images, overlay=True)


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("name", ["a.tif", "a_probability.tif", "a_overlay.png"])
def test_what_a_slide_has_already_is_kept_unless_overwrite(trained: Path, tmp_path: Path, name: str) -> None:
    slide, out = _slide(tmp_path / "a.svs", _pixels(70, 70)), tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        _predict(trained, out, slide, overlay=True, probability=True)
    assert (out / name).read_text() == "mine"
    _predict(trained, out, slide, tile=70, overlay=True, probability=True, overwrite=True)
    assert _read(out / name).shape[:2] == (70, 70)


def test_a_tiff_is_never_replaced_by_the_mask_of_a_slide(trained: Path, tmp_path: Path) -> None:
    images = _slide(tmp_path / "a.svs", _pixels(70, 70)), _slide(tmp_path / "a.tif", _pixels(70, 70))
    before = images[1].read_bytes()
    with pytest.raises((ValueError, FileExistsError)):
        _predict(trained, tmp_path, *images, overwrite=True)
    assert images[1].read_bytes() == before


@pytest.mark.usefixtures("light")
def test_a_level_of_a_pyramid_is_predicted_at_its_own_size(trained: Path, tmp_path: Path) -> None:
    pixels = _pixels(256, 320)
    with tifffile.TiffWriter(tmp_path / "a.svs") as tiff:
        for step in (1, 2):
            tiff.write(pixels[::step, ::step], tile=(64, 64), subifds=2 - step, subfiletype=step - 1, photometric="rgb")
    _slide(tmp_path / "b.svs", pixels[::2, ::2])
    assert _predict(trained, tmp_path / "out", tmp_path / "a.svs", level=1, tile=128, probability=True) == []
    assert _predict(trained, tmp_path / "out", tmp_path / "b.svs", tile=128, probability=True) == []
    chances = [_read(tmp_path / "out" / f"{name}_probability.tif") for name in "ab"]
    assert chances[0].shape == (128, 160)
    assert np.array_equal(chances[0], chances[1])


@pytest.mark.parametrize("name", ["TCGA-CR-7395-01A-01-TS1.svs", "test3-DAPI-2-(387).ndpi"])
def test_a_real_slide_has_no_seams(trained: Path, real_data: Path, tmp_path: Path, name: str) -> None:
    slide = real_data / "whole_slide" / name
    assert _predict(trained, tmp_path, slide, tile=1024, probability=True) == []
    chance = _read(tmp_path / f"{slide.stem}_probability.tif").astype(int)
    with openslide.OpenSlide(slide) as reference:
        assert chance.shape == reference.dimensions[::-1]
    for axis in (0, 1):
        steps = np.abs(np.diff(chance, axis=axis)).mean(axis=1 - axis)
        edges = [edge for start in range(0, len(steps) - 1024, 768) for edge in (start - 1, start + 1023) if edge > 0]
        assert len(edges) > 5
        assert steps[edges].mean() < 1.1 * np.delete(steps, edges).mean()
