"""Parameters, descriptions and saved views of a sweep for the pages of MLflow.

MLflow 3.16 and later keep a saved view as an experiment tag `mlflow.sharedViewState.<id>`: JSON with the name
and the state of the runs page (its "Views" menu writes the same).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from platform.common.text_format import duration, percent, settings_text, short_name
from platform.tracking.events import SweepInfo, TrialInfo
from platform.tracking.mlflow_store import write_row

if TYPE_CHECKING:
    from mlflow import MlflowClient

_TAG = "mlflow.sharedViewState."
RECIPES, OPTIMIZERS, CURVES, CONFIRMATION = "compare-recipes", "optimizers", "learning-curves", "confirmation"
_SECTION = "sweep"
_COMMON = ("optimizer", "lr", "log10_lr", "weight_decay", "schedule", "batch_size")
_NOT_SET = "-"
_OPTIMIZER_NAMES = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}


def write_saved_views(client: MlflowClient, experiment_id: str, sweep: SweepInfo, *, time_ms: int) -> None:
    """Write the views of a sweep.

    The views with fixed ids always show the newest sweep of the experiment; the view with the sweep's id as
    its name stays.
    """
    recipes = _recipes(sweep)
    views = {
        RECIPES: ("Compare recipes", recipes),
        CURVES: ("Learning curves", _curves(sweep)),
        CONFIRMATION: ("Confirmation", _confirmation(sweep)),
        sweep.sweep_id: (sweep.sweep_id, recipes),
    }
    optimizers = [row["values"] for row in _rows(sweep) if row["name"] == "optimizer"]
    if optimizers:
        names = [_OPTIMIZER_NAMES.get(name, name) for name in optimizers[0].split(", ")]
        views[OPTIMIZERS] = (" vs ".join(names), _optimizers(sweep))
    # Without its kind, MLflow would open the experiment on its page of traces.
    tags = {"mlflow.experimentKind": "custom_model_development"}
    for view_id, (name, state) in views.items():
        envelope = {"name": name, "createdAt": time_ms, "updatedAt": time_ms, "state": json.dumps(state)}
        tags[f"{_TAG}{view_id}"] = json.dumps(envelope)
    for key, value in tags.items():
        write_row(partial(client.set_experiment_tag, experiment_id, key, value))


def view_addresses(client: MlflowClient, server: str, experiment_id: str) -> dict[str, str]:
    """Return the addresses of an experiment's views on an MLflow server by name; the comparison first.

    The mode of the page, table or charts, is not part of a view, but of its address.
    """
    page = f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    tags = client.get_experiment(experiment_id).tags
    addresses = {}
    for view_id, mode in (
        (RECIPES, "TABLE"),
        (OPTIMIZERS, "CHART"),
        (CURVES, "CHART"),
        (CONFIRMATION, "TABLE"),
    ):
        if f"{_TAG}{view_id}" in tags:
            name = json.loads(tags[f"{_TAG}{view_id}"])["name"]
            addresses[name] = f"{page}&compareRunsMode={mode}&viewStateShareKey={view_id}"
    return addresses


def trial_params(trial: TrialInfo, sweep: SweepInfo) -> dict[str, str | int | float | bool]:
    """Return the parameters of a trial; all trials of a sweep have the same keys.

    A setting of an alternative has one key for all alternatives (`schedule.factor`), and the value `-` in the
    trials that do not have it.
    """
    config = trial.config
    common = {
        "optimizer": config.optimizer.name,
        "lr": config.optimizer.lr,
        "log10_lr": round(math.log10(config.optimizer.lr), 4),
        "weight_decay": config.optimizer.weight_decay or 0,
        "schedule": config.schedule.name,
        "batch_size": config.batch_size,
    }
    searched = {key: _value(trial, path) for key, path in _setting_paths(sweep).items()}
    return searched | common


def _rows(sweep: SweepInfo) -> Sequence[Mapping[str, str]]:
    return [{"kind": "", "values": "", "only_if": "", **row} for row in sweep.plan.get("rows", ())]


def _setting_paths(sweep: SweepInfo) -> dict[str, str]:
    """Return the path within `RunConfig` of each searched setting by its parameter key."""
    alternatives = {row["name"] for row in _rows(sweep) if row["kind"] == "alternatives"}
    paths: dict[str, str] = {}
    for row in _rows(sweep):
        path, whole = "", ""
        for part in row["name"].split("."):
            # The label of the chosen alternative is part of the name, not of the path.
            path = path if whole in alternatives else f"{path}.{part}".removeprefix(".")
            whole = f"{whole}.{part}".removeprefix(".")
        if path in ("optimizer.lr", "optimizer.weight_decay"):
            key = path.removeprefix("optimizer.")
        else:
            key = short_name(path) if path == whole else path
        paths[key] = path
    return paths


def _value(trial: TrialInfo, path: str) -> str | int | float | bool:
    value: Any = trial.config
    for part in path.split("."):
        value = getattr(value, part, None)
    value = getattr(value, "name", value)
    return value if isinstance(value, str | int | float | bool) else _NOT_SET if value is None else str(value)


def _state(sweep: SweepInfo, stage: str, columns: Sequence[str], charts: Sequence[Mapping[str, Any]]) -> Any:
    section = {"uuid": _SECTION, "name": sweep.sweep_id, "display": True, "isReordered": True}
    size = {"columns": min(2, len(charts) - 1), "cardHeight": 420}
    return {
        "searchFilter": f"tags.sweep_id = '{sweep.sweep_id}' and tags.stage = '{stage}'",
        "orderByKey": "metrics.`val_accuracy`",
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": [*columns, "duration"],
        "columnWidths": {name: 112 if len(name) > 20 else 86 for name in columns},
        "runsHiddenMode": "SHOW_ALL",
        "isAccordionReordered": True,
        "compareRunSections": [{**section, **size, "deleted": False, "isGenerated": False}],
        "compareRunCharts": [
            {
                "uuid": f"{_SECTION}-{number}",
                "metricSectionId": _SECTION,
                "deleted": False,
                "isGenerated": False,
                **chart,
            }
            for number, chart in enumerate(charts)
        ],
    }


def _columns(sweep: SweepInfo) -> list[str]:
    others = [key for key in _setting_paths(sweep) if key not in _COMMON]
    keys = [*(key for key in _COMMON if key != "log10_lr"), *others]
    return [
        "metrics.`val_accuracy`",
        *(f"params.`{key}`" for key in keys),
        "metrics.`epochs_trained`",
        "tags.`status`",
    ]


def _line(metric: str, *, scale: str = "linear") -> dict[str, Any]:
    # MLflow completes its own new charts, but not the charts of a view, with the default settings.
    return {
        "type": "LINE",
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "scaleType": scale,
        "lineSmoothness": 0,
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "range": {},
        "displayPoints": False,
        "useGlobalXaxisKey": False,
        "useGlobalLineSmoothing": False,
    }


def _recipes(sweep: SweepInfo) -> Any:
    # The chart leaves out trials without a value, so the settings of one alternative are no axes.
    always = {row["name"] for row in _rows(sweep) if not row["only_if"]} | {
        "optimizer.lr",
        "optimizer.weight_decay",
    }
    searched = [key for key, path in _setting_paths(sweep).items() if path in always]
    axes = ["log10_lr" if key == "lr" else key for key in searched]
    parallel = {"type": "PARALLEL", "selectedParams": axes, "selectedMetrics": ["val_accuracy"]}
    scatter = {
        "type": "SCATTER",
        "xaxis": {"key": "log10_lr", "type": "PARAM"},
        "yaxis": {"key": "val_accuracy", "type": "METRIC"},
    }
    return _state(sweep, "search", _columns(sweep), [parallel, scatter])


def _optimizers(sweep: SweepInfo) -> Any:
    best = {"type": "BAR", "metricKey": "val_accuracy", "displayName": "best val_accuracy"}
    charts = [best, _line("val/accuracy"), _line("train/loss")]
    # The mean would mostly compare the ranges of the learning rates, so a group has the best value.
    return _grouped(_state(sweep, "search", _columns(sweep), charts), "param", "optimizer", "max")


def _curves(sweep: SweepInfo) -> Any:
    charts = [_line("val/accuracy"), _line("train/loss", scale="log"), _line("lr", scale="log")]
    return _state(sweep, "search", _columns(sweep), charts)


def _confirmation(sweep: SweepInfo) -> Any:
    results = ["metrics.`val_accuracy`", "metrics.`val_accuracy_std`"]
    columns = [*results, "tags.`candidate`", "tags.`seed`", *_columns(sweep)[1:]]
    charts = [{"type": "BAR", "metricKey": "val_accuracy"}, _line("val/accuracy")]
    return _grouped(_state(sweep, "confirm", columns, charts), "tag", "candidate", "average")


def _grouped(state: Any, mode: str, key: str, aggregate: str) -> Any:
    group = {"aggregateFunction": aggregate, "groupByKeys": [{"mode": mode, "groupByData": key}]}
    # The cell of a group has the name of the aggregate next to the value.
    wide = {name: 150 for name in state["selectedColumns"] if name.startswith("metrics.")}
    return {**state, "groupBy": group, "columnWidths": {**state["columnWidths"], **wide}}


def sweep_note(sweep: SweepInfo, result: str = "") -> str:
    """Return the question, the result, the search space, the plan and the machine as Markdown.

    It is the description of the parent run. `result` is Markdown.
    """
    plan = sweep.plan
    parts = [f"**{plan.get('about') or sweep.space}**", *(f"**{warning}**" for warning in sweep.warnings)]
    if result:
        parts += ["### Result", result]
    if _rows(sweep):
        rows = [(row["name"], row["values"], row["only_if"] or "always") for row in _rows(sweep)]
        parts += ["### Search space", _table(("setting", "values", "when"), rows)]
    stages = [
        (name, plan[name]) for name in ("search", "confirm", "final") if isinstance(plan.get(name), Mapping)
    ]
    if stages:
        numbers = [
            (
                name,
                *(stage.get(key, "") for key in ("runs", "epochs", "workers", "concurrency")),
                stage.get("backend"),
            )
            for name, stage in stages
        ]
        parts += [
            "### Plan",
            _table(("stage", "runs", "epochs", "workers per run", "runs at once", "backend"), numbers),
        ]
    wall_s = (plan.get("estimate") or {}).get("wall_s")
    facts = {
        "sampler": plan.get("sampler"),
        "scheduler": plan.get("scheduler"),
        "estimated time": duration(wall_s) if wall_s else None,
        "data": sweep.tags.get("data_label"),
        "device": plan.get("device"),
        "precision": plan.get("precision"),
        "machine": sweep.tags.get("hardware"),
        "commit": sweep.tags.get("git_commit"),
        "folder": str(sweep.folder),
    }
    parts += [_table(("", ""), [(name, value) for name, value in facts.items() if value])]
    parts += [*(f"- {note}" for note in plan.get("notes", ())), f"```\n{sweep.command}\n```"]
    parts += ["The complete configuration is in the artifacts `spec.yaml` and `plan.json`."]
    return "\n\n".join(parts)


def trial_note(trial: TrialInfo, error: str | None = None) -> str:
    """Return the description of a trial's run as Markdown."""
    role = {
        "search": "Search trial.",
        "confirm": f"Confirmation of trial {trial.candidate}, with another seed.",
        "final": f"Final model: the settings of trial {trial.candidate}, trained once more for the export.",
    }[trial.stage]
    config, parts = trial.config, [role]
    budget = f"{config.epochs} epochs" if config.epochs else f"{config.iterations} steps"
    parts.append(f"{config.model.name}, {budget}: {settings_text(trial.params) or 'the base configuration'}")
    if error:
        parts.append(f"```\n{error}\n```")
    return "\n\n".join(parts)


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        f"| {' | '.join(decimal_text(cell) for cell in row)} |".replace("\n", " ") for row in lines
    )


def result_note(sentences: Sequence[str], metrics: Mapping[str, float]) -> str:
    """Return the outcome of a sweep as Markdown: its summary and its metrics."""
    rows = [
        (key, percent(value) if key.endswith(("accuracy", "accuracy_mean")) else f"{value:.6g}")
        for key, value in metrics.items()
    ]
    table = [_table(("metric", "value"), rows)] if rows else []
    return "\n\n".join([*sentences, *table])


def decimal_text(value: Any) -> str:
    """Return a value as text; floats in decimal notation, which MLflow's plots sort as numbers."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return format(Decimal(repr(value)), "f") if math.isfinite(value) else str(value)
