"""The variables that torchrun sets for each worker, read before PyTorch is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from platform.common.errors import UsageError


@dataclass(frozen=True)
class Launch:
    """The number of workers, and this process among them."""

    workers: int = 1
    rank: int = 0
    """This worker, 0..workers-1."""
    local_rank: int = 0
    """This worker among those of its machine."""


def read_launch(environment: Mapping[str, str] = os.environ) -> Launch:
    """Return the launch that torchrun's variables describe; one worker without them. Empty ones are unset.

    Raises:
        UsageError: a variable is missing, is not an integer, or does not fit the others.
    """
    workers = _integer(environment, "WORLD_SIZE", default=1)
    several = workers > 1
    rank = _integer(environment, "RANK", default=None if several else 0)
    local_rank = _integer(environment, "LOCAL_RANK", default=None if several else 0)
    for name in ("MASTER_ADDR", "MASTER_PORT") if several else ():
        if not environment.get(name):
            raise _invalid(f"{name} is missing")
    if workers < 1 or not 0 <= local_rank <= rank < workers:
        raise _invalid(f"WORLD_SIZE is {workers}, RANK {rank}, LOCAL_RANK {local_rank}")
    return Launch(workers, rank, local_rank)


def _integer(environment: Mapping[str, str], name: str, *, default: int | None) -> int:
    text = environment.get(name, "").strip()
    if not text and default is not None:
        return default
    try:
        return int(text)
    except ValueError:
        raise _invalid(f"{name} is {text!r}" if text else f"{name} is missing") from None


def _invalid(problem: str) -> UsageError:
    return UsageError(
        f"the environment must describe the workers as torchrun does, but {problem}; start several workers "
        "with torchrun (--standalone --nproc_per_node=N), or unset WORLD_SIZE, RANK and LOCAL_RANK"
    )
