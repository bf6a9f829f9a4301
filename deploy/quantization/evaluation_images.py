"""The images that an export needs: to calibrate int8, to decide what ships, to say how good it is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from deploy.conversion.export_source import find_dataset
from deploy.quantization.activation_scales import MIN_IMAGES
from platform.data.cache import load_split
from platform.data.config import DataConfig
from platform.data.dataset import DatasetInfo, Split
from platform.data.splits import train_validation_indices
from platform.models.trained import TrainedModel


@dataclass(frozen=True, eq=False, kw_only=True)
class Pictures:
    """Three parts of a data set, without a common image as far as there are enough."""

    label: str
    """What reports call the data set."""
    calibration: NDArray[np.uint8]
    """Images [N, C, H, W] of the training set: its validation part first, 512 if there are so many."""
    validation: Split
    """The validation part, without what calibrates if enough is left: for decisions."""
    held_out: bool
    """Whether the network was trained without the validation part. A sweep's final model usually is not: on
    images it knows it hardly errs, in any precision."""
    test: Split
    """For the figure that is told, and for a veto."""


def find_pictures(model: TrainedModel, data_dir: Path | None) -> Pictures | None:
    """Return the images of the data set that `model` was trained on; None where it is not in the cache.

    Raises:
        UserError: the data in `data_dir` cannot be read, or has another size or other classes.
    """
    info = find_dataset(model, data_dir)
    return None if info is None else divide(model, info)


def divide(model: TrainedModel, info: DatasetInfo, *, most_images: int | None = None) -> Pictures:
    """Return the parts of a data set as the training of `model` divided it.

    Args:
        model: the trained model, which remembers its division.
        info: the data set.
        most_images: of the validation and of the test images, at most; evenly spread over each.
    """
    train = load_split(info, "train")
    known, held_back = train_validation_indices(train.labels, _division(model, len(train)))
    candidates = np.concatenate([_spread(held_back, MIN_IMAGES), known])
    calibration = candidates[:MIN_IMAGES]
    rest = np.setdiff1d(held_back, calibration)
    validation = rest if len(rest) >= MIN_IMAGES else held_back
    test = load_split(info, "test")
    if most_images is not None:
        validation = _spread(validation, most_images)
        test = test.take(_spread(np.arange(len(test)), most_images))
    return Pictures(
        label=info.label,
        calibration=train.images[np.sort(calibration)],
        validation=train.take(validation),
        held_out="validation_accuracy" in model.metrics,
        test=test,
    )


def _division(model: TrainedModel, images: int) -> DataConfig:
    """Return how the training set was divided: as the model remembers, else as is usual."""
    try:
        known = json.loads(model.provenance.get("config", "{}")).get("data", {})
        config = DataConfig.model_validate(known)
    except (ValueError, AttributeError, ValidationError):
        config = DataConfig()
    if config.validation_size < images:
        return config
    return config.model_copy(update={"validation_size": max(1, images // 10)})


def _spread(indices: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return `count` of the indices, or all, at even distances: files may be sorted by class."""
    chosen = np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(np.int64)
    return indices[chosen]
