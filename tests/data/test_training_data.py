"""Normalization and the data of a training run."""

from pathlib import Path

import numpy as np
import pytest

from platform.data import cache
from platform.data.config import DataConfig
from platform.data.dataset import DatasetInfo, DatasetSource, RawDataset
from platform.data.normalization import compute_normalization
from platform.data.training_data import load_training_data
from tests.data.examples import TEST, split

TRAIN = split(2500, 7)  # more than two chunks of `compute_normalization`


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> DatasetInfo:
    dataset = RawDataset(
        name="folder", label="folder:x", class_names=tuple("abcdefghij"), train=TRAIN, test=TEST
    )
    source = DatasetSource(key="x", fingerprint="", read=lambda _: dataset)
    folder: Path = tmp_path_factory.mktemp("cache")
    return cache.store_dataset(folder, source, dataset)


def test_channel_normalization_is_mean_and_deviation() -> None:
    got = compute_normalization(TRAIN.images, "channel")
    scaled = TRAIN.images / 255
    np.testing.assert_allclose(got.mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(got.std, scaled.std(axis=(0, 2, 3)), rtol=1e-6)
    assert (got.mean.dtype, got.std.dtype) == (np.float32, np.float32)


def test_pixel_normalization_is_mean_image_and_deviation_from_it() -> None:
    images = TRAIN.images.copy()
    images[:, :, :16] //= 4  # a mean image that is not constant
    got = compute_normalization(images, "pixel")
    scaled = images / 255
    np.testing.assert_allclose(got.mean, scaled.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(got.std, (scaled - scaled.mean(axis=0)).std(axis=(0, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize("kind", ["channel", "pixel"])
def test_a_constant_channel_has_a_deviation_of_one(kind) -> None:
    got = compute_normalization(np.full((5, 3, 4, 4), 17, np.uint8), kind)
    np.testing.assert_array_equal(got.std, [1, 1, 1])


def test_training_and_validation_parts(info: DatasetInfo) -> None:
    data = load_training_data(DataConfig(validation_size=500), info)
    assert data.validation is not None
    assert (len(data.train), len(data.validation)) == (2000, 500)
    both = np.concatenate([data.train.images, data.validation.images])
    assert {image.tobytes() for image in both} == {image.tobytes() for image in TRAIN.images}
    np.testing.assert_array_equal(
        data.normalization.mean, compute_normalization(data.train.images, "channel").mean
    )


def test_the_final_run_has_all_images(info: DatasetInfo) -> None:
    data = load_training_data(DataConfig(validation_size=500, normalization="pixel"), info, final=True)
    assert data.validation is None
    np.testing.assert_array_equal(data.train.images, TRAIN.images)
    assert data.normalization.mean.shape == (3, 32, 32)


def test_the_final_run_under_a_limit_has_both_limited_parts(info: DatasetInfo) -> None:
    config = DataConfig(validation_size=500, train_limit=200)
    parts = load_training_data(config, info)
    final = load_training_data(config, info, final=True)
    assert parts.validation is not None
    assert (len(parts.train), len(parts.validation), len(final.train)) == (200, 100, 300)
