"""The ways to label that `tune` chooses among: threshold, polarity and refinement."""

from dataclasses import dataclass
from itertools import product

from medsass.labels import Labeler

# Block sizes for 224-pixel images. Half the side shows objects on a ground whose level drifts.
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
# Pigments absorb different colours, and the darkest channel shows most of them; haematoxylin and Giemsa's azure are dark in
# red light, eosin is not (absorption as in Ruifrok and Johnston 2001, table 1).
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
        """A short name of all fields."""
        return f"{self.labels} {self.polarity} {self.refine or 'none'}"

    def labeler(self, size: int) -> Labeler:
        """Return the labeler for images of that size."""
        block = max(3, round(self.block_size * size / 224) // 2 * 2 + 1)
        return Labeler(self.labels, self.polarity, block_size=block, refine=self.refine)


def candidates(polarity: str, depth: int, colour: bool = False) -> list[Candidate]:
    """Return all candidates of a polarity, "bright" or "dark". 16-bit images are neither blurred nor thresholded by
    neighbourhoods; on images in colour Otsu's threshold is also tried on `CHANNELS`.
    """
    ways = [(name, block, refine) for (name, block), refine in product(THRESHOLDS.items(), REFINEMENTS)]
    if colour:
        steps = [",".join(filter(None, pair)) for pair in product(CHANNELS[polarity], REFINEMENTS)]
        ways += [("otsu", THRESHOLDS["otsu"], refine) for refine in steps]
    made = [Candidate(name, polarity, refine, block) for name, block, refine in ways]
    eight_bit = ("blur", "vignette")
    if depth == 16:
        made = [item for item in made if not item.labels.startswith("adaptive")]
        made = [item for item in made if not any(name in item.refine for name in eight_bit)]
    return made
