"""Random crops, flips, holes and mixtures of whole batches, on the device, each image with its own luck.

The training images lie on the device as one uint8 table, already padded and mirrored. A batch is a single
gather from a view with every crop position as an axis: 0.19 s of one core for 50,000 images, against 8.9 s
with PIL in a DataLoader (select, crop and flip alone). There are no loader processes.

All randomness of an epoch is drawn at its beginning, on the CPU, from (seed, epoch) alone: the images of a
batch, their order and their augmentation are the same for any number of workers and any device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from platform.data.dataset import Split
from platform.data.normalization import Normalization
from platform.training.config import AugmentConfig


@dataclass(frozen=True)
class Batch:
    """One worker's part of a batch; n images."""

    images: Tensor
    """float32 [n, C, H, W], normalized, channels last in memory."""
    labels: Tensor
    """int64 [n]."""
    other_labels: Tensor | None = None
    """int64 [n]: the labels of the images mixed in, if any are."""
    share: Tensor | None = None
    """[]: how much of each image is its own, 0..1; the rest is of the image mixed in."""

    def rows(self, rows: slice) -> Batch:
        """Return some of the images."""
        other_labels = None if self.other_labels is None else self.other_labels[rows]
        return Batch(self.images[rows], self.labels[rows], other_labels, self.share)


@dataclass(frozen=True)
class Place:
    """Which batch of its epoch a step takes: as the host knows it, and as the device does.

    A step that was captured knows by the device's numbers alone where it is; the host's stay those of the
    moment of the capture.
    """

    step: int
    """In the epoch, from 0."""
    rows: slice
    """The rows of the draw that make up the whole batch, all workers together."""
    device_step: Tensor
    """int64 []: `step`, on the device."""
    device_rows: Tensor
    """int64 [batch]: `rows`, one by one, on the device."""

    @classmethod
    def of(cls, step: int, rows: slice, device: torch.device) -> Place:
        """Return the place of a step, from the host's numbers."""
        return cls(
            step, rows, torch.tensor(step, device=device), torch.arange(rows.start, rows.stop, device=device)
        )


class Mixture(NamedTuple):
    """How the images of each batch of an epoch are mixed with the next image of their batch.

    Mixup lays all of the other image over the image (Zhang et al. 2018); CutMix replaces a rectangle (Yun et
    al. 2019). Where both are asked for, each batch gets one of them, by a fair coin.
    """

    shares: Tensor
    """float32 [steps]: how much of an image is its own, and how much of the loss its own label's."""
    blends: Tensor
    """float32 [steps]: the weight of an image's own pixels outside the rectangle; 1 in a batch of CutMix."""
    boxes: Tensor
    """int64 [steps, 4]: top, left, bottom, right of the rectangle; empty in a batch of mixup."""


@dataclass(frozen=True)
class EpochDraw:
    """The randomness of one epoch over N images, on the training device; rows are in training order."""

    order: Tensor
    """int64 [N]: a permutation of the images."""
    flip: Tensor
    """int64 [N]: 1 where the image is mirrored."""
    dy: Tensor
    """int64 [N]: first row of the crop in the padded image."""
    dx: Tensor
    """int64 [N]: first column of the crop."""
    hole_y: Tensor
    """int64 [N, holes]: row of each hole's center, anywhere in the image."""
    hole_x: Tensor
    """int64 [N, holes]."""
    mixture: Mixture | None
    """How the images of each batch are mixed, if they are."""

    def copy_(self, other: EpochDraw) -> None:
        """Take over another epoch's values, in place: a captured step reads where it has always read."""
        for mine, its in zip(self._tensors(), other._tensors(), strict=True):
            mine.copy_(its)

    def _tensors(self) -> list[Tensor]:
        own = [self.order, self.flip, self.dy, self.dx, self.hole_y, self.hole_x]
        return own if self.mixture is None else [*own, *self.mixture]


def draw_epoch(
    config: AugmentConfig,
    *,
    images: int,
    size: tuple[int, int],
    steps: int,
    seed: int,
    epoch: int,
    device: torch.device,
) -> EpochDraw:
    """Draw the order and the augmentation of `epoch` (from 0).

    Args:
        config: what to draw; a part that is switched off takes nothing from the others' luck.
        images: N, the number of training images.
        size: height and width of an image.
        steps: batches in the epoch.
        seed: the run's seed.
        epoch: the epoch, from 0.
        device: where the result goes.
    """
    streams = np.random.SeedSequence([seed, epoch]).spawn(8)
    order, flip, crop, holes, *mixture = (np.random.default_rng(stream) for stream in streams)
    offsets = 2 * config.crop_padding + 1
    count = config.cutout.holes if config.cutout.length else 0

    def to_device(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.int64, copy=False)).to(device, non_blocking=True)

    return EpochDraw(
        order=to_device(order.permutation(images)),
        flip=to_device(flip.integers(0, 1 + config.flip, images)),
        dy=to_device(crop.integers(0, offsets, images)),
        dx=to_device(crop.integers(0, offsets, images)),
        hole_y=to_device(holes.integers(0, size[0], (images, count))),
        hole_x=to_device(holes.integers(0, size[1], (images, count))),
        mixture=_draw_mixture(config, size, steps, mixture, device)
        if config.mixup or config.cutmix
        else None,
    )


def _draw_mixture(
    config: AugmentConfig,
    size: tuple[int, int],
    steps: int,
    streams: list[np.random.Generator],
    device: torch.device,
) -> Mixture:
    """Draw how each batch is mixed; the rectangles as torchvision's `v2.CutMix` draws them."""
    blend, cut, center, coin = streams
    both = config.mixup and config.cutmix
    cuts = coin.random(steps) < 0.5 if both else np.full(steps, bool(config.cutmix))
    blends = np.where(cuts, 1.0, blend.beta(config.mixup, config.mixup, steps) if config.mixup else 1.0)
    kept = cut.beta(config.cutmix, config.cutmix, steps) if config.cutmix else np.ones(steps)
    half_side = 0.5 * np.sqrt(1 - np.where(cuts, kept, 1.0))
    # One row of two numbers per step: the draws of a step do not depend on how many follow it.
    middle = (center.random((steps, 2)) * size).astype(np.int64)
    half = (half_side[:, None] * size).astype(np.int64)
    boxes = np.concatenate([np.maximum(middle - half, 0), np.minimum(middle + half, size)], axis=1)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    # The rectangle is clipped at the border: what it covers counts, not what was drawn.
    shares = np.where(cuts, 1 - area / (size[0] * size[1]), blends)

    def to_device(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(device, non_blocking=True)

    return Mixture(
        to_device(shares.astype(np.float32)), to_device(blends.astype(np.float32)), to_device(boxes)
    )


class TrainingTable:
    """The training images and labels on the device, and the batches made of them."""

    def __init__(
        self, split: Split, normalization: Normalization, config: AugmentConfig, *, device: torch.device
    ) -> None:
        self._config = config
        self.size = (split.images.shape[2], split.images.shape[3])
        self._labels = torch.tensor(split.labels, device=device)
        self._windows = self._crops(_pixels(split).to(device))
        # (pixel / 255 - mean) / std as one multiplication and one addition.
        self._scale = torch.tensor(1 / (255 * normalization.std), device=device).view(-1, 1, 1)
        mean = torch.tensor(normalization.mean, device=device)
        self._per_pixel = mean.dim() == 3
        if self._per_pixel:
            # He et al. subtract the mean image before they pad and crop: it moves with the image.
            std = torch.tensor(normalization.std, device=device).view(-1, 1, 1)
            self._shift = self._crops((-mean / std)[None])
        else:
            self._shift = -mean.view(-1, 1, 1) * 255 * self._scale
        self._rows = torch.arange(self.size[0], device=device)
        self._columns = torch.arange(self.size[1], device=device)

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, draw: EpochDraw, place: Place, part: slice) -> Batch:
        """Return one worker's part of a batch; nothing in here waits for the device.

        Args:
            draw: the epoch's randomness.
            place: which batch.
            part: this worker's images within the batch.
        """
        rows = place.device_rows[part]
        images = self._augmented(draw, rows)
        labels = self._labels[draw.order[rows]]
        mixture = draw.mixture
        if mixture is None:
            return Batch(images, labels)
        # The next image of the whole batch: the order is random already.
        partners = place.device_rows.roll(-1)[part]
        others = self._augmented(draw, partners)
        if self._config.cutmix:
            inside = self._box(at_step(mixture.boxes, place.device_step))
            images = torch.where(inside, others, images)
        if self._config.mixup:
            blend = at_step(mixture.blends, place.device_step)
            images = images.mul_(blend).add_(others.mul_(1 - blend))
        share = at_step(mixture.shares, place.device_step)
        return Batch(images, labels, self._labels[draw.order[partners]], share)

    def _augmented(self, draw: EpochDraw, rows: Tensor) -> Tensor:
        order, flip, dy, dx = draw.order[rows], draw.flip[rows], draw.dy[rows], draw.dx[rows]
        pixels = self._windows[flip, order, :, dy, dx]
        images = pixels.to(torch.float32, memory_format=torch.channels_last).mul_(self._scale)
        images.add_(self._shift[flip, 0, :, dy, dx] if self._per_pixel else self._shift)
        if draw.hole_y.shape[1]:
            images.masked_fill_(self._holes(draw.hole_y[rows], draw.hole_x[rows]), 0)
        return images

    def _box(self, corners: Tensor) -> Tensor:
        """Return a mask [H, W] of a rectangle, given its top, left, bottom and right [4]."""
        top, left, bottom, right = corners.unbind()
        inside_y = (self._rows >= top) & (self._rows < bottom)
        inside_x = (self._columns >= left) & (self._columns < right)
        return inside_y[:, None] & inside_x[None, :]

    def _holes(self, y: Tensor, x: Tensor) -> Tensor:
        """Return a mask [n, 1, H, W] of the holes centered at `y`, `x` [n, holes], clipped at the border."""
        length = self._config.cutout.length
        top, left = (center[:, :, None] - length // 2 for center in (y, x))
        inside_y = (self._rows >= top) & (self._rows < top + length)
        inside_x = (self._columns >= left) & (self._columns < left + length)
        return (inside_y[:, :, :, None] & inside_x[:, :, None, :]).any(dim=1, keepdim=True)

    def _crops(self, images: Tensor) -> Tensor:
        """Return a view [mirrored, N, C, dy, dx, H, W] of `images` [N, C, H, W], padded with zeros.

        The pad is black where pixels are padded, and the mean where the mean image is.
        """
        margin = self._config.crop_padding
        count, channels, height, width = images.shape
        mirrored = 2 if self._config.flip else 1
        padded = images.new_zeros(mirrored, count, channels, height + 2 * margin, width + 2 * margin)
        inside = padded[..., margin : margin + height, margin : margin + width]
        inside[0] = images
        if self._config.flip:
            inside[1] = images.flip(-1)
        return padded.unfold(3, height, 1).unfold(4, width, 1)


def table_bytes_per_image(config: AugmentConfig, shape: tuple[int, int, int]) -> int:
    """Return what an image [C, H, W] takes in a `TrainingTable`: its padded pixels, mirrored ones too."""
    channels, height, width = shape
    margin = 2 * config.crop_padding
    return (2 if config.flip else 1) * channels * (height + margin) * (width + margin)


class EvaluationTable:
    """A split on the device, normalized batch by batch, in order, without augmentation."""

    def __init__(self, split: Split, normalization: Normalization, *, device: torch.device) -> None:
        self._images = _pixels(split).to(device)
        self._labels = torch.tensor(split.labels, device=device)
        std = torch.tensor(normalization.std, device=device).view(-1, 1, 1)
        mean = torch.tensor(normalization.mean, device=device)
        self._scale = 1 / (255 * std)
        self._shift = -(mean if mean.dim() == 3 else mean.view(-1, 1, 1)) / std

    def __len__(self) -> int:
        return len(self._labels)

    def batches(self, rows: slice, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (float32 images [n, C, H, W], int64 labels [n]) over `rows` of the split, n <= batch_size."""
        for start in range(rows.start, rows.stop, batch_size):
            chosen = slice(start, min(start + batch_size, rows.stop))
            pixels = self._images[chosen].to(torch.float32, memory_format=torch.channels_last)
            yield pixels.mul_(self._scale).add_(self._shift), self._labels[chosen]


def at_step(values: Tensor, step: Tensor) -> Tensor:
    """Return `values`[step] for a step on the device; plain indexing would wait for its value."""
    return values.index_select(0, step.reshape(1)).squeeze(0)


def _pixels(split: Split) -> Tensor:
    """Return the split's images without copying them, unless the array is read-only."""
    return torch.from_numpy(np.require(split.images, requirements=["W"]))
