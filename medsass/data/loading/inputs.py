"""The inputs of a pipeline for one batch: encoded or cached images, and the parameters of their random changes."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass.config import schema
from medsass.data import dali
from medsass.data.loading import augment, order
from medsass.data.loading.cache import Cache
from medsass.data.loading.order import MicroBatch, Order
from medsass.data.loading.pipeline import PipelineConfig
from medsass.data.loading.reader import Encoded, Reader

_NAMES = {"image": "images", "mask.png": "masks"}  # the pipeline's inputs by the samples' files


@dataclass(frozen=True)
class Inputs:
    """The inputs of one batch.

    Args:
        feeds: DALI's batch of each pipeline input, by the input's name (see `pipeline.build`).
        encoded: The files as read; empty where images are cached.
        keys: Keys of the samples.
        info: JSON of each sample, if requested.
        share: Images of the batch over all images of its step.
        parameters: `augment.parameters` of each augmented view, by the view's number.
    """

    feeds: dict[str, Any]
    encoded: list[Encoded]
    keys: tuple[str, ...] = ()
    info: list[dict[str, Any]] = field(default_factory=list)
    share: float = 1.0
    parameters: dict[int, NDArray[np.float32]] = field(default_factory=dict)


class InputBuilder:
    """Builder of batches' inputs; may be called from several threads at once.

    A crop by area needs its image's height and width: those of the cached image, or else read from the sample's JSON
    when the sample is first used.
    """

    def __init__(self, config: PipelineConfig, order: Order, reader: Reader, cache: Cache | None, info: bool) -> None:
        self._config, self._order, self._reader, self._cache, self._info = config, order, reader, cache, info
        self._files = ["image", "mask.png"] if config.masks else ["image"]
        self._sizes = np.zeros((len(reader.samples), 2), np.int64)  # 0: not read yet
        self._needs_sizes = any(view.augment and view.augment.area for view in config.views)

    def __call__(self, number: int) -> Inputs:
        """Build the inputs of batch `number`, counted through all epochs."""
        batch = self._order.micro_batch(*divmod(number, len(self._order)))
        unknown = self._needs_sizes and self._cache is None and not self._sizes[batch.samples].all()
        wanted = [*([] if self._cache else self._files), *["json"] * (self._info or unknown)]
        encoded = self._reader.read(batch.samples.tolist(), wanted) if wanted else []
        info = [self._json(item) for item in encoded] if "json" in wanted else []
        parameters = self._parameters(batch)
        feeds = self._cache.feeds(batch.samples) if self._cache else self._feeds(encoded)
        tensors = dali.import_dali("nvidia.dali.tensors")
        feeds |= {f"view{view}": tensors.TensorListCPU(rows) for view, rows in parameters.items()}
        keys = tuple(self._reader.samples.key(sample) for sample in batch.samples)
        share = len(batch.samples) / batch.step_images
        return Inputs(feeds, encoded, keys, info if self._info else [], share, parameters)

    def encoded(self, numbers: NDArray[np.int64]) -> Inputs:
        """Read only the files of samples."""
        encoded = self._reader.read(numbers.tolist(), self._files)
        return Inputs(self._feeds(encoded), encoded)

    def _feeds(self, encoded: list[Encoded]) -> dict[str, Any]:
        files = {what: [dali.tensor(item.files[what]) for item in encoded] for what in self._files}
        return {_NAMES[what]: dali.batch(column) for what, column in files.items()}

    def _parameters(self, batch: MicroBatch) -> dict[int, NDArray[np.float32]]:
        """Draw the random changes of each augmented view."""
        views, place = self._config.views, self._order
        if not place.shuffled:
            return {}
        # images come first in the shape, so that repeated images at its end do not change the others' numbers
        shape = (batch.step_images, len(views), augment.UNIFORM)
        drawn = order.uniform(place.seed, batch.epoch, batch.step, shape)[batch.place]
        sizes = (self._cache.sizes if self._cache else self._sizes)[batch.samples] if self._needs_sizes else None
        return {
            number: augment.parameters(view, self._config.depth, drawn[:, number], sizes)
            for number, view in enumerate(views)
            if view.augment
        }

    def _json(self, item: Encoded) -> dict[str, Any]:
        """Return a sample's JSON and keep its size if sizes are needed."""
        try:
            table = dict(schema.parse_json(item.files["json"].tobytes()))
        except (KeyError, ValueError, TypeError) as error:
            raise self._reader.samples.damaged(item.number, "its JSON cannot be read") from error
        if self._needs_sizes and self._cache is None:
            height, width = table.get("height"), table.get("width")
            if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
                raise self._reader.samples.damaged(item.number, "its JSON does not say its height and width")
            self._sizes[item.number] = height, width
        return table
