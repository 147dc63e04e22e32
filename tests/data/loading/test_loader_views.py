"""Several views of each image."""

from pathlib import Path

import numpy as np
import pytest
import torch

from medsass.data.loading.loader import Augment, Loader, View
from tests.support import built
from tests.support.loaded import BYOL, FURTHER, cloned, config, keys


@pytest.fixture(scope="module")
def plain_colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 20 images, each with its own constant red and blue; green is random."""

    def sample(key: str, _depth: int) -> tuple[np.ndarray, np.ndarray]:
        number = int(key.split("_")[1])
        bgr = np.random.default_rng(number).integers(0, 256, (40, 48, 3)).astype(np.uint8)
        bgr[..., 0], bgr[..., 2] = number, 255 - number
        return bgr, (bgr[..., 1] > 127).astype(np.uint8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(built, "sample", sample)
        return built.build(tmp_path_factory.mktemp("colours") / "out")


def test_views_are_of_the_same_image_and_differ(plain_colours: Path) -> None:
    augment = Augment(crop=0.3, jitter=0, hue=0)
    loader = Loader(config(plain_colours, augment=augment, more=(View(32, augment), View(20, augment))))
    for batch in loader:
        numbers = torch.tensor([int(info["key"].split("_")[1]) for info in batch.info])
        for view in batch.views:
            assert (view[..., 2] == numbers[:, None, None]).all()
            assert (view[..., 0] == 255 - numbers[:, None, None]).all()
        assert not any(torch.equal(a, b) for a, b in zip(batch.images, batch.more[0], strict=True))


@pytest.mark.parametrize("depth", [8, 16])
def test_each_view_has_its_own_size_and_repeats_with_its_seed(depth: int, tmp_path: Path) -> None:
    chosen = config(built.build(tmp_path / "out", depth), augment=BYOL, more=FURTHER, masks=False)
    loader = Loader(chosen)
    first = cloned(loader)
    assert [view.shape[1:3] for view in first[0]] == [(32, 32), (32, 32), (16, 16), (24, 24)]
    for a, b in zip(first, cloned(Loader(chosen)), strict=True):
        assert all(map(torch.equal, a, b))


def test_masks_go_with_the_first_view_and_plain_views_stay_plain(twins: Path) -> None:
    augment = Augment(crop=0.5, jitter=0, hue=0)
    plain = {i["key"]: p for b in Loader(config(twins, size=64)) for i, p in zip(b.info, b.images, strict=True)}
    for batch in Loader(config(twins, size=64, augment=augment, more=(View(64, augment), View(64)))):
        agree = [((view[..., 0] > 127) == batch.masks.bool()).float().mean((1, 2)) for view in batch.views]  # type: ignore[union-attr]
        assert (agree[0] >= 0.97).all()
        assert (agree[1] < 0.97).any()
        for info, view in zip(batch.info, batch.more[1], strict=True):
            assert torch.equal(view, plain[info["key"]])


def test_samples_are_shuffled_if_any_view_is_augmented(shards: Path) -> None:
    plain, mixed = (Loader(config(shards, more=more)) for more in ((), (View(16, Augment()),)))
    assert [keys(plain), keys(plain)] != [keys(mixed), keys(mixed)]
    first, second = keys(mixed), keys(mixed)
    assert first != second
