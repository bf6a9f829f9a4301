"""Check a cluster file and this machine, before anything starts."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import ipaddress
import os
import shlex
import socket
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from platform.clusters.cluster_file import PROJECT, TOKEN, USER, Cluster


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One problem and how to fix it."""

    where: str
    """A machine, or the cluster file."""
    problem: str
    fix: str
    """A command for the user to copy, or an instruction."""
    level: Literal["error", "warning"] = "error"


def check_here(cluster: Cluster) -> list[Finding]:
    """Check the cluster file and this machine, without a connection."""
    return [*_check_file(cluster), *_check_key(cluster), *_check_token(cluster)]


def _check_file(cluster: Cluster) -> Iterator[Finding]:
    path = str(cluster.path)
    problem = cluster.problem()
    if problem is not None:
        yield Finding(where=path, problem=f"Ray does not accept it: {problem}", fix=f"correct it in {path}")
    for local in (cluster.config.get("file_mounts") or {}).values():
        source = Path(str(local)).expanduser()
        if source != TOKEN.expanduser() and not (PROJECT / source).exists():
            yield Finding(
                where=path,
                problem=f"file_mounts: {local} does not exist",
                fix="remove its line, or create it; paths are relative to the project's folder",
            )
    if cluster.is_local:
        yield from _check_addresses(cluster)
        return
    text = cluster.path.read_text(encoding="utf-8")
    for mark in ("ami-00000000000000000", "my-project"):
        if mark in text:
            yield Finding(
                where=path, problem=f"{mark} is a placeholder", fix="edit the lines that are marked EDIT"
            )
    client = {"aws": "boto3", "gcp": "googleapiclient"}.get(str(cluster.provider.get("type")))
    if client is not None and importlib.util.find_spec(client) is None:
        yield Finding(
            where="this machine",
            problem=f"Ray needs the Python package {client} to start the machines",
            fix=f"run the command `uv pip install` at the top of {path}",
        )


def _check_addresses(cluster: Cluster) -> Iterator[Finding]:
    path, head, workers = str(cluster.path), cluster.internal_head, cluster.workers
    if not workers:
        return
    twice = sorted({worker for worker in workers if workers.count(worker) > 1 or worker == head})
    if twice:
        yield Finding(
            where=path,
            problem=f"every address may be used once, but {', '.join(twice)} occurs twice",
            fix="list in worker_ips every machine except the head",
        )
    if is_loopback(head):
        yield Finding(
            where=path,
            problem=f"workers cannot reach the head at head_ip {head}, which is each machine's own address",
            fix="set head_ip to the head's address in their network; on the head: hostname -I",
        )
    if cluster.key is None:
        yield Finding(
            where=path,
            problem="auth.ssh_private_key is missing: the head needs the key to start the workers",
            fix="add under auth:  ssh_private_key: ~/.ssh/id_ed25519",
        )


def _check_key(cluster: Cluster) -> Iterator[Finding]:
    if not cluster.is_local:
        return
    if not cluster.user:
        yield Finding(
            where=str(cluster.path), problem="auth.ssh_user is missing", fix=f"add: ssh_user: {USER}"
        )
    key = cluster.key
    if key is None:
        return
    if not key.exists():
        yield Finding(
            where="this machine",
            problem=f"the ssh key {key} does not exist",
            fix=f'ssh-keygen -t ed25519 -N "" -f {shlex.quote(str(key))}',
        )
    elif key.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield Finding(
            where="this machine",
            problem=f"other users can read the ssh key {key}, so ssh refuses it",
            fix=f"chmod 600 {shlex.quote(str(key))}",
        )
    elif _has_passphrase(key):
        yield Finding(
            where="this machine",
            problem=f"the ssh key {key} has a passphrase, which Ray cannot enter",
            fix='create a key for the cluster: ssh-keygen -t ed25519 -N "" -f ~/.ssh/resnet_sweep, and set '
            "auth.ssh_private_key to it",
        )


def _has_passphrase(key: Path) -> bool:
    read = ["ssh-keygen", "-y", "-P", "", "-f", str(key)]
    try:
        return subprocess.run(read, check=False, capture_output=True, timeout=10).returncode != 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _check_token(cluster: Cluster) -> Iterator[Finding]:
    token = TOKEN.expanduser()
    if str(TOKEN) not in (cluster.config.get("file_mounts") or {}):
        yield Finding(
            where=str(cluster.path),
            problem=f"file_mounts has no {TOKEN}: anyone who reaches the cluster could run code on it",
            fix=f"add under file_mounts:  {TOKEN}: {TOKEN}",
        )
    elif not token.exists() or not token.read_text().strip():
        yield Finding(
            where="this machine",
            problem=f"{TOKEN} {'is empty' if token.exists() else 'does not exist'}",
            fix="(umask 077; ray get-auth-token --generate)",
        )
    elif token.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield Finding(
            where="this machine",
            problem=f"other users can read {TOKEN}, which allows running code on the cluster",
            fix=f"chmod 600 {TOKEN}",
        )
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        if os.environ.get(name):
            yield Finding(
                where="this machine",
                problem=f"{name} is set, but the nodes get the token of {TOKEN}",
                fix=f"unset {name}",
            )


def is_this_machine(host: str) -> bool:
    """Return whether an address belongs to this machine."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return whether an address is each machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
