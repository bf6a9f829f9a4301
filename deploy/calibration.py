"""How large the activations get: for each quantised layer, one scale for its input, found on real images.

Three methods. `minmax` covers all values seen. `percentile` cuts the rarest off. `kl` chooses the cut whose
128 levels lose least information (Migacz, "8-bit inference with TensorRT", 2017), as ncnn's own tool does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from deploy.ncnn_net import extract

Method = Literal["minmax", "percentile", "kl"]
METHODS: tuple[Method, ...] = get_args(Method)

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
    """Return 127 / (the magnitude that the largest level stands for) for each blob.

    Args:
        net: an fp32 net with `lightmode` and `use_packing_layout` off: all its blobs can be read.
        images: normalised images [N, C, H, W], none of the test set's.
        blobs: the names of the blobs.
        method: see above.
        progress: told the images done, of two passes.
    """
    histograms = _histograms(net, images, blobs, progress)
    return {blob: scale(threshold(histograms[blob], method)) for blob in blobs}


def scale(magnitude: float) -> float:
    """Return 127 / `magnitude`; 1 for what is always zero: any finite scale is exact there."""
    return 127 / magnitude if magnitude > 0 else 1.0


def threshold(histogram: tuple[NDArray[np.float64], float], method: Method) -> float:
    """Return the magnitude that the largest level should stand for.

    Args:
        histogram: counts [BINS] of magnitudes in equal bins from 0, and the largest magnitude.
        method: see above.
    """
    counts, largest = histogram
    if method == "minmax" or largest == 0:
        return largest
    width = largest / BINS
    if method == "percentile":
        below = np.cumsum(counts) / counts.sum()
        return float((np.searchsorted(below, PERCENTILE / 100) + 1) * width)
    losses = [_information_lost(counts, last) for last in range(LEVELS, BINS + 1)]
    # The middle of the first bin that is cut off, as ncnn2table has it.
    return float(min(LEVELS + int(np.argmin(losses)) + 0.5, BINS) * width)


def _histograms(
    net: Any,
    images: NDArray[np.float32],
    blobs: Sequence[str],
    progress: Callable[[int, int], None],
) -> Mapping[str, tuple[NDArray[np.float64], float]]:
    largest = dict.fromkeys(blobs, 0.0)
    counts = {blob: np.zeros(BINS) for blob in blobs}
    for number, image in enumerate(images):
        for blob, values in zip(blobs, extract(net, image, list(blobs)), strict=True):
            largest[blob] = max(largest[blob], float(np.abs(values).max()))
        progress(number + 1, 2 * len(images))
    for number, image in enumerate(images):
        for blob, values in zip(blobs, extract(net, image, list(blobs)), strict=True):
            if largest[blob] == 0:
                continue
            # Zeros, most of what a rectifier leaves, are exact with any scale and would drown the rest.
            magnitudes = np.abs(values[values != 0])
            bins = np.minimum((magnitudes * (BINS / largest[blob])).astype(np.int64), BINS - 1)
            counts[blob] += np.bincount(bins, minlength=BINS)
        progress(len(images) + number + 1, 2 * len(images))
    return {blob: (counts[blob], largest[blob]) for blob in blobs}


def _information_lost(counts: NDArray[np.float64], last: int) -> float:
    """Return the Kullback-Leibler divergence of 128 levels over `counts[:last]` from the true counts."""
    true = counts[:last].copy()
    true[-1] += counts[last:].sum()
    if true.sum() == 0:
        return float("inf")
    # Each level spreads its mass evenly over the bins of it that are not empty.
    level = np.arange(last) * LEVELS // last
    occupied = counts[:last] > 0
    mass = np.bincount(level, counts[:last], LEVELS)
    bins = np.bincount(level, occupied, LEVELS)
    spread = np.where(occupied, mass[level] / np.maximum(bins[level], 1), 0.0)
    if spread.sum() == 0:
        return float("inf")
    p, q = true / true.sum(), spread / spread.sum()
    # Values moved into an empty last bin have no counterpart: a tiny one keeps the loss finite.
    used = p > 0
    return float(np.sum(p[used] * np.log(p[used] / np.maximum(q[used], 1e-12))))
