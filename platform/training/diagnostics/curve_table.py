"""Epoch records from a table of learning curves that another program wrote: a CSV file, or metrics in MLflow.

The columns are those of this project's metrics.csv (docs/diagnostics.md), also under the names in `_NAMES`;
case, spaces, `-`, `/` and `_` do not matter. Only `train_loss` is required: rules whose columns are missing
report nothing. `epoch` is the number of the row by default. A row may be an epoch or a step.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from platform.common.errors import UsageError, UserError
from platform.training.records import EpochRecord

_HELD_OUT = ("val", "valid", "validation", "test", "eval")
_NAMES = {
    "train_loss": ("loss", "training_loss"),
    "train_accuracy": ("accuracy", "acc", "train_acc", "training_accuracy"),
    "validation_loss": tuple(f"{split}_loss" for split in _HELD_OUT),
    "validation_accuracy": tuple(f"{split}_{name}" for split in _HELD_OUT for name in ("accuracy", "acc")),
    "lr": ("learning_rate",),
    "epoch": ("epochs_done",),
}
_FIELDS = {field.name for field in fields(EpochRecord)}
_INTEGERS = ("loss_spikes", "step")
_IGNORED = ("epochs", "moved_bytes")
_ACCURACIES = ("train_accuracy", "validation_accuracy")
_DEFAULTS = {"epoch_s": 1.0, "evaluation_s": 0.0, "images_per_s": 0.0, "lr": math.nan, "grad_norm": math.nan}


def read_csv(path: Path) -> list[EpochRecord]:
    """Read a CSV file with a header.

    Raises:
        UserError: the file cannot be read, or has no column of training losses.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}; give a CSV file with a header") from None
    names = [name for name in (rows[0] if rows else {}) if name]
    return records_from({name: [_number(row[name], name, path) for row in rows] for name in names}, str(path))


def records_from(columns: Mapping[str, Sequence[float | None]], source: str) -> list[EpochRecord]:
    """Return one record per row of a table: columns of one length by name, of which unknown ones are ignored.

    Raises:
        UsageError: no row has a training loss.
    """
    known = {field: values for name, values in columns.items() if (field := _field_of(name)) is not None}
    for name in _ACCURACIES:
        given = [value for value in known.get(name, ()) if value is not None]
        if max(given, default=0.0) > 1.5:  # percent
            known[name] = [None if value is None else value / 100 for value in known[name]]
    losses = known.get("train_loss", ())
    rows = [number for number, loss in enumerate(losses) if loss is not None]
    if not rows:
        raise UsageError(
            f"{source} must have a column train_loss (or {', '.join(_NAMES['train_loss'])}) with numbers; "
            f"its columns are: {', '.join(columns) or 'none'}"
        )
    records = []
    for number in rows:
        values = {name: column[number] for name, column in known.items() if column[number] is not None}
        epoch = int(values.pop("epoch", number + 1) or 0)
        integers = {name: int(values.pop(name) or 0) for name in _INTEGERS if name in values}
        record = {**_DEFAULTS, "train_accuracy": math.nan, "step": epoch, **values, **integers}
        record |= {name: record.get(name) for name in ("validation_loss", "validation_accuracy")}
        records.append(EpochRecord(epoch=epoch, epochs=epoch, **record))  # type: ignore[arg-type]
    return records


def _field_of(name: str) -> str | None:
    """Return the field of `EpochRecord` that a column holds, or None."""
    plain = re.sub(r"[ /-]", "_", name.strip().lower())
    if plain in _FIELDS and plain not in _IGNORED:
        return plain
    return next((field for field, names in _NAMES.items() if plain in names), None)


def _number(text: str | None, column: str, path: Path) -> float | None:
    if text is None or not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        if _field_of(column) is None:
            return None
        raise UserError(
            f"{path}: column {column!r} must hold numbers, got {text!r}; correct the file"
        ) from None
