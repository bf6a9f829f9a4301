"""Replace a folder atomically: after a crash it is either the old or the new one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from platform.common.errors import UserError


@contextmanager
def replacing_folder(target: Path, *, own_files: Collection[str]) -> Iterator[Path]:
    """Yield an empty folder that replaces `target` when the context exits without an error.

    Leftovers of a killed process are removed first; an old folder that it had moved away is put back.

    Args:
        target: the folder to create or replace.
        own_files: file names that a replaced folder may contain.

    Raises:
        UserError: `target` contains other files, is a file, or cannot be written.
    """
    target = target.absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _recover(target)
        _refuse_foreign(target, own_files)
        scratch = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        (scratch / "new").mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot write next to {target}: {error.strerror or error}") from None
    try:
        yield scratch / "new"
        if target.exists():
            target.rename(scratch / "old")
        (scratch / "new").rename(target)
    except OSError as error:
        raise UserError(f"cannot write the folder {target}: {error.strerror or error}") from error
    finally:
        _put_back(scratch, target)


def _put_back(scratch: Path, target: Path) -> None:
    old = scratch / "old"
    if old.exists() and not target.exists():
        old.rename(target)
    shutil.rmtree(scratch, ignore_errors=True)


def _recover(target: Path) -> None:
    for scratch in target.parent.glob(f".{target.name}.*.tmp"):
        pid = scratch.name.split(".")[-2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            _put_back(scratch, target)


def _refuse_foreign(target: Path, own_files: Collection[str]) -> None:
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file; give a folder")
    foreign = sorted({path.name for path in target.iterdir()} - {*own_files}) if target.exists() else []
    if foreign:
        raise UserError(
            f"{target} contains files that are not part of an export ({', '.join(foreign[:3])}) and would be "
            "lost; give a new folder"
        )
