"""Format the estimated time of a sweep, and compare it with the actual time."""

from __future__ import annotations

from platform.common.text_format import approximate_duration, duration
from platform.tracking.results import read_results
from platform.tracking.sweep_folder import SweepFolder
from platform.tuning.planning.records import Plan


def plan_details(plan: Plan) -> dict[str, str]:
    """Return further rows of the plan by name: time per stage, compute hours, cost, stop criteria."""
    details: dict[str, str] = {}
    found = plan.estimate
    if found is not None:
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


def wall_time_text(folder: SweepFolder) -> str:
    """Return the wall time of the sweep and the estimate of its plan."""
    plan = read_results(folder).plan or {}
    expected = (plan.get("estimate") or {}).get("wall_s")
    text = f"wall time {duration(folder.elapsed_s())}"
    return text if expected is None else f"{text} (estimated: {approximate_duration(float(expected))})"
