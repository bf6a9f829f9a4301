"""Normalization by the mean and standard deviation of the training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from platform.data.dataset import Images

_CHUNK = 1000


@dataclass(frozen=True, eq=False)
class Normalization:
    """The map from pixels to network input: x = (pixel / 255 - mean) / std.

    Attributes:
        mean: float32 [3], or [3, H, W] when it is the mean image.
        std: float32 [3], never zero.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]


def compute_normalization(images: Images, kind: Literal["channel", "pixel"]) -> Normalization:
    """Compute the normalization of training images, with exact integer sums.

    Args:
        images: uint8 [N, 3, H, W], N at least 1; training images only.
        kind: `channel`, mean and standard deviation of each channel; `pixel`, the mean image (He et al. 2016,
            section 4.2) and the standard deviation of each channel from it.

    Returns:
        The normalization; the standard deviation of a constant channel is 1.
    """
    total = np.zeros(images.shape[1:], np.int64)
    squares = np.zeros(images.shape[1:], np.int64)
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK]
        total += chunk.sum(axis=0, dtype=np.int64)
        # At most 255 * 255: exact in uint16, with a quarter of int64's memory traffic.
        squares += np.square(chunk, dtype=np.uint16).sum(axis=0, dtype=np.int64)
    mean_image = total / len(images)
    mean_square = (squares / len(images)).mean(axis=(1, 2))
    channel_mean = mean_image.mean(axis=(1, 2))
    if kind == "channel":
        mean, variance = channel_mean, mean_square - channel_mean**2
    else:
        mean, variance = mean_image, mean_square - (mean_image**2).mean(axis=(1, 2))
    std = np.sqrt(np.maximum(variance, 0)) / 255
    std[std < 1e-6] = 1.0
    return Normalization(mean=(mean / 255).astype(np.float32), std=std.astype(np.float32))
