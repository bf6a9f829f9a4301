"""Create, find, fill and close the MLflow runs of one sweep, with `MlflowClient` only.

Every write is idempotent, because a write that timed out may have succeeded and is retried: runs are looked
up by tag before they are created, and a metric has the time of its event.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from platform.tracking.events import (
    SweepInfo,
    SweepOutcome,
    TrialHistory,
    TrialInfo,
    TrialStatus,
    reported_accuracy,
)
from platform.tracking.mlflow_views import decimal_text, sweep_note, trial_note, trial_params
from platform.tracking.provenance import user_name
from platform.training.records import EpochRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

_RUN_STATUS = {
    TrialStatus.FINISHED: "FINISHED",
    TrialStatus.PRUNED: "FINISHED",
    TrialStatus.FAILED: "FAILED",
    TrialStatus.INTERRUPTED: "KILLED",
}
_SWEEP_STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_INHERITED_TAGS = ("quick", "generated_data", "data_label", "git_commit")
# MLflow's limits (mlflow/utils/validation.py): 8000 characters per tag, 6000 per parameter, 100 parameters
# and 1000 metrics per call, 36 characters per dataset digest.
_TAG_LENGTH = 5000
_PARAM_LENGTH = 5000
_PARAMS_PER_CALL = 100
_METRICS_PER_CALL = 1000
_NOTE_LENGTH = 8000
_DIGEST_LENGTH = 36


class SweepRuns:
    """The runs of one sweep; not thread-safe. Times are Unix times in milliseconds."""

    def __init__(self, client: MlflowClient, experiment_id: str, sweep: SweepInfo) -> None:
        """Create the parent run, or reopen the existing one."""
        self._client = client
        self._experiment_id = experiment_id
        self._sweep = sweep
        self._trials: dict[str, str] = {}
        self._created: set[str] = set()
        """Trials whose runs exist, or may exist because their creation timed out."""
        self._last_step: dict[str, int] = {}
        self._results: dict[str, tuple[EpochRecord, float | None]] = {}
        """The last epoch of each open trial, and its accuracy so far."""
        self._best: list[float] = []
        """Best validation accuracy after each ended search trial, including trials before a resume."""
        known = find_sweep_run(client, experiment_id, sweep.sweep_id)
        if known is None:
            self.parent_id = self._create_parent()
        else:
            self.parent_id = str(known.info.run_id)
            self._reopen(self.parent_id)
            self._created = set(self._runs())
            history = client.get_metric_history(self.parent_id, "best/val_accuracy")
            self._best = [metric.value for metric in sorted(history, key=lambda metric: metric.step)]

    def open_trial(self, trial: TrialInfo, *, time_ms: int) -> str:
        """Return the run id of a trial; the run is created, or reopened if it exists."""
        from mlflow.entities import Metric, Param

        if trial.trial_id in self._trials:
            return self._trials[trial.trial_id]
        query = f"tags.sweep_id = '{self._sweep.sweep_id}' and tags.trial_id = '{trial.trial_id}'"
        may_exist = trial.trial_id in self._created
        known = _first(self._client, self._experiment_id, query) if may_exist else None
        self._created.add(trial.trial_id)
        if known is not None:
            run_id = str(known.info.run_id)
            self._reopen(run_id)
            history = self._client.get_metric_history(run_id, "train/loss")
            self._last_step[trial.trial_id] = max((metric.step for metric in history), default=0)
        else:
            run = self._client.create_run(
                self._experiment_id, start_time=time_ms, run_name=trial.trial_id, tags=self._tags(trial)
            )
            run_id = str(run.info.run_id)
        if known is None or not known.data.params:
            self._log_dataset(run_id)
            params = [
                Param(key, decimal_text(value)[:_PARAM_LENGTH])
                for key, value in trial_params(trial, self._sweep).items()
            ]
            costs = [Metric(f"cost/{name}", value, time_ms, 0) for name, value in trial.costs.items()]
            self._client.log_batch(run_id, params=params[:_PARAMS_PER_CALL], metrics=costs)
        self._trials[trial.trial_id] = run_id
        return run_id

    def log_epochs(self, trial: TrialInfo, epochs: Sequence[tuple[EpochRecord, int]]) -> None:
        """Log epochs and their times, with step = epoch; those logged before a resume are skipped."""
        run_id = self.open_trial(trial, time_ms=epochs[0][1])
        metrics = []
        for record, time_ms in epochs:
            _, accuracy = self._results.get(trial.trial_id, (None, None))
            self._results[trial.trial_id] = (record, reported_accuracy(trial, record, accuracy))
            if record.epoch > self._last_step.get(trial.trial_id, 0):
                metrics += _epoch_metrics(record, time_ms)
        self._log_metrics(run_id, metrics)

    def log_note(self, trial: TrialInfo, note: str, *, time_ms: int) -> None:
        """Set the note of a trial's run as a tag."""
        self._client.set_tag(self.open_trial(trial, time_ms=time_ms), "note", note[:_TAG_LENGTH])

    def close_trial(self, trial: TrialInfo, status: TrialStatus, *, error: str | None, time_ms: int) -> None:
        """End a trial's run as FINISHED (also after an early stop), FAILED, or KILLED (interrupted).

        The parent run gets the best accuracy of the search so far; step = its completed and stopped trials.
        """
        from mlflow.entities import Metric

        run_id = self.open_trial(trial, time_ms=time_ms)
        record, accuracy = self._results.get(trial.trial_id, (None, None))
        best = list(self._best)
        if trial.stage == "search" and accuracy is not None and _RUN_STATUS.get(status) == "FINISHED":
            best.append(max([accuracy, *best[-1:]]))
            metric = Metric("best/val_accuracy", best[-1], time_ms, len(best))
            self._client.log_batch(self.parent_id, metrics=[metric])
        tags = {}
        if status is TrialStatus.PRUNED and record is not None:
            tags["stopped"] = f"{self._sweep.plan.get('scheduler', 'scheduler')}, epoch {record.epoch}"
        if error:
            tags["mlflow.note.content"] = trial_note(trial, error[-_TAG_LENGTH + 1000 :])
        self._end(trial.trial_id, run_id, status, tags, time_ms=time_ms)
        if trial.candidate and trial.stage == "confirm":
            self._log_spread(trial.candidate, time_ms=time_ms)
        # If the trial starts again, its run is found by tag and reopened.
        del self._trials[trial.trial_id]
        self._results.pop(trial.trial_id, None)
        self._best = best

    def _end(
        self, trial_id: str, run_id: str, status: TrialStatus, tags: Mapping[str, str], *, time_ms: int
    ) -> None:
        """Log the final values of a trial at its last epoch, its status and further tags; end its run."""
        from mlflow.entities import Metric, RunTag

        record, accuracy = self._results.get(trial_id, (None, None))
        metrics = []
        if record is not None:
            values = {
                "val_accuracy": accuracy,
                "val_loss": record.validation_loss,
                "epochs_trained": float(record.epoch),
            }
            metrics = [Metric(key, v, time_ms, record.epoch) for key, v in values.items() if v is not None]
        all_tags = _short({"status": str(status), **tags})
        self._client.log_batch(
            run_id, metrics=metrics, tags=[RunTag(key, value) for key, value in all_tags.items()]
        )
        self._client.set_terminated(run_id, _RUN_STATUS.get(status, "FINISHED"), end_time=time_ms)

    def _log_spread(self, candidate: str, *, time_ms: int) -> None:
        """Log the standard deviation over the seeds of a candidate to each of its runs; step = seeds."""
        from mlflow.entities import Metric

        query = (
            f"tags.sweep_id = '{self._sweep.sweep_id}' and tags.stage = 'confirm' "
            f"and tags.status = '{TrialStatus.FINISHED}' and tags.candidate = '{candidate}' "
            "and metrics.val_accuracy >= 0"
        )
        runs = self._client.search_runs([self._experiment_id], query, max_results=1000)
        if len(runs) > 1:
            deviation = round(statistics.stdev(run.data.metrics["val_accuracy"] for run in runs), 5)
            spread = Metric("val_accuracy_std", deviation, time_ms, len(runs))
            for run in runs:
                self._client.log_batch(run.info.run_id, metrics=[spread])

    def backfill(self, histories: Sequence[TrialHistory]) -> None:
        """Add the events that are in the sweep's journal and not in the store.

        Writes are in order, so a closed run with the status of its trial is complete.
        """
        known = self._runs()
        for history in histories:
            run, ended = known.get(history.trial.trial_id), history.status is not None
            status = "" if run is None else run.data.tags.get("status", "")
            if (ended and status == history.status) or not (history.records or ended):
                continue
            created_ms, times = _ms(history.created_at), map(_ms, history.recorded_at)
            self.open_trial(history.trial, time_ms=created_ms)
            if history.records:
                self.log_epochs(history.trial, list(zip(history.records, times, strict=True)))
            if history.note is not None:
                self.log_note(history.trial, history.note, time_ms=created_ms)
            if history.status is not None:
                ended_ms = _ms(history.ended_at or history.created_at)
                self.close_trial(history.trial, history.status, error=history.error, time_ms=ended_ms)

    def tag_findings(self, findings: Mapping[str, Sequence[str]]) -> None:
        """Set the findings of each trial as the tag `findings` of its run."""
        known = self._runs()
        for trial_id, names in findings.items():
            if trial_id in known:
                self._client.set_tag(known[trial_id].info.run_id, "findings", ", ".join(names))

    def _runs(self) -> dict[str, Run]:
        """Return the runs of all trials by trial id."""
        query, token = f"tags.sweep_id = '{self._sweep.sweep_id}'", None
        found: dict[str, Run] = {}
        while True:
            page = self._client.search_runs([self._experiment_id], query, max_results=1000, page_token=token)
            for run in page:
                if "trial_id" in run.data.tags:
                    found[run.data.tags["trial_id"]] = run
            token = page.token
            if not token:
                return found

    def log_artifact(self, path: Path) -> None:
        """Copy a file to the artifacts of the parent run."""
        self._client.log_artifact(self.parent_id, str(path))

    def close(self, outcome: SweepOutcome, *, result: str, time_ms: int) -> None:
        """End the parent run, and the runs of running trials as interrupted.

        Args:
            outcome: the state of the sweep and its final metrics.
            result: Markdown for the description of the parent run.
            time_ms: the time of the end.
        """
        from mlflow.entities import Metric

        for trial_id, run_id in self._trials.items():
            self._end(trial_id, run_id, TrialStatus.INTERRUPTED, {}, time_ms=time_ms)
        metrics = [Metric(key, value, time_ms, 0) for key, value in outcome.metrics.items()]
        self._client.log_batch(self.parent_id, metrics=metrics)
        self._client.set_tag(self.parent_id, "status", outcome.status)
        note = sweep_note(self._sweep, result)[:_NOTE_LENGTH]
        self._client.set_tag(self.parent_id, "mlflow.note.content", note)
        if outcome.message:
            self._client.set_tag(self.parent_id, "message", outcome.message[:_TAG_LENGTH])
        self._client.set_terminated(self.parent_id, _SWEEP_STATUS[outcome.status], end_time=time_ms)

    def log_system_metrics(self, loads: Mapping[str, float], *, time_ms: int) -> None:
        """Log the load of the nodes to the parent run; step = Unix time in seconds."""
        from mlflow.entities import Metric

        values = [Metric(f"system/{key}", load, time_ms, time_ms // 1000) for key, load in loads.items()]
        self._log_metrics(self.parent_id, values)

    def _log_metrics(self, run_id: str, metrics: Sequence[Metric]) -> None:
        for first in range(0, len(metrics), _METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=metrics[first : first + _METRICS_PER_CALL])

    def _create_parent(self) -> str:
        sweep = self._sweep
        tags = {
            **sweep.tags,
            **self._source(),
            "sweep_id": sweep.sweep_id,
            "stage": "sweep",
            "status": "running",
            "folder": str(sweep.folder),
        }
        note = {"mlflow.note.content": sweep_note(sweep)[:_NOTE_LENGTH]}
        run = self._client.create_run(self._experiment_id, run_name=sweep.sweep_id, tags=_short(tags) | note)
        run_id = str(run.info.run_id)
        self._log_dataset(run_id)
        return run_id

    def _source(self) -> dict[str, str]:
        """Return MLflow's own tags of the user and the source of a run."""
        tags = {
            "mlflow.user": user_name(),
            "mlflow.source.name": "platform.sweep",
            "mlflow.source.type": "LOCAL",
        }
        commit = self._sweep.tags.get("git_commit")
        return tags | ({"mlflow.source.git.commit": commit} if commit else {})

    def _log_dataset(self, run_id: str) -> None:
        """Log the dataset as an input of a run."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        label, digest = (self._sweep.tags.get(key) for key in ("data_label", "data_sha256"))
        if label is None or digest is None:
            return
        data = self._sweep.plan.get("data") or {}
        dataset = Dataset(
            name=label,
            digest=digest[:_DIGEST_LENGTH],
            source_type="local",
            source=json.dumps({"uri": data.get("path", "")}),
            profile=json.dumps({"sha256": digest}),
        )
        context = InputTag("mlflow.data.context", "training")
        self._client.log_inputs(run_id, datasets=[DatasetInput(dataset, [context])])

    def _tags(self, trial: TrialInfo) -> dict[str, str]:
        tags = {
            **self._source(),
            "mlflow.parentRunId": self.parent_id,
            "mlflow.note.content": trial_note(trial),
            "sweep_id": self._sweep.sweep_id,
            "trial_id": trial.trial_id,
            "stage": trial.stage,
            "status": "running",
            "seed": str(trial.config.seed),
        }
        if trial.candidate:
            tags["candidate"] = trial.candidate
        inherited = {key: self._sweep.tags[key] for key in _INHERITED_TAGS if key in self._sweep.tags}
        return _short(tags | inherited)

    def _reopen(self, run_id: str) -> None:
        self._client.update_run(run_id, status="RUNNING")
        self._client.set_tag(run_id, "status", "running")


def _epoch_metrics(record: EpochRecord, time_ms: int) -> list[Metric]:
    from mlflow.entities import Metric

    values = {
        "train/loss": record.train_loss,
        "train/accuracy": record.train_accuracy,
        "val/loss": record.validation_loss,
        "val/accuracy": record.validation_accuracy,
        "lr": record.lr,
        "time/epoch_s": record.epoch_s,
        "grad_norm": record.grad_norm,
        "images_per_s": record.images_per_s,
        "mfu": record.mfu,
    }
    return [Metric(key, value, time_ms, record.epoch) for key, value in values.items() if value is not None]


def find_sweep_run(client: MlflowClient, experiment: str, sweep_id: str) -> Run | None:
    """Return the parent run of a sweep, or None."""
    return _first(client, experiment, f"tags.sweep_id = '{sweep_id}' and tags.stage = 'sweep'")


def _first(client: MlflowClient, experiment: str, query: str) -> Run | None:
    found: Sequence[Run] = client.search_runs([experiment], query, max_results=1)
    return found[0] if found else None


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def _short(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value[:_TAG_LENGTH] for key, value in tags.items()}
