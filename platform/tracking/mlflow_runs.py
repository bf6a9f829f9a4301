"""Record a sweep in MLflow: one parent run, and one child run per trial, found by tag after a restart.

Only the driver of the sweep writes, through `MlflowClient`; MLflow's global active run is not used. If the
store becomes unavailable during a sweep, the writes are retried in the background.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from platform.common.errors import UserError
from platform.common.steady_clock import wall_time_s
from platform.tracking.events import (
    SweepInfo,
    SweepObserver,
    SweepOutcome,
    TrialInfo,
    TrialStatus,
)
from platform.tracking.mlflow_store import experiment_id, open_store, resolve_tracking_uri, store_tracking_uri
from platform.tracking.mlflow_views import result_note, write_saved_views
from platform.tracking.mlflow_writer import SweepRuns
from platform.tracking.provenance import without_credentials
from platform.tracking.results import read_results
from platform.tracking.summary_sentences import summary_sentences
from platform.tracking.sweep_folder import SweepFolder
from platform.tracking.write_queue import WriteQueue
from platform.training.records import EpochRecord

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
        node_loads: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        """Set the store; it is opened when the sweep starts.

        Args:
            tracking_uri: see `resolve_tracking_uri`.
            close_timeout_s: how long the end of a sweep waits for an unavailable store.
            system_metrics_every_s: pause after which the load of the nodes is logged again.
            node_loads: returns the load of the nodes by metric; `<address>/<metric>` for another node.

        Raises:
            UsageError: MLflow cannot use `tracking_uri`.
        """
        self.tracking_uri = resolve_tracking_uri(tracking_uri)
        self._close_timeout_s = close_timeout_s
        self._system_metrics_every_s, self._node_loads = system_metrics_every_s, node_loads
        self._ended = threading.Event()
        self._open: tuple[SweepRuns, WriteQueue] | None = None
        self._waiting: dict[str, list[tuple[EpochRecord, int]]] = {}
        """Epochs in the queue by trial, with their times. The next ones join them."""
        self._lock = threading.Lock()
        self._folder = Path()

    def sweep_started(self, sweep: SweepInfo) -> None:
        """Open the store and the sweep's run; raises if the store is unavailable."""
        store_tracking_uri(sweep.folder, self.tracking_uri, opened=False)
        client = open_store(self.tracking_uri)
        store_tracking_uri(sweep.folder, self.tracking_uri, opened=True)
        experiment = experiment_id(client, self.tracking_uri, sweep.space)
        runs = SweepRuns(client, experiment, sweep)
        write_saved_views(client, experiment, sweep, time_ms=_now_ms())
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
                self.artifact_written(path)
        if sweep.history:
            self._put(lambda runs: runs.backfill(sweep.history))

    def _log_system_metrics(self) -> None:
        while not self._ended.wait(self._system_metrics_every_s):
            loads = self._node_loads()
            self._put(partial(SweepRuns.log_system_metrics, loads=loads, time_ms=_now_ms()))

    def trial_started(self, trial: TrialInfo) -> None:
        time_ms = _now_ms()
        self._put(lambda runs: runs.open_trial(trial, time_ms=time_ms))

    def epoch_finished(self, trial: TrialInfo, record: EpochRecord) -> None:
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

    def trials_diagnosed(self, findings: Mapping[str, Sequence[str]]) -> None:
        self._put(lambda runs: runs.tag_findings(findings))

    def artifact_written(self, path: Path) -> None:
        self._put(lambda runs: runs.log_artifact(path))

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
