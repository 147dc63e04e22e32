"""Labels of real images by the emulated kernels, against OpenCV and the NumPy statements."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tests.kernels.labelled import GHT, label_and_check
from tests.support import emulation as em

pytestmark = pytest.mark.skipif(em.COMPILER is None, reason="needs g++ or clang++ to emulate the kernels")


REAL = {
    "chest X-ray": "covid19_radiography/**/images/*.png",
    "nuclei": "dsb2018/stage1_train/*/images/*.png",
    "skin": "isic2017/**/*_Data/**/*.jpg",
    "stained nuclei": "bitdepth_nucseg/images/*",
    "16-bit nuclei": "bitdepth_nucseg/images_16bit/*",
    "whole slide": "whole_slide/CMU-1-Small-Region.svs",
}


def _real_images(folder: Path, name: str) -> list[NDArray[Any]]:
    """Two images of a set, at most 256 x 256."""
    files = [path for path in sorted(folder.glob(REAL[name])) if path.is_file()]
    if not files:
        pytest.skip(f"{folder} has no {REAL[name]}")
    images = []
    for path in (files[0], files[-1])[: len(files)]:
        if path.suffix in (".svs", ".tif", ".tiff"):
            image = tifffile.imread(path)
        else:
            image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            image = cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2RGB) if image.ndim == 3 else image
        scale = min(1, 256 / max(image.shape[:2]))
        size = (int(image.shape[1] * scale), int(image.shape[0] * scale))
        images.append(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    return images


@pytest.mark.parametrize("name", [name for name in REAL if name != "16-bit nuclei"])
def test_otsu_of_real_images_equals_opencv(name: str, real_data: Path) -> None:
    for image in _real_images(real_data, name):
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
        level, above = cv2.threshold(gray, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        result = em.label(image[None], "bright", None, 0, 2)
        assert result.threshold[0] == level
        assert np.array_equal(result.mask[0], above)


def test_real_16_bit_images_are_as_stated(real_data: Path) -> None:
    for image in _real_images(real_data, "16-bit nuclei"):
        assert image.dtype == np.uint16
        label_and_check(image[None], "auto", layout=(2, True))


@pytest.mark.parametrize("name", ["nuclei", "skin"])
def test_ght_of_real_images_is_as_stated(name: str, real_data: Path) -> None:
    for image in _real_images(real_data, name):
        label_and_check(image[None], "auto", GHT["documents"])
