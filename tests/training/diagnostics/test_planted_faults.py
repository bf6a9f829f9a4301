"""Real runs with a planted fault each: the diagnosis is exactly its name."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.diagnostics import plants
from benchmarks.diagnostics.plants import PlannedRun, train
from platform.data.dataset import CIFAR10_CLASSES, DatasetInfo, Split
from platform.training.diagnostics.diagnose import diagnose

PLAIN = {"kind": "plain", "widths": (8, 16)}
BARE = {**PLAIN, "norm": False}
DEEP = {"kind": "plain", "norm": False, "widths": (8, 8, 16, 16, 16, 16)}
CONSTANT = {"name": "constant"}
NO_AUGMENTATION = {"crop_padding": 0, "flip": False}


def sgd(lr):
    return {"name": "sgd", "lr": lr, "momentum": 0.9}


def adam(lr):
    return {"name": "adam", "lr": lr}


def planted(fault, *, network=PLAIN, images=256, plant=None, **config):
    return pytest.param(
        PlannedRun(
            fault=fault,
            recipe="test",
            seed=0,
            config={"epochs": 8, "batch_size": 16, "optimizer": sgd(0.05), **config},
            network=network,
            images=images,
            plant=plant or {},
        ),
        id=f"{fault}, {network.get('kind', 'resnet')}",
    )


@pytest.fixture(scope="module", autouse=True)
def _noisy_patterns():
    """Replace CIFAR-10 by noisy images of 12x12 pixels with one coarse pattern per class."""
    draws = np.random.default_rng(0)
    patterns = draws.normal(0, 1, (10, 3, 4, 4)).repeat(3, axis=2).repeat(3, axis=3)
    labels = draws.integers(0, 10, 1000)
    pixels = 128 + 22 * patterns[labels] + draws.normal(0, 45, (1000, 3, 12, 12))
    images = pixels.clip(0, 255).astype(np.uint8)
    info = DatasetInfo(
        name="cifar10",
        label="patterns",
        sha256="",
        class_names=CIFAR10_CLASSES,
        train_images=1000,
        test_images=0,
        image_shape=(3, 12, 12),
        path=Path("/nowhere"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plants, "_cifar10", lambda: (Split(images, labels), info))
        patch.setattr(plants, "VALIDATION_IMAGES", 200)
        yield


@pytest.mark.parametrize(
    "run",
    [
        planted("healthy", images=512, epochs=10),
        planted(
            "healthy",
            images=512,
            epochs=10,
            optimizer=adam(3e-3),
            network={"widths": (8, 16), "blocks": (1, 1)},
        ),
        planted("loss spikes", images=512, plant={"bad_batches": {"epochs": [4], "scale": 30}}, epochs=10),
        planted("divergence", plant={"learning_rate": {"jump": 100, "first": 5}}, schedule=CONSTANT),
        planted("overfitting", images=64, epochs=30, augment=NO_AUGMENTATION, optimizer=adam(1e-2)),
        planted("underfitting", optimizer=sgd(1e-5)),
        planted(
            "vanishing gradients", network={**DEEP, "activation": "sigmoid", "widths": (8,) * 9}, epochs=4
        ),
        planted("exploding gradients", network={**DEEP, "gain": 3.0}, optimizer=sgd(1e-5), epochs=4),
        planted("dead units", network={**PLAIN, "dead_share": 0.7}, images=512),
        planted(
            "periodicity",
            images=512,
            plant={"learning_rate": {"cycle": 4, "low": 0.01}},
            optimizer=sgd(0.4),
            schedule=CONSTANT,
            epochs=24,
        ),
        planted("learning rate too high", optimizer=adam(0.1), images=512),
        planted("ReLU on the output", network={**PLAIN, "output_relu": True}, images=512),
        planted(
            "random labels",
            images=96,
            plant={"shuffled_labels": True},
            epochs=24,
            augment=NO_AUGMENTATION,
            network={**PLAIN, "widths": (16, 32)},
        ),
        planted("generalization gap", images=512, plant={"validation_transform": "noise"}),
    ],
)
def test_a_planted_fault_is_named(run):
    trained = train(run)
    found = [finding.name for finding in diagnose(trained.epochs, classes=10, stopped=trained.stopped)]
    assert found == ([] if run.fault == "healthy" else [run.fault])
