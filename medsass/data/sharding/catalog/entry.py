"""An image of the catalog."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One image of the source. Paths are relative to the source, in POSIX form.

    Attributes:
        key: unique, and safe in a tar file.
        image, masks: paths.
        split, label, group: as the recipe decides; label is None where there is none.
        table: number of the recipe's [[images]] table that found the image.
        slices: the files of a DICOM series in order, of which one is `image`; () where the image is one file.
    """

    key: str
    image: str
    masks: tuple[str, ...]
    split: str
    label: str | None
    group: str
    table: int = 0
    slices: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """All files: the image or its slices, and the masks."""
        return (*(self.slices or (self.image,)), *self.masks)
