"""The training loop of popular CIFAR-10 repositories, as a reference for throughput.

Everything that affects speed follows kuangliu/pytorch-cifar and akamaster/pytorch_resnet_cifar10: torchvision
transforms on PIL images in DataLoader workers, fp32 in the default memory layout, SGD without fused or
foreach kernels, `.item()` of the loss and of the correct predictions after every batch, cudnn.benchmark. Two
changes favor the reference: pinned memory, and one worker per core (up to 8) instead of 2 or 4.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from platform.data.normalization import Normalization
from platform.models.config import ModelConfig
from platform.models.networks import build_network

WARMUP_STEPS = 2
"""Untimed steps of each repetition, for the start of the workers and cuDNN's choice of algorithms."""


class PilImages(Dataset[tuple[Tensor, int]]):
    """A data set like torchvision's CIFAR10: an array in memory, a PIL image per access."""

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], normalization: Normalization
    ) -> None:
        from torchvision import transforms

        self._images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        self._labels = labels.tolist()
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(images.shape[-1], padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(normalization.mean.tolist(), normalization.std.tolist()),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._images[index])), self._labels[index]


class ReferenceLoop:
    """Trains a network with the reference loop; each repetition continues the training."""

    def __init__(
        self, model: ModelConfig, images: PilImages, *, batch_size: int, workers: int, device: torch.device
    ) -> None:
        self._device = device
        self._network = build_network(model, num_classes=10).to(device)
        self._criterion = nn.CrossEntropyLoss()
        self._optimizer = torch.optim.SGD(
            self._network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, foreach=False, fused=False
        )
        self._loader = DataLoader(
            images,
            batch_size=batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            pin_memory=device.type == "cuda",
        )

    def images_per_s(self) -> float:
        """Train one epoch; return the images per second after the warm-up steps."""
        # cuDNN's benchmark mode, as in those repositories.
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False):
            return self._epoch()

    def _epoch(self) -> float:
        self._network.train()
        train_loss, correct, total = 0.0, 0, 0
        began_s, counted = time.perf_counter(), 0
        for step, (batch, answers) in enumerate(self._loader):
            inputs, targets = batch.to(self._device), answers.to(self._device)
            self._optimizer.zero_grad()
            outputs = self._network(inputs)
            loss = self._criterion(outputs, targets)
            loss.backward()
            self._optimizer.step()

            train_loss += loss.item()
            _, predicted = outputs.max(1)
            total += targets.size(0)
            correct += predicted.eq(targets).sum().item()
            if step + 1 == WARMUP_STEPS:
                began_s, counted = time.perf_counter(), total
        return (total - counted) / (time.perf_counter() - began_s)
