"""Where a run's batches come from: a table on the device for small images, loader processes for pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from platform.data.config import DataConfig
from platform.data.dataset import DatasetInfo, Notify, Split, quiet
from platform.data.image_folders import NAME, PictureData, PictureSplit, load_picture_data
from platform.data.normalization import Normalization
from platform.data.training_data import TrainingData, load_training_data
from platform.training.config import RunConfig
from platform.training.distributed import World
from platform.training.inputs.augment import Batch, EvaluationTable, Place, TrainingTable, draw_epoch
from platform.training.inputs.budget import Budget
from platform.training.inputs.image_files import PictureEvaluationTable, PictureTable


class Batches(Protocol):
    """The training images: a `TrainingTable` or a `PictureTable`."""

    def __len__(self) -> int: ...

    def batch(self, draw: Any, place: Place, part: slice) -> Batch:
        """Return one worker's part of a batch; `draw` is what `draw_of` returned for this table."""
        ...


class EvaluationBatches(Protocol):
    """The images of a split: an `EvaluationTable` or a `PictureEvaluationTable`."""

    def __len__(self) -> int: ...

    def batches(self, rows: slice, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (float32 images [n, C, H, W], int64 labels [n]) over `rows` of the split, n <= batch_size."""
        ...


def load_data(
    config: DataConfig, info: DatasetInfo, *, final: bool = False, notify: Notify = quiet
) -> TrainingData | PictureData:
    """Load what a run trains on, of either kind; arguments and errors as `load_training_data`."""
    if info.name == NAME:
        return load_picture_data(config, info, final=final, notify=notify)
    return load_training_data(config, info, final=final)


def open_training(
    config: RunConfig, data: TrainingData | PictureData, *, budget: Budget, world: World
) -> Batches:
    """Return the training images of `data`, ready to be drawn from."""
    if isinstance(data, PictureData):
        return PictureTable(data, config.augment, seed=config.seed, budget=budget, world=world)
    return TrainingTable(data.train, data.normalization, config.augment, device=world.device)


def draw_of(table: Batches, config: RunConfig, *, budget: Budget, epoch: int, device: torch.device) -> Any:
    """Draw the order and the augmentation of `epoch` (from 0) for `table`."""
    if isinstance(table, PictureTable):
        return table.draw(epoch)
    assert isinstance(table, TrainingTable)  # noqa: S101 - `open_training` makes no third kind
    return draw_epoch(
        config.augment,
        images=len(table),
        size=table.size,
        # Of a last epoch that is cut short, too: every epoch's draw has the same shape.
        steps=budget.steps_per_epoch,
        seed=config.seed,
        epoch=epoch,
        device=device,
    )


def open_evaluation(
    split: Split | PictureSplit, normalization: Normalization, *, size: int, world: World
) -> EvaluationBatches:
    """Return the images of a split, in order; `size` is the side of what the network sees."""
    if isinstance(split, PictureSplit):
        return PictureEvaluationTable(split, normalization, size=size, world=world)
    return EvaluationTable(split, normalization, device=world.device)
