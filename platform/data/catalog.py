"""Prepare the dataset of a `DataConfig`: find its source, convert it once, then open it from the cache.

CIFAR-10 comes from `--data-dir`, `CIFAR10_DIR`, the cache or a download, in this order.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from platform.common.errors import UsageError, UserError, require_utf8
from platform.data import cache, image_folders
from platform.data.cache import load_split, open_info
from platform.data.config import DataConfig
from platform.data.dataset import (
    CIFAR10_CLASSES,
    DataNotFound,
    DatasetInfo,
    DatasetSource,
    Notify,
    RawDataset,
    Split,
    ignore_message,
)
from platform.data.formats import archive, class_folders, download, generated, parquet

__all__ = ["DataNotFound", "DatasetInfo", "Split", "load_split", "open_info", "prepare_dataset"]

CIFAR10_IMAGES = (50_000, 10_000)

_REMEDIES = """\
CIFAR-10 was not found on this machine. Do one of the following:
  - set --data-dir or CIFAR10_DIR to cifar-10-python.tar.gz, to the folder extracted from it,
    or to a folder with train-*.parquet and test-*.parquet;
  - connect to the internet and run again, to download it (170 MB) to {cache_dir};
  - use generated images: --quick, or 'data.name: generated' in the space file."""


def prepare_dataset(
    config: DataConfig,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    offline: bool = False,
    progress: Callable[[str], None] | None = None,
) -> DatasetInfo:
    """Return the dataset of `config`, converting it into the cache on first use.

    `data_dir` is an archive, a folder, or a Parquet file, by default `$CIFAR10_DIR`. `progress` is called
    before each slow step.

    Raises:
        DataNotFound: CIFAR-10 is not on this machine and cannot be downloaded.
        UserError: `data_dir` does not hold the dataset, or the data is damaged or incomplete.
        UsageError: `data.name: folder` or `image_folder` without a folder.
    """
    notify = progress or ignore_message
    cache_dir = cache_dir or cache.default_cache_dir()
    if config.name == "generated":
        if data_dir is not None:
            notify(f"--data-dir {data_dir} has no effect with 'data.name: generated'")
        return _convert(generated.generated_source(), cache_dir, notify)
    option = "--data-dir" if data_dir is not None else "CIFAR10_DIR"
    # CIFAR10_DIR names another dataset than an `image_folder`.
    given = data_dir or (os.environ.get("CIFAR10_DIR") if config.name != "image_folder" else None)
    if not given:
        if config.name == "cifar10":
            return _cached_or_downloaded(cache_dir, offline, notify)
        raise UsageError(
            f"'data.name: {config.name}' needs an image folder: give --data-dir ROOT, "
            "with ROOT/train/CLASS/*.jpg and ROOT/test/CLASS/*.jpg"
        )
    path = Path(given).expanduser()
    if config.name == "image_folder":
        size = config.image_size or image_folders.DEFAULT_SIZE
        return image_folders.prepare_image_folder(path, size=size, cache_dir=cache_dir, notify=notify)
    source = _find_source(path, option, custom=config.name == "folder")
    if config.name == "cifar10":
        source = _require_cifar10(source, path)
    return _convert(source, cache_dir, notify)


def _find_source(path: Path, option: str, *, custom: bool) -> DatasetSource:
    """Return the source at `path`; with `custom`, only class folders are accepted."""
    require_utf8(str(path))
    if not path.exists():
        raise UserError(f"{option}: {path} does not exist; correct {option} or omit it")
    folders = partial(class_folders.find_class_folders, custom=custom)
    formats = (folders,) if custom else (archive.find_archive, parquet.find_parquet, folders)
    try:
        for find in formats:
            if source := find(path):
                return source
    except OSError as error:
        raise UserError(f"{option}: cannot read {path} ({error})") from error
    if custom:
        raise UserError(
            f"{option}: {path} is not an image folder; it must be a folder ROOT with "
            "ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png"
        )
    raise UserError(
        f"{option}: no CIFAR-10 in {path}; give {archive.ARCHIVE}, the folder {archive.FOLDER}, "
        "a folder with train-*.parquet and test-*.parquet, or one with train/CLASS/*.png and test/CLASS/*.png"
    )


def _require_cifar10(source: DatasetSource, path: Path) -> DatasetSource:
    """Return `source` with a check that it yields all of CIFAR-10."""

    def read(notify: Notify) -> RawDataset:
        dataset = source.read(notify)
        if dataset.class_names != CIFAR10_CLASSES:
            raise UserError(
                f"{path}: the classes of CIFAR-10 are {', '.join(CIFAR10_CLASSES)}; got "
                f"{', '.join(dataset.class_names[:12])}; for your own images set 'data.name: folder'"
            )
        if (len(dataset.train), len(dataset.test)) != CIFAR10_IMAGES:
            raise UserError(
                f"{path}: CIFAR-10 has {CIFAR10_IMAGES[0]:,} training and {CIFAR10_IMAGES[1]:,} test images, "
                f"got {len(dataset.train):,} and {len(dataset.test):,}: the copy is incomplete; replace it "
                "(for your own images set 'data.name: folder')"
            )
        return dataset

    # A separate key: images cached as `folder` have not passed these checks.
    return replace(source, key=f"cifar10 {source.key}", read=read)


def _cached_or_downloaded(cache_dir: Path, offline: bool, notify: Notify) -> DatasetInfo:
    if found := cache.find_cached_by_label(cache_dir, "cifar10"):
        return found
    remedies = _REMEDIES.format(cache_dir=cache_dir)
    file = cache_dir / "downloads" / archive.ARCHIVE
    if not file.exists():
        if offline:
            raise DataNotFound(f"{remedies}\n(not downloaded: offline mode)")
        try:
            download.download(file, md5=archive.ARCHIVE_MD5, notify=notify)
        except DataNotFound as error:
            raise DataNotFound(f"{remedies}\n({error})") from error
    return _convert(_require_cifar10(archive.archive_source(file), file), cache_dir, notify)


def _convert(source: DatasetSource, cache_dir: Path, notify: Notify) -> DatasetInfo:
    if found := cache.find_cached(cache_dir, source):
        return found
    return cache.store_dataset(cache_dir, source, source.read(notify))
