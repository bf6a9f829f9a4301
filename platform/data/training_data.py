"""The data of a training run: training images, validation images and normalization."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from platform.data import splits
from platform.data.cache import load_split
from platform.data.config import DataConfig
from platform.data.dataset import DatasetInfo, Split
from platform.data.normalization import Normalization, compute_normalization


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingData:
    """The data of a training run, without the test split.

    Attributes:
        train: training images.
        validation: images for model selection; None in the final run.
        normalization: computed from `train` only.
        info: the dataset.
    """

    train: Split
    validation: Split | None
    normalization: Normalization
    info: DatasetInfo


def load_training_data(config: DataConfig, info: DatasetInfo, *, final: bool = False) -> TrainingData:
    """Load the training set from the cache and split it.

    Args:
        config: the options of the split and the normalization.
        info: the dataset (`catalog.prepare_dataset`, or `catalog.open_info` in a worker).
        final: merge the validation images into the training images, for the champion's final run
            (`train_limit` applies to both before).

    Raises:
        UserError: the cache is damaged.
        UsageError: `validation_size` leaves no training images.
    """
    whole = load_split(info, "train")
    train_indices, validation_indices = splits.train_validation_indices(whole.labels, config)
    validation = None
    if final:
        chosen = np.sort(np.concatenate([train_indices, validation_indices]))
        train = whole if len(chosen) == len(whole) else whole.take(chosen)
    else:
        train, validation = whole.take(train_indices), whole.take(validation_indices)
    return TrainingData(
        train=train,
        validation=validation,
        normalization=compute_normalization(train.images, config.normalization),
        info=info,
    )
