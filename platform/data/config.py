"""Configuration of a run's dataset: name, split and normalization."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from platform.common.schema import Frozen, Seed

ImageSide = Annotated[int, Field(gt=0, le=4096)]
"""A length in pixels: a batch of 128 images of 4096x4096 pixels needs 24 GiB."""


class DataConfig(Frozen):
    """The dataset of a run; `--data-dir` or `CIFAR10_DIR` gives the location of its files."""

    name: Literal["cifar10", "folder", "image_folder", "generated"] = "cifar10"
    """`cifar10` (Python archive or Parquet files), `folder` (one folder per class, resized to 32x32 once),
    `image_folder` (class folders of larger images, decoded during training), or `generated` images."""

    image_size: ImageSide | None = Field(default=None, exclude_if=lambda value: value is None)
    """Side in pixels of the square network input, with `image_folder` only; `null`: 224."""

    normalization: Literal["channel", "pixel"] = "channel"
    """`channel`: subtract the mean and divide by the standard deviation of each color channel;
    `pixel`: subtract the mean image (He et al. 2016, section 4.2), then divide by the channel's deviation."""

    validation_size: PositiveInt = 5000
    """Number of training images held out for model selection, stratified by class."""

    split_seed: Seed = 0
    """Seed of the train/validation split; the same for all trials of a sweep."""

    train_limit: PositiveInt | None = Field(default=None)
    """Maximum number of training images, stratified by class (for quick runs); `null`: all."""
