"""Short training runs on random images: what each step measures with.

The trainer asks `platform.training.loop.capture_for` how to capture a step. Replacing that one function makes
it train kernel by kernel, or lets a step watch the replays.
"""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple
from unittest.mock import patch

import torch

from benchmarks.training import random_data, run_config
from platform.data.training_data import TrainingData
from platform.training import loop
from platform.training.acceleration.cuda_graph import Capture, capture_for
from platform.training.distributed import pick_device, single
from platform.training.records import EpochRecord

Way = Literal["captured", "eager"]
Replay = Callable[[], None]
Watch = Callable[[Replay], Replay]


class Case(NamedTuple):
    """A network and the images of a step."""

    model: str
    batch_size: int


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    cases: tuple[Case, ...]
    """The second is the largest, the last is bound by its number of kernels."""
    images: int
    """Of an epoch, rounded down to whole batches."""
    epochs: int
    """Of a rate; the first one warms up."""
    equality_epochs: int
    """Of two steps each."""
    profiled_steps: int
    knobs: tuple[tuple[Case, dict[str, Any]], ...]
    """Cases and changes of the configuration."""


_FULL = Sizes(
    cases=(Case("resnet18_cifar", 128), Case("resnet18_cifar", 512), Case("resnet32_cifar", 128)),
    images=49_920,
    epochs=4,
    equality_epochs=10,
    profiled_steps=5,
    knobs=(
        (Case("resnet18_cifar", 1024), {}),
        (Case("resnet32_cifar", 512), {}),
        (Case("resnet32_cifar", 128), {"ema_decay": 0.99}),
    ),
)
_TINY = Sizes(
    cases=(Case("resnet20_cifar", 4), Case("resnet20_cifar", 8)),
    images=40,
    epochs=2,
    equality_epochs=3,
    profiled_steps=1,
    knobs=((Case("resnet20_cifar", 4), {"ema_decay": 0.99}),),
)


def sizes(*, tiny: bool) -> Sizes:
    """Return what is measured, in full or tiny."""
    return _TINY if tiny else _FULL


@contextmanager
def _steps_issued(way: Way, watch: Watch | None) -> Iterator[None]:
    """Let the runs inside replay a capture, or train step by step; `watch` wraps what does a step.

    Where nothing is captured (on a CPU), calling the step again stands in for its replay.
    """

    def choose(*arguments: Any) -> Capture | None:
        if way == "eager" and watch is None:
            return None
        capture = (capture_for(*arguments) if way == "captured" else None) or (lambda work: work)
        return lambda work: (watch or (lambda replay: replay))(capture(work))

    with patch.object(loop, "capture_for", choose):
        yield


def train(
    case: Case,
    *,
    images: int,
    epochs: int,
    way: Way = "captured",
    watch: Watch | None = None,
    on_epoch: Callable[[EpochRecord], None] = lambda _: None,
    compile_network: bool = False,
    **changes: Any,
) -> dict[str, Any]:
    """Train once on random images; returns what a fact says of it, `epochs` with every epoch's record.

    Args:
        case: network and batch size.
        images: of an epoch, rounded down to whole batches.
        epochs: how many.
        way: `captured`: as the trainer does by itself; `eager`: kernel by kernel.
        watch: gets what does a step and returns what is called in its place, from the fourth step on.
        on_epoch: called after each epoch.
        compile_network: through `torch.compile` first.
        changes: fields of the run's configuration.
    """
    config = run_config(case.model, batch_size=case.batch_size, epochs=epochs, precision="auto")
    world = single()
    on_gpu = world.device.type == "cuda"
    _free_memory(on_gpu=on_gpu)
    ends_s: list[float] = []

    def note(epoch: EpochRecord) -> None:
        ends_s.append(time.perf_counter())
        on_epoch(epoch)

    with _steps_issued(way, watch), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = loop.fit(
            config.changed(**changes),
            _data(images // case.batch_size * case.batch_size),
            world=world,
            checkpoint_dir=None,
            on_epoch=note,
            compile_network=compile_network,
        )
    records = [epoch.as_dict() for epoch in result.epochs]
    walls_s = [end - begin for begin, end in pairwise(ends_s)]
    return {
        "model": case.model,
        "batch_size": case.batch_size,
        "way": way,
        "changes": changes,
        "precision": result.precision,
        "captured": result.captured,
        "compile_s": result.compile_s,
        # What an epoch costs next to its steps; the first one has what happens once.
        "beside_s": [wall - epoch["epoch_s"] for wall, epoch in zip(walls_s, records[1:], strict=True)],
        "reserved_gib": round(torch.cuda.max_memory_reserved() / 2**30, 2) if on_gpu else None,
        "warnings": sorted({str(each.message)[:300] for each in caught}),
        "epochs": records,
    }


def _free_memory(*, on_gpu: bool) -> None:
    gc.collect()
    if on_gpu:
        # After a failed capture the allocator refuses this (an internal assertion); eager runs still work.
        with suppress(RuntimeError):
            torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


@cache
def _data(images: int) -> TrainingData:
    return random_data(images)


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if pick_device().type == "cuda":
        torch.cuda.synchronize()
