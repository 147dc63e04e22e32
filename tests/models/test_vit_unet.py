"""The ViT U-Nets: sizes and shapes as stated, the VC block as a formula, and an encoder that is timm's."""

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import nn

from medsass.models import encoder, network, vit_unet

PEERS = {"unet-vit-small": "vit_small_patch8_224", "unet-vit-tiny": "vit_tiny_patch16_224"}


def _peer(name: str, size: int) -> nn.Module:
    made: nn.Module = timm.create_model(PEERS[name], num_classes=0, patch_size=8, img_size=size)
    return made.eval()


def _vit(width: int) -> int:
    """Parameters of a ViT, counted on paper: patches of 8 x 8, 224 x 224 pixels, twelve blocks."""
    ends = 3 * 64 * width + width + width + (28 * 28 + 1) * width + 2 * width  # patches, class token, positions, norm
    attention, mlp = 4 * width * width + 4 * width, 8 * width * width + 5 * width
    return ends + 12 * (attention + mlp + 4 * width)


def _convolutions(width: int, c: tuple[int, ...]) -> int:
    """Parameters of the rest, counted on paper: 3 x 3 kernels and two of a normalisation for each channel that comes out."""

    def double(channels: int, out: int) -> int:
        return 9 * channels * out + 9 * out * out + 4 * out

    down = double(3, c[0]) + double(c[0], c[1]) + double(c[1], c[2]) + double(c[2], c[3]) + double(c[3], c[4])
    up = double(c[4] + c[3], c[2]) + double(c[2] + c[2], c[1]) + double(c[1] + c[1], c[0]) + double(c[0] + c[0], c[0])
    return down + up + width * c[4] + c[4] + c[4] * c[4] + c[4] + c[0] + 1


@pytest.mark.parametrize(
    ("name", "width", "channels", "millions"),
    [
        ("unet-vit-small", 384, (64, 128, 256, 512, 512), (21.67, 13.85)),
        ("unet-vit-tiny", 192, (32, 64, 128, 256, 256), (5.53, 3.47)),
    ],
)
def test_number_of_parameters(name: str, width: int, channels: tuple[int, ...], millions: tuple[float, float]) -> None:
    model = vit_unet.build(name)
    inner = network.parameters(model.encoder)
    assert (inner, network.parameters(model) - inner) == (_vit(width), _convolutions(width, channels))
    assert (round(_vit(width) / 1e6, 2), round(_convolutions(width, channels) / 1e6, 2)) == millions


def test_vit_small_has_the_paper_s_heads_blocks_and_mlp() -> None:
    vit = vit_unet.build("unet-vit-small").encoder
    first = vit.blocks[0]
    assert (len(vit.blocks), first.attn.num_heads, first.mlp.fc1.out_features) == (12, 6, 1536)
    assert vit.patch_embed.proj.kernel_size == (8, 8)


def test_maps_have_the_shapes_that_are_stated_for_224_pixels() -> None:
    model, shapes = vit_unet.build("unet-vit-tiny").eval(), []
    for part in (model.first, *model.down, model.bridge, *model.up, model.out):
        part.register_forward_hook(lambda _part, _inputs, output: shapes.append(tuple(output.shape[1:])))
    with torch.no_grad():
        model(torch.zeros(1, 3, 224, 224))
    assert shapes == [
        *[(32, 224, 224), (64, 112, 112), (128, 56, 56), (256, 28, 28), (256, 14, 14), (256, 14, 14)],
        *[(128, 28, 28), (64, 56, 56), (32, 112, 112), (32, 224, 224), (1, 224, 224)],
    ]


@pytest.mark.parametrize("name", sorted(PEERS))
def test_the_encoder_is_timms_transformer_under_its_names(name: str) -> None:
    torch.manual_seed(0)
    ours, peer = vit_unet.build(name).encoder.eval(), _peer(name, 224)
    peer.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours.forward_features(images), peer.forward_features(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [64, 96])
def test_at_another_size_features_are_those_of_a_transformer_of_that_size_with_resampled_positions(size: int) -> None:
    torch.manual_seed(0)
    ours, peer = vit_unet.build("unet-vit-tiny").encoder.eval(), _peer("unet-vit-tiny", size)
    nn.init.normal_(ours.pos_embed)
    state = ours.state_dict()
    grid = [size // 8, size // 8]
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], grid, num_prefix_tokens=1)
    peer.load_state_dict(state, strict=True)
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(ours.forward_features(images), peer.forward_features(images), rtol=1e-4, atol=1e-4)


def test_the_vc_block_is_two_matrices_and_the_mean_of_each_four_neighbours() -> None:
    torch.manual_seed(0)
    block, tokens = vit_unet.ViTConvolution(6, 5), torch.randn(2, 6, 8, 12)
    first, second = block.convolution, block.linear
    full = torch.einsum("oc,nchw->nohw", first.weight[:, :, 0, 0], tokens) + first.bias[:, None, None]
    full = torch.einsum("oc,nchw->nohw", second.weight, full) + second.bias[:, None, None]
    expected = (full[..., ::2, ::2] + full[..., ::2, 1::2] + full[..., 1::2, ::2] + full[..., 1::2, 1::2]) / 4
    torch.testing.assert_close(block(tokens, torch.Size((4, 6))), expected, rtol=1e-4, atol=1e-5)


def test_the_deepest_map_is_the_sum_of_both_ways() -> None:
    torch.manual_seed(0)
    model, images, seen = vit_unet.build("unet-vit-tiny").eval(), torch.randn(1, 3, 32, 64), []
    model.up[0].register_forward_pre_hook(lambda _part, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(images)
        skip = model.down[2](model.down[1](model.down[0](model.first(images))))
        vit = model.bridge(encoder.feature_map(model.encoder, images), torch.Size((2, 4)))
        deep = model.down[3](skip) + vit
        wide = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)(deep)
    torch.testing.assert_close(seen[0][:, :256], skip)
    torch.testing.assert_close(seen[0][:, 256:], wide)
