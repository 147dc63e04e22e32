"""The model card: every field against the run it was made of, read as Hugging Face reads it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from medsass import __version__
from medsass.config import ExportConfig
from medsass.data.shards.manifest import load
from medsass.runs.export.export import _old, export
from tests.runs.export.test_export import RECIPE, make_run, shard_folder

SCORES = {"iou": 0.61, "iou_dataset": 0.62, "dice": 0.63, "precision": 0.64, "recall": 0.65, "accuracy": 0.66}
EVALUATED = {
    **SCORES, "images": 6, "split": "test", "protocol": "network",
    "labels": {**{name: value / 2 for name, value in SCORES.items()}, "images": 6},
    "everything": {**{name: value / 4 for name, value in SCORES.items()}, "images": 6},
}  # fmt: skip


def card_of(run: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """card.json, the README's YAML header and its text."""
    _, card, readme = export(ExportConfig(run))
    _, header, text = readme.read_text("utf-8").split("---\n", 2)
    return json.loads(card.read_text("utf-8")), yaml.safe_load(header), text


def row(text: str, name: str) -> str:
    """The value of a row of a Markdown table."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} | "))
    return line.removeprefix(f"| {name} | ").removesuffix(" |")


def test_the_card_describes_the_training_and_the_input(tmp_path: Path) -> None:
    card, _, text = card_of(make_run(tmp_path, labels="ght", loss="tversky", batch_size=4))
    training = card["training"]
    expected = {"method": "medsass", "labels": "ght pseudo-labels", "loss": "tversky", "seed": 11, "epochs": 5,
                "epochs done": 3, "best epoch": 2, "batch size": 4, "started from": "random weights"}  # fmt: skip
    assert {name: training[name] for name in expected} == expected
    assert {name: row(text, name) for name in expected} == {name: str(value) for name, value in expected.items()}
    assert training["regime"]["optimizer"] == "adamw"
    assert card["model"] == {"name": "unet-resnet18", "keeps": "network", "parameters": card["model"]["parameters"]}
    assert 1.0e6 < card["model"]["parameters"] < 1.3e6
    assert card["versions"]["exported with"]["medsass"] == __version__
    assert {"torch", "timm", "segmentation-models-pytorch"} <= card["versions"]["exported with"].keys()
    given = card["input"]
    assert (given["size"], given["channels"], given["depth"], given["polarity"]) == (64, 3, 8, "bright")
    assert given["mean"] == pytest.approx([0.485, 0.456, 0.406], abs=1e-6)
    assert given["std"] == pytest.approx([0.229, 0.224, 0.225], abs=1e-6)
    assert row(text, "mean") == "[0.485, 0.456, 0.406]"


def test_the_card_names_the_refinement_of_the_labels(tmp_path: Path) -> None:
    card, _, text = card_of(make_run(tmp_path, refine="blur:3,border"))
    assert card["training"]["labels"] == row(text, "labels") == "otsu pseudo-labels refined by blur:3,border"


def test_the_card_describes_the_data_as_its_recipe_does_and_without_scores_says_so(tmp_path: Path) -> None:
    card, header, text = card_of(make_run(tmp_path))
    data = card["data"]
    assert [data[name] for name in ("recipe", "title", "homepage", "licence", "citation")] == [
        RECIPE[name] for name in ("name", "title", "homepage", "licence", "citation")
    ]
    assert data["images"] == {"train": 12, "val": 4}
    assert row(text, "title") == "Discs \\| generated"
    assert header["datasets"] == ["discs"]
    assert header["license"] == "other"
    assert header["license_name"] == "training-data-cc-by-4.0"
    assert header["license_link"] == RECIPE["homepage"]
    assert str(tmp_path) not in text + json.dumps(card)
    assert card["scores"] is None
    assert "metrics" not in header
    assert "Not measured" in text


def test_scores_stand_beside_the_trivial_answers_and_hugging_face_reads_the_header(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run / "scores.json").write_text(json.dumps(EVALUATED))
    card, header, text = card_of(run)
    assert header["library_name"] == "segmentation-models-pytorch"
    assert header["tags"] == ["medsass", "unet-resnet18", "self-supervised", "medical-imaging"]
    assert header["pipeline_tag"] == "image-segmentation"
    assert header["metrics"] == list(SCORES)
    assert card["scores"] == EVALUATED
    assert "| | network | bare labels | foreground everywhere |" in text
    assert row(text, "dice") == "0.6300 | 0.3150 | 0.1575"
    assert "Measured only on 6 images of the split 'test', by the protocol 'network'." in text


def test_scores_of_something_else_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run / "scores.json").write_text('{"iou": 0.5}')
    with pytest.raises(ValueError, match=r"scores.json holds no scores of medsass evaluate .*--json .*, or remove it"):
        export(ExportConfig(run))
    assert not (run / "export").exists()


@pytest.mark.parametrize("change", ["gone", "other"])
def test_shards_that_are_gone_or_others_now_are_not_described(tmp_path: Path, change: str) -> None:
    run, shards = make_run(tmp_path), tmp_path / "shards-of-discs"
    if change == "gone":
        (shards / "manifest.json").unlink()
    else:
        shard_folder(shards, title="Squares")
    card, header, text = card_of(run)
    states = {"gone": "not reachable when exported", "other": "the shards there now are not those of the training"}
    state = states[change]
    assert card["data"]["state"] == state
    assert row(text, "state") == state
    assert "homepage" not in card["data"]
    assert header["license"] == "unknown"
    assert header["datasets"] == ["shards-of-discs"]
    assert "licence is unknown" in text


def test_words_of_a_recipe_are_text_in_the_card_and_its_header(tmp_path: Path) -> None:
    run, evil = make_run(tmp_path), "x\n---\nlicense: mit\n# <script>a</script> [go](https://x) `b` \x1b[2J"
    shard_folder(tmp_path / "shards-of-discs", title=evil, licence=evil, citation=evil, homepage=evil, name=evil)
    config = json.loads((run / "config.json").read_text())
    config["shards_sha256"] = load(tmp_path / "shards-of-discs").sha256
    (run / "config.json").write_text(json.dumps(config))
    _, header, text = card_of(run)
    assert header["license"] == "other"
    assert header["datasets"] == [evil]
    assert [line for line in text.splitlines() if line.startswith(("---", "license:", "# "))] == text.splitlines()[1:2]
    assert text.count(r"\<script>a\</script> [go\](https://x) \`b\`") == text.count("script>a") == 7
    assert "\x1b" not in (run / "export" / "README.md").read_text()


@pytest.mark.parametrize("place", ["sftp://attacker.example/x", "http://127.0.0.1:9/x", "s3://bucket/x"])
def test_an_address_in_the_files_of_a_run_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    run = make_run(tmp_path)
    config = json.loads((run / "config.json").read_text())
    config["train"]["shards"] = place
    (run / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("opened"))
    monkeypatch.setattr("medsass.files.location", lambda _: pytest.fail("opened"))
    assert card_of(run)[0]["data"]["state"] == "not reachable when exported"


@pytest.mark.parametrize("change", [{"lines": ["```"]}, {"file": "../../x"}, {"file": 7}, {"more": 1}, {"lines": "x"}])
def test_an_older_card_is_taken_only_as_export_writes_it(tmp_path: Path, change: dict[str, Any]) -> None:
    run = make_run(tmp_path)
    (tmp_path / "x").touch()
    card_of(run)
    path = run / "export" / "card.json"
    card = json.loads(path.read_text())
    card["files"]["safetensors"] |= change
    path.write_text(json.dumps(card))
    assert _old(run / "export").get("files", {}) == {}


def test_a_recipe_without_a_licence_leaves_it_unknown(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    facts = json.loads((run / "config.json").read_text())
    shards = shard_folder(tmp_path / "shards-of-discs", licence="")
    (run / "config.json").write_text(json.dumps({**facts, "shards_sha256": load(shards).sha256}))
    card, header, text = card_of(run)
    assert card["data"]["licence"] == "unknown"
    assert header["license"] == "unknown"
    assert "The training data's licence is unknown." in text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "Trained without labels: its targets were otsu pseudo-labels of the images themselves."),
        ({"method": "supervised"}, "Trained on masks that people or other programs drew"),
        ({"method": "byol", "keeps": "encoder"}, "An encoder, trained without labels; by itself it segments nothing."),
    ],
)
def test_the_limits_fit_the_method(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    card, header, text = card_of(make_run(tmp_path, **options))
    assert any(item.startswith(sentence) for item in card["limits"])
    assert sentence in text
    assert "Not a medical device" in text
    assert ("self-supervised" in header["tags"]) == (options.get("method") != "supervised")
    assert ("pipeline_tag" in header) == ("keeps" not in options)


def test_a_run_that_started_from_supervised_weights_is_not_called_free_of_labels(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    content = json.loads((run / "config.json").read_text())
    content |= {"init": {"method": "supervised", "takes": "network", "labels_read": True}, "labels_read": True}
    (run / "config.json").write_text(json.dumps(content))
    card, _, text = card_of(run)
    assert card["limits"][0].startswith("Trained from weights in which labels had a part: its targets were otsu")
    assert "without labels" not in text
    assert card["training"]["started from"] == "the network of a run of supervised"


def test_a_run_whose_best_checkpoint_was_removed_is_exported_all_the_same(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run / "best.pt").unlink()
    (run / "metrics.jsonl").unlink()
    card, _, _ = card_of(run)
    assert (card["training"]["best epoch"], card["training"]["epochs done"]) == ("unknown", "unknown")
