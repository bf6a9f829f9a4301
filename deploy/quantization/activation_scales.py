"""Calibrate the int8 input scale of each quantized layer on real images.

Three methods: `minmax` covers all observed values; `percentile` clips the largest 0.01 %; `kl` clips where
128 levels lose the least information (Migacz, "8-bit inference with TensorRT", 2017), as in ncnn's own tool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deploy.conversion.ncnn_net import extract, map_images

Method = Literal["minmax", "percentile", "kl"]

BINS = 2048
LEVELS = 128
"""Magnitudes of a signed 8-bit number, 0 to 127."""
PERCENTILE = 99.99
MIN_IMAGES = 512


def activation_scales(
    net: Any,
    images: NDArray[np.float32],
    blobs: Sequence[str],
    *,
    method: Method,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, float]:
    """Return the scale of each blob: 127 / (the magnitude that the largest level represents).

    Args:
        net: an fp32 net with `lightmode` and `use_packing_layout` off, so that every blob can be read.
        images: normalized images [N, C, H, W], never test images.
        blobs: names of the blobs.
        method: see the module docstring.
        progress: called with (images done, total) over two passes.
    """
    histograms = _histograms(net, images, list(dict.fromkeys(blobs)), progress)
    return {blob: scale(threshold(histograms[blob], method)) for blob in blobs}


def scale(magnitude: float) -> float:
    """Return 127 / `magnitude`, or 1 for a blob that is always zero, where any finite scale is exact."""
    return 127 / magnitude if magnitude > 0 else 1.0


def threshold(histogram: tuple[NDArray[np.float64], float], method: Method) -> float:
    """Return the magnitude that the largest level should represent.

    Args:
        histogram: counts [BINS] of magnitudes in equal bins from 0, and the largest magnitude.
        method: see the module docstring.
    """
    counts, largest = histogram
    if method == "minmax" or largest == 0:
        return largest
    width = largest / BINS
    if method == "percentile":
        below = np.cumsum(counts) / counts.sum()
        return float((np.searchsorted(below, PERCENTILE / 100) + 1) * width)
    # The middle of the first clipped bin, as in ncnn2table.
    return float(min(LEVELS + int(np.argmin(_information_lost(counts))) + 0.5, BINS) * width)


def _histograms(
    net: Any,
    images: NDArray[np.float32],
    blobs: list[str],
    progress: Callable[[int, int], None],
) -> Mapping[str, tuple[NDArray[np.float64], float]]:
    def magnitudes(image: NDArray[np.float32]) -> list[float]:
        return [float(np.abs(values).max()) for values in extract(net, image, blobs)]

    def bin_counts(image: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.stack(list(map(_bin_counts, extract(net, image, blobs), largest)))

    largest = np.zeros(len(blobs))
    for number, found in enumerate(map_images(magnitudes, images), 1):
        np.maximum(largest, found, out=largest)
        progress(number, 2 * len(images))
    counts = np.zeros((len(blobs), BINS))
    for number, one in enumerate(map_images(bin_counts, images), 1 + len(images)):
        counts += one
        progress(number, 2 * len(images))
    return dict(zip(blobs, zip(counts, largest.tolist(), strict=True), strict=True))


def _bin_counts(values: NDArray[np.float32], largest: float) -> NDArray[np.float64]:
    """Return the counts [BINS] of the magnitudes in equal bins from 0 to `largest`."""
    if largest == 0:
        return np.zeros(BINS)
    # Zeros dominate ReLU outputs, are exact with any scale, and would outweigh the other values.
    magnitudes = np.abs(values[values != 0])
    bins = np.minimum((magnitudes * (BINS / largest)).astype(np.int64), BINS - 1)
    return np.bincount(bins, minlength=BINS).astype(np.float64)


def _information_lost(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Kullback-Leibler divergence of 128 levels over the first 128, 129, ... 2048 bins, [1921].

    The true distribution has the clipped values in its last bin. Each level spreads its mass evenly over its
    nonempty bins, so the divergence follows from differences of cumulative sums.
    """
    last = np.arange(LEVELS, BINS + 1)
    total = counts.sum()
    below = np.concatenate([[0.0], np.cumsum(counts)])
    filled = np.concatenate([[0], np.cumsum(counts > 0)])
    # Bin i is in level i * 128 // last.
    edges = -(-np.arange(LEVELS + 1) * last[:, None] // LEVELS)
    mass = np.diff(below[edges], axis=1)
    bins = np.diff(filled[edges], axis=1)
    kept = below[last]
    # A small probability keeps the divergence finite where clipped values move into an empty last bin.
    level = np.log(np.maximum(mass / np.maximum(bins, 1) / np.maximum(kept, 1e-300)[:, None], 1e-12))
    moved = total - kept
    last_level = np.where(counts[last - 1] > 0, level[:, -1], np.log(1e-12))
    entropy = np.concatenate([[0.0], np.cumsum(_times_log(counts))])[last - 1]
    entropy = entropy + _times_log(counts[last - 1] + moved)
    lost = entropy / total - np.log(total) - ((mass * level).sum(1) + moved * last_level) / total
    result: NDArray[np.float64] = np.where(kept > 0, lost, np.inf)
    return result


def _times_log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return x log x; 0 for 0."""
    result: NDArray[np.float64] = values * np.log(np.where(values > 0, values, 1.0))
    return result
