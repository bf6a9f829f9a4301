"""The training and evaluation sets of a run: in device memory for small images, or decoded from files."""

from __future__ import annotations

from platform.data.dataset import Split
from platform.data.image_folders import ImageFolderSplit
from platform.data.normalization import Normalization
from platform.data.training_data import TrainingData
from platform.training.config import RunConfig
from platform.training.distributed import World
from platform.training.inputs.augment import DeviceEvaluationSet, DeviceTrainingSet
from platform.training.inputs.budget import Budget
from platform.training.inputs.image_files import FileEvaluationSet, FileTrainingSet

TrainingSet = DeviceTrainingSet | FileTrainingSet
EvaluationSet = DeviceEvaluationSet | FileEvaluationSet


def open_training_set(config: RunConfig, data: TrainingData, *, budget: Budget, world: World) -> TrainingSet:
    """Return the training images of `data`."""
    if isinstance(data.train, Split):
        return DeviceTrainingSet(data.train, data.normalization, config.augment, device=world.device)
    return FileTrainingSet(data, config.augment, budget=budget, world=world)


def open_evaluation_set(
    split: Split | ImageFolderSplit, normalization: Normalization, *, size: int, world: World
) -> EvaluationSet:
    """Return the images of a split, in order; `size` is the side in pixels of the network's input."""
    if isinstance(split, ImageFolderSplit):
        return FileEvaluationSet(split, normalization, size=size, world=world)
    return DeviceEvaluationSet(split, normalization, device=world.device)
