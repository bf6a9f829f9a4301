"""The tables a training run works on: its images, its validation images, its normalization."""

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
    """Everything a training run may see; the test split is not part of it.

    Attributes:
        train: images to train on.
        validation: images to take decisions on; None in the final retrain.
        normalization: of `train` alone.
        info: the data set both come from.
    """

    train: Split
    validation: Split | None
    normalization: Normalization
    info: DatasetInfo


def load_training_data(config: DataConfig, info: DatasetInfo, *, final: bool = False) -> TrainingData:
    """Load the training set from the cache and divide it.

    Args:
        config: how to divide and normalize.
        info: the data set (`catalog.prepare_dataset`, or `catalog.open_info` in a worker).
        final: train on the training and the validation images together, as the champion's last run does
            (with `train_limit`, on what both are under it).

    Raises:
        UserError: the cache is damaged.
        UsageError: `validation_size` leaves nothing to train on.
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
