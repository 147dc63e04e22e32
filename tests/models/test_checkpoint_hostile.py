"""Weights and checkpoints that somebody else made: no number that is none, no other types, nothing that grows."""

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from medsass.models import checkpoint, network

NAME = "unet-resnet18"
WEIGHT, VARIANCE = "encoder.conv1.weight", "encoder.bn1.running_var"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return {key: value.contiguous() for key, value in network.build(NAME).state_dict().items()}


@pytest.mark.parametrize(
    ("key", "change", "said"),
    [
        (WEIGHT, lambda w: w * float("nan"), "holds NaN or infinite numbers"),
        (WEIGHT, lambda w: w / 0, "holds NaN or infinite numbers"),
        (VARIANCE, lambda w: w - 9, "holds negative variances"),
        (WEIGHT, lambda w: w.half(), "has the type strided float16 cpu in place of strided float32 cpu"),
        (WEIGHT, lambda w: w.to(torch.int32), "has the type strided int32 cpu in place of strided float32 cpu"),
        (WEIGHT, lambda w: w[:1].clone(), r"has the shape \(1, 3, 7, 7\) in place of \(64, 3, 7, 7\)"),
    ],
)
def test_weights_that_are_none_are_refused_by_name(
    tmp_path: Path, state: dict[str, torch.Tensor], key: str, change: Callable[[torch.Tensor], torch.Tensor], said: str
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(save({**state, key: change(state[key])}))
    said = rf"^{path} does not hold the weights of {NAME} \({key} {said}\); train again$"
    with pytest.raises(ValueError, match=said):
        checkpoint.load_model(path, NAME)
    with pytest.raises(ValueError, match=said):
        checkpoint.load_encoder(path, NAME)


def _header(shape: list[int], end: int) -> bytes:
    text = json.dumps({WEIGHT: {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<Q", 1 << 40) + b"{}",
        struct.pack("<Q", 90 << 20) + b" " * 1000,
        _header([1 << 40], 1 << 42),
        _header([1 << 31, 1 << 31, 4], 16) + bytes(16),
        _header([4], 16) + bytes(8),
        struct.pack("<Q", 400_000) + b"[" * 400_000,
    ],
)
def test_weights_whose_header_promises_more_than_the_file_are_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"^{path} does not hold the weights of {NAME} \(.*\); train again$"):
        checkpoint.load_model(path, NAME)


def _again(path: Path, compression: int = zipfile.ZIP_STORED, **replaced: bytes) -> None:
    """Write a checkpoint anew, its parts compressed or replaced."""
    with zipfile.ZipFile(path) as archive:
        parts = {item.filename: archive.read(item) for item in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, replaced.get(name.rpartition("/")[2].replace(".", "_"), data))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_checkpoints_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: int) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"model": {"w": torch.zeros(1 << 20)}})
    _again(path, method)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpacked"))
    with pytest.raises(
        ValueError, match=rf"^{path} is not a medsass checkpoint, or is damaged \(its parts are compressed"
    ):
        checkpoint.load(path)


def test_a_directory_that_promises_more_than_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"model": {"w": torch.zeros(4)}})
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\1\2")  # size, then packed size, of the last member
    data[entry + 20 : entry + 28] = struct.pack("<II", 1 << 31, 1 << 31)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="its parts are larger than they can be"):
        checkpoint.load(path)


def test_text_of_gigabytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    monkeypatch.setattr(checkpoint, "_MOST", (1 << 30, 1000, 100))
    checkpoint.save(path, {"model": {}, "text": "x" * 1001})
    with pytest.raises(ValueError, match="its text is larger than it can be"):
        checkpoint.load(path)


def test_tensors_larger_than_their_part_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"model": {"a": torch.ones(4)}})
    with zipfile.ZipFile(path) as archive:
        text = archive.read("archive/data.pkl")
    large = b"J\0\0\x10\0"  # 1,048,576 in place of 4
    text = text.replace(b"q\x08K\x04t", b"q\x08" + large + b"t").replace(b"K\0K\x04\x85", b"K\0" + large + b"\x85")
    _again(path, data_pkl=text)
    with pytest.raises(ValueError, match=f"^{path} is not a medsass checkpoint, or is damaged"):
        checkpoint.load(path)


def test_nobody_is_told_to_run_code(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"model": {}, "extra": Path("x")}, path)
    with pytest.raises(ValueError, match="it holds more than numbers and text") as error:
        checkpoint.load(path)
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize("make", [lambda p: __import__("os").mkfifo(p), lambda p: p.mkdir()])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "last.pt")
    with pytest.raises(FileNotFoundError, match="is missing"):
        checkpoint.load(tmp_path / "last.pt")
