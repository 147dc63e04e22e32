"""The journal of an unfinished dataset: what was committed comes back, anything else is forgotten."""

from pathlib import Path
from typing import Any

import numpy as np

from medsass.data.sharding.journal import NAME, Journal
from medsass.data.shards.tar import Shard


def meta(key: str, sha: int, **more: Any) -> dict[str, Any]:
    plain = {"key": key, "width": 8, "height": 6, "class": None, "converted": "", "sha256": f"{sha:064x}"}
    return {**plain, **more}


def store(
    journal: Journal, rank: int, split: str, phash: int | None = None, extension: str = "png", **more: Any
) -> None:
    journal.store(rank, split, extension, meta(f"k{rank}", **{"sha": rank, **more}), phash)


def test_only_finished_tar_files_survive(tmp_path: Path) -> None:
    journal = Journal(tmp_path / NAME)
    assert journal["position"] is None
    store(journal, 0, "train")
    journal.reject("bad.png", "train", "empty file")
    journal.finish("train", Shard("train-000000.tar", 1, 10240, "ab"), (2, 5))
    store(journal, 2, "train")
    journal.reject("worse.png", "train", "truncated")
    journal.skip(3, 9)
    journal.close()
    journal.close()
    again = Journal(tmp_path / NAME)
    assert again["position"] == [2, 5]
    assert again.stored() == 1
    assert again.shards() == again.shards("train") == [Shard("train-000000.tar", 1, 10240, "ab")]
    assert list(again.rejected()) == [{"file": "bad.png", "split": "train", "reason": "empty file"}]
    assert again.shards("val") == []
    assert again.notes() == []


def test_facts_are_kept_as_they_were_set(tmp_path: Path) -> None:
    journal = Journal(tmp_path / NAME)
    assert journal["state"] is None
    journal["state"] = {"size": 3, "range": None}
    journal.commit()
    journal.close()
    assert Journal(tmp_path / NAME)["state"] == {"size": 3, "range": None}


def test_split_counts_what_was_stored() -> None:
    journal = Journal(None)
    store(journal, 0, "train", mask_coverage=0.25, **{"class": "a"})
    store(journal, 1, "train", mask_coverage=0.5, **{"class": "a"}, extension="jpg", converted="palette to RGB")
    store(journal, 2, "train", width=9, **{"class": "b"})
    store(journal, 3, "val")
    split = journal.split("train")
    assert (split.samples, split.masks, split.mask_coverage) == (3, 2, 0.375)
    assert split.classes == {"a": 2, "b": 1}
    assert split.sizes == {"8x6": 2, "9x6": 1}
    assert split.formats == {"jpg": 1, "png": 2}
    assert journal.split("val").mask_coverage is None
    assert journal.converted() == {"palette to RGB": 1}


def test_a_twin_is_of_another_split() -> None:
    journal = Journal(None)
    store(journal, 0, "train", sha=7)
    store(journal, 1, "train", sha=7)
    sha = f"{7:064x}"
    assert journal.twin(sha, "train") is None
    assert journal.twin(sha, "val") == "train/k0"
    assert journal.twin(f"{8:064x}", "val") is None
    assert journal.notes() == ["1 images of split 'train' are there more than once, byte for byte"]


def test_tiles_of_one_file_are_no_twins_and_skipped_ones_are_counted_once() -> None:
    journal = Journal(None)
    for key in ("a", "b"):
        journal.store(4, "train", "png", meta(key, 7), None)
    journal.skip(4, 3)
    journal.skip(4, 3)
    journal.skip(5, 2)
    assert journal.notes() == ["5 tiles with too little foreground passed over (--min-foreground)"]


def test_perceptual_hashes_are_those_of_other_splits() -> None:
    journal = Journal(None)
    store(journal, 0, "train", phash=-3)
    store(journal, 1, "val", phash=2**63 - 1)
    store(journal, 2, "val")
    hashes, names = journal.perceptual_hashes("test")
    np.testing.assert_array_equal(hashes, [-3, 2**63 - 1])
    assert names == ["train/k0", "val/k1"]
    assert (journal.stored(), journal.stored(outside="val"), journal.stored(outside="test")) == (3, 1, 3)
    assert journal.perceptual_hashes("val")[1] == ["train/k0"]
