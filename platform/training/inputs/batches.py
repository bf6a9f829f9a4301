"""The training and evaluation sets of a run: in device memory for small images, or decoded from files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor

from platform.data.config import DataConfig
from platform.data.dataset import DatasetInfo, Notify, Split, ignore_message
from platform.data.image_folders import (
    DATA_NAME,
    ImageFolderSplit,
    ImageFolderTrainingData,
    load_image_folder_training_data,
)
from platform.data.normalization import Normalization
from platform.data.training_data import TrainingData, load_training_data
from platform.training.config import RunConfig
from platform.training.distributed import World
from platform.training.inputs.augment import Batch, BatchPosition, DeviceEvaluationSet, DeviceTrainingSet
from platform.training.inputs.budget import Budget
from platform.training.inputs.image_files import FileEvaluationSet, FileTrainingSet


class TrainingSet(Protocol):
    """The training images: a `DeviceTrainingSet` or a `FileTrainingSet`."""

    def __len__(self) -> int: ...

    def sample_randomness(self, epoch: int, *, seed: int, steps: int) -> Any:
        """Sample the order and the augmentation of `epoch` (from 0) for up to `steps` batches."""
        ...

    def batch(self, randomness: Any, position: BatchPosition, share: slice) -> Batch:
        """Return one worker's part of a batch; `randomness` is from this set's `sample_randomness`."""
        ...


class EvaluationSet(Protocol):
    """The images of a split: a `DeviceEvaluationSet` or a `FileEvaluationSet`."""

    def __len__(self) -> int: ...

    def batches(self, rows: slice, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (float32 images [n, C, H, W], int64 labels [n]) over `rows` of the split, n <= batch_size."""
        ...


def load_data(
    config: DataConfig, info: DatasetInfo, *, final: bool = False, notify: Notify = ignore_message
) -> TrainingData | ImageFolderTrainingData:
    """Load the training data of either kind; arguments and errors as `load_training_data`."""
    if info.name == DATA_NAME:
        return load_image_folder_training_data(config, info, final=final, notify=notify)
    return load_training_data(config, info, final=final)


def open_training_set(
    config: RunConfig, data: TrainingData | ImageFolderTrainingData, *, budget: Budget, world: World
) -> TrainingSet:
    """Return the training images of `data`."""
    if isinstance(data, ImageFolderTrainingData):
        return FileTrainingSet(data, config.augment, budget=budget, world=world)
    return DeviceTrainingSet(data.train, data.normalization, config.augment, device=world.device)


def open_evaluation_set(
    split: Split | ImageFolderSplit, normalization: Normalization, *, size: int, world: World
) -> EvaluationSet:
    """Return the images of a split, in order; `size` is the side in pixels of the network's input."""
    if isinstance(split, ImageFolderSplit):
        return FileEvaluationSet(split, normalization, size=size, world=world)
    return DeviceEvaluationSet(split, normalization, device=world.device)
