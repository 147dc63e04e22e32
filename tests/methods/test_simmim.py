"""SimMIM: its masks, what they hide from the encoder, and the loss written out."""

import math

import pytest
import torch

from medsass.data.loading.loader import Batch
from medsass.methods import simmim
from medsass.methods.simmim import SimMIM
from tests.methods import baselines


@pytest.fixture
def chosen() -> SimMIM:
    result = baselines.made("simmim", "unet-vit-tiny", size=64)
    assert isinstance(result, SimMIM)
    return result


@pytest.mark.parametrize(
    ("size", "pixels"), [(224, 32), (448, 64), (192, 24), (128, 16), (96, 16), (64, 8), (32, 8), (16, 8)]
)
def test_masked_squares_are_a_seventh_of_the_image_or_next_to_it(size: int, pixels: int) -> None:
    side = pixels // 8
    torch.manual_seed(0)
    mask = simmim.random_mask(20, size)
    corners = mask[:, ::side, ::side]
    assert torch.equal(mask, corners.repeat_interleave(side, 1).repeat_interleave(side, 2))
    borders = mask.diff(dim=1).any((0, 2)).nonzero() + 1  # of the squares, in patches
    assert math.gcd(*borders.flatten().tolist()) == side


@pytest.mark.parametrize(("size", "side"), [(224, 4), (96, 2), (64, 1), (32, 1)])
def test_six_of_ten_squares_are_masked_whole_the_same_number_in_every_image(size: int, side: int) -> None:
    rows = size // 8 // side
    mask = simmim.random_mask(50, size)
    corners = mask[:, ::side, ::side]
    assert (corners.sum((1, 2)) == math.ceil(0.6 * rows**2)).all()
    for y in range(side):
        for x in range(side):
            assert torch.equal(mask[:, y::side, x::side], corners)
    assert len({tuple(row.flatten().tolist()) for row in corners}) > 25


def test_every_square_is_masked_about_as_often() -> None:
    share = simmim.random_mask(4000, 224)[:, ::4, ::4].double().mean(0)
    expected = 30 / 49
    assert (share - expected).abs().max() < 5 * (expected * (1 - expected) / 4000) ** 0.5


def test_masked_pixels_do_not_change_what_is_encoded(chosen: SimMIM) -> None:
    images = baselines.normalised(baselines.batch(chosen).images)
    mask = simmim.random_mask(4, 64)
    hidden = mask.repeat_interleave(8, 1).repeat_interleave(8, 2).unsqueeze(1)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    vit, token = chosen.network.encoder, chosen.mask
    expected = simmim.encode(vit, images, mask, token)
    torch.testing.assert_close(simmim.encode(vit, torch.where(hidden, noise, images), mask, token), expected)
    assert not torch.allclose(simmim.encode(vit, torch.where(hidden, images, noise), mask, token), expected)


def test_without_a_mask_the_encoder_is_timms(chosen: SimMIM) -> None:
    images, vit = baselines.normalised(baselines.batch(chosen).images), chosen.network.encoder
    nothing = torch.zeros(4, 8, 8, dtype=torch.bool)
    expected = vit.forward_features(images)[:, 1:]  # type: ignore[operator]
    torch.testing.assert_close(simmim.encode(vit, images, nothing, chosen.mask), expected)


def test_the_loss_is_the_mean_absolute_error_of_masked_pixels(chosen: SimMIM) -> None:
    batch = baselines.batch(chosen)
    torch.manual_seed(7)
    loss = chosen(batch, 0.0).loss.item()
    torch.manual_seed(7)
    mask = simmim.random_mask(4, 64)
    images = baselines.normalised(batch.images)
    guess = chosen.head(simmim.encode(chosen.network.encoder, images, mask, chosen.mask))
    wanted = baselines.patches(images)
    terms = [
        (guess[n, p, i] - wanted[n, p, i]).abs().item()
        for n, p in mask.flatten(1).nonzero().tolist()
        for i in range(192)
    ]
    assert loss == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_visible_pixels_are_no_target(chosen: SimMIM) -> None:
    torch.nn.init.zeros_(chosen.head.weight)
    batch = baselines.batch(chosen)
    torch.manual_seed(3)
    mask = simmim.random_mask(4, 64)[0]
    losses = {}
    for name, wanted in [("none", None), ("visible", False), ("masked", True)]:
        images = batch.images.clone()
        if wanted is not None:
            y, x = (mask == wanted).nonzero()[0].tolist()
            images[0, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = 0
        torch.manual_seed(3)
        losses[name] = chosen(Batch(images), 0.0).loss.item()
    assert losses["visible"] == losses["none"] != losses["masked"]


def test_gradients_reach_everything(chosen: SimMIM) -> None:
    chosen(baselines.batch(chosen), 0.0).loss.backward()
    assert [name for name, item in chosen.named_parameters() if item.grad is None or not item.grad.any()] == []
