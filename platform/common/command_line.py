"""Parse the command lines of all commands with tyro, with the same help format."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from platform.common.errors import UsageError, require_utf8

Parsed = TypeVar("Parsed")


def parse_command_line(target: Callable[..., Parsed], *, prog: str, words: Sequence[str] | None) -> Parsed:
    """Return `target`, a dataclass or a function, called with the values of the command line.

    Its fields or arguments are the options. `prog` is the command in the usage line, and `words` are its
    arguments, by default those of the process.

    Raises:
        UsageError: an argument is not UTF-8 text.
    """
    for word in sys.argv[1:] if words is None else words:
        require_utf8(word)
    return tyro.cli(
        target,
        prog=prog,
        args=words,
        config=(tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
    )


def require_local(path: Path | None, name: str) -> None:
    """Check that the value of an option is a path on this machine.

    Raises:
        UsageError: it is a URI, which would become a folder named `s3:`.
    """
    scheme, colon, rest = ("" if path is None else str(path)).partition(":/")
    if colon and scheme.isalnum():
        raise UsageError(
            f"{name} must be a folder on this machine, got {scheme}://{rest}; to keep a copy of a sweep "
            f"there, use platform.sweep --mirror {scheme}://{rest}"
        )


def option(
    metavar: str | None = None, *, default: str = "", name: str | None = None, short: str | None = None
) -> object:
    """Return the annotation of an option.

    It has the placeholder of the value in the help, the default in words, the name if it is not the field's,
    and a second, short name.
    """
    hint = f"(default: {default})" if default else ""
    aliases = [short] if short else None
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=hint, name=name, aliases=aliases)


Flag = Annotated[bool, option()]
"""An option without a value; `False` by default."""

DataDir = Annotated[
    Path | None, option("PATH", default="$CIFAR10_DIR, else the dataset cache, else a download")
]
"""The option `--data-dir`."""
