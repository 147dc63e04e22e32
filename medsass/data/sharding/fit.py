"""Whether a mask belongs to its image, by what both files say: their frames and axes, their places, their patients."""

from medsass.data.formats.dicom import place
from medsass.data.formats.dicom.image import Dicom
from medsass.data.formats.image import ImageFile
from medsass.data.formats.volumes.volume import Volume

_UNKNOWN = "QIN"  # letters of axes of which only the length is known


def check(image: ImageFile | None, mask: ImageFile) -> None:
    """Raise `ValueError` where the frames of a mask are not those of its image; None stands for a picture of one frame."""
    frames, total = (image.frames, image.total) if image else (1, 1)
    same = image is not None and total % mask.total == 0 and tuple(image.indices) == tuple(mask.indices)
    if mask.frames != frames or not (mask.total in (1, total) or same):  # same: slices of the first of several volumes
        held, due = (mask.total, total) if mask.frames == frames else (mask.frames, frames)
        raise ValueError(
            f"it has {held} pages or slices, and its image has {due}; save each page as a file of its own, which are united"
        )
    placed = [one for one in (image, mask) if isinstance(one, Volume)]
    if len(placed) == 1 and not placed[0].as_stored:
        raise ValueError(
            "of mask and image one alone says where it lies, and is turned or put in order by that; save both as volumes (NIfTI), "
            "or both as pictures"
        )
    if image and _differ(image, mask):
        seen, own = (" x ".join(f"{length} ({letter})" for letter, length in one.counted) for one in (mask, image))
        raise ValueError(f"its frames are {seen} in this order, and its image's {own}; save both with the same axes")
    if gap := _gap(image, mask):
        raise ValueError(
            f"by its header it lies {gap:.3g} mm from its image; if its voxels are the image's all the same, copy the image's "
            "affine into it"
        )


def strangers(image: ImageFile | None, mask: ImageFile) -> bool:
    """Return whether both say whose they are, and differ."""
    return isinstance(image, Dicom) and isinstance(mask, Dicom) and place.strangers(image, mask)


def _differ(image: ImageFile, mask: ImageFile) -> bool:
    """Return whether the axes that count the frames of both are of other lengths or, where they are named, other ones."""
    if len(image.counted) != len(mask.counted):
        return False  # of which one says less
    pairs = zip(image.counted, mask.counted, strict=True)
    return any(
        length != other or (letter != name and not {letter, name} & set(_UNKNOWN))
        for (letter, length), (name, other) in pairs
    )


def _gap(image: ImageFile | None, mask: ImageFile) -> float:
    """Return how many millimetres a mask lies from its image by their headers; 0 where these say nothing."""
    if isinstance(image, Volume) and isinstance(mask, Volume):
        return image.gap(mask)
    return place.gap(image, mask) if isinstance(image, Dicom) and isinstance(mask, Dicom) else 0.0
