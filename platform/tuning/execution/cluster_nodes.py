"""The nodes of a joined cluster: those that are alive, and those that its autoscaler may start.

The plan counts both. Trials that wait for a slot make the autoscaler start nodes. Ray's `request_resources`
is not used: its request outlives a killed driver, and would keep unused machines running.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from platform.common.errors import UserError
from platform.tuning.execution.stage_context import Placement

_POLL_S = 5.0
_ANSWER_TIMEOUT_S = 3.0
_LOST_AFTER_S = 20.0
_LOADS_WITHIN_S = 8.0  # Ray's agents publish the load of their node every 5 s


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node that is alive."""

    address: str
    is_head: bool
    resources: Mapping[str, float]
    """CPUs and GPUs."""

    def joined(self) -> str:
        """Return the text that this node has joined: `node 10.0.0.2 has joined (4 CPU, 1 GPU)`."""
        amounts = (f"{amount:g} {name}" for name, amount in self.resources.items() if amount)
        return f"node {self.address} has joined ({', '.join(amounts) or 'no CPU'})"


def control_address() -> str | None:
    """Return the address of the joined cluster's control service; None in a local session or a Ray client."""
    import ray

    address = os.environ.get("RAY_ADDRESS")
    if not address or address.startswith("ray://"):
        return None
    return str(ray.get_runtime_context().gcs_address)


def no_answer(address: str, *, timeout_s: float) -> Any:
    """Return the gRPC error of a request to the control service at `address`, or None if it answers."""
    import grpc
    from ray._private import gcs_utils
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    messages: Any = gcs_service_pb2
    channel = gcs_utils.create_gcs_channel(address)
    nodes = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)  # type: ignore[no-untyped-call]
    try:
        nodes.GetClusterId(messages.GetClusterIdRequest(), timeout=timeout_s)
    except grpc.RpcError as error:
        return error
    finally:
        channel.close()
    return None


def is_answering() -> bool:
    """Return whether Ray's control service answers within seconds; in a local session, whether it runs."""
    address = control_address()
    if address is None:
        return all(name != "gcs_server" for name, _ in dead_processes())
    return no_answer(address, timeout_s=_ANSWER_TIMEOUT_S) is None


def dead_processes() -> list[tuple[str, int]]:
    """Return the names and exit codes of the processes of this driver's own session that have ended.

    `poll` also reaps them. Ray's workers do not exit while the raylet is a zombie.
    """
    from ray._private import worker

    node: Any = worker._global_node  # the only holder of the processes' handles
    return [
        (name, info.process.returncode)
        for name in ("raylet", "gcs_server")
        for info in (node.all_processes.get(name, ()) if node is not None else ())
        if info.process.poll() is not None
    ]


def alive_nodes() -> dict[str, Node]:
    """Return the nodes of the current session by Ray's id, in the order of the ids."""
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return {
        node["NodeID"]: Node(
            address=node["NodeManagerAddress"],
            is_head="node:__internal_head__" in node["Resources"],
            resources=_slots_of(node["Resources"]),
        )
        for node in sorted(nodes, key=lambda node: str(node["NodeID"]))
        if node["Alive"]
    }


def node_loads() -> dict[str, float]:
    """Return the load of every node of the session, with the names of MLflow's system metrics; takes 8 s.

    Ray's agent on each node publishes its load through the control service, also where the nodes serve no
    metrics. The names of another node begin with its address. Empty without a session.
    """
    import grpc
    import ray

    if not ray.is_initialized() or os.environ.get("RAY_ADDRESS", "").startswith("ray://"):
        return {}
    try:
        nodes = _published_loads(str(ray.get_runtime_context().gcs_address))
    except (grpc.RpcError, ray.exceptions.RayError):  # the session has ended meanwhile
        return {}
    own = {entry.address for entries in psutil.net_if_addrs().values() for entry in entries}
    loads: dict[str, float] = {}
    for node in nodes:
        prefix = "" if node["ip"] in own else f"{node['ip']}/"
        loads[f"{prefix}cpu_utilization_percentage"] = node["cpu"]
        loads[f"{prefix}system_memory_usage_percentage"] = node["mem"][2]
        loads[f"{prefix}system_memory_usage_megabytes"] = node["mem"][3] / 1e6
        for gpu in node["gpus"]:
            loads[f"{prefix}gpu_{gpu['index']}_utilization_percentage"] = gpu["utilizationGpu"] or 0
            loads[f"{prefix}gpu_{gpu['index']}_memory_usage_megabytes"] = gpu["memoryUsed"]
    return loads


def _published_loads(address: str) -> list[Mapping[str, Any]]:
    """Return the loads that the nodes publish within some seconds."""
    import grpc
    from ray._private import gcs_pubsub, gcs_utils
    from ray.core.generated import gcs_service_pb2_grpc, pubsub_pb2

    # Ray's own subscriber needs an event loop, which would still run when the process ends.
    requests: Any = gcs_pubsub._SubscriberBase()
    channels: Any = pubsub_pb2
    kind = channels.RAY_NODE_RESOURCE_USAGE_CHANNEL
    found, end_s = list[Mapping[str, Any]](), time.monotonic() + _LOADS_WITHIN_S
    with gcs_utils.create_gcs_channel(address) as channel:
        gcs = gcs_service_pb2_grpc.ObservabilityPubSubServiceStub(channel)  # type: ignore[no-untyped-call]
        gcs.GcsSubscriberCommandBatch(requests._subscribe_request(kind), timeout=_ANSWER_TIMEOUT_S)
        with suppress(grpc.RpcError):  # no message until the deadline
            while (left_s := end_s - time.monotonic()) > 0:
                reply = gcs.GcsSubscriberPoll(requests._poll_request(), timeout=left_s)
                requests._publisher_id = reply.publisher_id
                for message in reply.pub_messages:
                    requests._max_processed_sequence_id = message.sequence_id
                    found.append(json.loads(message.node_resource_usage_message.json))
        gcs.GcsSubscriberCommandBatch(requests._unsubscribe_request([kind]), timeout=_ANSWER_TIMEOUT_S)
    return found


def startable_nodes(alive: Collection[Node], config: Mapping[str, Any] | None) -> list[Mapping[str, float]]:
    """Return the resources of the nodes that the autoscaler may add, with `"startable": 1`; GPU nodes first.

    Args:
        alive: the nodes that are alive.
        config: the autoscaler's configuration; None without an autoscaler. Node types whose resources are
            unknown until they start (`provider: local`) are ignored.
    """
    if config is None:
        return []
    workers = [node.resources for node in alive if not node.is_head]
    startable = list[Mapping[str, float]]()
    for name, node_type in config["available_node_types"].items():
        resources = _slots_of(node_type.get("resources") or {})
        if name != config["head_node_type"] and any(resources.values()):
            count = node_type.get("max_workers", config["max_workers"]) - workers.count(resources)
            startable += [resources | {"startable": 1.0}] * count
    startable.sort(key=lambda node: (-node["GPU"], -node["CPU"]))
    return startable[: max(0, config["max_workers"] - len(workers))]


def autoscaler_config() -> dict[str, Any] | None:
    """Return the configuration of the cluster's autoscaler.

    None if this machine is not the cluster's head, or if Ray was started there without a configuration.
    """
    from ruamel.yaml import YAML

    gcs = f"--gcs-address={control_address()}"
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            words = process.cmdline()
            for word in words if gcs in words else ():
                option, _, path = word.partition("=")
                if option == "--autoscaling-config":
                    config: dict[str, Any] = YAML(typ="safe").load(Path(path).expanduser())
                    return config
    return None


def address_of(actor: Any) -> str | None:
    """Return the address of the node on which an actor runs; None if Ray does not know it."""
    from ray._private import state

    info: Any = state.actors(actor._actor_id.hex())
    return str(info["Address"]["IPAddress"]) if info else None


class NodeWatch:
    """Follows the nodes of a joined cluster and notices its loss; in a local session nothing changes."""

    def __init__(
        self,
        placement: Placement,
        *,
        nodes: Callable[[], Mapping[str, Node]] = alive_nodes,
        config: Callable[[], Mapping[str, Any] | None] = autoscaler_config,
        answers: Callable[[], bool] = is_answering,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.concurrent = placement.concurrent
        """Trials that may run at the same time on the current nodes."""
        self._count, self._nodes = placement.concurrent_on, nodes
        self._answers, self._clock = answers, clock
        self._known: Mapping[str, Node] = {}
        self._config: Mapping[str, Any] | None = None
        self._answered_s, self._next_poll_s = clock(), math.inf
        if os.environ.get("RAY_ADDRESS"):
            self._known, self._config, self._next_poll_s = nodes(), config(), clock()

    def poll(self) -> list[str]:
        """Look for nodes that have joined or left, at most every 5 s; return a line for each.

        Raises:
            UserError: the cluster has not answered for 20 s, or its head's node has left.
        """
        if self._clock() < self._next_poll_s:
            return []
        if not self._answers():
            if self._clock() > self._answered_s + _LOST_AFTER_S:
                raise _lost()
            return []
        self._answered_s = self._clock()
        self._next_poll_s = self._answered_s + _POLL_S
        before, self._known = self._known, self._nodes()
        now = self._known.values()
        if not any(node.is_head for node in now):
            raise _lost()
        if self._count is not None:
            startable = startable_nodes(now, self._config)
            self.concurrent = self._count([*(node.resources for node in now), *startable])
        left = (f"node {before[node].address} has left" for node in before.keys() - self._known.keys())
        joined = (self._known[node].joined() for node in self._known.keys() - before.keys())
        return [f"{text}; trials at a time: {self.concurrent}" for text in sorted((*left, *joined))]

    @contextmanager
    def loss_as_user_error(self) -> Iterator[None]:
        """Replace an error of Ray inside the block by a message, if the cluster no longer answers."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if self._answers():
                raise
            raise _lost() from error


def _lost() -> UserError:
    address = os.environ.get("RAY_ADDRESS")
    return UserError(
        f"the Ray cluster at RAY_ADDRESS={address} no longer answers (its head has ended or is unreachable); "
        "all finished epochs are kept; start the cluster again (`ray up`)"
    )


def _slots_of(resources: Mapping[str, float]) -> dict[str, float]:
    return {name: float(resources.get(name, 0)) for name in ("CPU", "GPU")}
