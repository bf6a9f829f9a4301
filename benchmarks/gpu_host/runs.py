"""Short training runs on random images for the steps' measurements.

The trainer obtains its CUDA-graph capture from `platform.training.loop.capture_for`. Patching that function
selects eager training, or wraps the replays.
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
from platform.training import loop
from platform.training.acceleration.cuda_graph import Capture, capture_for
from platform.training.distributed import single
from platform.training.records import EpochRecord

StepMode = Literal["captured", "eager"]
Replay = Callable[[], None]
Watch = Callable[[Replay], Replay]
_data = cache(random_data)


class Case(NamedTuple):
    """A network and its batch size."""

    model: str
    batch_size: int


@dataclass(frozen=True)
class Sizes:
    """Sizes of the measurements."""

    cases: tuple[Case, ...]
    """The second is the largest, the last is launch-bound."""
    images: int
    """Images per epoch, rounded down to whole batches."""
    epochs: int
    """Epochs per rate; the first is the warm-up."""
    equality_epochs: int
    """Epochs of two steps each."""
    profiled_steps: int
    knobs: tuple[tuple[Case, dict[str, Any]], ...]
    """Cases with changes of the configuration."""


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
    """Return the full or the tiny sizes."""
    return _TINY if tiny else _FULL


@contextmanager
def _patched_capture(mode: StepMode, watch: Watch | None) -> Iterator[None]:
    """Train with captured or eager steps; `watch` wraps the function that runs a step.

    Without a capture, as on a CPU, the step itself is called in place of its replay.
    """

    def choose(*arguments: Any) -> Capture | None:
        if mode == "eager" and watch is None:
            return None
        capture = (capture_for(*arguments) if mode == "captured" else None) or (lambda work: work)
        return lambda work: (watch or (lambda replay: replay))(capture(work))

    with patch.object(loop, "capture_for", choose):
        yield


def train(
    case: Case,
    *,
    images: int,
    epochs: int,
    mode: StepMode = "captured",
    watch: Watch | None = None,
    on_epoch: Callable[[EpochRecord], None] = lambda _: None,
    compile_network: bool = False,
    **changes: Any,
) -> dict[str, Any]:
    """Train once on random images; return the fields of a fact, with every epoch's record under `epochs`.

    Args:
        case: network and batch size.
        images: images per epoch, rounded down to whole batches.
        epochs: number of epochs.
        mode: `captured` is the trainer's default, `eager` launches every kernel.
        watch: wraps the function that runs a step, from the fourth step on.
        on_epoch: called after each epoch.
        compile_network: compile the network with `torch.compile`.
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

    with _patched_capture(mode, watch), warnings.catch_warnings(record=True) as caught:
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
        "way": mode,
        "changes": changes,
        "precision": result.precision,
        "captured": result.captured,
        "compile_s": result.compile_s,
        # Time of each epoch outside its steps, except the first epoch, which includes one-time costs.
        "beside_s": [wall - epoch["epoch_s"] for wall, epoch in zip(walls_s, records[1:], strict=True)],
        "reserved_gib": round(torch.cuda.max_memory_reserved() / 2**30, 2) if on_gpu else None,
        "warnings": sorted({str(each.message)[:300] for each in caught}),
        "epochs": records,
    }


def _free_memory(*, on_gpu: bool) -> None:
    gc.collect()
    if on_gpu:
        # After a failed capture this raises an internal assertion of the allocator; eager runs still work.
        with suppress(RuntimeError):
            torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
