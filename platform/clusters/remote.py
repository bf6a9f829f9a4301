"""Run `platform.clusters.head` on the head of a cluster."""

from __future__ import annotations

import shlex
import subprocess

from platform.clusters.cluster_file import REMOTE, Cluster, command
from platform.common.errors import UserError

_SSH_FAILED = 255


def on_head(cluster: Cluster, *words: str) -> str:
    """Run an action on the head; return its output.

    Raises:
        UserError: the head does not answer, or the action fails there.
    """
    done = subprocess.run(_call(cluster, words), check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise _error(cluster, done.returncode, done.stderr)
    return done.stdout


def stream_on_head(cluster: Cluster, *words: str) -> int:
    """Run an action on the head, whose output goes to this terminal; return its exit code.

    Raises:
        UserError: the connection failed or ended.
    """
    code = subprocess.run(_call(cluster, words), check=False, stdin=subprocess.DEVNULL).returncode
    if code == _SSH_FAILED:
        raise _error(cluster, code, "")
    return code


def _call(cluster: Cluster, words: tuple[str, ...]) -> list[str]:
    action = shlex.join(["-m", "platform.clusters.head", *words])
    return cluster.ssh(cluster.head, f"cd {REMOTE} && exec .venv/bin/python {action}")


def _error(cluster: Cluster, code: int, stderr: str) -> UserError:
    said = stderr.strip().removeprefix("error: ")
    if code == _SSH_FAILED:
        reason = f" ({said.splitlines()[-1]})" if said else ""
        return UserError(f"no ssh connection to {cluster.head}{reason}; see: {command('check', cluster)}")
    if "No such file" in said or "not found" in said:
        return UserError(f"{cluster.head} has no {REMOTE}; start the cluster with: {command('up', cluster)}")
    return UserError(said or f"the command failed on {cluster.head} with exit code {code}")
