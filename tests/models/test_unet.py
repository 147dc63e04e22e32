"""The ResNet U-Nets: live parameters, and an encoder that is torchvision's and timm's."""

import pytest
import timm
import torch
import torchvision

from medsass.models import network, unet

PARAMETERS = {"unet-resnet50": 4_533_734, "unet-resnet18": 1_241_164}


@pytest.mark.parametrize(("name", "count"), sorted(PARAMETERS.items()))
def test_number_of_parameters(name: str, count: int) -> None:
    model = unet.build(name)
    assert sum(item.numel() for item in model.parameters()) == count
    assert network.parameters(model) == count


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_the_encoder_has_the_parameters_of_torchvisions_resnet_up_to_its_second_stage(name: str) -> None:
    whole = getattr(torchvision.models, name.removeprefix("unet-"))()
    live = (whole.conv1, whole.bn1, whole.layer1, whole.layer2)
    assert network.parameters(unet.build(name).encoder) == sum(network.parameters(part) for part in live)


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_the_encoder_is_timms_resnet_under_its_names(name: str) -> None:
    torch.manual_seed(0)
    encoder = unet.build(name).encoder.eval()
    peer = timm.create_model(name.removeprefix("unet-"), features_only=True, out_indices=(0, 1, 2)).eval()
    peer.load_state_dict(encoder.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        for ours, theirs in zip(encoder(images)[1:], peer(images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_a_side_that_is_a_multiple_of_8_but_not_of_16_is_served(name: str) -> None:
    with torch.no_grad():
        assert unet.build(name).eval()(torch.zeros(2, 3, 24, 40)).shape == (2, 1, 24, 40)


def test_logits_are_not_squashed() -> None:
    torch.manual_seed(0)
    logits = unet.build("unet-resnet18")(100 * torch.randn(2, 3, 32, 32))
    assert logits.min() < 0
