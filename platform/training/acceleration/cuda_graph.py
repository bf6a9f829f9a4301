"""A training step as one CUDA graph: the host launches it whole instead of some hundreds of kernels.

What a captured step reads and writes lies at fixed places on the device (`platform.training.step.Steps`), the
number of the step and the learning rates of the epoch among them, so that a replay is all that the host does
for a step, and a schedule asks for no other capture. No random number is drawn in it: an epoch's are drawn
beforehand.

Sources: PyTorch's notes on CUDA semantics, section CUDA Graphs (a few steps on a side stream first; gradients
set to None before the capture, so that the backward pass allocates them in the graph's own memory).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TypeVar

import torch

from platform.training.distributed import World
from platform.training.inputs.augment import TrainingTable
from platform.training.inputs.batches import Batches

WARM_UP_STEPS = 3
"""Steps that run uncaptured before: libraries allocate their workspaces, the optimizer its state."""

_failed = threading.Event()

Result = TypeVar("Result")
Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Records a function's work on the device without doing it; returns what does it, again and again."""


def capture_for(table: Batches, world: World) -> Capture | None:
    """Return how to capture a step, or None where it runs uncaptured.

    On a CPU there is nothing to launch; pictures in files come from the host at every step; several workers
    exchange gradients in the middle of a step, through hooks that a capture would have to know.
    """
    if world.device.type != "cuda" or world.size > 1 or not isinstance(table, TrainingTable):
        return None
    return cuda_graph


def cuda_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Capture `work` as a CUDA graph; returns its replay.

    Raises:
        RuntimeError: something in `work` cannot be captured, or its memory is not there; or a capture has
            failed in this process before.
    """
    if _failed.is_set():
        raise RuntimeError("an earlier capture failed in this process")
    graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    side = _side_stream(torch.cuda.current_device())
    try:
        # Other threads of the process may use the device meanwhile: a loader's, another trial's.
        with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            work()
    except BaseException:
        _failed.set()
        # torch.cuda.graph leaves its stream the current one where the capture cannot be ended.
        torch.cuda.set_stream(current)
        torch.cuda.synchronize()
        raise
    return graph.replay


def capture_has_failed() -> bool:
    """Return whether a capture has failed in this process, which may then finish its run but no other.

    torch's allocator takes the capture for unfinished: `torch.cuda.empty_cache` and every other capture fail
    with an internal assertion (`captures_underway.empty()`).
    """
    return _failed.is_set()


def on_side_stream(device: torch.device, work: Callable[[], Result]) -> Result:
    """Do `work` on another stream than the current one, as a capture will; on a CPU, just do it."""
    if device.type != "cuda":
        return work()
    current = torch.cuda.current_stream(device)
    side = _side_stream(current.device_index)
    side.wait_stream(current)
    with torch.cuda.stream(side):
        done = work()
    current.wait_stream(side)
    return done


@functools.cache
def _side_stream(device: int) -> torch.cuda.Stream:
    """Return the one side stream of a GPU.

    The allocator keeps free memory per stream: on a stream of its own, each warm-up step would reserve the
    activations anew.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
