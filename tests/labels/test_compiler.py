"""Every kernel variant compiles for every architecture, without a GPU; contents of the source text."""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medsass import bundled
from medsass.labels import compiler, cuda
from tests.support import effort

MAIN = {
    "RGB Otsu": compiler.Variant("label.cu"),
    "RGB GHT": compiler.Variant("label.cu", ght=True),
    "RGB Otsu with bfloat16 input": compiler.Variant("label.cu", input=1),
    "gray Otsu": compiler.Variant("label.cu", channels=1),
}
VARIANTS = [  # every one that can be asked for
    *(compiler.Variant("label.cu", channels, 8, ght, value) for channels in (1, 3) for ght in (False, True) for value in range(4)),
    *(compiler.Variant("label.cu", 1, 16, ght) for ght in (False, True)),
    *(compiler.Variant("adaptive.cu", channels) for channels in (1, 3)),
    compiler.Variant("components.cu", 1),
    compiler.Variant("blur.cu", 1),
]  # fmt: skip
ARCHITECTURES = ("75", "80", "86", "89", "90", "100", "120")  # compute capabilities that the kernels must compile for
FEW = ("90", "75")  # in `make test`, in turns: what most is measured on, and the oldest
OTHERS = ("75", "90", "120")  # those that all variants must compile for, not only the main ones
REGISTERS = 65_536  # of a multiprocessor
PAPER = 224 * 224  # pixels of an image
# Shared memory of a multiprocessor and of a block, multiprocessors; blocks of `label` on each for RGB and for gray.
REPORT = {
    "80": (cuda.Limits(167_936, 166_912, 108), 1, 2),
    "90": (cuda.Limits(233_472, 232_448, 132), 2, 3),
    "100": (cuda.Limits(233_472, 232_448, 148), 2, 3),
}
SPILLED = 16  # bytes a thread that may be stored and loaded once an image, outside of the loop over its pixels
FILES = {
    "label.cu": ["common.cuh", "histogram.cuh", "solve.cuh", "pixels.cuh", "parts.cuh", "mask.cuh", "label.cu"],
    "adaptive.cu": ["common.cuh", "pixels.cuh", "adaptive.cu"],
    "components.cu": ["common.cuh", "components.cu"],
    "blur.cu": ["common.cuh", "blur.cu"],
}


def _name(variant: compiler.Variant) -> str:
    kind = "ght" if variant.ght else "otsu"
    return f"{variant.file}-{variant.channels}x{variant.bits}-{kind}-input{variant.input}"


def _failure(variant: compiler.Variant, architecture: str) -> str:
    """NVRTC's log where a variant does not compile into device code, else nothing."""
    nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="needs CuPy")
    program = nvrtc.createProgram(compiler.source(variant), variant.file, (), ())
    try:
        nvrtc.compileProgram(program, (*compiler.OPTIONS, f"--gpu-architecture=sm_{architecture}", "-ftz=true"))
        code = nvrtc.getCUBIN(program)[:4]
        return "" if code == b"\x7fELF" else f"sm_{architecture}: no ELF, {code!r}"
    except nvrtc.NVRTCError as error:
        return f"sm_{architecture}: {error}\n{nvrtc.getProgramLog(program)}"
    finally:
        nvrtc.destroyProgram(program)


@pytest.mark.parametrize("variant", VARIANTS, ids=_name)
def test_variant_compiles_for_its_architectures(variant: compiler.Variant) -> None:
    """A main variant of its file for all of them, others for the oldest, the newest and Hopper's; one in `make test`."""
    pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="needs CuPy")
    main = variant in MAIN.values() or variant.file != "label.cu"
    wanted = (ARCHITECTURES if main else OTHERS) if effort.everything() else FEW[VARIANTS.index(variant) % 2 :][:1]
    with ThreadPoolExecutor(2) as pool:
        failures = list(pool.map(lambda architecture: _failure(variant, architecture), wanted))
    assert not any(failures), "\n".join(failures)


def test_failed_compilation_shows_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="needs CuPy")
    monkeypatch.setattr(compiler, "source", lambda _: '#line 7 "solve.cuh"\nint broken = undefined_name;')
    assert "solve.cuh(7)" in _failure(MAIN["gray Otsu"], "90")


def test_variants_and_their_sources_are_distinct() -> None:
    assert len(VARIANTS) == len(set(VARIANTS)) == len({compiler.source(variant) for variant in VARIANTS}) == 22
    assert set(MAIN.values()) <= set(VARIANTS)


def _resources(variant: compiler.Variant, architecture: str, folder: Path) -> dict[str, tuple[int, int, int, int]]:
    """Kernel -> bytes of stack frame, spill stores, spill loads, and registers, as ptxas reports them."""
    file = folder / "kernel.cu"
    file.write_text(compiler.source(variant))
    command = ["nvcc", "-cubin", f"-arch=sm_{architecture}", *compiler.OPTIONS, "-ftz=true", "-Xptxas", "-v", file.name, "-o", "kernel.cubin"]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pattern = r"Function properties for (\w+)\s+(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\s+.*?Used (\d+) registers"
    return {name: tuple(map(int, numbers)) for name, *numbers in re.findall(pattern, done.stdout + done.stderr)}


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize(
    ("kind", "architecture"), [*((kind, "90") for kind in MAIN), ("RGB Otsu", "80"), ("RGB Otsu", "100")]
)
def test_registers_and_spills_of_label_are_as_planned(kind: str, architecture: str, tmp_path: Path) -> None:
    variant = MAIN[kind]
    _, stores, loads, registers = _resources(variant, architecture, tmp_path)["label"]
    assert max(stores, loads) <= SPILLED
    assert registers * compiler.THREADS * variant.resident <= REGISTERS


@pytest.mark.parametrize("architecture", REPORT)
def test_blocks_on_a_multiprocessor_are_as_planned(architecture: str) -> None:
    limits, rgb, gray = REPORT[architecture]
    for variant, blocks in ((compiler.Variant("label.cu"), rgb), (compiler.Variant("label.cu", channels=1), gray)):
        plan = cuda.plan(PAPER, variant, limits)
        assert plan.blocks == 1
        assert cuda.resident(plan, variant, limits) == blocks * limits.processors


class Names:
    """A pytest plugin that writes down the names of the collected tests."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._out.write_text("\n".join(item.nodeid for item in session.items))


def _collected(file: Path, out: Path) -> list[str]:
    """Return the names of a file's GPU tests, which a fork of this process collects: a new one would import for seconds."""
    child = os.fork()
    if child == 0:
        words = ["-o", "addopts=", "--collect-only", "-m", "gpu", "-p", "no:xdist", "-p", "no:terminal", str(file)]
        os._exit(pytest.main(words, plugins=[Names(out)]))
    assert os.waitpid(child, 0)[1] == 0
    return out.read_text().splitlines()


def test_every_case_that_the_sanitizer_asks_for_is_a_test_of_its_file(tmp_path: Path) -> None:
    script = (Path(__file__).parent / "sanitize.sh").read_text()
    (file,) = re.findall(r"pytest -m gpu (\S+)", script)
    (cases,) = re.findall(r'cases="\$\{1:-(.+)\}"', script)
    listed = _collected(Path(__file__).parents[2] / file, tmp_path / "collected")
    assert len(listed) > 10
    for case in cases.split(" or "):
        words = re.findall(r"\w+", case.replace(" and ", " "))
        assert any(all(word in test for word in words) for test in listed), case


@pytest.mark.parametrize("variant", VARIANTS, ids=_name)
def test_source_includes_nothing(variant: compiler.Variant) -> None:
    assert not re.search(r"^\s*#\s*include", compiler.source(variant), re.MULTILINE)


@pytest.mark.parametrize("file", FILES)
def test_lines_name_each_file_in_order(file: str) -> None:
    assert re.findall(r'^#line 1 "(.+)"$', compiler.source(compiler.Variant(file)), re.MULTILINE) == FILES[file]


@pytest.mark.parametrize("file", FILES)
def test_line_numbers_are_those_of_the_files(file: str) -> None:
    pieces = re.split(r'^#line 1 "(.+)"\n', compiler.source(compiler.Variant(file)), flags=re.MULTILINE)[1:]
    for name, text in zip(pieces[::2], pieces[1::2], strict=True):
        assert text.rstrip("\n") == (bundled.folder("kernels") / name).read_text().rstrip("\n")


def test_definitions_come_first_and_name_the_variant() -> None:
    head = compiler.source(compiler.Variant("label.cu", 1, 16, ght=True, input=0)).split("#line")[0].splitlines()
    assert all(re.fullmatch(r"#define [A-Z_]+ \d+", line) for line in head)
    values = dict(line.split()[1:] for line in head)
    assert (values["CHANNELS"], values["PIXEL_BITS"], values["GHT"], values["INPUT"]) == ("1", "16", "1", "0")
    assert values["THREADS"] == str(compiler.THREADS)


@pytest.mark.parametrize(("kernel", "header"), [(kernel, name) for kernel in FILES for name in FILES[kernel]])
def test_source_follows_every_file(kernel: str, header: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = Path(shutil.copytree(bundled.folder("kernels"), tmp_path / "kernels"))
    monkeypatch.setattr(bundled, "folder", lambda _: copied)
    before = compiler.source(compiler.Variant(kernel))
    (copied / header).write_text((copied / header).read_text() + "// another line\n")
    assert compiler.source(compiler.Variant(kernel)) != before


def test_every_kernel_file_is_part_of_a_source() -> None:
    used = {name for names in FILES.values() for name in names}
    assert {path.name for path in bundled.folder("kernels").glob("*.cu*")} == used
