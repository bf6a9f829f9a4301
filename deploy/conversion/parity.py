"""Compare ncnn's logits with PyTorch's on the same images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from deploy.model_files.model_folder import ModelDocument, ParityInfo, SelfTest
from platform.common.errors import UserError
from platform.models.trained import TrainedModel

FP32_TOLERANCE = 1e-4
"""Largest permitted difference of an fp32 export's logits, relative to the largest logit.

Correct exports stay below 1e-5; bf16 arithmetic in a single layer exceeds 1e-3. An absolute limit would
reject networks after a short training, whose logits can exceed 1,000."""
MIN_IMAGES = 256
SELF_TEST_MARGIN = 4
"""Self-test tolerance as a multiple of the error on this machine; other processors round differently."""


def compare(reference: NDArray[np.float32], logits: NDArray[np.float32]) -> ParityInfo:
    """Compare logits [N, classes] with their reference.

    Raises:
        UserError: some logits are not finite.
    """
    for name, values in (("PyTorch", reference), ("ncnn", logits)):
        if not np.isfinite(values).all():
            raise UserError(
                f"{name} gives logits that are not finite for some images: the network cannot be exported; "
                "did its training diverge?"
            )
    difference = np.abs(reference.astype(np.float64) - logits)
    return ParityInfo(
        images=len(reference),
        max_abs=float(difference.max()),
        mean_abs=float(difference.mean()),
        max_logit=float(np.abs(reference).max()),
        top1_agreement=float((reference.argmax(1) == logits.argmax(1)).mean()),
    )


def tolerant_self_test(document: ModelDocument, logits: NDArray[np.float32]) -> SelfTest:
    """Return the self-test of `document`, with a tolerance that `logits` of its images pass."""
    expected = np.array(document.self_test.logits, np.float32)
    tolerance = SELF_TEST_MARGIN * compare(expected, logits).max_abs
    return document.self_test.model_copy(update={"tolerance": max(document.self_test.tolerance, tolerance)})


def reference_logits(
    model: TrainedModel,
    images: NDArray[np.uint8],
    *,
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the normalized inputs [N, C, H, W] of `images` and PyTorch's fp32 logits [N, classes].

    `progress` is called with the number of images done.
    """
    network = model.network()
    inputs, logits = [], []
    with torch.no_grad():
        for start in range(0, len(images), batch_size):
            # A copy, because torch warns about read-only arrays such as memory maps.
            batch = model.normalize(torch.from_numpy(np.array(images[start : start + batch_size])))
            inputs.append(batch.numpy())
            logits.append(network(batch).numpy())
            progress(start + len(batch))
    return np.concatenate(inputs), np.concatenate(logits)


def random_images(count: int, shape: tuple[int, int, int], *, seed: int = 0) -> NDArray[np.uint8]:
    """Return images uint8 [count, C, H, W] of coarse random patches and noise, used without real images."""
    rng = np.random.default_rng(seed)
    channels, height, width = shape
    patches = rng.integers(0, 256, (count, channels, -(-height // 4), -(-width // 4)))
    smooth = patches.repeat(4, axis=2).repeat(4, axis=3)[:, :, :height, :width]
    return np.clip(smooth + rng.normal(0, 16, smooth.shape), 0, 255).astype(np.uint8)
