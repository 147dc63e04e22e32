"""Labels refined by steps: against OpenCV, scikit-image and SciPy, batch by batch, on the CPU and (with one) on a GPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage import measure, segmentation

from medsass.config.refine import parse
from medsass.labels import Labeler, Normalise, ops, refine
from tests.labels.test_vignette import dermoscope, nuclei
from tests.support.effort import examples
from tests.support.masks import batches

gpu = pytest.mark.gpu
EVERYTHING = "darkest,vignette,blur:2,border,holes,open:1.5,close:3,min:0.001,largest:3"
EACH = (
    "darkest",
    "brightest",
    "red",
    "green",
    "blue",
    "blur:3",
    "vignette",
    "border",
    "holes",
    "open:3",
    "close:4",
    "min:0.01",
    "largest",
    "largest:2",
    EVERYTHING,
)
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def _batch() -> torch.Tensor:
    """(6, 112, 112, 3): dermoscopes and nuclei, tinted."""
    grays = [dermoscope(112, seed)[0] for seed in range(3)] + [nuclei(112, 20, seed) for seed in range(3)]
    return torch.from_numpy(np.stack(grays)[..., None] * np.array([1, 0.8, 0.9])).to(torch.uint8)


@pytest.mark.parametrize(
    ("step", "combine"),
    [
        ("darkest", lambda r, g, b: cv2.min(cv2.min(r, g), b)),
        ("brightest", lambda r, g, b: cv2.max(cv2.max(r, g), b)),
        ("red", lambda r, _, __: r),
        ("green", lambda _, g, __: g),
        ("blue", lambda _, __, b: b),
    ],
)
def test_a_channel_in_place_of_gray_is_opencvs(step: str, combine: Callable[..., Any]) -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3)).astype(np.uint8))
    labels = Labeler("otsu", "dark", refine=step)(images)
    assert labels.gray is not None
    for image, mask, level, gray in zip(images.numpy(), labels.mask, labels.threshold, labels.gray, strict=True):
        red, green, blue = cv2.split(image)
        channel = combine(red, green, blue)
        assert np.array_equal(gray, channel)
        expected, above = cv2.threshold(channel, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        assert level == expected
        assert np.array_equal(mask, 1 - above)
    gray_images = images[..., 0].contiguous()
    plain, same = (Labeler("otsu", "dark", refine=text)(gray_images) for text in ("", step))
    assert torch.equal(plain.mask, same.mask)


def test_a_brown_lesion_is_darkest_where_a_shadow_is_as_gray() -> None:
    image = np.full((64, 64, 3), (200, 160, 140), np.uint8)
    image[:, 56:] = 150  # gray level 150 of a shadow, 147 of the lesion
    cv2.circle(image, (28, 32), 12, (190, 140, 70), -1)
    truth = cv2.circle(np.zeros((64, 64), np.uint8), (28, 32), 12, 1, -1)
    images = torch.from_numpy(image)[None]
    bare, darkest = (Labeler("otsu", "dark", refine=text)(images).mask[0].numpy() for text in ("", "darkest"))
    assert bare.sum() == truth.sum() + 8 * 64
    assert np.array_equal(darkest, truth)


def test_blur_border_holes_is_opencvs_threshold_scikit_images_border_and_scipys_holes() -> None:
    images = _batch()
    labels = Labeler("otsu", "bright", refine="blur:4,border,holes")(images)
    for image, mask, level in zip(images.numpy(), labels.mask, labels.threshold, strict=True):
        gray = refine.gray_of(torch.from_numpy(image)[None])
        smooth = refine.blur(gray, 2.0)[0].numpy()
        expected, above = cv2.threshold(smooth, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        cleared = segmentation.clear_border(measure.label(above, connectivity=2)) > 0
        assert level == expected
        if cleared.sum() * 16 < above.sum():
            cleared = above > 0
        assert np.array_equal(mask, ndimage.binary_fill_holes(cleared))


@pytest.mark.parametrize("text", ["", "none", "blur:0.001", "open:0.001"])
def test_what_has_no_effect_leaves_labels_and_input_as_they_were(text: str) -> None:
    images, normalise = _batch(), Normalise(MEAN, STD)
    plain, refined = (Labeler(refine=chosen)(images, normalise) for chosen in ("", text))
    for name in ("mask", "threshold", "separability", "input"):
        assert torch.equal(getattr(plain, name), getattr(refined, name)), name


@pytest.mark.parametrize("text", EACH)
def test_gray_is_refined_as_rgb_with_equal_channels(text: str) -> None:
    gray = _batch()[..., 0].contiguous()
    one, three = (Labeler(refine=text)(x) for x in (gray, gray[..., None].repeat(1, 1, 1, 3)))
    assert torch.equal(one.mask, three.mask)
    assert torch.equal(one.threshold, three.threshold)


@pytest.mark.parametrize("method", ["otsu", "ght", "adaptive-mean", "adaptive-gaussian"])
@pytest.mark.parametrize("text", EACH)
def test_a_batch_is_its_images_one_by_one(text: str, method: str) -> None:
    images = _batch()
    labeler = Labeler(method, refine=text)
    together, alone = labeler(images), [labeler(image[None]) for image in images]
    assert torch.equal(together.mask, torch.cat([labels.mask for labels in alone]))
    assert torch.equal(together.separability, torch.cat([labels.separability for labels in alone]))


@pytest.mark.parametrize("text", EACH)
def test_no_mask_becomes_empty_and_a_constant_image_stays_so(text: str) -> None:
    images = torch.cat([_batch(), torch.full((1, 112, 112, 3), 77, dtype=torch.uint8)])
    counts = Labeler("otsu", "bright", refine=text)(images).mask.sum((1, 2))
    assert (counts[:-1] > 0).all()
    assert counts[-1] == 0


@pytest.mark.parametrize("text", EACH)
def test_the_input_is_that_of_the_image_as_it_was(text: str) -> None:
    images, normalise = _batch(), Normalise(MEAN, STD)
    labels, plain = Labeler(refine=text)(images, normalise), Labeler()(images, normalise)
    assert labels.input is not None
    assert plain.input is not None
    assert torch.equal(labels.input, plain.input)
    assert torch.equal(labels.mask, Labeler(refine=text)(images).mask)


@examples(40)
@given(batches(), st.sampled_from(["border", "holes", "open:30", "close:30", "min:0.1", "largest"]))
def test_nothing_outside_of_the_field_of_view_is_foreground(masks: np.ndarray, text: str) -> None:  # type: ignore[type-arg]
    batch = torch.from_numpy(masks)
    outside = batch.flip(0, 1, 2)
    result = refine.of_mask(batch, outside, parse(text))
    assert not (result & outside).any()
    assert result.dtype == torch.uint8
    assert result.amax() <= 1


@pytest.mark.parametrize("text", ["blur:2", "vignette", "vignette,holes", "darkest"])
def test_16_bit_images_have_no_steps_before_the_threshold(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"works on uint8 images, before their threshold; got \(1, 4, 4\), torch.uint16"
    ):
        Labeler(refine=text)(torch.zeros(1, 4, 4, dtype=torch.uint16))


def test_16_bit_masks_are_refined() -> None:
    gray = nuclei(112, 20)
    deep = torch.from_numpy(gray.astype(np.uint16) * np.uint16(200))[None]
    plain, refined = (Labeler("otsu", "bright", refine=text)(deep).mask for text in ("", "border,holes"))
    assert torch.equal(refined, refine.of_mask(plain, None, parse("border,holes")))
    assert refined.sum() < plain.sum()


def test_the_operators_are_sound() -> None:
    images, mask = _batch()[:2, :30, :40].contiguous(), torch.from_numpy(np.random.default_rng(0).integers(0, 2, (2, 9, 8), np.uint8))  # fmt: skip
    for text in ("", "vignette,blur:9", "darkest"):
        torch.library.opcheck(ops.before, (images, text))
        torch.library.opcheck(ops.before, (images[..., 0].contiguous(), text))
    for text in ("", "border,holes,open:40,min:0.1,largest"):
        torch.library.opcheck(ops.after, (mask, None, text))
        torch.library.opcheck(ops.after, (mask, 1 - mask, text))
    torch.library.opcheck(ops.input, (images, MEAN, STD, torch.float32))


def test_compile_traces_through_a_refining_labeler_without_a_break() -> None:
    labeler, images = Labeler("otsu", "bright", refine=EVERYTHING), _batch()

    def share(batch: torch.Tensor) -> torch.Tensor:
        return labeler(batch, Normalise(MEAN, STD)).mask.float().mean((1, 2))

    compiled = torch.compile(share, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images), share(images), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("pattern", "polarity", "text", "least"),
    [
        ("isic2017/ISIC-2017_Validation_Data/*.jpg", "dark", "vignette,blur:3,border,holes", 0.1),
        ("covid19_radiography/*/Viral Pneumonia/images/*.png", "dark", "vignette", 0.1),
    ],
)
def test_labels_of_real_images_come_closer_to_the_truth(
    real_data: Path, pattern: str, polarity: str, text: str, least: float
) -> None:
    def read(path: Path) -> np.ndarray:  # type: ignore[type-arg]
        return cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (224, 224), interpolation=cv2.INTER_AREA)

    pairs = [(path, _truth(path)) for path in sorted(real_data.glob(pattern))[::5]]
    images = torch.from_numpy(np.stack([read(path) for path, truth in pairs if truth.exists()]))
    truths = torch.from_numpy(np.stack([read(truth) for _, truth in pairs if truth.exists()])) > 127

    def score(refine: str) -> float:
        mask = Labeler("otsu", polarity, refine=refine)(images).mask > 0
        return float(((mask & truths).sum((1, 2)) / (mask | truths).sum((1, 2)).clamp_min(1)).mean())

    assert score(text) >= score("") + least


def _truth(path: Path) -> Path:
    if path.suffix == ".jpg":
        return path.parents[1] / "ISIC-2017_Validation_Part1_GroundTruth" / f"{path.stem}_segmentation.png"
    return path.parents[1] / "masks" / path.name


def _on_host(labels: object) -> list[torch.Tensor]:
    return [getattr(labels, name).cpu() for name in ("mask", "threshold", "separability", "input")]


@gpu
@pytest.mark.parametrize("text", EACH)
@pytest.mark.parametrize("method", ["otsu", "adaptive-mean"])
def test_gpu_labels_equal_those_of_the_cpu(text: str, method: str) -> None:
    images, normalise = _batch(), Normalise(MEAN, STD)
    labeler = Labeler(method, refine=text)
    for here, there in zip(*(_on_host(labeler(x, normalise)) for x in (images, images.cuda())), strict=True):
        torch.testing.assert_close(there, here, rtol=1e-6, atol=0, equal_nan=True)
    assert torch.equal(labeler(images.cuda()).mask.cpu(), labeler(images).mask)


@gpu
def test_gpu_refining_waits_for_nothing_and_can_be_recorded_and_replayed() -> None:
    labeler, normalise = Labeler(refine=EVERYTHING), Normalise(MEAN, STD)
    images = _batch().cuda()
    expected = labeler(images, normalise)  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        labeler(images, normalise)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = labeler(images, normalise)
    for turned in (images.flip(0), images.flip(1), images.clone()):
        images.copy_(turned)
        graph.replay()
        assert torch.equal(out.mask, labeler(images.clone(), normalise).mask)
    graph.replay()
    assert out.mask.shape == expected.mask.shape


@gpu
def test_gpu_compiled_labeler_equals_the_plain_one() -> None:
    labeler, images = Labeler(refine=EVERYTHING), _batch().cuda()
    compiled = torch.compile(lambda batch: labeler(batch, Normalise(MEAN, STD)).mask, fullgraph=True)
    assert torch.equal(compiled(images), labeler(images).mask)
