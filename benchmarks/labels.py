"""The labelling kernels against memory bandwidth and against other libraries.

    python -m benchmarks.labels [DATA]

On a GPU: device time of a launch by batch, size, content and method, as a share of a device-to-device copy's bandwidth in
the same run, and images a second beside every installed peer. On a CPU: images a second of `Labeler` and the CPU peers. On
both: the cost of each refinement step (`benchmarks.support.refine`). DATA holds the real images. The outputs of every row are
compared with `medsass.labels.threshold` outside of the timed region. `docs/benchmarks.md` has the design, the prediction
and the log.
"""

import functools
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.support import cells, peers, refine, result, roofline
from benchmarks.support.cases import LARGE, Case, cpu_cases, gpu_cases
from benchmarks.support.cells import Cell, ResultFile
from medsass.labels import Labeler, Normalise, cuda
from medsass.labels import threshold as spec

LABELER = Labeler()  # the defaults are timed: polarity auto, minimum error thresholding, 51 x 51
NORMALISE = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), torch.bfloat16)
SYNTHETIC = ("uniform", "constant", "two-level", "mostly-black")
GLOBS = (
    "isic2017/ISIC-2017_Validation_Data/*.jpg",
    "covid19_radiography/*/*/images/*.png",
    "dsb2018/stage1_train/*/images/*.png",
    "bitdepth_nucseg/images/*.tif",
)
GLOBS_LARGE = ("isic2017_fullsize/ISIC-2017_Validation_Data/*.jpg",)
PER_GLOB = 16
POISON = 0xA5


def synthetic(content: str, shape: tuple[int, int, int], device: str) -> torch.Tensor:
    """Generate (N, H, W) uint8 gray with the histogram that `content` names, the same in every run."""
    generator = torch.Generator(device).manual_seed(1)
    dice = partial(torch.randint, 0, size=shape, dtype=torch.uint8, device=device, generator=generator)
    made: dict[str, Callable[[], torch.Tensor]] = {
        "uniform": lambda: dice(256),
        "constant": lambda: torch.full(shape, 100, dtype=torch.uint8, device=device),
        "two-level": lambda: dice(2) * 150 + 50,
        "mostly-black": lambda: dice(256) * (dice(20) == 0),
    }
    return made[content]()


@functools.cache
def real(data: Path, height: int, width: int) -> NDArray[np.uint8] | None:
    """Return resized real images (M, H, W, 3) RGB, taken from the sources in turn; None if DATA has none."""
    globs = GLOBS if height < 1024 else GLOBS_LARGE
    found = [sorted(data.glob(pattern))[:PER_GLOB] for pattern in globs]
    paths = [source[i] for i in range(PER_GLOB) for source in found if i < len(source)]
    read = [cv2.imread(str(path), cv2.IMREAD_COLOR) for path in paths]
    resized = [cv2.resize(r, (width, height), interpolation=cv2.INTER_AREA)[..., ::-1] for r in read if r is not None]
    return np.stack(resized).astype(np.uint8) if resized else None


def pictures(case: Case, count: int, data: Path, device: str) -> torch.Tensor:
    """Return (count, H, W, 3) RGB or (count, H, W) gray of the case's content. RGB repeats gray, which keeps its histogram."""
    if case.content == "real":
        images = real(data, case.height, case.width)
        assert images is not None, "all_cells lists the content only if there are images"
        kinds = torch.from_numpy(spec.gray(images) if case.channels == 1 else images).to(device)
        return kinds[torch.arange(count, device=device) % len(kinds)]
    gray = synthetic(case.content, (count, case.height, case.width), device)
    return gray if case.channels == 1 else gray.unsqueeze(-1).expand(-1, -1, -1, 3).contiguous()


def outputs(case: Case) -> cuda.Labels:
    """Allocate buffers on the GPU for a launch of the case."""
    n, h, w = case.batch, case.height, case.width
    mask = torch.empty((n, h, w), dtype=torch.uint8, device="cuda")
    threshold, separability = torch.empty(n, device="cuda"), torch.empty(n, device="cuda")
    if not case.fused:
        return cuda.Labels(mask, threshold, separability)
    made = torch.empty((n, 3, h, w), dtype=NORMALISE.dtype, device="cuda", memory_format=torch.channels_last)
    return cuda.Labels(mask, threshold, separability, made)


def poison(out: cuda.Labels) -> None:
    """Overwrite the buffers, so that whatever the next launch does not write is found wrong."""
    out.mask.fill_(POISON)
    for values in (out.threshold, out.separability, out.input):
        if values is not None:
            values.fill_(-1000)


def launch(case: Case, images: torch.Tensor, out: cuda.Labels) -> None:
    """Launch once, as `Labeler` does, into preallocated buffers."""
    if case.method in ("otsu", "ght"):
        parameters = LABELER.ght if case.method == "ght" else None
        cuda.label(images, LABELER.polarity, parameters, NORMALISE if case.fused else None, out)
    else:
        gaussian = case.method == "adaptive-gaussian"
        cuda.adaptive(images, LABELER.polarity, gaussian, LABELER.block_size, LABELER.offset, out)


def wrong(method: str, image: NDArray[np.uint8], label: tuple[Any, float, float], share: float = 0) -> str:
    """Return what differs from the specification in an image's (mask, threshold, separability), "" if nothing does.

    Up to `share` of the pixels may differ. Thresholds of GHT are equal if their scores are, to the last bits of the logarithm.
    """
    gray = image if image.ndim == 2 else spec.gray(image)
    mask, level, found = label
    counts, polarity = spec.histogram(gray), LABELER.polarity
    if gray.min() == gray.max():
        above, polarity, separability = np.zeros(gray.shape, bool), "bright", 0.0
    elif method in ("otsu", "ght"):
        if not _is_threshold(method, counts, level):
            return f"{method} threshold {level}"
        above, separability = gray > level, spec.separability(counts, level)
    else:
        local = spec.adaptive_gaussian if method == "adaptive-gaussian" else spec.adaptive_mean
        above = local(gray, LABELER.block_size, LABELER.offset) > 0
        separability = spec.separability_of(spec.histogram(gray[above]), spec.histogram(gray[~above]))
    differ = float((spec.foreground(above, polarity) != mask).mean())
    if differ > share:
        return f"{differ:.2%} of the {method} mask"
    return "" if abs(found - separability) <= max(1e-6, share) else f"{method} separability {found}"


def _is_threshold(method: str, counts: spec.Histogram, level: float) -> bool:
    if method == "otsu":
        return level == spec.otsu(counts)
    scores = spec.ght_scores(counts, *LABELER.ght)
    best = float(scores.max())
    near = np.flatnonzero(scores >= best - 1e-12 * abs(best))
    return level == spec.ght(counts, *LABELER.ght) or bool(near.min() <= level <= near.max())


def check(case: Case, images: torch.Tensor, out: Any, share: float = 0) -> str:
    """Return what is wrong in the first, a middle and the last image of a labelled batch, "" if nothing is."""
    for i in sorted({0, case.batch // 2, case.batch - 1}):
        image = images[i].cpu().numpy()
        label = out.mask[i].cpu().numpy(), float(out.threshold[i]), float(out.separability[i])
        found = wrong(case.method, image, label, share)
        if not found and case.fused:
            wanted = torch.from_numpy(spec.normalised(image, NORMALISE.mean, NORMALISE.std)).to(NORMALISE.dtype)
            found = "" if torch.equal(out.input[i].permute(1, 2, 0).cpu(), wanted) else "the input"
        if found:
            return f"image {i}: {found}"
    return ""


def row(case: Case, where: str, timing: roofline.Timing, trouble: str, copy: float | None = None) -> roofline.Row:
    """Return a measurement as a row of the result."""
    rate = case.bytes / timing.seconds
    line = f"{case.method} {case.height}x{case.width}x{case.channels} {'fused ' if case.fused else ''}{case.content}"
    speed = f"{timing.seconds * 1e6:.1f} us" + (f", {rate / copy:.3f} of copy" if copy else "")
    print(f"{line}, batch {case.batch}: {speed}{' WRONG: ' + trouble if trouble else ''}", file=sys.stderr)
    return {
        "by": "medsass",
        "device": where,
        **asdict(case),
        "microseconds": timing.seconds * 1e6,
        "least_microseconds": timing.least * 1e6,
        "repeats": timing.repeats,
        "images_per_second": case.batch / timing.seconds,
        "bytes": case.bytes,
        "gigabytes_per_second": rate / 1e9 if where == "cuda" else None,
        "of_copy": rate / copy if copy else None,
        "wrong": trouble,
    }


def on_gpu(case: Case, data: Path, cache: int, copy: float) -> roofline.Row:
    """Time a case on the GPU, by launches that rotate through sets of buffers and are replayed as a graph, and check it."""
    count = roofline.sets(case.bytes, cache)
    images = pictures(case, count * case.batch, data, "cuda")
    images = images.view(count, case.batch, *images.shape[1:])
    outs = [outputs(case) for _ in range(count)]
    calls = [partial(launch, case, images[i], outs[i]) for i in range(count)]
    turns = [calls[i] for i in roofline.rotation(count)]
    replay = roofline.captured(turns)
    timing = roofline.device_time(replay, len(turns))
    for out in outs:
        poison(out)
    replay()
    torch.cuda.synchronize()
    found = check(case, images[0], outs[0]) or check(case, images[-1], outs[-1])
    return row(case, "cuda", timing, found, copy) | {"sets": count, "launches": len(turns)}


def on_cpu(case: Case, data: Path) -> roofline.Row:
    """Time `Labeler` on the CPU and check it. Its Gaussian sums are OpenCV's float32: a pixel in a thousand may differ."""
    images, labeler = pictures(case, case.batch, data, "cpu"), Labeler(case.method)
    timing = roofline.host_time(lambda: labeler(images))
    share = 1e-3 if case.method == "adaptive-gaussian" else 0
    return row(case, "cpu", timing, check(case, images, labeler(images), share))


def targets(rows: list[roofline.Row]) -> list[result.Target]:
    """Return the targets for an H200 with the values that `rows` give, None without such rows, as on a CPU."""
    rgb = roofline.select(rows, method="otsu", height=224, channels=3, fused=False, least_batch=1024)
    fused = roofline.select(rows, method="otsu", height=224, channels=3, fused=True, least_batch=1024)
    gray = roofline.select(rows, method="otsu", height=224, channels=1, least_batch=1024)
    ght = roofline.select(rows, method="ght", height=224, channels=3, batch=1024)
    small = roofline.select(rows, method="otsu", height=224, channels=3, fused=False, batch=16)
    large = roofline.select(rows, method="otsu", height=LARGE[0], channels=3, batch=64)
    own = [r for r in rgb if r["batch"] == 1024]
    longest = max((r["microseconds"] for r in small), default=None)
    copy, ratio, worst = "of copy bandwidth", "ratio", "worst content"
    made = [
        result.Target(f"Otsu, 224² RGB, batch ≥ 1024, {worst}", copy, ">=", 0.85, roofline.worst(rgb)),
        result.Target("the same, time of the worst content over the best", ratio, "<=", 1.15, roofline.spread(rgb)),
        result.Target(f"the same with fused bfloat16 input, {worst}", copy, ">=", 0.85, roofline.worst(fused)),
        result.Target(f"Otsu, 224² gray, batch ≥ 1024, {worst}", copy, ">=", 0.65, roofline.worst(gray)),
        result.Target("GHT over Otsu, time at 224² RGB, batch 1024", ratio, "<=", 1.15, roofline.slower(ght, own)),
        result.Target(f"Otsu, 224² RGB, batch 16, {worst}", "µs", "<=", 12, longest),
        result.Target(f"Otsu, 1408×1876 RGB, batch 64, {worst}", copy, ">=", 0.70, roofline.worst(large)),
    ]
    for peer, name, factor in (
        ("CV-CUDA", "CV-CUDA gray + Otsu, batch 1024", 3),
        ("kornia", "kornia Otsu on gray, batched", 15),
        ("cuCIM", "cuCIM Otsu on gray, per image", 1000),
        ("OpenCV, all cores", "OpenCV gray + Otsu on all cores", 30),
    ):
        made.append(result.Target(f"images/s over {name}", ratio, ">=", factor, roofline.faster(rows, own, peer)))
    return made


def all_cells(options: cells.Options, copy: float) -> list[Cell]:
    """Return all cells: the grid of cases, then refinements, then peers."""
    where, data = options.where, options.data
    contents = SYNTHETIC if real(data, 224, 224) is None else (*SYNTHETIC, "real")
    if contents == SYNTHETIC:
        print(f"real images: skipped, none in {data}; give their folder as DATA", file=sys.stderr)
    if where == "cuda":
        cases, l2 = gpu_cases(contents), torch.cuda.get_device_properties(0).L2_cache_size
        measure: Callable[[Case], roofline.Row] = partial(on_gpu, data=data, cache=l2, copy=copy)
    else:
        cases, measure = cpu_cases(contents), partial(on_cpu, data=data)

    def measure_case(case: Case) -> list[roofline.Row]:
        try:
            return [measure(case)]
        finally:
            if where == "cuda":
                torch.cuda.empty_cache()

    def measure_refinements(batch: int) -> list[roofline.Row]:
        case = Case("otsu", 224, 224, 3, batch, contents[-1])
        return refine.measure(pictures(case, batch, data, where), case.content)

    def measure_peer(peer: peers.Peer) -> list[roofline.Row]:
        case = Case("otsu", 224, 224, 3, 1024 if where == "cuda" else 64, contents[-1])
        return peers.measure(peer, pictures(case, case.batch, data, "cpu").numpy(), case.content, where)

    there = [case for case in cases if case.content != "real" or real(data, case.height, case.width) is not None]
    return [
        *(Cell(case.key, partial(measure_case, case)) for case in there),
        *(Cell(f"refinements, batch {batch}", partial(measure_refinements, batch)) for batch in refine.BATCHES[where]),
        *(Cell(f"peer {peer.name}", partial(measure_peer, peer)) for peer in (*peers.ELSEWHERE[where], *peers.ON_CPU)),
    ]


def main() -> None:
    """Measure the missing cells and draw the chart. Exit with 1 if an output was wrong, with 3 if some cells are left."""
    options = cells.options("labels")
    results = ResultFile("labels", options)
    if options.where == "cuda":
        l2 = float(torch.cuda.get_device_properties(0).L2_cache_size)
        results.limits = {"copy_bytes_per_second": roofline.copy_bandwidth(), "l2_bytes": l2}
    done = results.fill(all_cells(options, results.limits.get("copy_bytes_per_second", 0.0)), targets)
    roofline.chart(results.rows, results.limits, results.path.with_suffix(".png"))
    result.show(results.path)
    if not done:
        sys.exit(cells.UNFINISHED)
    bad = [r for r in results.rows if r.get("wrong")]
    if bad:
        sys.exit(f"benchmarks.labels: {len(bad)} rows differ from medsass.labels.threshold, first: {bad[0]}")


if __name__ == "__main__":
    main()
