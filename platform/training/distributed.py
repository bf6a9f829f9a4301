"""The workers of a run: this process's rank, the number of workers, and the device.

The caller starts the process group (`world_from_env` under torchrun, or Ray Train). A single worker needs
none: `single()`.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from platform.common.errors import UserError
from platform.training.torchrun import read_launch


@dataclass(frozen=True)
class World:
    """The workers of one run, from the perspective of one of them."""

    rank: int
    """This worker, 0..size-1; rank 0 writes files and prints."""
    size: int
    """Number of workers."""
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this worker writes the run's files."""
        return self.rank == 0

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum `tensor` over all workers, in place; a no-op for one worker."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def broadcast_from_first(self, value: Any) -> Any:
        """Return rank 0's `value` (any picklable object) on every worker."""
        if self.size == 1:
            return value
        objects = [value]
        dist.broadcast_object_list(objects, src=0, device=self.device)
        return objects[0]

    def call_on_first(self, function: Callable[[], Any]) -> Any:
        """Call `function` on rank 0, and return its result or raise its `UserError` on every worker."""
        result: Any = None
        if self.is_first:
            try:
                result = function()
            except UserError as error:  # raised below, because the other workers wait
                result = error
        result = self.broadcast_from_first(result)
        if isinstance(result, UserError):
            raise result
        return result

    def slice_of(self, count: int) -> slice:
        """Return this worker's contiguous share of `count` items; shares differ by at most one item."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)


def single(device: torch.device | str | None = None) -> World:
    """Return a world of one worker on `device`, by default the first GPU, or the CPU without a GPU."""
    chosen = pick_device() if device is None else torch.device(device)
    return World(rank=0, size=1, device=chosen)


def pick_device(local_rank: int = 0) -> torch.device:
    """Return the GPU with index `local_rank`, or the CPU without a GPU."""
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


@contextmanager
def world_from_env() -> Iterator[World]:
    """Yield the world described by torchrun's environment variables; one worker without them.

    Starts a process group (nccl on GPUs, gloo on CPUs) and destroys it at the end.

    Raises:
        UsageError: the variables are incomplete or invalid.
        UserError: fewer GPUs than workers on this machine (two workers of one run cannot share a GPU), or the
            workers cannot be connected.
    """
    launch = read_launch()
    if launch.workers == 1:
        yield single()
        return
    size, rank, local_rank = launch.workers, launch.rank, launch.local_rank
    if 0 < torch.cuda.device_count() <= local_rank:
        raise UserError(
            f"each worker needs its own GPU: worker {local_rank} was started on a machine with "
            f"{torch.cuda.device_count()}; lower --nproc_per_node"
        )
    device = pick_device(local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, rank=rank, world_size=size)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UserError(
            f"cannot connect the {size} workers at {where}: {' '.join(str(error).split())}; "
            "start all of them with torchrun"
        ) from error
    try:
        yield World(rank=rank, size=size, device=device)
    finally:
        # A network that still references the group would keep its threads alive until interpreter shutdown,
        # where a thread that acquires the GIL aborts the process (observed in 2 of 10 runs).
        gc.collect()
        dist.destroy_process_group()
