"""The networks: shapes, sizes, live parameters and normalisation."""

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as vision

from medsass.models import unet

PARAMETERS = {"unet-resnet50": 4_533_734, "unet-resnet18": 1_241_164}


@pytest.mark.parametrize(("name", "count"), sorted(PARAMETERS.items()))
def test_number_of_parameters(name: str, count: int) -> None:
    model = unet.build(name)
    assert sum(item.numel() for item in model.parameters()) == count
    assert unet.parameters(model) == count


def test_parameters_counts_only_trainable_ones() -> None:
    layer = torch.nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    assert unet.parameters(layer) == 6


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_logits_have_one_channel_and_the_images_size(name: str) -> None:
    model = unet.build(name).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 24, 40)).shape == (2, 1, 24, 40)


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    model = unet.build(name)
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert [key for key, item in model.named_parameters() if item.grad is None] == []


def test_logits_are_not_squashed() -> None:
    torch.manual_seed(0)
    logits = unet.build("unet-resnet18")(100 * torch.randn(2, 3, 32, 32))
    assert logits.min() < 0


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unet-resnet50, unet-resnet18; got 'unet'"):
        unet.build("unet")


def test_normalise_equals_torchvision() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3)).astype(np.uint8)
    images[0, 0, 0], images[0, 0, 1] = 0, 255
    expected = torch.stack(
        [vision.normalize(vision.to_tensor(i), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) for i in images]
    )
    result = unet.normalise(torch.from_numpy(images))
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=2e-6)


def test_normalise_gives_channels_last_memory() -> None:
    result = unet.normalise(torch.zeros(2, 8, 8, 3, dtype=torch.uint8))
    assert result.is_contiguous(memory_format=torch.channels_last)


def _stretched(image: np.ndarray) -> np.ndarray:
    """(3, H, W): the rule for 16 bit, in NumPy's float64."""
    low, high = int(image.min()), int(image.max())
    unit = (image.astype(np.float64) - low) / (high - low) if high > low else np.zeros(image.shape)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return ((unit[..., None] - mean) / std).transpose(2, 0, 1)


def test_normalise_stretches_each_16_bit_image_by_its_own_range() -> None:
    rng = np.random.default_rng(0)
    images = np.stack([rng.integers(low, high, (16, 24)) for low, high in ((0, 65536), (300, 4000), (65530, 65536))])
    images[0, 0, :2] = 0, 65535
    images = np.concatenate([images, np.full((1, 16, 24), 777), np.full((1, 16, 24), 0)]).astype(np.uint16)
    result = unet.normalise(torch.from_numpy(images))
    assert result.dtype == torch.float32
    assert result.shape == (5, 3, 16, 24)
    assert result.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(result.numpy(), np.stack([_stretched(image) for image in images]), rtol=1e-5, atol=2e-6)


def test_a_16_bit_image_that_spans_its_type_is_normalised_as_8_bit_gray_is() -> None:
    gray = np.random.default_rng(0).integers(0, 256, (2, 16, 24)).astype(np.uint8)
    gray[:, 0, :2] = 0, 255
    deep = torch.from_numpy(gray.astype(np.uint16) * 257)
    rgb = torch.from_numpy(np.repeat(gray[..., None], 3, axis=3))
    torch.testing.assert_close(unet.normalise(deep), unet.normalise(rgb), rtol=1e-5, atol=2e-6)
