"""Image folders: listing, caching, splits and statistics."""

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from platform.common.errors import UsageError, UserError
from platform.data.catalog import load_split, open_info, prepare_dataset
from platform.data.config import DataConfig
from platform.data.image_folders import evaluation_side, load_image_folder_split
from platform.data.images import statistics
from platform.data.images.cropping import resize_and_center_crop
from platform.data.training_data import load_training_data

CONFIG = DataConfig(name="image_folder", normalization="pixel", validation_size=4, image_size=28)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    draws = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        for number, name in enumerate(("cat", "dog")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                shape = (int(draws.integers(30, 60)), int(draws.integers(30, 60)), 3)
                pixels = draws.integers(0, 128, shape) + 100 * number
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    return tmp_path / "photos"


def test_image_files_are_listed_once_and_then_cached(root: Path, tmp_path: Path) -> None:
    said: list[str] = []
    info = prepare_dataset(CONFIG, data_dir=root, cache_dir=tmp_path / "cache", progress=said.append)
    assert prepare_dataset(CONFIG, data_dir=root, cache_dir=tmp_path / "cache", progress=said.append) == info
    assert len(said) == 1
    assert open_info(info.path) == info
    assert (info.name, info.label, info.class_names) == (
        "image_folder",
        "image_folder:photos",
        ("cat", "dog"),
    )
    assert (info.train_images, info.test_images, info.image_shape) == (16, 6, (3, 28, 28))
    test = load_image_folder_split(info, "test")
    assert [Path(file).parent.name for file in test.files] == ["cat"] * 3 + ["dog"] * 3
    assert test.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_another_size_or_another_file_gives_another_cached_dataset(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    info = prepare_dataset(CONFIG, data_dir=root, cache_dir=cache)
    larger = prepare_dataset(DataConfig(name="image_folder"), data_dir=root, cache_dir=cache)
    assert larger.image_shape == (3, 224, 224)
    assert larger.path != info.path
    (root / "train" / "dog" / "0.png").unlink()
    fewer = prepare_dataset(CONFIG, data_dir=root, cache_dir=cache)
    assert (fewer.train_images, fewer.sha256 != info.sha256) == (15, True)


def test_statistics_of_the_training_part_are_computed_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = prepare_dataset(CONFIG, data_dir=root, cache_dir=tmp_path / "cache")
    data = load_training_data(CONFIG, info)
    assert data.validation is not None
    assert (len(data.train), len(data.validation)) == (12, 4)
    assert not set(data.train.files) & set(data.validation.files)
    assert evaluation_side(28) == 32
    seen = np.stack(
        [
            resize_and_center_crop(np.asarray(Image.open(file)), shorter_side=32, size=28).transpose(2, 0, 1)
            / 255
            for file in data.train.files
        ]
    )
    np.testing.assert_allclose(data.normalization.mean, seen.mean(axis=0), atol=1e-6)
    spread = np.sqrt(((seen - seen.mean(axis=0)) ** 2).mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(data.normalization.std, spread, rtol=1e-5)

    colors = seen.transpose(1, 0, 2, 3).reshape(3, -1)
    values, vectors = np.linalg.eigh(np.cov(colors, bias=True))
    lengths = np.linalg.norm(data.color_axes, axis=1)
    np.testing.assert_allclose(lengths, values[::-1], rtol=1e-4)
    np.testing.assert_allclose(np.abs(data.color_axes[0] / lengths[0]), np.abs(vectors[:, 2]), atol=1e-4)

    monkeypatch.setattr(statistics, "compute_statistics", None)
    again = load_training_data(CONFIG, info)
    np.testing.assert_array_equal(again.normalization.mean, data.normalization.mean)
    by_color = load_training_data(CONFIG.model_copy(update={"normalization": "channel"}), info).normalization
    np.testing.assert_allclose(by_color.mean, seen.mean(axis=(0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(by_color.std, seen.std(axis=(0, 2, 3)), rtol=1e-5)


def test_the_final_run_has_all_images(root: Path, tmp_path: Path) -> None:
    info = prepare_dataset(CONFIG, data_dir=root, cache_dir=tmp_path / "cache")
    data = load_training_data(CONFIG, info, final=True)
    assert (len(data.train), data.validation) == (16, None)


def test_a_damaged_image_is_refused_by_name(root: Path, tmp_path: Path) -> None:
    for file in (root / "train" / "cat").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    info = prepare_dataset(CONFIG, data_dir=root, cache_dir=tmp_path / "cache")
    with pytest.raises(UserError, match=r"cat/\d.png is a truncated or damaged image"):
        load_training_data(CONFIG, info)
    assert not list(info.path.glob("statistics-*"))


def test_a_path_that_is_no_image_folder_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give --data-dir ROOT"):
        prepare_dataset(CONFIG, cache_dir=tmp_path / "cache")
    for wrong in (root / "train", tmp_path / "nowhere"):
        with pytest.raises(UserError, match="is not an image folder"):
            prepare_dataset(CONFIG, data_dir=wrong, cache_dir=tmp_path / "cache")


def test_files_that_are_left_out_are_counted_and_named(root: Path, tmp_path: Path) -> None:
    cat = root / "train" / "cat"
    for name in ("a.jfif", "b.jpe"):
        (cat / name).write_bytes((cat / "0.png").read_bytes())
    (cat / "notes.txt").touch()
    (cat / ".DS_Store").touch()
    (cat / "more").mkdir()
    (cat / "more" / "c.png").touch()
    os.mkfifo(cat / "pipe.png")
    messages: list[str] = []
    prepared = partial(prepare_dataset, CONFIG, data_dir=root, cache_dir=tmp_path / "cache")
    assert prepared(progress=messages.append).train_images == 18
    (message,) = [message for message in messages if "left out" in message]
    assert message.startswith("left out 3 files (only files directly in a class folder count, named *.png, ")
    assert message.endswith(f"): {cat}/more/c.png, {cat}/notes.txt, {cat}/pipe.png")


def test_a_file_name_that_is_not_utf8_is_refused(root: Path, tmp_path: Path) -> None:
    (root / "train" / "cat" / os.fsdecode(b"\xff.png")).touch()
    with pytest.raises(UsageError, match=r"names must be UTF-8 text, got .*udcff.png'; rename"):
        prepare_dataset(CONFIG, data_dir=root, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("name", ["folder", "image_folder"])
def test_a_single_class_is_refused(
    root: Path, tmp_path: Path, name: Literal["folder", "image_folder"]
) -> None:
    for split in ("train", "val"):
        shutil.rmtree(root / split / "dog")
    with pytest.raises(UserError, match="at least two classes are needed, got only cat"):
        prepare_dataset(DataConfig(name=name), data_dir=root, cache_dir=tmp_path / "cache")


def test_loading_pixels_of_image_files_is_refused(root: Path, tmp_path: Path) -> None:
    info = prepare_dataset(CONFIG, data_dir=root, cache_dir=tmp_path / "cache")
    with pytest.raises(UserError, match="decoded during training"):
        load_split(info, "test")


def test_a_damaged_list_is_refused(root: Path, tmp_path: Path) -> None:
    info = prepare_dataset(CONFIG, data_dir=root, cache_dir=tmp_path / "cache")
    (info.path / "train.arrow").write_bytes(b"hello")
    with pytest.raises(UserError, match="damaged"):
        load_image_folder_split(info, "train")
