"""Batches of larger images, decoded from files by loader processes; `augment` does the same for small images.

Each training image is augmented on its own: its shorter side is resized to a random length, a square is
cropped at a random position and mirrored at random (He et al. 2016, section 3.4). On the device, random
multiples of the principal colors are added (Krizhevsky et al. 2012, section 4.1) and the mean is subtracted.

All randomness of an epoch is sampled at its beginning from (seed, epoch) alone, as in `augment`: the batches
are the same for any number of training workers and of loader processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from platform.common.cores import usable_cores
from platform.common.errors import UserError
from platform.data.image_folders import ImageFolderSplit, evaluation_side
from platform.data.images.cropping import resize_and_center_crop, resize_and_crop, resized_shape
from platform.data.images.decode import decode_image
from platform.data.normalization import Normalization
from platform.data.training_data import TrainingData
from platform.training.config import AugmentConfig
from platform.training.distributed import World
from platform.training.inputs.augment import Batch, BatchPosition, Normalizer
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

    def __init__(self, data: TrainingData, config: AugmentConfig, *, budget: Budget, world: World) -> None:
        assert isinstance(data.train, ImageFolderSplit)  # noqa: S101 - `open_training_set` has checked it
        self._split, self._config = data.train, config
        self._budget, self._world = budget, world
        self._size, self._num_loaders = data.info.image_shape[1], default_num_loaders(world)
        self._labels = torch.from_numpy(data.train.labels)
        self._color_axes = torch.tensor(data.color_axes)
        self._normalize = Normalizer(data.normalization, world.device)
        self._randomness: FileEpochRandomness | None = None
        self._batches: Iterator[Batch] = iter(())
        self._next_step = 0

    def __len__(self) -> int:
        return len(self._split)

    def sample_randomness(self, epoch: int, *, seed: int, steps: int) -> FileEpochRandomness:
        """Sample the order and the augmentation of `epoch` (from 0); independent of `steps`."""
        del steps
        return sample_file_randomness(self._config, images=len(self), seed=seed, epoch=epoch)

    def batch(self, randomness: FileEpochRandomness, position: BatchPosition, share: slice) -> Batch:
        """Return one worker's `share` of a batch; the steps of an epoch must be requested in ascending order.

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
        loader = _loader(partial(random_crop, size=self._size), requests, self._num_loaders, self._world)
        for part, pixels in zip(rows, loader, strict=True):
            labels = self._labels[torch.from_numpy(randomness.order[part])].to(self._world.device)
            color = torch.from_numpy(randomness.color_shift[part]) @ self._color_axes
            yield Batch(self._normalize(pixels, color), labels)

    def _rows(self, step: int) -> slice:
        """Return the rows that this worker takes in `step`; at least one, as in `step.StepRunner`."""
        batch = self._budget.batch(step)
        share = self._world.slice_of(batch.stop - batch.start)
        if share.stop == share.start:
            share = slice(0, 1)
        return slice(batch.start + share.start, batch.start + share.stop)

    def _request(self, randomness: FileEpochRandomness, row: int) -> CropRequest:
        y, x = randomness.crop_position[row].tolist()
        file = str(self._split.files[randomness.order[row]])
        return CropRequest(file, int(randomness.shorter_side[row]), y, x, bool(randomness.flip[row]))


class FileEvaluationSet:
    """A split of image files, center-cropped, in order."""

    def __init__(
        self, split: ImageFolderSplit, normalization: Normalization, *, size: int, world: World
    ) -> None:
        self._split, self._size, self._world = split, size, world
        self._normalize = Normalizer(normalization, world.device)

    def __len__(self) -> int:
        return len(self._split)

    def batches(self, rows: slice, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (float32 images [n, 3, size, size], int64 labels [n]) over `rows`, n <= batch_size."""
        files, labels = self._split.files[rows], torch.from_numpy(self._split.labels[rows])
        starts = range(0, len(files), batch_size)
        requests = (files[start : start + batch_size].tolist() for start in starts)
        crop, num_loaders = partial(_center_crop, size=self._size), default_num_loaders(self._world)
        loader = _loader(crop, requests, num_loaders, self._world)
        for start, pixels in zip(starts, loader, strict=True):
            yield self._normalize(pixels), labels[start : start + batch_size].to(self._world.device)


def default_num_loaders(world: World) -> int:
    """Return the number of loader processes: the usable cores, divided among the training workers."""
    return max(1, min(_MAX_LOADERS, usable_cores() // world.size))


def random_crop(request: CropRequest, *, size: int) -> NDArray[np.uint8]:
    """Return the requested crop, uint8 [size, size, 3]."""
    image = decode_image(request.file)
    height, width = resized_shape(image.shape[0], image.shape[1], request.shorter_side)
    top, left = round(request.y * (height - size)), round(request.x * (width - size))
    crop = resize_and_crop(image, shorter_side=request.shorter_side, size=size, top=top, left=left)
    return crop[:, ::-1] if request.flip else crop


def _center_crop(file: str, *, size: int) -> NDArray[np.uint8]:
    return resize_and_center_crop(decode_image(file), shorter_side=evaluation_side(size), size=size)


@dataclass
class _Crops(Dataset[Tensor | UserError]):
    """Decoded crops; the index is a request. An error raised in a loader would arrive as a traceback."""

    crop: Callable[[Any], NDArray[np.uint8]]

    def __getitem__(self, index: Any) -> Tensor | UserError:
        try:
            return torch.from_numpy(np.ascontiguousarray(self.crop(index).transpose(2, 0, 1)))
        except UserError as error:
            return error


def _loader(
    crop: Callable[[Any], NDArray[np.uint8]], requests: Iterable[list[Any]], num_loaders: int, world: World
) -> Iterator[Tensor]:
    """Yield the crops of each batch of requests, uint8 [n, 3, size, size], or raise their first error."""
    loader: Iterable[Tensor | NDArray[np.uint8] | UserError] = DataLoader(
        _Crops(crop),
        # DataLoader passes the items of the batch sampler to `__getitem__`; they need not be integers.
        batch_sampler=requests,
        num_workers=num_loaders,
        collate_fn=_collate,
        pin_memory=world.device.type == "cuda",
    )
    for pixels in loader:
        if isinstance(pixels, UserError):
            raise pixels
        yield torch.as_tensor(pixels)


def _collate(images: list[Tensor | UserError]) -> Tensor | NDArray[np.uint8] | UserError:
    """Stack a batch, or return its first error."""
    error = next((image for image in images if isinstance(image, UserError)), None)
    if error is not None:
        return error
    pixels = torch.stack(cast("list[Tensor]", images))
    try:
        pixels.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError:  # /dev/shm is full (64 MB in containers): an array is copied through a pipe
        return pixels.numpy()
    return pixels
