"""A sweep on an MLflow server with PostgreSQL that dies during the sweep and comes back."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from platform.tracking.events import SweepOutcome, TrialStatus
from platform.tracking.mlflow_runs import MlflowObserver
from platform.tracking.mlflow_store import open_store
from tests.tracking.examples import epoch, sweep, trial

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
pytestmark = pytest.mark.skipif(
    PROGRAMS is None, reason="PostgreSQL is not installed (Debian: apt-get install postgresql)"
)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """Start PostgreSQL, which refuses to run as root, and return the URI of an empty database."""
    folder, port = Path("/tmp") / f"sweep-postgres-{os.getpid()}", free_port()
    folder.mkdir()
    prefix = []
    if getpass.getuser() == "root":
        shutil.chown(folder, "postgres")
        prefix = ["runuser", "-u", "postgres", "--"]

    def run(program, *arguments):
        subprocess.run(
            [*prefix, PROGRAMS / program, *arguments], check=True, stdout=subprocess.DEVNULL, cwd="/"
        )

    data, options = folder / "data", f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    try:
        run("initdb", "-D", data, "-U", "sweep", "-A", "trust")
        run("pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start")
        try:
            run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "sweep", "mlflow")
            yield f"postgresql://sweep:secret@127.0.0.1:{port}/mlflow"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


class Server:
    """`mlflow server` on a fixed port."""

    def __init__(self, database, artifacts):
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._words = ["--backend-store-uri", database, "--artifacts-destination", str(artifacts)]

    def start(self):
        words = [*self._words, "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for _ in range(600):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
                return
            assert self._process.poll() is None
            time.sleep(0.2)
        pytest.fail("the MLflow server does not start")

    def kill(self):
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def test_a_server_that_dies_and_comes_back(database, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folder = tmp_path / "served-20260301-120000"
    server = Server(database, tmp_path / "artifacts")
    server.start()
    try:
        observer = MlflowObserver(server.uri, close_timeout_s=120)
        observer.sweep_started(sweep(folder, space="served"))
        observer.trial_started(trial(0))
        observer.epoch_finished(trial(0), epoch(1))
        assert observer._open[1].flush(timeout_s=60) == 0
        server.kill()
        for number in (2, 3):
            observer.epoch_finished(trial(0), epoch(number))
        observer.trial_ended(trial(0), TrialStatus.FINISHED)
        assert observer._open[1].flush(timeout_s=1) > 0
        server.start()
        (tmp_path / "benchmark.json").write_text("{}")
        observer.artifact_written(tmp_path / "benchmark.json", name="benchmark")
        observer.sweep_ended(SweepOutcome(status="finished"))

        client = open_store(database)
        experiment = client.get_experiment_by_name("served").experiment_id
        [child] = client.search_runs([experiment], "tags.trial_id = 't000'")
        [parent] = client.search_runs([experiment], "tags.stage = 'sweep'")
        assert (child.info.status, parent.info.status) == ("FINISHED", "FINISHED")
        history = client.get_metric_history(child.info.run_id, "train/loss")
        assert sorted(metric.step for metric in history) == [1, 2, 3]
        assert child.data.metrics["epochs_trained"] == 3
        assert list((tmp_path / "artifacts").rglob("benchmark.json"))
    finally:
        server.kill()


def test_a_sweep_writes_to_the_database_without_keeping_the_password(database, tmp_path):
    folder = tmp_path / "direct-20260301-120000"
    observer = MlflowObserver(database)
    observer.sweep_started(sweep(folder, space="direct"))
    observer.trial_started(trial(0))
    observer.trial_ended(trial(0), TrialStatus.FAILED, error="loss is NaN")
    observer.sweep_ended(SweepOutcome(status="finished"))
    client = open_store(database)
    runs = client.search_runs([client.get_experiment_by_name("direct").experiment_id])
    assert sorted(run.info.status for run in runs) == ["FAILED", "FINISHED"]
    assert "secret" not in (folder / "mlflow.json").read_text()
