"""Short training runs on the CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from platform.data.training_data import TrainingData
from platform.training.config import RunConfig
from platform.training.distributed import single
from platform.training.loop import fit
from platform.training.records import RunResult

ConfigOf = Callable[..., RunConfig]


def run(config: RunConfig, data: TrainingData, folder: Path | None = None, **more: Any) -> RunResult:
    return fit(config, data, world=single("cpu"), checkpoint_dir=folder, **more)


def numbers(result: RunResult) -> list[tuple[float | None, ...]]:
    """Return the reproducible results: everything except times."""
    return [
        (e.lr, e.train_loss, e.train_accuracy, e.validation_loss, e.validation_accuracy, e.grad_norm)
        for e in result.epochs
    ]
