"""The number of workers that fit on the cluster, counted node by node.

A worker cannot span nodes, so resources are never summed over the cluster: two half-free nodes do not
make one free node.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from platform.common.errors import UsageError
from platform.space.settings import WorkerResources
from platform.tuning.planning.records import Resources

NodeResources = Mapping[str, float]
"""Resources of one node: `{"CPU": 16, "GPU": 1}`; with `"startable": 1` if it waits for the autoscaler."""


def resolve_resources(
    settings: WorkerResources, nodes: Sequence[NodeResources], *, workers: int
) -> Resources:
    """Return the resources of each of a run's `workers`, with `auto` resolved.

    Runs with several workers get whole GPUs even where single-worker trials share them: NCCL refuses two
    workers of one run on one GPU (ray#48012).
    """
    gpu = settings.GPU
    if isinstance(gpu, str):  # `auto`; planning.gpu_share has already replaced `measured`
        gpu = 1.0 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
    if workers > 1:
        gpu = float(math.ceil(gpu))
    return Resources(CPU=settings.CPU, GPU=gpu)


def worker_slots(resources_per_worker: Resources, nodes: Sequence[NodeResources]) -> int:
    """Return the number of workers that fit on the cluster at once."""
    wanted = [(name, amount) for name, amount in resources_per_worker if amount > 0]
    # The small term corrects rounding: 1 / 0.1 = 9.999...
    return sum(
        min(math.floor(node.get(name, 0) / amount + 1e-9) for name, amount in wanted) for node in nodes
    )


def max_concurrent_runs(
    resources_per_worker: Resources, nodes: Sequence[NodeResources], *, workers: int, run_name: str
) -> int:
    """Return the number of runs with `workers` workers each that fit at once; a run may span nodes.

    `run_name` is the kind of run in the error message: `a trial`.

    Raises:
        UsageError: no run fits; the message has the requested and the available resources.
    """
    concurrent = worker_slots(resources_per_worker, nodes) // workers
    if concurrent == 0:
        requested = f"one worker of {resources_per_worker.text()}"
        if workers > 1:
            requested = f"{workers} workers of {resources_per_worker.text()} each"
        available = "; ".join(node_resources(node).text() for node in nodes) or "nothing"
        raise UsageError(
            f"{run_name} can never be placed: it needs {requested}, and the cluster's {len(nodes)} node(s) "
            f"have {available}; lower resources_per_worker.CPU, resources_per_worker.GPU or "
            "workers_per_trial with --set"
        )
    return concurrent


def node_resources(node: NodeResources) -> Resources:
    """Return a node's resources as a record."""
    return Resources(CPU=node.get("CPU", 0), GPU=node.get("GPU", 0))
