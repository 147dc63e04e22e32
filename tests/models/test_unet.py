"""The ResNet U-Nets: live parameters, and an encoder that is torchvision's and timm's."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torch._inductor.lowering
import torchvision
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._inductor.decomposition import select_decomp_table

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


def _plain(model: nn.Module) -> nn.Module:
    """smp's own U-Net of that shape, with the weights of unet-resnet18."""
    peer: nn.Module = smp.Unet(
        "resnet18", encoder_depth=3, encoder_weights=None, decoder_channels=(128, 64, 32), decoder_attention_type="scse"
    )
    peer.decoder.blocks[-1].attention1 = nn.Identity()
    missing, unexpected = peer.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith(("encoder.layer3", "encoder.layer4")) for name in missing)
    return peer.to(memory_format=torch.channels_last)


def test_logits_and_gradients_are_those_of_smps_unet() -> None:
    torch.manual_seed(0)
    model = unet.build("unet-resnet18")
    peer, images = _plain(model), torch.randn(2, 3, 64, 96).to(memory_format=torch.channels_last)
    for net in (model, peer):
        net(images).square().mean().backward()
    torch.testing.assert_close(model(images), peer(images))
    theirs = dict(peer.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (3, 1)])
def test_a_gpus_convolution_to_one_channel_is_torchs(kernel: int, padding: int) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(24, 1, kernel, padding=padding)
    ours, images = unet._ToOneChannel(plain), torch.randn(2, 24, 7, 9, requires_grad=True)
    results = [made(images) for made in (plain, ours, ours.channels_last)]
    for result in results[1:]:
        torch.testing.assert_close(result, results[0])
    wanted, _, found = (torch.autograd.grad(result.square().sum(), (images, plain.weight)) for result in results)
    torch.testing.assert_close(found, wanted)


def _compiled(double: Callable[[torch.Tensor], torch.Tensor]) -> set[str]:
    """The operators of a doubling, compiled, forward and backward."""
    seen: set[str] = set()

    def listen(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        seen.update(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    backend = aot_autograd(fw_compiler=listen, bw_compiler=listen, decompositions=select_decomp_table())
    torch._dynamo.reset()
    torch.compile(double, backend=backend)(torch.randn(2, 8, 4, 4, requires_grad=True)).sum().backward()
    return seen


def test_a_gpus_doubling_is_interpolation_without_atomic_additions() -> None:
    torch.manual_seed(0)
    interpolated = partial(nn.functional.interpolate, scale_factor=2, mode="nearest")
    images = torch.randn(2, 5, 3, 7).to(memory_format=torch.channels_last).requires_grad_()
    results = [double(images) for double in (interpolated, unet._doubled)]
    assert torch.equal(*results)
    assert results[1].is_contiguous(memory_format=torch.channels_last)
    weight = torch.randn_like(results[0])
    torch.testing.assert_close(*(torch.autograd.grad((r * weight).sum(), images)[0] for r in results))
    assert "aten.index_put.default" in _compiled(interpolated)
    assert "aten.index_put.default" not in _compiled(unet._doubled)
