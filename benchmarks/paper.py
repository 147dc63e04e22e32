"""The paper's tables and figures with our numbers beside its own, by `medsass experiment` on real images.

    python -m benchmarks.paper [DATA [OUT]]

DATA holds the datasets in their owners' layouts; missing ones are left out and named. On a GPU the grid is `paper.toml`, the
whole paper; on a CPU it is `paper-small.toml`, small networks on small images for few epochs. OUT (default `medsass-paper`)
keeps every run: the same command goes on where it was stopped. The result holds a row a cell; all tables, in one Markdown
file, and the figures are saved beside it.
"""

import sys
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks.support import result
from medsass import files
from medsass.config import ExperimentConfig
from medsass.runs.experiment import tables
from medsass.runs.experiment.experiment import CellsError, experiment

HERE = Path(__file__).parent
# From the paper's table 3. Ours is of the validation split, because the masks of the test split are not public.
AIM = ("ISIC 2017, ResNet-50, MedSASS (E+D), 50 epochs, mean IoU", 0.4847)


def grid_of(device: str) -> Path:
    """Return the grid that a machine of that name runs: the small one on a CPU."""
    return HERE / ("paper-small.toml" if device.startswith("cpu-") else "paper.toml")


def reached(rows: list[dict[str, Any]]) -> float | None:
    """Return our mean over seeds for the figure that `AIM` names, None if it was not run."""
    wanted: dict[str, Any] = {"dataset": "isic2017", "model": "unet-resnet50", "method": "medsass", "labels": "otsu"}
    wanted |= {"epochs": 50, "loss": "focal-tversky", "batch_size": 16}
    found = [row for row in rows if wanted.items() <= row.items() and "network" in row["protocols"]]
    return mean(row["protocols"]["network"]["iou"] for row in found) if found else None


def publish(out: Path, name: str) -> None:
    """Copy the tables and figures of `out` to the results, under the machine's name."""
    text = (out / tables.ALL).read_text("utf-8")
    for picture in sorted((out / "figures").glob("figure-*.png")):
        copy = f"{name}-paper-{picture.name}"
        files.write(result.RESULTS / copy, picture.read_bytes())
        text = text.replace(f"figures/{picture.name}", copy)
    files.write(result.RESULTS / f"{name}-paper.md", text)


def main() -> None:
    """Run the unfinished cells of the machine's grid, and save the finished ones even if others failed."""
    data = result.data("paper")
    out = Path(sys.argv[2] if len(sys.argv) > 2 else "medsass-paper")
    where = "cuda" if torch.cuda.is_available() else "cpu"
    name, failed = result.device(where), ""
    try:
        rows = experiment(ExperimentConfig(grid_of(name), out, data, jobs=0 if where == "cuda" else 2))["scores"]
    except CellsError as error:
        rows, failed = error.scores, str(error)
    publish(out, name)
    result.save("paper", where, rows, [result.Target(AIM[0], "IoU", ">=", AIM[1], reached(rows))], {})
    if failed:
        sys.exit(f"benchmarks.paper: {failed}")


if __name__ == "__main__":
    main()
