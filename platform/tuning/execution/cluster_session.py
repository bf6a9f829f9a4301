"""A Ray session for one sweep: a local one of its own, or the cluster that `RAY_ADDRESS` names.

Whatever happens inside, leaving it stops what it started: a local session's processes, or on a joined
cluster this job's actors and placement groups.
"""

from __future__ import annotations

import gc
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

import platform
from platform.cores import usable_cores
from platform.errors import UserError
from platform.tuning.execution import placement_groups
from platform.tuning.execution.interrupts import sigterm_as_sigint

_OBJECT_STORE_BYTES = (
    256 * 2**20
)  # images never pass through Ray's object store: each process maps the tables

_LOCAL_ATTEMPTS = 2
_START_TIMEOUT_S = 180.0

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Workers keep the driver's working directory; all paths are absolute all the same.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Tune's own console output and per-trial logs: the sweep has a console, tables and MLflow.
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # A failure is reported without the metrics of an epoch.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # Signals are ours (platform.tuning.execution.interrupts).
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Tune's snapshots are not read again: the journal is what a sweep resumes from.
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # An actor is reused when its trial's thread has left the epoch it was stopped in.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "30",
    # Train's controller polls its workers every 2 s by default: longer than an epoch on a large GPU.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # On a busy machine two workers take minutes to start; the default of 60 s starts them all over again.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # A warning of Ray about its own future, printed once per process.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}


@contextmanager
def session(
    *, num_cpus: int | None = None, num_gpus: int | None = None
) -> Iterator[list[Mapping[str, float]]]:
    """Start Ray on this machine, or join `RAY_ADDRESS`; SIGTERM acts as Ctrl-C inside.

    Args:
        num_cpus: slots of a local session; None for the usable cores. Ignored when joining.
        num_gpus: GPUs of a local session; None for all. Ignored when joining.

    Yields:
        What each node of the session has, in the order of Ray's node ids.

    Raises:
        UserError: the cluster cannot be reached, or Ray does not start.
    """
    import ray

    address = os.environ.get("RAY_ADDRESS") or None
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    _quiet()
    with sigterm_as_sigint():
        try:
            _init(address, num_cpus=num_cpus, num_gpus=num_gpus)
            if address is not None:
                placement_groups.free_dead_jobs()
            yield _nodes()
        finally:
            if ray.is_initialized() and address is not None:
                placement_groups.free_own_job()
            ray.shutdown()
            for name, old in before.items():
                if old is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = old


def refuse_dead_node() -> None:
    """End a sweep whose local Ray has lost one of its processes: Ray itself would wait for ever.

    Asking also buries the dead process: while it is a zombie, Ray's workers take it for alive and live on.

    Raises:
        UserError: the raylet or the GCS of this driver's own session is gone.
    """
    from ray._private import worker

    node: Any = worker._global_node  # the only holder of the processes' handles
    for name in ("raylet", "gcs_server"):
        for info in node.all_processes.get(name, ()) if node is not None else ():
            if info.process.poll() is not None:
                raise UserError(
                    f"Ray's process {name} on this machine has died (exit code {info.process.returncode}): "
                    "it was killed, or memory was short; what was trained so far is kept"
                )


def project_root() -> Path:
    """Return the folder that holds the package: what workers need first on their path."""
    return Path(platform.__path__[0]).resolve().parent


def worker_environment() -> dict[str, str]:
    """Return what every worker process is started with.

    PYTHONPATH makes `import platform` find this package before the standard library's module.
    """
    path = [str(project_root()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **{name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()},
        "PYTHONPATH": os.pathsep.join(path),
    }


def _init(address: str | None, *, num_cpus: int | None, num_gpus: int | None) -> None:

    runtime_env: dict[str, Any] = {"env_vars": worker_environment()}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        options |= {
            "address": "local",
            "include_dashboard": False,
            "num_cpus": usable_cores() if num_cpus is None else num_cpus,
            "num_gpus": num_gpus,
            "object_store_memory": _OBJECT_STORE_BYTES,
        }
    else:
        options |= {"address": address}
        # Other machines may have neither this checkout nor the package: ship it (a few hundred kilobytes).
        runtime_env["py_modules"] = [str(Path(platform.__path__[0]).resolve())]
    try:
        _start(options | {"runtime_env": runtime_env}, attempts=1 if address else _LOCAL_ATTEMPTS)
    except Exception as error:
        where = f"the Ray cluster at RAY_ADDRESS={address}" if address else "Ray on this machine"
        step = (
            "check the address (`ray status` on its head), or unset RAY_ADDRESS to use this machine alone"
            if address
            else "see the newest session under /tmp/ray for its logs"
        )
        raise UserError(f"cannot reach {where}: {_first_line(error)}; {step}") from error


def _start(options: Mapping[str, Any], *, attempts: int) -> None:
    """Start Ray, or join a cluster; a local start that took too long gets another chance."""
    import ray

    before = set(psutil.Process().children())
    for attempt in range(1, attempts + 1):
        try:
            with _patience():
                ray.init(**options)
        except BaseException as error:
            # Ray forgets the processes of a start that failed or was interrupted.
            _end(set(psutil.Process().children()) - before)
            # A plain Exception (ray/_private/node.py); others are what they say.
            if attempt == attempts or "timed out during startup" not in str(error):
                raise
        else:
            return
        with warnings.catch_warnings():
            # Nobody waited for the processes just ended, which their Popen objects would complain about.
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


@contextmanager
def _patience() -> Iterator[None]:
    """Give the local node minutes to register: Ray gives it 30 s, fixed, and a busy machine needs more."""
    from ray._private import services

    ask: Callable[[str, str], Any] = services.get_node

    def wait(gcs_address: str, node_id: str) -> Any:
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                return ask(gcs_address, node_id)
            except RuntimeError:  # not there yet
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.2)

    services.get_node = wait
    try:
        yield
    finally:
        services.get_node = ask


def _end(processes: Iterable[psutil.Process]) -> None:
    family = [relative for process in processes for relative in (process, *_descendants(process))]
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=10)


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return process.children(recursive=True)
    return []


def _nodes() -> list[Mapping[str, float]]:
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [
        {name: float(node["Resources"].get(name, 0)) for name in ("CPU", "GPU")}
        for node in sorted(nodes, key=lambda node: str(node["NodeID"]))
        if node["Alive"]
    ]


def _quiet() -> None:
    # Tune and Train log to the driver's stderr whatever `logging_level` says.
    for name in ("ray.tune", "ray.train", "ray.air", "ray._private"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It counts a trial whose process died as lost, though it went on in another one.
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
