"""Latency of untrained networks: repeated measurements and the warning."""

import deploy.engine_build.engine
from deploy.untrained_latency import untrained_latency_ms
from platform.models.config import ModelConfig


def record(p50: float, *, quiet: bool) -> dict[str, object]:
    noise = {"trustworthy": quiet, "reason": "load 7.1 on 2 cores"}
    return {"results": [{"latency_ms": {"p50": p50}}], "context": {"noise": noise}}


def measure(monkeypatch, records) -> tuple[float, list[str], int]:
    """Return latency, warnings and number of measurements if the engine returns `records`."""
    remaining, warnings = iter(records), []
    measured = []

    def run_benchmark(*folders, **_):
        measured.append(folders)
        return next(remaining)

    monkeypatch.setattr(deploy.engine_build.engine, "run_benchmark", run_benchmark)
    latency_ms = untrained_latency_ms(
        ModelConfig(name="resnet20_cifar"), input_shape=(3, 32, 32), num_classes=10, warn=warnings.append
    )
    return latency_ms, warnings, len(measured)


def test_measuring_stops_at_an_undisturbed_run(monkeypatch):
    records = [record(0.9, quiet=False), record(0.5, quiet=True)]
    assert measure(monkeypatch, records) == (0.5, [], 2)


def test_three_disturbed_runs_give_a_warning(monkeypatch):
    records = [record(milliseconds, quiet=False) for milliseconds in (0.9, 0.7, 0.8)]
    latency_ms, warnings, runs = measure(monkeypatch, records)
    assert (latency_ms, runs) == (0.7, 3)
    assert len(warnings) == 1
    assert warnings[0].startswith(
        "other work disturbed every one of 3 measurements of resnet20_cifar (load 7.1"
    )
    assert "0.7 ms" in warnings[0]
