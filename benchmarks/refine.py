"""What each step of a refinement costs, beside the threshold that it follows.

    python -m benchmarks.refine [DATA]

Otsu's labels of 224 x 224 RGB images by `Labeler`, bare and with one step more: on a GPU device time of a recorded call, with
the project's kernels and torch's, on a CPU wall time. A step's cost is its row less the bare one. Masks of the GPU are
compared with those of the CPU outside of the timed region. DATA holds the real images; without them they are noise.
"""

import functools
import sys

import torch

from benchmarks import labels, result, roofline
from benchmarks.markdown import Result, measured, table
from medsass.labels import Labeler

STEPS = ("", "darkest", "vignette", "blur:3", "border", "holes", "open:2", "close:2", "min:0.001", "largest", "vignette,blur:3,border,holes")  # fmt: skip
BATCHES = {"cpu": (16,), "cuda": (16, 64, 256, 1024)}
SHOWN = 32  # images of a batch whose masks are compared


def run(text: str, batch: int, images: torch.Tensor) -> roofline.Row:
    """One row: Otsu with the steps of `text` on (batch, 224, 224, 3) images, where they are."""
    labeler = Labeler("otsu", "dark", refine=text)
    call = functools.partial(labeler, images)
    if images.is_cuda:
        launches = [call] * roofline.LEAST_LAUNCHES
        timing = roofline.device_time(roofline.captured(launches), len(launches))
    else:
        timing = roofline.host_time(call)
    found, expected = call().mask[:SHOWN].cpu(), labeler(images[:SHOWN].cpu()).mask
    wrong = "" if torch.equal(found, expected) else f"{(found != expected).float().mean():.2%} of the mask"
    print(f"otsu {text or 'bare'}, batch {batch}: {timing.seconds * 1e6:.1f} us {wrong}", file=sys.stderr)
    return {
        "by": "medsass",
        "device": images.device.type,
        "method": "otsu",
        "refine": text,
        "batch": batch,
        "microseconds": timing.seconds * 1e6,
        "least_microseconds": timing.least * 1e6,
        "microseconds_per_image": timing.seconds * 1e6 / batch,
        "wrong": wrong,
    }


def readme_table(results: dict[str, Result]) -> str:
    """What a step of a refinement costs, beside the threshold that it follows: of each machine's largest batch."""
    rows = []
    for name, content in results.items():
        largest = max(row["batch"] for row in content["rows"])
        found = {row["refine"]: row["microseconds_per_image"] for row in content["rows"] if row["batch"] == largest}
        for text, cost in found.items():
            label = f"Otsu and `{text}`" if text else "Otsu: gray, threshold, mask"
            rows.append(
                [
                    label,
                    f"{cost:,.1f}",
                    f"{cost - found['']:+,.1f}" if text else "",
                    f"{largest}",
                    measured(name, content),
                ]
            )
    return table(["refinement", "µs an image", "more than the threshold", "batch", "measured on"], rows)


def main() -> None:
    """Run all steps and batches, save the result; exit 1 where a mask was wrong."""
    data = result.data("refine")
    where = "cuda" if torch.cuda.is_available() else "cpu"
    content = "uniform" if labels.real(data, 224, 224) is None else "real"
    rows = []
    for batch in BATCHES[where]:
        images = labels.pictures(labels.Case("otsu", 224, 224, 3, batch, content), batch, data, where)
        rows += [run(text, batch, images) | {"content": content} for text in STEPS]
    result.save("refine", where, rows, [], {})
    bad = [row for row in rows if row["wrong"]]
    if bad:
        sys.exit(f"benchmarks.refine: {len(bad)} rows differ between GPU and CPU, first: {bad[0]}")


if __name__ == "__main__":
    main()
