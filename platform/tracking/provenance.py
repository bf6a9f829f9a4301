"""Provenance of a result: the code, the package versions, the hardware and the command.

No heavy library is imported: versions come from package metadata, GPU names from the driver.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import platform
from platform.common.cores import usable_cores

PACKAGES = (
    "resnet-sweep-platform",
    "torch",
    "ray",
    "mlflow",
    "optuna",
    "pnnx",
    "ncnn",
    "numpy",
    "pyarrow",
)

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Provenance of a sweep, a run or a measurement."""

    command: str
    """The command line."""
    started_at: str
    """UTC, ISO 8601."""
    git_commit: str | None
    """Commit of the checkout that the code runs from; None for an installed package."""
    git_dirty: bool | None
    """Whether tracked files differ from the commit."""
    python: str
    operating_system: str
    versions: Mapping[str, str] = field(default_factory=dict)
    """Installed versions of the packages that affect a result."""
    cpu: str
    cores: int
    """Cores this process may use, with CPU affinity and container limits."""
    memory_gib: float
    gpus: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-compatible dict."""
        return {**asdict(self), "versions": dict(self.versions), "gpus": list(self.gpus)}

    def as_tags(self) -> dict[str, str]:
        """Return the fields as flat strings, for MLflow tags and for the file of a trained model."""
        tags = {
            "command": self.command,
            "started_at": self.started_at,
            "python": self.python,
            "hardware": self.hardware(),
        }
        if self.git_commit:
            tags["git_commit"] = self.git_commit
            tags["git_dirty"] = str(self.git_dirty).lower()
        return tags | {f"version.{name}": version for name, version in self.versions.items()}

    def hardware(self) -> str:
        """Return a short description of the machine: `Xeon ..., 2 cores, 24 GiB, no GPU`."""
        counted = {name: self.gpus.count(name) for name in self.gpus}
        gpus = ", ".join(f"{n} x {name}" if n > 1 else name for name, n in counted.items()) or "no GPU"
        return f"{self.cpu}, {self.cores} core{'s' * (self.cores != 1)}, {self.memory_gib:.0f} GiB, {gpus}"


def collect(packages: Iterable[str] = PACKAGES) -> Provenance:
    """Collect the provenance of this process and this machine (about 20 ms).

    Args:
        packages: distributions whose versions are recorded if they are installed.
    """
    commit, dirty = git_state(_ROOT)
    versions = {}
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return Provenance(
        command=command_line(),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        git_commit=commit,
        git_dirty=dirty,
        python=platform.python_version(),
        operating_system=platform.platform(terse=True),
        versions=versions,
        cpu=cpu_name(),
        cores=usable_cores(),
        memory_gib=round(_memory_bytes() / 2**30, 1),
        gpus=gpu_names(),
    )


def command_line() -> str:
    """Return the command line of this process: `python -m platform.sweep ...` or `resnet-sweep sweep ...`."""
    words = list(sys.orig_argv) or list(sys.argv)
    if len(words) > 1 and Path(words[1]).name == "resnet-sweep":
        del words[0]
    if words:
        words[0] = Path(words[0]).name
    return shlex.join(without_credentials(word) for word in words)


def without_credentials(text: str) -> str:
    """Return a text without the user names, passwords and tokens of the URIs in it."""
    text = re.sub(r"(?<=://)[^\s/?#]*@", "", text)
    return re.sub(r"(?<=[?&])(user|password|passwd|pwd|token|secret)=[^&\s]*&?", "", text)


def user_name() -> str:
    """Return the name of the user, or the id where the system has no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def git_state(root: Path) -> tuple[str | None, bool | None]:
    """Return the commit checked out at `root` and whether tracked files differ from it.

    Returns (None, None) if `root` is not the top of a repository: a package installed inside the checkout of
    another project must not report that project's commit.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve():
        return None, None
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return None, None
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return commit, bool(changes) if changes is not None else None


def cpu_name() -> str:
    """Return the marketing name of the CPU, or its architecture if the name is unknown."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model") and value.strip():
                return " ".join(value.split())
    if sys.platform == "darwin":
        name = _output("sysctl", "-n", "machdep.cpu.brand_string")
        if name:
            return name
    return platform.processor() or platform.machine() or "unknown processor"


def gpu_names() -> tuple[str, ...]:
    """Return the names of the NVIDIA GPUs from the driver, without importing torch."""
    names = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return tuple(line.strip() for line in names.splitlines() if line.strip()) if names else ()


def _memory_bytes() -> int:
    import psutil

    total = int(psutil.virtual_memory().total)
    with suppress(OSError, ValueError):
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        if limit != "max":
            total = min(total, int(limit))
    return total


def _git(root: Path, *arguments: str) -> str | None:
    return _output("git", "-C", str(root), *arguments)


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
