"""The ways to label that `tune` chooses among: threshold, polarity and refinement."""

from dataclasses import dataclass
from itertools import product

from medsass.labels import Labeler

# Of a 224-pixel image a neighbourhood of half its side: what stands out from a ground whose level drifts.
THRESHOLDS = {"otsu": 51, "ght": 51, "adaptive-mean": 111}
REFINEMENTS = (
    "",
    "border",
    "holes",
    "border,holes",
    "blur:1.5",
    "blur:3",
    "blur:3,holes",
    "blur:3,border",
    "blur:3,border,holes",
    "blur:3,border,holes,largest",
    "blur:3,border,open:3,largest:2",
    "vignette,blur:3,border,holes",
    "vignette,blur:3,border,open:3,largest:2",
    "open:1,min:0.001",
)
# What pigments absorb differs, so that the darkest channel shows most of them; haematoxylin and Giemsa's azure are dark in
# red light, in which eosin is not (absorption as in Ruifrok and Johnston 2001, table 1).
CHANNELS = {"dark": ("darkest", "red"), "bright": ("brightest",)}


@dataclass(frozen=True)
class Candidate:
    """One way to label; the names of the fields are those of `train`'s options."""

    labels: str
    polarity: str
    refine: str
    block_size: int

    @property
    def name(self) -> str:
        """All of it in a few words."""
        return f"{self.labels} {self.polarity} {self.refine or 'none'}"

    def labeler(self, size: int) -> Labeler:
        """What labels images of that size so."""
        block = max(3, round(self.block_size * size / 224) // 2 * 2 + 1)
        return Labeler(self.labels, self.polarity, block_size=block, refine=self.refine)


def candidates(polarity: str, depth: int, colour: bool = False) -> list[Candidate]:
    """All of them. polarity: "bright" or "dark". depth: 16-bit images are neither blurred nor thresholded by
    neighbourhoods. colour: of images in colour Otsu's threshold is tried on `CHANNELS`, too.
    """
    made = [
        Candidate(name, polarity, refine, block) for (name, block), refine in product(THRESHOLDS.items(), REFINEMENTS)
    ]
    if colour:
        steps = (
            f"{channel},{refine}".removesuffix(",") for channel, refine in product(CHANNELS[polarity], REFINEMENTS)
        )
        made += [Candidate("otsu", polarity, refine, THRESHOLDS["otsu"]) for refine in steps]
    if depth == 8:
        return made
    return [item for item in made if not item.labels.startswith("adaptive") and not {"blur", "vignette"} & _names(item)]


def _names(item: Candidate) -> set[str]:
    return {step.partition(":")[0] for step in item.refine.split(",")}
