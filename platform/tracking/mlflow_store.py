"""Reach the MLflow store: which one, quietly, and without any global state of MLflow's."""

from __future__ import annotations

import logging
import os
import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from platform.errors import UsageError, UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"


def resolve_tracking_uri(option: str | None = None) -> str:
    """Return the tracking URI: the option, else `MLFLOW_TRACKING_URI`, else `mlflow.db` in this folder.

    A relative SQLite path becomes absolute. MLflow itself is not imported.

    Raises:
        UsageError: a folder was given; MLflow no longer keeps runs in plain files.
    """
    uri = option or os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
    if uri.startswith(_SQLITE):
        return f"{_SQLITE}{Path(uri.removeprefix(_SQLITE)).absolute()}"
    scheme = urlsplit(uri).scheme
    if scheme in ("", "file"):
        raise UsageError(
            f"MLflow keeps runs in a database or on a server, not in a folder; got {uri!r}; "
            f"give sqlite:///PATH/mlflow.db or http://HOST:PORT"
        )
    return uri


def ui_command(tracking_uri: str) -> str:
    """Return the command that shows the store in a browser, or the server's own address."""
    if tracking_uri.startswith(("http://", "https://")):
        return tracking_uri
    return f"mlflow ui --backend-store-uri {shlex.quote(tracking_uri)}"


def open_store(tracking_uri: str) -> MlflowClient:
    """Return a client of the store, its tables created; the first use of a SQLite file takes 3 s or more.

    Only one process may do this at a time for a new database: MLflow's migrations race.

    Raises:
        UserError: the store does not answer.
    """
    # Before MLflow is imported. No telemetry, no progress bars; a server that is away is noticed in
    # seconds, where MLflow's own defaults (120 s, 7 repetitions) would hold an epoch back for minutes.
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
            raise UserError(f"the MLflow database lies in an existing folder; there is no {folder}")
    with warnings.catch_warnings():
        # SQLAlchemy, about MLflow's own queries.
        warnings.filterwarnings("ignore", message="The ``noload`` loader strategy is deprecated")
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            # The registry is named too, else MLflow would look for it where its global state says.
            client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
            client.search_experiments(max_results=1)
        except Exception as error:  # noqa: BLE001 - each database driver and server has its own
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"the MLflow store {tracking_uri} does not answer: {reason}; "
                f"start it, or give another one with --tracking-uri"
            ) from None
    return client


def experiment_id(client: MlflowClient, tracking_uri: str, space: str) -> str:
    """Return the id of the experiment named like the search space, created when it is absent.

    Beside a SQLite file the artifacts lie in `mlartifacts/`; a server has its own place.

    Raises:
        UserError: the experiment was deleted in MLflow.
    """
    known = client.get_experiment_by_name(space)
    if known is not None:
        if known.lifecycle_stage != "active":
            raise UserError(
                f"MLflow's experiment {space!r} was deleted; bring it back with: "
                f"MLFLOW_TRACKING_URI={shlex.quote(tracking_uri)} mlflow experiments restore "
                f"--experiment-id {known.experiment_id}"
            )
        return str(known.experiment_id)
    location = None
    if tracking_uri.startswith(_SQLITE):
        location = (Path(tracking_uri.removeprefix(_SQLITE)).parent / "mlartifacts" / space).as_uri()
    return str(client.create_experiment(space, artifact_location=location))
