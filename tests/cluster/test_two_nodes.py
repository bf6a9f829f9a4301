"""Two nodes in separate network namespaces, whose host names resolve to 127.0.1.1 as on Debian."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.cluster.namespaces import PORT, machines, wait_for_nodes

TRAIN = """
import json, pathlib

import ray, ray.train, ray.train.torch, torch
from platform.tuning.execution.cluster_nodes import node_loads
from platform.tuning.execution.network_interface import NodeTorchConfig

def train():
    total = torch.ones(1)
    torch.distributed.all_reduce(total)
    pathlib.Path(f"{STORAGE}-{ray.util.get_node_ip_address()}").write_text(str(total.item()))

ray.init(address=ADDRESS, log_to_driver=False)
ray.train.torch.TorchTrainer(
    train,
    torch_config=NodeTorchConfig(backend="gloo", timeout_s=60),
    scaling_config=ray.train.ScalingConfig(num_workers=2, placement_strategy="STRICT_SPREAD"),
    run_config=ray.train.RunConfig(storage_path=STORAGE),
).fit()
print(json.dumps(node_loads()))
"""


def test_a_worker_group_and_the_loads_of_both_nodes(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    with machines(tmp_path, count=2) as (head, worker):
        head.start_ray("--head")
        worker.start_ray(f"--address={head.address}:{PORT}")
        wait_for_nodes(head, 2)
        script.write_text(
            f"ADDRESS = '{head.address}:{PORT}'\nSTORAGE = {str(tmp_path / 'train')!r}\n{TRAIN}"
        )
        environment = {"RAY_ADDRESS": f"{head.address}:{PORT}"}
        done = head.run(sys.executable, str(script), env=environment, timeout_s=300)
    totals = {path.name: path.read_text() for path in tmp_path.glob("train-*")}
    assert totals == {f"train-{head.address}": "2.0", f"train-{worker.address}": "2.0"}
    loads = json.loads(done.stdout.splitlines()[-1])
    for prefix in ("", f"{worker.address}/"):
        assert 0 <= loads.pop(f"{prefix}cpu_utilization_percentage") <= 100
        assert 0 < loads.pop(f"{prefix}system_memory_usage_percentage") < 100
    assert not [name for name in loads if "/" in name and worker.address not in name]
