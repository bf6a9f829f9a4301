"""The number of CPU cores that this process may use: its affinity and its cgroup's CPU quota."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_FORMATS = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
"""The files of a quota and its period in cgroups of version 2 and 1 (Linux: cgroup-v2.rst, sched-bwc.rst)."""


def usable_cores() -> int:
    """Return how many CPU cores this process may use, at least 1; a quota of 2.5 CPUs counts as 2 cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(cores, cgroup_quota())))


def cgroup_quota(membership: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the lowest quota in CPUs among this process's cgroups and their ancestors; infinity without one.

    `membership` lists the cgroups, one line per hierarchy; their file systems are mounted at `mount`.
    """
    quotas = [math.inf]
    for folder in _cgroups(membership, mount):
        for files in _FORMATS:
            with suppress(OSError, ValueError):  # a missing file, or "max": no quota in version 2
                words = " ".join((folder / name).read_text(encoding="ascii") for name in files).split()
                quota, period = map(int, words)
                if quota > 0 and period > 0:  # version 1 writes -1 for no quota
                    quotas.append(quota / period)
    return min(quotas)


def _cgroups(membership: Path, mount: Path) -> Iterator[Path]:
    """Yield this process's cgroup folders that may hold a CPU quota, each followed by its ancestors."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)  # version 2 has a single hierarchy and names no controllers
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = mount / "cpu" if controllers else mount
        # A container can see its own cgroup at the root of the mount; the folders of `path` are then missing.
        folder = root / path.lstrip("/")
        yield from (parent for parent in (folder, *folder.parents) if parent.is_relative_to(root))
