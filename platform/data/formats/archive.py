"""The original CIFAR-10 files: `cifar-10-python.tar.gz`, or the extracted folder `cifar-10-batches-py`."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from platform.common.errors import UserError
from platform.data.dataset import DatasetSource, Notify, RawDataset, Split, files_fingerprint

ARCHIVE = "cifar-10-python.tar.gz"
FOLDER = "cifar-10-batches-py"
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
# The checksums of torchvision.datasets.CIFAR10; importing it would take seconds.
TRAIN_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
}
TEST_MD5 = {"test_batch": "40351d587109b95175f43aff81a1287e"}
META_MD5 = {"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"}


def find_archive(path: Path) -> DatasetSource | None:
    """Return the archive or the extracted folder at or in `path`, or None."""
    if path.is_file():
        return archive_source(path) if path.name.endswith((".tar.gz", ".tgz")) else None
    for folder in (path, path / FOLDER):
        files = [folder / name for name in (*TRAIN_MD5, *TEST_MD5, *META_MD5)]
        present = [file for file in files if file.is_file()]
        if present:
            return DatasetSource(
                key=f"cifar10-batches:{folder.absolute()}",
                fingerprint=files_fingerprint(present),
                read=partial(read_extracted_folder, folder),
            )
    return archive_source(path / ARCHIVE) if (path / ARCHIVE).is_file() else None


def archive_source(file: Path) -> DatasetSource:
    """Return the archive `file` as a source."""
    return DatasetSource(
        key=f"cifar10-archive:{file.absolute()}",
        fingerprint=files_fingerprint([file]),
        read=partial(read_archive, file),
    )


def read_extracted_folder(folder: Path, notify: Notify) -> RawDataset:
    """Read the extracted folder.

    Raises:
        UserError: a file is missing or its checksum is wrong.
    """
    notify(f"reading {folder}")

    def content(name: str) -> bytes:
        try:
            return (folder / name).read_bytes()
        except OSError as error:
            raise UserError(
                f"{folder / name}: the CIFAR-10 folder must contain this file ({error.strerror}); "
                f"extract {ARCHIVE} again"
            ) from None

    return _read_batches(content, str(folder), f"extract {ARCHIVE} again")


def read_archive(file: Path, notify: Notify) -> RawDataset:
    """Read the archive, without extracting it to disk.

    Raises:
        UserError: the checksum is wrong.
    """
    notify(f"checking and reading {file}")
    remedy = "the file is damaged or incomplete: delete it and download it again"
    with file.open("rb") as opened:
        got = hashlib.file_digest(opened, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
    if got != ARCHIVE_MD5:
        if edition := _other_edition(file):
            raise UserError(f"{file} is {edition}; the Python edition of CIFAR-10 is needed: {ARCHIVE}")
        raise UserError(f"{file}: the MD5 must be {ARCHIVE_MD5}, got {got}; {remedy}")
    with tarfile.open(file, "r:gz") as archive:
        files = {Path(each.name).name: found for each in archive if (found := archive.extractfile(each))}
        return _read_batches(lambda name: files[name].read(), str(file), remedy)


def _other_edition(file: Path) -> str | None:
    """Return what another archive of the authors of CIFAR-10 is; None for any other file."""
    editions = {
        "data_batch_1.bin": "the binary edition of CIFAR-10",
        "data_batch_1.mat": "the MATLAB edition of CIFAR-10",
        **{f"cifar-100-{edition}": "CIFAR-100" for edition in ("python", "binary", "matlab")},
    }
    try:
        with tarfile.open(file, "r:gz") as archive:
            parts = {part for name in archive.getnames() for part in Path(name).parts}
    except (OSError, EOFError, tarfile.TarError, zlib.error):
        return None
    return next((edition for part, edition in editions.items() if part in parts), None)


def _read_batches(content: Callable[[str], bytes], path: str, remedy: str) -> RawDataset:
    def load(name: str, md5: str) -> dict[str, Any]:
        raw = content(name)
        got = hashlib.md5(raw, usedforsecurity=False).hexdigest()
        if got != md5:
            raise UserError(f"{path}: the MD5 of {name} must be {md5}, got {got}; {remedy}")
        return load_plain_pickle(raw, f"{path}: {name}")

    def split(files: dict[str, str]) -> Split:
        batches = [load(name, md5) for name, md5 in files.items()]
        images = np.concatenate([batch["data"] for batch in batches])
        labels = np.concatenate([np.array(batch["labels"], np.int64) for batch in batches])
        return Split(images.reshape(-1, 3, 32, 32), labels)

    ((meta_name, meta_md5),) = META_MD5.items()
    return RawDataset(
        name="cifar10",
        label="cifar10",
        class_names=tuple(load(meta_name, meta_md5)["label_names"]),
        train=split(TRAIN_MD5),
        test=split(TEST_MD5),
    )


def load_plain_pickle(content: bytes, name: str) -> dict[str, Any]:
    """Unpickle a dictionary of plain values and numpy arrays; reject any other object before building it.

    Raises:
        UserError: the pickle is damaged or contains another type.
    """
    try:
        loaded = _PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    except Exception as error:  # a damaged pickle raises almost anything
        raise UserError(f"{name} is damaged ({error!r}); replace the file") from error
    if not isinstance(loaded, dict):
        raise UserError(f"{name} must contain a dictionary, got {type(loaded).__name__}; replace the file")
    return loaded


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler of numpy arrays and built-in types that rejects every other import."""

    # The module's name changed from numpy.core to numpy._core.
    _ALLOWED = {  # noqa: RUF012 - never changed
        ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise UserError(f"unsafe pickle: it imports {module}.{name}, which no CIFAR-10 file does")
        return self._ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> NoReturn:  # noqa: ARG002 - pickle's signature
        raise UserError("unsafe pickle: it refers to external objects, which no CIFAR-10 file does")
