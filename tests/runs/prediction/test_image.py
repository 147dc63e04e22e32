"""The image that is predicted: of any kind, depth and level, or refused with a reason."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import load_file

from medsass.data.formats.damage import REMEDY
from medsass.models import network
from tests.support.predicted import SIZE, files_in, noise, read, run_predict, save_image, save_run, save_slide, smooth

pytestmark = pytest.mark.usefixtures("light_file")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on whole images. Read it, never change it."""
    return save_run(tmp_path_factory.mktemp("whole") / "run")


def test_an_unreadable_image_is_reported_and_the_others_are_written(trained: Path, tmp_path: Path) -> None:
    images = [save_image(tmp_path / "in" / f"{name}.png") for name in "abcd"]
    images[1].write_bytes(b"not an image")
    images[3].write_bytes(images[3].read_bytes()[:800])
    failed = run_predict(trained, tmp_path / "out", tmp_path / "in")
    assert failed[0] == (images[1], f"not an image file that can be read; {REMEDY}")
    assert [path for path, _ in failed] == [images[1], images[3]]
    assert "truncated" in failed[1][1]
    assert files_in(tmp_path / "out") == {"a.png", "c.png"}


@pytest.mark.parametrize("kind", ["gray", "rgba", "cmyk", "palette", "tiff16", "tiff16 colour"])
def test_other_kinds_of_image_work(trained: Path, tmp_path: Path, kind: str) -> None:
    image, path = Image.fromarray(noise(24, 31)), tmp_path / "a.png"
    if kind.startswith("tiff16"):
        deep = noise(24, 31).astype(np.uint16) * 257
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, deep if "colour" in kind else deep[..., 0])
    elif kind == "cmyk":
        path = tmp_path / "a.jpg"
        image.convert("CMYK").save(path)
    else:
        image.convert({"gray": "L", "rgba": "RGBA", "palette": "P"}[kind]).save(path)
    assert run_predict(trained, tmp_path / "out", path, overlay=True) == []
    assert read(tmp_path / "out" / "a.png").shape == (24, 31)
    assert read(tmp_path / "out" / "a_overlay.png").shape == (24, 31, 3)


def test_a_16_bit_image_is_predicted_as_its_8_bit_twin(trained: Path, tmp_path: Path) -> None:
    gray = noise(32, 32)[..., 0]
    gray[0, :2] = 0, 255
    tifffile.imwrite(tmp_path / "deep.tif", gray.astype(np.uint16) * 257)
    Image.fromarray(gray).save(tmp_path / "flat.png")
    run_predict(trained, tmp_path / "out", tmp_path / "deep.tif", tmp_path / "flat.png", probability=True)
    deep, flat = (read(tmp_path / "out" / f"{name}_probability.png") for name in ("deep", "flat"))
    assert np.array_equal(deep, flat)


@pytest.mark.usefixtures("one_convolution")
@pytest.mark.parametrize("suffix", [".png", ".svs"])
def test_a_16_bit_image_in_tiles_is_predicted_as_its_8_bit_twin(trained: Path, tmp_path: Path, suffix: str) -> None:
    gray = np.rint(smooth(250, 400) * 255).astype(np.uint8)  # no tile has the whole range
    assert (gray.min(), gray.max()) == (0, 255)
    name = "probability.tif" if suffix == ".svs" else "probability.png"
    if suffix == ".svs":
        images = (
            save_slide(tmp_path / "flat.svs", gray),
            save_slide(tmp_path / "deep.svs", gray.astype(np.uint16) * 257),
        )
    else:
        images = tmp_path / "flat.png", tmp_path / "deep.tif"
        Image.fromarray(gray).save(images[0])
        tifffile.imwrite(images[1], gray.astype(np.uint16) * 257)
    assert run_predict(trained, tmp_path / "out", *images, tile=64, probability=True) == []
    flat, deep = (read(tmp_path / "out" / f"{kind}_{name}") for kind in ("flat", "deep"))
    assert np.array_equal(flat, deep)


def test_a_network_of_16_bits_sees_more_than_8(tmp_path: Path) -> None:
    run, shallow = save_run(tmp_path / "run16", depth=16), save_run(tmp_path / "run8")
    few = np.random.default_rng(3).integers(0, 200, (SIZE, SIZE)).astype(np.uint16)
    few[0, 0] = 65535  # 8 bits of the whole range leave nothing of the others
    tifffile.imwrite(tmp_path / "a.tif", few)
    run_predict(run, tmp_path / "out16", tmp_path / "a.tif", probability=True)
    run_predict(shallow, tmp_path / "out8", tmp_path / "a.tif", probability=True)
    model = network.build("unet-resnet18")
    model.load_state_dict(load_file(run / "model.safetensors"))
    normal = (few[..., None] / 65535 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    with torch.no_grad():
        chance = model.eval()(torch.from_numpy(normal).float().permute(2, 0, 1)[None]).sigmoid()[0, 0].numpy()
    deep, flat = (read(tmp_path / name / "a_probability.png") / 65535 for name in ("out16", "out8"))
    assert np.abs(deep - chance).max() < 1e-4
    assert np.abs(flat - chance).max() > 1e-4


@pytest.mark.usefixtures("one_convolution")
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_a_network_of_16_bits_does_not_see_the_type_of_a_gray_image(tmp_path: Path, kind: str) -> None:
    gray = noise(70, 50)[..., 0]
    gray[0, :2] = 0, 255
    run = save_run(tmp_path / "run", depth=16)
    save_slide(
        tmp_path / "a.svs", gray.astype(kind) * np.dtype(kind).type({"uint8": 1, "uint16": 257, "float32": 0.01}[kind])
    )
    Image.fromarray(gray).save(tmp_path / "b.png")
    assert run_predict(run, tmp_path / "out", tmp_path / "a.svs", tmp_path / "b.png", tile=40, probability=True) == []
    one, other = (read(tmp_path / "out" / f"{n}").astype(int) for n in ("a_probability.tif", "b_probability.png"))
    assert np.abs(one - other).max() <= 2


def test_a_stack_is_predicted_page_by_page(trained: Path, tmp_path: Path) -> None:
    stack = np.stack([noise(40, 48, seed)[..., 0] for seed in range(20)])
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    for page in (0, 17):
        Image.fromarray(stack[page]).save(tmp_path / f"{page}.png")
    images = [tmp_path / name for name in ("a.tif", "0.png", "17.png")]
    assert run_predict(trained, tmp_path / "out", *images, overlay=True, probability=True) == []
    assert {"a.tif", "a_probability.tif", "a_overlay.tif"} < files_in(tmp_path / "out")
    for kind in ("", "_probability", "_overlay"):
        pages = read(tmp_path / "out" / f"a{kind}.tif")
        assert len(pages) == 20
        for page in (0, 17):
            alone = read(tmp_path / "out" / f"{page}{kind}.png")
            assert pages[page].dtype == alone.dtype
            assert (np.abs(pages[page].astype(int) - alone) > 256).mean() < 1e-3 if kind == "_probability" else True
            assert (pages[page] != alone).mean() < 0.02 or kind == "_probability"


@pytest.mark.usefixtures("one_convolution")
def test_a_level_of_a_pyramid_is_predicted_at_its_own_size(trained: Path, tmp_path: Path) -> None:
    pixels = noise(256, 320)
    with tifffile.TiffWriter(tmp_path / "a.svs") as tiff:
        for step in (1, 2):
            tiff.write(pixels[::step, ::step], tile=(64, 64), subifds=2 - step, subfiletype=step - 1, photometric="rgb")
    save_slide(tmp_path / "b.svs", pixels[::2, ::2])
    assert run_predict(trained, tmp_path / "out", tmp_path / "a.svs", level=1, tile=128, probability=True) == []
    assert run_predict(trained, tmp_path / "out", tmp_path / "b.svs", tile=128, probability=True) == []
    chances = [read(tmp_path / "out" / f"{name}_probability.tif") for name in "ab"]
    assert chances[0].shape == (128, 160)
    assert np.array_equal(chances[0], chances[1])
