"""Parse the benchmarks' command lines, in argparse because bare GPU hosts lack tyro."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NoReturn

from platform.common.errors import UsageError, did_you_mean


class Parser(argparse.ArgumentParser):
    """A parser that raises `UsageError` with the closest valid word."""

    def __init__(self, name: str, about: str) -> None:
        super().__init__(prog=f"python -m benchmarks.{name}", description=about, allow_abbrev=False)
        self.add_argument(
            "--json", type=Path, metavar="FILE", help="also write the record to this file (-: to stdout)"
        )

    def parse(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Parse the command line.

        Raises:
            UsageError: an unknown argument or an invalid value.
        """
        given, unknown = self.parse_known_args(arguments)
        if unknown:
            word = unknown[0].partition("=")[0]
            options = [option for action in self._actions for option in action.option_strings]
            raise UsageError(
                f"unknown argument {unknown[0]!r}{did_you_mean(word, options)}; {self.prog} --help lists them"
            )
        return given

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError` instead of printing and exiting."""
        raise UsageError(f"{message}; {self.prog} --help lists the arguments")


def one_of(valid: Collection[str]) -> Callable[[str], str]:
    """Return a parser of one word of `valid`, for `type=`."""

    def read(word: str) -> str:
        if word not in valid:
            raise argparse.ArgumentTypeError(
                f"{word!r} is not one of {', '.join(valid)}{did_you_mean(word, valid)}"
            )
        return word

    return read


def several_of(valid: Collection[str]) -> Callable[[str], list[str]]:
    """Return a parser of comma-separated words of `valid`."""
    read = one_of(valid)
    return lambda words: [read(word) for word in words.split(",")]


def at_least(minimum: int) -> Callable[[str], int]:
    """Return a parser of whole numbers not below `minimum`."""

    def read(word: str) -> int:
        if not word.lstrip("-").isdigit() or int(word) < minimum:
            raise argparse.ArgumentTypeError(f"must be a whole number, {minimum} or more, got {word!r}")
        return int(word)

    return read


def say(message: str) -> None:
    """Print a progress message to stderr."""
    print(message, file=sys.stderr, flush=True)
