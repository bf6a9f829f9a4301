"""`ray up` through `platform.cluster`, with real ssh servers in namespaces.

One machine: up, a sweep, fetch, down. With CLUSTER_TESTS=all also three machines that share nothing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.namespaces import Machine
from tests.cluster.ssh_machines import (
    PROJECT,
    USER_ENVIRONMENT,
    home_of,
    platform_cluster,
    ssh_machines,
    write_cluster_file,
)
from tests.sweep.examples import TINY

pytestmark = pytest.mark.timeout(1800)

MAY_LISTEN = {"sshd", "gcs_server", "raylet", "ray::DashboardA", "ray::RuntimeEnv", "python"}
READ_STORE = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1])
experiments = [each.experiment_id for each in client.search_experiments()]
[sweep] = client.search_runs(experiments, "tags.stage = 'sweep'")
names = [each.path for each in client.list_artifacts(sweep.info.run_id)]
[version] = client.search_model_versions()
with open(client.download_artifacts(sweep.info.run_id, "export/model.json")) as file:
    model = json.load(file)
print(json.dumps({"artifacts": names, "source": version.source, "name": model["name"]}))
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with ssh_machines(count=1, with_packages=True) as (only,):
        (only.folder / "tiny.yaml").write_text(TINY)
        yield only


def ray_processes(machine: Machine) -> list[str]:
    found = machine.run("ps", "-eo", "stat,args").stdout.splitlines()
    alive = [line for line in found if not line.startswith("Z")]  # a zombie has ended
    return [line for line in alive if re.search(r"gcs_server|raylet|ray::|ray/dashboard|monitor\.py", line)]


def listeners(machine: Machine) -> list[tuple[str, str]]:
    """Return the address and the program of each listening socket."""
    lines = machine.run("ss", "-Hltnp").stdout.splitlines()
    return [(line.split()[3], re.findall(r'\("([^"]+)"', line)[0]) for line in lines]


def sweep_command(*words: str) -> list[str]:
    return [sys.executable, "-m", "platform.cluster", "sweep", *words]


def wait_for(path: Path, text: str, *, timeout_s: float) -> str:
    deadline_s = time.monotonic() + timeout_s
    while text not in (said := path.read_text()):
        assert time.monotonic() < deadline_s, f"{text!r} is missing in: {said[-2000:]}"
        time.sleep(0.3)
    return said


def test_one_machine(machine: Machine) -> None:
    """As documented: check, up, sweep, a closed terminal, the sweep again, status, fetch, down."""
    tiny = str(machine.disk / "tiny.yaml")
    checked = platform_cluster(machine, "check")
    assert "no problem found" in checked.stdout

    up = platform_cluster(machine, "up", timeout_s=600)
    assert "1 of 1 machines have joined" in up.stdout
    open_to_all = {
        (host, program)
        for host, program in listeners(machine)
        if not host.startswith(("127.", "[::ffff:127."))
    }
    assert {program for _, program in open_to_all} <= MAY_LISTEN - {"python", "ray::RuntimeEnv"}, open_to_all
    wrong = machine.run(
        *(sys.executable, "-m", "platform.sweep", tiny, "--dry-run"),
        env={**USER_ENVIRONMENT, "RAY_ADDRESS": "127.0.0.1:6379", "RAY_AUTH_TOKEN": "another-token"},
        check=False,
    )
    assert wrong.returncode == 1
    assert "token" in wrong.stderr
    assert "Traceback" not in wrong.stderr

    # The terminal is closed: Ctrl-C detaches, the sweep continues.
    log = machine.folder / "first.log"
    with log.open("w") as out:
        first = machine.start(*sweep_command(tiny), env=USER_ENVIRONMENT, stdout=out, stderr=out)
        wait_for(log, "job sweep-", timeout_s=120)
        os.killpg(first.pid, signal.SIGINT)
        first.wait(30)
    wait_for(log, "detached; the sweep continues", timeout_s=30)
    other = platform_cluster(machine, "sweep", "resnet18_cifar", "--quick", check=False)
    assert other.returncode == 1
    assert "one sweep runs on a cluster at a time" in other.stderr
    refused = platform_cluster(machine, "down", check=False)
    assert refused.returncode == 1
    assert "a sweep is running on 127.0.0.1" in refused.stderr

    again = platform_cluster(machine, "sweep", tiny, timeout_s=900)
    job = re.findall(r"job (sweep-\S+):", log.read_text())[0]
    assert re.search(rf"job {job}: succeeded", again.stdout)
    assert "Test accuracy" in again.stdout
    status = platform_cluster(machine, "status").stdout
    assert re.search(r"tiny-\S+ +finished", status)
    assert "running sweep: none" in status

    runs = machine.disk / "fetched"
    fetched = platform_cluster(machine, "fetch", "--runs", str(runs))
    (folder,) = (machine.folder / "fetched").glob("tiny-*")
    assert f"{runs}/{folder.name}" in fetched.stdout
    assert json.loads((folder / "state.json").read_text())["state"] == "finished"
    store = f"sqlite:///{runs}/mlflow-resnet-sweep/mlflow.db"
    assert json.loads((folder / "mlflow.json").read_text())["tracking_uri"] == store
    shutil.move(
        home_of(machine) / PROJECT.name / "mlartifacts", machine.folder / "moved"
    )  # the copies are read
    read = json.loads(machine.run(sys.executable, "-c", READ_STORE, store).stdout)
    assert {"export", "benchmark.json"} <= set(read["artifacts"])
    assert read["source"].startswith(f"file://{runs}/mlflow-resnet-sweep/")
    assert read["name"] == "resnet20_cifar"
    report = machine.run(sys.executable, "-m", "platform.report", folder.name, "--runs", str(runs)).stdout
    assert report.strip() == f"{runs}/{folder.name}/report.html"

    platform_cluster(machine, "down", timeout_s=300)
    assert ray_processes(machine) == []
    gone = platform_cluster(machine, "sweep", tiny, check=False)
    assert "Ray does not run on the head" in gone.stderr


def test_commands_of_ray_with_a_name_in_the_file(machine: Machine) -> None:
    """`ray up FILE` with the documented change: the name of the user."""
    path = machine.folder / "cluster.yaml"
    write_cluster_file(machine, path)
    text = path.read_text()
    machine.run("sh", "-c", f'sed -i "s/ssh_user: .*/ssh_user: $(id -un)/" {machine.disk}/cluster.yaml')
    assert path.read_text() != text
    ray = str(Path(sys.executable).with_name("ray"))
    there = str(machine.disk / "cluster.yaml")
    machine.run(ray, "up", "-y", there, env=USER_ENVIRONMENT, timeout_s=600)
    status = machine.run(ray, "exec", there, "ray status", env=USER_ENVIRONMENT, timeout_s=120)
    assert "CPU" in status.stdout
    machine.run(ray, "down", "-y", there, env=USER_ENVIRONMENT, timeout_s=300)
    assert ray_processes(machine) == []


ONE_CPU = {"resources_per_worker": {"CPU": 1}}
SPACES = {
    "eight": yaml.safe_load(TINY) | ONE_CPU | {"trials": 8, "concurrent_trials": 3},
    "two_nodes": yaml.safe_load(TINY) | ONE_CPU | {"final": {"workers_per_run": 2}},
}


@pytest.mark.skipif(os.environ.get("CLUSTER_TESTS") != "all", reason="needs 7 minutes: CLUSTER_TESTS=all")
def test_three_machines_that_share_nothing() -> None:
    """Up, a sweep of eight trials over all machines, a data-parallel run over two of them, down."""
    with ssh_machines(count=3, with_packages=True) as (head, *workers):
        for name, space in SPACES.items():
            (head.folder / f"{name}.yaml").write_text(yaml.safe_dump(space))
        file = str(head.disk / "cluster.yaml")
        # One CPU each, so that trials need all machines and two workers two of them.
        config = yaml.safe_load(
            write_cluster_file(head, head.folder / "cluster.yaml", workers=workers).read_text()
        )
        for kind in ("head", "worker"):
            commands = config[f"{kind}_start_ray_commands"]
            commands[-1] = commands[-1].replace(
                "ray start", "ray start --num-cpus=1 --object-store-memory=200000000"
            )
        (head.folder / "cluster.yaml").write_text(yaml.safe_dump(config))

        assert "no problem found" in platform_cluster(head, "check", file).stdout
        up = platform_cluster(head, "up", file, timeout_s=600)
        assert "3 of 3 machines have joined" in up.stdout
        for space in SPACES:
            words = ["sweep", "--cluster", file, str(head.disk / f"{space}.yaml")]
            done = platform_cluster(head, *words, timeout_s=900)
            assert "succeeded" in done.stdout, done.stdout[-3000:]
        platform_cluster(head, "fetch", file, "--runs", str(head.disk / "fetched"))
        for space in SPACES:
            (folder,) = (head.folder / "fetched").glob(f"{space}-*")
            assert json.loads((folder / "state.json").read_text())["state"] == "finished"
            assert (folder / "test.json").exists()
        for worker in workers:  # each has trained
            assert list((home_of(worker) / ".cache/resnet-sweep-platform/datasets").glob("generated-*"))
        platform_cluster(head, "down", file, timeout_s=300)
        for machine in (head, *workers):
            assert ray_processes(machine) == []
