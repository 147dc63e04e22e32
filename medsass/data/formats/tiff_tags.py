"""What the tags of a TIFF file mean: axes, calibration and colour model."""

from typing import Any

import numpy as np

_JPEG = (6, 7, 33003, 33004, 33005, 34712)  # compressions whose YCbCr the decoder turns into RGB, or `Tiff` does
APERIO_YCBCR = 33003  # JPEG 2000 that does not say that it is YCbCr
_PLAIN = ("MINISBLACK", "MINISWHITE", "RGB", "PALETTE")


def axes_of(part: Any, photometric: str) -> str:
    """Return what the axes of a level mean: channels, where an array (..., H, W, C) of few was stored as (H) pages."""
    axes, shape = str(part.axes), part.shape
    paged = photometric in ("MINISBLACK", "MINISWHITE") and axes.endswith(("QYX", "IYX"))
    return f"{axes[:-3]}YXS" if paged and shape[-1] <= 4 < min(shape[-2], shape[-3]) else axes


def calibration_of(tiff: Any) -> tuple[float, ...]:
    """Return the function and the coefficients by which ImageJ shows stored values as others; () for none."""
    held = (tiff.imagej_metadata or {}) if tiff.is_imagej else {}
    found = tuple(held[name] for name in ("cf", "c0", "c1", "c2", "c3", "c4") if name in held)
    return () if found in ((), (0, 0, 1)) else found


def model_of(page: Any, photometric: str) -> str:
    """Return the colour model of a page: "gray" where nothing is converted, "" where Pillow must read it."""
    if page.compression == APERIO_YCBCR:
        return "YCbCr"
    if photometric in _PLAIN:
        return "palette" if photometric == "PALETTE" else "gray"
    if photometric == "SEPARATED" and page.samplesperpixel == 4 and page.dtype == np.uint8:
        return "CMYK"
    if photometric == "YCBCR" and page.compression in _JPEG:
        return "YCbCr"
    return ""
