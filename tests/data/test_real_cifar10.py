"""The real CIFAR-10, where CIFAR10_DIR is set."""

import os
from pathlib import Path

import numpy as np
import pytest

from platform.data.catalog import load_split, prepare_dataset
from platform.data.config import DataConfig
from platform.data.training_data import load_training_data

# Read at import, before the fixture unsets it.
CIFAR10_DIR = os.environ.get("CIFAR10_DIR")


@pytest.mark.skipif(not CIFAR10_DIR, reason="CIFAR10_DIR is not set: no real CIFAR-10 to test with")
def test_real_cifar10_is_complete(tmp_path: Path) -> None:
    info = prepare_dataset(DataConfig(), data_dir=Path(str(CIFAR10_DIR)), cache_dir=tmp_path)
    assert (info.train_images, info.test_images) == (50_000, 10_000)
    assert info.label.startswith("cifar10")
    for which, count in (("train", 5000), ("test", 1000)):
        assert np.bincount(load_split(info, which).labels).tolist() == [count] * 10
    data = load_training_data(DataConfig(), info)
    # The usual constants for CIFAR-10, computed on all 50,000 lossless images.
    np.testing.assert_allclose(data.normalization.mean, [0.4914, 0.4822, 0.4465], atol=0.002)
    np.testing.assert_allclose(data.normalization.std, [0.2470, 0.2435, 0.2616], atol=0.003)
