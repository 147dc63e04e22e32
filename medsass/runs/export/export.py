"""`medsass export`: a run's weights for other libraries, compared with the run's own answer, with a model card."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from medsass import files
from medsass.config import ExportConfig, schema
from medsass.models import checkpoint
from medsass.models.export import FORMS, file_name
from medsass.models.parity import BATCHES, RunModel
from medsass.runs import console, device, preflight, run_directory
from medsass.runs.export import model_card
from medsass.runs.preflight import Trained


@with_config(ConfigDict(strict=True, extra="forbid"))
class _File(TypedDict):
    file: str
    bytes: int
    library: str
    lines: list[str]
    note: str
    difference: float
    scale: float


@with_config(ConfigDict(strict=True, extra="ignore"))
class _Card(TypedDict):
    """What is read of an older card."""

    weights_sha256: str
    files: dict[str, _File]


def export(config: ExportConfig, found: Trained | None = None) -> list[Path]:
    """Write the weights in the form that `config` names, card.json and README.md; return the three paths.

    Forms of the same weights share a folder and its card, which is then extended and needs no --overwrite. Each is
    compared with the run's own output by `models.parity.compare`.
    Raises `ValueError` or `OSError`, before anything is written, where RUN has no finished epoch, a file is there already,
    or the exported weights give another output; `ImportError` where a package is missing. `found` is what `preflight.export`
    returned, if the caller has called it.
    """
    found = found or preflight.export(config)
    trained, facts, folder = found.config, found.facts, config.out or config.run / run_directory.EXPORT
    path = config.run / run_directory.WEIGHTS
    load = checkpoint.load_model if facts.keeps == "network" else checkpoint.load_encoder
    device.check_memory(trained.size, max(BATCHES), device.ENCODER, "cpu")
    kept = RunModel(trained.model, trained.size, load(path, trained.model), facts.keeps == "encoder")
    with path.open("rb") as held:
        weights = hashlib.file_digest(held, "sha256").hexdigest()
    file = folder / file_name(config.format, kept.kind)
    old = _old(folder)
    same = old.get("weights_sha256") == weights
    for name in (file.name, *(() if same else (model_card.JSON, model_card.MARKDOWN))):
        files.check_new(folder / name, "--out", config.overwrite)
    others = {form: item for form, item in old.get("files", {}).items() if item["file"] != file.name}
    content = {**model_card.collect(config.run, trained, facts, kept), "weights_sha256": weights}
    made = FORMS[config.format](kept)
    described = {"file": file.name, "bytes": len(made.data), **asdict(made), "lines": list(made.lines)}
    del described["data"]
    content["files"] = {config.format: described, **(others if same else {})}
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[Path, bytes | str] = {
        file: made.data,
        folder / model_card.JSON: json.dumps(content, indent=1, ensure_ascii=False) + "\n",
        folder / model_card.MARKDOWN: model_card.markdown(content),
    }
    for target, data in written.items():
        files.write(target, data)
    console.out.print(f"{file}: {len(made.data) / 1e6:.1f} MB for {made.library}")
    console.out.print(
        f"checked: at most {made.difference:.2g} from the run's own answer, whose values reach {made.scale:.2g} "
        f"(batches of {' and '.join(map(str, BATCHES))})"
    )
    console.out.print(f"model card: {folder / model_card.MARKDOWN}")
    if others and not same:
        names = ", ".join(str(item["file"]) for item in others.values())
        console.err.print(f"{folder} may still hold {names} of other weights, which its card no longer names")
    return list(written)


def _old(folder: Path) -> dict[str, Any]:
    """The folder's card, without files that are gone; empty where there is none that this module wrote."""
    try:
        old = schema.check_json(_Card, files.read(folder / model_card.JSON))
    except (OSError, ValueError):
        return {}
    names = {form: {file_name(form, kind) for kind in ("network", "encoder")} for form in FORMS}
    there = {
        form: item
        for form, item in old["files"].items()
        if item["file"] in names.get(form, ())
        and (folder / item["file"]).is_file()
        and "`" not in "".join(item["lines"])
    }
    return {**old, "files": there}
