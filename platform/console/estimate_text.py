"""A sweep's expected time in words, and afterwards how right that was."""

from __future__ import annotations

from platform.tracking.results import read_results
from platform.tracking.sweep_folder import SweepFolder
from platform.tracking.text_format import duration, roughly
from platform.tuning.planning.plan import Plan


def plan_details(plan: Plan) -> dict[str, str]:
    """Return further lines of the plan, by name: stages, hours, money, stops."""
    details: dict[str, str] = {}
    found = plan.estimate
    if found is not None:
        saved = f" (early stopping saves {roughly(found.saved_s)})" if found.saved_s >= 1 else ""
        details["of which"] = (
            f"search {roughly(found.search.wall_s)}{saved}, confirmation {roughly(found.confirm.wall_s)}, "
            f"final training {roughly(found.final.wall_s)}"
        )
        hours = [f"{found.core_hours:.2g} core-hours"] if found.core_hours else []
        hours += [f"{found.gpu_hours:.2g} GPU-hours"] if found.gpu_hours else []
        details["uses"] = ", ".join(hours)
        speed = found.speed
        beside = f" beside {speed.processes - 1} more" if speed.processes > 1 else ""
        mean = f", the mean over {speed.networks} networks" if speed.networks > 1 else ""
        rate = f"{speed.train_images_per_s:,.0f} training images/s"
        details["measured"] = f"{rate} in one process{beside}{mean}"
        if found.cost is not None:
            details["cost"] = f"about {found.cost:.2f} (cost_per_hour times the time)"
    if plan.stops:
        details["the search ends early"] = ", or ".join(plan.stops)
    return details


def took(folder: SweepFolder) -> str:
    """Return how long the sweep took, beside what its plan expected."""
    plan = read_results(folder).plan or {}
    expected = (plan.get("estimate") or {}).get("wall_s")
    text = f"took {duration(folder.active_s)}"
    return text if expected is None else f"{text}; the plan expected {roughly(float(expected))}"
