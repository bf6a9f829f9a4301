"""Which data a run trains on, and how it is split and normalized."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from platform.schema import Frozen


class DataConfig(Frozen):
    """The data of a run. Where the files lie is not part of it: that is `--data-dir` or `CIFAR10_DIR`."""

    name: Literal["cifar10", "folder", "pictures", "generated"] = "cifar10"
    """`cifar10` (python archive or parquet), `folder` (one folder per class, resized to 32x32 once),
    `pictures` (such folders of larger pictures, decoded while training), or `generated` images."""

    picture_size: PositiveInt | None = Field(default=None, exclude_if=lambda value: value is None)
    """Side in pixels of the square that the network sees of a picture, with `pictures` only; `null`: 224."""

    normalization: Literal["channel", "pixel"] = "channel"
    """`channel`: subtract the mean and divide by the standard deviation of each color channel;
    `pixel`: subtract the mean image (He et al. 2016, section 4.2), then divide by the channel's deviation."""

    validation_size: PositiveInt = 5000
    """Images held out of the training set, stratified by class, for every decision a sweep takes."""

    split_seed: NonNegativeInt = 0
    """Seed of the train/validation split; the same for all trials of a sweep."""

    train_limit: PositiveInt | None = Field(default=None)
    """Use only so many training images, stratified (quick runs); `null` for all."""
