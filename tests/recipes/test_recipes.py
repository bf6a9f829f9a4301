"""The recipes: each matches its source, is found by its name, and trains."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from platform.common.errors import UsageError
from platform.data.dataset import CIFAR10_CLASSES, DatasetInfo, Split
from platform.data.normalization import compute_normalization
from platform.data.training_data import TrainingData
from platform.space.space_files import find_spaces, load_run, load_space
from platform.training.distributed import single
from platform.training.inputs.budget import budget_of
from platform.training.loop import fit
from platform.training.schedules import LearningRate

ON_CIFAR10 = [
    "he2016_resnet32",
    "resnet32_modern",
    "resnet18_ddp",
    "resnet18_cutout_plateau",
    "resnet18_cutout",
]


def text_of(name: str) -> str:
    return find_spaces()[name].read_text()


@pytest.fixture
def data() -> TrainingData:
    draws = np.random.default_rng(0)

    def split(count: int) -> Split:
        return Split(draws.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), draws.integers(0, 10, count))

    train = split(48)
    info = DatasetInfo(
        name="cifar10",
        label="noise",
        sha256="0" * 64,
        class_names=CIFAR10_CLASSES,
        train_images=64,
        test_images=0,
        image_shape=(3, 32, 32),
        path=Path("/nowhere"),
    )
    return TrainingData(
        train=train,
        validation=split(16),
        normalization=compute_normalization(train.images, "channel"),
        info=info,
    )


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(_config: object, *, num_classes: int) -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, stride=4, bias=False),
            torch.nn.BatchNorm2d(8),
            torch.nn.Flatten(),
            torch.nn.Linear(8 * 64, num_classes),
        )

    monkeypatch.setattr("platform.training.run_result.build_network", build)
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", ON_CIFAR10)
def test_a_recipe_trains(name: str, data: TrainingData, small_network: None) -> None:
    budget = "iterations=5" if load_run(name).iterations else "epochs=2"
    config = load_run(name, overrides=[f"base.{budget}", "base.batch_size=16", "base.precision=fp32"])
    result = fit(config, data, world=single("cpu"), checkpoint_dir=None)
    assert len(result.epochs) == 2
    assert result.validation_accuracy is not None


@pytest.mark.parametrize("name", [*ON_CIFAR10, "resnet34_imagenet"])
def test_a_recipe_documents_its_command_source_and_target(name: str) -> None:
    text = text_of(name)
    assert f"python -m platform.train {name}" in text
    assert re.search(r"^# Source: .*", text, re.MULTILINE)
    assert re.search(r"^# Target: .*\d", text, re.MULTILINE)


@pytest.mark.parametrize("name", [*ON_CIFAR10, "resnet34_imagenet"])
def test_a_recipe_cannot_be_swept(name: str) -> None:
    with pytest.raises(UsageError, match=f"python -m platform.train {name}"):
        load_space(name)


def test_he2016_matches_the_paper() -> None:
    config = load_run("he2016_resnet32")
    budget = budget_of(config, images=45_000)
    rate = LearningRate(config.schedule, peak=config.optimizer.lr, budget=budget)
    assert budget.total_steps == 64_000
    steps = [0, 31_999, 32_000, 47_999, 48_000, 63_999]
    assert [rate.at(step) for step in steps] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert (config.optimizer.weight_decay, config.batch_size) == (1e-4, 128)
    assert (config.data.normalization, config.data.validation_size) == ("pixel", 5000)
    assert (config.augment.cutout.length, config.augment.mixup, config.label_smoothing) == (0, 0, 0)


def test_the_plateau_recipe_halves_after_ten_epochs() -> None:
    config = load_run("resnet18_cutout_plateau")
    rate = LearningRate(config.schedule, peak=config.optimizer.lr, budget=budget_of(config, images=45_000))
    rates = []
    for _ in range(12):
        rates.append(rate.at(0))
        rate.epoch_ended(2.0)
    # The first epoch sets the best loss; ten epochs without progress lower the rate.
    assert rates == pytest.approx([0.1] * 11 + [0.05])
    assert (config.augment.cutout.holes, config.augment.cutout.length) == (1, 16)


def test_the_settings_in_the_comment_of_he2016_are_valid() -> None:
    (settings,) = re.findall(r"--set (iterations=\S+) '(schedule\S+ \S+)'", text_of("he2016_resnet32"))
    config = load_run("he2016_resnet32", overrides=[f"base.{setting}" for setting in settings])
    assert config.iterations == 6400
    assert config.schedule.milestones == (3200, 4800)


def test_the_settings_in_the_comment_of_the_plateau_recipe_are_valid() -> None:
    (setting,) = re.findall(r"--set '(.*)'", text_of("resnet18_cutout_plateau"))
    assert load_run("resnet18_cutout_plateau", overrides=[f"base.{setting}"]).schedule.name == "cosine"
