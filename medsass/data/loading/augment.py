"""The random changes of a view, as numbers for each image of a batch.

A view is a random region of the image (crop and flip, resampled once by the loader's resize), then colour jitter, gray,
blur and solarisation, in the order of BYOL (arXiv 2006.07733, appendix B) and DINO (arXiv 2104.14294, section 3.1).
`medsass.data.loading.pipeline` applies them. Each image has its own random numbers; where a change does not happen, its
numbers leave the pixels unchanged, so that one graph serves the whole batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

_ASPECT = (3 / 4, 4 / 3)  # width over height of a crop by area, as torchvision's RandomResizedCrop
_ATTEMPTS = 10  # to place such a crop, likewise
_SIGMA = (0.1, 2.0)  # pixels of an image with _SIGMA_SIZE pixels a side, as BYOL and DINO
_SIGMA_SIZE = 224
_NO_BLUR = 1e-3  # pixels; all weight on the centre, while 0 would tell DALI to choose

# The warps: torchvision's default distortion, and moderate numbers for its RandomAffine, which has no defaults.
_DISTORTION = 0.5
_DEGREES, _SHIFT, _SCALE = 15.0, 0.1, (0.9, 1.1)

# Uniform numbers drawn for each image of each view, whatever happens to it: so one change never shifts another's numbers.
_UNIFORM = (
    {"extent": 2, "area": _ATTEMPTS, "aspect": _ATTEMPTS, "begin": 2, "flip": 2}
    | {"jittered": 2, "brightness": 2, "contrast": 2, "saturation": 2, "hue": 2, "gray": 1}
    | {"inwards": 8, "scale": 1, "angle": 1, "shift": 2}
    | {"blur": 1, "sigma": 1, "solarize": 1}
)
UNIFORM = sum(_UNIFORM.values())

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Augment:
    """Random changes of a training image; the defaults are the paper's list (appendix D) without its two warps.

    16-bit images have neither saturation, hue, gray nor solarisation; their contrast is scaled about their own mean.

    Args:
        crop: Smallest share of each side that a random resized crop keeps, (0, 1]; the two sides are drawn independently,
            so the aspect ratio varies too.
        flip: Flip horizontally and, unless `vertical` is False, vertically, each with probability 1/2.
        jitter: Brightness, contrast and saturation are scaled by 1 +- jitter.
        hue: The hue turns by +- that many degrees.
        area: Smallest and largest share of the image's area to keep instead of `crop`, at an aspect ratio log-uniform in
            3/4..4/3 (torchvision's RandomResizedCrop, its ten attempts and its fallback included).
        saturation: Range of saturation in place of `jitter`.
        jitter_chance: Probability of all colour jitter.
        gray: Probability of losing all colour.
        blur: Probability of a Gaussian blur, its sigma uniform in 0.1..2 pixels at size 224 and in proportion at others.
        solarize: Probability of inverting the values of 128 and more.
        warp: Appendix D's list in place of the jitter: either jitter or a random perspective, then either jitter or a
            random affine map, each with probability 1/2 whatever `jitter_chance` says. The perspective moves each corner
            inwards by up to a quarter of the side (torchvision's distortion of 0.5); the affine map turns by +-15
            degrees, scales by 0.9..1.1 and shifts by +-0.1 of the side. Pixels from outside are black. Flips come before
            the warps: as every warp is as likely as its mirror image, that makes no difference. Crops are as requested;
            appendix D has none (crop=1).
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
    """A square picture of each image, `size` pixels a side: randomly changed, or all of the image if `augment` is None."""

    size: int
    augment: Augment | None = None


def columns(view: View, depth: int) -> dict[str, slice]:
    """Return the columns of `parameters` by name, for images of `depth` 8 or 16; only possible changes have columns.

    - region: start and end (y, x) of the region that becomes the view, as shares of the image's height and width; start
      and end are swapped where the view is flipped.
    - colour0, and with `warp` also colour1: factors of brightness and contrast and, at depth 8, of saturation, and
      degrees of hue.
    - matrix0 and matrix1, with `warp`: (3, 3) maps of pixels after colour0 and after colour1.
    - sigma: pixels.
    - solarize: the number with which values of 128 and more are XORed.
    """
    augment = view.augment
    if augment is None:
        return {}
    sizes = {"region": 4}
    for stage in range(2 if augment.warp else 1):
        sizes |= {f"colour{stage}": 4 if depth == 8 else 2} if coloured(augment, depth) else {}
        sizes |= {f"matrix{stage}": 9} if augment.warp else {}
    sizes |= {"sigma": 1} if augment.blur else {}
    sizes |= {"solarize": 1} if augment.solarize and depth == 8 else {}
    ends = accumulate(sizes.values())
    return {name: slice(end - sizes[name], end) for name, end in zip(sizes, ends, strict=True)}


def coloured(augment: Augment, depth: int) -> bool:
    """Return whether colours may change."""
    return bool(augment.jitter or (depth == 8 and (augment.saturation or augment.hue or augment.gray)))


def parameters(view: View, depth: int, uniform: Floats, sizes: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
    """Return the changes of N images, (N, K) float32, in the columns of `columns(view, depth)`.

    Args:
        view: A view with random changes.
        depth: Bits a channel, 8 or 16.
        uniform: (N, `UNIFORM`) random numbers in [0, 1).
        sizes: (N, 2) heights and widths of the images, which a crop by `area` needs.
    """
    augment = view.augment
    assert augment is not None
    ends = accumulate(_UNIFORM.values())
    u = {name: uniform[:, end - _UNIFORM[name] : end] for name, end in zip(_UNIFORM, ends, strict=True)}
    found: dict[str, Floats] = {"region": _region(augment, u, sizes)}
    happens = (u["jittered"] < (0.5 if augment.warp else augment.jitter_chance)).astype(np.float64)
    saturation = augment.jitter if augment.saturation is None else augment.saturation
    most = {"brightness": augment.jitter, "contrast": augment.jitter, "saturation": saturation}
    last = 1 if augment.warp else 0
    for stage in range(last + 1):
        colours = [1 + happens[:, stage] * _between(u[name][:, stage], -reach, reach) for name, reach in most.items()]
        if stage == last:
            colours[2] = colours[2] * (u["gray"][:, 0] >= augment.gray)
        colours.append(happens[:, stage] * _between(u["hue"][:, stage], -augment.hue, augment.hue))
        found[f"colour{stage}"] = np.stack(colours if depth == 8 else colours[:2], axis=1)
    if augment.warp:
        for stage, matrix in enumerate((_perspective(u["inwards"], view.size), _affine(u, view.size))):
            still = np.where(happens[:, stage, None, None], np.eye(3), matrix)
            found[f"matrix{stage}"] = still.reshape(-1, 9)
    sigma = _between(u["sigma"], *_SIGMA) * (view.size / _SIGMA_SIZE)
    found["sigma"] = np.where(u["blur"] < augment.blur, sigma, _NO_BLUR)
    found["solarize"] = (u["solarize"] < augment.solarize).astype(np.float64) * 255
    return np.concatenate([found[name] for name in columns(view, depth)], axis=1, dtype=np.float32)


def _between(uniform: Floats, low: float, high: float) -> Floats:
    return low + uniform * (high - low)


def _region(augment: Augment, u: Mapping[str, Floats], sizes: NDArray[np.int64] | None) -> Floats:
    """Return the regions, (N, 4), as `columns` describes them.

    A crop by area is torchvision's RandomResizedCrop.get_params, all attempts at once: the first that fits, and where
    none does the largest region in the middle with an allowed aspect ratio.
    """
    if augment.area:
        assert sizes is not None
        sides = sizes.astype(np.float64)
        height, width = sides[:, :1], sides[:, 1:]
        wanted = height * width * _between(u["area"], *augment.area)
        aspect = np.exp(_between(u["aspect"], *np.log(_ASPECT).tolist()))
        tried = np.rint(np.sqrt(np.stack([wanted / aspect, wanted * aspect], axis=-1)))  # (N, attempts, 2)
        fits = np.all((tried > 0) & (tried <= sides[:, None]), axis=-1)
        first = tried[np.arange(len(tried)), fits.argmax(1)]
        most = np.concatenate([np.rint(width / _ASPECT[0]), np.rint(height * _ASPECT[1])], axis=1)
        found = np.any(fits, axis=1, keepdims=True)
        pixels = np.where(found, first, np.minimum(most, sides))
        room = sides - pixels
        begin = np.where(found, np.floor(u["begin"] * (room + 1)), np.floor(room / 2)) / sides
        extent = pixels / sides
    else:
        extent = _between(u["extent"], augment.crop, 1.0)
        begin = u["begin"] * (1.0 - extent)
    swap = (u["flip"] < 0.5) & np.array([augment.flip and augment.vertical, augment.flip])
    end = begin + extent
    return np.concatenate([np.where(swap, end, begin), np.where(swap, begin, end)], axis=1)


def _perspective(uniform: Floats, size: int) -> Floats:
    """Return maps, (N, 3, 3), of the square onto quadrilaterals within it, drawn by `uniform`, (N, 8) in [0, 1).

    Heckbert's closed form ("Fundamentals of texture mapping and image warping", 1989, section 2.2.3).
    """
    inwards = (uniform * _DISTORTION / 2).T
    x = inwards[0], 1 - inwards[1], 1 - inwards[2], inwards[3]  # from the top left corner clockwise
    y = inwards[4], inwards[5], 1 - inwards[6], 1 - inwards[7]
    (dx1, dx2, sx), (dy1, dy2, sy) = ((p[1] - p[2], p[3] - p[2], p[0] - p[1] + p[2] - p[3]) for p in (x, y))
    area = dx1 * dy2 - dy1 * dx2
    g, h = (sx * dy2 - sy * dx2) / area, (dx1 * sy - dy1 * sx) / area
    rows = [[p[1] - p[0] + g * p[1], p[3] - p[0] + h * p[3], p[0] * size] for p in (x, y)]
    return np.stack([*rows[0], *rows[1], g / size, h / size, np.ones_like(g)], axis=1).reshape(-1, 3, 3)


def _affine(u: Mapping[str, Floats], size: int) -> Floats:
    """Return maps, (N, 3, 3), that scale and turn about the centre, then shift."""
    angle = np.radians(_between(u["angle"][:, 0], -_DEGREES, _DEGREES))
    scale = _between(u["scale"][:, 0], *_SCALE)
    shift = _between(u["shift"], -_SHIFT, _SHIFT) * size
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    turned = np.array([[cosine, -sine], [sine, cosine]]).transpose(2, 0, 1)
    centre = np.full(2, size / 2)
    matrix = np.zeros((len(angle), 3, 3))
    matrix[:, :2, :2] = turned
    matrix[:, :2, 2] = centre - turned @ centre + shift
    matrix[:, 2, 2] = 1
    return matrix
