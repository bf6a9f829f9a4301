"""Check what the machines of a cluster answered to `node_probe.sh`."""

from __future__ import annotations

import getpass
import importlib.metadata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from platform.clusters.checks import Finding, is_loopback, is_this_machine
from platform.clusters.cluster_file import Cluster
from platform.clusters.probe import RAY_PORTS, NodeFacts

_PACKAGES_GB = 7
"""Size of `.venv` and of uv's cache on one file system, where uv links its files (6.3 GB, measured)."""
_SPARE_GB = 3
_MEMORY_GB = 4
_MAX_SKEW_S, _NOTED_SKEW_S = 30.0, 3.0
_OLDEST_PYTHON = (3, 11)
_OLDEST_DRIVER = {13: 580, 12: 525}
"""First driver of each CUDA version for Linux (NVIDIA, CUDA Compatibility, table 2)."""


def check_nodes(cluster: Cluster, nodes: Sequence[NodeFacts]) -> list[Finding]:
    """Check the facts of all machines."""
    findings: list[Finding] = []
    for node in nodes:
        if node.error is not None:
            findings.append(_unreachable(cluster, node))
        else:
            findings += [
                *_check_tools(node),
                *_check_size(node),
                *_check_gpus(node),
                *_check_network(cluster, node),
            ]
            findings += _check_clock(node)
            findings += _check_head(cluster, node) if node.is_head else ()
    answered = [node for node in nodes if node.error is None]
    with_gpu = [node.host for node in answered if gpus(node)]
    if with_gpu and len(with_gpu) < len(answered):
        without = [node.host for node in answered if node.host not in with_gpu]
        findings.append(
            Finding(
                where=", ".join(without),
                problem="no GPU, unlike the other machines; a sweep on GPUs runs no trials here",
                fix="remove the machine from worker_ips, or install its driver",
                level="warning",
            )
        )
    versions = {node.all("python")[-1] for node in answered if node.all("python")}
    if len(versions) > 1:
        findings.append(
            Finding(
                where="all machines",
                problem="Ray needs the same Python version on all, patch included; got "
                f"{', '.join(sorted(versions))}",
                fix="install one version on all, and set it in setup_commands: make setup PYTHON=python3.12",
            )
        )
    return findings


def _unreachable(cluster: Cluster, node: NodeFacts) -> Finding:
    """Explain an error of ssh."""
    host, error, user = node.host, node.error or "", cluster.user
    key = cluster.key or Path("~/.ssh/id_ed25519")
    public, here = f"{key}.pub", is_this_machine(host)
    if "command not found" in error:
        fix = "sudo apt-get install openssh-client"
    elif "Permission denied" in error or "authentication failures" in error:
        allow = f"cat {public} >> ~/.ssh/authorized_keys && chmod 600 ~/.ssh/authorized_keys"
        fix = allow if here and user == getpass.getuser() else f"ssh-copy-id -i {public} {user}@{host}"
        if not key.expanduser().exists():
            fix = f'ssh-keygen -t ed25519 -N "" -f {key} && {fix}'
        error = f"ssh does not accept the key {key} for user {user} ({error.split(':')[-1].strip()})"
    elif "resolve" in error:
        fix = f"correct the name in {cluster.path}, or add it to /etc/hosts"
    elif "refused" in error:
        fix = "sudo apt-get install openssh-server rsync" + ("" if here else f"   (on {host})")
        error = f"no ssh server answers ({error.split(':')[-1].strip()})"
    else:
        fix = f"check that {host} is on, and that a firewall lets port 22 through: ssh {user}@{host}"
    return Finding(where=host, problem=error, fix=fix)


def _finding(
    node: NodeFacts, problem: str, fix: str, *, level: Literal["error", "warning"] = "error"
) -> Finding:
    return Finding(where=node.host, problem=problem, fix=fix, level=level)


def _check_tools(node: NodeFacts) -> Iterator[Finding]:
    def finding(problem: str, packages: str) -> Finding:
        return _finding(node, problem, f"sudo apt-get install {packages}   (on {node.host})")

    python = node.first("python")
    found = [value for value in node.all("python") if _is_new_enough(value)]
    if not found:
        yield finding(
            f"Python {'.'.join(map(str, _OLDEST_PYTHON))} or newer is required, found {python or 'none'}",
            "python3 python3-venv, on Debian 12 or Ubuntu 24.04 or newer",
        )
    elif not (node.first("venv") or node.first("uv")):
        yield finding("Python cannot create environments", "python3-venv")
    tools = {"make": "make", "rsync": "rsync", "bash": "bash", "compiler": "g++"}
    missing = {tool: package for tool, package in tools.items() if not node.first(tool)}
    if missing:
        names = ", ".join("a C++ compiler" if tool == "compiler" else tool for tool in missing)
        yield finding(f"missing: {names}", " ".join(missing.values()))


def _check_size(node: NodeFacts) -> Iterator[Finding]:
    needed = _SPARE_GB + (0 if node.first("installed") else _PACKAGES_GB)
    disk, memory = node.number("disk_kb") / 2**20, node.number("memory_kb") / 2**20
    if not node.first("home_writable"):
        yield _finding(node, "the home folder is not writable", f"make it writable for {node.first('user')}")
    if disk < needed:
        yield _finding(
            node,
            f"{disk:.1f} GB are free in the home folder, {needed} GB are required",
            f"free some space: ssh {node.host} 'du -xhd1 ~ | sort -h'",
        )
    if node.number("tmp_kb") / 2**20 < 1:
        yield _finding(
            node,
            "less than 1 GB is free in /tmp, where Ray keeps its session",
            f"free some space: ssh {node.host} 'du -xhd1 /tmp | sort -h'",
        )
    if memory < _MEMORY_GB:
        yield _finding(
            node,
            f"{memory:.1f} GB of memory are free; Ray and one trial need about {_MEMORY_GB} GB",
            "end other programs on it",
            level="warning",
        )


def _check_gpus(node: NodeFacts) -> Iterator[Finding]:
    answers = node.all("gpu")
    if node.first("nvidia_device") and not gpus(node):
        reason = answers[0] if answers else "nvidia-smi is missing"
        yield _finding(
            node,
            f"it has an NVIDIA GPU that cannot be used: {reason}",
            "sudo apt-get install nvidia-driver firmware-misc-nonfree, then reboot   (Ubuntu: "
            "sudo ubuntu-drivers install)",
        )
    cuda = _cuda_of_torch()
    oldest = _OLDEST_DRIVER.get(cuda, 0)
    for answer in gpus(node)[:1]:
        driver = answer.rpartition(",")[2].strip()
        if driver.partition(".")[0].isdigit() and int(driver.partition(".")[0]) < oldest:
            yield _finding(
                node,
                f"driver {driver} is too old for CUDA {cuda}, which PyTorch uses",
                f"install driver {oldest} or newer, then reboot",
            )


def _check_network(cluster: Cluster, node: NodeFacts) -> Iterator[Finding]:
    if not node.is_head:
        resolved = node.first("head_resolves_to")
        if not resolved or is_loopback(resolved):
            yield _finding(
                node,
                f"head_ip {cluster.internal_head} resolves to {resolved or 'nothing'} there",
                f"set head_ip in {cluster.path} to the head's address; on the head: hostname -I",
            )
            return
    blocked = sorted(node.all("cannot_reach"))
    if blocked:
        source, hosts = node.host, {target.rpartition(":")[0] for target in blocked}
        yield _finding(
            node,
            f"no connection to {', '.join(blocked)}: a firewall drops it, or there is no route",
            "; ".join(f"sudo ufw allow from {source}   (on {host})" for host in sorted(hosts)),
        )


def _check_clock(node: NodeFacts) -> Iterator[Finding]:
    skew_s = node.clock_skew_s
    if abs(skew_s) > _NOTED_SKEW_S:
        yield _finding(
            node,
            f"the clock is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} this one's",
            f"ssh {node.host} sudo timedatectl set-ntp true",
            level="error" if abs(skew_s) > _MAX_SKEW_S else "warning",
        )


def _check_head(cluster: Cluster, node: NodeFacts) -> Iterator[Finding]:
    addresses = node.first("addresses").split()
    resolved = node.first("head_resolves_to")
    if cluster.workers and addresses and resolved and not is_loopback(resolved) and resolved not in addresses:
        yield _finding(
            node,
            f"head_ip {cluster.internal_head} is not among its addresses: {', '.join(addresses)}",
            f"set head_ip in {cluster.path} to one of them, and external_head_ip to that from here",
        )
    # A running Ray of this user is not in the way: `ray up` restarts it.
    for port in () if "6379" in node.all("ray") else node.all("listening"):
        yield _finding(
            node,
            f"port {port}, of {RAY_PORTS[int(port)]}, is in use by another program",
            f"find and end it: ssh {node.host} \"sudo ss -ltnp 'sport = :{port}'\"   (the Ray of another "
            "user, for example)",
        )
    if node.first("sweep"):
        yield _finding(
            node,
            f"a sweep is running (process {', '.join(node.all('sweep'))}); `up` and `down` stop Ray",
            "wait for its end, or stop it: python -m platform.cluster stop",
            level="warning",
        )


def _is_new_enough(version: str) -> bool:
    parts = version.split(".")
    return tuple(int(part) for part in parts[:2] if part.isdigit()) >= _OLDEST_PYTHON


def gpus(node: NodeFacts) -> list[str]:
    """Return `name, driver` of each GPU; an error of nvidia-smi is not one."""
    return [line for line in node.all("gpu") if "," in line and "fail" not in line.lower()]


def _cuda_of_torch() -> int:
    try:
        return int(importlib.metadata.version("nvidia-cuda-runtime").partition(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return 0
