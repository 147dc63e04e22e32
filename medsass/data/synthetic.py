"""Generated fluorescence-like nuclei with exact masks, for `medsass demo` and for tests.

An image of S x S pixels is made in six steps, each with its own random draws:

1. nuclei: 6 to 22 ellipses, half axes S/32 to S/11, any angle, lobed by up to 12 % (two harmonics of the radius);
   the mask is their union.
2. brightness: each nucleus 60 to 200 gray levels above the background, textured by smoothed noise (20 %).
3. blur: a Gaussian of sigma 0.6 to 2.0 pixels over the whole signal, the microscope's focus.
4. background: level 6 to 30, plus a linear gradient of 10 to 90 gray levels across the image in any direction: uneven
   illumination, which a single threshold cannot follow.
5. debris: 0 to 6 specks of one to three pixels that are not nuclei.
6. noise: Poisson at 0.6 photons a gray level, plus Gaussian read noise of sigma 2; clipped to 0..255.
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image


def generate(folder: Path, count: int, seed: int = 0, size: int = 128) -> None:
    """Write `count` pairs `images/nuclei_0000.png`, `masks/nuclei_0000.png` (0 and 255) below `folder`.

    The same arguments give the same pixels; an image does not depend on `count`.
    """
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image, mask = draw(np.random.default_rng([seed, index]), size)
        Image.fromarray(image).save(folder / "images" / f"nuclei_{index:04d}.png")
        Image.fromarray(mask * np.uint8(255)).save(folder / "masks" / f"nuclei_{index:04d}.png")


def draw(rng: np.random.Generator, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return an image, (size, size) uint8 gray, and its mask, (size, size) uint8 in {0, 1}."""
    y, x = np.mgrid[:size, :size].astype(np.float64)
    mask, signal = np.zeros((size, size), bool), np.zeros((size, size))
    for _ in range(rng.integers(6, 23)):
        inside = _nucleus(rng, x, y)
        mask |= inside
        signal = np.maximum(signal, inside * rng.uniform(60, 200))
    texture = cv2.GaussianBlur(rng.standard_normal((size, size)), (0, 0), 2.0)
    signal *= 1 + 0.2 * (texture / texture.std())
    for _ in range(rng.integers(0, 7)):
        row, column = rng.integers(0, size - 2, 2)
        signal[row : row + rng.integers(1, 3), column : column + rng.integers(1, 3)] += rng.uniform(60, 160)
    focused = cv2.GaussianBlur(signal, (0, 0), rng.uniform(0.6, 2.0))
    angle = rng.uniform(0, 2 * np.pi)
    across = ((x - size / 2) * np.cos(angle) + (y - size / 2) * np.sin(angle)) / size + 0.5
    light = focused + rng.uniform(6, 30) + rng.uniform(10, 90) * np.clip(across, 0, 1)
    seen = rng.poisson(light.clip(0) * 0.6) / 0.6 + rng.normal(0, 2, light.shape)
    return np.rint(seen.clip(0, 255)).astype(np.uint8), mask.astype(np.uint8)


def _nucleus(rng: np.random.Generator, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the pixels inside one random lobed ellipse, (S, S); x and y are the pixels' coordinates."""
    size = len(x)
    (row, column), turn = rng.uniform(0, size, 2), rng.uniform(0, np.pi)
    major, minor = rng.uniform(size / 32, size / 11, 2)
    u = (x - column) * np.cos(turn) + (y - row) * np.sin(turn)
    v = (y - row) * np.cos(turn) - (x - column) * np.sin(turn)
    around = np.arctan2(v, u)
    lobes = 1 + sum(rng.uniform(0, 0.06) * np.cos(k * around + rng.uniform(0, 2 * np.pi)) for k in (2, 3))
    return np.asarray((u / major) ** 2 + (v / minor) ** 2 < lobes**2)
