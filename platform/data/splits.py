"""Which training images are held out: fixed by a seed, stratified by class, the same on every machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from platform.data.config import DataConfig
from platform.data.dataset import Labels
from platform.errors import UsageError

Indices = NDArray[np.int64]


def train_validation_indices(labels: Labels, config: DataConfig) -> tuple[Indices, Indices]:
    """Divide the training set into a part to train on and a part to take decisions on.

    Both parts keep the proportions of the classes, to within one image each. With `train_limit`, the part to
    train on is cut to that many images, and the validation part to at most half as many: a quick run should
    not spend its time on validation. Both are subsets of what they are without the limit.

    Args:
        labels: int64 [N], the labels of the whole training set.
        config: `validation_size`, `split_seed` and `train_limit` are used.

    Returns:
        (train indices, validation indices), each ascending, without common elements.

    Raises:
        UsageError: `validation_size` leaves nothing to train on.
    """
    if config.validation_size >= len(labels):
        raise UsageError(
            f"data.validation_size must be smaller than the training set; it is {config.validation_size}, "
            f"the training set has {len(labels)} images"
        )
    # Raw bits: unlike Generator's methods, their stream is promised never to change between numpy versions.
    order = np.argsort(np.random.PCG64(config.split_seed).random_raw(len(labels)), kind="stable")
    validation = _stratified_head(order, labels, config.validation_size)
    train = order[~np.isin(order, validation)]
    if config.train_limit is not None:
        limit = min(config.train_limit, len(train))
        train = _stratified_head(train, labels, limit)
        validation = _stratified_head(validation, labels, min(len(validation), max(1, limit // 2)))
    return np.sort(train), np.sort(validation)


def _stratified_head(order: Indices, labels: Labels, count: int) -> Indices:
    """Return `count` of the indices `order`: the first of each class, each class in proportion.

    Quotas are rounded by the largest remainder, ties to the lower label.
    """
    classes, sizes = np.unique(labels[order], return_counts=True)
    exact = sizes * count / len(order)
    quotas = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(-(exact - quotas), kind="stable")
    quotas[by_remainder[: count - int(quotas.sum())]] += 1
    parts = [order[labels[order] == label][:quota] for label, quota in zip(classes, quotas, strict=True)]
    return np.concatenate(parts)
