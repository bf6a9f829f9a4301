"""Write the HTML report of a sweep from the files in its folder.

    python -m platform.report                      the newest sweep
    python -m platform.report resnet18_cifar-20260301-120000
    python -m platform.report runs/resnet18_cifar-20260301-120000
    python -m platform.report --compare SWEEP OTHER  two sweeps side by side

The report of a running or interrupted sweep lists the missing results.
The path of the page is printed to stdout.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from platform.common.command_line import option, parse_command_line
from platform.common.errors import UsageError, run_command
from platform.tracking.sweep_folder import find_sweep


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write the HTML report of a sweep."""

    sweep: Annotated[str | None, tyro.conf.Positional, option("[SWEEP]", default="the newest sweep")] = None
    """Id or path of a sweep."""
    compare: Annotated[tuple[str, str] | None, option("SWEEP OTHER")] = None
    """Set two sweeps side by side on one page, which is written next to the first one."""
    runs: Annotated[Path, option("PATH", default="runs")] = Path("runs")
    """Folder of the sweeps."""


def main(words: Sequence[str] | None = None, *, prog: str = "python -m platform.report") -> int:
    """Run the command."""
    arguments = parse_command_line(Arguments, prog=prog, words=words)
    if arguments.compare is not None:
        if arguments.sweep is not None:
            raise UsageError("give one sweep, or two with --compare; got both")
        return _compare(*arguments.compare, root=arguments.runs)
    folder = find_sweep(arguments.sweep, root=arguments.runs)
    from platform.reporting.page import write_report

    print(write_report(folder))
    return 0


def _compare(first: str, second: str, *, root: Path) -> int:
    from platform.reporting.compare import write_comparison

    path, reasons = write_comparison(find_sweep(first, root=root), find_sweep(second, root=root))
    for reason in reasons:
        print(f"not comparable: {reason}", file=sys.stderr)
    print(path)
    return 0


if __name__ == "__main__":
    run_command(main)
