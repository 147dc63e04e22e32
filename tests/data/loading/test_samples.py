"""The columns of a split beside what tarfile finds in its tar files."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from medsass.data.loading import samples
from medsass.data.loading.samples import Samples
from medsass.data.shards import manifest
from medsass.data.shards.tar import Shard
from tests.support import damaged


def shards(folder: Path) -> list[Shard]:
    return manifest.load(folder).split("train").shards


@pytest.fixture(scope="module")
def found(whole: Path) -> Samples:
    return samples.load(whole, shards(whole))


def members(folder: Path) -> list[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Of each training sample, in stored order, its tar file and its members by extension."""
    result: list[tuple[str, dict[str, tarfile.TarInfo]]] = []
    for path in sorted(folder.glob("train-*.tar")):
        with tarfile.open(path) as opened:
            for member in opened:
                key, _, extension = member.name.partition(".")
                if not result or next(iter(result[-1][1].values())).name.partition(".")[0] != key:
                    result.append((str(path), {}))
                result[-1][1][extension] = member
    return result


def test_columns_are_what_tarfile_finds(whole: Path, found: Samples) -> None:
    expected = members(whole)
    assert len(found) == len(expected) == 60
    assert len(set(found.tar.tolist())) == len(found.tars) > 1
    for number, (path, held) in enumerate(expected):
        assert found.tars[found.tar[number]] == path
        image = next(extension for extension in held if extension in ("png", "jpg"))
        assert found.key(number) == held[image].name.partition(".")[0]
        assert (found.spans["mask.png"][number, 1] >= 0) == ("mask.png" in held)
        for what, extension in (("image", image), ("mask.png", "mask.png"), ("json", "json")):
            start, size = found.spans[what][number]
            if extension in held:
                assert (start, size) == (held[extension].offset_data, held[extension].size)
                assert found.name(number, what) == held[extension].name.encode()
            else:
                assert size == -1


def test_both_kinds_of_images_are_there(found: Samples) -> None:
    assert len(set(found.form.tolist())) == 2


@pytest.mark.parametrize("chosen", [np.arange(60) % 7 == 2, np.array([2, 9, 16, 23, 30, 37, 44, 51, 58])])
def test_taken_samples_keep_their_columns(chosen: np.ndarray, found: Samples) -> None:
    part = found.take(chosen)
    assert len(part) == 9
    for number in range(9):
        whole_number = 2 + 7 * number
        assert part.key(number) == found.key(whole_number)
        assert part.name(number, "image") == found.name(whole_number, "image")
        for what, span in part.spans.items():
            assert (span[number] == found.spans[what][whole_number]).all()


def test_columns_take_less_than_a_hundred_bytes_a_sample(found: Samples) -> None:
    columns = [found.keys, found.tar, found.form, *found.spans.values()]
    assert sum(column.nbytes for column in columns) / len(found) < 100


def test_an_error_names_tar_key_and_remedy(whole: Path, found: Samples) -> None:
    said = str(found.damaged(0, "it is gone"))
    assert said == f"{found.tars[0]}: sample train_0000: it is gone; run: medsass verify {whole}"
    elsewhere = Samples(Path("/far/shards"), found.tars, found.keys, found.tar, found.form, found.spans)
    assert "delete that copy, which is then fetched anew, or run: medsass verify /far" in str(
        elsewhere.damaged(0, "no")
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[: text.rindex("\n", 0, -1) + 1], r"names \d+ samples, but the manifest says \d+"),
        (lambda text: text + text.splitlines()[-1] + "\n", r"names \d+ samples, but the manifest says \d+"),
        (lambda text: text.replace(" train_0003.json", ""), "is no index of images"),
        (lambda text: text.replace("png ", "txt ").replace("jpg ", "txt "), "is no index of images"),
        (lambda text: text.replace("png 512 ", "png 12 ").replace("jpg 512 ", "jpg 12 "), "is no index of images"),
        (lambda text: text.replace("json ", "json x"), "is no index of images"),
        (lambda text: text.replace("png 512 ", f"png {1 << 70} ").replace("jpg 512 ", f"jpg {1 << 70} "), "is no index of images"),
        (lambda text: text.replace("v1.2 ", "v1.2 1"), r": its first line does not say that it has \d+ samples"),
        (lambda _: "", r"names 0 samples, but the manifest says \d+"),
    ],
)  # fmt: skip
def test_a_damaged_index_is_named(change: object, said: str, broken: Path) -> None:
    path = broken / damaged.FIRST.replace(".tar", ".idx")
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(ValueError, match=rf"^{path} ?{said}; run: medsass verify {broken}$"):
        samples.load(broken, shards(broken))


@pytest.mark.parametrize("number", [1, 2])  # offset, size
@pytest.mark.parametrize("value", [1 << 40, (1 << 63) - 1])
def test_what_lies_beyond_the_end_of_its_tar_is_named(number: int, value: int, broken: Path) -> None:
    path = broken / damaged.FIRST.replace(".tar", ".idx")
    first, row, *rest = path.read_text().splitlines()
    words = row.split(" ")
    path.write_text("\n".join([first, " ".join([*words[:number], str(value), *words[number + 1 :]]), *rest]) + "\n")
    said = "sample .*: lies beyond the end of the tar file, as its index says; run: medsass verify"
    with pytest.raises(ValueError, match=f"^{path.with_suffix('.tar')}: {said} {broken}$"):
        samples.load(broken, shards(broken))


def test_an_index_that_names_a_sample_twice_is_refused(broken: Path) -> None:
    path = broken / damaged.FIRST.replace(".tar", ".idx")
    first, row, _, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, row, row, *rest]) + "\n")
    with pytest.raises(ValueError, match=r"sample .*: does not lie behind the one before it, as its index says; run: "):
        samples.load(broken, shards(broken))
