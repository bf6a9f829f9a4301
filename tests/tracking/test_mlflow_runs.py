"""The MLflow runs of a sweep, also after a restart and an outage of the store."""

import getpass
import logging
import statistics
import threading

import pytest

from platform.common.errors import UserError
from platform.tracking import mlflow_writer
from platform.tracking.events import SweepOutcome, TrialStatus
from platform.tracking.mlflow_runs import MlflowObserver
from platform.tracking.mlflow_store import open_store
from platform.tracking.mlflow_views import decimal_text, sweep_note
from platform.tracking.mlflow_writer import find_sweep_run
from platform.training.config import Adam
from tests.tracking.examples import epoch, past, run_config, sweep, trial


@pytest.fixture
def client(mlflow_uri):
    return open_store(mlflow_uri)


def runs_of(client, space):
    experiment = client.get_experiment_by_name(space).experiment_id
    found = client.search_runs([experiment], "tags.trial_id != ''")
    parents = client.search_runs([experiment], "tags.stage = 'sweep'")
    return parents, {run.data.tags["trial_id"]: run for run in found}


def steps(client, run, key):
    return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, key)]


def test_a_complete_sweep(client, mlflow_uri, tmp_path):
    info = sweep(
        tmp_path / "whole-20260301-120000",
        space="whole",
        tags={"quick": "true", "git_commit": "abc", "data_label": "cifar10", "data_sha256": "ab" * 32},
    )
    observer = MlflowObserver(mlflow_uri)
    observer.sweep_started(info)
    good, pruned, failed = trial(0), trial(1), trial(2)
    for one in (good, pruned, failed):
        observer.trial_started(one)
    for number in (1, 2, 3):
        observer.epoch_finished(good, epoch(number))
    observer.epoch_finished(pruned, epoch(1, accuracy=0.1))
    observer.trial_noted(good, "out of GPU memory; in pieces")
    observer.trial_ended(good, TrialStatus.FINISHED)
    observer.trial_ended(pruned, TrialStatus.PRUNED)
    observer.trial_ended(failed, TrialStatus.FAILED, error="ValueError: loss is NaN; log: /runs/x.log")
    observer.trials_diagnosed({"t000": ["loss spikes", "overfitting"], "t999": ["underfitting"]})
    (tmp_path / "benchmark.json").write_text("{}")
    observer.artifact_written(tmp_path / "benchmark.json")
    observer.sweep_ended(SweepOutcome(status="finished", metrics={"test/accuracy": 0.93}))

    (parent,), children = runs_of(client, "whole")
    assert parent.info.run_name == "whole-20260301-120000"
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["quick"] == "true"
    assert parent.data.tags["mlflow.source.git.commit"] == "abc"
    assert "QUICK SWEEP" in parent.data.tags["mlflow.note.content"]
    assert parent.data.params == {}
    note = parent.data.tags["mlflow.note.content"]
    assert "| optimizer.sgd.lr | 0.01 to 1 | optimizer = sgd |" in note
    assert "| test/accuracy | 93.00 % |" in note
    assert parent.data.tags["mlflow.user"] == getpass.getuser()
    assert parent.data.metrics["test/accuracy"] == 0.93
    assert steps(client, parent, "best/val_accuracy") == [(1, pytest.approx(0.6)), (2, pytest.approx(0.6))]
    assert [item.path for item in client.list_artifacts(parent.info.run_id)] == ["benchmark.json"]

    assert {name: run.info.status for name, run in children.items()} == {
        "t000": "FINISHED",
        "t001": "FINISHED",
        "t002": "FAILED",
    }
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    assert children["t001"].data.tags["status"] == "pruned"
    assert children["t001"].data.tags["stopped"] == "asha, epoch 1"
    assert children["t001"].data.tags["mlflow.source.git.commit"] == "abc"
    assert "Search trial." in children["t001"].data.tags["mlflow.note.content"]
    assert [item.dataset.digest for item in children["t001"].inputs.dataset_inputs] == [("ab" * 32)[:36]]
    assert children["t000"].data.tags["quick"] == "true"
    assert children["t000"].data.tags["note"] == "out of GPU memory; in pieces"
    assert {name: run.data.tags.get("findings") for name, run in children.items()} == {
        "t000": "loss spikes, overfitting",
        "t001": None,
        "t002": None,
    }
    assert "/runs/x.log" in children["t002"].data.tags["mlflow.note.content"]
    assert children["t000"].data.params == {
        "optimizer": "sgd",
        "lr": "0.1",
        "log10_lr": "-1.0",
        "weight_decay": "0",
        "optimizer.beta2": "-",
        "cutout.length": "0",
        "schedule": "cosine",
        "batch_size": "128",
    }
    assert [step for step, _ in steps(client, children["t000"], "train/loss")] == [1, 2, 3]
    assert set(children["t000"].data.metrics) == {
        "train/loss",
        "train/accuracy",
        "val/loss",
        "val/accuracy",
        "lr",
        "time/epoch_s",
        "grad_norm",
        "images_per_s",
        "val_accuracy",
        "val_loss",
        "epochs_trained",
    }
    assert steps(client, children["t000"], "val_accuracy") == [(3, pytest.approx(0.6))]
    assert steps(client, children["t001"], "epochs_trained") == [(1, 1.0)]


def test_all_trials_have_the_same_parameters_and_at_most_15_metrics(client, mlflow_uri, tmp_path):
    observer = MlflowObserver(mlflow_uri)
    observer.sweep_started(sweep(tmp_path / "same-20260301-120000", space="same"))
    adam = run_config(optimizer=Adam(name="adam", lr=1e-3, beta2=0.9))
    costs = {"parameters": 1.0, "macs": 2.0, "latency_ms": 3.0}
    for one in (trial(0, costs=costs), trial(1, config=adam, params={"optimizer": "adam"})):
        observer.trial_started(one)
        observer.epoch_finished(one, epoch(1, mfu=0.4))
        observer.trial_ended(one, TrialStatus.FINISHED)
    observer.sweep_ended(SweepOutcome(status="finished"))
    _, children = runs_of(client, "same")
    first, second = (children[name].data for name in ("t000", "t001"))
    assert set(first.params) == set(second.params)
    assert (second.params["lr"], second.params["log10_lr"]) == ("0.001", "-3.0")
    assert second.params["optimizer.beta2"] == "0.9"
    assert len(first.metrics) == 15


def test_the_loads_of_all_nodes_are_logged_to_the_parent(client, mlflow_uri, tmp_path, monkeypatch):
    logged, real = threading.Event(), mlflow_writer.SweepRuns.log_system_metrics

    def log(runs, **values):
        real(runs, **values)
        logged.set()

    monkeypatch.setattr(mlflow_writer.SweepRuns, "log_system_metrics", log)
    loads = {"cpu_utilization_percentage": 40.0, "10.0.0.2/cpu_utilization_percentage": 50.0}
    observer = MlflowObserver(mlflow_uri, system_metrics_every_s=0.05, node_loads=lambda: loads)
    observer.sweep_started(sweep(tmp_path / "load-20260301-120000", space="load"))
    assert logged.wait(60)
    observer.sweep_ended(SweepOutcome(status="finished"))
    (parent,), _ = runs_of(client, "load")
    assert parent.data.metrics == {f"system/{name}": load for name, load in loads.items()}


def test_the_costs_of_a_network_are_metrics(client, mlflow_uri, tmp_path):
    observer = MlflowObserver(mlflow_uri)
    observer.sweep_started(sweep(tmp_path / "costs-20260301-120000", space="costs"))
    observer.trial_started(trial(0, costs={"parameters": 269_722, "latency_ms": 0.5}))
    observer.trial_ended(trial(0), TrialStatus.FINISHED)
    observer.sweep_ended(SweepOutcome(status="finished"))
    _, children = runs_of(client, "costs")
    assert children["t000"].data.metrics == {"cost/parameters": 269_722.0, "cost/latency_ms": 0.5}


def test_each_run_of_a_candidate_has_the_spread_over_its_seeds(client, mlflow_uri, tmp_path):
    observer = MlflowObserver(mlflow_uri)
    observer.sweep_started(sweep(tmp_path / "spread-20260301-120000", space="spread"))
    runs = [
        trial(number, stage="confirm", trial_id=f"c{1 + number // 3}-s{number % 3}", candidate=candidate)
        for number, candidate in enumerate(("t004", "t004", "t004", "t001"))
    ]
    for one, accuracy in zip(runs, (0.5, 0.7, 0.9, 0.3), strict=True):
        observer.trial_started(one)
        observer.epoch_finished(one, epoch(1, accuracy=accuracy))
        failed = one.trial_id == "c1-s2"
        observer.trial_ended(one, TrialStatus.FAILED if failed else TrialStatus.FINISHED)
    observer.sweep_ended(SweepOutcome(status="finished"))
    _, children = runs_of(client, "spread")
    found = {name: run.data.metrics.get("val_accuracy_std") for name, run in children.items()}
    spread = round(statistics.stdev((0.5, 0.7)), 5)
    assert found == {"c1-s0": spread, "c1-s1": spread, "c1-s2": None, "c2-s0": None}


def test_a_restart_continues_the_same_runs(client, mlflow_uri, tmp_path):
    info = sweep(tmp_path / "again-20260301-120000", space="again")
    first = MlflowObserver(mlflow_uri)
    first.sweep_started(info)
    first.trial_started(trial(0))
    for number in (1, 2):
        first.epoch_finished(trial(0), epoch(number))
    first.trial_started(trial(1))
    first.epoch_finished(trial(1), epoch(1, accuracy=0.5))
    first.trial_ended(trial(1), TrialStatus.FINISHED)
    first.sweep_ended(SweepOutcome(status="interrupted", message="Ctrl-C"))
    (parent,), children = runs_of(client, "again")
    assert (parent.info.status, children["t000"].info.status) == ("KILLED", "KILLED")
    assert children["t000"].data.tags["status"] == "interrupted"

    second = MlflowObserver(mlflow_uri)
    second.sweep_started(info)
    second.trial_started(trial(0))
    for number in (2, 3):
        second.epoch_finished(trial(0), epoch(number))
    second.trial_ended(trial(0), TrialStatus.FINISHED)
    second.sweep_ended(SweepOutcome(status="finished"))
    (parent,), children = runs_of(client, "again")
    assert parent.info.status == "FINISHED"
    assert sorted(children) == ["t000", "t001"]
    assert children["t000"].info.status == "FINISHED"
    assert [step for step, _ in steps(client, children["t000"], "train/loss")] == [1, 2, 3]
    assert steps(client, parent, "best/val_accuracy") == [(1, 0.5), (2, pytest.approx(0.6))]


def test_a_resume_adds_events_that_are_only_in_the_journal(client, mlflow_uri, tmp_path):
    folder = tmp_path / "killed-20260301-120000"
    first = MlflowObserver(mlflow_uri)
    first.sweep_started(sweep(folder, space="killed"))
    first.trial_started(trial(0))
    first.epoch_finished(trial(0), epoch(1))
    first.trial_started(trial(1))
    assert first._open[1].flush(timeout_s=60) == 0  # killed here: nothing is closed

    best = trial(2, config=run_config(report="best"))
    histories = (
        past(trial(0), epoch(1), epoch(2), status=TrialStatus.PRUNED),
        past(trial(1), status=TrialStatus.FAILED, error="ValueError; log: /x.log", note="in pieces"),
        past(best, epoch(1, accuracy=0.7)),
        past(trial(3)),
    )
    for _ in range(2):  # the process may die again before any other event
        again = MlflowObserver(mlflow_uri)
        again.sweep_started(sweep(folder, space="killed", history=histories))
        assert again._open[1].flush(timeout_s=60) == 0
    again.trial_started(best)
    again.epoch_finished(best, epoch(2, accuracy=0.5))
    again.trial_ended(best, TrialStatus.FINISHED)
    again.sweep_ended(SweepOutcome(status="finished"))

    (parent,), children = runs_of(client, "killed")
    assert {name: (run.info.status, run.data.tags["status"]) for name, run in children.items()} == {
        "t000": ("FINISHED", "pruned"),
        "t001": ("FAILED", "failed"),
        "t002": ("FINISHED", "finished"),
    }
    assert sorted(step for step, _ in steps(client, children["t000"], "train/loss")) == [1, 2]
    assert sorted(step for step, _ in steps(client, children["t002"], "train/loss")) == [1, 2]
    history = client.get_metric_history(children["t000"].info.run_id, "train/loss")
    assert [metric.timestamp for metric in history if metric.step == 2] == [1_020_000], "when it happened"
    assert "/x.log" in children["t001"].data.tags["mlflow.note.content"]
    assert children["t001"].data.tags["note"] == "in pieces"
    assert steps(client, parent, "best/val_accuracy") == [(1, pytest.approx(0.4)), (2, pytest.approx(0.7))]


def test_a_lost_response_causes_neither_loss_nor_duplicates(client, mlflow_uri, tmp_path, monkeypatch):
    info = sweep(tmp_path / "fault-20260301-120000", space="fault")
    observer = MlflowObserver(mlflow_uri)
    observer.sweep_started(info)
    real = type(client).log_batch
    faults = iter([True, True])

    def sometimes(self, *arguments, **options):
        real(self, *arguments, **options)
        if next(faults, False):
            # The store has completed the write, and the response is lost.
            raise ConnectionError("connection reset")

    monkeypatch.setattr(type(client), "log_batch", sometimes)
    observer.trial_started(trial(0))
    for number in (1, 2):
        observer.epoch_finished(trial(0), epoch(number))
    observer.trial_ended(trial(0), TrialStatus.FINISHED)
    observer.sweep_ended(SweepOutcome(status="finished"))
    (_,), children = runs_of(client, "fault")
    assert list(children) == ["t000"]
    assert [step for step, _ in steps(client, children["t000"], "lr")] == [1, 2]
    assert next(faults, None) is None


def test_records_dropped_by_an_outage_are_logged_at_the_end(
    client, mlflow_uri, tmp_path, monkeypatch, caplog
):
    observer = MlflowObserver(mlflow_uri, close_timeout_s=0.05)
    observer.sweep_started(sweep(tmp_path / "gone-20260301-120000", space="gone"))

    def gone(self, *arguments, **options):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(type(client), "create_run", gone)
    with caplog.at_level(logging.ERROR):
        observer.trial_started(trial(0))
        observer.epoch_finished(trial(0), epoch(1))
        observer.sweep_ended(SweepOutcome(status="finished"))
    assert "3 records were not written to MLflow" in caplog.text
    assert str(tmp_path / "gone-20260301-120000") in caplog.text


def test_the_final_run_has_no_validation_metrics(client, mlflow_uri, tmp_path):
    observer = MlflowObserver(mlflow_uri)
    observer.sweep_started(sweep(tmp_path / "final-20260301-120000", space="final"))
    final = trial(0, stage="final", trial_id="final", candidate="t003", params={})
    observer.epoch_finished(final, epoch(1, validation_loss=None, validation_accuracy=None))
    observer.trial_ended(final, TrialStatus.FINISHED)
    observer.sweep_ended(SweepOutcome(status="finished"))
    (parent,), children = runs_of(client, "final")
    assert "val/accuracy" not in children["final"].data.metrics
    assert children["final"].data.tags["candidate"] == "t003"
    assert "best/val_accuracy" not in parent.data.metrics


def test_the_error_for_a_deleted_experiment_names_the_restore_command(client, mlflow_uri, tmp_path):
    client.delete_experiment(client.create_experiment("deleted"))
    with pytest.raises(UserError, match="mlflow experiments restore"):
        MlflowObserver(mlflow_uri).sweep_started(sweep(tmp_path / "deleted-20260301-120000", space="deleted"))


def test_the_global_state_of_mlflow_is_unchanged(client, mlflow_uri, tmp_path):
    import mlflow

    before = mlflow.get_tracking_uri()
    observer = MlflowObserver(mlflow_uri)
    observer.sweep_started(sweep(tmp_path / "state-20260301-120000", space="state"))
    observer.trial_started(trial(0))
    observer.sweep_ended(SweepOutcome(status="finished"))
    assert mlflow.active_run() is None
    assert mlflow.get_tracking_uri() == before


def test_events_before_the_start_and_after_the_end_are_ignored(mlflow_uri):
    observer = MlflowObserver(mlflow_uri)
    observer.trial_started(trial(0))
    observer.sweep_ended(SweepOutcome(status="failed"))


@pytest.mark.parametrize(
    ("value", "text"), [(1e-5, "0.00001"), (0.1, "0.1"), (256, "256"), (True, "True"), (float("inf"), "inf")]
)
def test_floats_are_logged_in_decimal_notation(value, text):
    assert decimal_text(value) == text


def test_the_note_shows_the_question_the_plan_and_the_machine(tmp_path):
    search = {"runs": 4, "epochs": 3, "workers": 1, "concurrency": 2, "backend": "inproc"}
    plan = {"about": "Which is best?", "scheduler": "asha", "search": search, "provenance": {"cpu": "x"}}
    note = sweep_note(sweep(tmp_path, plan=plan, tags={"hardware": "Xeon, 2 cores"}))
    assert note.startswith("**Which is best?**")
    assert "| search | 4 | 3 | 1 | 2 | inproc |" in note
    assert "| scheduler | asha |" in note
    assert "| machine | Xeon, 2 cores |" in note
    assert "cpu" not in note


def test_a_sweep_is_found_only_by_its_exact_id(client, mlflow_uri, tmp_path):
    observer = MlflowObserver(mlflow_uri)
    observer.sweep_started(sweep(tmp_path / "own-20260301-120000", space="own"))
    observer.sweep_ended(SweepOutcome(status="finished"))
    experiment = client.get_experiment_by_name("own").experiment_id
    assert mlflow_writer.find_sweep_run(client, experiment, "own-20260301-120000-2") is None
    assert find_sweep_run(client, experiment, "own-20260301-120000") is not None


def test_epochs_that_wait_are_written_together(client, mlflow_uri, tmp_path, monkeypatch):
    observer = MlflowObserver(mlflow_uri)
    observer.sweep_started(sweep(tmp_path / "batched-20260301-120000", space="batched"))
    for number in (0, 1):
        observer.trial_started(trial(number))
    runs, queue = observer._open
    assert queue.flush(timeout_s=60) == 0
    released, sizes, log_batch = threading.Event(), [], runs._client.log_batch

    def counted(run_id, metrics=(), **others):
        sizes.append(len(metrics))
        log_batch(run_id, metrics=metrics, **others)

    monkeypatch.setattr(runs._client, "log_batch", counted)
    queue.put(lambda: released.wait(60))  # a slow store
    for number in range(1, 151):
        for one in (trial(0), trial(1)):
            observer.epoch_finished(one, epoch(number, epochs=150))
    released.set()
    assert queue.flush(timeout_s=60) == 0
    assert sizes == [1000, 200] * 2, "8 metrics per epoch; MLflow accepts 1000 in a call"
    observer.epoch_finished(trial(0), epoch(151))
    observer.sweep_ended(SweepOutcome(status="interrupted"))
    _, children = runs_of(client, "batched")
    logged = [step for step, _ in steps(client, children["t000"], "train/loss")]
    assert sorted(logged) == [*range(1, 152)]
