"""Read regular files of limited size: a FIFO would block, and a device may never end."""

from __future__ import annotations

import stat
from pathlib import Path

from platform.common.errors import UserError


def read_regular_file(path: Path, *, max_bytes: int, name: str | None = None) -> bytes:
    """Return the content of a file; `name` is its name in messages, by default its path.

    Raises:
        UserError: the file is missing, not a regular file, larger than `max_bytes`, or cannot be read.
    """
    name = name or str(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise UserError(f"{name} is a folder; give a file")
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{name} is not a regular file; save its content to a file first")
        if status.st_size > max_bytes:
            raise UserError(
                f"{name} may have at most {max_bytes:,} bytes, got {status.st_size:,}; make it smaller first"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{name}: no such file") from None
    except (OSError, ValueError) as error:  # a path with a NUL character raises a ValueError
        raise UserError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}") from None
