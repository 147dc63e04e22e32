"""Exported weights: built and loaded by smp, timm and onnxruntime as their users would, compared with the run's network."""

import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import load
from torch import nn

from medsass.models import export, network, parity
from medsass.models.parity import RunModel

UNETS = {
    "unet-resnet18": {"encoder_name": "resnet18", "decoder_channels": (128, 64, 32)},
    "unet-resnet50": {"encoder_name": "resnet50", "decoder_channels": (256, 128, 64)},
}
VITS = {"unet-vit-small": {}, "unet-vit-tiny": {"embed_dim": 192, "num_heads": 3}}


def trained(name: str) -> nn.Module:
    """Build a network whose tensors all differ from a fresh one's, also running statistics, as after training."""
    torch.manual_seed(7)
    model = network.build(name).eval()
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand_like(tensor)
            tensor.add_(noise * 0.1 if key.endswith("running_var") else (noise - 0.5) * 0.02)
    return model


def whole(name: str, size: int = 64) -> RunModel:
    return RunModel(name, size, trained(name), False)


def images(count: int = 2, size: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(99))


@pytest.mark.parametrize("name", UNETS)
def test_smp_loads_a_network_strictly_and_gives_the_same_bits(name: str) -> None:
    run = whole(name)
    model = smp.Unet(
        encoder_depth=3, encoder_weights=None, decoder_attention_type="scse", **UNETS[name]
    )  # fmt: skip
    model.load_state_dict(load(export.to_safetensors(run).data), strict=True)
    with torch.no_grad():
        ours = run.module(images())
        torch.testing.assert_close(model.eval()(images()), ours, rtol=1e-4, atol=1e-5)
        assert torch.equal(model.to(memory_format=torch.channels_last)(images()), ours)


def test_what_smp_never_calls_is_its_fresh_initialisation_and_nothing_else_is_added() -> None:
    run = whole("unet-resnet18")
    state, ours = load(export.to_safetensors(run).data), run.module.state_dict()
    added = state.keys() - ours.keys()
    assert {key.split(".")[1] for key in added if key.startswith("encoder.")} == {"layer3", "layer4"}
    assert all(key.startswith(("encoder.layer", "decoder.blocks.2.attention1.")) for key in added)
    assert all(torch.equal(state[key], ours[key]) for key in ours)
    assert state["encoder.layer4.1.conv2.weight"].std() > 0


def test_the_same_run_gives_the_same_bytes_and_leaves_torchs_random_state_alone() -> None:
    run = whole("unet-resnet18")
    torch.manual_seed(1)
    first, state = export.to_safetensors(run).data, torch.get_rng_state()
    torch.manual_seed(2)
    assert export.to_safetensors(run).data == first
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_smp_loads_an_encoder_strictly() -> None:
    run = whole("unet-resnet18").encoder_only()
    encoder = smp.encoders.get_encoder("resnet18", depth=3, weights=None)
    encoder.load_state_dict(load(export.to_safetensors(run).data), strict=True)
    maps = encoder.eval().to(memory_format=torch.channels_last)(images())
    assert torch.equal(maps[-1], run.module(images())[-1])


@pytest.mark.parametrize("name", UNETS)
@pytest.mark.parametrize("is_encoder", [False, True])
def test_timm_loads_a_resnet_strictly_and_sees_the_same_three_maps(name: str, is_encoder: bool) -> None:
    run = whole(name).encoder_only() if is_encoder else whole(name)
    encoder = timm.create_model(name.removeprefix("unet-"), features_only=True, out_indices=(0, 1, 2))
    encoder.load_state_dict(load(export.to_timm(run).data), strict=True)
    theirs, ours = encoder.eval().to(memory_format=torch.channels_last)(images()), run.encoder(images())[1:]
    assert [tuple(item.shape[2:]) for item in theirs] == [(32, 32), (16, 16), (8, 8)]
    assert all(torch.equal(*pair) for pair in zip(theirs, ours, strict=True))


@pytest.mark.parametrize("name", VITS)
def test_timm_loads_a_vit_strictly_and_sees_the_same_tokens(name: str) -> None:
    run = whole(name)
    encoder = timm.create_model("vit_small_patch8_224", num_classes=0, dynamic_img_size=True, **VITS[name]).eval()
    encoder.load_state_dict(load(export.to_timm(run).data), strict=True)
    encoder = encoder.to(memory_format=torch.channels_last)  # in which some CPUs' convolutions round otherwise
    with torch.no_grad():
        assert torch.equal(encoder.forward_features(images()), run.encoder.forward_features(images()))


def test_a_vit_network_loads_into_ours_and_holds_what_it_held() -> None:
    run = whole("unet-vit-tiny")
    state = load(export.to_safetensors(run).data)
    network.build("unet-vit-tiny").load_state_dict(state, strict=True)
    assert all(torch.equal(value, state[key]) for key, value in run.module.state_dict().items())


@pytest.mark.parametrize(
    ("name", "is_encoder", "size"),
    [
        ("unet-resnet18", False, 64),
        ("unet-resnet50", True, 64),
        ("unet-vit-tiny", False, 64),
        ("unet-vit-tiny", True, 96),
    ],
)
def test_onnxruntime_answers_as_torch_for_any_number_of_images(name: str, is_encoder: bool, size: int) -> None:
    run = whole(name, size).encoder_only() if is_encoder else whole(name, size)
    made = export.to_onnx(run)
    session = onnxruntime.InferenceSession(made.data, providers=["CPUExecutionProvider"])
    for count in (1, 3):
        given = images(count, size)
        with torch.no_grad():
            ours = run.module(given) if not is_encoder else _deepest(run.module, given)
        (theirs,) = session.run(None, {"images": given.numpy()})
        np.testing.assert_allclose(theirs, ours.numpy(), rtol=0, atol=1e-4 * float(ours.abs().max()))


def _deepest(encoder: nn.Module, given: torch.Tensor) -> torch.Tensor:
    """A ResNet's last map; a ViT's tokens, without the class token, row by row."""
    if not hasattr(encoder, "forward_features"):
        return encoder(given)[-1]
    tokens, side = encoder.forward_features(given)[:, 1:], given.shape[2] // 8
    return tokens.permute(0, 2, 1).reshape(len(given), -1, side, side)


def test_an_onnx_model_says_which_images_it_takes_and_what_it_answers() -> None:
    made = export.to_onnx(whole("unet-resnet18"))
    model = onnx.load_from_string(made.data)
    onnx.checker.check_model(model, full_check=True)
    sides = [[axis.dim_param or axis.dim_value for axis in item.type.tensor_type.shape.dim]
             for item in (*model.graph.input, *model.graph.output)]  # fmt: skip
    assert sides == [["batch", 3, 64, 64], ["batch", 1, 64, 64]]
    assert [item.name for item in (*model.graph.input, *model.graph.output)] == ["images", "logits"]
    assert [item.version for item in model.opset_import] == [17]


def test_onnx_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"--format onnx .* pip install 'medsass\[export\]'"):
        export.to_onnx(whole("unet-resnet18"))


def test_a_model_that_onnxruntime_answers_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    run, right = whole("unet-resnet18"), onnxruntime.InferenceSession.run
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", lambda *given: [item * 1.001 for item in right(*given)])
    with pytest.raises(ValueError, match=r"the exported network answers differently .* not written"):
        export.to_onnx(run)


@pytest.mark.parametrize("wrong", [1e-3, float("nan")])
def test_a_difference_from_our_answer_is_refused(wrong: float) -> None:
    run = whole("unet-resnet18")
    with pytest.raises(ValueError, match="answers differently"), torch.no_grad():
        parity.compare(run, lambda given: run.module(given) + wrong)


def test_the_largest_difference_and_the_scale_are_those_of_both_batches() -> None:
    run = whole("unet-resnet18")
    with torch.no_grad():
        largest = max(float(run.module(parity.noise(64, count)).abs().max()) for count in (1, 3))
        difference, scale = parity.compare(run, lambda given: run.module(given) + 2**-20 * (len(given) == 3))
    assert scale == pytest.approx(largest)
    assert difference == pytest.approx(2**-20, rel=0.1)


def test_a_diverged_run_is_named_as_such() -> None:
    run = whole("unet-resnet18")
    next(run.module.parameters()).data.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite: this training diverged"):
        export.to_safetensors(run)
