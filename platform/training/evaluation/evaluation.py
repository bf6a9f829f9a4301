"""Loss, accuracy and confusion of a network on a split; every image counts once, whatever the workers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from platform.data.dataset import Split
from platform.data.image_folders import PictureSplit
from platform.data.normalization import Normalization
from platform.errors import UserError
from platform.training.acceleration.precision import Precision, autocast, reproducible_convolutions
from platform.training.distributed import World
from platform.training.inputs.augment import EvaluationTable
from platform.training.inputs.batches import EvaluationBatches, open_evaluation


@dataclass(frozen=True, kw_only=True)
class Flipped:
    """How a network did with test-time flip: the mean of an image's logits and those of its mirror image.

    It costs a second pass, and is a figure of its own: comparable with other test-time flips only.
    """

    loss: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How a network did on a split."""

    loss: float
    """Mean cross-entropy in nats."""
    accuracy: float
    """Top-1, 0..1."""
    per_class_accuracy: tuple[float | None, ...]
    """Share of each class's images that were recognized; None for a class without images."""
    confusion: list[list[int]]
    """Images by [true class][predicted class]."""
    flip: Flipped | None = None
    """The same with each image's mirror image beside it, where that was asked for."""
    logits: Tensor | None = None
    """float32 [N, classes], on the CPU, where they were asked for."""


def evaluate(
    network: nn.Module,
    split: Split | PictureSplit,
    normalization: Normalization,
    *,
    device: torch.device,
    precision: Precision,
    batch_size: int | None = None,
    keep_logits: bool = False,
    flip: bool = False,
    size: int = 224,
) -> Evaluation:
    """Evaluate `network` on `split`.

    Args:
        network: maps float32 [n, C, H, W] to logits [n, classes]; moved to `device`, left in eval mode.
        split: the images and labels.
        normalization: that of the network's training.
        device: where to compute.
        precision: what to compute in.
        batch_size: images at a time; None: as many as suit the device.
        keep_logits: whether to return the logits too.
        flip: whether to evaluate with test-time flip too.
        size: side of what the network sees of a picture (a `PictureSplit`).
    """
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    world = World(rank=0, size=1, device=device)
    table = open_evaluation(split, normalization, size=size, world=world)
    return evaluate_table(
        network,
        table,
        world=world,
        precision=precision,
        batch_size=batch_size,
        keep_logits=keep_logits,
        flip=flip,
    )


def images_at_a_time(table: EvaluationBatches, device: torch.device) -> int:
    """Return how many images to evaluate at a time.

    On a GPU every batch costs the launches of some hundred kernels, so few and large batches are faster;
    images in files are too large for that.
    """
    return 2500 if device.type == "cuda" and isinstance(table, EvaluationTable) else 500


def evaluate_table(
    network: nn.Module,
    table: EvaluationBatches,
    *,
    world: World,
    precision: Precision,
    batch_size: int | None = None,
    keep_logits: bool = False,
    flip: bool = False,
) -> Evaluation:
    """Evaluate `network` on a split that is on the device; each worker takes its share of the images.

    `network` is left in eval mode. Each worker keeps the logits of its own images. `batch_size` is as in
    `evaluate`.
    """
    network.eval()
    batch_size = batch_size or images_at_a_time(table, world.device)
    loss = torch.zeros((), dtype=torch.float64, device=world.device)
    # Loss and hits with test-time flip.
    flipped = torch.zeros(2, dtype=torch.float64, device=world.device)
    confusion: Tensor | None = None
    kept = []
    with torch.inference_mode(), reproducible_convolutions():
        for images, labels in table.batches(world.slice_of(len(table)), batch_size):
            with autocast(precision, world.device):
                logits = network(images).float()
            loss += cross_entropy(logits, labels, reduction="sum")
            classes = logits.shape[1]
            if confusion is None:
                confusion = torch.zeros(classes * classes, dtype=torch.int64, device=world.device)
            cells = labels * classes + logits.argmax(dim=1)
            confusion.scatter_add_(0, cells, torch.ones_like(cells))
            if flip:
                with autocast(precision, world.device):
                    mean_logits = (logits + network(images.flip(-1)).float()) / 2
                flipped[0] += cross_entropy(mean_logits, labels, reduction="sum")
                flipped[1] += (mean_logits.argmax(dim=1) == labels).sum()
            if keep_logits:
                kept.append(logits.cpu())
        if confusion is None:
            raise UserError(
                f"an evaluation needs an image per worker: got {len(table)} for {world.size} workers"
            )
        world.sum_(loss)
        world.sum_(confusion)
        world.sum_(flipped)
    counts = confusion.view(classes, classes).cpu()
    per_class = zip(counts.diagonal().tolist(), counts.sum(dim=1).tolist(), strict=True)
    return Evaluation(
        loss=loss.item() / len(table),
        accuracy=counts.diagonal().sum().item() / len(table),
        per_class_accuracy=tuple(right / images if images else None for right, images in per_class),
        confusion=counts.tolist(),
        flip=Flipped(loss=flipped[0].item() / len(table), accuracy=flipped[1].item() / len(table))
        if flip
        else None,
        logits=torch.cat(kept) if kept else None,
    )
