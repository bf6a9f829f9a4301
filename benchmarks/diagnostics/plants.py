"""Train one run of the gallery with the product's trainer; a fault is planted by replacing parts around it.

Networks, images and labels are exchanged before the run. Bad batches, learning-rate jumps, changing labels
and unshuffled data replace one method of the trainer's inputs while the run lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from platform.data.catalog import load_split, prepare_dataset
from platform.data.config import DataConfig
from platform.data.dataset import Split
from platform.data.normalization import compute_normalization
from platform.data.training_data import TrainingData
from platform.models.networks import CifarResNet, initialize
from platform.training.config import RunConfig
from platform.training.diagnostics.findings import TrainingDiverged
from platform.training.distributed import single
from platform.training.inputs.augment import Batch, BatchPosition, DeviceEvaluationSet, DeviceTrainingSet
from platform.training.loop import fit
from platform.training.records import EpochRecord
from platform.training.schedules import LearningRate

VALIDATION_IMAGES = 1000
_SHRINK = 2  # images of 16x16 pixels, so that a run takes seconds


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of the gallery."""

    fault: str
    """`healthy`, or the name of the finding that the planted fault should give."""
    recipe: str
    """Runs with the same fault and recipe belong to the same half of the gallery."""
    seed: int
    config: Mapping[str, Any]
    """Changes of the base configuration."""
    network: Mapping[str, Any]
    """Arguments of `build`; empty for the network of the configuration."""
    images: int
    """Training images."""
    plant: Mapping[str, Any] = field(default_factory=dict)
    """The plants by name; see `_PLANTS` and `_data`."""

    @property
    def key(self) -> str:
        """Name the run."""
        return f"{self.fault}/{self.recipe}/{self.seed}"


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """The records of a run."""

    epochs: tuple[EpochRecord, ...]
    stopped: bool
    """Whether the trainer ended the run because a value was not finite."""


def train(run: PlannedRun) -> TrainedRun:
    """Train one run on the CPU."""
    config = RunConfig.model_validate(
        {
            "model": {"name": "resnet20_cifar"},
            "data": {"name": "cifar10"},
            "epochs": 20,
            "batch_size": 32,
            "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4},
            "schedule": {"name": "cosine"},
            "augment": {"crop_padding": 2, "flip": True},
            "precision": "fp32",
            "seed": run.seed,
            **run.config,
        }
    )
    records: list[EpochRecord] = []
    stopped = False
    with ExitStack() as stack:
        if run.network:
            stack.enter_context(
                patch(
                    "platform.training.run_result.build_network",
                    lambda _, num_classes: build(num_classes=num_classes, **run.network),
                )
            )
        for name, plant in _PLANTS.items():
            if name in run.plant:
                stack.enter_context(plant(run, **run.plant[name]))
        try:
            fit(config, _data(run), world=single("cpu"), checkpoint_dir=None, on_epoch=records.append)
        except TrainingDiverged:
            stopped = True
    return TrainedRun(epochs=tuple(records), stopped=stopped)


def build(
    *,
    num_classes: int,
    kind: str = "resnet",
    widths: tuple[int, ...] = (8, 16, 32),
    blocks: tuple[int, ...] = (1, 1, 1),
    norm: bool = True,
    activation: str = "relu",
    gain: float = 1.0,
    dead_share: float = 0.0,
    output_relu: bool = False,
) -> nn.Module:
    """Return a network.

    Args:
        num_classes: outputs.
        kind: `resnet`, or `plain` for convolutions without shortcuts; a plain network halves the resolution
            at each increase of the width.
        widths: channels per stage of a ResNet, per convolution of a plain network.
        blocks: blocks per stage of a ResNet.
        norm: batch normalization in a plain network.
        activation: `relu` or `sigmoid`, in a plain network.
        gain: factor of the initial weights of all convolutions.
        dead_share: share of the channels whose initial bias before the activation is -10.
        output_relu: a ReLU after the classifier.
    """
    if kind == "resnet":
        network: nn.Module = CifarResNet(widths, blocks, "A", num_classes)
    else:
        network = _plain(widths, norm, nn.ReLU if activation == "relu" else nn.Sigmoid, num_classes)
    initialize(network)
    with torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(gain)
            before_relu = isinstance(module, nn.BatchNorm2d) and not name.endswith("bn2")
            if before_relu or (isinstance(module, nn.Conv2d) and module.bias is not None):
                module.bias[: round(dead_share * len(module.bias))] = -10
    return nn.Sequential(network, nn.ReLU()) if output_relu else network


def _plain(widths: tuple[int, ...], norm: bool, activation: type[nn.Module], num_classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for width in widths:
        stride = 2 if width > channels > 3 else 1
        layers.append(nn.Conv2d(channels, width, 3, stride, padding=1, bias=not norm))
        layers += [nn.BatchNorm2d(width)] if norm else []
        layers.append(activation())
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


@cache
def _cifar10() -> tuple[Split, Any]:
    """Return the training images, downscaled by averaging, and the dataset."""
    info = prepare_dataset(DataConfig(name="cifar10"))
    whole = load_split(info, "train")
    channels, height, width = whole.images.shape[1:]
    blocks = whole.images[:20_000].reshape(
        -1, channels, height // _SHRINK, _SHRINK, width // _SHRINK, _SHRINK
    )
    images = blocks.mean(axis=(3, 5)).round().astype(np.uint8)
    size = (channels, height // _SHRINK, width // _SHRINK)
    return Split(images, np.array(whole.labels[:20_000])), replace(info, image_shape=size, name="cifar10")


def _data(run: PlannedRun) -> TrainingData:
    """Return the images of a run; the seed determines which."""
    whole, info = _cifar10()
    draws = np.random.default_rng([run.seed, 17])
    rows = draws.permutation(len(whole))[: run.images + VALIDATION_IMAGES]
    train, validation = whole.take(rows[: run.images]), whole.take(rows[run.images :])
    normalization = compute_normalization(train.images, "channel")
    if run.plant.get("shuffled_labels"):
        train = Split(train.images, draws.permutation(train.labels))
        validation = Split(validation.images, draws.permutation(validation.labels))
    if change := run.plant.get("validation_transform"):
        validation = Split(_TRANSFORMS[change](validation.images), validation.labels)
    return TrainingData(train=train, validation=validation, normalization=normalization, info=info)


def _pixels(values: np.ndarray) -> np.ndarray:
    return values.clip(0, 255).round().astype(np.uint8)


_TRANSFORMS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "upside down": lambda images: np.ascontiguousarray(images[:, :, ::-1]),
    "transposed": lambda images: np.ascontiguousarray(images.swapaxes(2, 3)),
    "BGR, upside down": lambda images: np.ascontiguousarray(images[:, ::-1, ::-1]),
    "mean not subtracted": lambda images: _pixels(images + 120.0),
    "not divided by std": lambda images: _pixels(120 + (images - 120.0) * 0.25),
    "half the brightness": lambda images: _pixels(images * 0.4),
    "inverted": lambda images: 255 - images,
    "central half": lambda images: np.ascontiguousarray(
        images[:, :, 4:12, 4:12].repeat(2, axis=2).repeat(2, axis=3)
    ),
    "noise": lambda images: _pixels(images + np.random.default_rng(0).normal(0, 60, images.shape)),
}


@contextmanager
def _bad_batches(_: PlannedRun, *, epochs: list[int], scale: float) -> Iterator[None]:
    """Multiply the images of one batch in each of `epochs` (from 0) by `scale`, and shuffle its labels."""
    original, current = DeviceTrainingSet.batch, [0]
    sample = DeviceTrainingSet.sample_randomness

    def count(self: DeviceTrainingSet, epoch: int, *, seed: int, steps: int) -> Any:
        current[0] = epoch
        return sample(self, epoch, seed=seed, steps=steps)

    def batch(self: DeviceTrainingSet, randomness: Any, position: BatchPosition, share: slice) -> Batch:
        found = original(self, randomness, position, share)
        if current[0] not in epochs or position.step != 20:
            return found
        return replace(found, images=found.images * scale, labels=(found.labels + 3) % 10)

    with (
        patch.object(DeviceTrainingSet, "sample_randomness", count),
        patch.object(DeviceTrainingSet, "batch", batch),
    ):
        yield


@contextmanager
def _learning_rate(run: PlannedRun, **options: Any) -> Iterator[None]:
    """Multiply the learning rate of each step; see `_lr_factor`."""
    original = LearningRate.at
    steps_per_epoch = run.images // int(run.config.get("batch_size", 32))

    def at(self: LearningRate, step: int) -> float:
        return original(self, step) * _lr_factor(step / steps_per_epoch, **options)

    with patch.object(LearningRate, "at", at):
        yield


def _lr_factor(
    epoch: float,
    *,
    jump: float = 1.0,
    first: float = 0.0,
    length: float = 1e9,
    growth: float = 1.0,
    cycle: float = 0.0,
    low: float = 0.05,
) -> float:
    """Return the factor of the learning rate at a time in epochs.

    Args:
        epoch: the time.
        jump: factor from `first` on for `length` epochs.
        first: time of the first jump, or of the beginning of the growth.
        length: duration of a jump.
        growth: factor per epoch from `first` on.
        cycle: period of a triangular cycle between `low` and 1; 0 for none.
        low: lowest factor of the cycle.
    """
    factor = 1.0
    if 0 <= epoch - first < length:
        factor *= jump
    if epoch >= first:
        factor *= growth ** (epoch - first)
    if cycle:
        factor *= low + (1 - low) * abs(1 - 2 * (epoch / cycle % 1))
    return factor


@contextmanager
def _unshuffled(_: PlannedRun, *, records_per_pass: int, mixed: float = 0.0) -> Iterator[None]:
    """Pass the images sorted by class instead of shuffled, with several records per pass.

    Args:
        records_per_pass: an epoch of the trainer is one record here, so it repeats the images of its part.
        mixed: share of the images that is in random order.
    """
    original = DeviceTrainingSet.sample_randomness

    def sample(self: DeviceTrainingSet, epoch: int, *, seed: int, steps: int) -> Any:
        found = original(self, epoch, seed=seed, steps=steps)
        by_class = torch.argsort(self._labels, stable=True)
        part = by_class.chunk(records_per_pass)[epoch % records_per_pass]
        order = part.repeat(records_per_pass + 1)[: len(self)]
        random = torch.arange(len(self)) % 100 < 100 * mixed
        return replace(found, order=torch.where(random, found.order, order))

    with patch.object(DeviceTrainingSet, "sample_randomness", sample):
        yield


@contextmanager
def _permuted_labels(run: PlannedRun, *, every: int, random: bool) -> Iterator[None]:
    """Change the labels every few epochs: permute the classes, or (`random`) the labels of the images.

    Random labels are random from the first epoch on, so that all tasks are equally hard.
    """
    draws = np.random.default_rng([run.seed, 23])
    sample, batches = DeviceTrainingSet.sample_randomness, DeviceEvaluationSet.batches
    classes = [torch.arange(10)]

    def resample(self: DeviceTrainingSet, epoch: int, *, seed: int, steps: int) -> Any:
        if epoch % every == 0:
            if random:
                self._labels = self._labels[torch.from_numpy(draws.permutation(len(self)))]
            else:
                change = torch.from_numpy(draws.permutation(10))
                self._labels, classes[0] = change[self._labels], change[classes[0]]
        return sample(self, epoch, seed=seed, steps=steps)

    def permuted(self: DeviceEvaluationSet, rows: slice, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in batches(self, rows, batch_size):
            yield images, classes[0][labels]

    with (
        patch.object(DeviceTrainingSet, "sample_randomness", resample),
        patch.object(DeviceEvaluationSet, "batches", permuted),
    ):
        yield


_PLANTS: Mapping[str, Callable[..., Any]] = {
    "bad_batches": _bad_batches,
    "learning_rate": _learning_rate,
    "unshuffled": _unshuffled,
    "permuted_labels": _permuted_labels,
}
