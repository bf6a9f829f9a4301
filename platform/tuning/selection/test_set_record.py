"""The record of evaluations on the test set, normally one per sweep.

Decisions based on a test accuracy bias it upward. A sweep therefore decides on validation only and reads the
test set once, for the champion. `test_opened.json` records every reading by the sweep,
`test_evaluations.jsonl` those of `python -m platform.evaluate`.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field

from platform.common.atomic import write_text
from platform.common.errors import UserError
from platform.common.schema import Frozen

RECORD_FILE = "test_opened.json"
RESULT_FILE = "test.json"
EVALUATIONS_FILE = "test_evaluations.jsonl"
_JSON_KEYS = ConfigDict(serialize_by_alias=True, validate_by_name=True)
"""The file's keys are the fields' aliases."""


class TestSetReading(Frozen):
    """One reading of the test set."""

    model_config = _JSON_KEYS

    split_sha256: str
    """Content hash of the dataset."""
    read_utc: Annotated[str, Field(alias="opened_utc")]
    """ISO 8601, UTC."""
    run: str
    """Id of the evaluated run."""


class TestSetRecord(Frozen):
    """All readings of the test set by a sweep, oldest first."""

    model_config = _JSON_KEYS

    schema_version: int = 1
    test_set_readings: Annotated[tuple[TestSetReading, ...], Field(alias="openings", min_length=1)]


def record_test_set_reading(
    folder: Path, *, split_sha256: str, run: str, again: bool = False
) -> TestSetRecord:
    """Record that `run` will be evaluated on the test set; called before the test set is read.

    If the sweep was killed before test.json was written, the same run on the same dataset continues the
    recorded reading instead of adding one, because its result was never seen.

    Args:
        folder: the sweep's folder; test_opened.json is written there atomically.
        split_sha256: content hash of the dataset.
        run: id of the run to evaluate.
        again: allow a further reading.

    Returns:
        All readings, including this one.

    Raises:
        UserError: the test set was read before and `again` is not set, or the record is damaged.
    """
    path = folder / RECORD_FILE
    now = datetime.now(UTC).isoformat(timespec="seconds")
    reading = TestSetReading(split_sha256=split_sha256, read_utc=now, run=run)
    first = TestSetRecord(test_set_readings=(reading,))
    if _write_new(path, first):
        return first
    record = _read(path)
    last = record.test_set_readings[-1]
    if not (folder / RESULT_FILE).exists() and (last.split_sha256, last.run) == (split_sha256, run):
        return record
    if not again:
        raise UserError(
            f"a sweep reads the test set once; {folder.name} read it at {last.read_utc} for run {last.run}, "
            f"with the result in {RESULT_FILE}; to evaluate again, use --again (the report shows the number "
            "of evaluations)"
        )
    record = TestSetRecord(test_set_readings=(*record.test_set_readings, reading))
    write_text(path, _json(record))
    return record


def record_evaluation(model: Path, *, split_sha256: str) -> None:
    """Record that `evaluate` reads the test set for a model in a sweep's folder; other models have no record.

    These readings neither count as the sweep's own nor prevent it; the report lists them.

    Args:
        model: the model.pt, `<sweep>/checkpoints/<run>/model.pt` in a sweep.
        split_sha256: content hash of the dataset.

    Raises:
        UserError: the file cannot be written.
    """
    run = model.absolute().parent
    folder = run.parent.parent
    if not (folder / "spec.yaml").exists():
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    reading = TestSetReading(split_sha256=split_sha256, read_utc=now, run=run.name)
    try:
        with (folder / EVALUATIONS_FILE).open("a", encoding="utf-8") as file:
            file.write(reading.model_dump_json() + "\n")
    except OSError as error:
        raise UserError(
            f"cannot record this reading of the test set in {folder / EVALUATIONS_FILE}: {error.strerror}; "
            "make the folder writable, or evaluate a copy of model.pt"
        ) from None


def _write_new(path: Path, record: TestSetRecord) -> bool:
    """Write the file and return True, or return False if it exists; a hard link makes this atomic."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(_json(record))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:
            # The file system has no hard links. A sweep has one driver process, so there is no race.
            if path.exists():
                return False
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _json(record: TestSetRecord) -> str:
    return record.model_dump_json(indent=2) + "\n"


def _read(path: Path) -> TestSetRecord:
    try:
        return TestSetRecord.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        raise UserError(
            f"{path} is damaged, so the test set counts as read; restore the file from a copy, or start a "
            "new sweep"
        ) from None
