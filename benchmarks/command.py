"""The command lines of the benchmarks: argparse, which every Python has, with the project's messages."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NoReturn

from platform.errors import UsageError, did_you_mean


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are `UsageError`s, each with the closest valid word."""

    def __init__(self, name: str, about: str) -> None:
        super().__init__(prog=f"python -m benchmarks.{name}", description=about, allow_abbrev=False)
        self.add_argument(
            "--json", type=Path, metavar="FILE", help="write the record there too (-: to stdout)"
        )

    def parse(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Return what was asked for.

        Raises:
            UsageError: an argument is unknown, or its value is not one of those it takes.
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
        """Raise instead of printing and exiting."""
        raise UsageError(f"{message}; {self.prog} --help lists what is taken")


def one_of(valid: Collection[str]) -> Callable[[str], str]:
    """Return a reader of one of `valid`, for `type=`."""

    def read(word: str) -> str:
        if word not in valid:
            raise argparse.ArgumentTypeError(
                f"{word!r} is not one of {', '.join(valid)}{did_you_mean(word, valid)}"
            )
        return word

    return read


def several_of(valid: Collection[str]) -> Callable[[str], list[str]]:
    """Return a reader of some of `valid`, separated by commas."""
    read = one_of(valid)
    return lambda words: [read(word) for word in words.split(",")]


def at_least(least: int) -> Callable[[str], int]:
    """Return a reader of whole numbers from `least` on."""

    def read(word: str) -> int:
        if not word.lstrip("-").isdigit() or int(word) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number, {least} or more, got {word!r}")
        return int(word)

    return read
