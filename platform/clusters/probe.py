"""Run `node_probe.sh` on all machines of a cluster at once, over one ssh connection each."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from platform.clusters.cluster_file import Cluster

RAY_PORTS = {6379: "the head (GCS)", 8265: "the dashboard", 10001: "Ray clients"}
"""Fixed ports of the head. The others are chosen by the system."""

WORKER_PORT = 10002
"""First of the ports of Ray's workers (10002 to 19999)."""

_SCRIPT = Path(__file__).with_name("node_probe.sh")
_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class NodeFacts:
    """Answers of one machine to ssh and the script."""

    host: str
    is_head: bool
    error: str | None = None
    """Last line of ssh, if there are no facts."""
    clock_skew_s: float = 0.0
    """The least difference from this machine's clock that explains the answer; positive if it is ahead."""
    facts: dict[str, list[str]] = field(default_factory=dict)

    def first(self, key: str) -> str:
        """Return the first value of a fact, or an empty string."""
        return next((value for value in self.facts.get(key, ()) if value), "")

    def all(self, key: str) -> list[str]:
        """Return all values of a fact."""
        return self.facts.get(key, [])

    def number(self, key: str) -> float:
        """Return a numeric fact; 0 if it is unknown."""
        try:
            return float(self.first(key))
        except ValueError:
            return 0.0


def probe_nodes(cluster: Cluster) -> list[NodeFacts]:
    """Return the facts of the head and of each worker of a local cluster, in this order."""
    hosts = [cluster.head, *cluster.workers]
    options = cluster.ssh_options()  # imports Ray, which threads must not do at the same time
    with ThreadPoolExecutor(max_workers=32) as pool:
        return list(pool.map(lambda host: _probe(cluster, options, host, is_head=host == hosts[0]), hosts))


def _probe(cluster: Cluster, options: Sequence[str], host: str, *, is_head: bool) -> NodeFacts:
    if is_head:
        targets = [
            target for worker in cluster.workers for target in (f"{worker}:22", f"{worker}:{WORKER_PORT}")
        ]
    else:
        targets = [f"{cluster.internal_head}:6379", f"{cluster.internal_head}:{WORKER_PORT}"]
    values = {
        "head": cluster.internal_head,
        "targets": " ".join(targets),
        "ports": " ".join(map(str, RAY_PORTS)) if is_head else "",
    }
    script = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items()) + _SCRIPT.read_text()
    call = ["ssh", *options, f"{cluster.user}@{host}", "sh -s"]
    before = time.time()
    try:
        done = subprocess.run(
            call,
            input=script,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return NodeFacts(host=host, is_head=is_head, error=f"no answer within {_TIMEOUT_S:.0f} s")
    except FileNotFoundError:
        return NodeFacts(host=host, is_head=is_head, error="ssh: command not found")
    after = time.time()
    facts: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        key, separator, value = line.partition("=")
        if separator:
            facts.setdefault(key, []).append(value.strip())
    if "end" not in facts:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        error = next(
            (line for line in lines if "Permission denied" in line), lines[-1] if lines else "no answer"
        )
        return NodeFacts(host=host, is_head=is_head, error=error)
    try:
        then = float(facts["time"][0])
    except (KeyError, ValueError):  # no GNU date
        then = before
    skew_s = then - after if then > after else min(0.0, then - before)
    return NodeFacts(host=host, is_head=is_head, clock_skew_s=skew_s, facts=facts)
