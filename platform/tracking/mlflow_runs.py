"""Record a sweep in MLflow: one parent run, and one child run per trial, found by tag after a restart.

Only the driver of the sweep writes, through `MlflowClient`; MLflow's global active run is not used. If the
store becomes unavailable during a sweep, the writes are retried in the background.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from platform.common.errors import UserError
from platform.common.steady_clock import wall_time_s
from platform.tracking.events import (
    SweepInfo,
    SweepObserver,
    SweepOutcome,
    TrialHistory,
    TrialInfo,
    TrialStatus,
    reported_accuracy,
)
from platform.tracking.mlflow_registry import register_champion
from platform.tracking.mlflow_store import experiment_id, open_store, resolve_tracking_uri, store_tracking_uri
from platform.tracking.mlflow_views import result_note, write_saved_views
from platform.tracking.mlflow_writer import SweepRuns
from platform.tracking.provenance import without_credentials
from platform.tracking.results import read_results
from platform.tracking.summary_sentences import summary_sentences
from platform.tracking.sweep_folder import SweepFolder
from platform.tracking.write_queue import WriteQueue
from platform.training.records import EpochRecord

__all__ = ["MlflowObserver", "register_champion"]

logger = logging.getLogger(__name__)

_REST_S = 5.0
"""Pause between writes. The epochs of a trial within it are written in one call, which takes about 5 ms of a
core; MLflow's pages refresh every 30 s."""


class MlflowObserver(SweepObserver):
    """Records a sweep; all writes after the start run in order on one background thread."""

    def __init__(
        self,
        tracking_uri: str | None = None,
        *,
        close_timeout_s: float = 60.0,
        system_metrics_every_s: float = 30.0,
    ) -> None:
        """Set the store; it is opened when the sweep starts.

        Args:
            tracking_uri: see `resolve_tracking_uri`.
            close_timeout_s: how long the end of a sweep waits for an unavailable store.
            system_metrics_every_s: interval at which the load of this machine is logged.

        Raises:
            UsageError: MLflow cannot use `tracking_uri`.
        """
        self.tracking_uri = resolve_tracking_uri(tracking_uri)
        self._close_timeout_s = close_timeout_s
        self._system_metrics_every_s = system_metrics_every_s
        self._ended = threading.Event()
        self._open: tuple[SweepRuns, WriteQueue] | None = None
        self._waiting: dict[str, list[tuple[EpochRecord, int]]] = {}
        """Epochs in the queue by trial, with their times. The next ones join them."""
        self._lock = threading.Lock()
        self._accuracy: dict[str, float] = {}
        self._best: list[float] = []
        self._folder = Path()

    def sweep_started(self, sweep: SweepInfo) -> None:
        """Open the store and the sweep's run; raises if the store is unavailable."""
        store_tracking_uri(sweep.folder, self.tracking_uri, opened=False)
        client = open_store(self.tracking_uri)
        store_tracking_uri(sweep.folder, self.tracking_uri, opened=True)
        experiment = experiment_id(client, self.tracking_uri, sweep.space)
        runs = SweepRuns(client, experiment, sweep)
        write_saved_views(client, experiment, sweep, time_ms=_now_ms())
        self._best = list(runs.best)
        self._folder = sweep.folder
        self._open = (
            runs,
            WriteQueue(
                store=f"MLflow ({without_credentials(self.tracking_uri)})",
                is_refusal=_is_refusal,
                rest_s=_REST_S,
            ),
        )
        self._ended.clear()
        threading.Thread(target=self._log_system_metrics, name="system-metrics", daemon=True).start()
        for path in (SweepFolder(sweep.folder).spec, SweepFolder(sweep.folder).plan):
            if path.exists():
                self.artifact_written(path, name=path.name)
        if sweep.history:
            self._backfill(sweep.history)

    def _log_system_metrics(self) -> None:
        monitors = _system_monitors()
        while not self._ended.wait(self._system_metrics_every_s):
            self._put(partial(SweepRuns.log_system_metrics, metrics=_load(monitors), time_ms=_now_ms()))

    def _backfill(self, histories: Sequence[TrialHistory]) -> None:
        """Add the events that an earlier process wrote to the journal but not to the store."""
        time_ms = _now_ms()
        self._put(lambda runs: runs.backfill(histories, time_ms=time_ms))
        delivered, self._best = len(self._best), []
        for history in histories:
            for record in history.records:
                self._update_accuracy(history.trial, record)
            if history.status is not None and self._update_best(history.trial, history.status):
                best, step = self._best[-1], len(self._best)
                ended_ms = int((history.ended_at or time_ms / 1000) * 1000)
                if step > delivered:
                    self._put(partial(SweepRuns.log_best, accuracy=best, step=step, time_ms=ended_ms))

    def trial_started(self, trial: TrialInfo) -> None:
        time_ms = _now_ms()
        self._put(lambda runs: runs.open_trial(trial, time_ms=time_ms))

    def epoch_finished(self, trial: TrialInfo, record: EpochRecord) -> None:
        self._update_accuracy(trial, record)
        with self._lock:
            waiting = self._waiting.setdefault(trial.trial_id, [])
            waiting.append((record, _now_ms()))
        if len(waiting) == 1:
            self._put(lambda runs: runs.log_epochs(trial, self._take(trial.trial_id, waiting)))

    def _take(self, trial_id: str, epochs: list[tuple[EpochRecord, int]]) -> list[tuple[EpochRecord, int]]:
        """Return waiting epochs, which no further ones can join from now on."""
        with self._lock:
            if self._waiting.get(trial_id) is epochs:
                del self._waiting[trial_id]
        return epochs

    def trial_noted(self, trial: TrialInfo, note: str) -> None:
        time_ms = _now_ms()
        self._put(lambda runs: runs.log_note(trial, note, time_ms=time_ms))

    def trial_ended(self, trial: TrialInfo, status: TrialStatus, *, error: str | None = None) -> None:
        time_ms = _now_ms()
        self._put(lambda runs: runs.close_trial(trial, status, error=error, time_ms=time_ms))
        if self._update_best(trial, status):
            best, step = self._best[-1], len(self._best)
            self._put(lambda runs: runs.log_best(best, step=step, time_ms=time_ms))

    def _update_accuracy(self, trial: TrialInfo, record: EpochRecord) -> None:
        accuracy = reported_accuracy(trial, record, self._accuracy.get(trial.trial_id))
        if accuracy is not None:
            self._accuracy[trial.trial_id] = accuracy

    def _update_best(self, trial: TrialInfo, status: TrialStatus) -> bool:
        """Update the best accuracy of the search; return whether this trial counts as a step of it."""
        accuracy = self._accuracy.get(trial.trial_id)
        counts = status in (TrialStatus.FINISHED, TrialStatus.PRUNED)
        if trial.stage != "search" or not counts or accuracy is None:
            return False
        self._best.append(max([accuracy, *self._best[-1:]]))
        return True

    def trials_diagnosed(self, findings: Mapping[str, Sequence[str]]) -> None:
        self._put(lambda runs: runs.tag_findings(findings))

    def artifact_written(self, path: Path, *, name: str) -> None:
        self._put(lambda runs: runs.log_artifact(path, name))

    def sweep_ended(self, outcome: SweepOutcome) -> None:
        """Flush the queue and close the runs."""
        if self._open is None:
            return
        self._ended.set()
        time_ms = _now_ms()
        result = _result(self._folder, outcome)
        self._put(lambda runs: runs.close(outcome, result=result, time_ms=time_ms))
        _, queue = self._open
        self._open = None
        dropped = queue.close(timeout_s=self._close_timeout_s)
        if dropped:
            logger.error(
                "%d records were not written to MLflow (%s); the tables in %s are complete",
                dropped,
                without_credentials(self.tracking_uri),
                self._folder,
            )

    def _put(self, operation: Callable[[SweepRuns], object]) -> None:
        if self._open is None:
            return
        runs, queue = self._open
        queue.put(lambda: operation(runs))


def _system_monitors() -> list[Any]:
    """Return MLflow's monitors of this machine; that of the GPUs needs a driver and `nvidia-ml-py`."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: list[Any] = []
    kinds: tuple[Any, ...] = (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor)
    for kind in kinds:
        with suppress(ImportError, RuntimeError):
            monitors.append(kind())
    return monitors


def _load(monitors: Sequence[Any]) -> dict[str, float]:
    values: dict[str, float] = {}
    for monitor in monitors:
        monitor.collect_metrics()
        values |= {f"system/{key}": value for key, value in monitor.aggregate_metrics().items()}
        monitor.clear_metrics()
    return values


def _result(folder: Path, outcome: SweepOutcome) -> str:
    """Return the result of a sweep as Markdown, from the files in its folder."""
    try:
        sentences = summary_sentences(read_results(SweepFolder(folder)))
    except UserError:
        sentences = []
    return result_note(sentences, outcome.metrics)


def _is_refusal(error: Exception) -> bool:
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]
        # 408 and 429 are temporary; 401 and 403 may end when a token is renewed.
        return 400 <= status < 500 and status not in (401, 403, 408, 429)
    return isinstance(error, FileNotFoundError)


def _now_ms() -> int:
    return int(wall_time_s() * 1000)
