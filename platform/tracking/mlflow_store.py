"""Resolve and open the MLflow store without changing MLflow's global state."""

from __future__ import annotations

import logging
import os
import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from platform.common.errors import UsageError, UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"


def resolve_tracking_uri(option: str | None = None) -> str:
    """Return the tracking URI: `option`, else `MLFLOW_TRACKING_URI`, else `mlflow.db` in the current folder.

    A relative SQLite path becomes absolute. MLflow is not imported.

    Raises:
        UsageError: the URI is a folder; MLflow no longer supports file stores.
    """
    uri = option or os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
    if uri.startswith(_SQLITE):
        return f"{_SQLITE}{Path(uri.removeprefix(_SQLITE)).absolute()}"
    scheme = urlsplit(uri).scheme
    if scheme in ("", "file"):
        raise UsageError(
            f"the MLflow store must be a database or a server, not a folder; got {uri!r}; "
            f"give sqlite:///PATH/mlflow.db or http://HOST:PORT"
        )
    return uri


def ui_command(tracking_uri: str) -> str:
    """Return the command that compares the trials of the newest sweep in MLflow's UI."""
    return f"python -m platform.ui --tracking-uri {shlex.quote(tracking_uri)}"


def open_store(tracking_uri: str) -> MlflowClient:
    """Return a client of the store and create its tables; a new SQLite file takes 3 s or more.

    Only one process at a time may open a new database, because concurrent migrations of MLflow conflict.

    Raises:
        UserError: the store is unavailable.
    """
    # Set before MLflow is imported. MLflow's default timeout (120 s, 7 retries) would delay an epoch by
    # minutes while a server is unavailable.
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_DISABLE_AGENT_HINT": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    }.items():
        os.environ.setdefault(name, value)
    if tracking_uri.startswith(_SQLITE):
        folder = Path(tracking_uri.removeprefix(_SQLITE)).parent
        if not folder.is_dir():
            raise UserError(
                f"the folder of the MLflow database must exist; {folder} does not: "
                f"create it, or give another store with --tracking-uri"
            )
    with warnings.catch_warnings():
        # A warning of SQLAlchemy about MLflow's queries.
        warnings.filterwarnings("ignore", message="The ``noload`` loader strategy is deprecated")
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            # Without registry_uri, MLflow would take the registry from its global state.
            client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
            client.search_experiments(max_results=1)
        except Exception as error:  # noqa: BLE001 - the type depends on the database driver or server
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"the MLflow store {tracking_uri} is unavailable: {reason}; "
                f"start it, or give another store with --tracking-uri"
            ) from None
    return client


def newest_experiment(client: MlflowClient) -> str | None:
    """Return the id of the experiment with the sweep that started last; None without sweeps."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(
        experiments, "tags.stage = 'sweep'", max_results=1, order_by=["attributes.start_time DESC"]
    )
    return str(runs[0].info.experiment_id) if runs else None


def experiment_id(client: MlflowClient, tracking_uri: str, space: str) -> str:
    """Return the id of the experiment of a search space; it is created if it does not exist.

    For a SQLite store the artifacts are in `mlartifacts/` next to the file; a server chooses the location.

    Raises:
        UserError: the experiment was deleted in MLflow.
    """
    known = client.get_experiment_by_name(space)
    if known is not None:
        if known.lifecycle_stage != "active":
            raise UserError(
                f"the MLflow experiment {space!r} is deleted; restore it with: "
                f"MLFLOW_TRACKING_URI={shlex.quote(tracking_uri)} mlflow experiments restore "
                f"--experiment-id {known.experiment_id}"
            )
        return str(known.experiment_id)
    location = None
    if tracking_uri.startswith(_SQLITE):
        location = (Path(tracking_uri.removeprefix(_SQLITE)).parent / "mlartifacts" / space).as_uri()
    return str(client.create_experiment(space, artifact_location=location))
