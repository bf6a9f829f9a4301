"""Image folders of larger pictures, such as ImageNet's: listed once, decoded while training.

    ROOT/train/CLASS/*.jpg and ROOT/val/CLASS/*.jpg (or test)

A data set of this kind lies in the cache like any other, with paths where the others have pixels:
`cache.open_info` reads its record. What the network sees is a square cut out of each picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from platform.data import cache, splits
from platform.data.config import DataConfig
from platform.data.dataset import DatasetInfo, DatasetSource, Labels, Notify, RawDataset, ignore_message
from platform.data.formats.class_folders import ClassFolders, list_class_folders
from platform.data.images import statistics
from platform.data.normalization import Normalization
from platform.errors import UserError

DATA_NAME = "pictures"
DEFAULT_SIZE = 224
_LAYOUT = "it must be a folder ROOT with ROOT/train/CLASS/*.jpg and ROOT/val/CLASS/*.jpg"


@dataclass(frozen=True, eq=False)
class ImageFolderSplit:
    """Pictures that are still files, and their labels."""

    files: NDArray[np.str_]
    """Absolute paths [N]."""
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.integer]) -> ImageFolderSplit:
        """Return the pictures at `indices`."""
        return ImageFolderSplit(self.files[indices], self.labels[indices])


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageFolderTrainingData:
    """Everything a training run may see; `platform.data.training_data.TrainingData` for pictures."""

    train: ImageFolderSplit
    validation: ImageFolderSplit | None
    normalization: Normalization
    """Of `train` alone; its mean is the mean picture [3, size, size], or one of the colors [3]."""
    color_axes: NDArray[np.float32]
    """[3, 3]: the principal components of the training pixels' colors (see `picture_statistics`)."""
    info: DatasetInfo


def evaluation_side(size: int) -> int:
    """Return what the shorter side is resized to before a square of `size` is cut out: 256 for 224."""
    return size * 8 // 7


def prepare_image_folder(
    place: Path, *, size: int, cache_dir: Path, notify: Notify = ignore_message
) -> DatasetInfo:
    """List the pictures under `place` in the cache, unless they are there unchanged.

    Raises:
        UserError: there is no such tree, or the cache cannot be written.
    """
    tree = list_class_folders(place) if place.is_dir() else None
    if tree is None:
        raise UserError(f"{place} is not a tree of pictures; {_LAYOUT}")
    source = DatasetSource(
        key=f"{DATA_NAME} {size}:{place.absolute()}", fingerprint=tree.fingerprint(), read=_never_read
    )
    if found := cache.find_cached(cache_dir, source):
        return found
    notify(f"{place}: {len(tree.train_files):,} pictures to train on, {len(tree.test_files):,} to test with")
    sha256 = _listing_hash(tree, place)
    label = f"{DATA_NAME}:{place.resolve().name}"

    def write_files(folder: Path) -> None:
        import pyarrow as pa

        for which, files in (("train", tree.train_files), ("test", tree.test_files)):
            paths = pa.array([str(Path(file).absolute()) for file, _ in files], pa.string())
            labels = pa.array([number for _, number in files], pa.int64())
            cache.write_arrow(folder / f"{which}.arrow", pa.record_batch({"file": paths, "label": labels}))
        cache.write_dataset_record(
            folder,
            name=DATA_NAME,
            label=label,
            sha256=sha256,
            class_names=tree.classes,
            image_shape=(3, size, size),
            images={"train": len(tree.train_files), "test": len(tree.test_files)},
        )

    key = hashlib.sha256(f"{source.key} {sha256}".encode()).hexdigest()[:16]
    return cache.store_dataset_folder(cache_dir, source, f"{DATA_NAME}-{key}", write_files)


def load_image_folder_split(info: DatasetInfo, which: Literal["train", "test"]) -> ImageFolderSplit:
    """Return the files and labels of one split.

    Raises:
        UserError: the list in the cache is not what its record says.
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
            f"{file}: the cached list is damaged ({error}); remove {info.path} and start again: "
            "the pictures will be listed anew"
        ) from error
    return ImageFolderSplit(np.array(files, np.str_), labels)


def load_image_folder_training_data(
    config: DataConfig, info: DatasetInfo, *, final: bool = False, notify: Notify = ignore_message
) -> ImageFolderTrainingData:
    """Load the list of training pictures and divide it, as `tables.load_training_data` does with tables.

    The statistics are computed on first use (minutes for ImageNet) and kept in the data set's folder.

    Raises:
        UserError: the cache is damaged, or a picture that is needed for the statistics.
        UsageError: `validation_size` leaves nothing to train on.
    """
    whole = load_image_folder_split(info, "train")
    train_indices, validation_indices = splits.train_validation_indices(whole.labels, config)
    if final:
        train_indices = np.sort(np.concatenate([train_indices, validation_indices]))
    train = whole.take(train_indices)
    size = info.image_shape[1]
    found = statistics.load_or_compute_statistics(
        info.path, train.files, size=size, shorter_side=evaluation_side(size), notify=notify
    )
    return ImageFolderTrainingData(
        train=train,
        validation=None if final else whole.take(validation_indices),
        normalization=found.normalization(config.normalization),
        color_axes=found.color_axes,
        info=info,
    )


def _listing_hash(tree: ClassFolders, place: Path) -> str:
    """Return the sha256 of class names, files' names and sizes: reading every pixel would take an hour."""
    digest = hashlib.sha256(repr(tree.classes).encode())
    for files in (tree.train_files, tree.test_files):
        digest.update(_lines(files, place))
    return digest.hexdigest()


def _lines(files: Sequence[tuple[str, int]], place: Path) -> bytes:
    start = len(str(place))
    lines = [f"{file[start:]}\0{label}\0{Path(file).stat().st_size}" for file, label in files]
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _never_read(_: Notify) -> RawDataset:
    raise AssertionError("pictures are decoded while training")
