"""The DALI pipelines: encoded or decoded images -> the views of a batch, on the CPU or on the GPU, from one definition.

Crop, flip and resize are one operator, a resize from a region of interest whose ends are swapped where the image is
flipped: each pixel is resampled once, with antialiasing, and image and mask take the same region. An image with several
views is decoded once.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from medsass.data.dali import decoder_options, import_dali
from medsass.data.loading import augment, colour, memory
from medsass.data.loading.augment import View

Source = Callable[[str], Callable[[], Any]]  # an input's name -> the function that DALI calls for each of its batches


@dataclass(frozen=True)
class PipelineConfig:
    """The images that a pipeline takes and the views that it makes.

    Args:
        views: Views of each image; masks go with the first.
        depth: Bits a channel, 8 or 16.
        device: "cpu" or "cuda".
        threads: CPU threads; 0 for all cores, divided among the processes of this machine.
        batch: Images of the largest batch.
        cached: Where decoded images are fed from, "host" or "device"; "" for encoded files.
    """

    views: tuple[View, ...]
    depth: int
    masks: bool
    device: str
    threads: int
    batch: int
    cached: str = ""


def build(config: PipelineConfig, source: Source) -> Any:
    """Build a pipeline whose outputs are each view's images, in order, then the masks if there are any.

    Images are (H, W, 3) uint8 or (H, W, 1) uint16, masks (H, W, 1) uint8 in {0, 1}. Inputs are "images", "masks" and
    "view<n>", the parameters of an augmented view. Images and masks are encoded files, or decoded where `config.cached` is
    set. On a CPU, colours that change last are left to `colour.apply` (`colour.is_last`).
    """
    fn, types = import_dali("nvidia.dali.fn"), import_dali("nvidia.dali.types")
    pipeline = _new(config)
    with pipeline:
        effects = [_Effects(config, number, source) for number in range(len(config.views))]
        images, *masks = decoded(config, source)
        if config.device == "cuda" and config.cached == "host":
            images = images.gpu()
        outputs = [
            effect.change(effect.resize(images, interp_type=types.INTERP_LINEAR, antialias=True)) for effect in effects
        ]
        for mask in masks:
            resized = fn.cast(effects[0].resize(mask, interp_type=types.INTERP_NN) > 127, dtype=types.UINT8)
            outputs.append(resized.gpu() if config.device == "cuda" and config.cached != "device" else resized)
        pipeline.set_outputs(*outputs)
    pipeline.build()
    return pipeline


def build_decoder(config: PipelineConfig, source: Source) -> Any:
    """Build a pipeline that only decodes the input "images" and, if there are masks, "masks"."""
    pipeline = _new(config)
    with pipeline:
        pipeline.set_outputs(*decoded(config, source))
    pipeline.build()
    return pipeline


def decoded(config: PipelineConfig, source: Source) -> list[Any]:
    """Return images of their own sizes, then the masks if there are any, (H, W, 1) uint8 of 0 to 255."""
    fn, types = import_dali("nvidia.dali.fn"), import_dali("nvidia.dali.types")
    names = ["images", "masks"][: 1 + config.masks]
    if config.cached:
        kinds = [types.UINT8 if config.depth == 8 else types.UINT16, types.UINT8]
        return [_input(source, name, kind, 3, config.cached) for name, kind in zip(names, kinds, strict=False)]
    images, *masks = (_input(source, name, types.UINT8, 1) for name in names)
    device = "mixed" if config.device == "cuda" else "cpu"
    images = fn.decoders.image(images, device=device, **decoder_options(config.depth))
    return [images, *(fn.decoders.image(mask, device="cpu", **decoder_options(1)) for mask in masks)]


def _input(source: Source, name: str, kind: Any, ndim: int, place: str = "host") -> Any:
    """Return an input that is not copied, except for batches on the device: their images are not contiguous."""
    options = {"dtype": kind, "ndim": ndim, "batch": True}
    if place == "device":
        # cached images never change, so any stream will do that training does not wait for
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        options |= {"device": "gpu", "cuda_stream": stream, "use_copy_kernel": True}
    else:
        options["no_copy"] = True
    return import_dali("nvidia.dali.fn").external_source(source=source(name), **options)


def _new(config: PipelineConfig) -> Any:
    """Return a pipeline without operators."""
    return import_dali().Pipeline(
        batch_size=config.batch,
        num_threads=config.threads or max(1, (os.cpu_count() or 1) // memory.processes(1)),
        device_id=torch.cuda.current_device() if config.device == "cuda" else None,
        prefetch_queue_depth=2,
    )


class _Effects:
    """The DALI operators of a view, on the CPU and on the GPU, with the parameters that `augment` draws for each image."""

    def __init__(self, config: PipelineConfig, number: int, source: Source) -> None:
        self._fn, self._types = import_dali("nvidia.dali.fn"), import_dali("nvidia.dali.types")
        self._view, self._depth = config.views[number], config.depth
        self._coloured = config.device == "cuda" or not colour.is_last(self._view, config.depth)
        self._columns = augment.columns(self._view, config.depth)
        self._region: Any = [0.0, 0.0], [1.0, 1.0]
        if self._view.augment:
            self._parameters = _input(source, f"view{number}", self._types.FLOAT, 1)
            first = self._columns["region"].start
            self._region = self._parameters[first : first + 2], self._parameters[first + 2 : first + 4]

    def resize(self, images: Any, **options: Any) -> Any:
        """Resize the view's region of images or masks to the view's size."""
        (begin, end), size = self._region, [self._view.size, self._view.size]
        return self._fn.resize(images, roi_start=begin, roi_end=end, roi_relative=True, size=size, **options)

    def change(self, images: Any) -> Any:
        """Apply the other changes to the view's pixels, (size, size, 3) uint8 or (size, size, 1) uint16."""
        fn, columns = self._fn, self._columns
        for stage in range(2):
            if self._coloured and f"colour{stage}" in columns:
                images = self._jitter(images, f"colour{stage}")
            if f"matrix{stage}" in columns:
                matrix = fn.reshape(self._parameters[columns[f"matrix{stage}"]], shape=[3, 3])
                images = fn.experimental.warp_perspective(images, matrix=matrix, inverse_map=False, fill_value=0)
        if "sigma" in columns:
            images = fn.gaussian_blur(images, sigma=self._number("sigma"))
        if "solarize" in columns:
            flip = fn.cast(self._number("solarize"), dtype=self._types.UINT8)
            images = images ^ ((images >= 128) * flip)  # x ^ 255 is 255 - x
        return images

    def _jitter(self, images: Any, name: str) -> Any:
        """Change colours: in 8 bit by one matrix product; in 16 bit, which DALI's colour operators refuse, by arithmetic.

        The contrast of 16-bit images is scaled about the image's own mean: microscopes use a small part of 16 bits, and
        about the middle of the range all of it would go to black.
        """
        brightness, contrast = self._number(name, 0), self._number(name, 1)
        if self._depth == 8:
            more = {"saturation": self._number(name, 2), "hue": self._number(name, 3)}
            return self._fn.color_twist(images, brightness=brightness, contrast=contrast, **more)
        mean = self._fn.reductions.mean(images)
        return self._fn.cast(brightness * (mean + contrast * (images - mean)), dtype=self._types.UINT16)

    def _number(self, name: str, index: int = 0) -> Any:
        return self._parameters[self._columns[name].start + index]
