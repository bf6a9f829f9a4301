"""Shared helpers of the export tests."""

import torch

from platform.models.config import ModelConfig
from platform.models.networks import build_network
from platform.models.trained import TrainedModel


def trained_like(name: str) -> TrainedModel:
    """Return a random network with batch statistics of random data, so that its logits are of order 1."""
    torch.manual_seed(0)
    config = ModelConfig(name=name)
    network = build_network(config, num_classes=10).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a cumulative mean, for which two batches suffice
    with torch.no_grad():
        for _ in range(2):
            network(torch.randn(16, 3, 32, 32))
    return TrainedModel(
        model=config,
        state_dict=network.state_dict(),
        mean=torch.tensor([0.49, 0.48, 0.45]),
        std=torch.tensor([0.25, 0.24, 0.26]),
        class_names=tuple(f"class {number}" for number in range(10)),
        input_shape=(3, 32, 32),
        data_label="generated",
        provenance={"commit": "abc", "run": "final", "config": "{}"},
        metrics={"test_accuracy": 0.25},
    )
