"""A sweep on an MLflow server with PostgreSQL that dies during the sweep and comes back."""

from platform.tracking.events import SweepOutcome, TrialStatus
from platform.tracking.mlflow_runs import MlflowObserver
from platform.tracking.mlflow_store import open_store
from tests.tracking.examples import MlflowServer, epoch, sweep, trial


def test_a_server_that_dies_and_comes_back(database, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folder = tmp_path / "served-20260301-120000"
    server = MlflowServer(database, tmp_path / "artifacts")
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
        observer.artifact_written(tmp_path / "benchmark.json")
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
