"""Nodes that join and leave during a search, a cut network, a lost head, clusters that refuse a driver."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from platform.tracking.events import TrialStatus
from platform.tuning.journal.journal import read_journal
from platform.tuning.journal.ledger import replay
from tests.cluster.namespaces import PORT, Machine, machines, wait_for_nodes

NO_COMMANDS = (
    "cluster_synced_files",
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
    "rsync_exclude",
    "rsync_filter",
)
"""Keys of a cluster file that Ray's autoscaler requires."""
FOLDER = "runs/tiny-20260101-000000"
LONG = 150
"""Epochs of a trial that must outlast the start of a node."""
JOIN = """
from platform.common.errors import run_command
from platform.tuning.execution.cluster_session import session

def main():
    with session():
        pass

run_command(main)
"""

long = pytest.mark.skipif(os.environ.get("CLUSTER_TESTS") != "all", reason="takes minutes; CLUSTER_TESTS=all")


class Search:
    """A running search on the head, and the lines that it has printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.lines: list[str] = []
        self._process = process
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip())

    def wait_for(self, *texts: str, timeout_s: float = 180) -> None:
        """Wait until each text has been printed."""
        deadline_s = time.monotonic() + timeout_s
        while not all(any(text in line for line in self.lines) for text in texts):
            assert time.monotonic() < deadline_s, f"not all of {texts}: {self.lines[-30:]}"
            assert self._process.poll() is None or self._reader.is_alive(), self.lines[-30:]
            time.sleep(0.1)

    def end(self, timeout_s: float = 180) -> int:
        """Wait for the end; return the exit code."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGUSR2)  # prints the stacks of its threads
            time.sleep(2)
            pytest.fail(f"the search does not end: {self.lines[-80:]}")
        self._reader.join()
        return code

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self.end()
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextmanager
def searching(head: Machine, *, trials: int, epochs: int) -> Iterator[Search]:
    process = head.start(
        *(
            sys.executable,
            "-m",
            "tests.cluster.nodes_program",
            str(head.disk / FOLDER),
            str(trials),
            str(epochs),
        ),
        env={"RAY_ADDRESS": f"{head.address}:{PORT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    search = Search(process)
    try:
        yield search
    finally:
        search.kill()


def epochs_of(head: Machine) -> dict[str, list[int]]:
    """Return the journaled epochs of each trial; every trial must have finished."""
    trials = replay(read_journal(head.folder / FOLDER / "journal.jsonl")).trials
    assert {trial.status for trial in trials.values()} == {TrialStatus.FINISHED}
    return {name: [record.epoch for record in trial.records] for name, trial in trials.items()}


@pytest.mark.timeout(600)
def test_a_late_node_is_used_and_its_trial_continues_elsewhere_when_it_dies(tmp_path: Path) -> None:
    with machines(tmp_path, count=2) as (head, worker):
        head.start_ray("--head")
        wait_for_nodes(head, 1)
        with searching(head, trials=2, epochs=LONG) as search:
            search.wait_for("t000 epoch 1")
            assert search.lines[0] == "nodes: 1"
            worker.start_ray(f"--address={head.address}:{PORT}")
            search.wait_for(f"node {worker.address} has joined (1 CPU); trials at a time: 2", "t001 epoch 2")
            assert not any("t000 finished" in line for line in search.lines)
            worker.kill()
            search.wait_for(f"node {worker.address} has left; trials at a time: 1")
            assert search.end() == 0, search.lines[-30:]
        [restart] = [line for line in search.lines if line.startswith("t001 continues after epoch ")]
        assert restart.endswith(f" on {head.address}: its process or its node was lost")
    assert epochs_of(head) == {name: [*range(1, LONG + 1)] for name in ("t000", "t001")}


@long
@pytest.mark.timeout(900)
def test_a_search_survives_a_network_that_is_cut_for_twenty_seconds(tmp_path: Path) -> None:
    with machines(tmp_path, count=2) as (head, worker):
        head.start_ray("--head")
        worker.start_ray(f"--address={head.address}:{PORT}")
        wait_for_nodes(head, 2)
        with searching(head, trials=2, epochs=60) as search:
            search.wait_for("t000 epoch 3", "t001 epoch 3")
            worker.cut_network()
            time.sleep(20)
            worker.restore_network()
            assert search.end(150) == 0, search.lines[-30:]
    assert epochs_of(head) == {"t000": [*range(1, 61)], "t001": [*range(1, 61)]}


@long
@pytest.mark.timeout(900)
def test_a_search_whose_head_was_lost_resumes_without_repeating_what_had_finished(tmp_path: Path) -> None:
    with machines(tmp_path, count=1) as [head]:
        head.start_ray("--head")
        wait_for_nodes(head, 1)
        with searching(head, trials=2, epochs=20) as search:
            search.wait_for("t000 finished", "t001 epoch 3")
            before = len(search.lines)
            head.stop_ray()
            assert search.end(90) == 1
            messages = [line for line in search.lines[before:] if " epoch " not in line]
            assert len(messages) == 1, messages
            assert f"RAY_ADDRESS={head.address}:{PORT} no longer answers" in messages[0]
        head.start_ray("--head")
        wait_for_nodes(head, 1)
        with searching(head, trials=2, epochs=20) as search:
            assert search.end() == 0, search.lines[-30:]
        assert not any("t000" in line or line == "t001 epoch 1" for line in search.lines), search.lines
    assert epochs_of(head) == {"t000": [*range(1, 21)], "t001": [*range(1, 21)]}


@long
@pytest.mark.timeout(900)
def test_the_autoscaler_starts_nodes_for_the_trials_and_stops_them_after_the_search(tmp_path: Path) -> None:
    node = {"resources": {"CPU": 1, "object_store_memory": 100_000_000}, "node_config": {}, "max_workers": 2}
    config = {
        "cluster_name": "fake",
        "provider": {"type": "fake_multinode"},
        "available_node_types": {"head": {"resources": {}, "node_config": {}, "max_workers": 0}, "cpu": node},
        "head_node_type": "head",
        "max_workers": 2,
        "idle_timeout_minutes": 0.1,
        "upscaling_speed": 1,
        "auth": {},
        "file_mounts": {},
        **{key: [] for key in NO_COMMANDS},
    }
    with machines(tmp_path, count=1) as [head]:
        (head.folder / "autoscaler.json").write_text(json.dumps(config))
        head.start_ray(
            *("--head", f"--autoscaling-config={head.disk / 'autoscaler.json'}"),
            cpus=0,
            env={"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"},
        )
        wait_for_nodes(head, 1)
        with searching(head, trials=2, epochs=5) as search:
            assert search.end(400) == 0, search.lines[-30:]
        assert search.lines[0] == "nodes: 3"
        assert any(" has joined (1 CPU); trials at a time: " in line for line in search.lines), search.lines
        deadline_s = time.monotonic() + 90
        while alive(head) > 1:
            assert time.monotonic() < deadline_s, "the nodes still run"
            time.sleep(1)
    assert epochs_of(head) == {"t000": [*range(1, 6)], "t001": [*range(1, 6)]}


def alive(head: Machine) -> int:
    """Return the number of nodes that are alive."""
    client = f"GcsClient(address='127.0.0.1:{PORT}').get_all_node_info(timeout=10)"
    program = f"from ray._raylet import GcsClient; print(sum(node.state == 0 for node in {client}.values()))"
    return int(head.run(sys.executable, "-c", program).stdout)


@pytest.mark.timeout(300)
def test_a_cluster_that_refuses_or_does_not_answer_is_one_message_within_seconds(tmp_path: Path) -> None:
    with machines(tmp_path, count=2) as (head, other):
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 32}
        head.start_ray("--head", env=token)
        nowhere = head.address.rpartition(".")[0] + ".99"
        for address in (f"{other.address}:{PORT}", f"{nowhere}:{PORT}"):
            assert "no answer" in join(head, address, {})
        deadline_s = time.monotonic() + 60
        while "no answer" in join(other, f"{head.address}:{PORT}", {}):
            assert time.monotonic() < deadline_s, "the cluster does not start"
        for wrong in (token | {"RAY_AUTH_TOKEN": "b" * 32}, {}):
            message = join(head, f"{head.address}:{PORT}", wrong)
            assert "the token of this machine was refused; copy ~/.ray/auth_token from the head" in message
        message = join(other, f"{head.address}:{PORT}", token)
        assert f"this machine is not one of its nodes ({head.address}); run the sweep on its head" in message


def join(machine: Machine, address: str, env: dict[str, str]) -> str:
    """Return the message of a driver that cannot join a cluster."""
    began_s = time.monotonic()
    done = machine.run(sys.executable, "-c", JOIN, env={"RAY_ADDRESS": address, **env}, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    [message] = done.stderr.splitlines()
    assert time.monotonic() - began_s < 40, "with the imports, on a busy machine"
    return message
