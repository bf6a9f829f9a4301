"""The network probe: it does not change the network, and detects defects introduced on purpose."""

import dataclasses

import pytest
import torch
from torch import nn

from platform.models.config import ModelConfig
from platform.models.networks import build_network
from platform.training.diagnostics.diagnose import diagnose
from platform.training.diagnostics.network_probe import NetworkProbe
from platform.training.distributed import single
from platform.training.loop import fit


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return build_network(ModelConfig(name="resnet20_cifar"), num_classes=10)


@pytest.fixture
def probe(data) -> NetworkProbe:
    return NetworkProbe(data, device=torch.device("cpu"), precision="fp32")


def test_the_probe_changes_nothing(network, probe):
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    random = torch.get_rng_state()
    first = probe.measure(network)
    assert probe.measure(network) == first
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert network.training
    assert [parameter.grad for parameter in network.parameters() if parameter.grad is not None] == []
    assert not network.bn1._forward_hooks


def test_channels_that_are_always_zero_are_dead(network, probe):
    healthy = probe.measure(network)
    blocks = [module for name, module in network.named_modules() if name.endswith("bn1")]
    with torch.no_grad():
        for block in blocks[1:]:
            block.bias.fill_(-100)
    channels = [block.num_features for block in blocks]
    assert healthy.dead_units < 0.05
    assert probe.measure(network).dead_units == pytest.approx(1 - channels[0] / sum(channels), abs=0.05)


def test_a_constant_layer_has_zero_gradient_and_rank_one(network, probe):
    healthy = probe.measure(network)
    assert healthy.first_grad_norm > 0
    assert 1 < healthy.feature_rank <= 16
    with torch.no_grad():
        network.bn1.weight.zero_()
        network.bn1.bias.fill_(1)
    cut = probe.measure(network)
    assert cut.first_grad_norm == 0
    assert cut.last_grad_norm > 0
    assert cut.feature_rank == pytest.approx(1, abs=1e-3)


def test_a_network_without_convolution_is_not_measured(probe):
    assert probe.measure(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))) is None


def test_non_finite_statistics_are_not_reported(network, probe):
    with torch.no_grad():
        network.fc.weight.fill_(float("nan"))
    assert probe.measure(network) is None


def test_random_labels_are_diagnosed_as_overfitting(data, config_of):
    """A real run: random labels can be memorized, but do not generalize."""
    draws = torch.Generator().manual_seed(0)
    shuffled = dataclasses.replace(
        data.train, labels=data.train.labels[torch.randperm(len(data.train.labels), generator=draws).numpy()]
    )
    config = config_of(
        model={"name": "resnet20_cifar"},
        epochs=7,
        batch_size=18,
        augment={"crop_padding": 0, "flip": False},
        schedule={"name": "constant"},
    )
    result = fit(config, dataclasses.replace(data, train=shuffled), world=single("cpu"), checkpoint_dir=None)
    found = {finding.name: finding for finding in diagnose(result.epochs, classes=10)}
    assert "overfitting" in found
    assert "validation loss rose" in found["overfitting"].evidence


def test_a_learning_rate_a_hundred_times_too_high_is_diagnosed(data, config_of, small_network):
    """Two real runs: the one with a suitable learning rate has no findings."""
    healthy = fit(config_of(epochs=4), data, world=single("cpu"), checkpoint_dir=None)
    unstable = fit(
        config_of(
            epochs=4,
            optimizer={"name": "sgd", "lr": 5.0, "momentum": 0.9, "weight_decay": 1e-4},
            schedule={"name": "constant"},
        ),
        data,
        world=single("cpu"),
        checkpoint_dir=None,
    )
    assert {finding.name for finding in diagnose(healthy.epochs, classes=10)} <= {"underfitting"}
    assert {finding.name for finding in diagnose(unstable.epochs, classes=10)} & {
        "divergence",
        "loss spikes",
        "exploding gradients",
        "underfitting",
    }
    record = healthy.epochs[-1]
    assert record.grad_norm_max >= record.grad_norm
    assert record.loss_spikes == 0
    assert record.weight_norm > 0
