"""Saved views of MLflow's UI, with which the comparison of a sweep's trials opens without a click.

MLflow 3.16 and later keep a saved view as an experiment tag `mlflow.sharedViewState.<id>`: JSON with the name
and the state of the runs page (its "Views" menu writes the same).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from platform.tracking.events import SweepInfo

if TYPE_CHECKING:
    from mlflow import MlflowClient

_TAG = "mlflow.sharedViewState."
_RECIPES, _CONFIRMATION = "compare-recipes", "confirmation"
_COMMON = ("optimizer", "lr", "schedule", "batch_size")


def write_saved_views(client: MlflowClient, experiment_id: str, sweep: SweepInfo, *, time_ms: int) -> None:
    """Write the views of a sweep: its trials, and its confirmation runs, each sorted by validation accuracy.

    The views `compare-recipes` and `confirmation` always show the newest sweep of the experiment; the view
    with the sweep's id as its name stays.
    """
    columns = ["metrics.`val/accuracy`", *(f"params.`{name}`" for name in (*_COMMON, *_searched(sweep)))]
    recipes = _view_state(sweep, "search", columns)
    confirmation = _view_state(sweep, "confirm", [*columns, "tags.`candidate`", "tags.`seed`"])
    for view_id, name, state in (
        (_RECIPES, "Compare recipes", recipes),
        (_CONFIRMATION, "Confirmation", confirmation),
        (sweep.sweep_id, sweep.sweep_id, recipes),
    ):
        envelope = {"name": name, "createdAt": time_ms, "updatedAt": time_ms, "state": json.dumps(state)}
        client.set_experiment_tag(experiment_id, f"{_TAG}{view_id}", json.dumps(envelope))


def comparison_url(server: str, experiment_id: str) -> str:
    """Return the address of the view `compare-recipes` on an MLflow server."""
    page = f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs"
    return f"{page}?workflowType=machine_learning&viewStateShareKey={_RECIPES}"


def _searched(sweep: SweepInfo) -> list[str]:
    """Return the searched settings beyond the common ones; a learning rate has the common column `lr`."""
    names = [str(row["name"]) for row in sweep.plan.get("rows", ())]
    return [name for name in names if name not in _COMMON and not name.endswith(".lr")]


def _view_state(sweep: SweepInfo, stage: str, columns: list[str]) -> dict[str, Any]:
    return {
        "searchFilter": f"tags.sweep_id = '{sweep.sweep_id}' and tags.stage = '{stage}'",
        "orderByKey": "metrics.`val/accuracy`",
        "orderByAsc": False,
        "selectedColumns": columns,
    }
