"""Resolve and open the MLflow store without changing MLflow's global state."""

from __future__ import annotations

import fcntl
import logging
import os
import shlex
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from platform.common.atomic import read_json, write_json
from platform.common.errors import UsageError, UserError
from platform.tracking.provenance import without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"
_STORE_FILE = "mlflow.json"


def resolve_tracking_uri(option: str | None = None, folder: Path | None = None) -> str:
    """Return the tracking URI: of the sweep in `folder`, `option`, `MLFLOW_TRACKING_URI` or `./mlflow.db`.

    A relative SQLite path becomes absolute. MLflow is not imported.

    Args:
        option: `--tracking-uri`; for a sweep with runs in a store it must be that store.
        folder: the folder of a sweep that may have a store already. Its credentials are not kept; they are
            those of `option` or of `MLFLOW_TRACKING_URI`.

    Raises:
        UsageError: MLflow cannot use the URI, or the sweep has another store.
    """
    variable = os.environ.get("MLFLOW_TRACKING_URI")
    stored = _stored(folder)
    if stored is None:
        return _checked(option or variable or f"{_SQLITE}mlflow.db")
    uri, is_opened = stored
    for given in (option, variable):
        if given and without_credentials(_checked(given)) == uri:
            return _checked(given)
    if not is_opened and (option or variable):
        return _checked(option or variable or "")
    if option is None:
        return uri
    raise UsageError(
        f"a sweep stays in its MLflow store; this one is in {uri}, got "
        f"{without_credentials(_checked(option))}: leave out --tracking-uri"
    )


def store_tracking_uri(folder: Path, tracking_uri: str, *, opened: bool) -> None:
    """Keep a sweep's tracking URI in its folder, without credentials, for `--resume`.

    Args:
        folder: the folder of the sweep.
        tracking_uri: its store.
        opened: whether the store could be opened; if not, `--resume` accepts another one.
    """
    uri = without_credentials(tracking_uri)
    opened = opened or _stored(folder) == (uri, True)
    write_json(folder / _STORE_FILE, {"tracking_uri": uri, "opened": opened})


def _stored(folder: Path | None) -> tuple[str, bool] | None:
    if folder is None or not (folder / _STORE_FILE).exists():
        return None
    record = read_json(folder / _STORE_FILE, remedy="remove it")
    return str(record["tracking_uri"]), bool(record.get("opened"))


def _checked(uri: str) -> str:
    scheme, path = urlsplit(uri).scheme, urlsplit(uri).path
    if scheme in ("", "file"):
        problem = "the MLflow store must be a database or a server, not a folder"
    elif scheme.startswith("sqlite") and (path in ("", "/") or "memory" in urlsplit(uri).query + path[-8:]):
        problem = "a SQLite store must be a file, because a database in memory is lost at the end"
    elif uri.startswith(_SQLITE):
        return f"{_SQLITE}{Path(uri.removeprefix(_SQLITE)).absolute()}"
    else:
        return uri
    raise UsageError(f"{problem}; got {uri!r}; give sqlite:///PATH/mlflow.db or http://HOST:PORT")


def ui_command(tracking_uri: str) -> str:
    """Return the command that compares the trials of the newest sweep in MLflow's UI."""
    return f"python -m platform.ui --tracking-uri {shlex.quote(without_credentials(tracking_uri))}"


def open_store(tracking_uri: str) -> MlflowClient:
    """Return a client of the store and create its tables; a new SQLite file takes 3 s or more.

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
        try:
            # MLflow retries for 100 s and logs each attempt.
            _check_database(tracking_uri)
            from mlflow import MlflowClient

            for name in ("mlflow", "alembic"):
                logging.getLogger(name).setLevel(logging.WARNING)
            with _one_at_a_time(tracking_uri):
                # Without registry_uri, MLflow would take the registry from its global state.
                client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
                client.search_experiments(max_results=1)
        except Exception as error:  # noqa: BLE001 - the type depends on the database driver or server
            reason = without_credentials(" ".join(str(error).split()))[:300]
            if tracking_uri.startswith(_SQLITE):
                remedy = "check the file"
            elif isinstance(error, ModuleNotFoundError):
                remedy = f"install {error.name}"
            else:
                remedy = "start it, set MLFLOW_TRACKING_URI with its credentials (a sweep's folder has none)"
            raise UserError(
                f"the MLflow store {without_credentials(tracking_uri)} is unavailable: {reason}; "
                f"{remedy}, or give another store with --tracking-uri"
            ) from None
    return client


def _check_database(tracking_uri: str) -> None:
    """Raise an error if a database cannot be opened for writing."""
    scheme = urlsplit(tracking_uri).scheme.partition("+")[0]
    if tracking_uri.startswith(_SQLITE):
        path = Path(tracking_uri.removeprefix(_SQLITE).partition("?")[0])
        with closing(sqlite3.connect(path, timeout=30)) as connection:
            connection.execute("PRAGMA user_version")
        if not os.access(path, os.W_OK):
            raise PermissionError(f"{path} is not writable")
    elif scheme in ("postgresql", "mysql"):
        import sqlalchemy

        engine = sqlalchemy.create_engine(tracking_uri, connect_args={"connect_timeout": 10})
        engine.connect().close()
        engine.dispose()


@contextmanager
def _one_at_a_time(tracking_uri: str) -> Iterator[None]:
    """Hold a lock while the tables of a SQLite file are created, because concurrent migrations conflict."""
    if not tracking_uri.startswith(_SQLITE):
        yield
        return
    folder = os.open(Path(tracking_uri.removeprefix(_SQLITE)).parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # a network file system without locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


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
    from mlflow.exceptions import MlflowException

    known = client.get_experiment_by_name(space)
    if known is not None:
        if known.lifecycle_stage != "active":
            raise UserError(
                f"the MLflow experiment {space!r} is deleted; restore it with: "
                f"MLFLOW_TRACKING_URI={shlex.quote(without_credentials(tracking_uri))} mlflow experiments "
                f"restore --experiment-id {known.experiment_id}"
            )
        return str(known.experiment_id)
    location = None
    if tracking_uri.startswith(_SQLITE):
        location = (Path(tracking_uri.removeprefix(_SQLITE)).parent / "mlartifacts" / space).as_uri()
    try:
        return str(client.create_experiment(space, artifact_location=location))
    except MlflowException:
        known = client.get_experiment_by_name(space)  # another sweep created it meanwhile
        if known is None:
            raise
        return str(known.experiment_id)


def write_row(write: Callable[[], object]) -> None:
    """Call a client's `set_...` method, again if another process creates the same row at this moment.

    MLflow looks for the row and inserts it if there is none; the second of two inserts fails (MLflow 3.17,
    `sqlalchemy_store.set_experiment_tag`).
    """
    from mlflow.exceptions import MlflowException

    try:
        write()
    except MlflowException:
        write()
