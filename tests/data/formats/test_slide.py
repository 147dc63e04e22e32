"""Slides against OpenSlide, and cuCIM against tifffile. cuCIM hangs in a process that has imported torch, as pytest
has here: what concerns it runs in another.
"""

import importlib.util
import io
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from medsass.data.formats.geometry import Box
from medsass.data.formats.image import Selection
from medsass.data.formats.opening import open_image
from medsass.data.formats.slide import Slide

openslide = pytest.importorskip("openslide")
needs_cucim = pytest.mark.skipif(importlib.util.find_spec("cucim") is None, reason="needs cuCIM")

NAMES = ["CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs", "test3-DAPI-2-(387).ndpi", "test3-TRITC 2 (560).ndpi"]


@pytest.fixture(params=NAMES)
def slide(request: pytest.FixtureRequest, real_data: Path) -> Path:
    return real_data / "whole_slide" / request.param


def truth(path: Path, box: Box, level: int) -> np.ndarray:
    """By OpenSlide, which takes places of level 0: the box is read from its whole level."""
    with openslide.OpenSlide(str(path)) as file:
        scale = file.level_downsamples[level]
        size = (box.width, box.height) if level == 0 else file.level_dimensions[level]
        place = (box.x, box.y) if level == 0 else (0, 0)
        assert scale >= 1
        array = np.asarray(file.read_region(place, level, size).convert("RGB"))
        return array if level == 0 else array[box.slices]


def test_levels_and_regions_equal_openslide(slide: Path) -> None:
    with openslide.OpenSlide(str(slide)) as file:
        sizes = tuple(size[::-1] for size in file.level_dimensions)
    sizes = sizes[: {".ndpi": 4}.get(slide.suffix)]  # OpenSlide makes three more, which are not in the file
    for level, (height, width) in enumerate(sizes):
        with open_image(slide, Selection(level=level)) as picture:
            assert picture.levels == sizes
            assert (picture.height, picture.width, picture.frames, picture.streams) == (height, width, 1, True)
            assert (picture.colour, picture.dtype, picture.converted) == (True, np.uint8, "")
            for box in (Box(height // 2, width // 2, 70, 90), Box(height - 33, width - 31, 33, 31), Box(1, 3, 50, 60)):
                np.testing.assert_array_equal(picture.read(0, box), truth(slide, box, level))


def test_the_label_and_the_overview_are_no_frames(slide: Path) -> None:
    with open_image(slide, Selection(frames="all")) as picture:
        assert picture.frames == picture.total == 1


def test_small_shows_the_whole_slide(slide: Path) -> None:
    with open_image(slide) as picture, openslide.OpenSlide(str(slide)) as file:
        small = picture.small(most=300)
        assert max(small.shape[:2]) == 300
        level = min(file.get_best_level_for_downsample(max(file.dimensions) / 300), len(picture.levels) - 1)
        whole = np.asarray(file.read_region((0, 0), level, file.level_dimensions[level]).convert("RGB"))
        area = cv2.resize(whole.astype(np.float64), small.shape[1::-1], interpolation=cv2.INTER_AREA)
        np.testing.assert_allclose(small, area, atol=0.51)


def test_a_level_that_is_not_there_is_refused(slide: Path) -> None:
    with pytest.raises(ValueError, match="no pyramid level 9: the file has level"):
        open_image(slide, Selection(level=9))


def test_the_bytes_alone_are_refused(slide: Path) -> None:
    with pytest.raises(ValueError, match="must be on this machine: copy it first"):
        open_image(Path("elsewhere") / slide.name, data=slide.read_bytes())


def test_a_slide_named_otherwise_is_read_alike(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "a.tif").symlink_to(real_data / "whole_slide" / NAMES[1])
    box = Box(1000, 2000, 40, 50)
    with open_image(tmp_path / "a.tif", Selection(level=0)) as picture:
        np.testing.assert_array_equal(picture.read(0, box), truth(real_data / "whole_slide" / NAMES[1], box, 0))


def test_text_named_as_a_slide_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_text("no slide")
    with pytest.raises(ValueError, match="not a TIFF file"):
        open_image(tmp_path / "a.svs")


def test_threads_read_the_same_slide(slide: Path) -> None:
    boxes = [Box(y, x, 100, 100) for y in range(0, 900, 300) for x in range(0, 900, 300)]
    with open_image(slide) as picture:
        alone, together = [picture.read(0, box) for box in boxes], dict[int, np.ndarray]()

        def work(start: int) -> None:
            for i in range(start, len(boxes), 3):
                together[i] = picture.read(0, boxes[i])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(np.array_equal(together[i], alone[i]) for i in range(len(boxes)))


def test_an_scn_file_is_the_slide_not_the_overview_before_it(tmp_path: Path) -> None:
    def image(name: str, ifd: int, width: int, height: int) -> str:
        pixels = (
            f'<pixels sizeX="{width}" sizeY="{height}"><dimension r="0" ifd="{ifd}" sizeX="{width}" sizeY="{height}"/>'
        )
        return f'<image name="{name}">{pixels}</pixels></image>'

    rgb = np.random.default_rng(0).integers(0, 256, (100, 150, 3), np.uint8)
    text = f"<scn><collection>{image('overview', 0, 60, 40)}{image('slide', 1, 150, 100)}</collection></scn>"
    with tifffile.TiffWriter(tmp_path / "a.scn") as writer:
        for array in (rgb[:40, :60], rgb):
            writer.write(array, tile=(32, 32), photometric="rgb", compression="zlib", description=text, metadata=None)
    with open_image(tmp_path / "a.scn") as picture:
        np.testing.assert_array_equal(picture.read(), rgb)
        np.testing.assert_array_equal(picture.read(0, Box(5, 6, 70, 80)), rgb[5:75, 6:86])
        assert picture.converted == ""


def test_jpeg_2000_in_ycbcr_as_aperio_stores_it_equals_openslide(tmp_path: Path) -> None:
    rgb = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8), (0, 0), 5)
    ycbcr = cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    with tifffile.TiffWriter(tmp_path / "a.svs") as writer:
        writer.write(
            ycbcr, tile=(256, 256), photometric="rgb", compression="APERIO_JP2000_YCBC", metadata=None,
            description="Aperio Image Library v10.0.50\n256x256 (256x256) J2K/YUV16 Q=70|AppMag = 20",
        )  # fmt: skip
    with open_image(tmp_path / "a.svs") as picture:
        got = picture.read(0, Box(10, 20, 200, 100)).astype(int)
        assert np.abs(got - truth(tmp_path / "a.svs", Box(10, 20, 200, 100), 0)).max() <= 2
        assert np.abs(got - rgb[10:210, 20:120]).mean() < 2


def alone(code: str, *arguments: object) -> str:
    """What a process without torch prints."""
    start = (
        "import sys\nfrom concurrent.futures import ThreadPoolExecutor\nfrom pathlib import Path\nimport numpy as np\n"
    )
    start += "from medsass.data.formats.slide import Slide\nfrom medsass.data.formats.image import Selection\n"
    start += "from medsass.data.formats.tiff import Tiff\n"
    start += "from medsass.data.formats.opening import open_image\nfrom medsass.data.formats.geometry import Box\n"
    done = subprocess.run(
        [sys.executable, "-c", start + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_cucim
def test_cucim_reads_the_pixels_that_tifffile_reads(real_data: Path) -> None:
    code = """
for name in sys.argv[2:]:
    path = Path(sys.argv[1]) / name
    with open_image(path) as picture:
        levels = len(picture.levels)
    for level in range(levels):
        with open_image(path, Selection(level=level)) as picture:
            assert type(picture) is Slide, type(picture)
            for y in range(0, picture.height - 40, 1201):
                for x in range(0, picture.width - 50, 797):
                    for box in (Box(y, x, 40, 50), Box(picture.height - 40, x, 40, 50), Box(y, picture.width - 50, 40, 50)):
                        assert np.array_equal(picture.read(0, box), Tiff._decode(picture, 0, box, level)), (name, level, box)
            boxes = [Box(y, x, 90, 80) for y in range(0, 900, 100) for x in range(0, 900, 100)]
            with ThreadPoolExecutor(4) as pool:
                together = list(pool.map(lambda box: picture.read(0, box), boxes))
            assert all(np.array_equal(array, picture.read(0, box)) for array, box in zip(together, boxes))
    print(name)
"""
    assert alone(code, real_data / "whole_slide", *NAMES[:2]).splitlines() == NAMES[:2]


@needs_cucim
def test_cucim_is_not_used_where_it_has_no_reader_or_would_hang(real_data: Path) -> None:
    code = """
for name in ("test3-DAPI-2-(387).ndpi", "kidney-48-5.tif"):
    print(type(open_image(Path(sys.argv[1]) / name)).__name__)
sys.modules["torch"] = sys
sys.modules.pop("cucim", None)
print(type(open_image(Path(sys.argv[1]) / "CMU-1-Small-Region.svs")).__name__, "cucim" in sys.modules)
"""
    assert alone(code, real_data / "whole_slide").splitlines() == ["Tiff", "Tiff", "Tiff False"]


@needs_cucim
def test_a_broken_tile_is_refused_not_filled_with_anything(real_data: Path, tmp_path: Path) -> None:
    code = """
for path in sys.argv[1:]:
    picture = open_image(Path(path))
    try:
        whole = picture.read(0, Box(0, 0, 50, 50)).shape
        picture.read(0, Box(10, 3 * picture.page.tilewidth + 5, 20, 30))
    except ValueError:
        print(type(picture).__name__, whole, "refused")
"""
    paths = []
    for name in NAMES[:2]:
        data = (real_data / "whole_slide" / name).read_bytes()
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            start, size = (
                part[3] for part in (file.series[0].keyframe.dataoffsets, file.series[0].keyframe.databytecounts)
            )
        for at, length in ((start, size), (start + 3, 8)):
            paths.append(tmp_path / f"{length}-{name}")
            paths[-1].write_bytes(data[:at] + bytes(length) + data[at + length :])
    assert alone(code, *paths).splitlines() == ["Slide (50, 50, 3) refused"] * 4


def test_a_reader_that_sees_other_pixels_or_levels_is_not_used(
    real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = real_data / "whole_slide" / NAMES[0]
    with openslide.OpenSlide(str(path)) as file:
        size = file.dimensions

    class Reader:
        def __init__(self, _: str, size: tuple[int, int], black: bool) -> None:
            self.black, self.resolutions = black, {"level_dimensions": (size,), "level_downsamples": (1.0,)}

        def read_region(self, place: tuple[int, int], size: tuple[int, int], level: int) -> np.ndarray:
            region = truth(path, Box(place[1], place[0], size[1], size[0]), level)
            return region * np.uint8(not self.black)

    for own, black, used in ((size, False, True), (size, True, False), ((size[0], 9), False, False)):
        reader = partial(Reader, size=own, black=black)
        monkeypatch.setattr("medsass.data.formats.slide._cucim", lambda reader=reader: reader)
        with open_image(path) as picture:
            assert isinstance(picture, Slide) == used
            box = Box(500, 600, 20, 30)
            np.testing.assert_array_equal(picture.read(0, box), truth(path, box, 0))
