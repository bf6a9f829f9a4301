"""Machines for tests: namespaces with their own network, processes, host name, home folder and disk.

    with machines(tmp_path, count=2) as (head, worker):
        head.start_ray("--head")
        worker.start_ray(f"--address={head.address}:6379")
        head.run(sys.executable, "-m", "platform.sweep", ...)

Needs root, util-linux and iproute2; otherwise the test is skipped.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")
PORT = 6379
_NETWORKS = 200

# No token: only the namespaces can reach the clusters of these tests.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "XDG_CACHE_HOME")},
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
}

# The first process of a machine. SIGCHLD stays ignored, so the kernel reaps orphans.
_INIT = """set -e
name=$1 folder=$2 disk=$3
shift 3
hostname "$name"
mount --bind "$folder/hosts" /etc/hosts
mount --bind "$folder/ray" /tmp/ray
while [ "$1" != -- ]; do
    mkdir -p "$folder/own$1"
    mount --bind "$1" "$folder/own$1"
    shift
done
shift
for path; do
    mkdir -p "$folder/own$path"
    mount --rbind "$folder/own$path" "$path"
done
mount --bind "$folder" "$disk"
touch "$folder/started"
trap "" CHLD
exec sleep infinity
"""


def run(*command: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a command outside the machines; raise an error if it fails."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=timeout_s)


class Machine:
    """A set of namespaces. Its processes end with it.

    Attributes:
        name: its host name, which resolves to 127.0.1.1 on the machine itself, as on Debian.
        address: its IPv4 address on the bridge.
        folder: its disk, as the test sees it.
        disk: the same folder inside the machine: one path on every machine, with different content.
        home: its home folder inside the machine.
    """

    def __init__(self, name: str, address: str, parent: Path, bridge: str, own: Sequence[Path] = ()) -> None:
        self.name, self.address = name, address
        self.folder, self.disk = parent / name, parent / "disk"
        self.home = self.disk / "home"
        self._processes: list[subprocess.Popen[str]] = []
        self._link = f"{bridge}-{address.rpartition('.')[2]}"
        for path in (self.folder / "home", self.folder / "ray", self.disk, Path("/tmp/ray")):
            path.mkdir(parents=True, exist_ok=True)
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
        namespaces = ["--net", "--mount", "--uts", "--ipc", "--pid", "--mount-proc", "--fork", "--kill-child"]
        needed = [
            path for path in (ROOT, Path(sys.base_prefix)) if any(path.is_relative_to(each) for each in own)
        ]
        paths = [self.folder, self.disk, *needed, "--", *own]
        init = ["sh", "-c", _INIT, "init", name, *map(str, paths)]
        self._keeper = subprocess.Popen(["unshare", *namespaces, *init], stderr=subprocess.PIPE, text=True)
        self._wait_for_init()
        [first] = psutil.Process(self._keeper.pid).children()
        self._init_pid = first.pid
        peer = ["type", "veth", "peer", "name", "eth0", "netns", str(self._init_pid)]
        run("ip", "link", "add", self._link, *peer)
        run("ip", "link", "set", self._link, "master", bridge, "up")
        for words in (f"addr add {address}/24 dev eth0", "link set eth0 up", "link set lo up"):
            self.run("ip", *words.split())

    def _wait_for_init(self) -> None:
        deadline_s = time.monotonic() + 30
        while not (self.folder / "started").exists():
            if self._keeper.poll() is not None or time.monotonic() > deadline_s:
                self._keeper.kill()
                assert self._keeper.stderr is not None
                pytest.skip(f"no namespaces here: {self._keeper.stderr.read().strip()}")
            time.sleep(0.02)

    def command(self, *words: str) -> list[str]:
        """Return the command that runs `words` on this machine."""
        return ["nsenter", f"--target={self._init_pid}", "--all", f"--wd={ROOT}", *words]

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of the machine's commands."""
        return {**ENVIRONMENT, "HOME": str(self.home), **(extra or {})}

    def run(
        self, *words: str, env: Mapping[str, str] | None = None, check: bool = True, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the machine, in the project's folder, and wait for it."""
        done = subprocess.run(
            self.command(*words),
            env=self.environment(env),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout[-1000:]}{done.stderr[-3000:]}"
        return done

    def start(
        self, *words: str, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a command on the machine."""
        process = subprocess.Popen(
            self.command(*words), env=self.environment(env), text=True, start_new_session=True, **options
        )
        self._processes.append(process)
        return process

    def start_ray(
        self, *words: str, cpus: int = 1, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start Ray with `--head` or `--address=HOST:PORT`, and return at once; its output is in ray.log."""
        options = [f"--num-cpus={cpus}", f"--node-ip-address={self.address}"]
        if "--head" in words:
            options += [f"--port={PORT}", "--include-dashboard=false"]
        with (self.folder / "ray.log").open("a") as log:
            return self.start(
                *(str(RAY), "start", "--block", "--object-store-memory=100000000", *options, *words),
                env=env,
                stdout=log,
                stderr=log,
            )

    def stop_ray(self) -> None:
        """Stop every Ray process of the machine; the node leaves its cluster in order."""
        self.run(str(RAY), "stop")

    def cut_network(self) -> None:
        """Cut the machine off from the others."""
        run("ip", "link", "set", self._link, "down")

    def restore_network(self) -> None:
        """Undo `cut_network`."""
        run("ip", "link", "set", self._link, "up")

    def kill(self) -> None:
        """End all processes of the machine at once; its disk remains."""
        with suppress(ProcessLookupError):
            os.kill(self._init_pid, signal.SIGKILL)
        for process in (self._keeper, *self._processes):
            process.wait()
        if self._keeper.stderr is not None:
            self._keeper.stderr.close()
        # Until its last process has died, the network namespace keeps the other end of the link.
        subprocess.run(["ip", "link", "del", self._link], check=False, capture_output=True)


def wait_for_nodes(head: Machine, count: int, *, timeout_s: float = 120) -> None:
    """Wait until `count` nodes of the cluster are alive."""
    head.run(sys.executable, "-c", _WAIT.format(count=count, timeout_s=timeout_s), timeout_s=timeout_s + 60)


_WAIT = f"""
import time
from ray._raylet import GcsClient
deadline_s = time.monotonic() + {{timeout_s}}
while True:
    try:
        client = GcsClient(address="127.0.0.1:{PORT}")
        nodes = client.get_all_node_info(timeout=5).values()
        if sum(node.state == 0 for node in nodes) >= {{count}}:
            break
    except Exception as error:
        nodes = error
    if time.monotonic() > deadline_s:
        raise SystemExit(f"not {{count}} nodes: {{{{nodes}}}}")
    time.sleep(0.3)
"""


@contextmanager
def machines(folder: Path, *, count: int, own: Sequence[Path] = ()) -> Iterator[list[Machine]]:
    """Yield machines that are connected by a bridge.

    Args:
        folder: a new folder for their disks.
        count: number of machines.
        own: existing folders of this computer of which each machine has its own, at first empty copy, for
            example the home folder of the user database, which sshd uses. The project and the Python
            interpreter stay visible below them.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("namespaces need root, util-linux and iproute2 (apt-get install iproute2)")
    bridge, network = _new_bridge()
    started: list[Machine] = []
    try:
        run("ip", "addr", "add", f"{network}.1/24", "dev", bridge)
        run("ip", "link", "set", bridge, "up")
        for number in range(count):
            name = "sweep-head" if number == 0 else f"sweep-worker{number}"
            started.append(Machine(name, f"{network}.{11 + number}", folder, bridge, own))
        yield started
    finally:
        for machine in started:
            machine.kill()
        subprocess.run(["ip", "link", "del", bridge], check=False, capture_output=True)


def _new_bridge() -> tuple[str, str]:
    """Create a bridge with an unused name; return the name and the first three numbers of its addresses."""
    error = ""
    for number in range(_NETWORKS):
        try:
            run("ip", "link", "add", f"sweep{number}", "type", "bridge")
        except subprocess.CalledProcessError as failed:
            error = failed.stderr.strip()
            if "exists" not in error:
                break
        else:
            return f"sweep{number}", f"10.77.{number}"
    pytest.skip(f"no network namespaces here: {error}")
