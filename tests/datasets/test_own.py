"""Datasets without a recipe: any folder, and a user's own recipe."""

import io
from pathlib import Path

import numpy as np
import tifffile
from click.testing import CliRunner
from PIL import Image

from medsass.cli import main
from tests.support.datasets import counts, pixels, written


def test_folder_takes_what_is_there(tmp_path: Path) -> None:
    generator, source = np.random.default_rng(9), tmp_path / "source"
    gray, colour = generator.integers(0, 256, (24, 32), np.uint8), generator.integers(0, 256, (24, 32, 3), np.uint8)
    for name in ("a", "b/c", "b/d/e"):
        (source / name).mkdir(parents=True)
    Image.fromarray(gray).save(source / "a" / "one.png")
    Image.fromarray(colour).save(source / "b" / "c" / "two.bmp")
    tifffile.imwrite(source / "b" / "three.tif", gray)
    np.save(source / "b" / "d" / "e" / "four.npy", colour)
    Image.fromarray(colour).save(source / "five.jpg")
    (source / "notes.txt").write_text("no image")
    manifest, stored = written(source, tmp_path / "out", "folder")
    assert set(stored) == {"one", "two", "three", "four", "five"}
    assert stored["five"]["jpg"] == (source / "five.jpg").read_bytes()
    for key, expected in {"one": gray, "two": colour, "three": gray, "four": colour}.items():
        np.testing.assert_array_equal(pixels(stored[key]["png"]), expected)
    assert not any("mask.png" in sample for sample in stored.values())
    assert manifest.rejected == 0


OWN = """
name = "retina"
polarity = "dark"
exact_splits = true
images = [{ path = "*/photos/*.png", masks = "{dir}/../vessels/{stem}_manual.gif.png" }]
masks = { required = true, foreground = [2, 3] }
classes = { pattern = '(?P<class>healthy|glaucoma)/' }
groups = { patient = '/p(?P<group>[0-9]+)_' }
splits = { train = 0.5, test = 0.5 }
"""


def test_own_recipe_of_ten_lines_needs_no_python(tmp_path: Path) -> None:
    assert len(OWN.strip().splitlines()) <= 10
    (tmp_path / "retina.toml").write_text(OWN)
    generator, truth = np.random.default_rng(11), {}
    for label in ("healthy", "glaucoma"):
        for kind in ("photos", "vessels"):
            (tmp_path / "eyes" / label / kind).mkdir(parents=True)
        for patient in range(4):
            for eye in ("left", "right"):
                name = f"p{patient}{len(label)}_{eye}"
                classes = generator.integers(0, 4, (16, 20), np.uint8)
                Image.fromarray(generator.integers(0, 256, (16, 20, 3), np.uint8)).save(
                    tmp_path / "eyes" / label / "photos" / f"{name}.png"
                )
                Image.fromarray(classes).save(tmp_path / "eyes" / label / "vessels" / f"{name}_manual.gif.png")
                truth[name] = (label, f"{patient}{len(label)}", np.isin(classes, (2, 3)))
    options = ["--recipe", str(tmp_path / "retina.toml")]
    found = CliRunner().invoke(main, ["shard", str(tmp_path / "eyes"), str(tmp_path / "out"), *options])
    assert found.exit_code == 0, found.output
    _, stored = written(tmp_path / "eyes", tmp_path / "again", str(tmp_path / "retina.toml"))
    assert [path.read_bytes() for path in sorted((tmp_path / "out").iterdir())] == [
        path.read_bytes() for path in sorted((tmp_path / "again").iterdir())
    ]
    assert set(stored) == set(truth)
    assert counts(stored) == {"train": 8, "test": 8}
    for key, (label, group, mask) in truth.items():
        assert (stored[key]["meta"]["class"], stored[key]["meta"]["group"]) == (label, group)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(stored[key]["mask.png"]))) > 0, mask)
    assert len({(sample["meta"]["group"], sample["split"]) for sample in stored.values()}) == 8
