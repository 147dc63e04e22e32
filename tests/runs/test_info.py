"""What `info` prints and draws of a shard folder."""

import json
from pathlib import Path

import pytest
from PIL import Image

from medsass.config import InfoConfig
from medsass.data.shards import manifest
from medsass.runs import info


def test_each_split_is_printed_with_its_counts(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info.info(InfoConfig(shards))
    lines = capsys.readouterr().out.splitlines()
    splits = json.loads((shards / "manifest.json").read_text())["splits"]
    for name, split in splits.items():
        row = next(line.split() for line in lines if line.split()[:1] == [name])
        assert row[1:5] == [
            str(split["samples"]), str(split["masks"]), f"{split['mask_coverage']:.1%}", str(len(split["shards"]))
        ]  # fmt: skip
    assert any("64x64 (60)" in line for line in lines)


def test_no_picture_is_drawn_unasked(shards: Path) -> None:
    before = sorted(path.name for path in shards.iterdir())
    info.info(InfoConfig(shards))
    assert sorted(path.name for path in shards.iterdir()) == before


def test_the_contact_sheet_can_be_opened(shards: Path, tmp_path: Path) -> None:
    info.info(InfoConfig(shards, tmp_path / "preview.png"))
    with Image.open(tmp_path / "preview.png") as image:
        image.load()
        assert image.format == "PNG"
        assert image.width == 6 + 8 * 166
        assert image.convert("L").getextrema()[0] < 50


def test_rejected_files_are_listed_up_to_five(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = manifest.load(shards)
    dataset.rejected = 8
    lines = (json.dumps({"file": f"f{i}.png", "split": "train", "reason": "[bad]"}) + "\n" for i in range(8))
    (tmp_path / "rejected.jsonl").write_text("".join(lines))
    info.show_rejected(tmp_path, dataset)
    printed = capsys.readouterr().out.splitlines()
    assert printed[:5] == [f"left out: f{i}.png: [bad]" for i in range(5)]
    assert printed[5:] == [f"and 3 more, listed in {tmp_path / 'rejected.jsonl'}"]


def test_a_title_in_brackets_is_printed_as_it_is(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = manifest.load(shards)
    dataset.recipe["citation"] = "Otsu [1979] and others [/bold]"
    info.show(dataset)
    assert "Otsu [1979] and others [/bold]" in capsys.readouterr().out


def test_a_folder_without_shards_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"manifest\.json is missing"):
        info.info(InfoConfig(tmp_path))


def test_a_recipe_of_few_words_is_enough(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = manifest.load(shards)
    dataset.recipe = {"name": "mine", "polarity": "dark"}
    info.show(dataset)
    assert "mine  (recipe mine, foreground dark)" in capsys.readouterr().out
