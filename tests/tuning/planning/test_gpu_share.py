"""The number of trials that share a GPU, calculated from synthetic memory measurements."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from platform.common.errors import UserError
from platform.data.image_folders import DATA_NAME
from platform.tuning.planning import calibration
from platform.tuning.planning.calibration import CalibrationRequest
from platform.tuning.planning.capacity import worker_slots
from platform.tuning.planning.gpu_share import gpu_share, gpu_sharing_notes, resolve_measured_gpu
from platform.tuning.planning.plan import make_plan
from platform.tuning.planning.records import Resources, Speed
from tests.space.examples import BASE, spec

GIB = 2**30
HOST = {"CPU": 16.0, "GPU": 2.0}
INFO: Any = SimpleNamespace(
    path=Path("/cache/cifar10"), name="cifar10", train_images=8192, image_shape=(3, 32, 32)
)
"""Exactly the images that a calibration trains on."""


@pytest.mark.parametrize(
    ("held_gib", "total_gib", "trials"),
    [
        (2.4, 80, 20),  # 2.4 x 1.25 + 1 = 4
        (2.401, 80, 19),
        (12, 16, 1),  # exactly
        (40, 16, 1),  # does not fit: one trial per GPU anyway
        (8, 80, 7),
        (0.6, 139.8, 79),
    ],
)
def test_the_trials_that_fit_with_a_margin_share_a_gpu(
    held_gib: float, total_gib: float, trials: int
) -> None:
    share = gpu_share(int(held_gib * GIB), int(total_gib * GIB))
    assert trials * share <= 1
    assert worker_slots(Resources(CPU=0, GPU=share), [{"CPU": 0, "GPU": 1}]) == trials
    assert (trials + 1) * (1.25 * held_gib + 1) > total_gib or trials == 1


def fake_calibration(monkeypatch: pytest.MonkeyPatch, held_gib: dict[str, float]) -> list[CalibrationRequest]:
    requests: list[CalibrationRequest] = []

    def calibrate(request: CalibrationRequest, *, processes: int, progress: Any) -> Speed:
        assert (processes, request.gpu) == (1, True)
        requests.append(request)
        return Speed(
            train_images_per_s=1000,
            evaluation_images_per_s=3000,
            gpu_held_bytes=int(held_gib[request.run.model.name] * GIB),
            gpu_total_bytes=80 * GIB,
        )

    monkeypatch.setattr(calibration, "calibrate", calibrate)
    return requests


def test_every_network_is_measured_at_the_largest_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    space = spec(
        base={**BASE, "model": {"name": "resnet20_cifar"}},
        search={
            "model.name": {"choice": ["resnet20_cifar", "resnet18_cifar"]},
            "batch_size": {"choice": [128, 512, 256]},
        },
        resources_per_worker={"CPU": 2, "GPU": "measured"},
    )
    requests = fake_calibration(monkeypatch, {"resnet20_cifar": 2.0, "resnet18_cifar": 8.0})
    resolved, notes = resolve_measured_gpu(space, INFO, [HOST])
    assert [(request.run.model.name, request.run.batch_size) for request in requests] == [
        ("resnet20_cifar", 512),
        ("resnet18_cifar", 512),
    ]
    [note] = notes
    assert note.startswith("resources_per_worker.GPU: measured: a trial holds up to 8.0 GiB of 80.0 GiB, ")
    assert note.endswith("so with a margin 7 trials fit on a GPU (0.1428 each)")
    plan = make_plan(resolved, [HOST])
    assert plan.search.resources_per_worker.text() == "2 CPU + 0.1428 GPU"
    assert plan.search.concurrency == 8, "fourteen fit on the two GPUs, but eight on the sixteen cores"
    assert plan.confirm.resources_per_worker.GPU == 0.1428, "placed as in the search"
    assert plan.final.resources_per_worker.GPU == 1, "workers of one run never share a GPU"


def failing_calibration(*_: Any, **__: Any) -> Speed:
    raise UserError("measuring the training speed of this machine failed: no CUDA")


@pytest.mark.parametrize(
    ("changes", "node", "gpu", "note"),
    [
        ({}, HOST, 1, "calibration failed (measuring the training speed of this machine failed: no CUDA)"),
        ({}, {"CPU": 4.0}, 0, "but the cluster has no GPU"),
        ({"workers_per_trial": 2}, HOST, 1, "has no effect: each of a trial's workers gets a whole GPU"),
    ],
)
def test_without_a_measurement_a_trial_gets_a_whole_gpu(
    changes: dict[str, Any], node: dict[str, float], gpu: float, note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "calibrate", failing_calibration)
    space = spec(resources_per_worker={"GPU": "measured"}, **changes)
    resolved, [found] = resolve_measured_gpu(space, INFO, [node])
    assert gpu == resolved.resources_per_worker.GPU
    assert note in found


def test_a_configured_share_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "calibrate", None)
    space = spec(resources_per_worker={"GPU": 0.25})
    assert resolve_measured_gpu(space, INFO, [HOST]) == (space, ())


def test_images_beyond_the_calibration_add_to_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    space = spec(
        search={"optimizer.lr": {"uniform": [0.1, 0.2]}}, resources_per_worker={"CPU": 1, "GPU": "measured"}
    )
    whole: Any = SimpleNamespace(**{**vars(INFO), "train_images": 8192 + 400_000})
    fake_calibration(monkeypatch, {space.base.model.name: 4.0})
    [few], [many] = (resolve_measured_gpu(space, info, [HOST])[1] for info in (INFO, whole))
    assert "a trial holds up to 4.0 GiB" in few
    assert "a trial holds up to 7.6 GiB" in many, "400,000 images of 3 x 40 x 40 bytes, each stored twice"
    files: Any = SimpleNamespace(**{**vars(whole), "name": DATA_NAME})
    assert resolve_measured_gpu(space, files, [HOST])[1] == (few,)


def test_the_note_on_gpu_sharing_depends_on_a_running_mps_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert [gpu_sharing_notes(gpu) for gpu in (0, 1, 2)] == [(), (), ()]
    [time_sliced] = gpu_sharing_notes(0.25)
    assert "are time-sliced: no MPS daemon is running" in time_sliced
    pid_file = tmp_path / "nvidia-cuda-mps-control.pid"
    pid_file.write_text(f"{os.getpid()}\n")
    [concurrent] = gpu_sharing_notes(0.25)
    assert "run on it concurrently: an MPS daemon is running" in concurrent
    pid_file.write_text("999999999\n")
    assert gpu_sharing_notes(0.25) == (time_sliced,), "the PID file of a dead daemon"
