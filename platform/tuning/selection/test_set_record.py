"""The test split, opened once per sweep, and the file that proves it.

Every look at the test set by which something is then decided makes its figure a little less true. A sweep
decides on validation only, and reads the test split once, for the champion.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from platform.atomic import write_text
from platform.errors import UserError
from platform.schema import Frozen

OPENED_FILE = "test_opened.json"
RESULT_FILE = "test.json"


class Opening(Frozen):
    """One opening of the test split."""

    split_sha256: str
    """Content hash of the data that was opened."""
    opened_utc: str
    """ISO 8601, UTC."""
    run: str
    """The run that was measured."""


class Openings(Frozen):
    """All openings of a sweep, the first one first; an honest sweep has one."""

    schema_version: int = 1
    openings: Annotated[tuple[Opening, ...], Field(min_length=1)]


def open_test_split(folder: Path, *, split_sha256: str, run: str, again: bool = False) -> Openings:
    """Record, before it happens, that the test split is read for `run`.

    An opening whose figure was never written (no test.json: the sweep was killed in between) may be
    continued by the same run on the same split; nobody has learned anything from it.

    Args:
        folder: the sweep's folder; `test_opened.json` is written there, atomically.
        split_sha256: content hash of the data set.
        run: the run that will be measured.
        again: open it once more; the file keeps all openings.

    Returns:
        All openings, this one included.

    Raises:
        UserError: the split was opened before and `again` is not set, or the record is damaged.
    """
    path = folder / OPENED_FILE
    now = datetime.now(UTC).isoformat(timespec="seconds")
    opening = Opening(split_sha256=split_sha256, opened_utc=now, run=run)
    first = Openings(openings=(opening,))
    if _write_new(path, first):
        return first
    before = _read(path)
    last = before.openings[-1]
    if not (folder / RESULT_FILE).exists() and (last.split_sha256, last.run) == (split_sha256, run):
        return before
    if not again:
        raise UserError(
            f"the test split is opened once per sweep; {folder.name} opened it at {last.opened_utc} for run "
            f"{last.run}, and its figure stands in {RESULT_FILE}; to open it once more, and have the report "
            "say so, use --again"
        )
    openings = Openings(openings=(*before.openings, opening))
    write_text(path, openings.model_dump_json(indent=2) + "\n")
    return openings


def _write_new(path: Path, openings: Openings) -> bool:
    """Write the file unless there is one; a hard link makes the check and the writing one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(openings.model_dump_json(indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:
        # A file system without hard links; one driver per sweep leaves no race to lose.
        if path.exists():
            return False
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _read(path: Path) -> Openings:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return Openings.model_validate(content)
    except (OSError, ValueError):
        raise UserError(
            f"{path} exists but cannot be read, so the test split counts as opened; "
            "restore the file from a copy, or start a new sweep"
        ) from None
