"""Prediction: a mask for each image at its own size, and nothing lost or overwritten."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from medsass.models import network
from tests.support.predicted import SIZE, files_in, noise, read, run_predict, save_image, save_run, save_slide

pytestmark = pytest.mark.usefixtures("light_file")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on whole images. Read it, never change it."""
    return save_run(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on tiles of 96 pixels. Read it, never change it."""
    return save_run(tmp_path_factory.mktemp("tiled") / "run", tile=96)


def test_masks_have_the_images_size_and_only_0_and_255(trained: Path, tmp_path: Path) -> None:
    images = save_image(tmp_path / "a.png", 40, 56), save_image(tmp_path / "b.jpg", 33, 17)
    assert run_predict(trained, tmp_path / "out", *images) == []
    assert files_in(tmp_path / "out") == {"a.png", "b.png"}
    for name, shape in (("a.png", (40, 56)), ("b.png", (33, 17))):
        mask = read(tmp_path / "out" / name)
        assert (mask.shape, str(mask.dtype)) == (shape, "uint8")
        assert set(np.unique(mask)) <= {0, 255}


def test_a_mask_at_the_training_size_is_the_networks_answer(trained: Path, nuclei_folder: Path, tmp_path: Path) -> None:
    with Image.open(sorted((nuclei_folder / "images").iterdir())[0]) as image:
        small = image.convert("RGB").resize((32, 32))
    small.save(tmp_path / "a.png")
    run_predict(trained, tmp_path / "out", tmp_path / "a.png", probability=True)
    model = network.build("unet-resnet18")
    model.load_state_dict(load_file(trained / "model.safetensors"))
    with torch.no_grad():
        chance = (
            model.eval()(network.normalise(torch.from_numpy(np.asarray(small).copy())[None])).sigmoid()[0, 0].numpy()
        )
    mask, stored = read(tmp_path / "out" / "a.png"), read(tmp_path / "out" / "a_probability.png")
    assert np.abs(stored.astype(float) / 65535 - chance).max() < 1e-4
    assert np.array_equal(mask[np.abs(chance - 0.5) > 1e-4] > 0, chance[np.abs(chance - 0.5) > 1e-4] > 0.5)


def test_folders_keep_their_sub_folders(trained: Path, tmp_path: Path) -> None:
    for name in ("in/a.png", "in/x/a.png", "in/x/y/b.jpg"):
        save_image(tmp_path / name)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    assert run_predict(trained, tmp_path / "out", tmp_path / "in") == []
    assert files_in(tmp_path / "out") == {"a.png", "x/a.png", "x/y/b.png"}


@pytest.mark.parametrize("kind", ["mask", "overlay", "probability"])
def test_an_existing_file_is_kept_unless_overwrite(trained: Path, tmp_path: Path, kind: str) -> None:
    path, out = save_image(tmp_path / "a.png"), tmp_path / "out"
    file, options = out / ("a.png" if kind == "mask" else f"a_{kind}.png"), {} if kind == "mask" else {kind: True}
    out.mkdir()
    file.write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        run_predict(trained, out, path, **options)
    assert file.read_text() == "mine"
    run_predict(trained, out, path, overwrite=True, **options)
    assert read(file).shape[:2] == (40, 56)


@pytest.mark.parametrize(
    ("names", "overlay"),
    [
        (("x/a.png", "y/a.jpg"), False),
        (("in/a.png", "in/a_overlay.png"), True),
        (("a.svs", "a.ndpi"), False),
        (("a.svs", "a.png"), True),
    ],
)
def test_two_images_that_would_write_one_file_are_refused(
    trained: Path, tmp_path: Path, names: tuple[str, str], overlay: bool
) -> None:
    slides = (".svs", ".ndpi")
    paths = [tmp_path / name for name in names]
    images = [save_slide(path, noise(8, 8)) if path.suffix in slides else save_image(path) for path in paths]
    with pytest.raises(ValueError, match="would both write"):
        run_predict(trained, tmp_path / "out", *images, overlay=overlay)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("other", ["", "x/a.jpg", "x/a.svs"])
def test_an_input_is_never_replaced_by_a_mask(trained: Path, tmp_path: Path, other: str) -> None:
    slide = other.endswith(".svs")
    path = save_slide(tmp_path / "a.tif", noise(70, 70)) if slide else save_image(tmp_path / "a.png")
    others = [save_slide(tmp_path / other, noise(70, 70)) if slide else save_image(tmp_path / other)] if other else []
    before = path.read_bytes()
    with pytest.raises((ValueError, FileExistsError), match=r"is an input image|would both write"):
        run_predict(trained, tmp_path, *others, path, overwrite=True)
    assert path.read_bytes() == before


def test_arguments_without_an_image_are_refused(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(FileNotFoundError, match=r"none\.png: no such image or folder"):
        run_predict(trained, tmp_path / "out", tmp_path / "none.png")
    with pytest.raises(FileNotFoundError, match="no image in this folder"):
        run_predict(trained, tmp_path / "out", tmp_path / "in")
    with pytest.raises(ValueError, match="no image given"):
        run_predict(trained, tmp_path / "out")


@pytest.mark.usefixtures("one_convolution")
def test_a_slides_tile_is_that_of_the_runs_shards_or_the_trained_size(
    trained: Path, tiled: Path, tmp_path: Path
) -> None:
    slide = save_slide(tmp_path / "a.svs", noise(100, 110))
    for run, side in ((trained, SIZE), (tiled, 96)):
        run_predict(run, tmp_path / f"{side}", slide, probability=True)
        for tile in (SIZE, 96):
            run_predict(run, tmp_path / f"{side}-{tile}", slide, probability=True, tile=tile)
            same = np.array_equal(
                read(tmp_path / f"{side}" / "a_probability.tif"),
                read(tmp_path / f"{side}-{tile}" / "a_probability.tif"),
            )
            assert same == (tile == side)


@pytest.mark.usefixtures("one_convolution")
def test_an_image_is_predicted_whole_unless_tile(tiled: Path, tmp_path: Path) -> None:
    image = save_image(tmp_path / "a.png", 80, 100)
    for tile in (0, 100, 60):
        run_predict(tiled, tmp_path / f"{tile}", image, probability=True, tile=tile)
        assert files_in(tmp_path / f"{tile}") == {"a.png", "a_probability.png"}
    whole, one, many = (read(tmp_path / f"{tile}" / "a_probability.png").astype(int) for tile in (0, 100, 60))
    assert np.array_equal(whole, one)
    assert np.abs(whole - many).max() > 100


def test_tiles_of_the_trained_size_are_the_networks_answers_at_their_middle(trained: Path, tmp_path: Path) -> None:
    pixels = noise(64, 96)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    run_predict(trained, tmp_path / "out", tmp_path / "a.png", tile=32, overlap=0.0, probability=True)
    model = network.build("unet-resnet18")
    model.load_state_dict(load_file(trained / "model.safetensors"))
    stored = read(tmp_path / "out" / "a_probability.png") / 65535
    for y in (0, 32):
        for x in (0, 32, 64):
            tile = torch.from_numpy(pixels[y : y + 32, x : x + 32].copy())[None]
            with torch.no_grad():
                chance = model.eval()(network.normalise(tile)).sigmoid()[0, 0].numpy()
            assert np.abs(stored[y : y + 32, x : x + 32] - chance).max() < 1e-4


@pytest.mark.usefixtures("one_convolution")
def test_an_image_of_too_many_pixels_is_treated_as_a_slide(
    tiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = (
        save_slide(tmp_path / "large.tif", noise(130, 150)),
        save_slide(tmp_path / "small.tif", noise(90, 100)),
    )
    for module in ("image_files", "prediction.predict"):
        monkeypatch.setattr(f"medsass.runs.{module}.MOST_PIXELS", 10_000)
    assert run_predict(tiled, tmp_path / "out", large, small) == []
    assert files_in(tmp_path / "out") == {"large.tif", "small.png"}
    assert read(tmp_path / "out" / "large.tif").shape == (130, 150)


@pytest.mark.usefixtures("one_convolution")
def test_a_folder_holds_slides_and_images(trained: Path, tmp_path: Path) -> None:
    save_slide(tmp_path / "in" / "x" / "a.scn", noise(80, 90))
    save_slide(tmp_path / "in" / "b.svs", noise(80, 90))
    save_image(tmp_path / "in" / "b.png")
    assert run_predict(trained, tmp_path / "out", tmp_path / "in", tile=64) == []
    assert files_in(tmp_path / "out") == {"x/a.tif", "b.tif", "b.png"}


@pytest.mark.usefixtures("one_convolution")
@pytest.mark.parametrize("name", ["a.tif", "a_probability.tif", "a_overlay.png"])
def test_what_a_slide_has_already_is_kept_unless_overwrite(trained: Path, tmp_path: Path, name: str) -> None:
    slide, out = save_slide(tmp_path / "a.svs", noise(70, 70)), tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        run_predict(trained, out, slide, overlay=True, probability=True)
    assert (out / name).read_text() == "mine"
    run_predict(trained, out, slide, tile=70, overlay=True, probability=True, overwrite=True)
    assert read(out / name).shape[:2] == (70, 70)
