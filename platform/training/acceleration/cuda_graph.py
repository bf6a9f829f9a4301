"""A training step as one CUDA graph: the host launches the whole step instead of hundreds of kernels.

All inputs and outputs of a captured step are stored on the device at fixed addresses
(`platform.training.step.StepRunner`), including the step number and the learning rates of the epoch. The host
therefore only replays the graph, and a learning-rate schedule needs no new capture. No random number is
generated in the graph: those of an epoch are sampled beforehand.

Sources: PyTorch's notes on CUDA semantics, section CUDA Graphs (a few steps on a side stream first; gradients
set to None before the capture, so that the backward pass allocates them in the graph's private memory pool).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TypeVar

import torch

from platform.training.distributed import World
from platform.training.inputs.augment import DeviceTrainingSet
from platform.training.inputs.batches import TrainingSet

WARM_UP_STEPS = 3
"""Uncaptured steps before the capture, in which libraries allocate workspaces and the optimizer its state."""

_failed = threading.Event()

Result = TypeVar("Result")
Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Records the device work of a function without executing it; returns a function that executes it."""


def capture_for(training_set: TrainingSet, world: World) -> Capture | None:
    """Return the function that captures a step, or None if steps must run uncaptured.

    A CPU has no kernel launches; image files are copied from the host at every step; several workers exchange
    gradients within a step, through hooks that do not support capture.
    """
    if world.device.type != "cuda" or world.size > 1 or not isinstance(training_set, DeviceTrainingSet):
        return None
    return cuda_graph


def cuda_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Capture `work` as a CUDA graph; return its replay function.

    Raises:
        RuntimeError: `work` contains an operation that cannot be captured, memory is exhausted, or an earlier
            capture failed in this process.
    """
    if _failed.is_set():
        raise RuntimeError("an earlier capture failed in this process")
    graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    side = _side_stream(torch.cuda.current_device())
    try:
        # Other threads of the process may use the device during the capture: a loader, another trial.
        with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            work()
    except BaseException:
        _failed.set()
        # If ending the capture fails, torch.cuda.graph does not restore the current stream.
        torch.cuda.set_stream(current)
        torch.cuda.synchronize()
        raise
    return graph.replay


def capture_has_failed() -> bool:
    """Return whether a capture has failed in this process, which may then finish its run but start no other.

    torch's allocator still regards the capture as under way: `torch.cuda.empty_cache` and every other capture
    fail with an internal assertion (`captures_underway.empty()`).
    """
    return _failed.is_set()


def on_side_stream(device: torch.device, work: Callable[[], Result]) -> Result:
    """Run `work` on the side stream, as a capture does; on a CPU, just call it."""
    if device.type != "cuda":
        return work()
    current = torch.cuda.current_stream(device)
    side = _side_stream(current.device_index)
    side.wait_stream(current)
    with torch.cuda.stream(side):
        result = work()
    current.wait_stream(side)
    return result


@functools.cache
def _side_stream(device: int) -> torch.cuda.Stream:
    """Return the one side stream of a GPU.

    The allocator caches free memory per stream: with a new stream, each warm-up step would reserve memory for
    the activations again.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
