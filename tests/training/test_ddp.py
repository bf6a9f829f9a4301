"""Two gloo workers started by torchrun have the results of one process without torchrun."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from platform.training.config import RunConfig

ConfigOf = Callable[..., RunConfig]
ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("ddp_program.py")
RECORDED = ("lr", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "grad_norm")


def start(workers: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program in `workers` processes, without torchrun if it is one."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={workers}"]
    return subprocess.run(
        [sys.executable, *(torchrun if workers > 1 else []), str(PROGRAM), *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        # On a machine with one GPU, the second worker would be rejected.
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        | {"CUDA_VISIBLE_DEVICES": ""},
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def config(config_of: ConfigOf) -> RunConfig:
    return config_of(
        # 73 = 2 * 30 + 13: the last batch is divided into 6 and 7.
        batch_size=30,
        epochs=3,
        augment={"cutout": {"length": 8}, "mixup": 0.3, "cutmix": 1.0},
        label_smoothing=0.1,
        ema_decay=0.5,
        clip_grad_norm=0.5,
    )


@pytest.fixture(scope="module")
def runs(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """Return the output of each worker, by the number of workers."""
    out = {}
    for workers in (1, 2):
        folder = tmp_path_factory.mktemp(f"workers{workers}")
        done = start(workers, str(folder), config.model_dump_json())
        assert done.returncode == 0, done.stderr
        out[workers] = [
            json.loads((folder / f"rank{rank}.json").read_text()) | {"folder": folder}
            for rank in range(workers)
        ]
    return out


def test_a_failing_worker_ends_the_run_with_its_traceback(config: RunConfig, tmp_path: Path) -> None:
    """The other workers wait for its gradients and must not hang (`start` has a timeout)."""
    done = start(2, str(tmp_path), config.model_dump_json(), "1")
    assert done.returncode != 0
    assert "ValueError: this worker fails" in done.stderr
    assert "in fail" in done.stderr, "the traceback must contain the failing function"
    assert not (tmp_path / "model.pt").exists()


def test_two_workers_record_the_results_of_one(runs: dict[int, list[dict[str, Any]]]) -> None:
    for one, two in zip(runs[1][0]["epochs"], runs[2][0]["epochs"], strict=True):
        assert [two[key] for key in RECORDED] == pytest.approx([one[key] for key in RECORDED], abs=1e-5)


def test_two_workers_with_micro_batches_record_the_results_of_one_without(
    runs: dict[int, list[dict[str, Any]]],
) -> None:
    for one, cut in zip(runs[1][0]["epochs"], runs[2][1]["micro_batch_epochs"], strict=True):
        assert [cut[key] for key in RECORDED] == pytest.approx([one[key] for key in RECORDED], abs=1e-5)


def test_synchronized_batch_normalization_gives_the_results_of_one_worker(
    runs: dict[int, list[dict[str, Any]]],
) -> None:
    for one, two in zip(runs[1][0]["normalized"], runs[2][0]["synchronized"], strict=True):
        assert [two[key] for key in RECORDED] == pytest.approx([one[key] for key in RECORDED], abs=1e-5)
    one_model, two_model = (
        torch.load(runs[workers][0]["folder"] / "normalized-True" / "model.pt", weights_only=True)
        for workers in (1, 2)
    )
    for name, weight in one_model["state_dict"].items():
        torch.testing.assert_close(two_model["state_dict"][name], weight, atol=1e-5, rtol=1e-4)


def test_batch_normalization_per_worker_gives_similar_results(runs: dict[int, list[dict[str, Any]]]) -> None:
    """As documented in docs/training.md: similar, but not equal."""
    one, two = (runs[workers][0]["normalized"][-1]["train_loss"] for workers in (1, 2))
    assert two == pytest.approx(one, rel=0.1)
    assert two != pytest.approx(one, abs=1e-4)


def test_all_workers_record_equal_results(runs: dict[int, list[dict[str, Any]]]) -> None:
    first, second = ([[e[key] for key in RECORDED] for e in worker["epochs"]] for worker in runs[2])
    assert first == second


def test_two_workers_end_with_the_weights_of_one(runs: dict[int, list[dict[str, Any]]]) -> None:
    one, two = (
        torch.load(runs[workers][0]["folder"] / "model.pt", weights_only=True)["state_dict"]
        for workers in (1, 2)
    )
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=1e-5, rtol=1e-4)


def test_only_the_first_worker_saves_the_model_and_all_resume(runs: dict[int, list[dict[str, Any]]]) -> None:
    first, second = runs[2]
    assert first["model_path"].endswith("model.pt")
    assert second["model_path"] == "None"
    assert first["resumed_epochs"] == second["resumed_epochs"] == [2, 3]


def test_an_indivisible_batch_size_is_rejected_by_every_worker(runs: dict[int, list[dict[str, Any]]]) -> None:
    assert runs[1][0]["error"] == ""
    for worker in runs[2]:
        assert "got 33 for 2 workers; 32 would work" in worker["error"]
