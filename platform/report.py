"""Write the HTML report of a sweep from the files in its folder.

    python -m platform.report                      the newest sweep
    python -m platform.report resnet18_cifar-20260301-120000
    python -m platform.report runs/resnet18_cifar-20260301-120000

The report of a running or interrupted sweep lists the missing results.
The path of report.html is printed to stdout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from platform.common.command_line import option, parse_command_line
from platform.common.errors import run_command
from platform.tracking.sweep_folder import find_sweep


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write the HTML report of a sweep."""

    sweep: Annotated[str | None, tyro.conf.Positional, option("[SWEEP]", default="the newest sweep")] = None
    """Id or path of a sweep."""
    runs: Annotated[Path, option("PATH", default="runs")] = Path("runs")
    """Folder of the sweeps."""


def main(words: Sequence[str] | None = None, *, prog: str = "python -m platform.report") -> int:
    """Run the command."""
    arguments = parse_command_line(Arguments, prog=prog, words=words)
    folder = find_sweep(arguments.sweep, root=arguments.runs)
    from platform.reporting.page import write_report

    print(write_report(folder))
    return 0


if __name__ == "__main__":
    run_command(main)
