"""The files in the folder of a training run, in addition to last.pt and model.pt (see `checkpoint`).

run.json      the request: space, configuration, location of the data; written first
metrics.csv   one line per epoch
curves.svg    a plot of the metrics
record.json   configuration, data, provenance and every epoch; written last

Each file is written under a temporary name and then renamed.
"""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import PositiveInt

from platform.common import atomic
from platform.common.errors import UserError
from platform.common.schema import Frozen, validate
from platform.training.config import RunConfig
from platform.training.diagnostics.findings import Finding
from platform.training.records import EpochRecord, RunResult

LAST = "last.pt"
MODEL = "model.pt"
RUN = "run.json"
METRICS = "metrics.csv"
CURVES = "curves.svg"
RECORD = "record.json"
SCHEMA_VERSION = 1


class RepeatedTrial(Frozen):
    """The trial of a sweep that a run repeats, and its other settings that affect results."""

    sweep: str
    trial_id: str
    data_path: str
    """The data set's folder in the cache."""
    data_sha256: str
    """Content hash of the data set."""
    final: bool
    """Whether it trained on training and validation images together."""
    workers: PositiveInt
    threads: PositiveInt
    """CPU threads of each worker."""
    accumulate: PositiveInt = 1
    """Micro-batches per worker and batch, above 1 if memory was short."""


class RunRequest(Frozen):
    """The request of a run: everything needed to resume it."""

    space: str
    """Name or path of its search space or recipe."""
    config: RunConfig
    data_dir: str | None = None
    """Absolute path of `--data-dir`, if given."""
    workers: PositiveInt | None = None
    """The number of workers that it began with; None in runs of versions without this field."""
    repeats: RepeatedTrial | None = None
    """The repeated trial, if the run repeats one."""


def write_request(folder: Path, request: RunRequest) -> None:
    """Write run.json, creating the folder."""
    write_text_file(folder / RUN, request.model_dump_json(indent=2) + "\n")


def read_request(folder: Path) -> RunRequest:
    """Read run.json.

    Raises:
        UserError: the folder has no run.json, or one that is not of this program.
    """
    path = folder / RUN
    if not path.exists():
        raise UserError(f"{folder} is not the folder of a training run ({RUN} is missing): give one that is")
    content = atomic.read_json(path, remedy="restore it from a copy, or start a new run")
    return validate(RunRequest, content, source=str(path))


def find_model(path: Path) -> Path:
    """Return the model.pt of `path`: the file itself, or that of a run's or a sweep's folder.

    Raises:
        UserError: no model.pt was found.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path} does not exist: give a model.pt, or the folder of a run or of a sweep")
    for candidate in (path / MODEL, path / "checkpoints" / "final" / MODEL):
        if candidate.is_file():
            return candidate
    hint = (
        f"the run is not finished: resume it with python -m platform.train --resume {shlex.quote(str(path))}"
    )
    raise UserError(
        f"{path} has no model.pt"
        + (f"; {hint}" if (path / RUN).is_file() else ": give the folder of a finished run")
    )


def write_metrics(folder: Path, epochs: Sequence[EpochRecord]) -> None:
    """Write metrics.csv: a header, then one line per epoch; missing values are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(EpochRecord)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(record.as_dict() for record in epochs)
    write_text_file(folder / METRICS, text.getvalue())


def write_record(
    folder: Path,
    request: RunRequest,
    result: RunResult,
    *,
    data: Mapping[str, Any],
    context: Mapping[str, Any],
    findings: Sequence[Finding] = (),
) -> None:
    """Write record.json.

    `data` are label, hash and sizes of the data, `context` commit, versions, hardware and command.
    """
    record = {
        "schema_version": SCHEMA_VERSION,
        "space": request.space,
        "config": request.config.model_dump(mode="json"),
        "data": dict(data),
        "context": dict(context),
        "device": result.device,
        "precision": result.precision,
        "execution": {
            "accumulate": result.accumulate,
            "compile_s": result.compile_s,
            "captured": result.captured,
        },
        "train_loss": result.train_loss,
        "validation_loss": result.validation_loss,
        "validation_accuracy": result.validation_accuracy,
        "findings": [finding.as_dict() for finding in findings],
        "epochs": [epoch.as_dict() for epoch in result.epochs],
    }
    write_text_file(folder / RECORD, json.dumps(record, indent=2, allow_nan=False) + "\n")


def write_curves(folder: Path, epochs: Sequence[EpochRecord], *, title: str) -> None:
    """Write curves.svg: training and validation loss and accuracy over the epochs."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    numbers = [record.epoch for record in epochs]
    marker = "o" if len(epochs) == 1 else None
    loss.plot(numbers, [record.train_loss for record in epochs], marker=marker, label="training, augmented")
    accuracy.plot(numbers, [100 * record.train_accuracy for record in epochs], marker=marker)
    held_out = [record for record in epochs if record.validation_loss is not None]
    if held_out:
        numbers = [record.epoch for record in held_out]
        loss.plot(numbers, [record.validation_loss for record in held_out], marker=marker, label="validation")
        accuracies = [100 * (record.validation_accuracy or 0) for record in held_out]
        accuracy.plot(numbers, accuracies, marker=marker)
    loss.set(xlabel="epoch", ylabel="loss (nats)")
    accuracy.set(xlabel="epoch", ylabel="accuracy (%)")
    loss.legend()
    for axes in (loss, accuracy):
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    text = io.StringIO()
    # Without a date and random identifiers, equal runs give equal files. Text is not converted to paths.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "curves"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    write_text_file(folder / CURVES, text.getvalue())


def discard_unfinished(folder: Path) -> None:
    """Remove the temporary files of a killed run from `folder`."""
    atomic.discard_unfinished(folder, LAST, MODEL, RUN, METRICS, CURVES, RECORD)


def write_text_file(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, creating its folder.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        atomic.write_text(path, text)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; free some space or choose another folder"
        ) from error
