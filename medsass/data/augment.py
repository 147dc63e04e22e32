"""The random changes of a view of an image, as DALI operators that run on the CPU and on the GPU.

A view is a random region of the image (crop and flip, resampled once by the loader's resize), then colour jitter, gray,
blur and solarisation, in the order of BYOL (arXiv 2006.07733, appendix B) and DINO (arXiv 2104.14294, section 3.1).
What happens to an image by chance is drawn image by image: where it does not happen, the operator gets the arguments
that leave pixels as they are, so that one graph serves a whole batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from medsass.data.decoder import import_dali

_ASPECT = (3 / 4, 4 / 3)  # width over height of a crop by area, as torchvision's RandomResizedCrop
_SIGMA = (0.1, 2.0)  # pixels of an image of _SIGMA_SIZE pixels a side, as BYOL and DINO
_SIGMA_SIZE = 224
_NO_BLUR = 1e-3  # pixels; all weight on the centre, while 0 would tell DALI to choose

# Of the warps: torchvision's default distortion, and moderate numbers for its RandomAffine, which has no defaults.
_DISTORTION = 0.5
_DEGREES, _SHIFT, _SCALE = 15.0, 0.1, (0.9, 1.1)


@dataclass(frozen=True)
class Augment:
    """Random changes of a training image; the defaults are the paper's list (appendix D) without its two warps.

    crop: smallest share of each side that a random resized crop keeps, (0, 1]; the two sides are drawn apart, so the
        aspect ratio varies too. area: least and greatest share of the image's area that is kept instead, at an aspect
        ratio log-uniform in 3/4..4/3 (torchvision's RandomResizedCrop, its ten attempts and its fallback included).
    flip: horizontal and, unless `vertical` is False, vertical, each with probability 1/2.
    jitter: brightness, contrast and saturation are scaled by 1 +- jitter, saturation by 1 +- `saturation` where that is
        given. hue: turned by +- that many degrees. jitter_chance: the probability of all that.
    gray, blur, solarize: probabilities of losing all colour; of a Gaussian blur, its sigma uniform in 0.1..2 pixels of
        224 and in proportion at other sizes; and of inverting the values of 128 and more.
    warp: appendix D's list in place of the jitter: either jitter or a random perspective, then either jitter or a
        random affine map, each with probability 1/2 whatever `jitter_chance` says. The perspective moves each corner
        inwards by up to a quarter of the side (torchvision's distortion of 0.5); the affine map turns by +-15 degrees,
        scales by 0.9..1.1 and shifts by +-0.1 of the side. What comes from outside is black. Flips come before the
        warps, not after: as every warp is as likely as its mirror image, the views are as likely too. Crops stay as
        they are asked for; appendix D has none (crop=1).

    16-bit images have neither saturation, hue, gray nor solarisation; their contrast is scaled about their own mean.
    """

    crop: float = 0.6
    flip: bool = True
    jitter: float = 0.2
    hue: float = 6.0
    area: tuple[float, float] | None = None
    vertical: bool = True
    saturation: float | None = None
    jitter_chance: float = 1.0
    gray: float = 0.0
    blur: float = 0.0
    solarize: float = 0.0
    warp: bool = False


@dataclass(frozen=True)
class View:
    """A square picture of `size` pixels a side that a batch holds of each of its images; `augment` None: all of it."""

    size: int
    augment: Augment | None = None


def region(encoded: Any, augment: Augment | None) -> tuple[Any, Any]:
    """Start and end (y, x) of the region that becomes the view, as shares of the image's height and width; where the
    view is flipped the ends are swapped. encoded: the image's file, of whose header an area needs the size.
    """
    if augment is None:
        return [0.0, 0.0], [1.0, 1.0]
    fn, types = _dali()
    begin, extent = types.Constant([0.0, 0.0]), types.Constant([1.0, 1.0])
    if augment.area:
        begin, extent = _crop_by_area(encoded, augment.area)
    elif augment.crop < 1:
        extent = fn.random.uniform(range=(augment.crop, 1.0), shape=2)
        begin = fn.random.uniform(range=(0.0, 1.0), shape=2) * (1.0 - extent)
    if not augment.flip:
        return begin, begin + extent
    swap = fn.random.coin_flip(shape=2)
    if not augment.vertical:
        swap = swap * types.Constant([0, 1])
    return begin + extent * swap, begin + extent * (1 - swap)


def change(images: Any, view: View, depth: int) -> Any:
    """What else happens to the view's pixels, (size, size, 3) uint8 or (size, size, 1) uint16 of `depth` 8 or 16."""
    augment = view.augment
    if augment is None:
        return images
    colour = partial({8: _colour, 16: _colour_gray}[depth], augment)
    gray = _coin(augment.gray) if augment.gray else None
    if augment.warp:
        images = _warp(images, view.size, colour, gray)
    else:
        images = colour(images, _coin(augment.jitter_chance) if augment.jitter_chance < 1 else None, gray)
    if augment.blur:
        images = _blur(images, augment.blur, view.size)
    if augment.solarize and depth == 8:
        images = _solarize(images, augment.solarize)
    return images


def _dali() -> tuple[Any, Any]:
    return import_dali("nvidia.dali.fn"), import_dali("nvidia.dali.types")


def _coin(probability: float = 0.5) -> Any:
    """For each image 1 with that probability, else 0."""
    fn, types = _dali()
    return fn.random.coin_flip(probability=probability, dtype=types.UINT8)


def _crop_by_area(encoded: Any, area: tuple[float, float]) -> tuple[Any, Any]:
    fn, types = _dali()
    shape = fn.peek_image_shape(encoded)
    begin, extent = fn.random_crop_generator(shape, random_area=list(area), random_aspect_ratio=list(_ASPECT))
    sides = fn.cast(shape[:2], dtype=types.FLOAT)
    return begin / sides, extent / sides


def _colour(augment: Augment, images: Any, jittered: Any, gray: Any) -> Any:
    """Jitter and loss of colour in one matrix product. Either is 1 for images to which it happens and 0 for others;
    `jittered` None: to all, `gray` None: to none.
    """
    fn, _ = _dali()
    saturation = augment.jitter if augment.saturation is None else augment.saturation
    changes: dict[str, Any] = {}
    for name, most in (("brightness", augment.jitter), ("contrast", augment.jitter), ("saturation", saturation)):
        if most:
            changes[name] = _where(jittered, fn.random.uniform(range=(1 - most, 1 + most)), 1.0)
    if augment.hue:
        changes["hue"] = _where(jittered, fn.random.uniform(range=(-augment.hue, augment.hue)), 0.0)
    if gray is not None:
        changes["saturation"] = changes.get("saturation", 1.0) * (1 - gray)
    return fn.color_twist(images, **changes) if changes else images


def _colour_gray(augment: Augment, images: Any, jittered: Any, _gray: Any) -> Any:
    """Brightness and contrast in 16 bit, which DALI's colour operators refuse. Contrast is scaled about the image's own
    mean: microscopes use a small part of 16 bits, and about their middle all of it would go to black.
    """
    if not augment.jitter:
        return images
    fn, types = _dali()
    span = 1 - augment.jitter, 1 + augment.jitter
    brightness, contrast = (_where(jittered, fn.random.uniform(range=span), 1.0) for _ in range(2))
    mean = fn.reductions.mean(images)
    return fn.cast(brightness * (mean + contrast * (images - mean)), dtype=types.UINT16)


def _where(happens: Any, value: Any, otherwise: Any) -> Any:
    """`value` where it happens (1), else `otherwise` (0); None: everywhere."""
    return value if happens is None else happens * value + (1 - happens) * otherwise


def _blur(images: Any, probability: float, size: int) -> Any:
    fn, _ = _dali()
    low, high = (sigma * size / _SIGMA_SIZE for sigma in _SIGMA)
    return fn.gaussian_blur(images, sigma=_where(_coin(probability), fn.random.uniform(range=(low, high)), _NO_BLUR))


def _solarize(images: Any, probability: float) -> Any:
    _, types = _dali()
    return images ^ ((images >= 128) * _coin(probability) * types.Constant(255).uint8())  # x ^ 255 is 255 - x


def _warp(images: Any, size: int, colour: Callable[[Any, Any, Any], Any], gray: Any) -> Any:
    """Colour jitter or a perspective, then colour jitter or an affine map; the last of them loses the colour too."""
    fn, types = _dali()
    still = types.Constant(np.eye(3, dtype=np.float32))
    for matrix, lost in ((_perspective(size), None), (_affine(size), gray)):
        jittered = _coin()
        images = colour(images, jittered, lost)
        matrix = _where(jittered, still, matrix)
        images = fn.experimental.warp_perspective(images, matrix=matrix, inverse_map=False, fill_value=0)
    return images


def _perspective(size: int) -> Any:
    """(3, 3) map of the square onto a random quadrilateral within it, by Heckbert's closed form ("Fundamentals of
    texture mapping and image warping", 1989, section 2.2.3).
    """
    fn, _ = _dali()
    inwards = fn.random.uniform(range=(0.0, _DISTORTION / 2), shape=8)
    x = inwards[0], 1 - inwards[1], 1 - inwards[2], inwards[3]  # from the top left corner clockwise
    y = inwards[4], inwards[5], 1 - inwards[6], 1 - inwards[7]
    (dx1, dx2, sx), (dy1, dy2, sy) = ((p[1] - p[2], p[3] - p[2], p[0] - p[1] + p[2] - p[3]) for p in (x, y))
    area = dx1 * dy2 - dy1 * dx2
    g, h = (sx * dy2 - sy * dx2) / area, (dx1 * sy - dy1 * sx) / area
    rows = [[p[1] - p[0] + g * p[1], p[3] - p[0] + h * p[3], p[0] * size] for p in (x, y)]
    one = fn.constant(fdata=1.0, shape=[])
    return fn.reshape(fn.stack(*rows[0], *rows[1], g / size, h / size, one), shape=[3, 3])


def _affine(size: int) -> Any:
    """(3, 3) map that scales and turns about the centre, and then shifts."""
    fn, types = _dali()
    centre, reach = [size / 2, size / 2], _SHIFT * size
    scale = fn.random.uniform(range=_SCALE)
    matrix = fn.transforms.scale(scale=fn.stack(scale, scale), center=centre)
    matrix = fn.transforms.rotation(matrix, angle=fn.random.uniform(range=(-_DEGREES, _DEGREES)), center=centre)
    matrix = fn.transforms.translation(matrix, offset=fn.random.uniform(range=(-reach, reach), shape=2))
    return fn.cat(matrix, types.Constant(np.array([[0, 0, 1]], np.float32)), axis=0)
