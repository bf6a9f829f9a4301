"""Print the machines of a cluster and the findings about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from platform.clusters.checks import Finding
from platform.clusters.cluster_file import Cluster
from platform.clusters.node_checks import gpus
from platform.clusters.probe import NodeFacts
from platform.common.text_format import plural

_HEADER = ("machine", "role", "Python", "CPUs", "memory free", "disk free", "GPUs", "clock", "result")


def print_report(cluster: Cluster, nodes: Sequence[NodeFacts], findings: Sequence[Finding]) -> int:
    """Print a row per machine, then each finding with its fix; return the number of errors."""
    rows = [_HEADER, *(_row(node, findings) for node in nodes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    print(f"cluster {cluster.name} ({cluster.path}), user {cluster.user}")
    if nodes:
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for finding in sorted(findings, key=lambda finding: finding.level):
        print(f"\n{finding.level}: {finding.where}: {finding.problem}\n    {finding.fix}")
    levels = Counter[str](finding.level for finding in findings)
    print(f"\n{_counted(levels, ' and ') or 'no problem found'}")
    return levels["error"]


def _counted(levels: Counter[str], separator: str) -> str:
    return separator.join(plural(count, level) for level, count in sorted(levels.items()))


def _row(node: NodeFacts, findings: Sequence[Finding]) -> tuple[str, ...]:
    role = "head" if node.is_head else "worker"
    own = Counter[str](finding.level for finding in findings if finding.where == node.host)
    if node.error is not None:
        return (node.host, role, *["-"] * (len(_HEADER) - 3), "no ssh")
    counted = Counter(line.partition(",")[0] for line in gpus(node))
    return (
        node.host,
        role,
        node.all("python")[-1] if node.all("python") else "none",
        node.first("cpus"),
        f"{node.number('memory_kb') / 2**20:.1f} GB",
        f"{node.number('disk_kb') / 2**20:.1f} GB",
        ", ".join(f"{count} x {name}" for name, count in counted.items()) or "none",
        f"{node.clock_skew_s:+.0f} s" if node.clock_skew_s else "ok",
        _counted(own, ", ") or "ok",
    )
