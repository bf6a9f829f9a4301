"""The last thing a sweep says: what was found on stderr, where it lies on stdout."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from platform.console.live import stderr_console
from platform.tracking.conclusions import sentences
from platform.tracking.events import TrialStatus
from platform.tracking.mlflow_store import ui_command
from platform.tracking.results import SweepResults, read_results
from platform.tracking.sweep_folder import SweepFolder
from platform.tracking.text_format import GENERATED, QUICK, percent, plural
from platform.tracking.trial_findings import ailments


def final_summary(
    folder: SweepFolder,
    *,
    tracking_uri: str | None = None,
    console: Console | None = None,
    stdout: TextIO | None = None,
    quiet: bool = False,
) -> None:
    """Print the answer and where everything lies to stderr, and the folder's path to stdout.

    Args:
        folder: the sweep; a partial one is summed up as far as it came.
        tracking_uri: the MLflow store, for the command that shows it.
        console: stderr by default.
        stdout: where the path goes; standard output by default.
        quiet: print the path only.

    Raises:
        UserError: a file of the folder is damaged.
    """
    console = console or stderr_console(quiet=quiet)
    results = read_results(folder)
    text = Text()
    for warning, applies in ((QUICK, results.quick), (GENERATED, results.generated)):
        if applies:
            text.append(f"{warning}\n", style="bold yellow")
    text.append("\n".join(sentences(results)))
    console.print()
    if console.is_terminal:
        console.print(Panel(text, title=folder.sweep_id, title_align="left", padding=(0, 1)))
    else:
        console.print(text)
    console.print(_places(results, tracking_uri))
    for line in (*_failures(results), *_health(results)):
        console.print(line, style="yellow")
    print(folder.path, file=stdout or sys.stdout)


def _places(results: SweepResults, tracking_uri: str | None) -> Table:
    folder = results.folder
    places: Mapping[str, Path | None] = {
        "report": folder.report if folder.report.exists() else None,
        "model for the engine": folder.export if results.export else None,
        **{
            f"... in {document['precision']}": folder.path / f"export-{document['precision']}"
            for document in results.lower_precisions
        },
        "trials": folder.trials if folder.trials.exists() else None,
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    parity = (results.export or {}).get("parity")
    if parity:
        table.add_row(
            "ncnn against PyTorch",
            f"top-1 agrees on {percent(parity['top1_agreement'])} of {plural(parity['images'], 'image')}, "
            f"largest logit difference {parity['max_abs']:.1e} of logits up to {parity['max_logit']:.3g}",
        )
    for document in results.lower_precisions:
        table.add_row(f"{document['precision']} against fp32", _loss(document))
    for name, path in places.items():
        if path is not None:
            table.add_row(name, Text(str(path)))
    if tracking_uri is not None:
        table.add_row("all runs in MLflow", Text(ui_command(tracking_uri)))
    return table


def _loss(document: Mapping[str, Any]) -> str:
    """Return what a lower precision costs."""
    parity, accuracy = document["parity"], document.get("accuracy") or {}
    text = (
        f"top-1 agrees on {percent(parity['top1_agreement'])} of {plural(parity['images'], 'image')}, "
        f"largest logit difference {parity['max_abs']:.1e} of logits up to {parity['max_logit']:.3g}"
    )
    test = accuracy.get("test")
    if test:
        text += (
            f"; {percent(test['top1'])} of {plural(test['images'], 'test image')} right, fp32 "
            f"{percent(test['fp32_top1'])}"
        )
    return text


def _health(results: SweepResults) -> list[str]:
    """Return what ails the champion's own runs; the report has the others'."""
    champion = (results.champion or {}).get("trial_id")
    own = {row.trial_id for row in results.trials if row.stage == "final" or row.candidate == champion}
    return [str(ailment.finding) for ailment in ailments(results) if ailment.trials[0] in own]


def _failures(results: SweepResults) -> list[str]:
    failed = [row for row in results.trials if row.status is TrialStatus.FAILED]
    if not failed:
        return []
    names = ", ".join(row.trial_id for row in failed[:5]) + (", ..." if len(failed) > 5 else "")
    return [f"{plural(len(failed), 'trial')} failed ({names}); the report has their errors and logs"]
