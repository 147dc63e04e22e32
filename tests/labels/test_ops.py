"""The torch operators: shapes without data, tracing, and equality with the labeler's references."""

import cv2
import numpy as np
import pytest
import torch

from medsass.labels import Labeler, Normalise, ops

MET = [0.0, 0.0, 0.0, 0.5]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
LABELS = ["otsu", "ght", "adaptive-mean", "adaptive-gaussian"]


def _images(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(len(shape)).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize("method", LABELS)
@pytest.mark.parametrize("shape", [(2, 21, 17, 3), (2, 21, 17)])
def test_label_is_a_sound_operator(method: str, shape: tuple[int, ...]) -> None:
    # the last check compares outputs by value, and adaptive thresholds are NaN, which equals nothing
    checks = ["test_schema", "test_faketensor"] + ["test_aot_dispatch_dynamic"] * (not method.startswith("adaptive"))
    torch.library.opcheck(ops.label, (_images(*shape), method, "auto", MET, 11, 2.0), test_utils=checks)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_label_input_is_a_sound_operator(dtype: torch.dtype) -> None:
    torch.library.opcheck(ops.label_input, (_images(2, 21, 17, 3), "otsu", "dark", MET, 11, 2.0, MEAN, STD, dtype))


def test_compile_traces_through_the_labeler_without_a_break() -> None:
    labeler, images = Labeler("otsu", "bright"), _images(3, 24, 32, 3)

    def share(batch: torch.Tensor) -> torch.Tensor:
        return labeler(batch).mask.float().mean((1, 2))

    compiled = torch.compile(share, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images), share(images), rtol=0, atol=0)


def test_input_is_torchvisions_normalisation_and_gray_stands_for_three_channels() -> None:
    from torchvision.transforms import functional

    images = _images(2, 8, 8, 3)
    labels = Labeler("otsu", "bright")(images, Normalise(MEAN, STD, torch.float32))
    expected = functional.normalize(images.permute(0, 3, 1, 2).float() / 255, MEAN, STD)
    assert labels.input is not None
    assert labels.input.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(labels.input, expected, rtol=1e-5, atol=1e-6)
    images = _images(2, 8, 8)
    gray = Labeler()(images, Normalise(MEAN, STD)).input
    rgb = Labeler()(images.unsqueeze(-1).expand(-1, -1, -1, 3).contiguous(), Normalise(MEAN, STD)).input
    assert gray is not None
    torch.testing.assert_close(gray, rgb, rtol=0, atol=0)


@pytest.mark.parametrize("polarity", ["bright", "dark"])
def test_uint16_within_256_levels_is_labelled_as_opencv_does(polarity: str) -> None:
    image = np.random.default_rng(3).integers(0, 256, (30, 40)).astype(np.uint16)
    image[0, :2] = 0, 255
    level, above = cv2.threshold(image.astype(np.uint8), 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    labels = Labeler("otsu", polarity)(torch.from_numpy(image + np.uint16(5000))[None])
    assert labels.threshold.item() == level + 5000
    assert np.array_equal(labels.mask[0].numpy(), above if polarity == "bright" else 1 - above)


def test_uint16_masks_are_what_lies_above_the_threshold() -> None:
    images = torch.from_numpy(np.random.default_rng(4).integers(300, 50_000, (3, 30, 40)).astype(np.uint16))
    labels = Labeler("otsu", "bright")(images)
    assert torch.equal(labels.mask.int(), (images.int() > labels.threshold[:, None, None]).int())


@pytest.mark.parametrize(
    ("labeler", "normalise"),
    [(Labeler("adaptive-mean"), None), (Labeler(), Normalise(MEAN, STD))],
    ids=["adaptive", "input"],
)
def test_uint16_is_refused_where_it_has_no_meaning(labeler: Labeler, normalise: Normalise | None) -> None:
    with pytest.raises(ValueError, match=r"uint8 images; got .*uint16"):
        labeler(torch.zeros(1, 4, 4, dtype=torch.uint16), normalise)


@pytest.mark.parametrize(("mean", "std"), [([0.5], [0.5]), (MEAN, [0.2, 0.0, 0.2])])
def test_normalise_wants_three_numbers_and_a_spread(mean: list[float], std: list[float]) -> None:
    with pytest.raises(ValueError, match="three numbers each"):
        Normalise(mean, std)
