"""Write the report of a sweep, again or for the first time, from its folder alone.

    python -m platform.report                      the newest sweep
    python -m platform.report resnet18_cifar-20260301-120000
    python -m platform.report runs/resnet18_cifar-20260301-120000

It also works for a sweep that still runs or was interrupted: the report says what is missing.
The path of report.html goes to stdout.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from platform.errors import run_command
from platform.tracking.sweep_folder import find_sweep


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write the report of a sweep from its folder alone."""

    sweep: Annotated[str | None, tyro.conf.Positional] = None
    """Id or path of a sweep; default: the newest one."""
    runs_dir: Path = Path("runs")
    """Where sweeps are kept."""


def main() -> int:
    """Run the command."""
    arguments = tyro.cli(Arguments, prog="python -m platform.report")
    folder = find_sweep(arguments.sweep, root=arguments.runs_dir)
    # jinja2 and pyarrow wait until there is something to report.
    from platform.reporting.page import write_report

    print(write_report(folder))
    return 0


if __name__ == "__main__":
    run_command(main)
