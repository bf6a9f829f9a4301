"""What every test needs: the package named `platform`, under bare `pytest` too, and a neutral environment."""

import os
import signal
from pathlib import Path

import pytest

import platform

# Bare `pytest` imports the standard library's module before this folder is on the path.
if not hasattr(platform, "__path__"):
    platform.__path__ = [str(Path(__file__).parents[1] / "platform")]

# Before any library is imported. Networks in tests are tiny: more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray starts its workers at nice 15: beside other work they would take minutes.
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.update(MPLBACKEND="Agg", MLFLOW_DISABLE_TELEMETRY="true", RAY_USAGE_STATS_ENABLED="0")
# A test never joins the cluster, or writes into the store, of whoever runs it.
for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
    os.environ.pop(name, None)

# Started in the background of a script, this process ignores Ctrl-C, and so would those that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Rooms whose tests share a Ray, or a finished sweep, that takes a minute to make: one process runs them all.
_SHARED = {"bridge": "ray", "tuning/execution": "ray", "sweep": "sweep"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Say which tests belong to one worker when several run them; the longest groups begin first."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_SHARED.get(_folder(item), str(item.path))))
    items.sort(key=lambda item: _folder(item) not in _SHARED)


def _folder(item: pytest.Item) -> str:
    return item.path.parent.relative_to(Path(__file__).parent).as_posix()
