"""The dataset cache: complete, verified and immutable."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from platform.common.errors import UserError
from platform.data import cache
from platform.data.cache import load_split, open_info
from platform.data.dataset import DatasetInfo, DatasetSource, RawDataset, ignore_message
from tests.data.examples import TEST, TRAIN, split

DATASET = RawDataset(
    name="folder", label="folder:a b", class_names=tuple("abcdefghij"), train=TRAIN, test=TEST
)
SOURCE = DatasetSource(key="here", fingerprint="1", read=lambda _: DATASET)


@pytest.fixture
def stored(tmp_path: Path) -> DatasetInfo:
    return cache.store_dataset(tmp_path, SOURCE, SOURCE.read(ignore_message))


def test_a_stored_dataset_loads_unchanged(stored: DatasetInfo) -> None:
    for which, expected in (("train", TRAIN), ("test", TEST)):
        got = load_split(open_info(stored.path), which)
        np.testing.assert_array_equal(got.images, expected.images)
        np.testing.assert_array_equal(got.labels, expected.labels)
        assert (got.images.dtype, got.labels.dtype) == (np.uint8, np.int64)


def test_writing_to_a_split_never_reaches_the_file(stored: DatasetInfo) -> None:
    load_split(stored, "train").images[:] = 0
    np.testing.assert_array_equal(load_split(stored, "train").images, TRAIN.images)


def test_the_hash_depends_on_pixels_labels_and_names() -> None:
    first_swapped = np.array([1, 0, *range(2, 60)])
    other_labels = type(TRAIN)(TRAIN.images, TRAIN.labels[first_swapped])
    variants = [
        DATASET,
        RawDataset(name="", label="", class_names=DATASET.class_names, train=split(60, 3), test=TEST),
        RawDataset(name="", label="", class_names=DATASET.class_names, train=other_labels, test=TEST),
        RawDataset(name="", label="", class_names=tuple("ABCDEFGHIJ"), train=TRAIN, test=TEST),
    ]
    assert len({cache.content_hash(variant) for variant in variants}) == 4


def test_a_cached_dataset_is_found_until_its_source_changes(tmp_path: Path, stored: DatasetInfo) -> None:
    assert cache.find_cached(tmp_path, SOURCE) == stored
    changed = DatasetSource(key=SOURCE.key, fingerprint="2", read=SOURCE.read)
    assert cache.find_cached(tmp_path, changed) is None


@pytest.mark.parametrize("file", ["train.arrow", "test.arrow", "dataset.json"])
def test_a_truncated_file_is_refused_and_replaced(tmp_path: Path, stored: DatasetInfo, file: str) -> None:
    content = (stored.path / file).read_bytes()
    (stored.path / file).write_bytes(content[:-10])
    with pytest.raises(UserError, match="delete that folder"):
        open_info(stored.path)
    assert cache.find_cached(tmp_path, SOURCE) is None
    assert cache.store_dataset(tmp_path, SOURCE, DATASET) == stored
    assert (stored.path / file).read_bytes() == content


def test_another_schema_version_is_refused(stored: DatasetInfo) -> None:
    file = stored.path / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": 99}))
    with pytest.raises(UserError, match="schema version 99"):
        open_info(stored.path)


def test_a_foreign_arrow_file_is_refused(stored: DatasetInfo) -> None:
    file = stored.path / "train.arrow"
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(UserError, match="damaged"):
        load_split(stored, "train")


def test_an_index_entry_cannot_point_outside_the_cache(tmp_path: Path, stored: DatasetInfo) -> None:
    outside = tmp_path / "outside"
    stored.path.rename(outside)
    (entry,) = (tmp_path / "index").iterdir()
    entry.write_text(json.dumps({**json.loads(entry.read_text()), "folder": str(outside)}))
    assert cache.find_cached(tmp_path, SOURCE) is None


def test_partial_folders_are_removed_after_a_day(tmp_path: Path) -> None:
    parent = tmp_path / "datasets"
    old, young = parent / ".partial-old", parent / ".partial-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(old, (two_days_ago, two_days_ago))
    cache.store_dataset(tmp_path, SOURCE, DATASET)
    assert not old.exists()
    assert young.exists()


def test_an_interruption_leaves_no_files(tmp_path: Path, monkeypatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "write_json", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.store_dataset(tmp_path, SOURCE, DATASET)
    assert not list((tmp_path / "datasets").iterdir())
