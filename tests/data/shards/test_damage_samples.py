"""Samples whose files are whole but do not belong together."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medsass.data.shards.verify import verify
from tests.support.damaged import build


def without(extension: str) -> Callable[[str, dict[str, bytes]], dict[str, bytes]]:
    def change(key: str, content: dict[str, bytes]) -> dict[str, bytes]:
        return {name: data for name, data in content.items() if key != "val_0001" or name != extension}

    return change


def with_json(**changes: object) -> Callable[[str, dict[str, bytes]], dict[str, bytes]]:
    def change(key: str, content: dict[str, bytes]) -> dict[str, bytes]:
        meta = {**json.loads(content["json"]), **changes}
        return {**content, "json": json.dumps(meta).encode()} if key == "val_0001" else content

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (without("png"), "sample val_0001 has no image"),
        (without("json"), "sample val_0001 has no .json"),
        (without("mask.png"), "sample val_0001 and its .json disagree on whether it has a mask"),
        (lambda key, content: {**content, "txt": b""} if key == "val_0001" else content, "val_0001.txt is not a file"),
        (lambda key, content: {**content, "jp2": b""} if key == "val_0001" else content, "val_0001 has 2 images"),
        (lambda key, content: {**content, "json": b"{"} if key == "val_0001" else content, "val_0001.json is not what"),
        (lambda key, content: {**content, "json": b"3"} if key == "val_0001" else content, "val_0001.json is not what"),
        (with_json(key="val_0002"), "val_0001.json is of another sample, 'val_0002'"),
        (with_json(width="wide"), "val_0001.json is not what medsass writes"),
    ],
)
def test_members_out_of_place(change: Callable[[str, Any], Any], text: str, tmp_path: Path) -> None:
    build(tmp_path, change)
    found = verify(tmp_path)
    assert text in found[0].text
    assert found[0].file == "val-000000.tar"
    assert found[0].remedy.startswith("make the shards anew")
