"""Evaluation of a network on a split; each image counts once, for any number of workers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from platform.common.errors import UserError
from platform.data.dataset import Split
from platform.data.image_folders import ImageFolderSplit
from platform.data.normalization import Normalization
from platform.training.acceleration.precision import ComputePrecision, autocast, reproducible_convolutions
from platform.training.distributed import World, single
from platform.training.inputs.augment import DeviceEvaluationSet
from platform.training.inputs.batches import EvaluationSet, open_evaluation_set


@dataclass(frozen=True, kw_only=True)
class FlipEvaluation:
    """An evaluation with test-time flip, which averages the logits of each image and its mirror image.

    It costs a second pass and is comparable only with other results that use test-time flip.
    """

    loss: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of a network on a split."""

    loss: float
    """Mean cross-entropy in nats."""
    accuracy: float
    """Top-1, 0..1."""
    per_class_accuracy: tuple[float | None, ...]
    """Recall of each class, 0..1; None for a class without images."""
    confusion: list[list[int]]
    """Images by [true class][predicted class]."""
    flip: FlipEvaluation | None = None
    """The result with test-time flip, if requested."""
    logits: Tensor | None = None
    """float32 [N, classes], on the CPU, if requested."""


def evaluate(
    network: nn.Module,
    split: Split | ImageFolderSplit,
    normalization: Normalization,
    *,
    device: torch.device,
    precision: ComputePrecision,
    keep_logits: bool = False,
    flip: bool = False,
    size: int = 224,
    progress: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Evaluate `network`, which is moved to `device`, on `split`; otherwise as `evaluate_set`.

    `normalization` is that of the network's training, and `size` the side in pixels of its input, for an
    `ImageFolderSplit`.

    Raises:
        UserError: the loss is NaN or infinite.
    """
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    world = single(device)
    images = open_evaluation_set(split, normalization, size=size, world=world)
    result = evaluate_set(
        network,
        images,
        world=world,
        precision=precision,
        keep_logits=keep_logits,
        flip=flip,
        progress=progress,
    )
    if not all(math.isfinite(each.loss) for each in (result, result.flip) if each is not None):
        raise UserError(
            f"the loss of a model must be finite, but on {len(split):,} images it is {result.loss}: the "
            "model diverged in training; train again with a lower optimizer.lr, or use another model"
        )
    return result


def evaluation_batch_size(evaluation_set: EvaluationSet, device: torch.device) -> int:
    """Return the default number of images per forward pass.

    On a GPU each batch launches hundreds of kernels, so large batches are faster; the larger images of a
    `FileEvaluationSet` would need too much memory.
    """
    return 2500 if device.type == "cuda" and isinstance(evaluation_set, DeviceEvaluationSet) else 500


def evaluate_set(
    network: nn.Module,
    evaluation_set: EvaluationSet,
    *,
    world: World,
    precision: ComputePrecision,
    keep_logits: bool = False,
    flip: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Evaluate a network that maps float32 [n, C, H, W] to logits [n, classes]; it is left in eval mode.

    Each worker evaluates its share of the images, and all return the total; `logits`, if requested, are those
    of the worker's own images. `progress` is called with the number of images done, after each batch.
    """
    network.eval()
    count = len(evaluation_set)
    batch_size = evaluation_batch_size(evaluation_set, world.device)
    loss = torch.zeros((), dtype=torch.float64, device=world.device)
    # Summed loss and correct predictions with test-time flip.
    flipped = torch.zeros(2, dtype=torch.float64, device=world.device)
    confusion: Tensor | None = None
    kept_logits = []
    done = 0
    with torch.inference_mode(), reproducible_convolutions():
        for images, labels in evaluation_set.batches(world.slice_of(count), batch_size):
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
                kept_logits.append(logits.cpu())
            done += len(labels)
            progress(done)
        if confusion is None:
            raise UserError(f"an evaluation needs an image per worker: got {count} for {world.size} workers")
        world.sum_(loss)
        world.sum_(confusion)
        world.sum_(flipped)
    counts = confusion.view(classes, classes).cpu()
    per_class = zip(counts.diagonal().tolist(), counts.sum(dim=1).tolist(), strict=True)
    return Evaluation(
        loss=loss.item() / count,
        accuracy=counts.diagonal().sum().item() / count,
        per_class_accuracy=tuple(correct / images if images else None for correct, images in per_class),
        confusion=counts.tolist(),
        flip=FlipEvaluation(loss=flipped[0].item() / count, accuracy=flipped[1].item() / count)
        if flip
        else None,
        logits=torch.cat(kept_logits) if kept_logits else None,
    )
