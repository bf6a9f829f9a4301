"""Batches of larger pictures, decoded by loader processes: what `augment` is for tables of small images.

Each picture gets a view of its own: its shorter side is resized to a random length, a square is cut out at a
random place and mirrored or not (He et al. 2016, section 3.4); on the device, random shares of the
principal colors are added (Krizhevsky et al. 2012, section 4.1) and the mean is subtracted.

All randomness of an epoch is drawn at its beginning from (seed, epoch) alone, as for tables: any number of
training workers, and any number of loader processes, sees the same pictures in the same batches.
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

from platform.cores import usable_cores
from platform.data.image_folders import PictureData, PictureSplit, evaluation_side
from platform.data.images.decode import decode_image
from platform.data.images.framing import center_view, resized_shape, view
from platform.data.normalization import Normalization
from platform.errors import UserError
from platform.training.config import AugmentConfig
from platform.training.distributed import World
from platform.training.inputs.augment import Batch, Place
from platform.training.inputs.budget import Budget

_MOST_LOADERS = 16


class View(NamedTuple):
    """One look at one picture: what a loader process is asked for."""

    file: str
    shorter_side: int
    """What the shorter side is resized to, in pixels."""
    y: float
    """Where the square lies between top (0) and bottom (1)."""
    x: float
    flip: bool


@dataclass(frozen=True, eq=False)
class PictureDraw:
    """The randomness of one epoch over N pictures; rows are in training order."""

    order: NDArray[np.int64]
    """[N]: a permutation of the pictures."""
    shorter_side: NDArray[np.int64]
    """[N], in pixels."""
    place: NDArray[np.float64]
    """[N, 2]: y and x of the square, 0 to 1."""
    flip: NDArray[np.bool_]
    """[N]."""
    color: NDArray[np.float32]
    """[N, 3]: the shares of the principal colors."""


def draw_pictures(config: AugmentConfig, *, pictures: int, seed: int, epoch: int) -> PictureDraw:
    """Draw the order and the augmentation of `epoch` (from 0)."""
    if config.shorter_side is None:
        raise AssertionError("RunConfig refuses pictures without augment.shorter_side")
    streams = np.random.SeedSequence([seed, epoch]).spawn(5)
    order, side, place, flip, color = (np.random.default_rng(stream) for stream in streams)
    least, largest = config.shorter_side
    shares = color.standard_normal((pictures, 3), dtype=np.float32) * np.float32(config.color or 0.0)
    return PictureDraw(
        order=order.permutation(pictures),
        shorter_side=side.integers(least, largest + 1, pictures),
        place=place.random((pictures, 2)),
        flip=flip.random(pictures) < (0.5 if config.flip else 0.0),
        color=shares,
    )


class PictureTable:
    """The training pictures, and the batches made of them; `TrainingTable` for pictures."""

    def __init__(
        self,
        data: PictureData,
        config: AugmentConfig,
        *,
        seed: int,
        budget: Budget,
        world: World,
        loaders: int | None = None,
    ) -> None:
        self._data, self._config, self._seed = data, config, seed
        self._budget, self._world = budget, world
        self._size = data.info.image_shape[1]
        self._loaders = default_loaders(world) if loaders is None else loaders
        self._labels = torch.from_numpy(data.train.labels)
        self._axes = torch.from_numpy(data.color_axes)
        self._normalize = _Normalizer(data.normalization, world.device)
        self._draw: PictureDraw | None = None
        self._batches: Iterator[Batch] = iter(())
        self._next = 0

    def __len__(self) -> int:
        return len(self._data.train)

    def draw(self, epoch: int) -> PictureDraw:
        """Draw the order and the augmentation of `epoch` (from 0)."""
        return draw_pictures(self._config, pictures=len(self), seed=self._seed, epoch=epoch)

    def batch(self, draw: PictureDraw, place: Place, part: slice) -> Batch:
        """Return this worker's part of a batch; the steps of a draw are asked for in ascending order.

        Args:
            draw: the epoch's randomness.
            place: which batch.
            part: this worker's pictures within the batch.

        Raises:
            UserError: a picture cannot be decoded; the message names its file.
        """
        step = place.step
        if draw is not self._draw or step != self._next:
            self._draw, self._next = draw, step
            self._batches = self._load(draw, step)
        self._next += 1
        found = next(self._batches)
        if len(found.labels) != part.stop - part.start or place.rows != self._budget.batch(step):
            raise AssertionError(f"the budget and the loop disagree on step {step}: {place.rows}, {part}")
        return found

    def _load(self, draw: PictureDraw, first: int) -> Iterator[Batch]:
        """Yield the batches from step `first` to the epoch's end; loader processes work ahead."""
        rows = [self._rows(step) for step in range(first, self._budget.steps_per_epoch)]
        views = ([self._view(draw, row) for row in range(part.start, part.stop)] for part in rows)
        loader = _loader(_Views(self._size), views, self._loaders, self._world)
        for part, pixels in zip(rows, loader, strict=True):
            chosen = torch.from_numpy(draw.order[part])
            labels = self._labels[chosen].to(self._world.device)
            shift = torch.from_numpy(draw.color[part]) @ self._axes
            images = self._normalize(_unwrap(pixels), shift)
            yield Batch(images, labels)

    def _rows(self, step: int) -> slice:
        """Return the rows of the draw that this worker takes in `step`; at least one, as in `step`."""
        batch = self._budget.batch(step)
        part = self._world.slice_of(batch.stop - batch.start)
        if part.stop == part.start:
            part = slice(0, 1)
        return slice(batch.start + part.start, batch.start + part.stop)

    def _view(self, draw: PictureDraw, row: int) -> View:
        y, x = draw.place[row].tolist()
        file = str(self._data.train.files[draw.order[row]])
        return View(file, int(draw.shorter_side[row]), y, x, bool(draw.flip[row]))


class PictureEvaluationTable:
    """A split's pictures, each its center view, in order; `EvaluationTable` for pictures."""

    def __init__(
        self,
        split: PictureSplit,
        normalization: Normalization,
        *,
        size: int,
        world: World,
        loaders: int | None = None,
    ) -> None:
        self._split, self._size, self._world = split, size, world
        self._loaders = default_loaders(world) if loaders is None else loaders
        self._normalize = _Normalizer(normalization, world.device)

    def __len__(self) -> int:
        return len(self._split)

    def batches(self, rows: slice, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (float32 images [n, 3, size, size], int64 labels [n]) over `rows`, n <= batch_size."""
        files, labels = self._split.files[rows], torch.from_numpy(self._split.labels[rows])
        starts = range(0, len(files), batch_size)
        asked = (files[start : start + batch_size].tolist() for start in starts)
        loader = _loader(_CenterViews(self._size), asked, self._loaders, self._world)
        for start, pixels in zip(starts, loader, strict=True):
            answers = labels[start : start + batch_size].to(self._world.device)
            yield self._normalize(_unwrap(pixels)), answers


def default_loaders(world: World) -> int:
    """Return how many processes decode: the cores this process may use, shared by the training workers."""
    return max(1, min(_MOST_LOADERS, usable_cores() // world.size))


class _Views(Dataset[Tensor | UserError]):
    """Random views; indexed by the views themselves."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __getitem__(self, index: View) -> Tensor | UserError:
        try:
            image = decode_image(index.file)
        except UserError as error:
            return error
        height, width = resized_shape(image.shape[0], image.shape[1], index.shorter_side)
        top, left = round(index.y * (height - self._size)), round(index.x * (width - self._size))
        seen = view(image, shorter_side=index.shorter_side, size=self._size, top=top, left=left)
        return _channels_first(seen[:, ::-1] if index.flip else seen)


class _CenterViews(Dataset[Tensor | UserError]):
    """Center views; indexed by the files' paths."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __getitem__(self, index: str) -> Tensor | UserError:
        try:
            image = decode_image(index)
        except UserError as error:
            return error
        return _channels_first(center_view(image, shorter_side=evaluation_side(self._size), size=self._size))


def _channels_first(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _loader(
    views: Dataset[Tensor | UserError],
    asked: Iterable[list[View]] | Iterable[list[str]],
    loaders: int,
    world: World,
) -> DataLoader[Tensor | UserError]:
    return DataLoader(
        views,
        # What a batch sampler yields is what the data set is indexed by, number or not.
        batch_sampler=cast("Iterable[list[int]]", asked),
        num_workers=loaders,
        collate_fn=_together,
        pin_memory=world.device.type == "cuda",
    )


def _together(pictures: list[Tensor | UserError]) -> Tensor | UserError:
    """Stack a batch; an error takes its place, since a loader's exception would arrive as a traceback."""
    for picture in pictures:
        if isinstance(picture, UserError):
            return picture
    return torch.stack(cast("list[Tensor]", pictures))


def _unwrap(pixels: Tensor | UserError) -> Tensor:
    if isinstance(pixels, UserError):
        raise pixels
    return pixels


class _Normalizer:
    """uint8 [n, 3, H, W] from a loader to the network's float32 input on the device, channels last."""

    def __init__(self, normalization: Normalization, device: torch.device) -> None:
        self._device = device
        self._std = torch.tensor(normalization.std, device=device).view(-1, 1, 1)
        mean = torch.tensor(normalization.mean, device=device)
        self._shift = -(mean if mean.dim() == 3 else mean.view(-1, 1, 1)) / self._std
        self._scale = 1 / (255 * self._std)

    def __call__(self, pixels: Tensor, color: Tensor | None = None) -> Tensor:
        """Normalize; `color` float32 [n, 3] is added to each picture's pixels in 0..1."""
        images = pixels.to(self._device, non_blocking=True)
        images = (
            images.to(torch.float32, memory_format=torch.channels_last).mul_(self._scale).add_(self._shift)
        )
        if color is not None:
            images.add_(color.to(self._device)[:, :, None, None] / self._std)
        return images
