"""Atomic file writes: after a crash a file has either its old or its new content."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from platform.common.errors import UserError
from platform.common.regular_file import read_regular_file

_MAX_JSON_BYTES = 256 * 2**20


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; it replaces `path` if the block raises no error.

    Raises:
        OSError: the folder is not writable or the disk is full; `path` and its folders are unchanged.
    """
    new_folders = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
            for folder in new_folders:
                folder.rmdir()
        if isinstance(error, OSError):
            error.filename = str(path)  # a failed write has none, the other calls have the temporary one
        raise


def discard_unfinished(folder: Path, *names: str) -> None:
    """Remove the temporary files that killed processes left in `folder`: those of `names`, or all."""
    for name in names or ("*",):
        for path in folder.glob(f".{name}.*.tmp"):
            with suppress(OSError):
                path.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`, atomically.

    Raises:
        ValueError: a number is NaN or infinite, which JSON cannot represent.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, *, remedy: str) -> dict[str, Any]:
    """Return the JSON object in `path`; `remedy` is the user's next step, at the end of a message.

    Raises:
        UserError: the file cannot be read, or is not a JSON object.
    """
    try:
        content = json.loads(read_regular_file(path, max_bytes=_MAX_JSON_BYTES).decode("utf-8"))
    except UserError as error:
        raise UserError(f"{error}; {remedy}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}; {remedy}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: not a JSON object; {remedy}")
    return content
