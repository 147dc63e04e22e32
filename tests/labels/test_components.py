"""Connected components against scikit-image, SciPy, and (with a GPU) the kernels against OpenCV."""

import numpy as np
import pytest
import torch
from hypothesis import given
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure

from medsass.labels.components import components
from tests.support.effort import examples
from tests.support.masks import KINDS, SHAPES, Mask, batches, make, masks

gpu = pytest.mark.gpu
FULL = np.ones((3, 3))


def by_first_pixel(labels: NDArray[np.int64]) -> NDArray[np.int32]:
    """Convert labels of any numbering, background 0, to the smallest index of each component, background -1."""
    _, first, back = np.unique(labels, return_index=True, return_inverse=True)
    return np.where(labels == 0, -1, first[back].reshape(labels.shape)).astype(np.int32)


def found(mask: Mask, connectivity: int) -> NDArray[np.int32]:
    return components(torch.from_numpy(mask)[None], connectivity)[0].numpy()


@examples(150)
@given(masks())
def test_four_and_eight_neighbours_connect_as_in_scikit_image(mask: Mask) -> None:
    for connectivity in (4, 8):
        expected = by_first_pixel(measure.label(mask, connectivity=connectivity // 4))
        assert np.array_equal(found(mask, connectivity), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_kind_of_mask_is_connected_as_in_scipy(kind: str, shape: tuple[int, int]) -> None:
    mask = make(kind, shape)
    assert np.array_equal(found(mask, 4), by_first_pixel(ndimage.label(mask)[0]))
    assert np.array_equal(found(mask, 8), by_first_pixel(ndimage.label(mask, FULL)[0]))


def test_a_component_is_named_by_its_first_pixel_and_any_level_but_0_is_foreground() -> None:
    mask = torch.tensor([[[0, 1, 0, 2], [255, 0, 0, 1], [0, 0, 0, 1]]], dtype=torch.uint8)
    assert components(mask, 4).tolist() == [[[-1, 1, -1, 3], [4, -1, -1, 3], [-1, -1, -1, 3]]]
    assert components(mask, 8).tolist() == [[[-1, 1, -1, 3], [1, -1, -1, 3], [-1, -1, -1, 3]]]


def test_a_mask_that_is_not_contiguous_is_taken_by_its_values() -> None:
    turned = torch.from_numpy(make("half", (20, 30)))[None].transpose(1, 2)
    assert torch.equal(components(turned, 8), components(turned.contiguous(), 8))


def test_components_is_a_sound_operator() -> None:
    torch.library.opcheck(components, (torch.from_numpy(make("half", (9, 11)))[None], 8))


@pytest.mark.parametrize("connectivity", [0, 1, 2, 6])
def test_another_connectivity_is_refused(connectivity: int) -> None:
    with pytest.raises(ValueError, match=f"connectivity must be 4 or 8; got {connectivity}"):
        components(torch.zeros(1, 2, 2, dtype=torch.uint8), connectivity)


@pytest.mark.parametrize(
    "mask", [torch.zeros(2, 2, dtype=torch.uint8), torch.zeros(1, 2, 2), torch.zeros(1, 0, 2, dtype=torch.uint8)]
)
def test_other_masks_are_refused_with_what_was_seen(mask: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="mask must be") as error:
        components(mask, 8)
    assert str(error.value).endswith(f"got {tuple(mask.shape)}, {mask.dtype}")


@gpu
@pytest.mark.parametrize("connectivity", [4, 8])
def test_gpu_components_equal_those_of_the_cpu(connectivity: int) -> None:
    @examples(200)
    @given(batches(100))
    def holds(masks: Mask) -> None:
        batch = torch.from_numpy(masks)
        assert torch.equal(components(batch.cuda(), connectivity).cpu(), components(batch, connectivity))

    holds()


@gpu
@pytest.mark.parametrize("kind", KINDS)
def test_gpu_components_of_large_masks_equal_those_of_the_cpu(kind: str) -> None:
    batch = torch.from_numpy(np.stack([make(kind, (1408, 1876), seed) for seed in range(2)]))
    for connectivity in (4, 8):
        for _ in range(5):  # another order of events each time
            assert torch.equal(components(batch.cuda(), connectivity).cpu(), components(batch, connectivity))


@gpu
def test_gpu_components_can_be_recorded_and_replayed() -> None:
    batches = [torch.from_numpy(np.stack([make("dense", (97, 131), s + 8 * t) for s in range(8)])) for t in range(3)]
    mask = batches[0].cuda()
    components(mask, 8)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = components(mask, 8)
    for batch in batches:
        mask.copy_(batch)
        graph.replay()
        assert torch.equal(out.cpu(), components(batch, 8))
