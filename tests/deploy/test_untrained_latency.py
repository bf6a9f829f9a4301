"""Latencies of networks that nobody has trained, and what is said of disturbed ones."""

import deploy.engine_build.engine
from deploy.untrained_latency import untrained_latency_ms
from platform.models.config import ModelConfig


def record(p50: float, *, quiet: bool) -> dict[str, object]:
    noise = {"trustworthy": quiet, "reason": "load 7.1 on 2 cores"}
    return {"results": [{"latency_ms": {"p50": p50}}], "context": {"noise": noise}}


def measure(monkeypatch, records) -> tuple[float, list[str], int]:
    """Return the figure, the warnings and how often was measured, if the engine answers with `records`."""
    answers, warnings = iter(records), []
    asked = []

    def run_benchmark(*folders, **_):
        asked.append(folders)
        return next(answers)

    monkeypatch.setattr(deploy.engine_build.engine, "run_benchmark", run_benchmark)
    figure = untrained_latency_ms(
        ModelConfig(name="resnet20_cifar"), input_shape=(3, 32, 32), num_classes=10, warn=warnings.append
    )
    return figure, warnings, len(asked)


def test_an_undisturbed_measurement_is_the_last(monkeypatch):
    records = [record(0.9, quiet=False), record(0.5, quiet=True)]
    assert measure(monkeypatch, records) == (0.5, [], 2)


def test_three_disturbed_measurements_are_told_of(monkeypatch):
    records = [record(milliseconds, quiet=False) for milliseconds in (0.9, 0.7, 0.8)]
    figure, warnings, asked = measure(monkeypatch, records)
    assert (figure, asked) == (0.7, 3)
    assert len(warnings) == 1
    assert warnings[0].startswith(
        "other work disturbed every one of 3 measurements of resnet20_cifar (load 7.1"
    )
    assert "0.7 ms" in warnings[0]
