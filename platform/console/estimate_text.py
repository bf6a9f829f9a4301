"""Format the estimated time of a sweep, and compare it with the actual time."""

from __future__ import annotations

from rich.table import Table

from platform.common.text_format import approximate_duration, duration
from platform.tracking.results import SweepResults
from platform.tuning.planning.records import Plan

_STAGE_NAME = {
    "confirm": "confirmation",
    "final": "final training",
    "all else": "start, test, export, benchmark, report",
}


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


def time_table(results: SweepResults) -> Table:
    """Return the estimated and the actual time of each stage and of the whole sweep."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("time", style="dim", no_wrap=True)
    for name in ("planned", "actual", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    planned = ((results.plan or {}).get("estimate") or {}).get("wall_s")
    for name, planned_s, actual_s in (*results.stage_times(), ("whole sweep", planned, results.wall_s())):
        change = f"{100 * (actual_s / planned_s - 1):+.0f} %" if planned_s and actual_s else "-"
        table.add_row(_STAGE_NAME.get(name, name), duration(planned_s), duration(actual_s), change)
    return table
