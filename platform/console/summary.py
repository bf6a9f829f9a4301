"""Print the final summary of a sweep: the results to stderr, the path of its folder to stdout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from platform.common.text_format import duration, percent, plural, sweep_warnings
from platform.console.live import stderr_console
from platform.console.tables import Unwrapped, fact_rows, plain_table
from platform.tracking.events import TrialStatus
from platform.tracking.mlflow_store import ui_command
from platform.tracking.results import SweepResults, read_results
from platform.tracking.summary_sentences import summary_sentences
from platform.tracking.sweep_folder import SweepFolder
from platform.tracking.trial_findings import grouped_findings

_STAGE_NAME = {
    "confirm": "confirmation",
    "final": "final training",
    "all else": "start, test, export, benchmark, report",
}


def final_summary(
    folder: SweepFolder,
    *,
    tracking_uri: str | None = None,
    console: Console | None = None,
    quiet: bool = False,
) -> None:
    """Print the results and their locations to stderr, and the folder's path to stdout.

    The sweep may be incomplete. With `quiet` only the path is printed.

    Raises:
        UserError: a file in the folder is damaged.
    """
    console = console or stderr_console(quiet=quiet)
    results = read_results(folder)
    text = Text()
    for warning in sweep_warnings(quick=results.quick, generated=results.generated):
        text.append(f"{warning}\n", style="bold yellow")
    text.append("\n".join(summary_sentences(results)))
    console.print()
    if console.is_terminal:
        console.print(Panel(text, title=folder.sweep_id, title_align="left", padding=(0, 1)))
    else:
        console.print(text)
    console.print(fact_rows(_facts(results, tracking_uri)), crop=False)
    console.print()
    console.print(_time_table(results))
    for line in (*_failures(results), *_champion_findings(results)):
        console.print(line, style="yellow")
    print(folder.path)


def _time_table(results: SweepResults) -> Table:
    """Return the estimated and the actual time of each stage and of the whole sweep."""
    table = plain_table("time", "planned", "actual", "difference")
    planned = ((results.plan or {}).get("estimate") or {}).get("wall_s")
    for name, planned_s, actual_s in (*results.stage_times(), ("whole sweep", planned, results.wall_s())):
        change = f"{100 * (actual_s / planned_s - 1):+.0f} %" if planned_s and actual_s else "-"
        shown = Text(_STAGE_NAME.get(name, name), "dim")
        table.add_row(shown, duration(planned_s), duration(actual_s), change)
    return table


def _facts(results: SweepResults, tracking_uri: str | None) -> dict[str, str]:
    """Return the checks of the exported models, the paths of the results, and the command of the UI."""
    folder, facts = results.folder, dict[str, str]()
    parity = (results.export or {}).get("parity")
    if parity:
        facts["ncnn vs. PyTorch"] = _parity_text(parity)
    for document in results.lower_precisions:
        text = _parity_text(document["parity"])
        test = (document.get("accuracy") or {}).get("test")
        if test:
            text += f", test accuracy {percent(test['top1'])} (fp32: {percent(test['fp32_top1'])})"
        facts[f"{document['precision']} vs. fp32"] = text
    paths = {"report": folder.report, "model folder": folder.export}
    paths |= {
        f"model folder, {document['precision']}": folder.path / f"export-{document['precision']}"
        for document in results.lower_precisions
    }
    facts |= {
        name: Unwrapped(path) for name, path in {**paths, "trials": folder.trials}.items() if path.exists()
    }
    if tracking_uri is not None:
        facts["MLflow"] = Unwrapped(ui_command(tracking_uri))
    return facts


def _parity_text(parity: Mapping[str, Any]) -> str:
    return (
        f"top-1 agreement {percent(parity['top1_agreement'])} on {plural(parity['images'], 'image')}, "
        f"largest logit difference {parity['max_abs']:.1e} (largest logit {parity['max_logit']:.3g})"
    )


def _champion_findings(results: SweepResults) -> list[str]:
    """Return the findings of the champion's runs; the report has those of all runs."""
    champion = (results.champion or {}).get("trial_id")
    own = {row.trial_id for row in results.trials if row.stage == "final" or row.candidate == champion}
    return [str(group.finding) for group in grouped_findings(results) if group.trials[0] in own]


def _failures(results: SweepResults) -> list[str]:
    failed = [row for row in results.trials if row.status is TrialStatus.FAILED]
    if not failed:
        return []
    names = ", ".join(row.trial_id for row in failed[:5]) + (", ..." if len(failed) > 5 else "")
    return [f"{plural(len(failed), 'trial')} failed ({names}); see the report for errors and logs"]
