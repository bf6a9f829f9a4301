"""Diagnostics: each rule detects its phenomenon with evidence, and a healthy run has no findings."""

import math

import numpy as np
import pytest

from platform.training.diagnostics.curve_table import records_from
from platform.training.diagnostics.diagnose import diagnose
from platform.training.diagnostics.network_probe import count_spikes
from platform.training.records import EpochRecord

GUESS = math.log(10)


def curve(train, validation=None, *, lr=0.1, **others):
    """Return records with these losses; `lr` and `others` are lists or one value for all epochs."""
    count = len(train)
    accuracy = 0.5 if validation else None
    given = {"lr": lr, "grad_norm": 1.0, "train_accuracy": 0.5, "validation_accuracy": accuracy, **others}
    columns = {key: value if isinstance(value, list) else [value] * count for key, value in given.items()}
    return [
        EpochRecord(
            epoch=number + 1,
            epochs=count,
            step=10 * (number + 1),
            train_loss=train[number],
            validation_loss=validation[number] if validation else None,
            epoch_s=1.0,
            evaluation_s=0.1,
            images_per_s=100.0,
            **{key: column[number] for key, column in columns.items()},
        )
        for number in range(count)
    ]


def falling(count, *, start=2.2, end=0.3, noise=0.0):
    shape = start * (end / start) ** (1 - (1 - np.linspace(0, 1, count)) ** 2)
    return list(shape * np.exp(noise * np.random.default_rng(0).standard_normal(count)))


def names(records):
    return [finding.name for finding in diagnose(records, classes=10)]


@pytest.mark.parametrize("count", [1, 5, 20, 50, 200])
@pytest.mark.parametrize("noise", [0.0, 0.01, 0.05])
def test_a_healthy_run_has_no_findings(count, noise):
    losses = falling(count, noise=noise) if count > 1 else [1.8]
    lr = [0.1 * (1 + math.cos(math.pi * n / count)) / 2 for n in range(count)]
    found = names(curve(losses, [1.05 * loss for loss in losses], lr=lr, dead_units=0.02, feature_rank=8.0))
    # Five epochs end while the losses are still falling, which is reported.
    assert found in ([], ["underfitting"] if count == 5 else [])


def test_learning_rate_drops_are_not_periodicity():
    losses, lr = [], []
    for number in range(40):
        losses.append(2.0 * 0.5 ** (number // 10) * (1 + 0.002 * (number % 10)))
        lr.append(0.1 * 0.1 ** (number // 10))
    assert names(curve(losses, [loss + 0.1 for loss in losses], lr=lr)) == []


def test_divergence():
    [finding] = diagnose(curve([2.1, 1.0, 0.9, 2.6]), classes=10)
    assert (finding.name, finding.severity, finding.epochs) == ("divergence", "serious", (4,))
    assert "ended at 2.600, after 0.900 in epoch 3 (learning rate up to 0.1)" in finding.evidence
    # A run that had learned, and predicts no better than a guess now.
    assert names(curve([2.2, 1.9, 1.8, 1.7, 2.31, 2.32, 2.31])) == ["divergence"]


def test_a_run_that_the_trainer_stopped_diverged():
    [finding] = diagnose(curve([2.1, 1.8, 1.7]), classes=10, stopped=True)
    assert (finding.name, finding.epochs) == ("divergence", (4,))
    [finding] = diagnose([], classes=10, stopped=True)
    assert finding.epochs == (1,)


def test_a_spike_between_epochs_that_recovers():
    [finding] = diagnose(curve([1.5, 1.2, 1.0, 2.4, 1.0, 0.9, 0.85], lr=0.4), classes=10)
    assert (finding.name, finding.epochs) == ("loss spikes", (4,))
    assert "epoch 4 had a far higher mean loss than the epoch before" in finding.evidence
    assert finding.evidence.endswith("(learning rate up to 0.4); it recovered")


def test_spikes_within_epochs_are_counted():
    [finding] = diagnose(curve([1.5, 1.4, 1.35, 1.33], loss_spikes=[0, 2, 0, 1]), classes=10)
    assert finding.epochs == (2, 4)
    assert "spiked 3 times within epochs 2, 4" in finding.evidence


def test_overfitting_is_a_rise_while_training_loss_falls():
    validation = [1.5, 1.0, 0.8, 0.9, 1.0, 1.1]
    train = [1.5, 1.0, 0.7, 0.4, 0.2, 0.19]
    [finding] = diagnose(curve(train, validation, train_accuracy=0.6), classes=10)
    assert (finding.name, finding.epochs) == ("overfitting", (4, 5, 6))
    assert "from 0.800 (epoch 3) to 1.100 while training loss fell from 0.700 to 0.190" in finding.evidence
    # In a diverging run both losses rise, which is not overfitting.
    assert "overfitting" not in names(curve([1.5, 1.0, 0.7, 0.9, 1.2, 1.8], validation))


def accuracies(train, validation, **others):
    """Return records of accuracies only, as another program may log them."""
    columns = {
        "train_loss": [1.0] * len(train),
        "train_accuracy": train,
        "val_accuracy": validation,
        **others,
    }
    return records_from(columns, "a test")


def test_memorized_images_are_overfitting_and_a_lower_learning_rate_does_not_help():
    """The log of a ResNet-32: training accuracy of 100 % and validation 69 % from epoch 424 on."""
    epochs = np.arange(1, 501)
    train = [100.0 if epoch >= 424 else 30 + 69.9 * (epoch / 424) ** 0.4 for epoch in epochs]
    validation = [69.0 if epoch >= 424 else 28 + 41 * (epoch / 424) ** 0.4 for epoch in epochs]
    lr = [1e-3 if epoch < 430 else max(1e-7, 1e-3 * 0.1 ** ((epoch - 420) // 10)) for epoch in epochs]
    [finding] = diagnose(accuracies(train, validation, lr=lr), classes=10)
    assert finding.name == "overfitting"
    assert "training accuracy is 100.0 %, validation accuracy 69.0 %" in finding.evidence
    assert finding.evidence.endswith("learning rate lowered from 0.001 to 1e-07 has not improved it")


def test_a_gap_without_memorized_images_is_a_generalization_gap():
    """The log of the same network trained with Adam: 58 % training, 37 % test after 20 epochs."""
    growth = [(epoch / 20) ** 0.5 for epoch in range(1, 21)]
    records = accuracies([10 + 48 * part for part in growth], [10 + 27 * part for part in growth])
    [finding] = diagnose(records, classes=10)
    assert finding.name == "generalization gap"
    assert "training accuracy is 58.0 %, validation accuracy 37.0 % in epoch 20" in finding.evidence


def test_random_labels_are_memorized_but_not_predicted():
    train = [0.1, 0.15, 0.3, 0.5, 0.8, 0.95]
    losses = [2.4, 2.2, 1.9, 1.4, 0.6, 0.2]
    validation = [2.3, 2.5, 2.8, 3.3, 4.0, 4.5]
    chance = curve(losses, validation, train_accuracy=train, validation_accuracy=0.1)
    [finding] = diagnose(chance, classes=10)
    assert finding.name == "random labels"
    assert "training accuracy rose from 10.0 % to 95.0 %" in finding.evidence
    # The first epoch's training accuracy shows that the labels can be predicted: the validation set is wrong.
    learned = curve(losses, validation, train_accuracy=[0.3, *train[1:]], validation_accuracy=0.1)
    assert "random labels" not in names(learned)


def test_underfitting_is_a_guess_or_a_run_that_ended_early():
    assert names(curve([2.4, 2.31, 2.302], [2.3] * 3)) == ["underfitting"]
    losses = [2.0, 1.8, 1.6, 1.4, 1.2]
    [finding] = diagnose(curve(losses, losses), classes=10)
    assert "still falling by 13 % per epoch" in finding.evidence
    # An unfinished run is not diagnosed.
    assert diagnose(curve(losses, losses)[:4], classes=10) == ()


def test_vanishing_and_exploding_gradients():
    losses = [2.0, 1.9, 1.8, 1.7]
    weak = curve(losses, first_grad_norm=[1e-2, 5e-5, 4e-5, 3e-5], last_grad_norm=0.5)
    [finding] = diagnose(weak, classes=10)
    assert (finding.name, finding.epochs) == ("vanishing gradients", (3, 4))
    assert "first layer is 3e-05 in epoch 4, that of the last layer is 0.5" in finding.evidence
    assert "Glorot" in finding.cause
    # All gradients are small when the images are memorized.
    assert names(curve([0.01] * 4, first_grad_norm=5e-5, last_grad_norm=0.5)) == []

    steep = curve(losses, first_grad_norm=[1.0, 90.0, 150.0, 80.0], last_grad_norm=1.0)
    [finding] = diagnose(steep, classes=10)
    assert (finding.name, finding.epochs) == ("exploding gradients", (3, 4))
    assert "(150) is 150 times the last layer's in epoch 3" in finding.evidence

    steep = curve(losses, grad_norm=[40.0, 30.0, 20.0, 9.0])
    [finding] = diagnose(steep, classes=10)
    assert (finding.name, finding.epochs) == ("exploding gradients", (1, 2, 3))
    assert "the gradient norm is 35 (median up to epoch 2)" in finding.evidence


def test_large_weights_zero_outputs_and_dead_units():
    losses = [2.0, 1.9, 1.8, 1.7, 1.65, 1.64]
    dead = [0.1, 0.4, 0.5, 0.5, 0.5, 0.5]
    [finding] = diagnose(curve(losses, dead_units=dead), classes=10)
    assert (finding.name, finding.epochs) == ("dead units", (2, 3, 4, 5, 6))
    assert "50 % of the units are dead in epoch 6 (10 % in epoch 1)" in finding.evidence
    # Dead units and a high loss are symptoms of a too high learning rate.
    [finding] = diagnose(curve(losses, dead_units=dead, weight_scale=4.0), classes=10)
    assert finding.name == "learning rate too high"
    assert "the weights are 4.0 times as large as after initialization in epoch 2" in finding.evidence
    # Weights that grow over a long run are not.
    assert names(curve(losses, weight_scale=[1.0, 1.1, 1.5, 2.0, 3.0, 4.0])) == []
    [finding] = diagnose(curve(losses, zero_logits=0.4, dead_units=dead), classes=10)
    assert finding.name == "ReLU on the output"
    assert "40 % of the outputs are exactly zero" in finding.evidence


@pytest.mark.parametrize("period", [2, 4, 7])
def test_periodicity_reports_the_period(period):
    losses = [math.exp(0.1 * math.cos(2 * math.pi * n / period) - 0.005 * n) for n in range(40)]
    [finding] = diagnose(curve(losses), classes=10)
    assert finding.name == "periodicity"
    assert f"repeats every {period} epochs" in finding.evidence


def test_noise_is_not_periodicity():
    draws = np.random.default_rng(1)
    found = [
        names(curve([math.exp(0.05 * value) for value in draws.standard_normal(30)])) for _ in range(300)
    ]
    assert sum("periodicity" in each for each in found) <= 3


def test_loss_of_plasticity_is_a_decline_over_repeated_tasks():
    def tasks(*ends):
        accuracy = [0.1 + (end - 0.1) * part for end in ends for part in (0.2, 0.6, 0.9, 1.0)]
        return curve([2.3 - 2 * (value - 0.1) for value in accuracy], train_accuracy=accuracy)

    [finding] = diagnose(tasks(0.6, 0.6, 0.5, 0.35, 0.3, 0.25), classes=10)
    assert finding.name == "loss of plasticity"
    assert finding.epochs[0] == 5
    assert (
        "dropped 5 times, first in epoch 5; it reached 60.0 % at first and 30.0 % later" in finding.evidence
    )
    # A network that learns each task as well as the first one follows a cycle.
    assert "loss of plasticity" not in names(tasks(0.6, 0.6, 0.6, 0.6, 0.6, 0.6))


def test_a_spike_exceeds_the_noise_and_half_the_median():
    draws = np.random.default_rng(0)
    calm = 1 + 0.05 * draws.standard_normal(300)
    assert count_spikes(calm) == 0
    assert type(count_spikes(calm)) is int, "JSON needs a Python int"
    assert count_spikes(np.linspace(3, 0.5, 300) + 0.1 * draws.standard_normal(300)) == 0
    spiky = calm.copy()
    spiky[100:103] = 3.0
    spiky[200] = 2.5
    assert count_spikes(spiky) == 2
    # The window grows until it has 50 steps; a spike across that boundary counts once.
    spiky[48:53] = 3.0
    assert count_spikes(spiky) == 3
    assert count_spikes(spiky[:50]) == count_spikes(spiky[:51]) == 1
    # Neither a small jump of a curve without noise nor the first batch of a short epoch is a spike.
    assert count_spikes(np.array([1.0] * 20 + [1.2] + [1.0] * 20)) == 0
    assert count_spikes(np.array([9.0, 1.0, 1.0])) == 0
