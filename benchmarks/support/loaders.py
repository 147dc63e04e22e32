"""The contenders of `benchmarks.loader`: loaders of labelled batches, the project's own and those users would write instead.

Each decodes, takes a random region, flips, resizes to SIZE, changes brightness, contrast, saturation and hue within the
same bounds (`Augment`'s defaults, which training uses), and thresholds the gray image by Otsu. The field `what` says where
the work differs. Batches never end, and shuffled epochs follow one another without a gap.
"""

import importlib
import io
import random
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler

from benchmarks.support import peers
from benchmarks.support.images import Source, Stored, stored
from medsass.data.loading import pipeline
from medsass.data.loading.augment import Augment, View
from medsass.data.loading.loader import Loader, LoaderConfig
from medsass.data.loading.pipeline import PipelineConfig
from medsass.data.loading.prefetch import Prefetcher
from medsass.labels import Labeler

SIZE = 224
OWN = "medsass"
PIL = "DataLoader, PIL and torchvision"
OPENCV = "DataLoader, OpenCV"
WEBDATASET = "webdataset, PIL and torchvision"
DECODING = "decoding alone"

_AUGMENT = Augment()
_HUE = _AUGMENT.hue / 360  # of a whole turn
_PATIENCE = 300  # seconds that a worker process may take for a batch
_SHUFFLED = 1000  # samples that webdataset's shuffle holds at most
_LEVELS = np.arange(256)


class Batch(NamedTuple):
    """A labelled batch on the contender's device.

    images: (N, SIZE, SIZE, 3) uint8 RGB; from decoding alone, a DALI list of N images (H, W, 3) of their own sizes.
    masks: (N, SIZE, SIZE) uint8, 1 above Otsu's threshold; from decoding alone, None.
    """

    images: Any
    masks: Any


Batches = Generator[Batch, None, None]
Sample = tuple[torch.Tensor, torch.Tensor]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Contender:
    """A loader to compare.

    what: how its work differs from that of the others. device: where batches end up. decoder: where images are decoded.
    packages: distributions that do the work. start: starts the batches of a source; closing them ends all that was started.
    processes: workers beside this process, 0 for threads within it. cached: where decoded images are kept.
    """

    name: str
    what: str
    device: str
    decoder: str
    packages: tuple[str, ...]
    start: Callable[[Source], Batches]
    processes: int = 0
    threads: int = 1
    cached: str = "none"


def contenders(where: str, cores: int) -> list[Contender]:
    """Return all loaders of batches on `where`, "cpu" or "cuda", with that many CPU cores; decoding alone comes last."""
    on_gpu = where == "cuda"
    devices = ["cuda", "cpu"] if on_gpu else ["cpu"]
    dali = ("nvidia-dali-cuda130", "nvidia-dali-cuda120", "opencv-python-headless")
    what = "crop, flip and resize in one antialiased resampling, colour in one product; thresholds too"
    own = [
        Contender(OWN, what, device, device, dali, partial(_own, cores, device, cache), threads=cores, cached=cache)
        for device in devices
        for cache in ("none", "host", "device")
        if cache != "device" or device == "cuda"
    ]
    resize = "crop, then antialiased bilinear resize"
    opencv = "crop, then bilinear resize that is not antialiased; colour by look-up tables, contrast about 128"
    tars = f"tars one after the other, masks and all, shuffled among {_SHUFFLED}; {resize}"
    users = (
        (PIL, resize, ("pillow", "torchvision"), partial(_torch, with_pil)),
        (OPENCV, opencv, ("opencv-python-headless",), partial(_torch, with_opencv)),
        (WEBDATASET, tars, ("webdataset", "pillow", "torchvision"), _web),
    )
    others = [
        Contender(name, what, where, "cpu", packages, partial(start, cores, on_gpu), processes=cores)
        for name, what, packages, start in users
    ]
    decoding = partial(Contender, DECODING, "no reading, no augmentation, no labels")
    return own + others + [decoding(d, d, dali[:2], partial(_decoding, cores, d), threads=cores) for d in devices]


def _own(cores: int, device: str, cache: str, source: Source) -> Batches:
    """Yield batches of the project's loader. Raises `ValueError` if decoded images do not fit into the cache."""
    config = LoaderConfig(source.shards, "train", SIZE, source.batch, device, _AUGMENT, threads=cores, cache=cache)
    loader, labeler = Loader(config), Labeler(polarity="bright")
    if "is not used" in loader.cache_note:
        raise ValueError(loader.cache_note)
    try:
        for number in count():
            for batch in loader.epoch(number):
                yield Batch(batch.images, labeler(batch.images).mask)
    finally:
        loader.close()


@dataclass(frozen=True)
class _Encoded:
    """The bytes of files, as input of a DALI pipeline."""

    feeds: dict[str, list[NDArray[np.uint8]]]


def _decoding(cores: int, device: str, source: Source) -> Batches:
    """Yield images that DALI decodes from files in memory."""
    files = [np.frombuffer(image.read(), np.uint8) for image in stored(source)]
    config = PipelineConfig((View(SIZE),), 8, False, device, cores, source.batch)

    def make(number: int) -> _Encoded:
        first = number * source.batch
        return _Encoded({"images": [files[i % len(files)] for i in range(first, first + source.batch)]})

    prefetcher = Prefetcher(make, lambda inputs: pipeline.build_decoder(config, inputs))
    try:
        for number in count():
            _, (images,) = prefetcher.get(number, device == "cuda")
            yield Batch(images, None)
    finally:
        prefetcher.close()


@dataclass(frozen=True)
class _Images(Dataset[Any]):
    """Images as PyTorch users read them, one by one. `make` decodes an image and does the rest."""

    stored: Sequence[Stored]
    make: Callable[[bytes], Any]

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: int) -> Any:
        return self.make(self.stored[index].read())


def _torch(make: Callable[[bytes, int], Pixels], cores: int, on_gpu: bool, source: Source) -> Batches:
    return _delivered(_endless(source, partial(_labelled, make), cores, on_gpu), on_gpu)


def pillow(shards: Path, size: int, batch_size: int, where: str) -> Iterable[torch.Tensor]:
    """Return endless batches (N, size, size, 3) uint8 of split "train" by PIL, without labels, for other benchmarks.

    They are on the CPU, pinned if `where` is a GPU, and made by a process per core.
    """
    return _endless(Source(shards, batch_size), partial(_unlabelled, size), peers.cores(), where == "cuda")


def _endless(source: Source, make: Callable[[bytes], Any], cores: int, on_gpu: bool) -> "DataLoader[Any]":
    dataset = _Images(stored(source), make)
    order = RandomSampler(dataset, num_samples=sys.maxsize)  # one permutation after the other
    return DataLoader(dataset, source.batch, sampler=order, **_workers(cores, on_gpu))


def _workers(cores: int, on_gpu: bool) -> dict[str, Any]:
    """Options of a DataLoader with a worker process per core."""
    return {"num_workers": cores, "pin_memory": on_gpu, "worker_init_fn": _one_thread, "timeout": _PATIENCE}


def _web(cores: int, on_gpu: bool, source: Source) -> Batches:
    web = importlib.import_module("webdataset")
    tars = [str(path) for path in source.tars]
    samples = web.WebDataset(tars, resampled=True, shardshuffle=False).shuffle(min(_SHUFFLED, len(stored(source))))
    batches = samples.to_tuple("jpg;png;jp2").map(_of_tuple).batched(source.batch, partial=False)
    return _delivered(web.WebLoader(batches, batch_size=None, **_workers(cores, on_gpu)), on_gpu)


def _of_tuple(sample: tuple[bytes]) -> Sample:
    return _labelled(with_pil, sample[0])


def _delivered(loader: Any, on_gpu: bool) -> Batches:
    """Yield the batches of worker processes, which end with the generator."""
    device = "cuda" if on_gpu else "cpu"
    for images, masks in loader:
        yield Batch(images.to(device, non_blocking=True), masks.to(device, non_blocking=True))


def _one_thread(_: int) -> None:
    cv2.setNumThreads(0)


_V2: Any = importlib.import_module("torchvision.transforms.v2")  # it has no types
_CHANGES = _V2.Compose(
    [
        _V2.RandomHorizontalFlip(),
        _V2.RandomVerticalFlip(),
        _V2.ColorJitter(_AUGMENT.jitter, _AUGMENT.jitter, _AUGMENT.jitter, _HUE),
    ]
)


def with_pil(data: bytes, size: int) -> Pixels:
    """Decode and augment an image to (size, size, 3) uint8 RGB, by PIL and torchvision."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    image = _V2.functional.resized_crop(image, *region(image.height, image.width), [size, size], antialias=True)
    return np.array(_CHANGES(image))


def with_opencv(data: bytes, size: int) -> Pixels:
    """Decode and augment an image to (size, size, 3) uint8 RGB, by OpenCV alone."""
    decoded: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    top, left, height, width = region(*image.shape[:2])
    image = cv2.resize(image[top : top + height, left : left + width], (size, size), interpolation=cv2.INTER_LINEAR)
    axis = random.choice((None, 0, 1, -1))
    flipped = image if axis is None else cv2.flip(image, axis)
    brightness, contrast, saturation = (1 + random.uniform(-1, 1) * _AUGMENT.jitter for _ in range(3))
    changed = cv2.LUT(flipped, _table(128 + (_LEVELS * brightness - 128) * contrast))
    turned = (_LEVELS + round(180 * random.uniform(-_HUE, _HUE))) % 180  # OpenCV's hue has 180 levels
    tables = np.dstack([_table(turned), _table(_LEVELS * saturation), _table(_LEVELS)])
    hsv = cv2.LUT(cv2.cvtColor(changed, cv2.COLOR_RGB2HSV), tables)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def _table(levels: NDArray[Any]) -> NDArray[np.uint8]:
    table: NDArray[np.uint8] = np.clip(np.rint(levels), 0, 255).astype(np.uint8)[None]
    return table


def region(height: int, width: int) -> tuple[int, int, int, int]:
    """Draw a random region: top, left, height, width. Each side is at least `Augment.crop` of the image's, drawn apart."""
    tall, wide = (round(side * random.uniform(_AUGMENT.crop, 1)) for side in (height, width))
    return random.randint(0, height - tall), random.randint(0, width - wide), tall, wide


def _labelled(make: Callable[[bytes, int], Pixels], data: bytes) -> Sample:
    """Return an image and its mask, as in `Batch`."""
    image = make(data, SIZE)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    _, mask = cv2.threshold(gray, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return torch.from_numpy(image), torch.from_numpy(mask)


def _unlabelled(size: int, data: bytes) -> torch.Tensor:
    return torch.from_numpy(with_pil(data, size))
