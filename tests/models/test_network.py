"""Common to all networks: their input, their logits, and a step of training."""

from collections.abc import Iterator
from itertools import chain

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as vision

from medsass.config import MODELS
from medsass.models import network

SMALL = ("unet-resnet18", "unet-vit-tiny")


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Torch raises where an operation has no deterministic form."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def _gradients(name: str) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = network.build(name)
    model(torch.randn(2, 3, 64, 96)).square().sum().backward()
    return [item.grad for item in model.parameters() if item.grad is not None]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.usefixtures("deterministic")
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    model = network.build(name)
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert [key for key, item in model.named_parameters() if item.grad is None] == []
    assert all(item.grad is not None and item.grad.any() for item in model.encoder.parameters())


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.usefixtures("deterministic")
def test_gradients_repeat_to_the_bit_where_position_embeddings_are_resampled(name: str) -> None:
    for first, second in zip(_gradients(name), _gradients(name), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("size", [(64, 64), (96, 32)])
@pytest.mark.parametrize("name", MODELS)
def test_logits_have_one_channel_and_the_images_size(name: str, size: tuple[int, int]) -> None:
    model = network.build(name).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 3, *size)).shape == (2, 1, *size)


@pytest.mark.parametrize("name", SMALL)
def test_logits_at_the_papers_size(name: str) -> None:
    with torch.no_grad():
        assert network.build(name).eval()(torch.zeros(1, 3, 224, 224)).shape == (1, 1, 224, 224)


@pytest.mark.parametrize(("name", "side"), [("unet-resnet18", 8), ("unet-vit-tiny", 16)])
def test_the_smallest_image_has_one_multiple_a_side(name: str, side: int) -> None:
    with torch.no_grad():
        assert network.build(name).eval()(torch.zeros(1, 3, side, 3 * side)).shape == (1, 1, side, 3 * side)


def test_a_vit_network_does_not_take_a_multiple_of_8() -> None:
    with torch.no_grad(), pytest.raises(RuntimeError):
        network.build("unet-vit-tiny").eval()(torch.zeros(1, 3, 16, 24))


@pytest.mark.parametrize("name", SMALL)
def test_maps_stay_channels_last_to_the_end(name: str) -> None:
    model, seen = network.build(name), []
    layers = (item for item in model.modules() if isinstance(item, torch.nn.BatchNorm2d))
    for layer in layers:
        layer.register_forward_hook(lambda _layer, _inputs, output: seen.append(output))
    model(network.normalise(torch.zeros(2, 32, 48, 3, dtype=torch.uint8)))
    assert len(seen) > 15
    assert all(item.is_contiguous(memory_format=torch.channels_last) for item in seen)


@pytest.mark.parametrize("name", SMALL)
def test_a_few_steps_lower_the_loss_of_one_batch(name: str) -> None:
    torch.manual_seed(0)
    model = network.build(name).train()
    images, target = torch.randn(4, 3, 32, 32), (torch.rand(4, 1, 32, 32) > 0.5).float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(images), target)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert losses[-1] < 0.95 * losses[0]


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=rf"{', '.join(MODELS)}; got 'unet'"):
        network.build("unet")


def test_parameters_counts_only_trainable_ones() -> None:
    layer = torch.nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    assert network.parameters(layer) == 6
    assert network.parameters(torch.nn.ModuleList(chain([layer], [torch.nn.Linear(1, 1)]))) == 8


def test_normalise_equals_torchvision() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3)).astype(np.uint8)
    images[0, 0, 0], images[0, 0, 1] = 0, 255
    expected = torch.stack(
        [vision.normalize(vision.to_tensor(i), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) for i in images]
    )
    result = network.normalise(torch.from_numpy(images))
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=2e-6)


def test_normalise_gives_channels_last_memory() -> None:
    result = network.normalise(torch.zeros(2, 8, 8, 3, dtype=torch.uint8))
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
    result = network.normalise(torch.from_numpy(images))
    assert result.dtype == torch.float32
    assert result.shape == (5, 3, 16, 24)
    assert result.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(result.numpy(), np.stack([_stretched(image) for image in images]), rtol=1e-5, atol=2e-6)


def test_a_16_bit_image_that_spans_its_type_is_normalised_as_8_bit_gray_is() -> None:
    gray = np.random.default_rng(0).integers(0, 256, (2, 16, 24)).astype(np.uint8)
    gray[:, 0, :2] = 0, 255
    deep = torch.from_numpy(gray.astype(np.uint16) * 257)
    rgb = torch.from_numpy(np.repeat(gray[..., None], 3, axis=3))
    torch.testing.assert_close(network.normalise(deep), network.normalise(rgb), rtol=1e-5, atol=2e-6)
