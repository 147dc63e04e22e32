"""Maps and vectors of each kind of encoder."""

import pytest
import timm
import torch
from torch import nn

from medsass.models import encoder, network

WIDTHS = {"unet-resnet50": 512, "unet-resnet18": 128, "unet-vit-small": 384, "unet-vit-tiny": 192}


def _made(name: str) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = network.build(name).encoder.eval()
    return made


@pytest.mark.parametrize(("name", "width"), sorted(WIDTHS.items()))
def test_map_and_vectors_have_the_width_and_an_eighth_of_the_size(name: str, width: int) -> None:
    inner, images = _made(name), torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        assert encoder.width(inner) == width
        assert encoder.feature_map(inner, images).shape == (2, width, 4, 6)
        assert encoder.pooled(inner, images).shape == (2, width)
        assert encoder.summary(inner, images).shape == (2, width)


@torch.no_grad()
def test_a_resnets_map_is_timms_third_and_both_vectors_are_its_mean() -> None:
    inner, images = _made("unet-resnet50"), torch.randn(2, 3, 64, 32)
    peer = timm.create_model("resnet50", features_only=True, out_indices=(2,)).eval()
    peer.load_state_dict(inner.state_dict(), strict=True)
    expected = peer(images)[0]
    torch.testing.assert_close(encoder.feature_map(inner, images), expected, rtol=1e-4, atol=1e-4)
    mean = expected.numpy().mean((2, 3))
    for vector in (encoder.pooled(inner, images), encoder.summary(inner, images)):
        torch.testing.assert_close(vector, torch.from_numpy(mean), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_vits_map_vectors_and_class_token_are_timms() -> None:
    inner, images = _made("unet-vit-tiny"), torch.randn(2, 3, 64, 96)
    ((expected, prefix),) = inner.forward_intermediates(
        images, 1, return_prefix_tokens=True, norm=True, intermediates_only=True
    )
    torch.testing.assert_close(encoder.feature_map(inner, images), expected)
    torch.testing.assert_close(encoder.pooled(inner, images), torch.from_numpy(expected.numpy().mean((2, 3))))
    torch.testing.assert_close(encoder.summary(inner, images), prefix[:, 0])
    torch.testing.assert_close(encoder.summary(inner, images), inner(images))
