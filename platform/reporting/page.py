"""Render the report of a sweep: one self-contained HTML file.

The report is made from the files in the sweep's folder. For an incomplete sweep it lists the missing results.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from platform.common.atomic import write_text
from platform.common.errors import UserError
from platform.common.nested import flatten
from platform.common.text_format import duration, percent, plural, settings_cells, sweep_warnings
from platform.reporting import result_charts, search_charts
from platform.reporting.search_study import search_study, searched_dimensions
from platform.space.space_files import load_spec
from platform.tracking.events import TrialStatus
from platform.tracking.parquet_tables import TrialRow
from platform.tracking.results import SweepResults, read_results
from platform.tracking.summary_sentences import answers, device_name, headline
from platform.tracking.sweep_folder import SweepFolder
from platform.tracking.trial_findings import grouped_findings

SHOWN_TRIALS = 15
"""Visible rows of the leaderboard; the others are collapsed."""

COSTS = {
    "parameters": "parameters",
    "multiply_accumulates": "multiply-accumulates per image",
    "latency_ms": "latency per image, ms",
}
"""The label of each cost."""


def write_report(folder: SweepFolder) -> Path:
    """Write `report.html` to a sweep's folder and return its path; an existing report is replaced.

    Raises:
        UserError: the folder does not exist, or a file in it is damaged.
    """
    write_text(folder.report, render(read_results(folder)))
    return folder.report


def render(results: SweepResults) -> str:
    """Return the HTML page."""
    return render_template("report.html.j2", context(results))


def render_template(name: str, variables: Mapping[str, Any]) -> str:
    """Return a page from a template of this folder; plotly.js is part of the page, compressed to a third."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "duration": duration, "plural": plural}
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    plotly = base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
    return environment.get_template(name).render({**variables, "written": written, "plotly": plotly})


def context(results: SweepResults) -> dict[str, Any]:
    """Return the variables of the template."""
    plan = results.plan or {}
    stages = results.stage_times()
    return {
        "sweep_id": results.folder.sweep_id,
        "space": plan.get("space") or results.folder.space,
        "about": plan.get("about", ""),
        "state": results.state,
        "warnings": sweep_warnings(quick=results.quick, generated=results.generated),
        "headline": headline(results),
        "answers": answers(results),
        "missing": _missing(results),
        "champion": _champion(results),
        "selection": results.selection,
        "confirmation": result_charts.confirmation(results.selection) if results.selection else None,
        "pareto": _pareto(results),
        "leaderboard": _leaderboard(results),
        "curves": search_charts.learning_curves(results),
        "search_charts": search_charts.search_charts(results),
        "completed": sum(row.completed for row in results.of_stage("search")),
        "least_trials": search_charts.LEAST_TRIALS,
        "slices": search_charts.slice_charts(results),
        "unsliced": _unsliced(results),
        "finding_groups": grouped_findings(results),
        "precisions": _precisions(results),
        "benchmark": _benchmark(results),
        "test": _test(results.test),
        "test_readings": results.test_readings(),
        "failures": [row for row in results.trials if row.status is TrialStatus.FAILED],
        "plan": plan,
        "plan_facts": [*_plan_facts(plan), *_copied(results)],
        "stages": stages,
        "time_charts": [
            found
            for found in (result_charts.stage_times(stages), search_charts.timeline(results))
            if found is not None
        ],
        "provenance": [(key, cell_text(value)) for key, value in flatten(results.provenance())],
        "resume": f"python -m platform.sweep --resume {results.folder.sweep_id}",
    }


def _missing(results: SweepResults) -> list[str]:
    """Return the results of a complete sweep that are missing."""
    return [
        text
        for text, exists in (
            ("search: no trial has finished an epoch", any(row.epochs_done for row in results.trials)),
            ("confirmation over several seeds: the ranking may be noise", results.selection is not None),
            ("champion: the best configuration has not been chosen", results.champion is not None),
            ("test accuracy: the test split has not been evaluated", results.test is not None),
            ("export to ncnn and its parity with PyTorch", results.export is not None),
            ("latency on this machine", results.benchmark is not None),
            ("registration in MLflow", results.registered is not None),
        )
        if not exists
    ]


def _champion(results: SweepResults) -> dict[str, Any] | None:
    champion = results.champion
    if champion is None:
        return None
    base: dict[str, Any] = {}
    with suppress(UserError):
        base |= flatten(load_spec(results.folder.path).base.model_dump(mode="json"))
    after = dict(flatten(champion["config"]))
    # Every run has its own seed, which is not a searched setting.
    pairs = [(key, cell_text(base.get(key)), cell_text(after.get(key))) for key in after | base]
    changed = [(key, old, new) for key, old, new in pairs if old != new and key != "seed"]
    return {
        "trial_id": champion["trial_id"],
        "changed": changed if base else [],
        "has_base": bool(base),
        "settings": [(key, cell_text(value)) for key, value in after.items() if value is not None],
    }


def _leaderboard(results: SweepResults) -> dict[str, Any]:
    rows = results.leaderboard()
    columns, cells = _settings_table(rows)
    return {
        "columns": columns,
        "rows": list(zip(rows, cells, strict=True)),
        "shown": SHOWN_TRIALS,
        "champion": (results.champion or {}).get("trial_id"),
        "unranked": sum(row.validation_accuracy is None for row in results.of_stage("search")),
    }


def _settings_table(rows: Sequence[TrialRow]) -> tuple[list[str], list[list[str]]]:
    """Return the columns of the settings, and the cells of each row."""
    cells = [settings_cells(row.params) for row in rows]
    columns = list(dict.fromkeys(name for cell in cells for name in cell))
    return columns, [[cell.get(name, "") for name in columns] for cell in cells]


def _unsliced(results: SweepResults) -> list[str]:
    """Return the searched settings that no completed trial has."""
    used = {name for row in results.of_stage("search") if row.completed for name in row.params}
    return [each.name for each in searched_dimensions(results) if each.name not in used]


def _pareto(results: SweepResults) -> dict[str, Any] | None:
    """Return the Pareto front of the completed trials; None if accuracy is the only objective."""
    rows = [row for row in results.leaderboard() if row.costs and row.completed]
    if not rows:
        return None
    costs = {name: COSTS.get(name, name) for row in rows for name in row.costs}
    study = search_study(results, rows, costs=list(costs))
    best = [rows[trial.number] for trial in study.best_trials]
    columns, cells = _settings_table(best)
    return {
        "costs": list(costs.values()),
        "columns": columns,
        "rows": [
            (row, [_amount(*cost) for cost in row.costs.items()], texts)
            for row, texts in zip(best, cells, strict=True)
        ],
        "charts": search_charts.pareto_charts(study, costs),
        "completed": len(rows),
        "measured_untrained": "latency_ms" in costs,
    }


def _benchmark(results: SweepResults) -> dict[str, Any] | None:
    record = results.benchmark
    if record is None:
        return None
    noise = record["context"].get("noise") or {}
    return {
        "context": [
            (key, cell_text(value))
            for key, value in flatten(record["context"])
            if not key.startswith("noise")
        ],
        "results": record["results"],
        "chart": result_charts.latency(record["results"], device_name(record)),
        "busy": noise.get("reason", "") if noise.get("trustworthy") is False else "",
    }


def _precisions(results: SweepResults) -> dict[str, Any] | None:
    """Return the rows that compare the exports, and the reasons of rejected precisions."""
    if results.export is None:
        return None
    tried = results.export.get("precisions") or {}
    cpu_ms = tried.get("cpu_ms") or {}
    rows = []
    for document in (results.export, *results.lower_precisions):
        accuracy = document.get("accuracy") or {}
        weights = (document.get("files") or {}).get("model.bin") or {}
        rows.append(
            {
                "precision": document.get("precision", "fp32"),
                "megabytes": weights["bytes"] / 1e6 if weights else None,
                "parity": document.get("parity"),
                "validation": accuracy.get("validation"),
                "test": accuracy.get("test"),
                "cpu_ms": cpu_ms.get(document.get("precision", "fp32")),
                "tuned": (document.get("tuning") or {}).get("method") == "measured",
            }
        )
    trained_on = any(row["validation"] and not row["validation"].get("held_out", True) for row in rows)
    rejected = list((tried.get("refused") or {}).values())
    return {"rows": rows, "rejected": rejected, "trained_on_validation": trained_on}


def _test(test: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if test is None:
        return None
    names, per_class = test["class_names"], test["per_class"]
    pairs = sorted((share, name) for share, name in zip(per_class, names, strict=True) if share is not None)
    confusion = [
        (
            name,
            [(count, count / max(1, sum(row)), actual == predicted) for predicted, count in enumerate(row)],
        )
        for actual, (name, row) in enumerate(zip(names, test["confusion"], strict=True))
    ]
    return {
        **{key: test[key] for key in ("accuracy", "images", "split_sha256", "per_class", "mistakes")},
        "names": names,
        "confusion": confusion,
        "worst": pairs[0],
        "best": pairs[-1],
        "reliability": result_charts.reliability(test["calibration"]),
    }


def _plan_facts(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the plan in words; plan.json has every field."""
    keys = ("objectives", "sampler", "scheduler", "rungs", "starting_points")
    facts = [(key.replace("_", " "), cell_text(plan[key])) for key in keys if plan.get(key)]
    facts += [
        (key, f"{plan[key]} ({plan.get(f'{key}_reason', '')})")
        for key in ("device", "precision")
        if plan.get(key)
    ]
    facts += [
        ("node", ", ".join(f"{count:g} {kind}" for kind, count in node.items()))
        for node in plan.get("nodes", ())
    ]
    if within := plan.get("within"):
        facts.append(("time budget", duration(float(within["budget_s"]))))
        facts += [
            (f"chosen for the budget: {choice['name']}", f"{cell_text(choice['value'])}: {choice['reason']}")
            for choice in within.get("choices", ())
        ]
    return [*facts, *(("search stops early", text) for text in plan.get("stops", ())),
            *(("note", text) for text in plan.get("notes", ()))]  # fmt: skip


def _copied(results: SweepResults) -> list[tuple[str, str]]:
    """Return how much was copied between nodes that do not share the sweep's folder."""
    moved = [sum(record.moved_bytes or 0 for record in records) for records in results.epochs.values()]
    trials = sum(1 for each in moved if each)
    if not trials:
        return []
    return [("copied between nodes", f"{sum(moved) / 1e9:.3g} GB, for {plural(trials, 'trial')}")]


def _amount(name: str, value: float) -> str:
    return f"{value:.3g}" if name == "latency_ms" else f"{value:,.0f}"


def cell_text(value: Any) -> str:
    """Return a value of a plan or of a configuration in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {cell_text(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(cell_text, value)) or "-"
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
