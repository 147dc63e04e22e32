"""The cost of each refinement step on top of the threshold: a part of `benchmarks.labels`.

Otsu labels of 224 x 224 RGB images by `Labeler`, bare and with one step: on a GPU the device time of a recorded call, with
the project's kernels and torch's, on a CPU wall time. A step costs its row minus the bare one. Masks of the GPU are compared
with those of the CPU outside of the timed region.
"""

import functools
import sys

import torch

from benchmarks.support import roofline
from benchmarks.support.markdown import Result, measured, table
from medsass.labels import Labeler

STEPS = (
    *("", "darkest", "vignette", "blur:3", "border", "holes", "open:2", "close:2", "min:0.001", "largest"),
    "vignette,blur:3,border,holes",
)
BATCHES = {"cpu": (16,), "cuda": (16, 64, 256, 1024)}
METHOD = "otsu, refined"  # the method of these rows, which keeps them apart from the threshold's own
SHOWN = 32  # images of a batch whose masks are compared


def measure(images: torch.Tensor, content: str) -> list[roofline.Row]:
    """Return a row for each of STEPS on a batch of (N, 224, 224, 3) uint8 images, on their device."""
    return [_row(text, images, content) for text in STEPS]


def _row(text: str, images: torch.Tensor, content: str) -> roofline.Row:
    labeler = Labeler("otsu", "dark", refine=text)
    call = functools.partial(labeler, images)
    if images.is_cuda:
        launches = [call] * roofline.LEAST_LAUNCHES
        timing = roofline.device_time(roofline.captured(launches), len(launches))
    else:
        timing = roofline.host_time(call)
    found, expected = call().mask[:SHOWN].cpu(), labeler(images[:SHOWN].cpu()).mask
    wrong = "" if torch.equal(found, expected) else f"{(found != expected).float().mean():.2%} of the mask"
    batch, height, width, channels = images.shape
    print(f"otsu {text or 'bare'}, batch {batch}: {timing.seconds * 1e6:.1f} us {wrong}", file=sys.stderr)
    return {
        "by": "medsass",
        "device": images.device.type,
        "method": METHOD,
        "refine": text,
        "height": height,
        "width": width,
        "channels": channels,
        "batch": batch,
        "content": content,
        "fused": False,
        "microseconds": timing.seconds * 1e6,
        "least_microseconds": timing.least * 1e6,
        "images_per_second": batch / timing.seconds,
        "wrong": wrong,
    }


def markdown_table(results: dict[str, Result]) -> str:
    """Return a Markdown table of the steps' cost, on each machine's largest batch."""
    rows = []
    for name, content in results.items():
        refined = [row for row in content["rows"] if row["method"] == METHOD]
        largest = max((row["batch"] for row in refined), default=0)
        found = {row["refine"]: row["microseconds"] / largest for row in refined if row["batch"] == largest}
        for text, cost in found.items():
            label = f"Otsu and `{text}`" if text else "Otsu: gray, threshold, mask"
            more = f"{cost - found['']:+,.1f}" if text else ""
            rows.append([label, f"{cost:,.1f}", more, f"{largest}", measured(name, content)])
    return table(["refinement", "µs an image", "more than the threshold", "batch", "measured on"], rows)
