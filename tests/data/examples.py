"""Generate tiny copies of CIFAR-10 in every layout: 60 training and 20 test images."""

import hashlib
import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from platform.data.dataset import CIFAR10_CLASSES, Split
from platform.data.formats import archive

Maker = Callable[..., Path]


def split(count: int, seed: int) -> Split:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    return Split(pixels, np.arange(count, dtype=np.int64) % 10)


TRAIN, TEST = split(60, 1), split(20, 2)


def encode(pixels: np.ndarray, file_format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(stream, file_format, **options)
    return stream.getvalue()


def write_parquet(file: Path, images: list[bytes | None], labels: list[int], *, column: str = "img") -> None:
    structs = [{"bytes": content, "path": None} for content in images]
    features = {
        column: {"_type": "Image"},
        "label": {"names": list(CIFAR10_CLASSES), "_type": "ClassLabel"},
    }
    table = pa.table(
        {
            column: pa.array(structs, pa.struct({"bytes": pa.binary(), "path": pa.string()})),
            "label": pa.array(labels, pa.int64()),
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, file, row_group_size=25)


def make_parquet(
    root: Path, *, shards: int = 1, column: str = "img", file_format: str = "PNG", **options
) -> Path:
    root.mkdir()
    for name, data in (("train", TRAIN), ("test", TEST)):
        for shard, rows in enumerate(np.array_split(np.arange(len(data)), shards)):
            write_parquet(
                root / f"{name}-{shard:05d}-of-{shards:05d}.parquet",
                [encode(image, file_format, **options) for image in data.images[rows]],
                data.labels[rows].tolist(),
                column=column,
            )
    return root


def make_converted(root: Path, *, config: str = "plain_text") -> Path:
    """Write the Parquet files as in the branch refs/convert/parquet of a dataset on Hugging Face."""
    flat = make_parquet(root.with_name("flat"))
    for name in ("train", "test"):
        folder = root / config / name
        folder.mkdir(parents=True)
        (flat / f"{name}-00000-of-00001.parquet").rename(folder / "0000.parquet")
    return root


def make_batches(root: Path) -> Path:
    """Write the extracted folder of the Python archive; `accept_checksums` accepts its checksums."""
    folder = root / archive.FOLDER
    folder.mkdir(parents=True)
    parts = {f"data_batch_{i + 1}": TRAIN.take(np.arange(12 * i, 12 * i + 12)) for i in range(5)}
    for name, data in {**parts, "test_batch": TEST}.items():
        batch = {"data": data.images.reshape(len(data), -1), "labels": data.labels.tolist(), "filenames": []}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=4))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CIFAR10_CLASSES)}, protocol=2))
    return root


def make_archive(root: Path) -> Path:
    folder = make_batches(root / "extracted") / archive.FOLDER
    with tarfile.open(root / archive.ARCHIVE, "w:gz") as opened:
        opened.add(folder, arcname=archive.FOLDER)
    return root / archive.ARCHIVE


def make_tree(root: Path, *, test: str = "test", file_format: str = "PNG") -> Path:
    for name, data in (("train", TRAIN), (test, TEST)):
        for number, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
            folder = root / name / CIFAR10_CLASSES[label]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:05d}.{file_format.lower()}").write_bytes(encode(image, file_format))
    return root


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


def accept_checksums(monkeypatch: pytest.MonkeyPatch, folder: Path, file: Path | None = None) -> None:
    """Set the expected checksums to those of the files in `folder` and of the archive `file`."""
    for name in ("TRAIN_MD5", "TEST_MD5", "META_MD5"):
        monkeypatch.setattr(archive, name, {key: md5(folder / key) for key in getattr(archive, name)})
    if file is not None:
        monkeypatch.setattr(archive, "ARCHIVE_MD5", md5(file))
