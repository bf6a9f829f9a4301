"""The part of `platform.cluster` that runs on the head, over ssh.

python -m platform.clusters.head sweep WORDS   submit a sweep as a Ray job, or attach to the running one
python -m platform.clusters.head stop          interrupt the running sweep
python -m platform.clusters.head status        nodes, sweeps
python -m platform.clusters.head nodes         the addresses of the nodes that are alive
python -m platform.clusters.head snapshot      copy the MLflow database, which a sweep may be writing
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from platform.common.errors import UsageError, UserError, run_command
from platform.tracking.provenance import without_credentials

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

_DASHBOARD = "http://127.0.0.1:8265"
_WORDS = "sweep_arguments"
_STOP_WAIT_S = 120
"""Time in which a stopped sweep can write its results; Ray kills a job after 3 s by default."""

SNAPSHOT = "mlflow.db.snapshot"


def main(words: Sequence[str] | None = None) -> int:
    """Run one action."""
    action, *rest = sys.argv[1:] if words is None else words
    os.environ["RAY_AUTH_MODE"] = "token"
    if action == "snapshot":
        return _snapshot()
    if action == "nodes":
        print(*_nodes(), sep="\n")
        return 0
    if action == "status":
        return _status()
    client = _client()
    if action == "sweep":
        return _follow(client, _submit(client, rest) if rest else _newest(client))
    if action == "stop":
        return _stop(client)
    raise UsageError(f"unknown action {action!r}")


def _client() -> JobSubmissionClient:
    import logging

    from ray.job_submission import JobSubmissionClient

    for name in ("ray", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        return JobSubmissionClient(_DASHBOARD)
    except (ConnectionError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"Ray does not run on the head ({reason}); start it with: python -m platform.cluster up"
        ) from None


def _sweeps(client: JobSubmissionClient) -> list[JobDetails]:
    """Return the jobs that are sweeps, oldest first."""
    jobs = [job for job in client.list_jobs() if _WORDS in (job.metadata or {})]
    return sorted(jobs, key=lambda job: job.start_time or 0)


def _running(client: JobSubmissionClient) -> JobDetails | None:
    return next((job for job in _sweeps(client) if not job.status.is_terminal()), None)


def _words(job: JobDetails) -> list[str]:
    words: list[str] = json.loads((job.metadata or {})[_WORDS])
    return words


def _shown(job: JobDetails) -> str:
    return without_credentials(shlex.join(_words(job)))


def _newest(client: JobSubmissionClient) -> str:
    jobs = _sweeps(client)
    if not jobs:
        raise UsageError(
            "no sweep has run on this cluster; give a search space: python -m platform.cluster sweep SPACE"
        )
    return str(jobs[-1].submission_id)


def _submit(client: JobSubmissionClient, words: Sequence[str]) -> str:
    """Submit a sweep; return the id of the running one if it has the same arguments.

    Raises:
        UserError: another sweep is running. Each would plan with all slots of the cluster.
    """
    running = _running(client)
    if running is not None:
        if _words(running) == list(words):
            return str(running.submission_id)
        raise UserError(
            f"one sweep runs on a cluster at a time, and `{_shown(running)}` is running; follow it with: "
            "python -m platform.cluster sweep; stop it with: python -m platform.cluster stop"
        )
    # Ray starts a job with one OpenMP thread, as a worker without a CPU.
    command = ["env", "-u", "OMP_NUM_THREADS", "RAY_AUTH_MODE=token", sys.executable, "-m", "platform.sweep"]
    return str(
        client.submit_job(
            entrypoint=f"cd {shlex.quote(str(Path.cwd()))} && exec {shlex.join([*command, *words])}",
            submission_id=f"sweep-{time.strftime('%Y%m%d-%H%M%S')}",
            metadata={_WORDS: json.dumps(list(words))},
            runtime_env={"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_WAIT_S)}},
        )
    )


def _follow(client: JobSubmissionClient, job_id: str) -> int:
    """Print the console of a sweep until it ends; return its exit code."""
    job = client.get_job_info(job_id)
    print(f"job {job_id}: python -m platform.sweep {_shown(job)}", flush=True)

    async def tail() -> None:
        async for lines in client.tail_job_logs(job_id):
            print(lines, end="", flush=True)

    asyncio.run(tail())
    job = client.get_job_info(job_id)
    status = job.status.value
    print(f"job {job_id}: {status.lower()}", flush=True)
    return {"SUCCEEDED": 0, "STOPPED": 130}.get(status, job.driver_exit_code or 1)


def _stop(client: JobSubmissionClient) -> int:
    running = _running(client)
    if running is None:
        raise UserError("no sweep is running on this cluster")
    job_id = str(running.submission_id)
    client.stop_job(job_id)
    deadline_s = time.monotonic() + _STOP_WAIT_S + 10
    while not client.get_job_status(job_id).is_terminal():
        if time.monotonic() > deadline_s:
            raise UserError(f"job {job_id} does not end; `python -m platform.cluster down` ends everything")
        time.sleep(0.5)
    print(f"stopped: {_shown(running)}; continue it with: python -m platform.cluster sweep --resume")
    return 0


def _status() -> int:
    from platform.console.sweep_list import sweep_list

    ray = Path(sys.executable).with_name("ray")
    done = subprocess.run([ray, "status"], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        print("Ray does not run on the head; start it with: python -m platform.cluster up")
    else:
        print(done.stdout.strip())
        running = _running(_client())
        print(f"\nrunning sweep: {_shown(running) if running else 'none'}")
    print(f"\n{sweep_list(Path('runs').absolute())}")
    return done.returncode


def _nodes() -> list[str]:
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    try:
        nodes = GcsClient(address="127.0.0.1:6379").get_all_node_info(timeout=5).values()
    except Exception as error:  # noqa: BLE001 - Ray's RpcError, or a plain RuntimeError without an answer
        raise UserError(f"Ray does not answer on the head: {' '.join(str(error).split())[:200]}") from None
    return [node.node_manager_address for node in nodes if node.state == 0]


def _snapshot() -> int:
    """Copy the database consistently; print the absolute path of the project."""
    print(Path.cwd())
    Path(SNAPSHOT).unlink(missing_ok=True)
    if Path("mlflow.db").exists():
        with (
            closing(sqlite3.connect("mlflow.db", timeout=60)) as source,
            closing(sqlite3.connect(SNAPSHOT)) as copy,
        ):
            source.backup(copy)
    return 0


if __name__ == "__main__":
    run_command(main)
