"""Machines with an ssh server, a key, a token and the project's packages, as a user has prepared them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml

from tests.cluster.namespaces import ROOT, Machine, machines

SSHD = "/usr/sbin/sshd"
PROJECT = Path.home() / "resnet-sweep-platform"
"""The project that `ray up` copies to each machine; every machine has its own home folder."""


USER_ENVIRONMENT = {"HOME": os.environ["HOME"], "RAY_AUTH_MODE": "token"}
"""The home folder of the user database, in which ssh looks for keys, and clusters with a token."""


@contextmanager
def ssh_machines(*, count: int, with_packages: bool) -> Iterator[list[Machine]]:
    """Yield machines; the first one has the key and the token.

    Args:
        count: number of machines.
        with_packages: give each machine the environment of an earlier `ray up`, so that `make setup` installs
            the project only: the packages have 6 GB.
    """
    missing = [name for name in (SSHD, "rsync", "ssh-keygen") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"missing: {', '.join(missing)} (apt-get install openssh-server rsync)")
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    # On the disk of .venv, whose files are linked instead of copied.
    with (
        tempfile.TemporaryDirectory(dir=build, prefix="machines-") as folder,
        machines(Path(folder), count=count, own=[Path.home()]) as started,
    ):
        key = _create_key(Path(folder))
        for number, machine in enumerate(started):
            _prepare(machine, key, is_client=number == 0)
            if with_packages:
                _link_packages(machine)
        _wait_for_sshd(started)
        yield started


def home_of(machine: Machine) -> Path:
    """Return the home folder of the user database on a machine, as the test sees it."""
    return machine.folder / f"own{Path.home()}"


def _create_key(folder: Path) -> Path:
    for name in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    return folder / "key"


def _prepare(machine: Machine, key: Path, *, is_client: bool) -> None:
    home = home_of(machine)
    (home / ".ssh").mkdir(mode=0o700)
    shutil.copy(key.with_suffix(".pub"), home / ".ssh/authorized_keys")
    if is_client:
        shutil.copy(key, home / ".ssh/id_ed25519")
        shutil.copy(key.with_suffix(".pub"), home / ".ssh/id_ed25519.pub")
        (home / ".ray").mkdir()
        (home / ".ray/auth_token").touch(mode=0o600)
        (home / ".ray/auth_token").write_text("a-token-of-these-tests-which-is-long-enough-0123456789")
    (home / ".bashrc").touch()
    config = machine.folder / "sshd_config"
    config.write_text(
        f"HostKey {key.parent}/host_key\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"
        "StrictModes no\nUsePAM no\nPidFile none\n"
    )
    machine.run("mkdir", "-p", "/run/sshd")
    with (machine.folder / "sshd.log").open("w") as log:
        machine.start(SSHD, "-D", "-e", "-f", str(config), stderr=log)


def _link_packages(machine: Machine) -> None:
    project = home_of(machine) / PROJECT.name
    project.mkdir()
    venv = project / ".venv"
    subprocess.run(["cp", "-al", ROOT / ".venv", venv], check=True)
    # `make setup` writes these files in place: a link would change those of this checkout.
    (venv / "installed.project").unlink()
    (venv / "installed.lock").unlink()
    shutil.copy(ROOT / "requirements.lock", venv / "installed.lock")
    for script in (venv / "bin").iterdir():
        if script.is_file() and not script.is_symlink() and (text := _script(script)) is not None:
            mode = script.stat().st_mode
            script.unlink()
            script.write_text(text.replace(str(ROOT / ".venv"), str(PROJECT / ".venv")))
            script.chmod(mode)
    _copy_engine(home_of(machine))
    uv = shutil.which("uv") or ROOT / ".tools/uv/bin/uv"
    (project / ".tools/uv/bin").mkdir(parents=True)
    (project / ".tools/uv/bin/uv").symlink_to(uv)


def _copy_engine(home: Path) -> None:
    """Copy the engine and ncnn, which take minutes to build and whose sources the machine cannot download."""
    from deploy.engine_build.engine import ensure_engine
    from platform.data.cache import default_cache_dir

    built = ensure_engine().resnet18.parent
    target = home / PROJECT.name / built.relative_to(ROOT)
    target.mkdir(parents=True)
    for name in ("resnet18", "benchmark_ncnn", "libsweep_engine.so", "built-from.txt"):
        shutil.copy2(built / name, target / name)
    cache = home / default_cache_dir().relative_to(Path.home())
    cache.mkdir(parents=True)
    for path in default_cache_dir().glob("ncnn-*"):
        subprocess.run(["cp", "-a", path, cache], check=True)


def _script(path: Path) -> str | None:
    with suppress(UnicodeDecodeError):
        text = path.read_text()
        return text if text.startswith("#!") else None
    return None


def _wait_for_sshd(started: Sequence[Machine]) -> None:
    for machine in started:
        deadline_s = time.monotonic() + 20
        while True:
            done = started[0].run("ssh-keyscan", "-T", "2", machine.address, check=False)
            if done.stdout:
                break
            if time.monotonic() > deadline_s:
                log = (machine.folder / "sshd.log").read_text()
                pytest.fail(f"sshd does not answer on {machine.name}: {log[-500:]}")
            time.sleep(0.2)


def write_cluster_file(
    head: Machine, path: Path, *, workers: Sequence[Machine] = (), **changes: object
) -> Path:
    """Write the shipped cluster.yaml with these machines."""
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    if workers:
        config["provider"] |= {"head_ip": head.address, "worker_ips": [each.address for each in workers]}
    path.write_text(yaml.safe_dump(config | changes, sort_keys=False))
    return path


def platform_cluster(
    machine: Machine, *words: str, check: bool = True, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run `python -m platform.cluster` on a machine, in the project's folder."""
    command = [sys.executable, "-m", "platform.cluster", *words]
    return machine.run(*command, check=check, timeout_s=timeout_s, env=USER_ENVIRONMENT)
