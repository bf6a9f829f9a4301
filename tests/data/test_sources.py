"""The contract of every file layout: equal images, converted once, refused when damaged."""

import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from platform.common.errors import UserError
from platform.data.catalog import load_split, prepare_dataset
from platform.data.config import DataConfig
from platform.data.dataset import CIFAR10_CLASSES
from platform.data.formats import archive
from tests.data.examples import (
    TEST,
    TRAIN,
    accept_checksums,
    encode,
    make_archive,
    make_batches,
    make_converted,
    make_parquet,
    make_tree,
    write_parquet,
)

LAYOUTS = {
    "parquet": make_parquet,
    "parquet in shards": partial(make_parquet, shards=3),
    "parquet, column image": partial(make_parquet, column="image"),
    "parquet of BMP": partial(make_parquet, file_format="BMP"),
    "converted parquet": make_converted,
    "converted parquet, by file": lambda root: make_converted(root) / "plain_text" / "train" / "0000.parquet",
    "python folder": make_batches,
    "python archive": make_archive,
    "tree": make_tree,
    "tree with val": partial(make_tree, test="val"),
}


@pytest.fixture(params=LAYOUTS)
def layout(request, tmp_path: Path, monkeypatch, tiny) -> Path:
    path = LAYOUTS[request.param](tmp_path / "source")
    if request.param.startswith("python"):
        folder = tmp_path / "source" / archive.FOLDER
        if path.is_file():
            folder = tmp_path / "source" / "extracted" / archive.FOLDER
        accept_checksums(monkeypatch, folder, path if path.is_file() else None)
    return path


def in_canonical_order(images: np.ndarray, labels: np.ndarray) -> list[tuple[int, bytes]]:
    return sorted((int(label), image.tobytes()) for image, label in zip(images, labels, strict=True))


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_every_layout_gives_the_same_images(layout: Path, tmp_path: Path) -> None:
    info = prepare_dataset(DataConfig(), data_dir=layout, cache_dir=tmp_path / "cache")
    assert (info.name, info.label, info.class_names) == ("cifar10", "cifar10", CIFAR10_CLASSES)
    assert (info.train_images, info.test_images, info.image_shape) == (60, 20, (3, 32, 32))
    for which, expected in (("train", TRAIN), ("test", TEST)):
        got = load_split(info, which)
        assert in_canonical_order(got.images, got.labels) == in_canonical_order(
            expected.images, expected.labels
        )


def test_the_second_call_reads_only_the_cache(layout: Path, tmp_path: Path) -> None:
    messages: list[str] = []
    first = prepare_dataset(
        DataConfig(), data_dir=layout, cache_dir=tmp_path / "cache", progress=messages.append
    )
    assert messages
    messages.clear()
    second = prepare_dataset(
        DataConfig(), data_dir=layout, cache_dir=tmp_path / "cache", progress=messages.append
    )
    assert (second, messages) == (first, [])


def test_a_changed_file_is_read_again(layout: Path, tmp_path: Path) -> None:
    prepare_dataset(DataConfig(), data_dir=layout, cache_dir=tmp_path / "cache")
    before = files_in(tmp_path / "cache")
    changed = max(files_in(layout) if layout.is_dir() else [layout], key=lambda file: file.stat().st_size)
    changed.write_bytes(changed.read_bytes()[:-40])
    with pytest.raises(UserError, match=changed.name):
        prepare_dataset(DataConfig(), data_dir=layout, cache_dir=tmp_path / "cache")
    assert files_in(tmp_path / "cache") == before


def test_layouts_with_equal_image_order_share_a_cached_copy(tmp_path: Path, tiny, monkeypatch) -> None:
    batches = make_batches(tmp_path / "batches")
    accept_checksums(monkeypatch, batches / archive.FOLDER)
    places = [batches, make_parquet(tmp_path / "parquet"), make_parquet(tmp_path / "shards", shards=2)]
    infos = {prepare_dataset(DataConfig(), data_dir=path, cache_dir=tmp_path / "cache") for path in places}
    assert len(infos) == 1
    assert len(list((tmp_path / "cache" / "datasets").iterdir())) == 1


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_the_label_contains_the_jpeg_quality(tmp_path: Path, tiny, quality: int) -> None:
    path = make_parquet(tmp_path / "source", file_format="JPEG", quality=quality)
    info = prepare_dataset(DataConfig(), data_dir=path, cache_dir=tmp_path / "cache")
    assert info.label == f"cifar10-jpeg{quality}"


def damaged(tmp_path: Path, *, image: bytes | None = None, label: int | None = None) -> Path:
    """Write a Parquet copy with an invalid image or label in row 41 of the training file."""
    path = make_parquet(tmp_path / "source")
    images = [encode(pixels) for pixels in TRAIN.images]
    labels = TRAIN.labels.tolist()
    images[41] = image if label is None else images[41]
    labels[41] = label if label is not None else labels[41]
    write_parquet(path / "train-00000-of-00001.parquet", images, labels)
    return path


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image": encode(TRAIN.images[0])[:900]}, "row 41 is a truncated or damaged image"),
        ({"image": b"hello, this is text"}, "row 41 is not an image: it looks like a text file"),
        ({"image": None}, "row 41: images must be embedded as bytes, got NoneType"),
        ({"image": encode(TRAIN.images[0][:, :31])}, "row 41: the image must have 32x32 pixels, got 32x31"),
        ({"label": 10}, "row 41: the label must be in 0..9, got 10"),
        ({"label": -1}, "row 41: the label must be in 0..9, got -1"),
    ],
)
def test_a_damaged_row_is_refused_by_number(tmp_path: Path, tiny, wrong: dict, message: str) -> None:
    path = damaged(tmp_path, **wrong)
    with pytest.raises(UserError, match=rf"train-00000-of-00001\.parquet: {message}"):
        prepare_dataset(DataConfig(), data_dir=path, cache_dir=tmp_path / "cache")
    assert not files_in(tmp_path / "cache")


def test_damaged_parquet_pages_are_refused_by_row(tmp_path: Path, tiny) -> None:
    path = make_parquet(tmp_path / "source")
    file = path / "train-00000-of-00001.parquet"
    content = bytearray(file.read_bytes())
    # Damage the pages of the second row group but not the footer: only reading the rows detects it.
    start = pq.ParquetFile(file).metadata.row_group(1).column(0).data_page_offset
    content[start : start + 60] = bytes(60)
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"train-.*: cannot read the rows from 25"):
        prepare_dataset(DataConfig(), data_dir=path, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("member", "edition"),
    [
        ("cifar-10-batches-bin/data_batch_1.bin", "the binary edition of CIFAR-10"),
        ("cifar-10-batches-mat/data_batch_1.mat", "the MATLAB edition of CIFAR-10"),
        ("cifar-100-python/train", "CIFAR-100"),
    ],
)
def test_another_edition_is_named(tmp_path: Path, member: str, edition: str) -> None:
    (tmp_path / "content").write_bytes(b"x")
    file = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(file, "w:gz") as opened:
        opened.add(tmp_path / "content", arcname=member)
    with pytest.raises(UserError, match=f"is {edition}; the Python edition of CIFAR-10 is needed"):
        prepare_dataset(DataConfig(), data_dir=file, cache_dir=tmp_path / "cache")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"the MD5 must be|is the|is CIFAR-100"):
        prepare_dataset(DataConfig(), data_dir=file, cache_dir=tmp_path / "cache")


def test_a_missing_shard_is_reported_by_name(tmp_path: Path, tiny) -> None:
    path = make_parquet(tmp_path / "source", shards=3)
    (path / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(UserError, match="missing: train-00001-of-00003"):
        prepare_dataset(DataConfig(), data_dir=path, cache_dir=tmp_path / "cache")


def test_a_missing_test_file_is_reported(tmp_path: Path, tiny) -> None:
    path = make_parquet(tmp_path / "source")
    (path / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(UserError, match=r"test-\*\.parquet is missing"):
        prepare_dataset(DataConfig(), data_dir=path, cache_dir=tmp_path / "cache")


def test_a_parquet_file_without_labels_is_refused(tmp_path: Path, tiny) -> None:
    path = make_parquet(tmp_path / "source")
    file = path / "test-00000-of-00001.parquet"
    pq.write_table(pq.read_table(file).drop_columns("label"), file)
    with pytest.raises(UserError, match=r"test-.*: a column named label or .* is needed; got img"):
        prepare_dataset(DataConfig(), data_dir=path, cache_dir=tmp_path / "cache")


def test_an_incomplete_copy_is_refused(tmp_path: Path) -> None:
    path = make_parquet(tmp_path / "source")
    with pytest.raises(UserError, match="CIFAR-10 has 50,000 training and 10,000 test images, got 60 and 20"):
        prepare_dataset(DataConfig(), data_dir=path, cache_dir=tmp_path / "cache")
    assert not files_in(tmp_path / "cache")


def test_a_missing_batch_file_is_reported_by_name(tmp_path: Path, tiny, monkeypatch) -> None:
    path = make_batches(tmp_path / "source")
    accept_checksums(monkeypatch, path / archive.FOLDER)
    (path / archive.FOLDER / "data_batch_3").unlink()
    with pytest.raises(UserError, match="data_batch_3"):
        prepare_dataset(DataConfig(), data_dir=path, cache_dir=tmp_path / "cache")
