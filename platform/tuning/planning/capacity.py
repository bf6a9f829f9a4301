"""What fits where: workers of a trial on the nodes of a cluster, counted node by node.

Two half-free nodes do not make a whole one, so sums over the cluster are never compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from platform.errors import UsageError
from platform.schema import Frozen
from platform.space.settings import WorkerResources

NodeResources = Mapping[str, float]
"""What one node has: `{"CPU": 16, "GPU": 1}`; other keys are ignored."""


class Need(Frozen):
    """What each worker of a run gets, decided."""

    CPU: float
    GPU: float

    def text(self) -> str:
        """Return it for a table or a message."""
        parts = [f"{amount:g} {name}" for name, amount in (("CPU", self.CPU), ("GPU", self.GPU)) if amount]
        return " + ".join(parts)


def decide(resources: WorkerResources, nodes: Sequence[NodeResources], *, workers: int) -> Need:
    """Return the resources of each of a run's `workers`, with `auto` decided.

    Runs of several workers get whole GPUs even where one-worker trials share: NCCL refuses two workers
    of one run on one GPU (ray#48012).
    """
    gpu = resources.GPU
    if isinstance(gpu, str):  # `measured` was replaced before (planning.gpu_share)
        gpu = 1.0 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
    if workers > 1:
        gpu = float(math.ceil(gpu))
    return Need(CPU=resources.CPU, GPU=gpu)


def slots(need: Need, nodes: Sequence[NodeResources]) -> int:
    """Return how many workers fit on the cluster at once."""
    return sum(_fitting(need, node) for node in nodes)


def concurrency(need: Need, nodes: Sequence[NodeResources], *, workers: int, what: str) -> int:
    """Return how many runs of `workers` each fit at once; the workers of one run may span nodes.

    Raises:
        UsageError: not even one fits; says what is asked for and what exists.
    """
    fitting = slots(need, nodes) // workers
    if fitting == 0:
        exists = "; ".join(Need(CPU=node.get("CPU", 0), GPU=node.get("GPU", 0)).text() for node in nodes)
        each = f"{workers} workers of {need.text()} each" if workers > 1 else f"one worker of {need.text()}"
        raise UsageError(
            f"{what} can never be placed: it needs {each}, and the cluster's {len(nodes)} node(s) have "
            f"{exists or 'nothing'}; ask for less with --set resources_per_worker.CPU=..., "
            "resources_per_worker.GPU=... or workers_per_trial=..."
        )
    return fitting


def _fitting(need: Need, node: NodeResources) -> int:
    # The small term forgives 1 / 0.1 = 9.999...
    counts = [
        math.floor(node.get(name, 0) / amount + 1e-9)
        for name, amount in (("CPU", need.CPU), ("GPU", need.GPU))
        if amount > 0
    ]
    return min(counts)
