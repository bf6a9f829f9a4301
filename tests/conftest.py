"""Setup of all tests: the package named `platform`, and an environment without the user's settings."""

import os
import signal
from pathlib import Path

import pytest

import platform

# Plain `pytest` imports the standard library's module before this folder is on the path.
if not hasattr(platform, "__path__"):
    platform.__path__ = [str(Path(__file__).parents[1] / "platform")]

# Set before any library is imported. The networks in tests are too small for several threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray starts its workers at nice 15, which makes them very slow on a busy machine.
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.update(MPLBACKEND="Agg", MLFLOW_DISABLE_TELEMETRY="true", RAY_USAGE_STATS_ENABLED="0")
# Tests must not use the Ray cluster or the MLflow store of the user.
for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
    os.environ.pop(name, None)

# A process in the background of a script ignores SIGINT, and the child processes that tests interrupt
# would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Folders whose tests share a Ray session or a finished sweep, which takes a minute to create; one process
# runs all of them.
_SHARED = {"bridge": "ray", "tuning/execution": "ray", "sweep": "sweep"}
# They start first: a test of minutes that starts last runs alone.
_LONGEST = ("sweep", "bridge", "tuning/execution", "cluster", "engine", "benchmarks", "deploy", "training")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Assign groups of tests to xdist workers; the longest groups start first."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_SHARED.get(_folder(item), str(item.path))))
    items.sort(key=lambda item: [not _folder(item).startswith(folder) for folder in _LONGEST])


def _folder(item: pytest.Item) -> str:
    return item.path.parent.relative_to(Path(__file__).parent).as_posix()
