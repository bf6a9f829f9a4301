"""Measure the time that the diagnostics of a run take, relative to its training steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from platform.training.diagnostics import network_probe
from platform.training.diagnostics.diagnose import diagnose
from platform.training.records import EpochRecord

if TYPE_CHECKING:
    import torch

    from platform.data.training_data import TrainingData
    from platform.training.config import RunConfig


def measure_cost(config: RunConfig, data: TrainingData, device: torch.device) -> dict[str, Any]:
    """Train `config`, and return the seconds of diagnosing and training in each epoch after the first.

    Diagnosing is everything that a run does for it: the network probe, the search for loss spikes among the
    steps, and the rules over the records so far.
    """
    import torch

    from platform.training.distributed import World
    from platform.training.loop import fit

    spent_s, records, diagnosing_s, training_s = [0.0], list[EpochRecord](), list[float](), list[float]()

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            began_s = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                spent_s[0] += time.perf_counter() - began_s

        return call

    def on_epoch(record: EpochRecord) -> None:
        records.append(record)
        timed(diagnose)(records, classes=len(data.info.class_names))
        diagnosing_s.append(spent_s[0])
        training_s.append(record.epoch_s)
        spent_s[0] = 0.0

    with ExitStack() as stack:
        probe = network_probe.NetworkProbe
        stack.enter_context(patch.object(probe, "measure", timed(probe.measure)))
        stack.enter_context(patch("platform.training.loop.count_spikes", timed(network_probe.count_spikes)))
        fit(config, data, world=World(rank=0, size=1, device=device), checkpoint_dir=None, on_epoch=on_epoch)
    shares = [part / whole for part, whole in zip(diagnosing_s[1:], training_s[1:], strict=True)]
    return {
        "model": config.model.name,
        "images_per_epoch": len(data.train.labels),
        "diagnosing_s": diagnosing_s[1:],
        "training_s": training_s[1:],
        "shares": shares,
        "share_median": median(shares),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Format the measurements: medians, and each epoch's share."""
    lines = [f"{'diagnosing':16} {'images':>7} {'ms per epoch':>13} {'share':>7}  every epoch"]
    lines += [
        f"{row['model']:16} {row['images_per_epoch']:7} {1000 * median(row['diagnosing_s']):13.1f} "
        f"{row['share_median']:7.2%}  {' '.join(f'{share:.2%}' for share in row['shares'])}"
        for row in rows
    ]
    return "\n".join(lines)
