"""How many trials share a GPU, from what one was seen to hold; the measurements are made up."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from platform.data.image_folders import NAME
from platform.errors import UserError
from platform.tuning.planning.calibration import Question
from platform.tuning.planning.capacity import slots
from platform.tuning.planning.estimate import Speed
from platform.tuning.planning.gpu_share import gpu_share, share_out, sharing_notes
from platform.tuning.planning.plan import make_plan
from tests.space.examples import BASE, spec

GIB = 2**30
HOST = {"CPU": 16.0, "GPU": 2.0}
INFO: Any = SimpleNamespace(
    path=Path("/cache/cifar10"), name="cifar10", train_images=8192, image_shape=(3, 32, 32)
)
"""No more images than a measurement trains on."""


@pytest.mark.parametrize(
    ("held_gib", "total_gib", "trials"),
    [
        (2.4, 80, 20),  # 2.4 x 1.25 + 1 = 4
        (2.401, 80, 19),
        (12, 16, 1),  # exactly
        (40, 16, 1),  # it cannot be, and is not made worse
        (8, 80, 7),
        (0.6, 139.8, 79),
    ],
)
def test_as_many_as_fit_with_room_to_spare(held_gib: float, total_gib: float, trials: int) -> None:
    share = gpu_share(int(held_gib * GIB), int(total_gib * GIB))
    assert trials * share <= 1
    assert slots(SimpleNamespace(CPU=0, GPU=share), [{"CPU": 0, "GPU": 1}]) == trials  # type: ignore[arg-type]
    assert (trials + 1) * (1.25 * held_gib + 1) > total_gib or trials == 1


def measuring(asked: list[Question], held_gib: dict[str, float]) -> Any:
    def measure(question: Question, *, processes: int, progress: Any) -> Speed:
        assert (processes, question.gpu) == (1, True)
        asked.append(question)
        return Speed(
            train_images_per_s=1000,
            evaluation_images_per_s=3000,
            gpu_held_bytes=int(held_gib[question.run.model.name] * GIB),
            gpu_total_bytes=80 * GIB,
        )

    return measure


def test_the_largest_batch_of_every_network_is_measured_and_the_plan_says_so() -> None:
    space = spec(
        base={**BASE, "model": {"name": "resnet20_cifar"}},
        search={
            "model.name": {"choice": ["resnet20_cifar", "resnet18_cifar"]},
            "batch_size": {"choice": [128, 512, 256]},
        },
        resources_per_worker={"CPU": 2, "GPU": "measured"},
    )
    asked: list[Question] = []
    held = {"resnet20_cifar": 2.0, "resnet18_cifar": 8.0}
    placed, notes = share_out(space, INFO, [HOST], measure=measuring(asked, held))
    assert [(question.run.model.name, question.run.batch_size) for question in asked] == [
        ("resnet20_cifar", 512),
        ("resnet18_cifar", 512),
    ]
    [note] = notes
    assert note.startswith("resources_per_worker.GPU: measured: a trial holds up to 8.0 GiB of 80.0 GiB, ")
    assert note.endswith("so with room to spare 7 of them fit on a GPU (0.1428 each)")
    plan = make_plan(placed, HOST)
    assert plan.search.resources_per_worker.text() == "2 CPU + 0.1428 GPU"
    assert plan.search.concurrency == 8, "two GPUs have room for fourteen, and sixteen cores for eight"
    assert plan.confirm.resources_per_worker.GPU == 1, "workers of one run never share"


def unable(*_: Any, **__: Any) -> Speed:
    raise UserError("the speed of this machine could not be measured: no CUDA")


@pytest.mark.parametrize(
    ("changes", "node", "gpu", "note"),
    [
        ({}, HOST, 1, "not possible here (the speed of this machine could not be measured: no CUDA)"),
        ({}, {"CPU": 4.0}, 0, "but the cluster has no GPU"),
        ({"workers_per_trial": 2}, HOST, 1, "has no effect: each of a trial's workers gets a whole GPU"),
    ],
)
def test_without_a_measurement_a_trial_gets_a_whole_gpu(
    changes: dict[str, Any], node: dict[str, float], gpu: float, note: str
) -> None:
    space = spec(resources_per_worker={"GPU": "measured"}, **changes)
    placed, [said] = share_out(space, INFO, [node], measure=unable)
    assert gpu == placed.resources_per_worker.GPU
    assert note in said


def test_nothing_is_measured_unless_asked_for() -> None:
    space = spec(resources_per_worker={"GPU": 0.25})
    assert share_out(space, INFO, [HOST], measure=unable) == (space, ())


def test_the_images_that_a_measurement_leaves_out_are_counted() -> None:
    space = spec(
        search={"optimizer.lr": {"uniform": [0.1, 0.2]}}, resources_per_worker={"CPU": 1, "GPU": "measured"}
    )
    whole: Any = SimpleNamespace(**{**vars(INFO), "train_images": 8192 + 400_000})
    [few], [many] = (
        share_out(space, info, [HOST], measure=measuring([], {space.base.model.name: 4.0}))[1]
        for info in (INFO, whole)
    )
    assert "a trial holds up to 4.0 GiB" in few
    assert "a trial holds up to 7.6 GiB" in many, "2 x 3 x 40 x 40 bytes an image"
    files: Any = SimpleNamespace(**{**vars(whole), "name": NAME})
    [of_files] = share_out(space, files, [HOST], measure=measuring([], {space.base.model.name: 4.0}))[1]
    assert of_files == few


def test_the_plan_says_how_trials_share_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert [sharing_notes(gpu) for gpu in (0, 1, 2)] == [(), (), ()]
    [turns] = sharing_notes(0.25)
    assert "take turns on it, as no MPS daemon is running" in turns
    pid_file = tmp_path / "nvidia-cuda-mps-control.pid"
    pid_file.write_text(f"{os.getpid()}\n")
    [together] = sharing_notes(0.25)
    assert "run on it at the same time: an MPS daemon is running" in together
    pid_file.write_text("999999999\n")
    assert sharing_notes(0.25) == (turns,), "a daemon that was killed"
