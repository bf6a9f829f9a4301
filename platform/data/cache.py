"""The cache of converted data sets: uncompressed Arrow files, memory-mapped, named by their content.

    CACHE/datasets/LABEL-HASH/{train.arrow,test.arrow,dataset.json}
    CACHE/index/KEY.json       which folder holds what a source gave when it was last read
    CACHE/downloads/           archives as downloaded

A data set is written into a temporary folder and renamed when complete, so what has a name is whole.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from platform.atomic import write_json
from platform.data.dataset import DatasetInfo, DatasetSource, RawDataset, Split
from platform.errors import UserError

SCHEMA_VERSION = 1
_STALE_S = 24 * 3600


def default_cache_dir() -> Path:
    """Return `$XDG_CACHE_HOME/resnet-sweep-platform`, by default under `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "resnet-sweep-platform"


def content_hash(tables: RawDataset) -> str:
    """Return the sha256 of class names, shapes, pixels and labels of both splits."""
    digest = hashlib.sha256()
    digest.update(json.dumps([SCHEMA_VERSION, tables.class_names]).encode())
    for split in (tables.train, tables.test):
        digest.update(json.dumps(split.images.shape).encode())
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(split.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def find_cached(cache_dir: Path, source: DatasetSource) -> DatasetInfo | None:
    """Return what `source` became when it was read before, if neither it nor the cache has changed."""
    try:
        entry = json.loads(_index_file(cache_dir, source).read_text("utf-8"))
        if (entry["schema_version"], entry["fingerprint"]) != (SCHEMA_VERSION, source.fingerprint):
            return None
        return open_info(cache_dir / "datasets" / Path(str(entry["folder"])).name)
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None  # no entry, or a cache that was tampered with: the source is read again


def find_cached_by_label(cache_dir: Path, label: str) -> DatasetInfo | None:
    """Return a data set of the cache by its label, wherever it came from."""
    for folder in sorted((cache_dir / "datasets").glob(f"{_slug(label)}-*")):
        try:
            info = open_info(folder)
        except UserError:
            continue
        if info.label == label:
            return info
    return None


def store_dataset(cache_dir: Path, source: DatasetSource, tables: RawDataset) -> DatasetInfo:
    """Write `tables` into the cache, remember that they came from `source`, and return their record.

    Raises:
        UserError: the cache cannot be written; nothing half-written is left.
    """
    sha256 = content_hash(tables)
    name = f"{_slug(tables.label)}-{sha256[:16]}"
    return store_dataset_folder(cache_dir, source, name, lambda folder: _write_folder(folder, tables, sha256))


def store_dataset_folder(
    cache_dir: Path, source: DatasetSource, name: str, write_files: Callable[[Path], None]
) -> DatasetInfo:
    """Make the data set's folder `name` with what `write_files` writes into it; otherwise as `store`."""
    folder = cache_dir / "datasets" / name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder.parent)
        temporary = folder.parent / f".partial-{secrets.token_hex(6)}"
        temporary.mkdir()
        try:
            write_files(temporary)
            _move_into_place(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        index = _index_file(cache_dir, source)
        index.parent.mkdir(exist_ok=True)
        entry = {"schema_version": SCHEMA_VERSION, "source": source.key, "fingerprint": source.fingerprint}
        write_json(index, {**entry, "folder": folder.name})
    except OSError as error:
        raise UserError(
            f"the data cache {cache_dir} cannot be written: {error.strerror or error}; "
            "free some space or choose another place with XDG_CACHE_HOME"
        ) from error
    return open_info(folder)


def open_info(path: Path) -> DatasetInfo:
    """Read the record of a data set of the cache, checking its version and its files' sizes.

    Args:
        path: the data set's folder (`DatasetInfo.path`).

    Raises:
        UserError: the folder is missing, of another version, or a file has not the size it was written with.
    """
    path = Path(path)
    remedy = "remove that folder and start again: the data will be converted anew"
    try:
        record: dict[str, Any] = json.loads((path / "dataset.json").read_text("utf-8"))
        if record["schema_version"] != SCHEMA_VERSION:
            raise UserError(
                f"{path}: the cached data has schema version {record['schema_version']!r}, "
                f"this program reads {SCHEMA_VERSION}; {remedy}"
            )
        for name in ("train.arrow", "test.arrow"):
            got, expected = (path / name).stat().st_size, record["files"][name]["bytes"]
            if got != expected:
                raise UserError(
                    f"{path / name}: cached data must have {expected} bytes, it has {got}; {remedy}"
                )
        channels, height, width = (int(size) for size in record["image_shape"])
        return DatasetInfo(
            name=str(record["name"]),
            label=str(record["label"]),
            sha256=str(record["sha256"]),
            class_names=tuple(str(name) for name in record["class_names"]),
            train_images=int(record["files"]["train.arrow"]["images"]),
            test_images=int(record["files"]["test.arrow"]["images"]),
            image_shape=(channels, height, width),
            path=path.absolute(),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a complete data set of the cache ({error!r}); {remedy}") from error


def load_split(info: DatasetInfo, which: Literal["train", "test"]) -> Split:
    """Memory-map one split: a few milliseconds, whatever its size.

    Raises:
        UserError: the file is not what its record says.
    """
    import pyarrow as pa

    if info.name == "pictures":
        raise UserError(f"{info.label} has no table of pixels: its pictures are decoded while training")
    file = info.path / f"{which}.arrow"
    count = info.train_images if which == "train" else info.test_images
    try:
        with file.open("rb") as opened:
            # Private pages: PyTorch warns about tensors over read-only memory, and the file must not change.
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        whole = pa.py_buffer(mapped)
        batch = pa.ipc.open_file(pa.BufferReader(whole)).get_batch(0)
        batch.validate()
        images, labels = batch.column("image"), batch.column("label")
        if tuple(images.type.shape) != info.image_shape or len(images) != count or len(labels) != count:
            raise ValueError(f"expected {count} images of shape {info.image_shape}")  # noqa: TRY301

        def view(buffer: pa.Buffer, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
            offset = buffer.address - whole.address
            flat: NDArray[Any] = np.frombuffer(mapped, dtype, count=int(np.prod(shape)), offset=offset)
            return flat.reshape(shape)

        return Split(
            images=view(images.storage.values.buffers()[1], np.uint8, (count, *info.image_shape)),
            labels=view(labels.buffers()[1], np.int64, (count,)),
        )
    except (OSError, ValueError, KeyError, AttributeError, pa.ArrowException) as error:
        raise UserError(
            f"{file}: the cached data is damaged ({error}); remove {info.path} and start again: "
            "the data will be converted anew"
        ) from error


def _slug(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", label)


def _index_file(cache_dir: Path, source: DatasetSource) -> Path:
    return cache_dir / "index" / f"{hashlib.sha256(source.key.encode()).hexdigest()[:24]}.json"


def _write_folder(folder: Path, tables: RawDataset, sha256: str) -> None:
    import pyarrow as pa

    for which, split in (("train", tables.train), ("test", tables.test)):
        images = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(split.images))
        labels = pa.array(split.labels, type=pa.int64())
        write_arrow(folder / f"{which}.arrow", pa.record_batch({"image": images, "label": labels}))
    write_dataset_record(
        folder,
        name=tables.name,
        label=tables.label,
        sha256=sha256,
        class_names=tables.class_names,
        image_shape=tables.train.images.shape[1:],
        images={"train": len(tables.train), "test": len(tables.test)},
    )


def write_dataset_record(folder: Path, *, images: dict[str, int], **entries: Any) -> None:
    """Write dataset.json, the last file of a data set's folder: what `open_info` reads."""
    files = {
        f"{which}.arrow": {"bytes": (folder / f"{which}.arrow").stat().st_size, "images": count}
        for which, count in images.items()
    }
    record = {"schema_version": SCHEMA_VERSION, **entries, "files": files}
    write_json(folder / "dataset.json", record)


def write_arrow(file: Path, table: Any) -> None:
    """Write one record batch and flush it to disk."""
    import pyarrow as pa

    with file.open("wb") as opened:
        with pa.ipc.new_file(opened, table.schema) as writer:
            writer.write_batch(table)
        opened.flush()
        os.fsync(opened.fileno())


def _move_into_place(temporary: Path, folder: Path) -> None:
    if folder.exists():
        try:
            open_info(folder)
        except UserError:
            shutil.rmtree(folder)  # of an older version, or damaged
        else:
            return  # the same content from another place, or from another process just now
    try:
        temporary.rename(folder)
    except OSError:
        # Two processes converted the same data at once, and the other was first.
        if not folder.exists():
            raise
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_stale(parent: Path) -> None:
    for left in parent.glob(".partial-*"):
        if time.time() - left.stat().st_mtime > _STALE_S:
            shutil.rmtree(left, ignore_errors=True)
