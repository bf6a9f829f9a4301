"""Mean picture, deviation and principal colors of training pictures, from a sample of them.

10,000 pictures, spread evenly over the training set, are decoded and cut to what an evaluation sees: the mean
of a pixel is then known to about half a level of 255. The principal components are those of AlexNet's color
augmentation (Krizhevsky et al. 2012, section 4.1), of pixels in 0..1.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from platform.atomic import write_bytes
from platform.cores import usable_cores
from platform.data.dataset import Images, Notify, ignore_message
from platform.data.images.cropping import resize_and_center_crop
from platform.data.images.decode import decode_image
from platform.data.normalization import Normalization

SAMPLE = 10_000
_CHUNK = 64


@dataclass(frozen=True, eq=False)
class ImageStatistics:
    """Of pixels divided by 255.

    Attributes:
        mean: float32 [3, size, size], the mean picture.
        std: float32 [3], each color's deviation from its mean over all pixels.
        pixel_std: float32 [3], each color's deviation from the mean picture.
        color_axes: float32 [3, 3], a principal component a row: unit vector times eigenvalue, largest first.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    pixel_std: NDArray[np.float32]
    color_axes: NDArray[np.float32]

    def normalization(self, kind: Literal["channel", "pixel"]) -> Normalization:
        """Return the normalization that `data.normalization` asks for."""
        if kind == "pixel":
            return Normalization(self.mean, self.pixel_std)
        return Normalization(self.mean.mean(axis=(1, 2)), self.std)


def load_or_compute_statistics(
    folder: Path, files: NDArray[np.str_], *, size: int, shorter_side: int, notify: Notify = ignore_message
) -> ImageStatistics:
    """Return the statistics of `files`, from `folder` where they were computed before.

    Args:
        folder: keeps them, for these very files.
        files: the paths of the training pictures [N].
        size: side of what the network sees.
        shorter_side: what the shorter side is resized to beforehand.
        notify: told, in words, what takes time.

    Raises:
        UserError: a picture of the sample cannot be decoded; the message names it.
    """
    sample = files[
        np.unique(np.linspace(0, len(files) - 1, min(SAMPLE, len(files))).round().astype(np.int64))
    ]
    digest = hashlib.sha256("\n".join([f"{size} {shorter_side}", *sample.tolist()]).encode()).hexdigest()
    path = folder / f"statistics-{digest[:16]}.npz"
    try:
        with np.load(path, allow_pickle=False) as kept:
            return ImageStatistics(**{name: kept[name] for name in ImageStatistics.__annotations__})
    except (OSError, ValueError, KeyError):
        pass
    notify(f"computing the mean picture and the principal colors of {len(sample):,} pictures")
    found = compute_statistics(sample.tolist(), size=size, shorter_side=shorter_side)
    _keep(path, found)
    return found


def compute_statistics(files: Sequence[str], *, size: int, shorter_side: int) -> ImageStatistics:
    """Compute the statistics of all of `files`, on all cores."""

    def look(chunk: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return the sums of pixels [3, H, W] and of their products [3, 3]."""
        total: NDArray[Any] = np.zeros((3, size, size), np.int64)
        squares: NDArray[Any] = np.zeros(3)
        products: NDArray[Any] = np.zeros((3, 3))
        for file in chunk:
            pixels = _seen(file, size, shorter_side)
            total += pixels
            colors = pixels.reshape(3, -1).astype(np.float64) / 255
            products += colors @ colors.T
            squares += (colors**2).sum(axis=1)
        return total, squares, products

    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
    with ThreadPoolExecutor(usable_cores()) as pool:
        try:
            parts = list(pool.map(look, chunks))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    total, squares, products = (np.sum([part[index] for part in parts], axis=0) for index in range(3))
    pixels = len(files) * size * size
    mean = total / (255 * len(files))
    color_mean = mean.mean(axis=(1, 2))
    mean_square = squares / pixels
    return ImageStatistics(
        mean=mean.astype(np.float32),
        std=_deviation(mean_square - color_mean**2),
        pixel_std=_deviation(mean_square - (mean**2).mean(axis=(1, 2))),
        color_axes=_axes(products / pixels - np.outer(color_mean, color_mean)),
    )


def _seen(file: str, size: int, shorter_side: int) -> Images:
    return resize_and_center_crop(decode_image(file), shorter_side=shorter_side, size=size).transpose(2, 0, 1)


def _deviation(variance: NDArray[Any]) -> NDArray[np.float32]:
    std: NDArray[np.float32] = np.sqrt(np.maximum(variance, 0)).astype(np.float32)
    std[std < 1e-6] = 1.0
    return std


def _axes(covariance: NDArray[Any]) -> NDArray[np.float32]:
    values, vectors = np.linalg.eigh(covariance)
    rows = (vectors * np.maximum(values, 0)).T[::-1]
    # An eigenvector's sign is the library's choice; here its largest part is positive.
    signs = np.sign(np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1))
    axes: NDArray[np.float32] = (rows * np.where(signs == 0, 1, signs)).astype(np.float32)
    return axes


def _keep(path: Path, found: ImageStatistics) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **vars(found))
    write_bytes(path, buffer.getvalue())
