"""Render the plan of a sweep as tables for the console."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from platform.common.text_format import approximate_duration, duration, percent, plural, sweep_warnings
from platform.console.progress import SweepProgress
from platform.console.tables import Unwrapped, fact_rows, plain_table
from platform.tracking.events import Stage, SweepInfo
from platform.tracking.sweep_folder import SweepFolder
from platform.tuning.planning.records import Plan, StagePlan, TimeBudget


def plan_table(
    plan: Plan,
    *,
    data: str | None = None,
    generated: bool = False,
    folder: Path | None = None,
    tracking_uri: str | None = None,
) -> Group:
    """Return the plan: the searched settings, the stages, the time, the resources and the output."""
    parts: list[RenderableType] = [
        Text.assemble((plan.space, "bold"), f"  {plan.about}" if plan.about else "")
    ]
    warnings = sweep_warnings(quick=plan.quick, generated=generated)
    parts += [Text(warning, style="bold yellow") for warning in warnings]
    parts += [Text(""), _space(plan), Text(""), _stages(plan), Text("")]
    if plan.within is not None:
        parts += [_choices(plan.within), Text("")]
    parts.append(fact_rows(_facts(plan, data, folder, tracking_uri)))
    parts += [*(Text(f"note: {note}", style="yellow") for note in plan.notes), Text("")]
    return Group(*parts)


def remaining_table(plan: Plan, folder: SweepFolder) -> Group:
    """Return the remaining runs and the remaining time of a resumed sweep."""
    progress = SweepProgress()
    progress.sweep_started(
        SweepInfo(
            sweep_id=folder.sweep_id,
            space=plan.space,
            folder=folder.path,
            command="",
            plan=plan.model_dump(mode="json"),
            tags={},
            trials=plan.search.runs,
        )
    )
    table = plain_table("stage", "runs", "done", "left")
    for name, stage in _named(plan):
        done = len(progress.ended[name])
        table.add_row(name, str(stage.runs), str(done), str(max(0, stage.runs - done)))
    facts: dict[str, str] = {"folder": Unwrapped(folder.path)}
    left = progress.remaining_time()
    if left is not None and left.whole:
        facts = {"time": f"{approximate_duration(left.seconds)} left", **facts}
    title = Text.assemble(("resuming ", ""), (folder.sweep_id, "bold"))
    return Group(title, Text(""), table, Text(""), fact_rows(facts), Text(""))


def _choices(within: TimeBudget) -> Table:
    """Return the choices that fit the sweep to its time budget."""
    table = plain_table(f"within {duration(within.budget_s)}")
    table.add_column("value")
    table.add_column("reason", style="dim")
    for choice in within.choices:
        table.add_row(Text(choice.name), Text(choice.value), Text(choice.reason))
    return table


def _space(plan: Plan) -> Table:
    table = plain_table("setting")
    table.add_column("kind", style="dim", no_wrap=True)
    table.add_column("values")
    table.add_column("only if", style="dim")
    for row in plan.rows:
        values = row.values.removesuffix(", log scale")  # the kind already contains "log"
        table.add_row(Text(row.name), row.kind.replace("_", " "), Text(values), Text(row.only_if))
    return table


def _stages(plan: Plan) -> Table:
    """Return the table of the stages, which fits 80 columns; `_facts` adds the reasons."""
    table = plain_table("stage", "runs", "epochs", "at once")
    table.add_column("each run")
    for name, stage in _named(plan):
        resources = stage.resources_per_worker.text()
        how = f"{stage.backend}, {plural(stage.workers, 'worker')} with {resources}"
        table.add_row(
            name,
            str(stage.runs),
            _epochs(stage),
            str(stage.concurrency),
            Text(f"{how} each" if stage.workers > 1 else how),
        )
    return table


def _named(plan: Plan) -> tuple[tuple[Stage, StagePlan], ...]:
    return (("search", plan.search), ("confirm", plan.confirm), ("final", plan.final))


def _facts(plan: Plan, data: str | None, folder: Path | None, tracking_uri: str | None) -> dict[str, str]:
    start = f", after {plural(plan.starting_points, 'starting point')}" if plan.starting_points else ""
    rungs = f", may stop trials after epoch {', '.join(map(str, plan.rungs))}" if plan.rungs else ""
    saved = f", expected to save {percent(plan.saved_share, 0)} of the search" if plan.saved_share else ""
    facts = {
        **({"objectives": _objectives(plan.objectives)} if len(plan.objectives) > 1 else {}),
        "sampler": f"{plan.sampler}{start}",
        "scheduler": f"{plan.scheduler}{rungs}{saved}",
        **({"early stopping": plan.stopping_risk} if plan.stopping_risk else {}),
        "epochs": f"at most {plan.worst_case_epochs:,} in all stages",
    }
    repeats = f"{plan.confirmation}, "
    for name, stage in _named(plan):
        facts[name] = (repeats if name == "confirm" else "") + _because(stage.backend, stage.backend_reason)
    facts |= plan_details(plan)
    if data:
        facts["data"] = data
    facts["cluster"] = " | ".join(node.text() for node in plan.nodes)
    niceness = os.environ.get("RAY_worker_niceness", "0")  # noqa: SIM112 - the name that Ray reads
    if niceness != "0" and not os.environ.get("RAY_ADDRESS"):
        facts["priority"] = f"workers run with niceness {niceness} (RAY_worker_niceness)"
    # Not the load average alone: it still counts the processes of a minute ago.
    if plan.estimate is not None and plan.estimate.speed.busy:
        load = plan.estimate.speed.load_per_core
        facts["load"] = f"load average {load:.1f} per core: other processes slow this sweep down"
    if plan.device:
        facts["device"] = _because(plan.device, plan.device_reason)
    if plan.precision:
        facts["precision"] = _because(plan.precision, plan.precision_reason)
    if folder is not None:
        facts["folder"] = Unwrapped(folder)
    if tracking_uri is not None:
        facts["MLflow"] = Unwrapped(tracking_uri)
    return facts


def plan_details(plan: Plan) -> dict[str, str]:
    """Return the rows of the plan about time, by name: per stage, compute hours, cost, stop criteria."""
    details: dict[str, str] = {}
    found = plan.estimate
    if found is not None:
        details["time"] = approximate_duration(found.wall_s)
        if found.idle_wall_s is not None:
            idle = approximate_duration(found.idle_wall_s)
            details["time"] += f" on this busy machine, {idle} on an idle one"
        saved = f" (early stopping saves {approximate_duration(found.saved_s)})" if found.saved_s >= 1 else ""
        details["of which"] = (
            f"search {approximate_duration(found.search.wall_s)}{saved}, "
            f"confirmation {approximate_duration(found.confirm.wall_s)}, "
            f"final training {approximate_duration(found.final.wall_s)}"
        )
        hours = [f"{found.core_hours:.2g} core-hours"] if found.core_hours else []
        hours += [f"{found.gpu_hours:.2g} GPU-hours"] if found.gpu_hours else []
        details["uses"] = ", ".join(hours)
        speed = found.speed
        concurrent = f" ({speed.processes} processes at once)" if speed.processes > 1 else ""
        mean = f", mean of {speed.networks} networks" if speed.networks > 1 else ""
        rate = f"{speed.train_images_per_s:,.0f} training images/s"
        details["measured"] = f"{rate} per process{concurrent}{mean}"
        if found.cost is not None:
            details["cost"] = f"about {found.cost:.2f} (cost_per_hour x time)"
    if plan.stops:
        details["search stops early"] = ", or ".join(plan.stops)
    return details


def _objectives(names: Sequence[str]) -> str:
    """Return the directions of the objectives in words."""
    costs = [name.replace("_", " ") for name in names if name != "validation_accuracy"]
    return f"maximize validation accuracy, minimize {', '.join(costs)}; the champion is chosen by accuracy"


def _epochs(stage: StagePlan) -> str:
    expected = stage.expected_epochs
    if expected is None or round(expected) >= stage.worst_case_epochs:
        return f"{stage.epochs}"
    return f"{stage.epochs} (mean {expected / stage.runs:.1f})"


def _because(what: str, reason: str) -> str:
    return f"{what} ({reason})" if reason else what
