"""Two nodes in separate network namespaces, whose host names resolve to 127.0.1.1 as on Debian."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")
BRIDGE, HEAD, WORKER = "10.77.0.1", "10.77.0.11", "10.77.0.12"

# No token: `ray start` would write it to the home folder, and only the namespaces can reach this cluster.
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
}
TRAIN = """
import pathlib
import time

import ray, ray.train, ray.train.torch, torch
from platform.tuning.execution.network_interface import NodeTorchConfig

def train():
    total = torch.ones(1)
    torch.distributed.all_reduce(total)
    pathlib.Path(f"{STORAGE}-{ray.util.get_node_ip_address()}").write_text(str(total.item()))

deadline = time.monotonic() + 120
while True:
    try:
        ray.init(address=ADDRESS, log_to_driver=False)
        break
    except ConnectionError:
        if time.monotonic() > deadline:
            raise
        time.sleep(1)
while len([node for node in ray.nodes() if node["Alive"]]) < 2:
    if time.monotonic() > deadline:
        raise SystemExit("the second node did not join")
    time.sleep(0.5)
ray.train.torch.TorchTrainer(
    train,
    torch_config=NodeTorchConfig(backend="gloo", timeout_s=60),
    scaling_config=ray.train.ScalingConfig(num_workers=2, placement_strategy="STRICT_SPREAD"),
    run_config=ray.train.RunConfig(storage_path=STORAGE),
).fit()
"""


def run(*command: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=timeout_s)


class Node:
    """A network namespace with its own host name and hosts file."""

    def __init__(self, name: str, address: str, folder: Path) -> None:
        self.name, self.address, self.folder = name, address, folder / name
        self.folder.mkdir()
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
        run("ip", "netns", "add", name)
        run("ip", "link", "add", f"v-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", f"v-{name}", "master", "sweep-bridge", "up")
        for words in (f"addr add {address}/24 dev eth0", "link set eth0 up", "link set lo up"):
            run("ip", "-n", name, *words.split())

    def command(self, *words: str) -> list[str]:
        inside = f'hostname {self.name} && mount --bind {self.folder}/hosts /etc/hosts && exec "$@"'
        return [
            "ip",
            "netns",
            "exec",
            self.name,
            "unshare",
            "--uts",
            "--mount",
            "sh",
            "-c",
            inside,
            "-",
            *words,
        ]

    def start_ray(self, *words: str) -> subprocess.Popen[bytes]:
        ray = [str(RAY), "start", "--block", "--num-cpus=1", f"--node-ip-address={self.address}"]
        with (self.folder / "ray.log").open("wb") as log:
            return subprocess.Popen(
                self.command(*ray, "--object-store-memory=100000000", "--include-dashboard=false", *words)
                if "--head" in words
                else self.command(*ray, "--object-store-memory=100000000", *words),
                env=ENVIRONMENT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2 (apt-get install iproute2)")
    try:
        run("ip", "link", "add", "sweep-bridge", "type", "bridge")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    processes = []
    try:
        run("ip", "addr", "add", f"{BRIDGE}/24", "dev", "sweep-bridge")
        run("ip", "link", "set", "sweep-bridge", "up")
        head, worker = Node("sweep-head", HEAD, tmp_path), Node("sweep-worker", WORKER, tmp_path)
        temp = Path("/tmp/sweep-two-nodes")  # short, because of the length limit of socket paths
        processes = [
            head.start_ray("--head", "--port=6379", f"--temp-dir={temp}/head"),
            worker.start_ray(f"--address={HEAD}:6379", f"--temp-dir={temp}/worker"),
        ]
        yield head, worker
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
        for name in ("sweep-head", "sweep-worker"):
            for pid in subprocess.run(
                ["ip", "netns", "pids", name], check=False, capture_output=True, text=True
            ).stdout.split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), 9)
            # A dying process keeps its namespace, and the other end of the link, for a moment.
            subprocess.run(["ip", "link", "del", f"v-{name}"], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", "sweep-bridge"], check=False, capture_output=True)
        shutil.rmtree("/tmp/sweep-two-nodes", ignore_errors=True)


def test_worker_group_connects_across_two_nodes(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    head, _ = nodes
    script = tmp_path / "train.py"
    script.write_text(f"ADDRESS = '{HEAD}:6379'\nSTORAGE = {str(tmp_path / 'train')!r}\n{TRAIN}")
    done = subprocess.run(
        head.command(sys.executable, str(script)),
        check=False,
        env=ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    totals = {path.name: path.read_text() for path in tmp_path.glob("train-*")}
    assert totals == {f"train-{HEAD}": "2.0", f"train-{WORKER}": "2.0"}
