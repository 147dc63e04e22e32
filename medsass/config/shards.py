"""Options of the commands that make, check and show shards."""

from typing import Annotated, Literal

from annotated_types import Ge

from medsass.config.options import (
    FOLLOW_HELP,
    Amount,
    Count,
    Encoding,
    Place,
    Range,
    Reading,
    check_resume,
    option,
    options_class,
)


@options_class
class ShardConfig(Reading):
    """`medsass shard SOURCE OUT`. SOURCE and OUT are folders, or s3://, gs:// or https:// addresses (OUT: s3, gs). With recipe
    'webdataset' SOURCE may be a pattern of tar files.
    """

    source: Place
    out: Place
    recipe: str = option("folder", "dataset recipe: a bundled name or a path to a .toml file")
    variant: str = option("", "one of the recipe's variants, such as nuclear or whole-cell; its first by default")
    group_by: str = option(
        "",
        "what must stay within one split: a group of the recipe, patient, series, folder, image (no groups), or a regular "
        "expression with (?P<group>...); by default the recipe's first, or the patient where names or DICOM headers say it",
    )
    split: str = option(
        "", "shares of train, val and test, met exactly, as 0.8,0.1,0.1; by default those of the recipe"
    )
    images: str = option(
        "", "glob of the images below SOURCE (recipe 'folder'); by default a usual layout is recognised", several=True
    )
    masks: str = option(
        "",
        "glob of the masks below SOURCE, paired where both globs' wildcards agree, or a pattern with {stem}, {name}, {dir}, {folder}, {number}",
        several=True,
    )
    foreground: str = option(
        "",
        "what is foreground in all masks: binary (the higher of two levels), nonzero, half, levels such as 1,3, or colours "
        "such as '#ff0000'",
    )
    resize_masks: bool = option(False, "resize masks whose size differs from their image's, instead of refusing them")
    turn_masks: bool = option(False, "turn masks without an orientation tag as their image's tag says")
    size: Count = option(0, "store images and masks resized to N x N pixels; 0 keeps their own size")
    tile: Count | None = option(
        None, "cut images and slides into tiles of N x N pixels; 0 stores them whole; by default as the recipe says"
    )
    stride: Count = option(0, "distance between tiles; 0 takes the tile's size, so that they do not overlap")
    min_foreground: Amount = option(
        0.0, "leave out tiles with a smaller share of foreground, by Otsu's threshold on the reduced image"
    )
    level: Count = option(0, "pyramid level of slides that is read; 0 is full resolution")
    encode: Annotated[str, Encoding] = option(
        "keep",
        "how images are stored. GPUs decode jpeg and jpeg2000, DALI decodes png on the CPU; keep: the file's own "
        "bytes where DALI reads them as they are, else png",
    )
    depth: Annotated[int, Literal[8, 16]] = option(8, "bits of a stored channel: 8, or 16 for single-channel images")
    range: Annotated[str, Literal["recipe", Range]] = option(
        "recipe",
        "what becomes 0 and the largest value where pixels of another depth are converted: each image's own "
        "extremes, its 0.5 and 99.5 percentiles, or its type's whole range",
    )
    near_duplicates: bool = option(False, "also keep look-alikes (perceptual hash) out of later splits")
    max_shard_bytes: Annotated[int, Ge(20480)] = option(
        256 << 20, "start a new tar file when this size would be passed"
    )
    workers: Count = option(0, "processes that read, encode and check images; 0 takes all cores")
    follow_links: bool = option(False, FOLLOW_HELP)
    strict: bool = option(False, "stop at the first bad sample instead of leaving it out")
    dry_run: bool = option(False, "only print what would be written, from the files' names")
    resume: bool = option(False, "go on where an interrupted run with the same options stopped")
    overwrite: bool = option(False, "replace the shards that OUT holds, or an interrupted run of them")

    def __post_init__(self) -> None:
        for name in ("stride", "min_foreground"):
            if getattr(self, name) and self.tile == 0:
                raise ValueError(f"--{name.replace('_', '-')} goes with --tile")
        if self.tile and self.stride > self.tile:
            raise ValueError(f"--stride must be at most --tile ({self.tile}), or pixels are lost; got {self.stride}")
        if self.min_foreground > 1:
            raise ValueError(f"--min-foreground is a share and at most 1; got {self.min_foreground}")
        check_resume(self.resume, self.overwrite, "what is there")
        if self.depth == 16 and self.encode == "jpeg":
            raise ValueError("--encode jpeg holds 8 bits; take png or jpeg2000 with --depth 16")


@options_class
class VerifyConfig:
    """`medsass verify SHARDS`."""

    shards: Place


@options_class
class InfoConfig:
    """`medsass info SHARDS`."""

    shards: Place
    preview: Place | None = option(None, "draw a contact sheet of images with their masks into this PNG file")
