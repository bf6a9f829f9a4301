"""The tracking URI of a sweep, and opening its MLflow store."""

import json
import multiprocessing

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from platform.common.errors import UsageError, UserError
from platform.space.space_files import load_space
from platform.sweep import main
from platform.tracking.mlflow_runs import MlflowObserver
from platform.tracking.mlflow_store import (
    newest_experiment,
    open_store,
    resolve_tracking_uri,
    store_tracking_uri,
    ui_command,
)
from platform.tracking.mlflow_views import write_saved_views
from platform.tracking.provenance import without_credentials
from tests.tracking.examples import sweep


def test_the_tracking_uri(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    assert resolve_tracking_uri("sqlite:///sub/x.db") == f"sqlite:///{tmp_path}/sub/x.db"
    assert resolve_tracking_uri("sqlite:////abs/x.db") == "sqlite:////abs/x.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert resolve_tracking_uri() == "http://127.0.0.1:5000"
    assert ui_command("sqlite:////a b/x.db") == "python -m platform.ui --tracking-uri 'sqlite:////a b/x.db'"
    for folder in ("file:/x", "mlruns"):
        with pytest.raises(UsageError, match="not a folder"):
            resolve_tracking_uri(folder)
    for memory in ("sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"):
        with pytest.raises(UsageError, match="must be a file, because a database in memory is lost"):
            resolve_tracking_uri(memory)


def test_a_store_that_cannot_be_opened(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="the folder of the MLflow database must exist"):
        open_store(f"sqlite:///{tmp_path}/absent/mlflow.db")
    (tmp_path / "mlflow.db").write_text("this is not a database, and long enough to have a header")
    (tmp_path / "folder.db").mkdir()
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("MLflow retries"))
    for name in ("mlflow.db", "folder.db"):
        with pytest.raises(UserError, match=r"is unavailable.*--tracking-uri"):
            open_store(f"sqlite:///{tmp_path}/{name}")
    with pytest.raises(UserError) as caught:
        open_store("postgresql://me:secret@127.0.0.1:1/x")
    assert "secret" not in str(caught.value)


def test_a_sweep_stays_in_its_store(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store_tracking_uri(tmp_path, "sqlite:////a/x.db", opened=False)
    assert resolve_tracking_uri(None, tmp_path) == "sqlite:////a/x.db"
    assert resolve_tracking_uri("sqlite:////b/x.db", tmp_path) == "sqlite:////b/x.db", "nothing is in it yet"
    store_tracking_uri(tmp_path, "sqlite:////a/x.db", opened=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////b/x.db")
    assert resolve_tracking_uri(None, tmp_path) == "sqlite:////a/x.db"
    assert resolve_tracking_uri("sqlite:////a/x.db", tmp_path) == "sqlite:////a/x.db"
    with pytest.raises(UsageError, match=r"sqlite:////a/x\.db, got sqlite:////b/x\.db: leave out"):
        resolve_tracking_uri("sqlite:////b/x.db", tmp_path)


def test_resume_refuses_another_store_before_it_reads_the_dataset(tmp_path):
    folder = tmp_path / "resnet32_cifar-20260301-120000"
    folder.mkdir()
    (folder / "spec.yaml").write_text(load_space("resnet32_cifar").to_yaml())
    store_tracking_uri(folder, "sqlite:////a/x.db", opened=True)
    words = ["--resume", folder.name, "--runs", str(tmp_path), "--tracking-uri", "sqlite:////b/x.db"]
    with pytest.raises(UsageError, match="a sweep stays in its MLflow store"):
        main([*words, "--data-dir", str(tmp_path / "absent")])


def test_credentials_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = "postgresql://me:p%40ss@db.example.org:5432/mlflow"
    store_tracking_uri(tmp_path, uri, opened=True)
    assert json.loads((tmp_path / "mlflow.json").read_text())["tracking_uri"] == (
        "postgresql://db.example.org:5432/mlflow"
    )
    assert "p%40ss" not in ui_command(uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert resolve_tracking_uri(None, tmp_path) == uri


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("--tracking-uri=http://me:a@b@host:5/x?y=1", "--tracking-uri=http://host:5/x?y=1"),
        ("postgresql://host/db?user=me&password=secret&sslmode=off", "postgresql://host/db?sslmode=off"),
        ("sqlite:////data/a@b/mlflow.db", "sqlite:////data/a@b/mlflow.db"),
    ],
)
def test_text_without_credentials(text, shown):
    assert without_credentials(text) == shown


def _start_sweeps(uri, folder, barrier):
    try:
        for space in ("race-a", "race-b"):
            barrier.wait(timeout=120)
            observer = MlflowObserver(uri)
            observer.sweep_started(sweep(folder.with_name(f"{space}-{folder.name}"), space=space))
    except BaseException:
        barrier.abort()
        raise


def test_sweeps_that_start_at_once(tmp_path):
    """Concurrent migrations of a new database, and concurrent creations of an experiment, conflict."""
    spawn, uri = multiprocessing.get_context("spawn"), f"sqlite:///{tmp_path}/mlflow.db"
    barrier = spawn.Barrier(3)
    processes = [
        spawn.Process(target=_start_sweeps, args=(uri, tmp_path / f"2026-{number}", barrier))
        for number in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=180)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    client = open_store(uri)
    assert newest_experiment(client) is not None
    for space in ("race-a", "race-b"):
        experiment = client.get_experiment_by_name(space).experiment_id
        assert len(client.search_runs([experiment], "tags.stage = 'sweep'")) == 3


def test_a_view_that_another_sweep_writes_at_the_same_moment(tmp_path, monkeypatch):
    client = open_store(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.create_experiment("race")
    set_tag, refused = client.set_experiment_tag, set()

    def refuse_once(experiment_id, key, value):
        if key not in refused:
            refused.add(key)
            raise MlflowException("UNIQUE constraint failed: experiment_tags.key", BAD_REQUEST)
        set_tag(experiment_id, key, value)

    monkeypatch.setattr(client, "set_experiment_tag", refuse_once)
    write_saved_views(client, experiment, sweep(tmp_path / "race-1", space="race"), time_ms=1)
    tags = client.get_experiment(experiment).tags
    assert refused
    assert refused <= set(tags)
