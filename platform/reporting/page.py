"""Render the report of a sweep: one self-contained HTML file.

The report is made from the files in the sweep's folder. For an incomplete sweep it lists the missing results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from platform.common.atomic import write_text
from platform.common.errors import UserError
from platform.common.nested import flatten
from platform.common.text_format import (
    duration,
    evaluation_text,
    percent,
    plural,
    settings_cells,
    sweep_warnings,
)
from platform.reporting import axes, curves, pareto, spread
from platform.space.space_files import load_spec
from platform.tracking.events import TrialStatus
from platform.tracking.parquet_tables import TrialRow
from platform.tracking.results import SweepResults, read_results
from platform.tracking.summary_sentences import best_latency, device_name, summary_sentences
from platform.tracking.sweep_folder import SweepFolder
from platform.tracking.trial_findings import grouped_findings

SHOWN_TRIALS = 15
"""Visible rows of the leaderboard; the others are collapsed."""


def write_report(folder: Path | SweepFolder) -> Path:
    """Write `report.html` to a sweep's folder and return its path; an existing report is replaced.

    Raises:
        UserError: the folder does not exist, a file in it is damaged, or the report cannot be written.
    """
    sweep = folder if isinstance(folder, SweepFolder) else SweepFolder(folder.absolute())
    html = render(read_results(sweep))
    try:
        write_text(sweep.report, html)
    except OSError as error:
        raise UserError(f"cannot write {sweep.report}: {error.strerror or error}") from None
    return sweep.report


def render(results: SweepResults) -> str:
    """Return the HTML page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "duration": duration, "plural": plural}
    return environment.get_template("report.html.j2").render(context(results))


def context(results: SweepResults) -> dict[str, Any]:
    """Return the variables of the template."""
    plan = results.plan or {}
    return {
        "sweep_id": results.folder.sweep_id,
        "space": plan.get("space") or results.folder.space,
        "about": plan.get("about", ""),
        "state": results.state,
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "warnings": sweep_warnings(quick=results.quick, generated=results.generated),
        "sentences": summary_sentences(results),
        "cards": _cards(results),
        "missing": _missing(results),
        "champion": _champion(results),
        "selection": results.selection,
        "verdict": str((results.selection or {}).get("verdict", "")).replace("+-", "±"),
        "spread": spread.confirmation(results.selection) if results.selection else None,
        "pareto": pareto.pareto_view(results),
        "leaderboard": _leaderboard(results),
        "accuracy_curves": curves.learning_curves(results),
        "loss_curves": curves.learning_curves(results, loss=True),
        "finding_groups": grouped_findings(results),
        "best_so_far": curves.best_so_far(results),
        "axis_plots": axes.axis_plots(results),
        "parity": (results.export or {}).get("parity"),
        "export": results.export,
        "precisions": _precisions(results),
        "benchmark": _benchmark(results),
        "test": _test(results.test),
        "failures": [row for row in results.trials if row.status is TrialStatus.FAILED],
        "plan_rows": plan.get("rows", ()),
        "plan_facts": [
            (key, _cell_text(value))
            for key, value in flatten({k: v for k, v in plan.items() if k not in ("rows", "provenance")})
            if value not in (None, "", (), [])
        ],
        "provenance": [(key, _cell_text(value)) for key, value in flatten(results.provenance())],
        "resume": f"python -m platform.sweep --resume {results.folder.sweep_id}",
    }


def _cards(results: SweepResults) -> list[tuple[str, str, str]]:
    """Return (label, value, note) of each card at the top of the page."""
    cards = []
    if results.test is not None:
        note = evaluation_text(results.test)
        cards.append(("test accuracy", percent(results.test["accuracy"]), note))
    entry = results.champion_candidate()
    ranked = results.leaderboard()
    if entry is not None:
        spread_text = f"± {100 * entry['std']:.2f}, " if entry.get("std") is not None else ""
        note = f"{spread_text}{plural(entry['n'], 'seed')}"
        cards.append(("validation accuracy", percent(entry["mean"]), note))
    elif ranked:
        accuracy = percent(ranked[0].validation_accuracy)
        cards.append(("best validation accuracy so far", accuracy, ranked[0].trial_id))
    fastest = best_latency(results.benchmark) if results.benchmark else None
    if fastest is not None:
        note = f"one image, ncnn, {plural(int(fastest['threads']), 'thread')}, median"
        cards.append(("latency", f"{fastest['latency_ms']['p50']:.2f} ms", note))
    parity = (results.export or {}).get("parity")
    if parity:
        note = f"ncnn vs. PyTorch, {plural(parity['images'], 'image')}"
        cards.append(("top-1 agreement", percent(parity["top1_agreement"], 1), note))
    search = results.of_stage("search")
    pruned = sum(row.status is TrialStatus.PRUNED for row in search)
    epochs = sum(row.epochs_done for row in results.trials)
    cards.append(
        ("search", plural(len(search), "trial"), f"{pruned} pruned, {epochs:,} epochs in all stages")
    )
    return cards


def _missing(results: SweepResults) -> list[str]:
    """Return the results of a finished sweep that are missing."""
    return [
        text
        for text, exists in (
            ("search: no trial has finished an epoch", any(row.epochs_done for row in results.trials)),
            ("confirmation over several seeds: the ranking may be noise", results.selection is not None),
            ("champion: the best configuration has not been chosen", results.champion is not None),
            ("test accuracy: the test split has not been evaluated", results.test is not None),
            ("export to ncnn and its parity with PyTorch", results.export is not None),
            ("latency on this machine", results.benchmark is not None),
        )
        if not exists
    ]


def _champion(results: SweepResults) -> dict[str, Any] | None:
    champion = results.champion
    if champion is None:
        return None
    config = champion.get("config") or {}
    try:
        base = load_spec(results.folder.path).base.model_dump(mode="json")
    except UserError:
        base = None
    return {
        "trial_id": champion.get("trial_id", ""),
        "data_label": results.data_label(),
        "candidate": results.champion_candidate(),
        "settings": _compared(base, config),
        "has_base": base is not None,
    }


def _compared(base: Mapping[str, Any] | None, config: Mapping[str, Any]) -> list[tuple[str, str, str, bool]]:
    """Return (name, value in the base, value in the champion, changed) of every setting."""
    before = dict(flatten(base)) if base is not None else {}
    after = dict(flatten(config))
    rows = []
    for key in dict.fromkeys((*after, *before)):
        old, new = _cell_text(before.get(key, "-")), _cell_text(after.get(key, "-"))
        # Every run has its own seed, which is not a searched setting.
        rows.append((key, old, new, base is not None and old != new and key != "seed"))
    return rows


def _leaderboard(results: SweepResults) -> dict[str, Any]:
    rows = results.leaderboard()
    cells = [settings_cells(row.params) for row in rows]
    columns = list(dict.fromkeys(name for cell in cells for name in cell))
    return {
        "columns": columns,
        "rows": [
            (row, [cell.get(name, "") for name in columns]) for row, cell in zip(rows, cells, strict=True)
        ],
        "shown": SHOWN_TRIALS,
        "champion": (results.champion or {}).get("trial_id"),
        "unranked": _unranked(results.of_stage("search")),
    }


def _unranked(rows: Sequence[TrialRow]) -> int:
    return sum(row.validation_accuracy is None for row in rows)


def _benchmark(results: SweepResults) -> dict[str, Any] | None:
    record = results.benchmark
    if record is None:
        return None
    noise = record.get("context", {}).get("noise") or {}
    return {
        "device": device_name(record),
        "context": [
            (key, _cell_text(value))
            for key, value in flatten(record.get("context", {}))
            if not key.startswith("noise")
        ],
        "results": record.get("results", []),
        "chart": spread.latency(record.get("results", [])),
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
    confusion = test.get("confusion") or []
    names = test.get("class_names") or [str(index) for index in range(len(confusion))]
    per_class = test.get("per_class") or []
    pairs = sorted(zip(per_class, names, strict=False))
    confused = sorted(
        (
            (count, names[actual], names[predicted])
            for actual, row in enumerate(confusion)
            for predicted, count in enumerate(row)
            if actual != predicted and count
        ),
        reverse=True,
    )
    return {
        **{key: test.get(key) for key in ("accuracy", "loss", "images", "opened_at", "split_sha256")},
        "names": names,
        "per_class": per_class,
        "confusion": [
            (
                name,
                [
                    (count, count / max(1, sum(row)), actual == predicted)
                    for predicted, count in enumerate(row)
                ],
            )
            for actual, (name, row) in enumerate(zip(names, confusion, strict=False))
        ],
        "worst": pairs[0] if pairs else None,
        "best": pairs[-1] if pairs else None,
        "confused": confused[:3],
    }


def _cell_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell_text(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell_text, value)) or "-"
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
