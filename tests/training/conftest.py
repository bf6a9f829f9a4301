"""Fixtures: data and configurations small enough for a training run to take a second."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from platform.data.dataset import DatasetInfo, Split
from platform.data.normalization import compute_normalization
from platform.data.training_data import TrainingData
from platform.training.config import RunConfig


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset cache for the commands, so that images are generated once for all tests here."""
    return tmp_path_factory.mktemp("cache")


def make_split(count: int, *, seed: int, size: int = 32) -> Split:
    """Generate noise images whose class is encoded as the brightness of one corner."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    images = rng.integers(0, 256, (count, 3, size, size)).astype(np.uint8)
    images[:, :, : size // 2, : size // 2] = (labels * 25)[:, None, None, None]
    return Split(images, labels)


@pytest.fixture(scope="session")
def data() -> TrainingData:
    """Return 72 training and 20 validation images."""
    train = make_split(72, seed=1)
    info = DatasetInfo(
        name="generated",
        label="generated",
        sha256="0" * 64,
        class_names=tuple("abcdefghij"),
        train_images=92,
        test_images=0,
        image_shape=(3, 32, 32),
        path=Path("/nowhere"),
    )
    return TrainingData(
        train=train,
        validation=make_split(20, seed=2),
        normalization=compute_normalization(train.images, "channel"),
        info=info,
    )


@pytest.fixture(scope="session")
def config_of() -> Callable[..., RunConfig]:
    """Return a function that builds a configuration of two short epochs with some settings changed."""

    def build(**changes: object) -> RunConfig:
        settings = {
            "model": {"name": "resnet32_cifar"},
            "data": {"name": "generated"},
            "epochs": 2,
            "batch_size": 32,
            "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4},
            "schedule": {"name": "cosine"},
            "augment": {"cutout": {"length": 8}},
            "precision": "fp32",
        }
        if "iterations" in changes:
            del settings["epochs"]
        return RunConfig.model_validate(settings | changes)

    return build


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `fit` train a network of 800 weights with batch normalization instead of a ResNet."""

    def build(_config: object, *, num_classes: int) -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.AvgPool2d(4),
            torch.nn.Flatten(),
            torch.nn.Linear(8 * 16, num_classes),
        )

    monkeypatch.setattr("platform.training.run_result.build_network", build)
