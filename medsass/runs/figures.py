"""Pictures: sheets of images and masks with captions, outlines, and the training curve."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from medsass import files

_TILE, _GAP, _CAPTION = 160, 6, 18
_BRIGHT = 180  # images whose brightest 0.5 % are below it are scaled up to it, or dark-field microscopy shows nothing
_INK, _PAPER = (40, 40, 40), (255, 255, 255)
_OUTLINE = (255, 196, 0)  # amber: stands out on dark fluorescence, skin and X-rays alike

Tile = tuple[NDArray[Any], str]


def sheet(rows: Sequence[Sequence[Tile]], path: Path, heads: Sequence[str] = ()) -> None:
    """Draw a sheet of tiles into a PNG file. Aspect ratios are kept and dark images are brightened.

    Args:
        rows: (image, caption) tiles; an image is (H, W, 3) uint8 RGB, (H, W) uint8 or uint16 gray, or a (H, W) uint8 mask
            in {0, 1}, drawn black and white.
        path: the PNG file.
        heads: texts above the columns.
    """
    columns = max(len(row) for row in rows)
    font = ImageFont.load_default(12)
    wrapped = [_wrapped(head, font) for head in heads]
    step, top = _TILE + _CAPTION + _GAP, _GAP + _CAPTION * max(map(len, wrapped), default=0)
    canvas = Image.new("RGB", (_GAP + columns * (_TILE + _GAP), top + len(rows) * step), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for column, lines in enumerate(wrapped):
        draw.text((_GAP + column * (_TILE + _GAP), 3), "\n".join(lines), _INK, font)
    for y, row in enumerate(rows):
        for x, (image, caption) in enumerate(row):
            corner = _GAP + x * (_TILE + _GAP), top + y * step
            tile = _tile(image)
            canvas.paste(tile, (corner[0] + (_TILE - tile.width) // 2, corner[1] + (_TILE - tile.height) // 2))
            while caption and draw.textlength(caption, font) > _TILE:
                caption = caption[:-2].rstrip("…") + "…"
            draw.text((corner[0], corner[1] + _TILE + 2), caption, _INK, font)
    with files.atomic(path) as file:
        canvas.save(file, "PNG")


def _wrapped(text: str, font: Any) -> list[str]:
    """Break `text` after blanks and commas into lines of a tile's width."""
    lines = [""]
    for word in re.findall(r"[^ ,]*[ ,]?", text):
        if lines[-1] and font.getlength((lines[-1] + word).rstrip()) > _TILE:
            lines.append("")
        lines[-1] += word
    return lines


def outlined(image: NDArray[Any], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image with the outline of a mask, (H, W, 3) uint8 RGB; the outline's width grows with the image.

    Args:
        image: (H, W, 3) uint8 RGB, or (H, W) uint8 or uint16 gray.
        mask: (H, W) uint8 in {0, 1}.
    """
    shown = shallow(image)
    canvas = shown.copy() if shown.ndim == 3 else np.repeat(shown[..., None], 3, axis=2)
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    width = max(1, round(max(mask.shape) / 400))
    return np.asarray(cv2.drawContours(canvas, contours, -1, _OUTLINE, width), np.uint8)


def shallow(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Map a uint16 image's own range linearly to 0..255, a constant one to 0; return a uint8 image unchanged."""
    if image.dtype == np.uint8:
        return image
    low, high = int(image.min()), int(image.max())
    return np.rint((image - np.float64(low)) * (255 / max(high - low, 1))).astype(np.uint8)


def curve(history: Sequence[dict[str, Any]], best: int, path: Path) -> None:
    """Draw the training curve into a PNG file, with a dotted line at epoch `best`.

    Losses by epoch stand beside the agreement with the target or, where there is none, the spread of the features.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 3.2))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.07, right=0.98, bottom=0.15, top=0.96)
    epochs = [line["epoch"] for line in history]
    right = ["val_iou_target"] if "val_iou_target" in history[0] else ["train_feature_std", "val_feature_std"]
    for axes, series in zip(figure.subplots(1, 2), (["train_loss", "val_loss"], right), strict=True):
        for name in series:
            values = [line.get(name, math.nan) for line in history]
            axes.plot(epochs, values, marker="o", markersize=3, label=name.replace("_", " "))
        axes.axvline(best, color="gray", linestyle=":", linewidth=1)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    with files.atomic(path) as file:
        figure.savefig(file, dpi=120, format="png")
    figure.clear()  # breaks its reference cycles, which would wait for the garbage collector


def _tile(image: NDArray[Any]) -> Image.Image:
    is_mask = image.ndim == 2 and image.dtype == np.uint8 and image.max(initial=0) <= 1
    pixels = image * np.uint8(255) if is_mask else shallow(image)
    if not is_mask and (top := max(float(np.percentile(pixels, 99.5)), 1.0)) < _BRIGHT:
        pixels = (pixels * (_BRIGHT / top)).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(pixels).convert("RGB")
    scale = _TILE / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.NEAREST if is_mask else Image.Resampling.BILINEAR)
