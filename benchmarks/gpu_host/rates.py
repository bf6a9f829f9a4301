"""Measure images per second: captured and eager, other cuDNN settings, larger batches, compiled."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.gpu_host.facts import StepRequest
from benchmarks.gpu_host.runs import Case, Replay, StepMode, sizes, train
from benchmarks.roofline import synchronize
from platform.training.distributed import pick_device
from platform.training.records import EpochRecord


def rates(request: StepRequest) -> None:
    """Measure every case in both modes."""
    size = sizes(tiny=request.tiny)
    for case in size.cases:
        for mode in ("captured", "eager"):
            _measure(request, case, mode=mode)


def knobs(request: StepRequest) -> None:
    """Measure larger batches and a moving average of the weights, then every case with `cudnn.benchmark`."""
    size = sizes(tiny=request.tiny)
    for case, changes in size.knobs:
        _measure(request, case, **changes)
    with _chosen_by_trial():
        for case in size.cases:
            _measure(request, case, knob="cudnn.benchmark")


def heuristic_b(request: StepRequest) -> None:
    """Measure the cases with cuDNN's heuristic mode B, which the step's environment selects."""
    for case in sizes(tiny=request.tiny).cases:
        _measure(request, case, knob="heuristic B")


def compiled(request: StepRequest) -> None:
    """Measure the largest case through `torch.compile`."""
    if request.tiny:
        import torch._dynamo

        # Compiling takes a minute on two cores.
        torch._dynamo.config.disable = True
    _measure(request, sizes(tiny=request.tiny).cases[1], knob="torch.compile", compile_network=True)


@contextmanager
def _chosen_by_trial() -> Iterator[None]:
    """Override the trainer's flags: cuDNN benchmarks algorithms, nondeterministic ones included."""
    original = torch.backends.cudnn.flags

    def flags(**requested: Any) -> Any:
        return original(**(requested | {"benchmark": True, "deterministic": False}))

    with patch.object(torch.backends.cudnn, "flags", flags):
        yield


class _Timer:
    """Measures the device time of the replays of one epoch."""

    def __init__(self) -> None:
        self.armed = False
        self._steps = 0
        self._marks: list[Any] = []

    def watch(self, replay: Replay) -> Replay:
        """Return `replay` with timing, which starts when `armed` is set."""

        def timed() -> None:
            if self.armed and not self._marks:
                self._marks.append(_mark())
            replay()
            if self.armed:
                self._steps += 1
                self._marks[1:] = [_mark()]

        return timed

    def step_ms(self) -> float | None:
        """Return the mean time of a replay in milliseconds, or None without replays."""
        if not self._steps:
            return None
        synchronize(pick_device())
        begin, end = self._marks
        ms = 1000 * (end - begin) if isinstance(begin, float) else begin.elapsed_time(end)
        return float(ms) / self._steps


def _mark() -> Any:
    if pick_device().type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _measure(
    request: StepRequest,
    case: Case,
    *,
    mode: StepMode = "captured",
    knob: str | None = None,
    compile_network: bool = False,
    **changes: Any,
) -> None:
    """Record the rate of one case: the median over its epochs except the first."""
    size = sizes(tiny=request.tiny)
    timer = _Timer()

    def arm(epoch: EpochRecord) -> None:
        timer.armed = epoch.epoch == size.epochs - 1

    facts = train(
        case,
        images=size.images,
        epochs=size.epochs,
        mode=mode,
        watch=timer.watch if mode == "captured" else None,
        on_epoch=arm,
        compile_network=compile_network,
        **changes,
    )
    step_ms = timer.step_ms()
    shares = [epoch["mfu"] for epoch in facts["epochs"][1:] if epoch["mfu"] is not None]
    request.note(
        "rate",
        knob=knob,
        images_per_s=median(epoch["images_per_s"] for epoch in facts["epochs"][1:]),
        mfu=median(shares) if shares else None,
        replay_ms=step_ms,
        replay_images_per_s=case.batch_size / step_ms * 1000 if step_ms else None,
        **facts,
    )
