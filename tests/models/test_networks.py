"""The networks: published sizes, shapes, the option A shortcut, initialization."""

import math

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from platform.common.errors import UsageError
from platform.common.schema import validate
from platform.models.config import ModelConfig
from platform.models.networks import BasicBlock, PadShortcut, build_network

# name, shortcut, parameters, multiply-accumulates per 32x32 image; for ten classes.
SIZES = [
    ("resnet18_cifar", None, 11_173_962, 555_422_720),
    ("resnet34_cifar", None, 21_282_122, 1_159_402_496),
    ("resnet20_cifar", None, 269_722, 40_551_040),
    ("resnet32_cifar", None, 464_154, 68_862_592),
    ("resnet44_cifar", None, 658_586, 97_174_144),
    ("resnet56_cifar", None, 853_018, 125_485_696),
    ("resnet32_cifar", "B", 466_906, 69_124_736),
]
# For 1,000 classes and 224x224 images.
LARGE_SIZES = [("resnet18", 11_689_512, 1_814_073_344), ("resnet34", 21_797_672, 3_663_761_408)]


def count_macs(network: nn.Module, image: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(("name", "shortcut", "parameters", "macs"), SIZES)
def test_cifar_networks_have_the_published_size(name, shortcut, parameters, macs):
    network = build_network(ModelConfig(name=name, shortcut=shortcut), num_classes=10).eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert count_macs(network, torch.zeros(1, 3, 32, 32)) == macs


@pytest.mark.parametrize(("name", "parameters", "macs"), LARGE_SIZES)
def test_imagenet_networks_have_torchvisions_size(name, parameters, macs):
    with torch.device("meta"):
        network = build_network(ModelConfig(name=name), num_classes=1000).eval()
        assert sum(parameter.numel() for parameter in network.parameters()) == parameters
        assert count_macs(network, torch.zeros(1, 3, 224, 224)) == macs


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_state_dicts_have_torchvisions_keys_and_shapes(name):
    with torch.device("meta"):
        mine = build_network(ModelConfig(name=name), num_classes=7).state_dict()
        theirs = getattr(torchvision.models, name)(num_classes=7).state_dict()
    assert {key: value.shape for key, value in mine.items()} == {
        key: value.shape for key, value in theirs.items()
    }


def test_torchvisions_networks_refuse_shortcut_a():
    with pytest.raises(UsageError, match="supports shortcut B only, got A"):
        validate(ModelConfig, {"name": "resnet18", "shortcut": "A"}, source="space.yaml")
    assert ModelConfig(name="resnet18", shortcut="B") != ModelConfig(name="resnet18")


def test_every_model_name_can_be_built():
    for name in ModelConfig.model_fields["name"].annotation.__args__:
        with torch.device("meta"):
            network = build_network(ModelConfig(name=name, zero_init_residual=True), num_classes=3)
            assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 3), name


@pytest.mark.parametrize("side", [32, 28, 33])
def test_logits_for_any_number_of_classes_and_image_size(side):
    network = build_network(ModelConfig(name="resnet20_cifar"), num_classes=7).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 3, side, side)).shape == (2, 7)


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_pad_shortcut_is_exactly_the_strided_slice(size):
    x = torch.randn(2, 16, *size)
    expected = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, 16))
    assert torch.equal(PadShortcut(16, stride=2)(x), expected)


def test_pad_shortcut_is_exact_for_the_gradient_too():
    x = torch.randn(1, 2, 6, 6, requires_grad=True)
    weight = torch.randn(1, 4, 3, 3)
    (mine,) = torch.autograd.grad((PadShortcut(2, stride=2)(x) * weight).sum(), x)
    (sliced,) = torch.autograd.grad((x[:, :, ::2, ::2] * weight[:, :2]).sum(), x)
    assert torch.equal(mine, sliced)


def test_convolutions_have_he_initialization_by_fan_in():
    torch.manual_seed(0)
    network = build_network(ModelConfig(name="resnet18_cifar"), num_classes=10)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.in_channels * math.prod(module.kernel_size)
            spread = math.sqrt(2 / fan_in)
            error = 4 / math.sqrt(2 * module.weight.numel())
            assert float(module.weight.detach().std()) == pytest.approx(spread, rel=error), name


def test_zero_init_residual_zeroes_the_last_gamma():
    def gammas(zero_init_residual: bool) -> set[float]:
        config = ModelConfig(name="resnet20_cifar", zero_init_residual=zero_init_residual)
        blocks = [m for m in build_network(config, num_classes=10).modules() if isinstance(m, BasicBlock)]
        return {float(value) for block in blocks for value in block.bn2.weight.detach()}

    assert gammas(False) == {1.0}
    assert gammas(True) == {0.0}


def test_equal_seeds_give_equal_weights():
    def weights() -> torch.Tensor:
        torch.manual_seed(3)
        return build_network(ModelConfig(name="resnet20_cifar"), num_classes=10).fc.weight.detach()

    assert torch.equal(weights(), weights())


def test_a_misspelled_name_is_refused_with_a_suggestion():
    with pytest.raises(UsageError, match="did you mean 'resnet18_cifar'"):
        validate(ModelConfig, {"name": "resnet18_cfar"}, source="space.yaml")
