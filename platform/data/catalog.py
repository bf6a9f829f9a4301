"""From a `DataConfig` to a data set in the cache: find the source, read it once, open it ever after.

CIFAR-10 is looked for in `--data-dir`, else in `CIFAR10_DIR`, else in the cache, else it is downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

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
from platform.errors import UsageError, UserError

__all__ = ["DataNotFound", "DatasetInfo", "Split", "load_split", "open_info", "prepare_dataset"]

CIFAR10_IMAGES = (50_000, 10_000)

_REMEDIES = """\
CIFAR-10 is not on this machine. One of these helps:
  - point --data-dir or CIFAR10_DIR at cifar-10-python.tar.gz, at the folder extracted from it,
    or at a folder with train-*.parquet and test-*.parquet;
  - connect to the internet and start again: it will be downloaded (170 MB) into {cache_dir};
  - use generated images: --quick, or 'data.name: generated' in the space file."""


def prepare_dataset(
    config: DataConfig,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    offline: bool = False,
    progress: Callable[[str], None] | None = None,
) -> DatasetInfo:
    """Return the data set that `config` names, converting it into the cache when it is not there yet.

    Args:
        config: which data.
        data_dir: where it lies: an archive, a folder, or a parquet file; by default `$CIFAR10_DIR`.
        cache_dir: by default `~/.cache/resnet-sweep-platform`.
        offline: never download.
        progress: told, in words, what takes time.

    Raises:
        DataNotFound: CIFAR-10 is nowhere on this machine and cannot be downloaded.
        UserError: the place that was named has no such data, or the data there is damaged or incomplete.
        UsageError: `data.name: folder` or `pictures` without a place.
    """
    notify = progress or ignore_message
    cache_dir = cache_dir or cache.default_cache_dir()
    named, option = _named_place(data_dir)
    match config.name:
        case "generated":
            if data_dir is not None:
                notify(f"--data-dir {data_dir} has no effect: 'data.name: generated' draws its images")
            return _convert(generated.generated_source(), cache_dir, notify)
        case "folder":
            if named is None:
                raise UsageError(
                    "'data.name: folder' needs to know where the images are: give --data-dir ROOT, "
                    "with ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png"
                )
            return _convert(_find_source(named, option, own=True), cache_dir, notify)
        case "pictures":
            # CIFAR10_DIR does not count: whoever has set it has set it for another data set.
            if data_dir is None:
                raise UsageError(
                    "'data.name: pictures' needs to know where they are: give --data-dir ROOT, "
                    "with ROOT/train/CLASS/*.jpg and ROOT/val/CLASS/*.jpg"
                )
            place = Path(data_dir).expanduser()
            size = config.picture_size or image_folders.DEFAULT_SIZE
            return image_folders.prepare_image_folder(place, size=size, cache_dir=cache_dir, notify=notify)
        case "cifar10":
            if named is not None:
                return _convert(
                    _require_cifar10(_find_source(named, option, own=False), named), cache_dir, notify
                )
            return _cached_or_downloaded(cache_dir, offline, notify)


def _named_place(data_dir: Path | None) -> tuple[Path | None, str]:
    """Return the place the user named, and how they named it."""
    if data_dir is not None:
        return Path(data_dir).expanduser(), "--data-dir"
    if from_environment := os.environ.get("CIFAR10_DIR"):
        return Path(from_environment).expanduser(), "CIFAR10_DIR"
    return None, ""


def _find_source(place: Path, option: str, *, own: bool) -> DatasetSource:
    """Return what lies at `place`; with `own`, only a tree of image files is asked for."""
    if not place.exists():
        raise UserError(f"{option}: {place} does not exist; correct {option} or leave it out")
    folders = partial(class_folders.find_class_folders, own=own)
    formats = (folders,) if own else (archive.find_archive, parquet.find_parquet, folders)
    try:
        for find in formats:
            if source := find(place):
                return source
    except OSError as error:
        raise UserError(f"{option}: {place} cannot be read ({error})") from error
    if own:
        raise UserError(
            f"{option}: {place} is not a tree of images; it must be a folder ROOT with "
            "ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png"
        )
    raise UserError(
        f"{option}: {place} holds no CIFAR-10; it must be {archive.ARCHIVE}, the folder {archive.FOLDER}, "
        "a folder with train-*.parquet and test-*.parquet, or one with train/CLASS/*.png and test/CLASS/*.png"
    )


def _require_cifar10(source: DatasetSource, place: Path) -> DatasetSource:
    """Return `source` with a check that what it gives is the whole of CIFAR-10."""

    def read(notify: Notify) -> RawDataset:
        tables = source.read(notify)
        if tables.class_names != CIFAR10_CLASSES:
            raise UserError(
                f"{place}: the classes of CIFAR-10 are {', '.join(CIFAR10_CLASSES)}; found "
                f"{', '.join(tables.class_names[:12])}; for images of your own, 'data.name: folder'"
            )
        for split, got, expected in zip(
            ("training", "test"), (len(tables.train), len(tables.test)), CIFAR10_IMAGES, strict=True
        ):
            if got != expected:
                raise UserError(
                    f"{place}: CIFAR-10 has {expected:,} {split} images, found {got:,}: the copy is "
                    "incomplete; replace it (for images of your own, 'data.name: folder')"
                )
        return tables

    # The checks decide what is cached, so images read as `folder` before must pass them too.
    return replace(source, key=f"cifar10 {source.key}", read=read)


def _cached_or_downloaded(cache_dir: Path, offline: bool, notify: Notify) -> DatasetInfo:
    if found := cache.find_cached_by_label(cache_dir, "cifar10"):
        return found
    remedies = _REMEDIES.format(cache_dir=cache_dir)
    file = cache_dir / "downloads" / archive.ARCHIVE
    if not file.exists():
        if offline:
            raise DataNotFound(f"{remedies}\n(not downloaded: offline was asked for)")
        try:
            download.download(file, md5=archive.ARCHIVE_MD5, notify=notify)
        except DataNotFound as error:
            raise DataNotFound(f"{remedies}\n({error})") from error
    return _convert(_require_cifar10(archive.archive_source(file), file), cache_dir, notify)


def _convert(source: DatasetSource, cache_dir: Path, notify: Notify) -> DatasetInfo:
    if found := cache.find_cached(cache_dir, source):
        return found
    return cache.store_dataset(cache_dir, source, source.read(notify))
