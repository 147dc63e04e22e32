"""Images that are several files, of which some are links, as in DataLad's datasets."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from medsass.data.formats.opening import open_image

SMALL = np.arange(64, dtype=np.uint8).reshape(8, 8)


def test_parts_of_an_image_are_links_within_the_source_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source, store = tmp_path / "source/images", tmp_path / "source/.git/annex"
    source.mkdir(parents=True)
    store.mkdir(parents=True)
    (source / "a.mhd").write_text(
        "NDims = 2\nDimSize = 8 8\nElementType = MET_UCHAR\nElementDataFile = a.raw\n", "utf-8"
    )
    (store / "a.raw").write_bytes(SMALL.tobytes())
    (source / "a.raw").symlink_to("../.git/annex/a.raw")
    zarr.create_array(source / "a.zarr", shape=(8, 8), dtype="u1", chunks=(8, 8), compressors=None, zarr_format=2)
    (source / "a.zarr/0.0").symlink_to("../../.git/annex/a.raw")
    for name in ("a.mhd", "a.zarr"):
        with pytest.raises(ValueError, match="leads out of its folder"), open_image(source / name) as image:
            image.read()
    for variable, value in (("MEDSASS_SOURCE", str(tmp_path / "source")), ("MEDSASS_FOLLOW_LINKS", "1")):
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            for name in ("a.mhd", "a.zarr"):
                with open_image(source / name) as image:
                    assert np.array_equal(image.read(), SMALL), (name, variable)
