"""The tables of a sweep as Parquet files, replaced atomically soon after every event.

They are written in the background, at most a twentieth of the time: with a few trials at once, with 1,000
every few seconds. A resume adds what a killed process has not written.

`trials.parquet`, one row per trial, in order of stage and number:

    trial_id             string     `t007` (search), `c1-s0` (confirmation), `final`
    stage                string     search, confirm or final
    number               int64      order of creation within its stage, from 0
    candidate            string     in the confirmation: the search trial that is retrained; else null
    status               string     running, finished, pruned, failed, interrupted
    validation_accuracy  float64    0..1, of the last epoch (of the best one if the configuration
                                    has `report: best`); null without a validation split
    validation_loss      float64    mean cross-entropy in nats, of the same epoch
    epochs_done          int64
    epochs_planned       int64      null before the first epoch
    started_at           timestamp  UTC, of the first start
    ended_at             timestamp  UTC; null while the trial runs
    duration_s           float64    wall seconds, the sum over all starts
    starts               int64      1 plus the number of resumes
    error                string     traceback and log path of a failed trial; else null
    note                 string     for example on gradient accumulation after the trial ran out of GPU
                                    memory; else null
    params               string     the searched settings as JSON, exactly as sampled
    params.<path>                   one column per searched setting (`params.optimizer.sgd.lr`),
                                    null if the trial does not have it
    costs                string     costs of the network as JSON, by objective of the space; `{}` if
                                    accuracy is the only objective
    costs.<objective>               one column per cost (`costs.parameters`)
    config               string     the complete RunConfig as JSON

`epochs.parquet`, one row per epoch of a trial, in the same order: `trial_id`, `stage`, then the fields of
`platform.training.records.EpochRecord` (epoch, epochs, step, lr, train_loss, ...).
An epoch that a resumed trial repeats replaces its earlier row.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from platform.common.atomic import replacing
from platform.common.errors import UserError
from platform.common.steady_clock import wall_time
from platform.tracking.events import (
    Stage,
    SweepInfo,
    SweepObserver,
    SweepOutcome,
    TrialHistory,
    TrialInfo,
    TrialStatus,
)
from platform.tracking.sweep_folder import SweepFolder
from platform.tracking.write_queue import WriteQueue
from platform.training.config import RunConfig
from platform.training.records import EpochRecord


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One row of trials.parquet; the module docstring describes the columns."""

    trial_id: str
    stage: Stage
    number: int
    candidate: str | None
    status: TrialStatus
    validation_accuracy: float | None = None
    validation_loss: float | None = None
    epochs_done: int = 0
    epochs_planned: int | None = None
    started_at: datetime
    ended_at: datetime | None = None
    duration_s: float = 0.0
    starts: int = 1
    error: str | None = None
    note: str | None = None
    params: Mapping[str, str | int | float | bool]
    costs: Mapping[str, float] = field(default_factory=dict)
    config: Mapping[str, Any]

    @property
    def completed(self) -> bool:
        """Whether the trial ran all epochs, so that its accuracy is comparable."""
        return self.status is TrialStatus.FINISHED

    @property
    def paused_s(self) -> float:
        """Seconds between the starts of a resumed trial; 0 while it runs."""
        if self.starts == 1 or self.ended_at is None:
            return 0.0
        return max(0.0, (self.ended_at - self.started_at).total_seconds() - self.duration_s)

    @property
    def validation_percent(self) -> float:
        """Validation accuracy in percent; 0 without one."""
        return 100 * (self.validation_accuracy or 0.0)

    def run_config(self) -> RunConfig:
        """Return the validated configuration of the trial."""
        return RunConfig.model_validate(self.config)


def read_trials(folder: SweepFolder) -> list[TrialRow]:
    """Return the trials of a sweep in order of stage and number; empty if the table does not exist.

    Raises:
        UserError: the file is not a valid table.
    """
    return [
        TrialRow(
            **{name: row[name] for name in _TRIAL_FIELDS if name not in ("status", *_JSON_FIELDS)},
            status=TrialStatus(row["status"]),
            **{name: json.loads(row[name]) for name in _JSON_FIELDS},
        )
        for row in _read(folder.trials)
    ]


def read_epochs(folder: SweepFolder) -> dict[str, list[EpochRecord]]:
    """Return the epochs of each trial in order, by trial id; empty if the table does not exist.

    Raises:
        UserError: the file is not a valid table.
    """
    epochs: dict[str, list[EpochRecord]] = {}
    for row in _read(folder.epochs):
        record = EpochRecord(**{name: row[name] for name in _EPOCH_FIELDS if name in row})
        epochs.setdefault(row["trial_id"], []).append(record)
    return epochs


class TableWriter(SweepObserver):
    """Writes both tables in a background thread; continues existing tables of the same sweep."""

    def __init__(self, folder: SweepFolder, *, now: Callable[[], datetime] = wall_time) -> None:
        self._folder, self._now = folder, now
        self._rows = {row.trial_id: row for row in read_trials(folder)}
        self._epochs = read_epochs(folder)
        self._last_seen: dict[str, datetime] = {}
        # The driver's thread changes the rows and epochs, the thread of the queue writes them.
        self._lock = threading.Lock()
        self._queue = WriteQueue(store=f"the folder {folder.path}", busy_share=_BUSY_SHARE)
        self._arrow: Any = None  # the epochs of the last write
        self._new: list[tuple[str, EpochRecord]] = []  # those since then, with their trials
        self._convert_all, self._is_queued = True, False

    def flush(self) -> None:
        """Wait until the tables are written, or for `_FLUSH_TIMEOUT_S` if the disk is full."""
        self._queue.flush(timeout_s=_FLUSH_TIMEOUT_S)

    def sweep_started(self, sweep: SweepInfo) -> None:
        with self._lock:
            for history in sweep.history:
                if history.records or history.status is not None:
                    self._backfill(history)
            self._changed()
        self.flush()

    def _backfill(self, history: TrialHistory) -> None:
        """Add the events that an earlier process wrote to the journal but not to the tables."""
        trial_id = history.trial.trial_id
        row = self._rows.get(trial_id) or _new_row(
            history.trial, _datetime(history.created_at) or self._now()
        )
        if history.records and self._epochs.get(trial_id) != list(history.records):
            known = {record.epoch for record in self._epochs.get(trial_id, [])}
            missed = [record for record in history.records if record.epoch not in known]
            self._epochs[trial_id], self._convert_all = list(history.records), True
            row = replace(
                _with_epochs(row, history.records, history.trial.config),
                duration_s=row.duration_s + sum(record.epoch_s + record.evaluation_s for record in missed),
            )
        if history.status is not None and row.status in (TrialStatus.RUNNING, TrialStatus.INTERRUPTED):
            row = replace(
                row,
                status=history.status,
                error=history.error,
                ended_at=_datetime(history.ended_at) or self._now(),
            )
        self._rows[trial_id] = replace(row, note=history.note or row.note)

    def trial_started(self, trial: TrialInfo) -> None:
        with self._lock:
            self._start(trial)
            self._changed()

    def _start(self, trial: TrialInfo) -> TrialRow:
        now = self._now()
        row = _new_row(trial, now)
        known = self._rows.get(trial.trial_id)
        if known is not None:
            row = replace(
                known,
                status=TrialStatus.RUNNING,
                ended_at=None,
                error=None,
                starts=known.starts + 1,
                params=row.params,
                config=row.config,
            )
        self._rows[trial.trial_id], self._last_seen[trial.trial_id] = row, now
        return row

    def epoch_finished(self, trial: TrialInfo, record: EpochRecord) -> None:
        with self._lock:
            row = self._rows.get(trial.trial_id) or self._start(trial)
            records = self._epochs.setdefault(trial.trial_id, [])
            if records and records[-1].epoch >= record.epoch:
                # A trial that resumed from a checkpoint repeats the epochs after it.
                records[:] = [known for known in records if known.epoch < record.epoch]
                self._convert_all = True
            records.append(record)
            self._new.append((trial.trial_id, record))
            row = _with_epochs(row, records, trial.config)
            self._rows[trial.trial_id] = replace(row, duration_s=self._duration(trial.trial_id))
            self._changed()

    def trial_noted(self, trial: TrialInfo, note: str) -> None:
        with self._lock:
            row = self._rows.get(trial.trial_id) or self._start(trial)
            self._rows[trial.trial_id] = replace(row, note=note)
            self._changed()

    def trial_ended(self, trial: TrialInfo, status: TrialStatus, *, error: str | None = None) -> None:
        with self._lock:
            row = self._rows.get(trial.trial_id) or self._start(trial)
            duration_s = self._duration(trial.trial_id)
            self._rows[trial.trial_id] = replace(
                row, status=status, error=error, ended_at=self._now(), duration_s=duration_s
            )
            self._changed()
        if trial.stage == "final":
            self.flush()  # what follows the final run reads the tables

    def sweep_ended(self, outcome: SweepOutcome) -> None:  # noqa: ARG002 - signature of SweepObserver
        self.flush()

    def _duration(self, trial_id: str) -> float:
        now = self._now()
        elapsed_s = (now - self._last_seen.get(trial_id, now)).total_seconds()
        self._last_seen[trial_id] = now
        return self._rows[trial_id].duration_s + max(0.0, elapsed_s)

    def _changed(self) -> None:
        if not self._is_queued:
            self._queue.put(self._save)
        self._is_queued = True

    def _save(self) -> None:
        import pyarrow as pa

        with self._lock:
            self._is_queued = False
            # Sorted, because concurrent trials start in any order and repeated sweeps must have equal tables.
            rows = sorted(self._rows.values(), key=lambda row: (_STAGES.index(row.stage), row.number))
            new, self._new = self._new, []
            if self._convert_all:
                new = [(name, record) for name, records in self._epochs.items() for record in records]
                self._convert_all, self._arrow = False, _epochs_table([], {})
        added = _epochs_table(new, {row.trial_id: row.stage for row in rows})
        self._arrow = _sorted_by_trial(pa.concat_tables([self._arrow, added]), rows)
        _write(self._folder.trials, _trials_table(rows))
        _write(self._folder.epochs, self._arrow)


_STAGES: tuple[Stage, ...] = get_args(Stage)
_TRIAL_FIELDS = tuple(each.name for each in fields(TrialRow))
_JSON_FIELDS = ("params", "costs", "config")
_EPOCH_FIELDS = tuple(each.name for each in fields(EpochRecord))
_BUSY_SHARE = 0.05
_FLUSH_TIMEOUT_S = 30.0


def _new_row(trial: TrialInfo, started_at: datetime) -> TrialRow:
    return TrialRow(
        trial_id=trial.trial_id,
        stage=trial.stage,
        number=trial.number,
        candidate=trial.candidate,
        status=TrialStatus.RUNNING,
        started_at=started_at,
        params=dict(trial.params),
        costs=dict(trial.costs),
        config=trial.config.model_dump(mode="json"),
    )


def _with_epochs(row: TrialRow, records: Sequence[EpochRecord], config: RunConfig) -> TrialRow:
    reported = _reported(records, config)
    return replace(
        row,
        validation_accuracy=reported.validation_accuracy,
        validation_loss=reported.validation_loss,
        epochs_done=records[-1].epoch,
        epochs_planned=records[-1].epochs,
    )


def _datetime(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _reported(records: Sequence[EpochRecord], config: RunConfig) -> EpochRecord:
    if config.report == "best" and any(record.validation_accuracy is not None for record in records):
        return max(records, key=lambda record: record.validation_accuracy or 0.0)
    return records[-1]


def _trials_table(rows: Sequence[TrialRow]) -> Any:
    import pyarrow as pa

    types = {
        "number": pa.int64(),
        "validation_accuracy": pa.float64(),
        "validation_loss": pa.float64(),
        "epochs_done": pa.int64(),
        "epochs_planned": pa.int64(),
        "started_at": pa.timestamp("ms", tz="UTC"),
        "ended_at": pa.timestamp("ms", tz="UTC"),
        "duration_s": pa.float64(),
        "starts": pa.int64(),
    }
    columns = {
        name: pa.array([getattr(row, name) for row in rows], type=types.get(name, pa.string()))
        for name in _TRIAL_FIELDS
        if name not in _JSON_FIELDS
    }
    for kind in ("params", "costs"):
        values = [dict(getattr(row, kind)) for row in rows]
        columns[kind] = pa.array(map(json.dumps, values), type=pa.string())
        for name in dict.fromkeys(name for each in values for name in each):
            columns[f"{kind}.{name}"] = _column([each.get(name) for each in values])
    columns["config"] = pa.array([json.dumps(dict(row.config)) for row in rows], type=pa.string())
    return pa.table(columns)


def _column(values: list[Any]) -> Any:
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return pa.array([None if value is None else float(value) for value in values], type=pa.float64())
    if len(kinds) > 1:
        return pa.array([None if value is None else json.dumps(value) for value in values], type=pa.string())
    return pa.array(values)


def _epochs_table(epochs: Sequence[tuple[str, EpochRecord]], stages: Mapping[str, Stage]) -> Any:
    import pyarrow as pa

    columns = {
        "trial_id": pa.array([trial_id for trial_id, _ in epochs], type=pa.string()),
        "stage": pa.array([stages[trial_id] for trial_id, _ in epochs], type=pa.string()),
    }
    for each in fields(EpochRecord):
        kind = pa.int64() if str(each.type).startswith("int") else pa.float64()
        columns[each.name] = pa.array([getattr(record, each.name) for _, record in epochs], type=kind)
    return pa.table(columns)


def _sorted_by_trial(table: Any, rows: Sequence[TrialRow]) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    trial_ids = pa.array((row.trial_id for row in rows), pa.string())
    positions = pc.index_in(table["trial_id"], value_set=trial_ids)
    return table.take(pc.sort_indices(positions))  # a stable sort: the epochs of a trial stay in order


def _write(path: Path, table: Any) -> None:
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # memory_map would keep the old file open after it is replaced.
        rows: list[dict[str, Any]] = pq.read_table(path, memory_map=False, partitioning=None).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a valid sweep table: {error}") from None
    return rows
