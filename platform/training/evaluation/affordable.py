"""The part of a test split that a quick sweep evaluates on a CPU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from platform.models.config import ModelConfig
from platform.models.costs import count_multiply_accumulates

MULTIPLY_ACCUMULATES = 1.2e12
"""Those of 2,000 images of a ResNet-18, or of 10,000 images of a ResNet-32."""
_STEP = 500


def affordable_images(
    model: ModelConfig, *, num_classes: int, input_shape: tuple[int, int, int], images: int
) -> NDArray[np.int64]:
    """Return the indices of a split's images to evaluate, evenly spaced: files may be sorted by class."""
    cost = count_multiply_accumulates(model, num_classes=num_classes, input_shape=input_shape)
    affordable = max(1, int(MULTIPLY_ACCUMULATES / cost) // _STEP) * _STEP
    return np.linspace(0, images - 1, min(images, affordable)).round().astype(np.int64)
