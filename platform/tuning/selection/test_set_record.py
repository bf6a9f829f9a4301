"""The record of evaluations on the test set, normally one per sweep.

Decisions based on a test accuracy bias it upward. A sweep therefore decides on validation only and reads the
test set once, for the champion. `test_opened.json` records every reading by the sweep,
`test_evaluations.jsonl` those of `python -m platform.evaluate`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field

from platform.common.atomic import write_text
from platform.common.errors import UserError
from platform.common.schema import Frozen

RECORD_FILE = "test_opened.json"
RESULT_FILE = "test.json"
EVALUATIONS_FILE = "test_evaluations.jsonl"


class TestSetReading(Frozen):
    """One reading of the test set."""

    split_sha256: str
    """Content hash of the dataset."""
    opened_utc: str
    """ISO 8601, UTC."""
    run: str
    """Id of the evaluated run."""


class TestSetRecord(Frozen):
    """The content of test_opened.json: all readings of the test set by a sweep, oldest first."""

    schema_version: int = 1
    openings: Annotated[tuple[TestSetReading, ...], Field(min_length=1)]


def record_test_set_reading(
    folder: Path, *, split_sha256: str, run: str, again: bool = False
) -> TestSetRecord:
    """Record that `run` will be evaluated on the test set; called before the test set is read.

    If the sweep was killed before test.json was written, the same run on the same dataset continues the
    recorded reading instead of adding one, because its result was never seen.

    Returns:
        All readings, including this one.

    Raises:
        UserError: the test set was read before and `again` is not set, or the record is damaged.
    """
    path = folder / RECORD_FILE
    openings: tuple[TestSetReading, ...] = ()
    if path.exists():
        record = _read(path)
        openings, last = record.openings, record.openings[-1]
        if not (folder / RESULT_FILE).exists() and (last.split_sha256, last.run) == (split_sha256, run):
            return record
        if not again:
            raise UserError(
                f"a sweep reads the test set once; {folder.name} read it at {last.opened_utc} for run "
                f"{last.run}, with the result in {RESULT_FILE}; to evaluate again, use --again (the report "
                "shows the number of evaluations)"
            )
    record = TestSetRecord(openings=(*openings, _reading(split_sha256, run)))
    write_text(path, record.model_dump_json(indent=2) + "\n")
    return record


def record_evaluation(model: Path, *, split_sha256: str) -> None:
    """Record that `evaluate` reads the test set for a model in a sweep's folder; other models have no record.

    These readings neither count as the sweep's own nor prevent it; the report lists them.

    Raises:
        UserError: the file cannot be written.
    """
    run = model.absolute().parent
    folder = run.parent.parent
    if not (folder / "spec.yaml").exists():
        return
    try:
        with (folder / EVALUATIONS_FILE).open("a", encoding="utf-8") as file:
            file.write(_reading(split_sha256, run.name).model_dump_json() + "\n")
    except OSError as error:
        raise UserError(
            f"cannot record this reading of the test set in {folder / EVALUATIONS_FILE}: {error.strerror}; "
            "make the folder writable, or evaluate a copy of model.pt"
        ) from None


def _reading(split_sha256: str, run: str) -> TestSetReading:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return TestSetReading(split_sha256=split_sha256, opened_utc=now, run=run)


def _read(path: Path) -> TestSetRecord:
    try:
        return TestSetRecord.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        raise UserError(
            f"{path} is damaged, so the test set counts as read; restore the file from a copy, or start a "
            "new sweep"
        ) from None
