"""The data of a training run: training images, validation images and normalization."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from platform.data import splits
from platform.data.config import DataConfig
from platform.data.dataset import DatasetInfo, Notify, Split, ignore_message
from platform.data.image_folders import ImageFolderSplit, evaluation_side, load_images
from platform.data.images import statistics
from platform.data.normalization import Normalization, compute_normalization


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingData:
    """The data of a training run, without the test split.

    Attributes:
        train: training images.
        validation: images for model selection; None in the final run.
        normalization: computed from `train` only.
        info: the dataset.
        color_axes: of an `ImageFolderSplit`, [3, 3]: the principal components of the training pixels' colors
            (see `ImageStatistics`).
    """

    train: Split | ImageFolderSplit
    validation: Split | ImageFolderSplit | None
    normalization: Normalization
    info: DatasetInfo
    color_axes: NDArray[np.float32] | None = None


def load_training_data(
    config: DataConfig, info: DatasetInfo, *, final: bool = False, notify: Notify = ignore_message
) -> TrainingData:
    """Load the training set from the cache and split it.

    `final` merges the validation images into the training images, for the champion's final run; `train_limit`
    applies to both before. The statistics of image files are computed on first use (minutes for ImageNet) and
    stored in the dataset's folder.

    Raises:
        UserError: the cache, or an image in the sample for the statistics, is damaged.
        UsageError: `validation_size` leaves no training images.
    """
    whole = load_images(info, "train")
    chosen, held_out = splits.train_validation_indices(whole.labels, config)
    if final:
        chosen = np.sort(np.concatenate([chosen, held_out]))
    train = whole if len(chosen) == len(whole) else whole.take(chosen)
    validation = None if final else whole.take(held_out)
    color_axes: NDArray[np.float32] | None = None
    if isinstance(train, Split):
        normalization = compute_normalization(train.images, config.normalization)
    else:
        size = info.image_shape[1]
        found = statistics.load_or_compute_statistics(
            info.path, train.files, size=size, shorter_side=evaluation_side(size), notify=notify
        )
        normalization, color_axes = found.normalization(config.normalization), found.color_axes
    return TrainingData(
        train=train, validation=validation, normalization=normalization, info=info, color_axes=color_axes
    )
