"""Free memory, from files in the kernel's format."""

from pathlib import Path

import pytest

from medsass.data.loading import memory

GIB = 1 << 30


def kernel(root: Path, group: str, files: dict[str, object]) -> Path:
    """Write the files of a machine with 8 GiB available and these control groups."""
    table = {
        "proc/meminfo": "MemTotal:       16777216 kB\nMemFree:         1000 kB\nMemAvailable:    8388608 kB\n",
        "proc/self/cgroup": group,
        **{f"sys/fs/cgroup/{name}": f"{text}\n" for name, text in files.items()},
    }
    for name, text in table.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_without_control_groups_the_kernels_number_counts(tmp_path: Path) -> None:
    root = kernel(tmp_path, "", {})
    assert memory.host(root) == 8 * GIB
    (root / "proc/self/cgroup").unlink()
    assert memory.host(root) == 8 * GIB


@pytest.mark.parametrize(("most", "expected"), [("max", 8 * GIB), (5 * GIB, 3 * GIB), (100 * GIB, 8 * GIB), (GIB, 0)])
def test_version_2_counts_files_that_can_be_dropped_as_free(most: object, expected: int, tmp_path: Path) -> None:
    stat = f"anon 1\ninactive_file {GIB}\nactive_file 3"
    files = {"memory.max": most, "memory.current": 3 * GIB, "memory.stat": stat}
    assert memory.host(kernel(tmp_path, "0::/\n", files)) == expected


def test_the_smallest_of_a_group_and_those_around_it_counts(tmp_path: Path) -> None:
    files = {}
    for folder, most in (("a/b/", "max"), ("a/", 4 * GIB), ("", 6 * GIB)):
        files |= {f"{folder}memory.max": most, f"{folder}memory.current": GIB, f"{folder}memory.stat": "anon 5"}
    assert memory.host(kernel(tmp_path, "0::/a/b\n", files)) == 3 * GIB


def test_version_1_in_a_container_that_sees_its_own_group_as_the_first(tmp_path: Path) -> None:
    files = {
        "memory/memory.limit_in_bytes": 2 * GIB,
        "memory/memory.usage_in_bytes": GIB,
        "memory/memory.stat": f"inactive_file 7\ntotal_inactive_file {GIB // 2}",
    }
    group = "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/docker/x\n"
    assert memory.host(kernel(tmp_path, group, files)) == GIB * 3 // 2


def test_this_machine_has_some() -> None:
    assert 0 < memory.host() < 1 << 50


def test_processes_of_this_machine_are_torchruns_or_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert memory.processes(16) == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert memory.processes(16) == 8
