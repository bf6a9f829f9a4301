"""Measurement of the training speed: one process per worker slot, cached afterwards."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from platform.common.errors import UserError
from platform.data.catalog import prepare_dataset
from platform.data.config import DataConfig
from platform.data.dataset import DatasetInfo
from platform.tracking import provenance
from platform.tuning.planning import calibration
from platform.tuning.planning.calibration import CalibrationRequest, calibrate, load_cached_speed
from platform.tuning.start_sweep import plan_here
from tests.space.examples import BASE, spec

NODES = [{"CPU": 2.0, "GPU": 0.0}]


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> DatasetInfo:
    return prepare_dataset(DataConfig(name="generated"), cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def calibration_request(info: DatasetInfo) -> CalibrationRequest:
    run = spec(base={**BASE, "model": {"name": "resnet20_cifar"}, "data": {"name": "generated"}}).base
    return CalibrationRequest(run=run, data_path=str(info.path), threads=1, gpu=False)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "default_cache_dir", lambda: tmp_path)


def test_two_processes_measure_concurrently_and_the_result_is_cached(
    calibration_request: CalibrationRequest,
) -> None:
    messages: list[str] = []
    assert load_cached_speed(calibration_request, processes=2) is None
    speed = calibrate(calibration_request, processes=2, progress=messages.append)
    assert (speed.processes, speed.threads) == (2, 1)
    assert 0 < speed.cpu_share <= 1
    assert speed.evaluation_images_per_s > speed.train_images_per_s, (
        "a training step takes longer than its forward pass"
    )
    assert messages == ["measuring the training speed of resnet20_cifar (takes seconds, then cached)"]
    assert calibrate(calibration_request, processes=2, progress=messages.append) == speed
    assert len(messages) == 1
    other = calibration_request.model_copy(update={"run": calibration_request.run.changed(batch_size=64)})
    assert load_cached_speed(other, processes=2) is None
    assert load_cached_speed(calibration_request, processes=1) is None


def test_a_measurement_on_a_busy_machine_expires_after_an_hour(
    calibration_request: CalibrationRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = calibration.Speed(train_images_per_s=10, evaluation_images_per_s=30, cpu_share=0.5)
    monkeypatch.setattr(calibration, "_run_processes", lambda *_: [answer])
    monkeypatch.setattr(os, "getloadavg", lambda: (8.0, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    measured = calibrate(calibration_request, processes=1)
    assert (measured.busy, measured.load_per_core) == (True, 4.0)
    idle = answer.model_copy(update={"cpu_share": 0.97})
    monkeypatch.setattr(calibration, "_run_processes", lambda *_: [idle])
    monkeypatch.setattr(calibration, "default_cache_dir", lambda: tmp_path / "other")
    assert not calibrate(calibration_request, processes=1).busy
    monkeypatch.setattr(calibration, "default_cache_dir", lambda: tmp_path)
    assert load_cached_speed(calibration_request, processes=1) is not None
    [kept] = (tmp_path / "calibration").iterdir()
    for age_s in (3700, -3700):  # the clock was set back since
        os.utime(kept, (time.time() - age_s, time.time() - age_s))
        assert load_cached_speed(calibration_request, processes=1) is None


def test_the_error_of_a_measuring_process_is_reported(
    calibration_request: CalibrationRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "raise SystemExit('no such device')"
    monkeypatch.setattr(
        calibration.subprocess,
        "Popen",
        lambda command, popen=calibration.subprocess.Popen, **options: popen(
            [command[0], "-c", code], **options
        ),
    )
    with pytest.raises(
        UserError, match="measuring the training speed of this machine failed: no such device"
    ):
        calibrate(calibration_request, processes=2)


def test_the_estimate_covers_every_network_of_the_space(
    info: DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {"resnet20_cifar": 900.0, "resnet32_cifar": 450.0}

    def calibrated(calibration_request: CalibrationRequest, **_: object) -> calibration.Speed:
        rate = rates[calibration_request.run.model.name]
        return calibration.Speed(train_images_per_s=rate, evaluation_images_per_s=4 * rate)

    monkeypatch.setattr(calibration, "calibrate", calibrated)
    space = spec(
        base={**BASE, "data": {"name": "generated"}},
        search={"model.name": {"choice": list(rates)}, "optimizer.lr": {"log_uniform": [0.01, 0.5]}},
    )
    found = plan_here(space, info, NODES).estimate
    assert found is not None
    assert found.speed.networks == 2
    assert found.speed.train_images_per_s == pytest.approx(600)


@pytest.mark.parametrize(
    ("gpu", "changes", "expected"),
    [
        (0, {}, ("a processor", "trials use no GPU")),
        (1, {}, ("a GPU of 2026", "trials use GPUs", "auto", "resolved per trial")),
        (0.5, {"precision": "fp32"}, ("a GPU of 2026", "trials use GPUs", "fp32", "as configured")),
    ],
)
def test_planning_creates_no_cuda_context(
    info: DatasetInfo,
    monkeypatch: pytest.MonkeyPatch,
    gpu: float,
    changes: dict[str, str],
    expected: tuple[str, ...],
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("this creates a CUDA context")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("get_device_name", "get_device_capability", "get_device_properties", "mem_get_info"):
        monkeypatch.setattr(torch.cuda, name, refuse)
    monkeypatch.setattr(provenance, "gpu_names", lambda: ("a GPU of 2026",))
    monkeypatch.setattr(provenance, "cpu_name", lambda: "a processor")
    space = spec(
        base={**BASE, "data": {"name": "generated"}, **changes}, resources_per_worker={"CPU": 1, "GPU": gpu}
    )
    speed = calibration.Speed(train_images_per_s=10, evaluation_images_per_s=30)
    plan = plan_here(space, info, [{"CPU": 2.0, "GPU": 1.0}], speed=speed)
    found = (plan.device, plan.device_reason, plan.precision, plan.precision_reason.partition(":")[0])
    assert found[: len(expected)] == expected
    assert any("time-sliced" in note for note in plan.notes) == (gpu == 0.5)
