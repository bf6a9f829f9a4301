"""Tables of the console without borders, and rows of a name and a text."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group
from rich.table import Table
from rich.text import Text


class Unwrapped(str):
    """A path or a command, which must stay on one line to be copied."""

    __slots__ = ()


def plain_table(first: str, *numbers: str, expand: bool = False) -> Table:
    """Return a table with a first column and right-aligned `numbers`; their cells are not wrapped."""
    table = Table(box=None, pad_edge=False, header_style="dim", expand=expand)
    table.add_column(first, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def fact_rows(facts: Mapping[str, str]) -> Group:
    """Return one row per fact, to be printed with `crop=False`: the `Unwrapped` ones may exceed the width."""
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
