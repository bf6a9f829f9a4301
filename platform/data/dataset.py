"""Records shared by the data package: a raw dataset, its source, a cached dataset and a split."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from platform.common.errors import UserError

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Notify = Callable[[str], None]

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class DataNotFound(UserError):  # noqa: N818 - read as a sentence: raise DataNotFound
    """The dataset is neither on this machine nor downloadable. Damaged data raises a plain `UserError`."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    Attributes:
        images: uint8 [N, 3, H, W], RGB. Cached images are a copy-on-write memory map: `torch.from_numpy`
            accepts it, and writes do not reach the file.
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
    """A dataset as read from its source, before it is cached; `train` includes the validation images.

    `name` is its `data.name`, and `label` its name in reports: `cifar10`, `cifar10-jpeg75`, `folder:NAME`,
    `generated`.
    """

    name: str
    label: str
    class_names: tuple[str, ...]
    train: Split
    test: Split


@dataclass(frozen=True, kw_only=True)
class DatasetSource:
    """Files, or a generator, from which a dataset can be read.

    Attributes:
        key: format and location, for example `parquet:/data/cifar10`; stable across processes.
        fingerprint: changes whenever one of the files does (sizes and modification times).
        read: reads the dataset; raises a `UserError` that names the file and the row.
    """

    key: str
    fingerprint: str
    read: Callable[[Notify], RawDataset]


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """A cached dataset, in the folder `path`; `cache.open_info(path)` returns this record in another process.

    Results for different labels are not comparable. `sha256` is the hash of pixels, labels and class names,
    `train_images` includes the validation images, and `image_shape` is (3, H, W).
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
    """Discard a progress message."""


def files_fingerprint(files: Iterable[Path | str]) -> str:
    """Return a string that changes when a file is added, removed, resized or rewritten.

    Args:
        files: in a reproducible order. Pass tens of thousands as strings: building `Path`s takes seconds.
    """
    statuses = [(os.fspath(file), os.stat(file)) for file in files]  # noqa: PTH116
    lines = [f"{file}\0{status.st_size}\0{status.st_mtime_ns}" for file, status in statuses]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
