"""Class folders of larger images, such as ImageNet: listed once, decoded during training.

    ROOT/train/CLASS/*.jpg and ROOT/val/CLASS/*.jpg (or test)

Such a dataset is cached like any other, with file paths instead of pixels, and `cache.open_info` reads its
record. The network input is a square crop of each image.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from platform.common.errors import UserError
from platform.data import cache
from platform.data.dataset import (
    DatasetInfo,
    DatasetSource,
    Labels,
    Notify,
    RawDataset,
    Split,
    ignore_message,
)
from platform.data.formats.class_folders import ClassFolders, list_class_folders

DATA_NAME = "image_folder"
DEFAULT_SIZE = 224
_LAYOUT = "it must be a folder ROOT with ROOT/train/CLASS/*.jpg and ROOT/val/CLASS/*.jpg"


@dataclass(frozen=True, eq=False)
class ImageFolderSplit:
    """Image files and their labels."""

    files: NDArray[np.str_]
    """Absolute paths [N]."""
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.integer]) -> ImageFolderSplit:
        return ImageFolderSplit(self.files[indices], self.labels[indices])


def evaluation_side(size: int) -> int:
    """Return the length that the shorter side is resized to before cropping a square: 256 for `size` 224."""
    return size * 8 // 7


def prepare_image_folder(
    root: Path, *, size: int, cache_dir: Path, notify: Notify = ignore_message
) -> DatasetInfo:
    """Return the cached list of the images in `root`, creating it on first use or after a change.

    Raises:
        UserError: `root` has no class folders, or the cache cannot be written.
    """
    listing = list_class_folders(root) if root.is_dir() else None
    if listing is None:
        raise UserError(f"{root} is not an image folder; {_LAYOUT}")
    source = DatasetSource(
        key=f"{DATA_NAME} {size}:{root.absolute()}", fingerprint=listing.fingerprint(), read=_never_read
    )
    if found := cache.find_cached(cache_dir, source):
        return found
    notify(f"{root}: {len(listing.train_files):,} training images, {len(listing.test_files):,} test images")
    listing.report_left_out(notify)
    import pyarrow as pa

    tables = {}
    for which, files in (("train", listing.train_files), ("test", listing.test_files)):
        paths = pa.array([str(Path(file).absolute()) for file, _ in files], pa.string())
        labels = pa.array([number for _, number in files], pa.int64())
        tables[which] = pa.record_batch({"file": paths, "label": labels})
    sha256 = _listing_hash(listing, root)
    record = {
        "name": DATA_NAME,
        "label": f"{DATA_NAME}:{root.resolve().name}",
        "sha256": sha256,
        "class_names": listing.classes,
        "image_shape": (3, size, size),
    }
    key = hashlib.sha256(f"{source.key} {sha256}".encode()).hexdigest()[:16]
    return cache.store_tables(cache_dir, source, f"{DATA_NAME}-{key}", tables, record)


def load_image_folder_split(info: DatasetInfo, which: Literal["train", "test"]) -> ImageFolderSplit:
    """Return the files and labels of one split.

    Raises:
        UserError: the cached list does not match its record.
    """
    import pyarrow as pa

    file = info.path / f"{which}.arrow"
    count = info.train_images if which == "train" else info.test_images
    try:
        with pa.OSFile(str(file)) as opened:
            batch = pa.ipc.open_file(opened).get_batch(0)
        batch.validate()
        files: list[Any] = batch.column("file").to_pylist()
        labels = batch.column("label").to_numpy().astype(np.int64)
        if len(files) != count:
            raise ValueError(f"expected {count} files")  # noqa: TRY301
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise UserError(
            f"{file}: the cached list is damaged ({error}); delete {info.path} and run again to rebuild it"
        ) from error
    return ImageFolderSplit(np.array(files, np.str_), labels)


def load_images(info: DatasetInfo, which: Literal["train", "test"]) -> Split | ImageFolderSplit:
    """Load one split of a cached dataset of any kind."""
    return load_image_folder_split(info, which) if info.name == DATA_NAME else cache.load_split(info, which)


def _listing_hash(listing: ClassFolders, root: Path) -> str:
    """Return the SHA-256 of class names, file names and file sizes; reading all pixels would take an hour."""
    digest = hashlib.sha256(repr(listing.classes).encode())
    start = len(str(root))
    for files in (listing.train_files, listing.test_files):
        lines = [f"{file[start:]}\0{label}\0{Path(file).stat().st_size}" for file, label in files]
        digest.update("\n".join(lines).encode())
    return digest.hexdigest()


def _never_read(_: Notify) -> RawDataset:
    raise AssertionError("image files are decoded during training")
