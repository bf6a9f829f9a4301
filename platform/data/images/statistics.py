"""Mean image, standard deviation and color principal components of a sample of the training images.

The sample is 10,000 images, evenly spaced over the training set, cropped as in evaluation; the mean of a
pixel is then accurate to about half a level of 255. The principal components are those of AlexNet's color
augmentation (Krizhevsky et al. 2012, section 4.1), for pixels in 0..1.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from platform.common.atomic import write_bytes
from platform.data.dataset import Notify, ignore_message
from platform.data.images.cropping import resize_and_center_crop
from platform.data.images.decode import decode_image
from platform.data.images.parallel_decode import map_in_threads
from platform.data.normalization import Normalization

SAMPLE = 10_000
_CHUNK = 64


@dataclass(frozen=True, eq=False)
class ImageStatistics:
    """Statistics of pixels divided by 255.

    Attributes:
        mean: float32 [3, size, size], the mean image.
        std: float32 [3], standard deviation of each channel over all pixels.
        pixel_std: float32 [3], standard deviation of each channel from the mean image.
        color_axes: float32 [3, 3], principal components in rows: unit vector times eigenvalue, largest first.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    pixel_std: NDArray[np.float32]
    color_axes: NDArray[np.float32]

    def normalization(self, kind: Literal["channel", "pixel"]) -> Normalization:
        if kind == "pixel":
            return Normalization(self.mean, self.pixel_std)
        return Normalization(self.mean.mean(axis=(1, 2)), self.std)


def load_or_compute_statistics(
    folder: Path, files: NDArray[np.str_], *, size: int, shorter_side: int, notify: Notify = ignore_message
) -> ImageStatistics:
    """Return the statistics of the training images `files` [N], computed on first use and stored in `folder`.

    Images are resized to `shorter_side` and cropped to `size`, in pixels. The name of the stored file has a
    hash of the sample's paths.

    Raises:
        UserError: an image of the sample cannot be decoded; the message names the file.
    """
    sample = files[
        np.unique(np.linspace(0, len(files) - 1, min(SAMPLE, len(files))).round().astype(np.int64))
    ]
    digest = hashlib.sha256("\n".join([f"{size} {shorter_side}", *sample.tolist()]).encode()).hexdigest()
    path = folder / f"statistics-{digest[:16]}.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            return ImageStatistics(**{name: stored[name] for name in ImageStatistics.__annotations__})
    except (OSError, ValueError, KeyError):
        pass
    notify(f"computing the mean image and the color principal components of {len(sample):,} images")
    statistics = compute_statistics(sample.tolist(), size=size, shorter_side=shorter_side)
    buffer = io.BytesIO()
    np.savez(buffer, **vars(statistics))
    write_bytes(path, buffer.getvalue())
    return statistics


def compute_statistics(files: Sequence[str], *, size: int, shorter_side: int) -> ImageStatistics:
    """Compute the statistics of all `files` on all cores."""

    def sums(chunk: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return the sums of pixels [3, H, W], of their squares [3], and of channel products [3, 3]."""
        total: NDArray[Any] = np.zeros((3, size, size), np.int64)
        squares: NDArray[Any] = np.zeros(3)
        products: NDArray[Any] = np.zeros((3, 3))
        for file in chunk:
            cropped = resize_and_center_crop(decode_image(file), shorter_side=shorter_side, size=size)
            pixels = cropped.transpose(2, 0, 1)
            total += pixels
            colors = pixels.reshape(3, -1).astype(np.float64) / 255
            products += colors @ colors.T
            squares += (colors**2).sum(axis=1)
        return total, squares, products

    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
    parts = map_in_threads(sums, chunks)
    total, squares, products = (np.sum([part[index] for part in parts], axis=0) for index in range(3))
    pixels = len(files) * size * size
    mean = total / (255 * len(files))
    color_mean = mean.mean(axis=(1, 2))
    mean_square = squares / pixels
    return ImageStatistics(
        mean=mean.astype(np.float32),
        std=_deviation(mean_square - color_mean**2),
        pixel_std=_deviation(mean_square - (mean**2).mean(axis=(1, 2))),
        color_axes=_principal_components(products / pixels - np.outer(color_mean, color_mean)),
    )


def _deviation(variance: NDArray[Any]) -> NDArray[np.float32]:
    std: NDArray[np.float32] = np.sqrt(np.maximum(variance, 0)).astype(np.float32)
    std[std < 1e-6] = 1.0
    return std


def _principal_components(covariance: NDArray[Any]) -> NDArray[np.float32]:
    values, vectors = np.linalg.eigh(covariance)
    rows = (vectors * np.maximum(values, 0)).T[::-1]
    # The sign of an eigenvector depends on the library; make its largest component positive.
    signs = np.sign(np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1))
    axes: NDArray[np.float32] = (rows * np.where(signs == 0, 1, signs)).astype(np.float32)
    return axes
