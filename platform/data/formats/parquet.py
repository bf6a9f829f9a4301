"""Parquet files with encoded images, in the layout of Hugging Face datasets.

`train-*.parquet` and `test-*.parquet`, or `train/*.parquet` and `test/*.parquet`, in one or more shards, with
an image column (`img` or `image`, `struct<bytes, path>` or plain bytes) and an integer column `label`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from platform.common.errors import UserError
from platform.data.dataset import (
    CIFAR10_CLASSES,
    DatasetSource,
    Labels,
    Notify,
    RawDataset,
    Split,
    files_fingerprint,
)
from platform.data.images.parallel_decode import decode_all, lossy_suffix

_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("label", "labels", "fine_label")
_REMEDY = "the file is damaged or incomplete: replace it"


def find_parquet(path: Path) -> DatasetSource | None:
    """Return the Parquet files at or in `path` (or its `data` or `plain_text` folder), or None.

    The shards may also lie in the folders `train` and `test`, as in the branch of converted files.
    """
    if path.is_file():
        folder = path.parent.parent if path.parent.name in ("train", "test") else path.parent
        return find_parquet(folder) if path.suffix == ".parquet" else None
    for folder in (path, path / "plain_text", path / "data", path / "default"):
        train, test = (_shards(folder, split) for split in ("train", "test"))
        if train or test:
            return DatasetSource(
                key=f"parquet:{folder.absolute()}",
                fingerprint=files_fingerprint([*train, *test]),
                read=partial(read_parquet, folder, train, test),
            )
    return None


def _shards(folder: Path, split: str) -> list[Path]:
    found = (*folder.glob(f"{split}*.parquet"), *folder.glob(f"{split}/*.parquet"))
    return sorted(file for file in found if file.is_file())


def read_parquet(folder: Path, train: Sequence[Path], test: Sequence[Path], notify: Notify) -> RawDataset:
    """Decode all images of both splits on all cores.

    Raises:
        UserError: a file, shard or column is missing, a file is truncated, an image cannot be decoded, or a
            label is out of range; the message names the file and the row.
    """
    for split, files in (("train", train), ("test", test)):
        _check_shards(folder, split, files)
    opened = {file: _open(file) for file in (*train, *test)}
    names = _class_names(opened[train[0]].schema_arrow.metadata or {}) or CIFAR10_CLASSES
    encodings: Counter[str] = Counter()
    splits = {}
    for split, files in (("train", train), ("test", test)):
        count = sum(opened[file].metadata.num_rows for file in files)
        notify(f"decoding {count:,} {split} images in {folder}")
        labels: list[Labels] = []
        rows = _rows([(file, opened[file]) for file in files], len(names), labels)
        images = decode_all(rows, count, size=32, encodings=encodings)
        splits[split] = Split(images, np.concatenate(labels))
    return RawDataset(name="cifar10", label=f"cifar10{lossy_suffix(encodings)}", class_names=names, **splits)


def _check_shards(folder: Path, split: str, files: Sequence[Path]) -> None:
    if not files:
        raise UserError(
            f"{folder}: train-*.parquet and test-*.parquet are needed; {split}-*.parquet is missing"
        )
    numbered = [re.search(r"-(\d+)-of-(\d+)\.parquet$", file.name) for file in files]
    if all(numbered):
        have = {int(match[1]) for match in numbered if match}
        total = {int(match[2]) for match in numbered if match}
        missing = sorted(set(range(max(total))) - have)
        if len(total) > 1 or missing:
            lacking = ", ".join(f"{split}-{number:05d}-of-{max(total):05d}" for number in missing[:5])
            raise UserError(
                f"{folder}: {split}-*.parquet must be one complete set of shards; "
                f"{f'missing: {lacking}' if missing else f'got sets of {sorted(total)} shards'}"
            )


def _open(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        opened = pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file}: cannot be read as Parquet ({_first_line(error)}); {_REMEDY}") from error
    columns = opened.schema_arrow.names
    for wanted in (_IMAGE_COLUMNS, _LABEL_COLUMNS):
        if not set(wanted) & set(columns):
            raise UserError(
                f"{file}: a column named {' or '.join(wanted)} is needed; got {', '.join(columns)}"
            )
    if opened.metadata.num_rows == 0:
        raise UserError(f"{file}: the file has no rows; {_REMEDY}")
    return opened


def _rows(
    files: Sequence[tuple[Path, Any]], classes: int, labels: list[Labels]
) -> Iterator[tuple[str, bytes]]:
    """Yield (row name for messages, encoded image); append the labels of each row group to `labels`."""
    import pyarrow as pa

    for file, opened in files:
        image_column = next(name for name in _IMAGE_COLUMNS if name in opened.schema_arrow.names)
        label_column = next(name for name in _LABEL_COLUMNS if name in opened.schema_arrow.names)
        row = 0
        for group in range(opened.num_row_groups):
            try:
                table = opened.read_row_group(group, columns=[image_column, label_column])
                images = table.column(image_column).combine_chunks()
                if pa.types.is_struct(images.type):
                    # `flatten`, unlike `field`, keeps the nulls of the struct.
                    images = images.flatten()[images.type.get_field_index("bytes")]
                encoded = images.to_pylist()
                got = table.column(label_column).to_pylist()
            except (OSError, IndexError, pa.ArrowException) as error:
                raise UserError(
                    f"{file}: cannot read the rows from {row} ({_first_line(error)}); {_REMEDY}"
                ) from error
            for offset, label in enumerate(got):
                if not isinstance(label, int) or not 0 <= label < classes:
                    raise UserError(
                        f"{file}: row {row + offset}: the label must be in 0..{classes - 1}, "
                        f"got {label!r}; {_REMEDY}"
                    )
            labels.append(np.array(got, np.int64))
            for offset, content in enumerate(encoded):
                if not isinstance(content, bytes):
                    raise UserError(
                        f"{file}: row {row + offset}: images must be embedded as bytes, "
                        f"got {type(content).__name__}"
                    )
                yield f"{file}: row {row + offset}", content
            row += len(got)


def _class_names(metadata: dict[bytes, bytes]) -> tuple[str, ...]:
    """Return the class names in the `huggingface` schema metadata; empty without them."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        label = next(features[name] for name in _LABEL_COLUMNS if name in features)
        return tuple(str(name) for name in label["names"])
    except (KeyError, ValueError, TypeError, StopIteration):
        return ()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
