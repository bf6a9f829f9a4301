"""The records every part of this room speaks in: raw tables, a cached data set, a split of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from platform.errors import UserError

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Notify = Callable[[str], None]

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


class DataNotFound(UserError):  # noqa: N818 - read as a sentence: raise DataNotFound
    """The data is not on this machine and could not be downloaded (it is not damaged either)."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    Attributes:
        images: uint8 [N, 3, H, W], RGB. From the cache it is a private, copy-on-write memory map: it can
            be given to `torch.from_numpy`, and writing to it never reaches the file.
        labels: int64 [N], each in [0, number of classes).
    """

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.integer]) -> Split:
        """Return the images at `indices`, copied."""
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True, eq=False, kw_only=True)
class RawDataset:
    """What reading a source yields, before it goes into the cache.

    Attributes:
        name: the `data.name` it answers to.
        label: what reports call it: `cifar10`, `cifar10-jpeg75`, `folder:NAME`, `generated`.
        class_names: one per label value.
        train: the training images, validation images included.
        test: the test images.
    """

    name: str
    label: str
    class_names: tuple[str, ...]
    train: Split
    test: Split


@dataclass(frozen=True, kw_only=True)
class DatasetSource:
    """A place that images can be read from.

    Attributes:
        key: which place it is, for example `parquet:/data/cifar10`; the same at every start.
        fingerprint: changes whenever a file of the place does (sizes and modification times).
        read: reads everything, or raises one `UserError` that names the file and the row.
    """

    key: str
    fingerprint: str
    read: Callable[[Notify], RawDataset]


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """A data set in the cache.

    Attributes:
        name: the `data.name` it answers to.
        label: what reports call it; figures from different labels must not be compared.
        sha256: hash of pixels, labels and class names.
        class_names: one per label value.
        train_images: number of training images, validation images included.
        test_images: number of test images.
        image_shape: (3, H, W).
        path: its folder in the cache; `cache.open_info(path)` gives this record back in another process.
    """

    name: str
    label: str
    sha256: str
    class_names: tuple[str, ...]
    train_images: int
    test_images: int
    image_shape: tuple[int, int, int]
    path: Path


def ignore_message(message: str) -> None:
    """Ignore a progress message."""


def files_fingerprint(files: Iterable[Path | str]) -> str:
    """Return a string that changes when a file is added, removed, resized or rewritten.

    Args:
        files: in an order that is the same at every start. Tens of thousands should be plain strings: the
            arithmetic of `Path` would cost seconds.
    """
    statuses = [(os.fspath(file), os.stat(file)) for file in files]  # noqa: PTH116
    lines = [f"{file}\0{status.st_size}\0{status.st_mtime_ns}" for file, status in statuses]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
