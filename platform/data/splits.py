"""The train/validation split: seeded, stratified by class, identical on every machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from platform.common.errors import UsageError
from platform.data.config import DataConfig
from platform.data.dataset import Labels

Indices = NDArray[np.int64]


def train_validation_indices(labels: Labels, config: DataConfig) -> tuple[Indices, Indices]:
    """Split the training set into training and validation images.

    Both parts keep the class proportions to within one image per class. `train_limit` reduces the training
    images to that number and the validation images to at most half of it, to keep validation of quick runs
    short. Both are then subsets of the parts without the limit. Their indices are ascending.

    Raises:
        UsageError: `validation_size` leaves no training images.
    """
    if config.validation_size >= len(labels):
        raise UsageError(
            f"data.validation_size must be smaller than the training set of {len(labels)} images, "
            f"got {config.validation_size}"
        )
    # numpy guarantees that the raw bit stream never changes between versions, unlike Generator's methods.
    order = np.argsort(np.random.PCG64(config.split_seed).random_raw(len(labels)), kind="stable")
    validation = _stratified_head(order, labels, config.validation_size)
    train = order[~np.isin(order, validation)]
    if config.train_limit is not None:
        limit = min(config.train_limit, len(train))
        train = _stratified_head(train, labels, limit)
        validation = _stratified_head(validation, labels, min(len(validation), max(1, limit // 2)))
    return np.sort(train), np.sort(validation)


def _stratified_head(order: Indices, labels: Labels, count: int) -> Indices:
    """Return `count` of the indices `order`: the first of each class, with proportional quotas.

    Quotas are rounded by the largest remainder; ties go to the lower label.
    """
    classes, sizes = np.unique(labels[order], return_counts=True)
    exact = sizes * count / len(order)
    quotas = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(-(exact - quotas), kind="stable")
    quotas[by_remainder[: count - int(quotas.sum())]] += 1
    parts = [order[labels[order] == label][:quota] for label, quota in zip(classes, quotas, strict=True)]
    return np.concatenate(parts)
