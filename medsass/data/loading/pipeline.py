"""The DALI pipelines: encoded or decoded images -> the views of a batch, on the CPU or on the GPU. One definition for all.

Crop, flip and resize are one operator, a resize from a region of interest whose ends are swapped where the image is
flipped: each pixel is resampled once, with antialiasing, and image and mask take the same region. An image of which a
batch holds several views is decoded once.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from medsass.data import dali as decoder
from medsass.data.dali import import_dali
from medsass.data.loading import colour, memory
from medsass.data.loading.augment import View
from medsass.data.loading.effects import Effects

_DECODE_DEVICE = {"cpu": "cpu", "cuda": "mixed"}

Source = Callable[[str], Callable[[], Any]]


@dataclass(frozen=True)
class Form:
    """What a pipeline is for. depth: 8 or 16. batch: images of the largest batch. held: where decoded images are fed
    from, "host" or "device"; "" for encoded ones.
    """

    views: tuple[View, ...]
    depth: int
    masks: bool
    device: str
    threads: int
    batch: int
    held: str = ""


def build(form: Form, source: Source, prefetch: int = 2) -> Any:
    """A pipeline whose outputs are each view's images, in order, then the masks where they are asked for.

    Images are (H, W, 3) uint8 or (H, W, 1) uint16, masks (H, W, 1) uint8 in {0, 1}. `source(name)` gives the function
    that DALI calls for each batch of the input "images", "masks" or "view<n>" (the parameters of an augmented view);
    images and masks are encoded files, or decoded and, where `form.held` is "device", on the GPU. On a CPU colours that
    are the last to change are left as they are (`colour.last`), for `colour.changed`.
    """
    fn, types = import_dali("nvidia.dali.fn"), import_dali("nvidia.dali.types")

    def define() -> list[Any]:
        effects = [_effects(form, number, source) for number in range(len(form.views))]
        images, *masks = decoded(form, source)
        if form.device == "cuda" and form.held == "host":
            images = images.gpu()
        outputs = []
        for effect in effects:
            resized = effect.resize(images, interp_type=types.INTERP_LINEAR, antialias=True)
            outputs.append(effect.change(resized))
        for mask in masks:
            resized = fn.cast(effects[0].resize(mask, interp_type=types.INTERP_NN) > 127, dtype=types.UINT8)
            outputs.append(resized.gpu() if form.device == "cuda" and form.held != "device" else resized)
        return outputs

    return _built(form, define, prefetch)


def _effects(form: Form, number: int, source: Source) -> Effects:
    view = form.views[number]
    numbers = _input(source, f"view{number}", import_dali("nvidia.dali.types").FLOAT, 1) if view.augment else None
    return Effects(view, form.depth, numbers, colours=form.device == "cuda" or not colour.last(view, form.depth))


def build_decoder(form: Form, source: Source, prefetch: int = 2) -> Any:
    """A pipeline that decodes the inputs "images" and, where they are asked for, "masks", and nothing else."""
    return _built(form, lambda: decoded(form, source), prefetch)


def decoded(form: Form, source: Source) -> list[Any]:
    """Images of their own sizes, then the masks, (H, W, 1) uint8 of 0 to 255, where they are asked for."""
    fn, types = import_dali("nvidia.dali.fn"), import_dali("nvidia.dali.types")
    names = ["images", "masks"][: 1 + form.masks]
    if form.held:
        kinds = [types.UINT8 if form.depth == 8 else types.UINT16, types.UINT8]
        return [_input(source, name, kind, 3, form.held) for name, kind in zip(names, kinds, strict=False)]
    images, *masks = (_input(source, name, types.UINT8, 1) for name in names)
    images = fn.decoders.image(images, device=_DECODE_DEVICE[form.device], **decoder.options(form.depth))
    return [images, *(fn.decoders.image(mask, device="cpu", **decoder.mask_options()) for mask in masks)]


def _input(source: Source, name: str, kind: Any, ndim: int, held: str = "host") -> Any:
    """An input without a copy, but for batches on the GPU: their images lie apart."""
    fn = import_dali("nvidia.dali.fn")
    options = {"dtype": kind, "ndim": ndim, "batch": True}
    if held == "device":
        # what is held never changes, so any stream will do that training does not wait for
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        options |= {"device": "gpu", "cuda_stream": stream, "use_copy_kernel": True}
    else:
        options["no_copy"] = True
    return fn.external_source(source=source(name), **options)


def _built(form: Form, define: Callable[[], list[Any]], prefetch: int) -> Any:
    dali = import_dali()
    pipeline = dali.Pipeline(
        batch_size=form.batch,
        num_threads=form.threads or max(1, (os.cpu_count() or 1) // memory.processes(1)),
        device_id=torch.cuda.current_device() if form.device == "cuda" else None,
        prefetch_queue_depth=prefetch,
    )
    with pipeline:
        pipeline.set_outputs(*define())
    pipeline.build()
    return pipeline
