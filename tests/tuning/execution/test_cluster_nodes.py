"""Nodes that join, leave, or are started by the autoscaler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from platform.common.errors import UserError
from platform.tuning.execution.cluster_nodes import Node, NodeWatch, startable_nodes
from platform.tuning.execution.stage_context import Placement

ROOT = Path(__file__).parents[3]
HEAD = Node(address="10.0.0.1", is_head=True, resources={"CPU": 4.0, "GPU": 0.0})
GPU_NODE = {"CPU": 4.0, "GPU": 1.0}


def worker(number: int, **resources: float) -> Node:
    return Node(address=f"10.0.0.{number}", is_head=False, resources=GPU_NODE | resources)


def gcp() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "deploy" / "clusters" / "gcp.yaml").read_text())


def test_the_shipped_cloud_file_may_start_four_gpu_nodes() -> None:
    assert startable_nodes([HEAD], gcp()) == [GPU_NODE | {"startable": 1.0}] * 4


def test_running_nodes_are_not_startable_again() -> None:
    assert len(startable_nodes([HEAD, worker(2), worker(3)], gcp())) == 2
    assert startable_nodes([HEAD, *map(worker, range(2, 6))], gcp()) == []


def test_the_limit_of_the_cluster_holds_over_all_node_types_and_prefers_gpus() -> None:
    types = gcp()["available_node_types"]
    types = {"cpu": types["spot_gpu"] | {"resources": {"CPU": 8}}, **types}
    nodes = startable_nodes([HEAD, worker(2)], gcp() | {"available_node_types": types, "max_workers": 5})
    assert [(node["CPU"], node["GPU"]) for node in nodes] == [(4, 1)] * 3 + [(8, 0)]


def test_without_an_autoscaler_or_with_unknown_resources_nothing_is_startable() -> None:
    config = gcp()
    config["available_node_types"]["spot_gpu"]["resources"] = {}
    assert startable_nodes([HEAD], None) == startable_nodes([HEAD], config) == []


class Cluster:
    """Nodes and a clock that the test changes."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = {node.address: node for node in nodes}
        self.now_s = 0.0
        self.answers = True

    def watch(self, *, config: dict[str, Any] | None = None) -> NodeWatch:
        return NodeWatch(
            Placement(
                backend="inproc",
                workers=1,
                cpus_per_worker=1,
                gpus_per_worker=1,
                concurrent=1,
                concurrent_on=lambda nodes: int(sum(node["GPU"] for node in nodes)),
            ),
            nodes=lambda: dict(self.nodes),
            config=lambda: config,
            answers=lambda: self.answers,
            clock=lambda: self.now_s,
        )


def test_the_number_of_trials_follows_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    cluster = Cluster(HEAD, worker(2))
    watch = cluster.watch()
    assert (watch.poll(), watch.concurrent) == ([], 1)
    cluster.nodes["10.0.0.3"] = worker(3, GPU=2.0)
    assert (watch.poll(), watch.concurrent) == ([], 1), "Ray is asked every few seconds only"
    cluster.now_s = 10
    assert watch.poll() == ["node 10.0.0.3 has joined (4 CPU, 2 GPU); trials at a time: 3"]
    del cluster.nodes["10.0.0.2"]
    cluster.now_s = 20
    assert watch.poll() == ["node 10.0.0.2 has left; trials at a time: 2"]
    assert watch.concurrent == 2


def test_trials_wait_for_the_nodes_of_the_autoscaler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    cluster = Cluster(HEAD)
    watch = cluster.watch(config=gcp())
    assert (watch.poll(), watch.concurrent) == ([], 4)
    cluster.nodes["10.0.0.2"] = worker(2)
    cluster.now_s = 10
    assert watch.poll() == ["node 10.0.0.2 has joined (4 CPU, 1 GPU); trials at a time: 4"]


def test_a_cluster_that_no_longer_answers_is_lost_after_twenty_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    cluster = Cluster(HEAD)
    watch = cluster.watch()
    watch.poll()
    for now_s, answers in ((10, False), (25, True), (30, False), (44, False)):
        cluster.now_s, cluster.answers = now_s, answers
        assert watch.poll() == []
    with pytest.raises(UserError, match=":6379 no longer answers"), watch.loss_as_user_error():
        raise RuntimeError("RPC error")
    cluster.now_s = 46
    with pytest.raises(UserError, match="no longer answers"):
        watch.poll()


def test_a_cluster_without_its_head_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(UserError, match="no longer answers"):
        Cluster(worker(2)).watch().poll()


def test_an_error_of_a_cluster_that_answers_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(RuntimeError, match="RPC error"), Cluster(HEAD).watch().loss_as_user_error():
        raise RuntimeError("RPC error")


def test_a_session_on_one_machine_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cluster = Cluster(HEAD, worker(2), worker(3))
    watch = cluster.watch()
    cluster.now_s = 10
    assert (watch.poll(), watch.concurrent) == ([], 1)
