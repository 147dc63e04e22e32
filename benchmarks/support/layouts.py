"""The paper's datasets that are not freely available, generated in their owners' layouts: small pictures, true names and counts.

Their pixels mean nothing. They test that recipes find, pair, split and count files as they should.
"""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

TISSUENET = {"train": 2580, "val": 3118, "test": 1324}  # version 1.0, as published
XRAY = {"COVID": 3616, "Lung_Opacity": 6012, "Normal": 10192, "Viral Pneumonia": 1345}
ISIC = {"Training": 2000, "Validation": 150, "Test_v2": 600}
PATIENTS, SLIDES = 7, 198


def disks(generator: np.random.Generator, height: int, width: int, count: int = 4) -> NDArray[np.int32]:
    """Draw disks, numbered from 1, on a background of 0: (height, width) int32."""
    labels = np.zeros((height, width), np.int32)
    for number in range(1, count + 1):
        centre = (int(generator.integers(width)), int(generator.integers(height)))
        cv2.circle(labels, centre, max(2, min(height, width) // 8), number, -1)
    return labels


def tissuenet(folder: Path, counts: dict[str, int], sizes: dict[str, int], seed: int = 0) -> None:
    """Write `tissuenet_v1.0_<split>.npz` with X (N, H, W, 2) float32, nuclear and membrane stain, and y (N, H, W, 2) int32,
    numbered whole cells and nuclei. Nuclei are smaller and brighter than their cells.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for split, count in counts.items():
        size = sizes[split]
        cells = np.stack([disks(generator, size, size) for _ in range(count)])
        kernel = np.ones((3, 3), np.uint8)
        nuclei = np.stack([cv2.erode(cell.astype(np.uint8), kernel).astype(np.int32) for cell in cells])
        stains = np.stack([nuclei > 0, cells > 0], axis=-1) * np.array([900.0, 40.0])
        noise = generator.normal(0, 1, stains.shape)
        np.savez_compressed(
            folder / f"tissuenet_v1.0_{split}.npz",
            X=(stains + 5 + noise).astype(np.float32),
            y=np.stack([cells, nuclei], axis=-1),
            tissue_list=np.array(["pancreas"] * count),
            platform_list=np.array(["codex"] * count),
        )


def dermatomyositis(
    folder: Path, slides: int = SLIDES, height: int = 1408, width: int = 1876, stains: int = 3, seed: int = 0
) -> None:
    """Write `<patient>/images/<slide>.tif`, (stains, height, width) uint16 with DAPI first, and `<patient>/masks/<slide>.png`."""
    generator = np.random.default_rng(seed)
    for index in range(slides):
        patient = folder / f"patient{index % PATIENTS}"
        for name in ("images", "masks"):
            (patient / name).mkdir(parents=True, exist_ok=True)
        labels = disks(generator, height, width, 20)
        planes = generator.integers(0, 300, (stains, height, width), np.uint16)
        planes[0] += (labels > 0).astype(np.uint16) * np.uint16(20_000)
        options: dict[str, Any] = {"photometric": "minisblack", "compression": "deflate", "metadata": {"axes": "CYX"}}
        tifffile.imwrite(patient / "images" / f"slide{index:03d}.tif", planes, **options)
        cv2.imwrite(str(patient / "masks" / f"slide{index:03d}.png"), (labels > 0).astype(np.uint8) * 255)


def drone(folder: Path, count: int, height: int = 4000, width: int = 6000, seed: int = 0) -> None:
    """Write `original_images/<number>.jpg` and `label_images_semantic/<number>.png`, classes 0 to 23."""
    base = folder / "dataset" / "semantic_drone_dataset"
    for name in ("original_images", "label_images_semantic"):
        (base / name).mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for index in range(count):
        labels = disks(generator, height, width, 23).astype(np.uint8)
        image = generator.integers(0, 40, (height, width, 3), np.uint8) + labels[..., None] * np.uint8(8)
        cv2.imwrite(str(base / "original_images" / f"{index:03d}.jpg"), image)
        cv2.imwrite(str(base / "label_images_semantic" / f"{index:03d}.png"), labels)


def xray_files() -> Iterator[str]:
    """Yield the paths of all images and masks of the COVID-19 Radiography Database."""
    for name, count in XRAY.items():
        for kind in ("images", "masks"):
            for number in range(1, count + 1):
                yield f"COVID-19_Radiography_Dataset/{name}/{kind}/{name}-{number}.png"


def isic_files() -> Iterator[str]:
    """Yield the paths of all images and masks of ISIC 2017."""
    number = 0
    for part, count in ISIC.items():
        for name in (f"ISIC_{each:07d}" for each in range(number, number + count)):
            yield f"ISIC-2017_{part}_Data/{name}.jpg"
            yield f"ISIC-2017_{part}_Part1_GroundTruth/{name}_segmentation.png"
        number += count


def isic_labels(folder: Path) -> None:
    """Write the CSV files of ISIC 2017's class labels."""
    number = 0
    for part, count in ISIC.items():
        with (folder / f"ISIC-2017_{part}_Part3_GroundTruth.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["image_id", "melanoma", "seborrheic_keratosis"])
            for each in range(number, number + count):
                rows.writerow([f"ISIC_{each:07d}", float(each % 5 == 0), float(each % 7 == 1)])
        number += count


def create(folder: Path, files: Iterable[str]) -> None:
    """Create empty files."""
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
