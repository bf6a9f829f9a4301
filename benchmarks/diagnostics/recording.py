"""The gallery's file: one row per run, each field of the epochs' records as a list.

Columns: `fault`, `recipe`, `seed`, `plan` (JSON), `stopped` (the trainer found a value that is not finite),
and the fields of `platform.training.records.EpochRecord` that the rules may use.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.diagnostics.plants import PlannedRun, train
from platform.common.atomic import replacing
from platform.common.errors import UserError
from platform.training.records import EpochRecord

GALLERY = Path(__file__).parents[1] / "data" / "diagnostics.parquet"
_INTEGERS = ("epoch", "epochs", "step", "loss_spikes")
_FIELDS = (
    *_INTEGERS,
    "lr",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "grad_norm",
    "grad_norm_max",
    "first_grad_norm",
    "last_grad_norm",
    "dead_units",
    "feature_rank",
    "weight_norm",
    "weight_scale",
    "zero_logits",
)
_DIGITS = 5
_RUNS_PER_WRITE = 5
_UNTIMED: Mapping[str, Any] = {"epoch_s": 1.0, "evaluation_s": 0.0, "images_per_s": 1.0}


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """One run of the gallery."""

    fault: str
    recipe: str
    seed: int
    plan: Mapping[str, Any]
    stopped: bool
    epochs: tuple[EpochRecord, ...]

    @property
    def group(self) -> str:
        """Name the runs that stay in the same half."""
        return f"{self.fault}/{self.recipe}"


def read_gallery(path: Path) -> list[RecordedRun]:
    """Read the recorded runs.

    Raises:
        UserError: the file is missing or invalid.
    """
    rows = _read(path)
    if not rows:
        raise UserError(f"no gallery at {path}: record it with python -m benchmarks.diagnostics --record")
    return [
        RecordedRun(
            fault=row["fault"],
            recipe=row["recipe"],
            seed=row["seed"],
            plan=json.loads(row["plan"]),
            stopped=row["stopped"],
            epochs=tuple(
                EpochRecord(**_UNTIMED, **dict(zip(_FIELDS, values, strict=True)))
                for values in zip(*(row[name] for name in _FIELDS), strict=True)
            ),
        )
        for row in rows
    ]


def record_gallery(path: Path, runs: Sequence[PlannedRun], *, say: Callable[[str], None]) -> None:
    """Train the runs that are missing from the file, which is rewritten every few runs and at the end.

    Recorded runs that are no longer planned are removed.
    """
    planned = {(run.fault, run.recipe, run.seed, _plan(run)) for run in runs}
    rows = [row for row in _read(path) if _key(row) in planned]
    known = {_key(row) for row in rows}
    missing = [run for run in runs if (run.fault, run.recipe, run.seed, _plan(run)) not in known]
    for number, run in enumerate(missing, start=1):
        say(f"run {number} of {len(missing)}: {run.key}")
        trained = train(run)
        rows.append(
            {
                "fault": run.fault,
                "recipe": run.recipe,
                "seed": run.seed,
                "plan": _plan(run),
                "stopped": trained.stopped,
                **{name: [_rounded(getattr(epoch, name)) for epoch in trained.epochs] for name in _FIELDS},
            }
        )
        if number % _RUNS_PER_WRITE == 0 or number == len(missing):
            _write(path, rows)


def _key(row: Mapping[str, Any]) -> tuple[str, str, int, str]:
    return row["fault"], row["recipe"], row["seed"], row["plan"]


def _plan(run: PlannedRun) -> str:
    described = asdict(run)
    return json.dumps({key: described[key] for key in ("config", "network", "images", "plant")})


def _rounded(value: float | None) -> float | None:
    return value if value is None or isinstance(value, int) else float(f"{value:.{_DIGITS}g}")


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(path, memory_map=False, partitioning=None).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} is not a gallery: {error}") from None
    return rows


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"fault": pa.string(), "recipe": pa.string(), "seed": pa.int32(), "plan": pa.string()}
    types["stopped"] = pa.bool_()
    types |= {name: pa.list_(pa.int32() if name in _INTEGERS else pa.float32()) for name in _FIELDS}
    schema = pa.schema(list(types.items()))
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), temporary, compression="zstd")
