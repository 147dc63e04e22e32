"""What a run keeps, as other libraries load it: segmentation-models-pytorch (smp), timm, ONNX.

Nothing is given out unseen: each form is built by the other library, loaded strictly and compared with our own answer.
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
from safetensors.torch import save as to_bytes
from timm.layers import resample_abs_pos_embed
from torch import nn

from medsass.models import encoder, network, unet, vit_unet
from medsass.models.parity import Answer, Kept, compare, noise

OPSET = 17

_SEED = 0  # of smp's parts that are never called


@dataclass(frozen=True)
class Export:
    """A file and how it is used. data: its content. library: what loads it. lines: Python that loads it from its own folder
    and makes `logits` (N, 1, H, W) or `features` (N, C, H/8, W/8) of `images` (N, 3, H, W). note: what else must be known.
    difference: the largest absolute one from our answer. scale: the largest absolute value of ours.
    """

    data: bytes
    library: str
    lines: tuple[str, ...]
    note: str
    difference: float
    scale: float


def file_name(form: str, what: str) -> str:
    """The file of a form of `FORMS`, for a "network" or an "encoder"."""
    return {"safetensors": f"{what}.safetensors", "timm": "timm.safetensors", "onnx": f"{what}.onnx"}[form]


def to_safetensors(kept: Kept) -> Export:
    """All that the run keeps. A ResNet's loads strictly into smp's own classes: what smp builds but never calls at depth
    three, and `unet.build` removes, is filled in as smp draws it from a fixed seed.
    """
    if kept.name in unet.SHAPES:
        return _smp_encoder(kept) if kept.is_encoder else _smp_network(kept)
    return _vit_encoder(kept, "safetensors") if kept.is_encoder else _vit_network(kept)


def to_timm(kept: Kept) -> Export:
    """The encoder, for timm.create_model; of a network too."""
    if kept.name not in unet.SHAPES:
        return _vit_encoder(kept, "timm")
    arguments = {"model_name": unet.SHAPES[kept.name].encoder, "features_only": True, "out_indices": (0, 1, 2)}
    built, state = _loaded(partial(timm.create_model, **arguments), kept.encoder)
    lines = _lines("import timm", "encoder", _call("timm.create_model", arguments), "timm.safetensors", _MAPS)
    note = "`maps` are the outputs at a half, a quarter and an eighth of the image's side."
    return Export(_bytes(state), "timm", lines, note, *compare(kept.alone, lambda images: built(images)[-1]))


def to_onnx(kept: Kept) -> Export:
    """The network, or the feature map of an encoder alone, as an ONNX model: float32, any number of images of the run's
    own size. Compared by onnxruntime. Raises `ImportError` that says what to install.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"--format onnx needs more packages ({error}): pip install 'medsass[export]'") from error
    answer = "features" if kept.is_encoder else "logits"
    model = onnx.load_from_string(_traced(_fixed(kept), answer))
    with torch.no_grad():
        shape = Answer(kept)(noise(kept.size, 1)).shape[1:]
    for axis, size in zip(model.graph.output[0].type.tensor_type.shape.dim[1:], shape, strict=True):
        axis.dim_value = size  # where the network resizes, tracing does not see that it is constant
    del model.graph.value_info[:]
    data = model.SerializeToString()
    onnx.checker.check_model(data, full_check=True)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    lines = (
        "import onnxruntime",
        "",
        f'session = onnxruntime.InferenceSession("{kept.what}.onnx")',
        f'{answer} = session.run(["{answer}"], {{"images": images.numpy()}})[0]',
    )
    found = compare(kept, lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0]))
    note = f"Any number of images, each of {kept.size} x {kept.size} pixels; ONNX opset {OPSET}."
    return Export(data, "onnx", lines, note, *found)


FORMS: dict[str, Callable[[Kept], Export]] = {"safetensors": to_safetensors, "timm": to_timm, "onnx": to_onnx}

_SMP = "import segmentation_models_pytorch as smp"
_LOGITS = ("logits = network(images)",)
_MAPS = ("maps = encoder(images)", "features = maps[-1]")


def _smp_network(kept: Kept) -> Export:
    shape = unet.SHAPES[kept.name]
    arguments = {
        "encoder_name": shape.encoder,
        "encoder_depth": len(shape.decoder),
        "encoder_weights": None,
        "decoder_channels": shape.decoder,
        "decoder_attention_type": "scse",
    }
    built, state = _loaded(partial(smp.Unet, **arguments), kept.module)
    lines = _lines(_SMP, "network", _call("smp.Unet", arguments), file_name("safetensors", kept.what), _LOGITS)
    note = _spare("the encoder's `layer3` and `layer4` and the last decoder block's `attention1`")
    return Export(_bytes(state), "segmentation-models-pytorch", lines, note, *compare(kept, built))


def _smp_encoder(kept: Kept) -> Export:
    shape = unet.SHAPES[kept.name]
    arguments = {"name": shape.encoder, "depth": len(shape.decoder), "weights": None}
    built, state = _loaded(partial(smp.encoders.get_encoder, **arguments), kept.module)
    call = _call("smp.encoders.get_encoder", arguments)
    lines = _lines(_SMP, "encoder", call, file_name("safetensors", kept.what), _MAPS)
    found = compare(kept, lambda images: built(images)[-1])
    return Export(_bytes(state), "segmentation-models-pytorch", lines, _spare("`layer3` and `layer4`"), *found)


def _spare(parts: str) -> str:
    return (
        f"smp also builds {parts}. They are never called at this depth and were not trained: the file holds smp's random "
        f"initialisation of them (seed {_SEED})."
    )


def _vit_network(kept: Kept) -> Export:
    built, state = _loaded(partial(network.build, kept.name), kept.module)
    library, call = "from medsass.models import network as networks", f'networks.build("{kept.name}")'
    lines = _lines(library, "network", call, file_name("safetensors", kept.what), _LOGITS)
    note = "The network is medsass's own: smp takes no plain vision transformer as its encoder."
    return Export(_bytes(state), "medsass", lines, note, *compare(kept, built))


def _vit_encoder(kept: Kept, form: str) -> Export:
    arguments = _vit_arguments(kept.name)
    built, state = _loaded(partial(timm.create_model, **arguments), kept.encoder)
    answer = (
        "tokens = encoder.forward_features(images)[:, 1:]  # without the class token",
        "features = tokens.unflatten(1, (images.shape[2] // 8, images.shape[3] // 8)).permute(0, 3, 1, 2)",
    )
    lines = _lines("import timm", "encoder", _call("timm.create_model", arguments), file_name(form, "encoder"), answer)
    note = "The position embeddings are those of 224 x 224 pixels; timm resamples them for images of another size."
    return Export(_bytes(state), "timm", lines, note, *compare(kept.alone, partial(encoder.feature_map, built)))


def _vit_arguments(name: str) -> dict[str, Any]:
    """Of timm.create_model. timm knows ViT-small by name; ViT-tiny is that of another width."""
    shape = vit_unet.SHAPES[name]
    other = {} if name == "unet-vit-small" else {"embed_dim": shape.width, "num_heads": shape.heads}
    return {"model_name": "vit_small_patch8_224", "num_classes": 0, **other, "dynamic_img_size": True}


def _fixed(kept: Kept) -> Kept:
    """A copy for images of the run's size alone: ONNX knows no bicubic resampling with antialiasing, so that a ViT's
    position embeddings are resampled beforehand.
    """
    if not encoder.is_vit(kept.encoder):
        return kept
    source = copy.deepcopy(kept.encoder)
    side = kept.size // 8
    source.pos_embed = nn.Parameter(resample_abs_pos_embed(source.pos_embed, [side, side]))
    arguments = {**_vit_arguments(kept.name), "dynamic_img_size": False, "img_size": kept.size}
    fixed, _ = _loaded(partial(timm.create_model, **arguments), source)
    if kept.is_encoder:
        return Kept(kept.name, kept.size, fixed, True)
    whole = copy.deepcopy(kept.module)
    whole.encoder = fixed
    return Kept(kept.name, kept.size, whole, False)


def _traced(kept: Kept, answer: str) -> bytes:
    """The ONNX model by tracing: torch's newer exporter fails on these networks with torch 2.6, and this one works from
    there to 2.15 and takes a fifth of the time.
    """
    content: Any = io.BytesIO()  # the older exporter takes a file too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is the older exporter, and that sizes become constants, as they shall
        torch.onnx.export(
            Answer(kept).eval(),
            (noise(kept.size, 2),),
            content,
            input_names=["images"],
            output_names=[answer],
            dynamic_axes={"images": {0: "batch"}, answer: {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
    return bytes(content.getvalue())


def _loaded(build: Callable[[], nn.Module], ours: nn.Module) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """What `build` makes from the fixed seed, with all weights of `ours` in it, and its state dict. Torch's random state
    stays as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_SEED)
        built = build()
    state = {**built.state_dict(), **ours.state_dict()}
    built.load_state_dict(state)
    return built.eval().to(memory_format=torch.channels_last), state


def _bytes(state: Mapping[str, torch.Tensor]) -> bytes:
    return to_bytes({name: tensor.contiguous() for name, tensor in state.items()})


def _call(function: str, arguments: Mapping[str, Any]) -> str:
    """A call as Python text."""
    texts = (f"{name}={json.dumps(value) if isinstance(value, str) else value}" for name, value in arguments.items())
    return f"{function}({', '.join(texts)})"


def _lines(library: str, what: str, call: str, file: str, answer: tuple[str, ...]) -> tuple[str, ...]:
    """Python that builds, loads and calls; channels-last in memory as in training, which gives the very same bits."""
    return (
        *sorted([library, "import torch"], key=lambda line: (line.startswith("from"), line)),
        "from safetensors.torch import load_file",
        "",
        f"{what} = {call}",
        f'{what}.load_state_dict(load_file("{file}"))',
        f"{what} = {what}.eval().to(memory_format=torch.channels_last)",
        "with torch.no_grad():",
        *(f"    {line}" for line in answer),
    )
