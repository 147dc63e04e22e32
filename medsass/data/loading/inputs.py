"""What a pipeline is fed with for one batch: encoded or held images, and what is to happen to each of them by chance."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass.data import dali
from medsass.data.loading import augment, order, tensors
from medsass.data.loading.augment import View
from medsass.data.loading.cache import Cache
from medsass.data.loading.order import Order, Piece
from medsass.data.loading.reader import Encoded, Reader
from medsass.data.loading.samples import Samples


@dataclass(frozen=True)
class Portion:
    """One batch for a pipeline. feeds: data by the input's name, as `pipeline.build` says. encoded: the files as read.
    info: each sample's JSON, where it was asked for. share: the batch's images over those of its step. parameters: of each
    augmented view by its number what is in its feed, `augment.parameters`.
    """

    feeds: dict[str, Any]
    encoded: list[Encoded]
    keys: tuple[str, ...] = ()
    info: list[dict[str, Any]] = field(default_factory=list)
    share: float = 1.0
    parameters: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    def culprit(self, samples: Samples, depth: int) -> ValueError | None:
        """An error that names the first sample that cannot be decoded, if there is one."""
        for item in self.encoded:
            try:
                if "image" in item.files:
                    dali.decode(item.files["image"], depth)
                if "mask.png" in item.files:
                    dali.decode_mask(item.files["mask.png"])
            except ValueError as error:
                return samples.damaged(item.number, str(error))
        return None


class Maker:
    """Makes portions; may be called from several threads at once. Where a crop needs an image's height and width they are
    the held image's, or read from the sample's JSON when it is seen for the first time.
    """

    def __init__(
        self,
        views: Sequence[View],
        depth: int,
        masks: bool,
        info: bool,
        order: Order,
        reader: Reader,
        cache: Cache | None,
    ) -> None:
        self.views, self.depth, self.masks, self.info = views, depth, masks, info
        self.order, self.reader, self.cache = order, reader, cache
        self._sizes = np.zeros((len(reader.samples), 2), np.int64)  # 0: not seen yet
        self._measured = any(view.augment and view.augment.area for view in views)

    def __call__(self, number: int) -> Portion:
        """The portion of batch `number`, counted through all epochs."""
        piece = self.order.piece(*divmod(number, len(self.order)))
        unknown = self._measured and self.cache is None and not self._sizes[piece.samples].all()
        wanted = self._pixels() if self.cache is None else []
        encoded = self._read(piece.samples, [*wanted, *["json"] * (self.info or unknown)])
        info = [self._json(item) for item in encoded] if self.info or unknown else []
        if unknown:
            for item, table in zip(encoded, info, strict=True):
                self._sizes[item.number] = self._size(item, table)
        feeds = self.cache.feeds(piece.samples) if self.cache else self._feeds(encoded)
        keys = tuple(self.reader.samples.key(number) for number in piece.samples)
        parameters = self._parameters(piece)
        feeds |= {f"view{number}": tensors.rows(found) for number, found in parameters.items()}
        return Portion(feeds, encoded, keys, info if self.info else [], piece.share, parameters)

    def encoded(self, numbers: NDArray[np.int64]) -> Portion:
        """Samples as files alone."""
        encoded = self._read(numbers, self._pixels())
        return Portion(self._feeds(encoded), encoded)

    def _pixels(self) -> list[str]:
        return ["image", "mask.png"] if self.masks else ["image"]

    def _read(self, numbers: NDArray[np.int64], wanted: Sequence[str]) -> list[Encoded]:
        return self.reader.read(numbers.tolist(), wanted) if wanted else []

    def _feeds(self, encoded: Sequence[Encoded]) -> dict[str, Any]:
        names = {"image": "images", "mask.png": "masks"}
        return {
            names[what]: tensors.batch([tensors.tensor(item.files[what]) for item in encoded])
            for what in self._pixels()
        }

    def _parameters(self, piece: Piece) -> dict[int, NDArray[np.float32]]:
        shape = (piece.of, len(self.views), augment.UNIFORM)  # images first: those that only fill up come last
        drawn = order.numbers(self.order.seed, piece.epoch, piece.step, shape) if self.order.shuffled else None
        sizes = (self.cache.sizes if self.cache else self._sizes)[piece.samples] if self._measured else None
        return {
            number: augment.parameters(view, self.depth, drawn[piece.place, number], sizes)
            for number, view in enumerate(self.views)
            if view.augment and drawn is not None
        }

    def _json(self, item: Encoded) -> dict[str, Any]:
        try:
            return dict(json.loads(item.files["json"].tobytes()))
        except (KeyError, ValueError) as error:
            raise self.reader.samples.damaged(item.number, "its JSON cannot be read") from error

    def _size(self, item: Encoded, table: dict[str, Any]) -> tuple[int, int]:
        height, width = table.get("height"), table.get("width")
        if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
            raise self.reader.samples.damaged(item.number, "its JSON does not say its height and width")
        return height, width
