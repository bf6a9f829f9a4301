"""Rows of a name and a text for the console; paths and commands are never wrapped."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text


class Unwrapped(str):
    """A path or a command, which must stay on one line to be copied."""

    __slots__ = ()


def fact_rows(facts: Mapping[str, str]) -> Group:
    """Return one row per fact; `print_whole` prints it without cutting the `Unwrapped` ones."""
    width = max(map(len, facts), default=0)
    rows: list[Table | Text] = []
    for name, text in facts.items():
        if isinstance(text, Unwrapped):
            row = Text.assemble((f"{name:{width}}", "dim"), f"  {text}", no_wrap=True, overflow="ignore")
            rows.append(row)
            continue
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", width=width, no_wrap=True)
        table.add_column()
        table.add_row(name, Text(text))
        rows.append(table)
    return Group(*rows)


def print_whole(console: Console, group: Group) -> None:
    """Print a group; lines that may not be wrapped continue beyond the width of the console."""
    console.print(group, crop=False)
