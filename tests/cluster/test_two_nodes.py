"""Two nodes in separate network namespaces, whose host names resolve to 127.0.1.1 as on Debian."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.cluster.namespaces import PORT, machines, wait_for_nodes

TRAIN = """
import pathlib

import ray, ray.train, ray.train.torch, torch
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
"""


def test_worker_group_connects_across_two_nodes(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    with machines(tmp_path, count=2) as (head, worker):
        head.start_ray("--head")
        worker.start_ray(f"--address={head.address}:{PORT}")
        wait_for_nodes(head, 2)
        script.write_text(
            f"ADDRESS = '{head.address}:{PORT}'\nSTORAGE = {str(tmp_path / 'train')!r}\n{TRAIN}"
        )
        head.run(sys.executable, str(script), timeout_s=300)
    totals = {path.name: path.read_text() for path in tmp_path.glob("train-*")}
    assert totals == {f"train-{head.address}": "2.0", f"train-{worker.address}": "2.0"}
