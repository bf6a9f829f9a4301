"""Calibration of a network and its typical errors, from the logits of an evaluation."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from torch import Tensor

from platform.data.dataset import Split

_BINS = 15
_PAIRS = 8
_IMAGES_PER_PAIR = 5


def calibration(logits: Tensor, split: Split) -> dict[str, Any]:
    """Return the expected calibration error and its bins (Guo et al. 2017, arXiv 1706.04599, 15 bins).

    Args:
        logits: float32 [N, classes], in the order of the split.
        split: the evaluated images.

    Returns:
        `ece` (0..1) and `bins` of equal width: `low`, `high`, `images`, and the means `confidence` and
        `accuracy` (0..1; 0 for a bin without images).
    """
    confidence, predicted = (each.numpy() for each in logits.softmax(dim=1).max(dim=1))
    right = predicted == split.labels
    place = np.clip((confidence * _BINS).astype(int), 0, _BINS - 1)
    counts = np.bincount(place, minlength=_BINS)
    means = [np.bincount(place, each, _BINS) / np.maximum(counts, 1) for each in (confidence, right)]
    return {
        "ece": float((counts * np.abs(means[0] - means[1])).sum() / len(right)),
        "bins": [
            {
                "low": index / _BINS,
                "high": (index + 1) / _BINS,
                "images": int(counts[index]),
                "confidence": float(means[0][index]),
                "accuracy": float(means[1][index]),
            }
            for index in range(_BINS)
        ],
    }


def frequent_mistakes(logits: Tensor, split: Split) -> list[dict[str, Any]]:
    """Return the most frequent pairs of true and predicted class, with the errors of highest confidence.

    Returns:
        `actual`, `predicted` (class indices), `count`, and `images`: `index` in the split, `confidence`
        (0..1) and `png` (base64). The most frequent pair comes first.
    """
    from PIL import Image

    confidence, predicted = (each.numpy() for each in logits.softmax(dim=1).max(dim=1))
    classes = logits.shape[1]
    wrong = np.flatnonzero(predicted != split.labels)
    pairs = split.labels[wrong] * classes + predicted[wrong]
    counts = np.bincount(pairs, minlength=classes * classes)
    found = []
    for pair in np.argsort(-counts, kind="stable")[:_PAIRS]:
        if not counts[pair]:
            break
        own = wrong[pairs == pair]
        images = []
        for index in own[np.argsort(-confidence[own], kind="stable")][:_IMAGES_PER_PAIR]:
            file = io.BytesIO()
            Image.fromarray(split.images[index].transpose(1, 2, 0)).save(file, "png")
            png = base64.b64encode(file.getvalue()).decode()
            images.append({"index": int(index), "confidence": float(confidence[index]), "png": png})
        actual, other = divmod(int(pair), classes)
        found.append({"actual": actual, "predicted": other, "count": int(counts[pair]), "images": images})
    return found
