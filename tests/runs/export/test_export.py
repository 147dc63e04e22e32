"""`medsass export`: the lines of its card, run one by one, give the output of the run."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from medsass import files
from medsass.config import ExportConfig, TrainConfig, plain
from medsass.data.shards.manifest import Manifest, Split, load
from medsass.data.shards.tar import Shard
from medsass.methods.method import Regime
from medsass.models import checkpoint, encoder, network, parity
from medsass.runs import run_directory
from medsass.runs.export.export import export
from tests.conftest import facts

RECIPE = {
    "name": "discs", "title": "Discs | generated", "homepage": "https://example.org/discs", "licence": "CC BY 4.0",
    "citation": "Somebody 2020", "polarity": "bright",
}  # fmt: skip


def shard_folder(folder: Path, **changes: Any) -> Path:
    """A manifest beside empty tar files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train", "val"):
        (folder / f"{name}-000000.tar").touch()
        (folder / f"{name}-000000.idx").touch()
    counts = {"train": 12, "val": 4}
    splits = {name: Split([Shard(f"{name}-000000.tar", count, 0, "")], count) for name, count in counts.items()}
    Manifest({**RECIPE, **changes}, splits).save(folder)
    return folder


def make_run(
    folder: Path, model: str = "unet-resnet18", keeps: str = "network", depth: int = 8, **options: Any
) -> Path:
    """A run directory as after three epochs of which the second was the best, its weights random."""
    shards = folder / "shards-of-discs"
    shard_folder(shards)
    config = TrainConfig(shards, folder / "run", **{"model": model, "size": 64, "epochs": 5, "seed": 11, **options})
    segments, regime = config.method in ("medsass", "supervised"), plain(Regime().of(config))
    found = facts(shards_sha256=load(shards).sha256, keeps=keeps, depth=depth, regime=regime, segments=segments)
    run_directory.create(config, found)
    torch.manual_seed(5)
    state = network.build(model).state_dict()
    state = {name: value for name, value in state.items() if keeps == "network" or name.startswith("encoder.")}
    files.write(config.run / run_directory.WEIGHTS, checkpoint.to_bytes(state))
    checkpoint.save(config.run / run_directory.BEST, {"model": {}, "epoch": 2})
    run_directory.write_metrics(config.run, [{"epoch": epoch, "val_loss": abs(epoch - 2)} for epoch in (1, 2, 3)])
    return config.run


def blocks(text: str) -> list[str]:
    """The Python that a card holds."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def follow(folder: Path, monkeypatch: pytest.MonkeyPatch, image: Image.Image) -> dict[str, Any]:
    """The names that the card's first two blocks make of `image`, run in its folder."""
    monkeypatch.chdir(folder)
    image.save(folder / "image.png")
    made: dict[str, Any] = {}
    for block in blocks((folder / "README.md").read_text("utf-8"))[:2]:
        exec(block, made)
    return made


@pytest.mark.parametrize(
    ("form", "model", "keeps"),
    [
        ("safetensors", "unet-resnet18", "network"),
        ("safetensors", "unet-resnet50", "network"),
        ("safetensors", "unet-vit-tiny", "network"),
        ("safetensors", "unet-resnet18", "encoder"),
        ("safetensors", "unet-vit-tiny", "encoder"),
        ("timm", "unet-resnet18", "encoder"),
        ("timm", "unet-resnet50", "network"),
        ("timm", "unet-vit-tiny", "network"),
        ("onnx", "unet-resnet18", "network"),
        ("onnx", "unet-vit-tiny", "encoder"),
    ],
)
def test_the_cards_own_lines_load_the_file_and_answer_as_the_run(
    model: str, keeps: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, model, keeps)
    export(ExportConfig(run, form))
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    made = follow(run / "export", monkeypatch, Image.fromarray(pixels))
    given = network.normalise(torch.from_numpy(pixels)[None])
    torch.testing.assert_close(made["images"], given, rtol=0, atol=2e-6)
    whole = keeps == "network" and form != "timm"
    with torch.no_grad():
        if whole:
            ours = checkpoint.load_model(run / "model.safetensors", model)(made["images"])
        else:
            ours = encoder.feature_map(checkpoint.load_encoder(run / "model.safetensors", model), made["images"])
    theirs = torch.as_tensor(made["logits" if whole else "features"])
    if form == "onnx":
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4 * float(ours.abs().max()))
    else:
        assert torch.equal(theirs, ours)


def test_the_cards_lines_normalise_16_bit_images_as_the_run_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, depth=16)
    export(ExportConfig(run))
    pixels = np.random.default_rng(0).integers(900, 7000, (64, 64), np.uint16)
    made = follow(run / "export", monkeypatch, Image.fromarray(pixels))
    torch.testing.assert_close(made["images"], network.normalise(torch.from_numpy(pixels)[None]), rtol=0, atol=2e-6)


def test_three_forms_of_the_same_weights_share_a_folder_and_a_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = make_run(tmp_path), tmp_path / "elsewhere" / "out"
    written = [export(ExportConfig(run, form, out)) for form in ("safetensors", "timm", "onnx")]
    names = ["network.safetensors", "timm.safetensors", "network.onnx"]
    assert written == [[out / name, out / "card.json", out / "README.md"] for name in names]
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "card.json", "README.md"])
    card = json.loads((out / "card.json").read_text())
    assert {form: item["file"] for form, item in card["files"].items()} == dict(
        zip(("safetensors", "timm", "onnx"), names, strict=True)
    )
    assert all(item["bytes"] == (out / item["file"]).stat().st_size for item in card["files"].values())
    assert card["weights_sha256"] == hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
    assert len(blocks((out / "README.md").read_text())) == 4
    printed = capsys.readouterr().out
    for item in card["files"].values():
        assert f"{out / item['file']}: " in printed
        checked = f"{item['difference']:.2g} from the run's own answer, whose values reach {item['scale']:.2g}"
        assert f"at most {checked}" in printed


def test_what_is_there_stays_unless_overwrite_is_given(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    file = export(ExportConfig(run))[0]
    (run / "export" / "notes.txt").write_text("mine")
    file.write_bytes(b"other")
    with pytest.raises(FileExistsError, match=r"network.safetensors exists; .*--out.*--overwrite"):
        export(ExportConfig(run))
    assert file.read_bytes() == b"other"
    export(ExportConfig(run, overwrite=True))
    assert "encoder.conv1.weight" in load_file(file)
    assert (run / "export" / "notes.txt").read_text() == "mine"
    out = tmp_path / "out"  # with a README of somebody else
    out.mkdir()
    (out / "README.md").write_text("mine")
    with pytest.raises(FileExistsError, match=r"README.md exists; "):
        export(ExportConfig(run, out=out))
    assert [path.name for path in out.iterdir()] == ["README.md"]
    assert (out / "README.md").read_text() == "mine"


def test_a_card_of_other_weights_is_replaced_only_when_asked_and_names_no_file_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path)
    export(ExportConfig(run, "timm"))
    state = load_file(run / "model.safetensors")
    save_file({name: value * 1.01 if value.is_floating_point() else value for name, value in state.items()}, run / "model.safetensors")  # fmt: skip
    with pytest.raises(FileExistsError, match=r"card.json exists; "):
        export(ExportConfig(run))
    export(ExportConfig(run, overwrite=True))
    assert json.loads((run / "export" / "card.json").read_text())["files"].keys() == {"safetensors"}
    assert (run / "export" / "timm.safetensors").exists()
    assert "may still hold timm.safetensors of other weights" in capsys.readouterr().err


def test_an_export_that_answers_otherwise_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)
    monkeypatch.setattr(parity, "TOLERANCE", -1.0)
    for form in ("safetensors", "timm", "onnx"):
        with pytest.raises(ValueError, match="answers differently"):
            export(ExportConfig(run, form))
    assert not (run / "export").exists()


def test_what_cannot_be_exported_or_written_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(ValueError, match=r"--out .* is the run directory; omit --out for"):
        export(ExportConfig(run, out=run))
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="is a file; --out must be a folder"):
        export(ExportConfig(run, out=tmp_path / "file"))
    (run / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model.safetensors is missing: no epoch of this run was finished"):
        export(ExportConfig(run))
    with pytest.raises(FileNotFoundError, match="is not a run directory"):
        export(ExportConfig(tmp_path))
