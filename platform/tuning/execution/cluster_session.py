"""The Ray session of a sweep: a new local one, or the cluster at `RAY_ADDRESS`.

Leaving the session always stops what it started: the processes of a local session, or this job's actors and
placement groups on a cluster.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import shlex
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

import platform
from platform.common.cores import usable_cores
from platform.common.errors import Interrupted, UserError
from platform.tuning.execution import cluster_nodes, placement_groups
from platform.tuning.execution.interrupts import end_signals_as_sigint, hangup_blocked

# Images do not pass through Ray's object store: each process maps the tables.
_OBJECT_STORE_BYTES = 256 * 2**20

_LOCAL_ATTEMPTS = 2
_START_TIMEOUT_S = 180.0
_ANSWER_TIMEOUT_S = 10.0
_SHUTDOWN_TIMEOUT_S = 15.0

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's default of 15 slows a sweep down to a fraction on a machine with any other load.
    "RAY_worker_niceness": "0",
    # Workers keep the driver's working directory.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # No console output or per-trial logs from Tune: the sweep has a console, tables and MLflow.
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # Only Tune's own console output uses what it reads then, and the request never returns without a head.
    "TUNE_STATE_REFRESH_PERIOD": "1000000000",
    # Tune requests this many actors at a time. platform.tuning.sampling.task_queue limits the trials.
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",
    # A failure is reported without the metrics of an epoch.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # platform.tuning.execution.interrupts handles signals.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Tune's snapshots are not read again: a sweep resumes from the journal.
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # An actor is reused after its trial's thread has finished the epoch in which it was stopped.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "30",
    # Train's controller polls its workers every 2 s by default: longer than an epoch on a large GPU.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # On a busy machine two workers take minutes to start; after the default of 60 s Ray restarts them.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Silences a deprecation warning of Ray, printed once per process.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}

_JOINED_ENVIRONMENT = {
    # If the head is lost, a request fails after this time, and the sweep ends with a message. By default Ray
    # ends the process after 60 s without one.
    "RAY_gcs_server_request_timeout_seconds": "20",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "3600",
}
"""For the driver of a cluster, not for its workers."""


@contextmanager
def session(
    *, num_cpus: int | None = None, num_gpus: int | None = None
) -> Iterator[list[Mapping[str, float]]]:
    """Start Ray on this machine, or join the cluster at `RAY_ADDRESS`; SIGTERM and SIGHUP act like Ctrl-C.

    Args:
        num_cpus: slots of a local session; None for the usable cores. Ignored when joining.
        num_gpus: GPUs of a local session; None for all. Ignored when joining.

    Yields:
        The CPUs and GPUs of each node, in the order of Ray's node ids; on a cluster also those of the nodes
        that its autoscaler may start (`"startable": 1`).

    Raises:
        UserError: the cluster cannot be reached, or Ray does not start.
    """
    import ray
    from ray._raylet import Config  # type: ignore[attr-defined]

    address = os.environ.get("RAY_ADDRESS") or None
    before = {name: os.environ.get(name) for name in (*_ENVIRONMENT, *_JOINED_ENVIRONMENT, "PYTHONPATH")}
    # A local session's processes inherit these. On a cluster they are part of the job's runtime environment.
    os.environ.update(worker_environment())
    if address is not None:
        os.environ.update(_JOINED_ENVIRONMENT)
        Config.initialize("")  # Ray has read the environment when it was imported
    _quiet()
    with end_signals_as_sigint():
        try:
            _init(address, num_cpus=num_cpus, num_gpus=num_gpus)
            if address is not None:
                placement_groups.remove_groups_of_ended_jobs()
            with end_signals_as_sigint():  # ray.init has replaced the handler by one that exits with code 15
                yield _nodes(joined=address is not None)
        finally:
            interrupted = isinstance(sys.exception(), Interrupted | KeyboardInterrupt)
            if ray.is_initialized() and not cluster_nodes.is_answering():
                # Ray's shutdown, also called at exit, waits for the lost head. Handlers run last to first.
                atexit.register(_exit_at_once, 130 if interrupted else 1)
            elif interrupted and address is None:
                _shut_down_in_time()
            else:
                if ray.is_initialized() and address is not None:
                    placement_groups.remove_groups_of_this_job()
                _shut_down()
            for name, old in before.items():
                if old is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = old
            if address is not None:
                Config.initialize("")


def _exit_at_once(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _shut_down_in_time() -> None:
    """Shut a local session down, whose processes may be ending: systemd and Slurm signal all of them.

    A request to a control service that has just ended returns after a minute, and ends this process.
    """
    thread = threading.Thread(target=_shut_down, daemon=True)
    thread.start()
    thread.join(_SHUTDOWN_TIMEOUT_S)
    if thread.is_alive():
        _end(psutil.Process().children())
        atexit.register(_exit_at_once, 130)


def _shut_down() -> None:
    """Shut Ray down while no thread collects garbage.

    While Ray shuts down, an object reference that another thread collects ends the process: its destructor
    calls the core worker ("The core worker has already been shutdown").
    """
    import ray

    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()


def check_ray_processes() -> None:
    """Raise an error if a process of the local Ray session has died; Ray itself would wait forever.

    Raises:
        UserError: the raylet or the GCS of this driver's own session has died.
    """
    for name, code in cluster_nodes.dead_processes():
        raise UserError(
            f"Ray's process {name} on this machine has died (exit code {code}): it was killed, or the "
            "machine ran out of memory; all finished epochs are kept"
        )


def project_root() -> Path:
    """Return the folder that contains the package; it must be first on the path of workers."""
    return Path(platform.__path__[0]).resolve().parent


def worker_environment() -> dict[str, str]:
    """Return the environment variables of every worker process.

    PYTHONPATH makes `import platform` find this package before the standard library's module.
    """
    path = [str(project_root()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **{name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()},
        "PYTHONPATH": os.pathsep.join(path),
    }


def _init(address: str | None, *, num_cpus: int | None, num_gpus: int | None) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        options |= {
            "address": "local",
            "include_dashboard": False,
            "num_cpus": usable_cores() if num_cpus is None else num_cpus,
            "num_gpus": num_gpus,
            "object_store_memory": _OBJECT_STORE_BYTES,
        }
        # Ray starts workers with a shell command in which it does not quote the interpreter.
        if (quoted := shlex.quote(sys.executable)) != sys.executable:
            options["runtime_env"] = {"py_executable": quoted}
    else:
        options |= {
            "address": address,
            # Other machines may not have the package: upload it (a few hundred kilobytes).
            "runtime_env": {
                "env_vars": worker_environment(),
                "py_modules": [str(Path(platform.__path__[0]).resolve())],
            },
        }
    try:
        if address is not None:
            _require_answer(address)
        _start(options, attempts=1 if address else _LOCAL_ATTEMPTS)
    except Exception as error:
        where = f"the Ray cluster at RAY_ADDRESS={address}" if address else "Ray on this machine"
        if isinstance(error, PermissionError):
            step = "unset RAY_ADDRESS to use only this machine"
        elif address:
            step = (
                "check the address (`ray status` on its head), or unset RAY_ADDRESS to use only this machine"
            )
        elif "AF_UNIX path length" in str(error):
            step = f"set TMPDIR to a shorter path than {tempfile.gettempdir()}"
        else:
            step = f"see the newest session in {tempfile.gettempdir()}/ray for its logs"
        raise UserError(f"cannot reach {where}: {_one_line(error)}; {step}") from error


def _require_answer(address: str) -> None:
    """Raise an error if no cluster answers at `address`; `ray.init` would retry for minutes."""
    import grpc
    from ray._private import gcs_utils, services
    from ray._private.authentication.authentication_token_setup import (
        maybe_enable_token_auth_if_token_available,
    )

    found = services.canonicalize_bootstrap_address(address.removeprefix("ray://"))
    if found is None:  # `local`
        return
    if address.startswith("ray://"):
        channel = gcs_utils.create_gcs_channel(found)
        try:
            grpc.channel_ready_future(channel).result(timeout=_ANSWER_TIMEOUT_S)
        except grpc.FutureTimeoutError:
            raise ConnectionError(f"no answer within {_ANSWER_TIMEOUT_S:.0f} s") from None
        finally:
            channel.close()
        return
    if address == "auto":  # as ray.init does
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    error = cluster_nodes.no_answer(found, timeout_s=_ANSWER_TIMEOUT_S)
    if error is not None and error.code() is grpc.StatusCode.UNAUTHENTICATED:
        raise PermissionError(
            "the token of this machine was refused; copy ~/.ray/auth_token from the head and set "
            "RAY_AUTH_MODE=token"
        )
    if error is not None:
        raise ConnectionError(f"no answer ({error.code().name}: {error.details()})")
    _require_own_node(found)


def _require_own_node(address: str) -> None:
    """Raise an error if this machine is not a node of the cluster; `ray.init` would wait a minute for it."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    client, alive = GcsClient(address=address), set[str]()
    deadline_s = time.monotonic() + _ANSWER_TIMEOUT_S
    while not alive and time.monotonic() < deadline_s:  # a cluster that has just started has no node yet
        nodes = client.get_all_node_info(timeout=_ANSWER_TIMEOUT_S).values()
        alive = {node.node_manager_address for node in nodes if node.state == 0}
        time.sleep(0 if alive else 0.5)
    own = {entry.address for entries in psutil.net_if_addrs().values() for entry in entries}
    # Without a network Ray uses the address of the host name, 127.0.1.1 on Debian.
    if not any(node in own or node.startswith("127.") for node in alive):
        raise ConnectionError(
            f"this machine is not one of its nodes ({', '.join(sorted(alive))}); run the sweep on its head"
        )


def _start(options: Mapping[str, Any], *, attempts: int) -> None:
    """Start Ray or join a cluster; retry a local start that timed out."""
    import ray

    before = set(psutil.Process().children())
    for attempt in range(1, attempts + 1):
        try:
            with _patient_and_quiet(), hangup_blocked():
                ray.init(**options)
        except BaseException as error:
            # Ray does not end the processes of a start that failed or was interrupted.
            _end(set(psutil.Process().children()) - before)
            # Ray raises a plain Exception on a timeout (ray/_private/node.py).
            if attempt == attempts or "timed out during startup" not in str(error):
                raise
        else:
            return
        with warnings.catch_warnings():
            # The Popen objects of the killed processes warn, because nothing waited for the processes.
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


@contextmanager
def _patient_and_quiet() -> Iterator[None]:
    """Wait minutes for the local node to register, and print no messages of the cluster to stdout.

    Ray waits a fixed 30 s, too short on a busy machine. Such a message is the last state of a raylet that has
    ended.
    """
    from ray._private import services, worker

    get_node: Callable[[str, str], Any] = services.get_node
    listen: Any = worker.listen_error_messages

    def wait(gcs_address: str, node_id: str) -> Any:
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                return get_node(gcs_address, node_id)
            except RuntimeError:  # not registered yet
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.2)

    services.get_node, worker.listen_error_messages = wait, lambda *_: None
    try:
        yield
    finally:
        services.get_node, worker.listen_error_messages = get_node, listen


def _end(processes: Iterable[psutil.Process]) -> None:
    tree = [relative for process in processes for relative in (process, *_descendants(process))]
    for process in tree:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(tree, timeout=10)


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return process.children(recursive=True)
    return []


def _nodes(*, joined: bool) -> list[Mapping[str, float]]:
    alive = cluster_nodes.alive_nodes().values()
    startable = cluster_nodes.startable_nodes(alive, cluster_nodes.autoscaler_config()) if joined else []
    return [*(node.resources for node in alive), *startable]


def _quiet() -> None:
    # Tune and Train log to the driver's stderr whatever `logging_level` says.
    for name in ("ray.tune", "ray.train", "ray.air", "ray._private"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It reports a trial whose process died as lost, although the trial continues in another process.
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)


def _one_line(error: BaseException) -> str:
    """Return the message of an error on one line, at most 300 characters."""
    text = " ".join(str(error).split()).rstrip(".:;,") or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300].rsplit(' ', 1)[0]} ..."
