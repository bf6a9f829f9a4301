"""Images per second: captured and eager, under other settings of cuDNN, with larger batches, compiled."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.gpu_host.facts import Call
from benchmarks.gpu_host.runs import Case, Replay, Way, sizes, synchronize, train
from platform.training.distributed import pick_device
from platform.training.records import EpochRecord


def rates(call: Call) -> None:
    """Measure every case both ways."""
    size = sizes(tiny=call.tiny)
    for case in size.cases:
        for way in ("captured", "eager"):
            _measure(call, case, way=way)


def knobs(call: Call) -> None:
    """Measure larger batches and a moving average, then the cases with what cuDNN chooses by trial."""
    size = sizes(tiny=call.tiny)
    for case, changes in size.knobs:
        _measure(call, case, **changes)
    with _chosen_by_trial():
        for case in size.cases:
            _measure(call, case, knob="cudnn.benchmark")


def heuristic_b(call: Call) -> None:
    """Measure the cases with cuDNN's other heuristic (the step's environment asks for it)."""
    for case in sizes(tiny=call.tiny).cases:
        _measure(call, case, knob="heuristic B")


def compiled(call: Call) -> None:
    """Measure the largest case through `torch.compile`."""
    if call.tiny:
        import torch._dynamo

        # Compiling takes a minute on two cores, and is not what a tiny run checks.
        torch._dynamo.config.disable = True
    _measure(call, sizes(tiny=call.tiny).cases[1], knob="torch.compile", compile_network=True)


@contextmanager
def _chosen_by_trial() -> Iterator[None]:
    """Let cuDNN try algorithms, non-deterministic ones too, whatever the trainer asks for."""
    own = torch.backends.cudnn.flags

    def flags(**asked: Any) -> Any:
        return own(**(asked | {"benchmark": True, "deterministic": False}))

    with patch.object(torch.backends.cudnn, "flags", flags):
        yield


class _Timer:
    """Times the replays of one epoch on the device, without the host's share of it."""

    def __init__(self) -> None:
        self.armed = False
        self._steps = 0
        self._marks: list[Any] = []

    def watch(self, replay: Replay) -> Replay:
        """Return `replay`, timed once armed."""

        def timed() -> None:
            if self.armed and not self._marks:
                self._marks.append(_mark())
            replay()
            if self.armed:
                self._steps += 1
                self._marks[1:] = [_mark()]

        return timed

    def step_ms(self) -> float | None:
        """Return the mean milliseconds of a replay, None if there were none."""
        if not self._steps:
            return None
        synchronize()
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
    call: Call,
    case: Case,
    *,
    way: Way = "captured",
    knob: str | None = None,
    compile_network: bool = False,
    **changes: Any,
) -> None:
    """Note the rate of one case: the median over its epochs without the first."""
    size = sizes(tiny=call.tiny)
    timer = _Timer()

    def arm(epoch: EpochRecord) -> None:
        timer.armed = epoch.epoch == size.epochs - 1

    facts = train(
        case,
        images=size.images,
        epochs=size.epochs,
        way=way,
        watch=timer.watch if way == "captured" else None,
        on_epoch=arm,
        compile_network=compile_network,
        **changes,
    )
    step_ms = timer.step_ms()
    shares = [epoch["mfu"] for epoch in facts["epochs"][1:] if epoch["mfu"] is not None]
    call.note(
        "rate",
        knob=knob,
        images_per_s=median(epoch["images_per_s"] for epoch in facts["epochs"][1:]),
        mfu=median(shares) if shares else None,
        replay_ms=step_ms,
        replay_images_per_s=case.batch_size / step_ms * 1000 if step_ms else None,
        **facts,
    )
