"""The network probe: it does not change the network, and detects defects introduced on purpose."""

import pytest
import torch
from torch import nn

from platform.models.config import ModelConfig
from platform.models.networks import build_network
from platform.training.diagnostics.network_probe import NetworkProbe


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return build_network(ModelConfig(name="resnet20_cifar"), num_classes=10)


@pytest.fixture
def probe(data) -> NetworkProbe:
    return NetworkProbe(data.train, data.normalization, device=torch.device("cpu"), precision="fp32")


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
    assert healthy["dead_units"] < 0.05
    assert probe.measure(network)["dead_units"] == pytest.approx(1 - channels[0] / sum(channels), abs=0.05)


def test_a_constant_layer_has_zero_gradient_and_rank_one(network, probe):
    healthy = probe.measure(network)
    assert healthy["first_grad_norm"] > 0
    assert 1 < healthy["feature_rank"] <= 16
    with torch.no_grad():
        network.bn1.weight.zero_()
        network.bn1.bias.fill_(1)
    cut = probe.measure(network)
    assert cut["first_grad_norm"] == 0
    assert cut["last_grad_norm"] > 0
    assert cut["feature_rank"] == pytest.approx(1, abs=1e-3)


def test_a_network_without_convolution_is_not_measured(probe):
    assert probe.measure(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))) == {}


def test_non_finite_statistics_are_not_reported(network, probe):
    with torch.no_grad():
        network.fc.weight.fill_(float("nan"))
    assert probe.measure(network) == {}


def test_outputs_after_a_relu_are_zero_and_large_weights_have_a_large_scale(network, probe):
    healthy = probe.measure(network)
    assert healthy["zero_logits"] == 0
    assert healthy["weight_scale"] == pytest.approx(1, abs=0.05)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    assert probe.measure(network)["weight_scale"] == pytest.approx(3 * healthy["weight_scale"])
    clipped = probe.measure(nn.Sequential(network, nn.ReLU()))
    assert 0.1 < clipped["zero_logits"] < 0.9


def test_relu_modules_are_measured(probe):
    convolution = nn.Conv2d(3, 10, 3)
    network = nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 10))
    with torch.no_grad():
        convolution.bias[:4] = -100
    assert probe.measure(network)["dead_units"] == pytest.approx(0.4)
