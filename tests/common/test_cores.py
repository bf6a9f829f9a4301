"""Usable cores: quotas read from cgroup trees of both versions, and from a real cgroup."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from platform.common import cores
from platform.tuning.execution import cluster_session

V2 = "0::/pod/container\n"
V1 = "4:memory:/pod/container\n3:cpu,cpuacct:/pod/container\n0::/\n"


def read_quota(tmp_path: Path, membership: str, files: dict[str, str]) -> float:
    """Return the quota read from a cgroup tree that holds `files`."""
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return cores.cgroup_quota(tmp_path / "membership", tmp_path / "mount")


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        (V2, {"pod/container/cpu.max": "250000 100000\n"}, 2.5),
        (V2, {"pod/container/cpu.max": "max 100000\n"}, math.inf),
        (V2, {"pod/container/cpu.max": "max 100000\n", "pod/cpu.max": "300000 100000\n"}, 3),
        (V2, {"pod/container/cpu.max": "400000 100000\n", "pod/cpu.max": "100000 50000\n"}, 2),
        (V2, {"cpu.max": "200000 100000\n"}, 2),  # the container's own cgroup is the root of the mount
        ("0::/../other\n", {"cpu.max": "200000 100000\n"}, 2),
        (V2, {"other/cpu.max": "100000 100000\n"}, math.inf),
        (V2, {"cpu.max": "unreadable\n"}, math.inf),
        (V1, {"cpu/pod/container/cpu.cfs_quota_us": "150000\n"}, math.inf),
        (V1, {**dict.fromkeys(["cpu/pod/container/cpu.cfs_period_us", "cpu/cpu.cfs_period_us"], "100000\n"),
              "cpu/pod/container/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_quota_us": "150000\n"}, 1.5),
        (V1, {"memory/pod/container/cpu.max": "100000 100000\n"}, math.inf),
        ("", {}, math.inf),
    ],
)  # fmt: skip
def test_the_lowest_quota_of_a_cgroup_and_its_ancestors_counts(
    tmp_path: Path, membership: str, files: dict[str, str], quota: float
) -> None:
    assert read_quota(tmp_path, membership, files) == quota


def test_there_is_no_quota_without_cgroups(tmp_path: Path) -> None:
    assert cores.cgroup_quota(tmp_path / "missing", tmp_path) == math.inf


@pytest.mark.parametrize(("quota", "expected"), [(math.inf, 8), (16.0, 8), (2.5, 2), (0.5, 1)])
def test_usable_cores_are_bounded_by_affinity_and_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "cgroup_quota", lambda: quota)
    assert cores.usable_cores() == expected


@pytest.mark.parametrize(("given", "expected"), [(None, 3), (1, 1), (0, 0)])
def test_a_local_ray_session_gets_the_usable_cores(
    monkeypatch: pytest.MonkeyPatch, given: int | None, expected: int
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(cluster_session, "usable_cores", lambda: 3)
    monkeypatch.setattr(cluster_session, "_start", lambda options, **_: started.append(options))
    cluster_session._init(None, num_cpus=given, num_gpus=0)
    assert started[0]["num_cpus"] == expected


@pytest.fixture
def cgroup_of_half_a_cpu() -> Iterator[Path]:
    """Create a cgroup below this process's own with a quota of 0.5 CPUs."""
    for folder in cores._cgroups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")):
        child = folder / f"test-cores-{os.getpid()}"
        try:
            child.mkdir()
        except OSError:
            continue
        try:
            if (child / "cpu.max").exists():
                (child / "cpu.max").write_text("50000 100000")
            else:
                (child / "cpu.cfs_period_us").write_text("100000")
                (child / "cpu.cfs_quota_us").write_text("50000")
            yield child
        except OSError:
            continue
        finally:
            child.rmdir()
        return
    pytest.skip("this process may not create a cgroup with a CPU quota")


def test_a_process_in_a_cgroup_sees_its_quota(cgroup_of_half_a_cpu: Path) -> None:
    program = (
        "import os, sys\n"
        "open(sys.argv[1], 'w').write(str(os.getpid()))\n"
        "from platform.common.cores import cgroup_quota, usable_cores\n"
        "print(cgroup_quota(), usable_cores())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, cgroup_of_half_a_cpu / "cgroup.procs"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.stdout.split() == ["0.5", "1"], done.stderr
