"""Batches of larger images, decoded from files by loader processes; `augment` does the same for small images.

Each training image is augmented on its own: its shorter side is resized to a random length, a square is
cropped at a random position and mirrored at random (He et al. 2016, section 3.4). On the device, random
multiples of the principal colors are added (Krizhevsky et al. 2012, section 4.1) and the mean is subtracted.

All randomness of an epoch is sampled at its beginning from (seed, epoch) alone, as in `augment`: the batches
are the same for any number of training workers and of loader processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from platform.common.cores import usable_cores
from platform.common.errors import UserError
from platform.data.image_folders import ImageFolderSplit, ImageFolderTrainingData, evaluation_side
from platform.data.images.cropping import resize_and_center_crop, resize_and_crop, resized_shape
from platform.data.images.decode import decode_image
from platform.data.normalization import Normalization
from platform.training.config import AugmentConfig
from platform.training.distributed import World
from platform.training.inputs.augment import Batch, BatchPosition
from platform.training.inputs.budget import Budget

_MAX_LOADERS = 16


class CropRequest(NamedTuple):
    """A file and its crop parameters, as sent to a loader process."""

    file: str
    shorter_side: int
    """Length of the shorter side after resizing, in pixels."""
    y: float
    """Position of the crop between top (0) and bottom (1)."""
    x: float
    """Position of the crop between left (0) and right (1)."""
    flip: bool


@dataclass(frozen=True, eq=False)
class FileEpochRandomness:
    """The order and augmentation parameters of one epoch over N image files; rows are in training order."""

    order: NDArray[np.int64]
    """[N]: a permutation of the images."""
    shorter_side: NDArray[np.int64]
    """[N], in pixels."""
    crop_position: NDArray[np.float64]
    """[N, 2]: y and x of the crop, 0 to 1."""
    flip: NDArray[np.bool_]
    """[N]."""
    color_shift: NDArray[np.float32]
    """[N, 3]: coefficients of the principal colors."""


def sample_file_randomness(
    config: AugmentConfig, *, images: int, seed: int, epoch: int
) -> FileEpochRandomness:
    """Sample the order and the augmentation of `epoch` (from 0) over `images` files."""
    if config.shorter_side is None:
        raise AssertionError("RunConfig rejects image files without augment.shorter_side")
    streams = np.random.SeedSequence([seed, epoch]).spawn(5)
    order, side, position, flip, color = (np.random.default_rng(stream) for stream in streams)
    smallest, largest = config.shorter_side
    color_shift = color.standard_normal((images, 3), dtype=np.float32) * np.float32(config.color or 0.0)
    return FileEpochRandomness(
        order=order.permutation(images),
        shorter_side=side.integers(smallest, largest + 1, images),
        crop_position=position.random((images, 2)),
        flip=flip.random(images) < (0.5 if config.flip else 0.0),
        color_shift=color_shift,
    )


class FileTrainingSet:
    """The training images in files, and the augmented batches made from them."""

    def __init__(
        self,
        data: ImageFolderTrainingData,
        config: AugmentConfig,
        *,
        budget: Budget,
        world: World,
        num_loaders: int | None = None,
    ) -> None:
        self._data, self._config = data, config
        self._budget, self._world = budget, world
        self._size = data.info.image_shape[1]
        self._num_loaders = default_num_loaders(world) if num_loaders is None else num_loaders
        self._labels = torch.from_numpy(data.train.labels)
        self._color_axes = torch.from_numpy(data.color_axes)
        self._normalize = _Normalizer(data.normalization, world.device)
        self._randomness: FileEpochRandomness | None = None
        self._batches: Iterator[Batch] = iter(())
        self._next_step = 0

    def __len__(self) -> int:
        return len(self._data.train)

    def sample_randomness(self, epoch: int, *, seed: int, steps: int) -> FileEpochRandomness:
        """Sample the order and the augmentation of `epoch` (from 0); independent of `steps`."""
        del steps
        return sample_file_randomness(self._config, images=len(self), seed=seed, epoch=epoch)

    def batch(self, randomness: FileEpochRandomness, position: BatchPosition, share: slice) -> Batch:
        """Return one worker's part of a batch; the steps of an epoch must be requested in ascending order.

        Args:
            randomness: order and augmentation of the epoch.
            position: the batch in the epoch.
            share: this worker's images within the batch.

        Raises:
            UserError: an image cannot be decoded; the message names its file.
        """
        step = position.step
        if randomness is not self._randomness or step != self._next_step:
            self._randomness, self._next_step = randomness, step
            self._batches = self._load(randomness, step)
        self._next_step += 1
        batch = next(self._batches)
        if len(batch.labels) != share.stop - share.start or position.rows != self._budget.batch(step):
            raise AssertionError(f"budget and caller disagree about step {step}: {position.rows}, {share}")
        return batch

    def _load(self, randomness: FileEpochRandomness, first_step: int) -> Iterator[Batch]:
        """Yield the batches from `first_step` to the end of the epoch; loader processes prefetch them."""
        rows = [self._rows(step) for step in range(first_step, self._budget.steps_per_epoch)]
        requests = ([self._request(randomness, row) for row in range(r.start, r.stop)] for r in rows)
        loader = _loader(_RandomCrops(self._size), requests, self._num_loaders, self._world)
        for part, pixels in zip(rows, loader, strict=True):
            labels = self._labels[torch.from_numpy(randomness.order[part])].to(self._world.device)
            color = torch.from_numpy(randomness.color_shift[part]) @ self._color_axes
            yield Batch(self._normalize(_raise_if_error(pixels), color), labels)

    def _rows(self, step: int) -> slice:
        """Return the rows that this worker takes in `step`; at least one, as in `step.StepRunner`."""
        batch = self._budget.batch(step)
        share = self._world.slice_of(batch.stop - batch.start)
        if share.stop == share.start:
            share = slice(0, 1)
        return slice(batch.start + share.start, batch.start + share.stop)

    def _request(self, randomness: FileEpochRandomness, row: int) -> CropRequest:
        y, x = randomness.crop_position[row].tolist()
        file = str(self._data.train.files[randomness.order[row]])
        return CropRequest(file, int(randomness.shorter_side[row]), y, x, bool(randomness.flip[row]))


class FileEvaluationSet:
    """A split of image files, center-cropped, in order."""

    def __init__(
        self,
        split: ImageFolderSplit,
        normalization: Normalization,
        *,
        size: int,
        world: World,
        num_loaders: int | None = None,
    ) -> None:
        self._split, self._size, self._world = split, size, world
        self._num_loaders = default_num_loaders(world) if num_loaders is None else num_loaders
        self._normalize = _Normalizer(normalization, world.device)

    def __len__(self) -> int:
        return len(self._split)

    def batches(self, rows: slice, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (float32 images [n, 3, size, size], int64 labels [n]) over `rows`, n <= batch_size."""
        files, labels = self._split.files[rows], torch.from_numpy(self._split.labels[rows])
        starts = range(0, len(files), batch_size)
        requests = (files[start : start + batch_size].tolist() for start in starts)
        loader = _loader(_CenterCrops(self._size), requests, self._num_loaders, self._world)
        for start, pixels in zip(starts, loader, strict=True):
            batch_labels = labels[start : start + batch_size].to(self._world.device)
            yield self._normalize(_raise_if_error(pixels)), batch_labels


def default_num_loaders(world: World) -> int:
    """Return the number of loader processes: the usable cores, divided among the training workers."""
    return max(1, min(_MAX_LOADERS, usable_cores() // world.size))


class _RandomCrops(Dataset[Tensor | UserError]):
    """Random crops; the index is the `CropRequest`."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __getitem__(self, index: CropRequest) -> Tensor | UserError:
        try:
            image = decode_image(index.file)
        except UserError as error:
            return error
        height, width = resized_shape(image.shape[0], image.shape[1], index.shorter_side)
        top, left = round(index.y * (height - self._size)), round(index.x * (width - self._size))
        crop = resize_and_crop(image, shorter_side=index.shorter_side, size=self._size, top=top, left=left)
        return _channels_first(crop[:, ::-1] if index.flip else crop)


class _CenterCrops(Dataset[Tensor | UserError]):
    """Center crops; the index is the path of the file."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __getitem__(self, index: str) -> Tensor | UserError:
        try:
            image = decode_image(index)
        except UserError as error:
            return error
        shorter_side = evaluation_side(self._size)
        return _channels_first(resize_and_center_crop(image, shorter_side=shorter_side, size=self._size))


def _channels_first(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _loader(
    crops: Dataset[Tensor | UserError],
    requests: Iterable[list[CropRequest]] | Iterable[list[str]],
    num_loaders: int,
    world: World,
) -> DataLoader[Tensor | UserError]:
    return DataLoader(
        crops,
        # DataLoader passes the items of the batch sampler to `__getitem__`; they need not be integers.
        batch_sampler=cast("Iterable[list[int]]", requests),
        num_workers=num_loaders,
        collate_fn=_collate,
        pin_memory=world.device.type == "cuda",
    )


def _collate(images: list[Tensor | UserError]) -> Tensor | UserError:
    """Stack a batch, or return its first error: raised in a loader, it would arrive as a traceback."""
    for image in images:
        if isinstance(image, UserError):
            return image
    return torch.stack(cast("list[Tensor]", images))


def _raise_if_error(pixels: Tensor | UserError) -> Tensor:
    if isinstance(pixels, UserError):
        raise pixels
    return pixels


class _Normalizer:
    """Converts uint8 [n, 3, H, W] from a loader to float32 on the device, normalized, channels last."""

    def __init__(self, normalization: Normalization, device: torch.device) -> None:
        self._device = device
        self._std = torch.tensor(normalization.std, device=device).view(-1, 1, 1)
        mean = torch.tensor(normalization.mean, device=device)
        self._shift = -(mean if mean.dim() == 3 else mean.view(-1, 1, 1)) / self._std
        self._scale = 1 / (255 * self._std)

    def __call__(self, pixels: Tensor, color: Tensor | None = None) -> Tensor:
        """Normalize; `color` float32 [n, 3] is added to the pixels of each image, in units of 0..1."""
        images = pixels.to(self._device, non_blocking=True)
        images = (
            images.to(torch.float32, memory_format=torch.channels_last).mul_(self._scale).add_(self._shift)
        )
        if color is not None:
            images.add_(color.to(self._device)[:, :, None, None] / self._std)
        return images
