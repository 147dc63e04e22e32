"""What the names of folders and files say: whether they hold masks or images, and of which split."""

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")  # of ground_truth, GroundTruth, labelsTr, masks2
# fmt: off
_MASKS = ["mask", "masks", "msk", "msks", "label", "labels", "gt", "gts", "groundtruth", "groundtruths", "truth", "truths", "manual", "manuals", "lbl", "lbls"]
_OR_TASK = ["seg", "segs", "segm", "segmentation", "segmentations", "ann", "anno", "annot", "annots", "annotation", "annotations"]  # of masks, or of a task
_IMAGES = ["image", "images", "img", "imgs", "data", "input", "inputs", "original", "originals", "scan", "scans", "photo", "photos", "raw"]
_MODALITIES = ["ct", "cta", "cxr", "mr", "mri", "pet", "oct", "xray", "xrays", "frame", "frames", "slice", "slices", "photograph", "photographs", "volume", "volumes"]
_NOT = ["no", "not", "without", "with", "for", "free"]
_ASIDE = ["tr", "ts", "va", "train", "training", "val", "valid", "validation", "test", "testing", "part", "v", "c", "png", "jpg", "tif"]
# fmt: on
_OF = r"(?:binary|cell|instance|lesion|liver|lung|nuclei|nucleus|semantic|tissue|tumou?r|vessel)"  # instancemask, unlike facemask
_JOINED = re.compile(rf"(?i:(?<![a-z])({_OF})(masks?)|(train|val|test)(annots?|gts?|labels?|lbls?|masks?))(?![A-Za-z])")
_END = re.compile(  # of a mask's name, where its image is in the same folder
    rf"(?i:(?:^|[-_. ])(?:cp_masks|{_OF}?masks?|msks?|seg(?:s|m|tri)?|segmentations?|labels?|labell?ed|lbls?|gt|ground_?truth|manual\d?|1stho|2ndho|annos?|annotations?)"
    r"(?=(?:[-_ ](?:old|new|final|copy|overlay))?(?:[-_ ]?\d+)?$))|^Labels?For(?=[A-Z][a-z]+$)"  # LabelsForTraining
)
_START = re.compile(
    rf"(?i:(?:{_OF}?masks?|msks?|seg(?:s|m|tri)?|segmentations?|labels?|lbls?|gt|ground_?truth|manual|annos?|annotations?)(?=[-_ .]|\d))"
)
_DOUBLE = re.compile(r"\.(nii|ome)$", re.IGNORECASE)  # of .nii.gz and .ome.tif
_SPLITS = {
    "train": re.compile(r"(?i:(?<![a-z])train(?:ing)?)(?:(?i:(?![a-z]))|(?=[A-Z][a-z]))|(?<=[a-z])Tr\b"),
    "val": re.compile(r"(?i:(?<![a-z])val(?:id|idation)?)(?:(?i:(?![a-z]))|(?=[A-Z][a-z]))|(?<=[a-z])Va\b"),
    "test": re.compile(r"(?i:(?<![a-z])test(?:ing)?)(?:(?i:(?![a-z]))|(?=[A-Z][a-z]))|(?<=[a-z])Ts\b"),
}


def stem(path: str) -> str:
    """Return the last part of a path without its suffix; .nii.gz and .ome.tif are one."""
    name = path.rpartition("/")[2]
    first, dot, suffix = name.rpartition(".")
    if not (dot and first and suffix):
        return name
    return _DOUBLE.sub("", first) or first


def safe(name: str) -> str:
    """Return a name as a key holds it: a dot would end it for WebDataset readers, and a first - make it an option to programs."""
    return re.sub(r"^-|[^A-Za-z0-9_-]", "_", name)


def check_source(name: str, folders: Iterable[str]) -> None:
    """Raise `ValueError` where a source is a folder of masks by its name, and not by those of the folders below."""
    words = _names(_words(name))
    named = 0 < len(words) < 3 and (
        words[-1] in _MASKS or words in (["ground"], *([word] for word in _OR_TASK if word[0] == "a"))
    )
    if named and rank(name) is not None and not any(map(holds_images, "/".join(folders).split("/"))):
        raise ValueError(
            f"SOURCE is named '{name}', as folders of masks are, which are never images; give the folder above it, or rename it "
            "if it holds images"
        )


def masks_folder(path: str, tasks: Collection[str] = ()) -> str:
    """Return the folder in a path that holds masks by its name, "" where there is none.

    Args:
        path: of a file.
        tasks: folders that are named after a task, as `task_folders` returns them.
    """
    return masks_path(path, tasks).rpartition("/")[2]


def masks_path(path: str, tasks: Collection[str] = ()) -> str:
    """Return a path up to that folder."""
    steps = path.split("/")[:-1]
    for at, step in enumerate(steps):
        here = "/".join(steps[: at + 1])
        if rank(step) is not None and here not in tasks:
            return here
    return ""


@lru_cache(1 << 16)
def rank(folder: str) -> int | None:
    """Return how plainly a folder's name says that it holds the true masks, 0 most; None where it does not.

    Beside `1st_manual` and `manual`, `mask` is a field of view.
    """
    words = _words(folder)
    if words == ["ground"]:  # as CHAOS has it
        return 1
    held = [word for word in words if word in _MASKS or word in _OR_TASK]
    names = _names(words)
    if not held or set(words) & set(_NOT) or ("and" in words and not _of_two_things(names)):
        return None
    if names[-1] in _IMAGES and not {*names[-2:-1]} & set(_MASKS):  # mask_images are masks
        return None
    if "manual" in held:
        return 4 if "2" in words else 0
    if any(word[0] in "gt" for word in held):  # gt, groundtruth, truth
        return 1
    return 2 if {"masks", "label", "labels"} & set(held) else 3


def _of_two_things(words: Sequence[str]) -> bool:
    """Return whether a name with an "and" is of masks alone, as `lung_and_infection_mask` is and `images_and_masks` is not."""
    before, after = words[: words.index("and")], words[words.index("and") + 1 :]
    plain = len(after) > 1 or bool({*before} & {*_MASKS})
    return plain and words[-1] in _MASKS and not {*words} & {*_IMAGES, *_MODALITIES}


def task_folders(folders: Iterable[str]) -> set[str]:
    """Return the folders that are named after a task, such as `lung-segmentation`, and hold images: alone, beside plainly named
    masks, or as well as masks, where all others lie in them, or folders of images or masks do.
    """
    folders = list(folders)
    every, found, held = [folder for folder in folders if folder], set[str](), Counter[str]()
    for folder in every:
        steps = folder.split("/")
        for at, step in enumerate(steps):
            if not may_be_task(step):
                continue
            here = "/".join(steps[: at + 1])
            held[here] += len(_words(step)) > 1
            own = len(_words(step)) > 1 or all(
                f"{other}/".startswith(f"{here}/") for other in every
            )  # not Segmentation/
            if any(holds_images(inside) or (own and rank(inside) is not None) for inside in steps[at + 1 :]):
                found.add(here)
    return found | {folder for folder, count in held.items() if count == len(every)} | _beside_masks(folders)


def _beside_masks(folders: Sequence[str]) -> set[str]:
    """Return the folders named after a task that must be the images', as nothing else but plainly named masks is beside them."""
    beside = defaultdict[str, set[str]](set)
    for folder in filter(None, folders):
        steps = folder.split("/")
        for at, step in enumerate(steps):
            beside["/".join(steps[:at])].add(step)
    found = set[str]()
    for above, inside in beside.items():
        tasks = {step for step in inside if may_be_task(step) and not _must_be_masks(step)}
        masks = {step for step in inside if rank(step) is not None and not may_be_task(step)}
        if not (tasks and masks) or inside - tasks - masks or any(map(_must_be_masks, above.split("/"))):
            continue
        others = any(folder == above or (above and not folder.startswith(f"{above}/")) for folder in folders)
        alone = len(tasks) == 1 and not others
        named = (step for step in tasks if alone or _names(_words(step))[-1] not in _OR_TASK)  # not liver_seg
        found |= {f"{above}/{step}".lstrip("/") for step in named}
    return found


def _must_be_masks(folder: str) -> bool:
    """Return whether a folder's name is of masks, and not of a task such as polyp_segmentation_dataset."""
    return rank(folder) is not None and (len(_words(folder)) == 1 or not may_be_task(folder))


def may_be_task(folder: str) -> bool:
    """Return whether a folder's name says that it holds masks, or else images for a task such as segmentation."""
    return rank(folder) is not None and not set(_words(folder)) & set(_MASKS)


@lru_cache(1 << 16)
def holds_images(folder: str) -> bool:
    """Return whether a folder's name says that it holds images."""
    return bool(set(_words(folder)) & {*_IMAGES, "cxr", "photographs"}) and rank(folder) is None


def mask_word(stem: str) -> "re.Match[str] | None":
    """Return the word at the end, or at the start, of a file's stem that says that it is a mask beside its image."""
    return _END.search(stem) or _START.match(stem)


def is_mask(stem: str) -> bool:
    """Return whether a file is a mask by its own name, such as a_mask.png or mask.png."""
    return bool(_END.search(stem))


def is_made(stem: str) -> bool:
    """Return whether a file is, by its own name, a mask or the superpixels of another picture, as ISIC has them."""
    return is_mask(stem) or bool(re.search(r"(?i:[-_ ]superpixels?$)", stem))


def masks_among(paths: Collection[str]) -> set[str]:
    """Return the files that are masks by the name of a folder, or by their own beside an image whose name begins alike."""
    tasks = task_folders({path.rpartition("/")[0] for path in paths})
    found = {path for path in paths if masks_path(path, tasks)}
    images = sorted(path for path in paths if path not in found and not is_mask(stem(path)))
    for path in {*paths} - found - {*images}:
        folder, slash, _ = path.rpartition("/")
        own = _END.split(stem(path))[0]
        at = bisect_left(images, begin := folder + slash + own)
        if own and at < len(images) and images[at].startswith(begin):
            found.add(path)
    return found


def split_of(path: str) -> str:
    """Return the split that a path names, "" where it names none."""
    return next((split for split, word in _SPLITS.items() if word.search(path)), "")


def splits_of(paths: Iterable[str]) -> dict[str, str]:
    """Return the split that each path names, where they name val, or test; training images alone are for all splits."""
    named = {path: split_of(path) for path in paths}
    held = kept(named.values())
    return {path: split if split in held else "" for path, split in named.items()} if held & {*named.values()} else {}


def kept(named: Collection[str]) -> set[str]:
    """Return which of the splits that a dataset names are used as such: without val, the training images are split further."""
    return {"train", "val", "test"} if "val" in named else {"test"}


def rest(shares: Mapping[str, float], given: Collection[str]) -> Mapping[str, float]:
    """Return the shares of the images whose split is not given: none of them go to test where test images are given."""
    if "test" not in given or "" not in given:
        return shares
    others = {split: share for split, share in shares.items() if split != "test"}
    return {split: round(share / sum(others.values()), 9) for split, share in others.items()}


def _words(step: str) -> list[str]:
    apart = _JOINED.sub(lambda match: "_".join(filter(None, match.groups())), step.replace("GTs", "gts"))
    return [word.lower() for word in _WORD.findall(apart)]


def _names(words: Sequence[str]) -> list[str]:
    """Return the words without numbers, letters, splits and formats."""
    return [word for word in words if not (word.isdigit() or len(word) == 1 or word in _ASIDE)]
