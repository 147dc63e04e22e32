"""A run's model in the formats of other libraries: segmentation-models-pytorch (smp), timm, ONNX.

Every export is checked: the other library builds the model and loads the file strictly, and its output is compared with
our own.
"""

import copy
import io
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import nn

from medsass.models import encoder, network, unet, vit_unet
from medsass.models.checkpoint import to_bytes
from medsass.models.parity import RunModel, compare, noise

OPSET = 17

_SEED = 0  # of the modules that smp builds and never calls
_SMP = "import segmentation_models_pytorch as smp"
_LOGITS = ("logits = network(images)",)
_MAPS = ("maps = encoder(images)", "features = maps[-1]")


@dataclass(frozen=True)
class Export:
    """A file and how it is used.

    Attributes:
        data: the file's content.
        library: the library that loads it.
        lines: Python that loads it from its own folder and makes `logits` (N, 1, H, W) or `features` (N, C, H/8, W/8) from
            `images` (N, 3, H, W).
        note: anything else its user must know.
        difference: the largest absolute difference from our output.
        scale: the largest absolute value of our output.
    """

    data: bytes
    library: str
    lines: tuple[str, ...]
    note: str
    difference: float
    scale: float


def file_name(form: str, kind: str) -> str:
    """Return the file name of a form of `FORMS`, for a "network" or an "encoder"."""
    return {"safetensors": f"{kind}.safetensors", "timm": "timm.safetensors", "onnx": f"{kind}.onnx"}[form]


def to_safetensors(model: RunModel) -> Export:
    """Export all that the run stores.

    A ResNet's file loads strictly into smp's own classes: the modules that smp builds but never calls at depth three, and
    that `unet.build` removes, are filled in with smp's initialisation from a fixed seed.
    """
    if model.name in unet.SHAPES:
        return _to_smp(model)
    if model.is_encoder:
        return to_timm(model, "safetensors")
    built, state = _loaded(partial(network.build, model.name), model.module)
    library, call = "from medsass.models import network as networks", f'networks.build("{model.name}")'
    lines = _lines(library, "network", call, file_name("safetensors", "network"), _LOGITS)
    note = "The network is medsass's own: smp takes no plain vision transformer as its encoder."
    return Export(to_bytes(state), "medsass", lines, note, *compare(model, built))


def to_timm(model: RunModel, form: str = "timm") -> Export:
    """Export the encoder, also of a network, for timm.create_model; `form` names the file."""
    answer, note = _MAPS, "`maps` are the outputs at a half, a quarter and an eighth of the image's side."
    if model.name in unet.SHAPES:
        arguments = {"model_name": unet.SHAPES[model.name].encoder, "features_only": True, "out_indices": (0, 1, 2)}
    else:
        arguments = _vit_arguments(model.name)
        answer = (
            "tokens = encoder.forward_features(images)[:, 1:]  # without the class token",
            "features = tokens.unflatten(1, (images.shape[2] // 8, images.shape[3] // 8)).permute(0, 3, 1, 2)",
        )
        note = "The position embeddings are those of 224 x 224 pixels; timm resamples them for images of another size."
    built, state = _loaded(partial(timm.create_model, **arguments), model.encoder)
    lines = _lines("import timm", "encoder", _call("timm.create_model", arguments), file_name(form, "encoder"), answer)
    theirs = (lambda images: built(images)[-1]) if model.name in unet.SHAPES else partial(encoder.feature_map, built)
    return Export(to_bytes(state), "timm", lines, note, *compare(model.encoder_only(), theirs))


def to_onnx(model: RunModel) -> Export:
    """Export the network, or the feature map of an encoder alone, as an ONNX model, and compare it in onnxruntime.

    It computes in float32 and takes any number of images of the size that the run was trained on. Raises `ImportError`
    that says which packages to install.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"--format onnx needs more packages ({error}): pip install 'medsass[export]'") from error
    output = "features" if model.is_encoder else "logits"
    traced = onnx.load_from_string(_traced(_of_fixed_size(model), output))
    with torch.no_grad():
        shape = model(noise(model.size, 1)).shape[1:]
    for axis, size in zip(traced.graph.output[0].type.tensor_type.shape.dim[1:], shape, strict=True):
        axis.dim_value = size  # tracing does not see that it is constant where the network resizes
    del traced.graph.value_info[:]
    data = traced.SerializeToString()
    onnx.checker.check_model(data, full_check=True)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    lines = (
        "import onnxruntime",
        "",
        f'session = onnxruntime.InferenceSession("{model.kind}.onnx")',
        f'{output} = session.run(["{output}"], {{"images": images.numpy()}})[0]',
    )
    found = compare(model, lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0]))
    note = f"Any number of images, each of {model.size} x {model.size} pixels; ONNX opset {OPSET}."
    return Export(data, "onnx", lines, note, *found)


FORMS: dict[str, Callable[[RunModel], Export]] = {"safetensors": to_safetensors, "timm": to_timm, "onnx": to_onnx}


def _to_smp(model: RunModel) -> Export:
    shape = unet.SHAPES[model.name]
    if model.is_encoder:
        build, name = smp.encoders.get_encoder, "smp.encoders.get_encoder"
        uncalled = "`layer3` and `layer4`"
        arguments = {"name": shape.encoder, "depth": len(shape.decoder), "weights": None}
    else:
        build, name = smp.Unet, "smp.Unet"
        uncalled = "the encoder's `layer3` and `layer4` and the last decoder block's `attention1`"
        arguments = {
            "encoder_name": shape.encoder,
            "encoder_depth": len(shape.decoder),
            "encoder_weights": None,
            "decoder_channels": shape.decoder,
            "decoder_attention_type": "scse",
        }
    built, state = _loaded(partial(build, **arguments), model.module)
    answer = _MAPS if model.is_encoder else _LOGITS
    lines = _lines(_SMP, model.kind, _call(name, arguments), file_name("safetensors", model.kind), answer)
    note = (
        f"smp also builds {uncalled}. They are never called at this depth and were not trained: the file holds smp's random "
        f"initialisation of them (seed {_SEED})."
    )
    found = compare(model, (lambda images: built(images)[-1]) if model.is_encoder else built)
    return Export(to_bytes(state), "segmentation-models-pytorch", lines, note, *found)


def _vit_arguments(name: str) -> dict[str, Any]:
    """Return timm.create_model's arguments: it knows ViT-small by name, and ViT-tiny as one of another width."""
    shape = vit_unet.SHAPES[name]
    other = {} if name == "unet-vit-small" else {"embed_dim": shape.width, "num_heads": shape.heads}
    return {"model_name": "vit_small_patch8_224", "num_classes": 0, **other, "dynamic_img_size": True}


def _of_fixed_size(model: RunModel) -> RunModel:
    """Return a copy for images of the run's size only.

    ONNX has no antialiased bicubic resampling, so that a ViT's position embeddings are resampled beforehand.
    """
    if model.name in unet.SHAPES:
        return model
    source: Any = copy.deepcopy(model.encoder)
    side = model.size // 8
    source.pos_embed = nn.Parameter(resample_abs_pos_embed(source.pos_embed, [side, side]))
    arguments = {**_vit_arguments(model.name), "dynamic_img_size": False, "img_size": model.size}
    fixed, _ = _loaded(partial(timm.create_model, **arguments), source)
    if model.is_encoder:
        return RunModel(model.name, model.size, fixed, True)
    whole = copy.deepcopy(model.module)
    whole.encoder = fixed
    return RunModel(model.name, model.size, whole, False)


def _traced(model: RunModel, output: str) -> bytes:
    """Trace the ONNX model: torch's newer exporter fails on these networks with torch 2.6.

    The older one works from there to 2.15 and takes a fifth of the time.
    """
    content: Any = io.BytesIO()  # the older exporter takes a file too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the older exporter, and sizes that become constants, as they should
        torch.onnx.export(
            model,
            (noise(model.size, 2),),
            content,
            input_names=["images"],
            output_names=[output],
            dynamic_axes={"images": {0: "batch"}, output: {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
    return bytes(content.getvalue())


def _loaded(build: Callable[[], nn.Module], ours: nn.Module) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Build a module from the fixed seed, load the weights of `ours` into it, and return it with its state dict.

    Torch's random state stays unchanged.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_SEED)
        built = build()
    state = {**built.state_dict(), **ours.state_dict()}
    built.load_state_dict(state)
    return built.eval().to(memory_format=torch.channels_last), state


def _call(function: str, arguments: Mapping[str, Any]) -> str:
    """Return a call as Python text."""
    texts = (f"{name}={json.dumps(value) if isinstance(value, str) else value}" for name, value in arguments.items())
    return f"{function}({', '.join(texts)})"


def _lines(library: str, kind: str, call: str, file: str, answer: tuple[str, ...]) -> tuple[str, ...]:
    """Return Python that builds, loads and calls; channels-last in memory as in training, which gives the very same bits."""
    return (
        *sorted([library, "import torch"], key=lambda line: (line.startswith("from"), line)),
        "from safetensors.torch import load_file",
        "",
        f"{kind} = {call}",
        f'{kind}.load_state_dict(load_file("{file}"))',
        f"{kind} = {kind}.eval().to(memory_format=torch.channels_last)",
        "with torch.no_grad():",
        *(f"    {line}" for line in answer),
    )
