"""MAE: what the encoder sees, what the loss compares, and that no visible patch has a part in it."""

from typing import Any

import numpy as np
import pytest
import torch

from medsass.data.loading.loader import Batch
from medsass.methods import mae
from medsass.methods.baseline import import_lightly
from medsass.methods.mae import MAE
from tests.methods import baselines

SIZE = 64
PATCHES = 64


@pytest.fixture
def chosen() -> MAE:
    result = baselines.made("mae", "unet-vit-tiny", size=SIZE)
    assert isinstance(result, MAE)
    return result


def _watched(chosen: MAE, batch: Batch, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Loss, and the decoder's arguments `keep` and `masked` and its output, of one forward pass."""
    calls: list[Any] = []
    hook = chosen.decoder.register_forward_hook(lambda _, args, output: calls.append((*args, output)))
    torch.manual_seed(seed)
    loss = chosen(batch, 0.0).loss
    hook.remove()
    ((_, keep, masked, pixels),) = calls
    return loss, keep, masked, pixels


def test_exactly_three_quarters_of_the_patches_are_masked(chosen: MAE) -> None:
    _, keep, masked, _ = _watched(chosen, baselines.batch(chosen))
    assert masked.shape == (4, PATCHES * 3 // 4)
    assert (keep[:, 0] == 0).all()
    positions = torch.cat([keep, masked], 1).sort(1).values
    assert torch.equal(positions, torch.arange(PATCHES + 1).expand(4, -1))
    assert len({tuple(row.sort().values.tolist()) for row in masked}) == 4


def test_every_patch_is_masked_about_as_often(chosen: MAE) -> None:
    masked = chosen.utils.random_token_mask((4000, PATCHES + 1), 0.75)[1]
    share = torch.bincount(masked.flatten(), minlength=PATCHES + 1)[1:] / 4000
    assert (share - 0.75).abs().max() < 5 * (0.75 * 0.25 / 4000) ** 0.5


def test_the_encoder_gets_the_visible_tokens_alone(chosen: MAE) -> None:
    sizes: list[torch.Size] = []
    chosen.network.encoder.blocks[0].register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape))  # type: ignore[index, union-attr]
    chosen(baselines.batch(chosen), 0.0)
    assert sizes == [(4, 1 + PATCHES // 4, 192)]


def test_masked_pixels_do_not_change_what_is_encoded(chosen: MAE) -> None:
    utils, vit = import_lightly("models.utils"), chosen.network.encoder
    images = baselines.normalised(baselines.batch(chosen).images)
    keep = torch.tensor([0, 1, 10, 64]).expand(4, -1)
    other = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    for y, x in [(0, 0), (1, 1), (7, 7)]:  # patches 1, 10 and 64, counted from 1
        other[:, :, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = images[:, :, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8]
    torch.testing.assert_close(mae.encode(vit, images, keep, utils), mae.encode(vit, other, keep, utils))


def test_with_all_patches_kept_the_encoder_is_timms(chosen: MAE) -> None:
    images, vit = baselines.normalised(baselines.batch(chosen).images), chosen.network.encoder
    keep = torch.arange(PATCHES + 1).expand(4, -1)
    expected = vit.forward_features(images)  # type: ignore[operator]
    torch.testing.assert_close(mae.encode(vit, images, keep, import_lightly("models.utils")), expected)


def test_the_loss_is_the_mean_square_over_masked_patches_each_normalised(chosen: MAE) -> None:
    batch = baselines.batch(chosen)
    loss, _, masked, pixels = _watched(chosen, batch)
    pieces = baselines.patches(baselines.normalised(batch.images)).double().numpy()
    terms = []
    for image, (indices, guesses) in enumerate(zip(masked, pixels.detach().double().numpy(), strict=True)):
        for index, guess in zip(indices, guesses, strict=True):
            patch = pieces[image, index - 1]
            terms.append(np.mean((guess - (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)) ** 2))
    assert loss.item() == pytest.approx(np.mean(terms), rel=1e-5)


def test_pixels_of_visible_patches_are_no_target(chosen: MAE, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = baselines.batch(chosen)
    _, keep, masked, pixels = _watched(chosen, batch)
    guess = torch.linspace(-1, 1, pixels.shape[-1]).expand_as(pixels)  # any constant would be as wrong on every patch
    monkeypatch.setattr(chosen.decoder, "forward", lambda *_: guess)
    losses = {}
    for name, index in [("none", None), ("visible", keep[0, 1] - 1), ("masked", masked[0, 0] - 1)]:
        images = batch.images.clone()
        if index is not None:
            y, x = divmod(int(index), 8)
            images[0, 8 * y : 8 * y + 4, 8 * x : 8 * x + 8] = 0
        torch.manual_seed(0)
        losses[name] = chosen(Batch(images), 0.0).loss.item()
    assert losses["visible"] == losses["none"] != losses["masked"]


def test_the_decoder_puts_tokens_to_their_positions_in_whatever_order_they_come(chosen: MAE) -> None:
    seen = torch.randn(2, 5, 192, generator=torch.Generator().manual_seed(0))
    keep = torch.tensor([[0, 3, 9, 20, 64], [0, 1, 2, 30, 40]])
    masked = torch.tensor([[1, 2], [63, 64]])
    order = [4, 0, 2, 1, 3]
    expected = chosen.decoder(seen, keep, masked)
    torch.testing.assert_close(chosen.decoder(seen[:, order], keep[:, order], masked), expected)
    assert not torch.allclose(chosen.decoder(seen[:, order], keep, masked), expected)


def test_the_decoders_positions_are_fixed_sines_and_cosines(chosen: MAE) -> None:
    positions = chosen.decoder.positions
    assert positions.shape == (1, PATCHES + 1, 96)
    assert not positions.requires_grad
    x, y = 5, 2
    angles = 1 / 10000 ** (torch.arange(24) / 24)
    expected = torch.cat([torch.sin(x * angles), torch.cos(x * angles), torch.sin(y * angles), torch.cos(y * angles)])
    torch.testing.assert_close(positions[0, 1 + 8 * y + x], expected)


def test_gradients_reach_everything(chosen: MAE) -> None:
    chosen(baselines.batch(chosen), 0.0).loss.backward()
    idle = {name for name, item in chosen.named_parameters() if item.grad is None or not item.grad.any()}
    assert idle == {"decoder.positions"}
