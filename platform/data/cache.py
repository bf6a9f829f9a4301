"""The cache of converted datasets: uncompressed, memory-mapped Arrow files in folders named by content hash.

    CACHE/datasets/LABEL-HASH/{train.arrow,test.arrow,dataset.json}
    CACHE/index/KEY.json       the dataset folder of a source, with the source's fingerprint
    CACHE/downloads/           downloaded archives

A dataset is written to a temporary folder, which is renamed when complete.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from platform.common.atomic import read_json, write_json
from platform.common.errors import UserError
from platform.data.dataset import DatasetInfo, DatasetSource, RawDataset, Split

SCHEMA_VERSION = 1
_STALE_S = 24 * 3600


def default_cache_dir() -> Path:
    """Return `$XDG_CACHE_HOME/resnet-sweep-platform`, by default under `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "resnet-sweep-platform"


def content_hash(dataset: RawDataset) -> str:
    """Return the SHA-256 of the class names and of both splits' shapes, pixels and labels."""
    digest = hashlib.sha256()
    digest.update(json.dumps([SCHEMA_VERSION, dataset.class_names]).encode())
    for split in (dataset.train, dataset.test):
        digest.update(json.dumps(split.images.shape).encode())
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(split.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def find_cached(cache_dir: Path, source: DatasetSource) -> DatasetInfo | None:
    """Return the cached dataset of `source`; None if there is none, or the source or the cache changed."""
    try:
        entry = json.loads(_index_file(cache_dir, source).read_text("utf-8"))
        if (entry["schema_version"], entry["fingerprint"]) != (SCHEMA_VERSION, source.fingerprint):
            return None
        return open_info(cache_dir / "datasets" / Path(str(entry["folder"])).name)
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None  # missing or damaged entry: read the source again


def find_cached_by_label(cache_dir: Path, label: str) -> DatasetInfo | None:
    """Return the first cached dataset with this label, regardless of its source."""
    folders = sorted((cache_dir / "datasets").glob(f"{_slug(label)}-*"))
    return next((info for info in map(_open_if_sound, folders) if info and info.label == label), None)


def store_dataset(cache_dir: Path, source: DatasetSource, dataset: RawDataset) -> DatasetInfo:
    """Write `dataset` to the cache and add `source` to the index.

    Raises:
        UserError: the cache cannot be written; partial output is removed.
    """
    import pyarrow as pa

    sha256 = content_hash(dataset)
    tables = {}
    for which, split in (("train", dataset.train), ("test", dataset.test)):
        images = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(split.images))
        labels = pa.array(split.labels, type=pa.int64())
        tables[which] = pa.record_batch({"image": images, "label": labels})
    record = {
        "name": dataset.name,
        "label": dataset.label,
        "sha256": sha256,
        "class_names": dataset.class_names,
        "image_shape": dataset.train.images.shape[1:],
    }
    return store_tables(cache_dir, source, f"{_slug(dataset.label)}-{sha256[:16]}", tables, record)


def store_tables(
    cache_dir: Path, source: DatasetSource, name: str, tables: Mapping[str, Any], record: Mapping[str, Any]
) -> DatasetInfo:
    """Create the dataset folder `name` with the record batches `train` and `test`; else as `store_dataset`.

    `record` has the entries of dataset.json, except for the sizes of the files.
    """

    def write_files(folder: Path) -> None:
        import pyarrow as pa

        files = {}
        for which, table in tables.items():
            file = folder / f"{which}.arrow"
            with file.open("wb") as opened:
                with pa.ipc.new_file(opened, table.schema) as writer:
                    writer.write_batch(table)
                opened.flush()
                os.fsync(opened.fileno())
            files[file.name] = {"bytes": file.stat().st_size, "images": table.num_rows}
        write_json(folder / "dataset.json", {"schema_version": SCHEMA_VERSION, **record, "files": files})

    with _writing(cache_dir):
        info = _create_folder(cache_dir, name, write_files)
        index = _index_file(cache_dir, source)
        index.parent.mkdir(exist_ok=True)
        entry = {"schema_version": SCHEMA_VERSION, "source": source.key, "fingerprint": source.fingerprint}
        write_json(index, {**entry, "folder": name})
    return info


def find_copy(folder: Path, sha256: str) -> DatasetInfo | None:
    """Return the dataset in `folder` if its content hash is `sha256`, else None."""
    info = _open_if_sound(folder)
    return info if info is not None and info.sha256 == sha256 else None


def store_copy(cache_dir: Path, name: str, sha256: str, write_files: Callable[[Path], None]) -> DatasetInfo:
    """Store a copy of another machine's dataset folder `name`, unless this cache has it.

    Only one process of this machine copies at a time; the others wait for it. `write_files` copies
    dataset.json and both splits into a folder. The content hash is computed again from the copied pixels.

    Raises:
        UserError: the cache cannot be written, or the copy has another content hash.
    """
    folder = cache_dir / "datasets" / name

    def write_and_check(temporary: Path) -> None:
        write_files(temporary)
        info = open_info(temporary)
        train, test = load_split(info, "train"), load_split(info, "test")
        got = content_hash(
            RawDataset(name=info.name, label=info.label, class_names=info.class_names, train=train, test=test)
        )
        if got != sha256:
            raise UserError(f"the copy of {name} must have the content hash {sha256}, got {got}")

    with _writing(cache_dir):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return find_copy(folder, sha256) or _create_folder(cache_dir, name, write_and_check)


def _create_folder(cache_dir: Path, name: str, write_files: Callable[[Path], None]) -> DatasetInfo:
    folder = cache_dir / "datasets" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    for partial in folder.parent.glob(".partial-*"):
        if time.time() - partial.stat().st_mtime > _STALE_S:
            shutil.rmtree(partial, ignore_errors=True)
    temporary = folder.parent / f".partial-{secrets.token_hex(6)}"
    temporary.mkdir()
    try:
        write_files(temporary)
        _move_into_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return open_info(folder)


@contextmanager
def _writing(cache_dir: Path) -> Iterator[None]:
    """Turn an OSError of the block into a UserError about the cache."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the data cache {cache_dir}: {error.strerror or error}; "
            "free some disk space, or set XDG_CACHE_HOME to another folder"
        ) from error


def open_info(path: Path) -> DatasetInfo:
    """Read the record in the folder of a cached dataset, and check its schema version and file sizes.

    Raises:
        UserError: the folder is missing, has another schema version, or a file has the wrong size.
    """
    path = Path(path)
    remedy = "delete that folder and run again to rebuild the cache"
    try:
        record: dict[str, Any] = read_json(path / "dataset.json", remedy=remedy)
        if record["schema_version"] != SCHEMA_VERSION:
            raise UserError(
                f"{path}: the cached dataset must have schema version {SCHEMA_VERSION}, "
                f"got schema version {record['schema_version']!r}; {remedy}"
            )
        for name in ("train.arrow", "test.arrow"):
            got, expected = (path / name).stat().st_size, record["files"][name]["bytes"]
            if got != expected:
                raise UserError(f"{path / name}: the file must have {expected} bytes, got {got}; {remedy}")
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
        raise UserError(f"{path}: incomplete cached dataset ({error!r}); {remedy}") from error


def _open_if_sound(folder: Path) -> DatasetInfo | None:
    try:
        return open_info(folder)
    except UserError:
        return None


def load_split(info: DatasetInfo, which: Literal["train", "test"]) -> Split:
    """Memory-map one split; takes a few milliseconds for any size.

    Raises:
        UserError: the file does not match its record, or the dataset stores paths instead of pixels.
    """
    import pyarrow as pa

    if info.name == "image_folder":
        raise UserError(f"{info.label} has no cached pixels: its images are decoded during training")
    file = info.path / f"{which}.arrow"
    count = info.train_images if which == "train" else info.test_images
    try:
        with file.open("rb") as opened:
            # Copy-on-write: PyTorch warns about tensors in read-only memory, and the file must not change.
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        whole = pa.py_buffer(mapped)
        batch = pa.ipc.open_file(pa.BufferReader(whole)).get_batch(0)
        batch.validate()
        images, labels = batch.column("image"), batch.column("label")
        if tuple(images.type.shape) != info.image_shape or len(images) != count or len(labels) != count:
            raise ValueError(f"expected {count} images of shape {info.image_shape}")  # noqa: TRY301

        def as_array(buffer: pa.Buffer, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
            offset = buffer.address - whole.address
            flat: NDArray[Any] = np.frombuffer(mapped, dtype, count=int(np.prod(shape)), offset=offset)
            return flat.reshape(shape)

        return Split(
            images=as_array(images.storage.values.buffers()[1], np.uint8, (count, *info.image_shape)),
            labels=as_array(labels.buffers()[1], np.int64, (count,)),
        )
    except (OSError, ValueError, KeyError, AttributeError, pa.ArrowException) as error:
        raise UserError(
            f"{file}: the cached data is damaged ({error}); delete {info.path} and run again to rebuild it"
        ) from error


def _slug(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", label)


def _index_file(cache_dir: Path, source: DatasetSource) -> Path:
    return cache_dir / "index" / f"{hashlib.sha256(source.key.encode()).hexdigest()[:24]}.json"


def _move_into_place(temporary: Path, folder: Path) -> None:
    if folder.exists():
        if _open_if_sound(folder):
            return  # the same content, cached from another source or by another process
        shutil.rmtree(folder)  # an older version, or damaged
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.exists():  # otherwise another process cached the same data in the meantime
            raise
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
