"""Published peaks of GPUs, and the MFU per image per second."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from platform.models.config import ModelConfig
from platform.models.costs import count_multiply_accumulates, count_training_flop
from platform.training.acceleration.mfu import mfu_per_image_per_s, published_bf16_flop_per_s
from platform.training.distributed import World

SHAPE = (3, 32, 32)


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100-PCIE-40GB", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA A10", 125),
        # Not an L4, A10 or A100: GPUs that are not listed have no peak.
        ("NVIDIA L40", None),
        ("NVIDIA A10G", None),
        ("NVIDIA A1000", None),
        ("Tesla V100-SXM2-16GB", None),
    ],
)
def test_a_gpu_is_identified_by_whole_words_of_its_name(name: str, tera: float | None) -> None:
    assert published_bf16_flop_per_s(name) == (None if tera is None else tera * 1e12)


def test_training_flop_are_three_forward_passes_minus_the_first_layers_input_gradient() -> None:
    model = ModelConfig(name="resnet32_cifar")
    forward = 2 * count_multiply_accumulates(model, num_classes=10, input_shape=SHAPE)
    first_layer = 2 * 3 * 3 * 3 * 16 * 32 * 32
    assert count_training_flop(model, num_classes=10, input_shape=SHAPE) == 3 * forward - first_layer


def test_mfu_is_divided_by_the_workers_and_none_without_gpu_or_bf16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "NVIDIA H200")
    model = ModelConfig(name="resnet18_cifar")
    info: Any = SimpleNamespace(class_names=tuple("abcdefghij"), image_shape=SHAPE)

    def rate(device: str, precision: Any, workers: int = 1) -> float | None:
        world = World(rank=0, size=workers, device=torch.device(device))
        return mfu_per_image_per_s(model, info, world, precision)

    one, two = rate("cuda", "bf16"), rate("cuda", "bf16", workers=2)
    # 3.329 GFLOP per image: 100,000 images/s use a third of an H200.
    assert one is not None
    assert 1e5 * one == pytest.approx(0.3366, rel=1e-3)
    assert two == pytest.approx(one / 2)
    assert rate("cuda", "fp32") is None
    assert rate("cpu", "bf16") is None
