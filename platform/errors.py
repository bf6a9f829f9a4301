"""The errors a user can mend, and the one place where they become an exit code.

A message states the rule, what was got, and the next step. Exit codes: 0 done, 1 failed,
2 the command line or a configuration is wrong, 130 interrupted.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Something outside the program is wrong (a file, a machine, a data set); exit code 1."""

    exit_code = 1


class UsageError(UserError):
    """The command line or a configuration is wrong; exit code 2."""

    exit_code = 2


class Interrupted(UserError):  # noqa: N818 - an interruption is not an error
    """The user stopped the program; the message says how to go on. Exit code 130."""

    exit_code = 130


def did_you_mean(got: str, valid: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the closest of `valid`, or an empty string."""
    close = difflib.get_close_matches(got, list(valid), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def run_command(main: Callable[[], int | None]) -> None:
    """Run an entry module's `main` and exit: user errors as one message on stderr, no traceback."""
    try:
        code = main() or 0
    except UserError as error:
        print(f"error: {error}" if error.exit_code != 130 else str(error), file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # The reader of stdout has left (`| head`): not our error, and not worth a traceback.
        sys.stderr.close()
        code = 0
    sys.exit(code)
