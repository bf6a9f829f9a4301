"""Errors for users, and their exit codes.

A message states the rule, the value that broke it, and the next step. Exit codes: 0 success, 1 failure,
2 invalid command line or configuration, 130 interrupted.
"""

from __future__ import annotations

import difflib
import errno
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from platform.common.home_folder import provide_home_folder


class UserError(Exception):
    """An error outside the program: a file, a machine, a dataset. Exit code 1."""

    exit_code = 1


class UsageError(UserError):
    """An invalid command line or configuration. Exit code 2."""

    exit_code = 2


class Interrupted(UserError):  # noqa: N818 - an interruption is not an error
    """The user stopped the program; the message contains the command to resume. Exit code 130."""

    exit_code = 130


_SPACE = "free some disk space, or use another folder"
_ACCESS = "check the permissions, or use another folder"
_REMEDIES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: _SPACE,
    errno.EACCES: _ACCESS,
    errno.EPERM: _ACCESS,
    errno.EROFS: _ACCESS,
    errno.EIO: "check the disk",
    errno.ESTALE: "check the network file system",
    errno.ENAMETOOLONG: "use a shorter path",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


def describe_os_error(error: OSError) -> str | None:
    """Return a message for an error of the user's system, such as a full disk; None for other errors."""
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is None:
        return None
    return f"{f'{error.filename}: ' if error.filename else ''}{error.strerror}; {remedy}"


def require_utf8(name: str) -> None:
    """Check a file name or an argument: records and tables store text as UTF-8.

    Raises:
        UsageError: the name has bytes that are not UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UsageError(f"names must be UTF-8 text, got {name!a}; rename the file or folder") from None


def did_you_mean(got: str, valid: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the closest of `valid`, or an empty string."""
    close = difflib.get_close_matches(got, list(valid), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def not_one_of(got: object, valid: Iterable[object]) -> str:
    """Return the message for a wrong choice: the valid ones, and the closest one to a string."""
    names = [str(name) for name in valid]
    suggestion = did_you_mean(got, names) if isinstance(got, str) else ""
    return f"{got!r} is not one of {', '.join(names)}{suggestion}"


def run_command(main: Callable[[], int | None]) -> None:
    """Run an entry module's `main` and exit; user errors are printed to stderr without a traceback."""
    try:
        provide_home_folder()
        _require_working_directory()
        code = main() or 0
    except UserError as error:
        print(f"error: {error}" if error.exit_code != 130 else str(error), file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # The reader of stdout has closed the pipe (`| head`).
        sys.stderr.close()
        code = 0
    except OSError as error:
        message = describe_os_error(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        code = 1
    sys.exit(code)


def _require_working_directory() -> None:
    try:
        require_utf8(str(Path.cwd()))
    except FileNotFoundError:
        raise UserError("the working directory was deleted; change to another one (cd)") from None
