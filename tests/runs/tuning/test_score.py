"""Scores of ways to label, on scenes whose right labels are known."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy import stats

from medsass.data.loading.loader import Loader, LoaderConfig
from medsass.labels import criteria, refine
from medsass.runs.tuning import learnability, score
from medsass.runs.tuning.candidates import Candidate, candidates
from medsass.runs.tuning.score import Judged


def _scenes(count: int = 8, side: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, S, S, 3) uint8 with a bright blob on a ground that drifts, and the masks."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    images, masks = [], []
    for _ in range(count):
        cy, cx, r = [*rng.integers(side // 3, 2 * side // 3, 2).tolist(), int(rng.integers(side // 8, side // 5))]
        mask = (y - cy) ** 2 + (x - cx) ** 2 <= r * r
        gray = 50 + 110 * mask + 20 * x / side + rng.normal(0, 10, mask.shape)
        images.append(np.repeat(gray.clip(0, 255).astype(np.uint8)[..., None], 3, 2))
        masks.append(mask.astype(np.uint8))
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks))


WAYS = [Candidate("otsu", side, step, 51) for side in ("bright", "dark") for step in ("", "blur:3", "largest")]


def test_the_side_is_right_and_scores_of_its_ways_follow_the_truth() -> None:
    images, truth = _scenes()
    assert score.side(images) == "bright"
    ways = candidates("bright", 8)
    judged = score.judge(images, ways)
    iou = np.array([float(criteria.overlap(mask, truth).mean()) for mask in judged.masks])
    assert iou[judged.scores.argmax()] > iou.max() - 0.05
    assert iou.max() - iou.min() > 0.3
    assert stats.spearmanr(judged.scores, iou).statistic > 0.5


def test_scores_are_geometric_means_of_the_votes() -> None:
    rng = np.random.default_rng(0)
    values = {name: rng.random(3) for name in (*score.VOTES, "separation", "stability")}
    values["crop"][1] = 0
    judged = Judged(WAYS[:3], values, torch.zeros(3, 1, 2, 2))
    votes = [values[name].clip(1e-3) for name in score.VOTES]
    assert judged.scores.tolist() == pytest.approx(stats.gmean(votes, axis=0).tolist())


def test_the_side_is_the_one_inside_the_frame_also_with_dark_corners() -> None:
    images, _ = _scenes()
    assert score.side(255 - images) == "dark"
    y, x = np.mgrid[:64, :64]
    corners = torch.from_numpy((y - 31.5) ** 2 + (x - 31.5) ** 2 > 34**2)
    shown = (255 - images) * ~corners[None, :, :, None]
    assert score.side(shown) == "dark"


def test_masks_are_the_labelers_and_each_candidate_is_reported() -> None:
    images, _ = _scenes(3)
    calls: list[int] = []
    judged = score.judge(images, WAYS, each=lambda: calls.append(1))
    assert len(calls) == len(WAYS)
    for way, mask in zip(WAYS, judged.masks, strict=True):
        assert torch.equal(mask, way.labeler(64)(images).mask)
    assert set(judged.values) == {*criteria.CRITERIA, "stability", "crop", "agreement"}


@pytest.mark.parametrize("shape", [(3, 16, 16, 3), (3, 16, 16)])
def test_another_light_is_the_same_again_and_another_with_another_seed(shape: tuple[int, ...]) -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))
    one, again, other = (score.relit(images, seed) for seed in (0, 0, 1))
    assert one.dtype == torch.uint8
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert (one.float() - images.float()).abs().mean() < 40


def test_16_bit_images_are_judged_too() -> None:
    deep = (_scenes(4)[0][..., 0].to(torch.int32) * 200).to(torch.uint16)
    ways = candidates("bright", 16)
    assert not any("blur" in way.refine or "vignette" in way.refine or "adaptive" in way.labels for way in ways)
    judged = score.judge(deep, ways[:4])
    assert all(np.isfinite(value).all() for value in judged.values.values())


def test_candidates_take_the_given_side_and_for_colour_images_the_channels_that_show_it() -> None:
    way = Candidate("adaptive-mean", "dark", "", 111)
    assert [way.labeler(size).block_size for size in (224, 112, 448)] == [111, 57, 223]
    for polarity, steps in (("dark", {"darkest", "red"}), ("bright", {"brightest"})):
        plain, colour = candidates(polarity, 8), candidates(polarity, 8, colour=True)
        more = colour[len(plain) :]
        assert colour[: len(plain)] == plain
        assert {way.refine.split(",")[0] for way in more} == steps
        assert {way.polarity for way in colour} == {polarity}
        assert len({way.name for way in colour}) == len(colour)


def test_what_is_stained_is_dark_even_where_it_covers_most() -> None:
    """Sections fill their frames: white gaps are the smaller side, and are not what is looked for."""
    rng = np.random.default_rng(0)
    images = np.full((6, 64, 64, 3), (200, 110, 160), np.uint8)  # eosin
    for image in images:
        for _ in range(12):
            cv2.circle(image, rng.integers(0, 64, 2).tolist(), 4, (90, 60, 140), -1)  # haematoxylin
        cv2.circle(image, rng.integers(10, 54, 2).tolist(), 14, (245, 243, 246), -1)  # a gap
    stained = torch.from_numpy(images)
    gray = torch.from_numpy(np.repeat(refine.gray_of(stained).numpy()[..., None], 3, 3))
    assert (score.light(stained), score.side(stained)) == (True, "dark")
    assert (score.light(gray), score.side(gray)) == (False, "bright")


def test_tinted_images_are_in_colour_gray_ones_are_not_and_fluorescence_has_no_light_ground() -> None:
    gray = _scenes(4)[0]
    assert not score.coloured(gray)
    assert not score.coloured(gray[..., 0])
    assert score.coloured((gray.float() * torch.tensor([1.0, 0.5, 0.8])).byte())
    glowing = (gray.float() * torch.tensor([0.1, 0.2, 1.0])).byte()
    assert score.coloured(glowing)
    assert (score.light(glowing), score.side(glowing)) == (False, "bright")


def test_what_follows_from_the_image_is_learnt_and_chance_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learnability, "SIDE", 32)
    monkeypatch.setattr(learnability, "STEPS", 20)
    images, truth = _scenes(24)
    chance = torch.from_numpy((np.random.default_rng(1).random(truth.shape) < 0.3).astype(np.uint8))
    of_truth, of_chance = (learnability.learnability(images, labels) for labels in (truth, chance))
    assert of_truth > 0.6
    assert of_truth > of_chance + 0.2


def test_a_glimpse_is_of_some_whole_images_and_of_the_seed(shards: Path) -> None:
    config = LoaderConfig(shards, "train", 32, 16, "cpu")
    images, truth = score.glimpse(replace(config, masks=True), 8)
    again, none = score.glimpse(config, 8)
    everything = {image.numpy().tobytes() for image in score.glimpse(config, 1000)[0]}
    assert torch.equal(images, again)
    assert (truth is not None, none) == (True, None)
    assert 6 <= len(images) <= 10 < len(everything)
    assert {image.numpy().tobytes() for image in images} < everything
    assert not torch.equal(images, score.glimpse(replace(config, seed=1), 8)[0])
    whole = torch.cat([batch.images for batch in Loader(config)])
    assert everything == {image.numpy().tobytes() for image in whole}
