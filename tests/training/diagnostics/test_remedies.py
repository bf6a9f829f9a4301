"""The settings suggested for a finding: valid for the configuration, and different from it."""

import pytest

from platform.space.space_files import load_run
from platform.training.diagnostics.findings import DESCRIPTIONS, Finding
from platform.training.diagnostics.remedies import remedies
from tests.training.diagnostics.test_diagnose import curve

SPACES = ["resnet32_cifar", "resnet18_cifar", "he2016_resnet32", "resnet18_cutout"]
RECORDS = curve([2.3, 2.2, 2.1, 2.0], [2.3, 2.1, 2.2, 2.3])


def suggested(name, space, *overrides, epochs=(2, 3)):
    config = load_run(space, overrides=[f"base.{text}" for text in overrides])
    finding = Finding(name=name, epochs=epochs, evidence="")
    return config, remedies(finding, config, RECORDS)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_every_suggestion_is_a_valid_change(name, space):
    config, options = suggested(name, space)
    for option in options:
        assert load_run(space, overrides=[f"base.{option}"]) != config, option
    assert load_run(space, overrides=[f"base.{option}" for option in options]) is not None


def test_settings_that_a_run_has_already_are_not_suggested():
    _, options = suggested("loss spikes", "resnet32_cifar")
    assert options[0] == "clip_grad_norm=1"
    _, options = suggested("loss spikes", "resnet32_cifar", "clip_grad_norm=1")
    assert not any(option.startswith("clip_grad_norm") for option in options)


def test_adam_gets_a_learning_rate_that_suits_it():
    adam = "optimizer={name: adam, lr: 0.1}"
    _, options = suggested("learning rate too high", "resnet32_cifar", adam)
    assert options[0] == "optimizer.lr=0.003"


def test_overfitting_suggests_augmentation_and_the_best_number_of_epochs():
    plain = ("augment={crop_padding: 0, flip: false}", "optimizer.weight_decay=0", "epochs=4")
    _, options = suggested("overfitting", "resnet32_cifar", *plain)
    assert options == (
        "augment.crop_padding=4",
        "augment.flip=true",
        "augment.cutout.length=8",
        "optimizer.weight_decay=0.0005",
        "epochs=2",
    )


def test_a_run_that_was_too_short_gets_more_epochs_and_a_constant_rate_a_schedule():
    assert suggested("underfitting", "resnet32_cifar", "epochs=4")[1] == ("epochs=8",)
    constant = "schedule={name: constant}"
    assert suggested("periodicity", "resnet32_cifar", constant)[1] == ('schedule={"name": "cosine"}',)
    assert suggested("random labels", "resnet32_cifar")[1] == ()
