"""Images for int8 calibration, for the choice of a precision, and for its reported test accuracy."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from deploy.quantization.activation_scales import MIN_IMAGES
from platform.data.cache import load_split
from platform.data.config import DataConfig
from platform.data.dataset import DatasetInfo, Split
from platform.data.splits import train_validation_indices
from platform.models.trained import TrainedModel


@dataclass(frozen=True, eq=False, kw_only=True)
class EvaluationData:
    """Calibration, validation and test images of a data set, disjoint if there are enough images."""

    label: str
    """Label of the data set."""
    calibration: NDArray[np.uint8]
    """Up to 512 images [N, C, H, W] of the training set, those of its validation part first."""
    validation: Split
    """The validation part, without calibration images if enough are left; used to choose a precision."""
    held_out: bool
    """Whether the network was trained without the validation part. A sweep's final model is usually trained
    on it, and then makes few errors on it in any precision."""
    test: Split
    """For the reported accuracy; may reject the chosen precision."""


def split_evaluation_data(
    model: TrainedModel, info: DatasetInfo, *, most_images: int | None = None
) -> EvaluationData:
    """Return the parts of a data set, with the train/validation split of the model's own training.

    Args:
        model: the trained model; its provenance records the split.
        info: the data set.
        most_images: maximum number of validation and of test images, evenly spread over each.
    """
    train = load_split(info, "train")
    known, held_back = train_validation_indices(train.labels, _division(model, len(train)))
    candidates = np.concatenate([spread(held_back, MIN_IMAGES), known])
    calibration = candidates[:MIN_IMAGES]
    rest = np.setdiff1d(held_back, calibration)
    validation = rest if len(rest) >= MIN_IMAGES else held_back
    test = load_split(info, "test")
    if most_images is not None:
        validation = spread(validation, most_images)
        test = test.take(spread(np.arange(len(test)), most_images))
    return EvaluationData(
        label=info.label,
        calibration=train.images[np.sort(calibration)],
        validation=train.take(validation),
        held_out="validation_accuracy" in model.metrics,
        test=test,
    )


def _division(model: TrainedModel, images: int) -> DataConfig:
    """Return the settings of the train/validation split: from the model's provenance, else the defaults."""
    try:
        known = json.loads(model.provenance.get("config", "{}")).get("data", {})
        config = DataConfig.model_validate(known)
    except (ValueError, AttributeError, ValidationError):
        config = DataConfig()
    if config.validation_size < images:
        return config
    return config.model_copy(update={"validation_size": max(1, images // 10)})


def spread(indices: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return up to `count` of the indices, evenly spaced: files may be sorted by class."""
    chosen = np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(np.int64)
    return indices[chosen]
