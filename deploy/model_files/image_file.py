"""Write labeled images and their reference logits to files for the engine's benchmark.

Little-endian: "SWEEPIMG", u32 version (1), u32 count, channels, height, width, then a u32 label per image,
then the pixels, uint8 in image, channel, row, column order. Logits: "SWEEPLGT", u32 version (1), u32 count,
classes, then float32 row by row. The engine's evaluation.h documents the same formats.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_image_file(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Write images uint8 [N, C, H, W] and their labels int64 [N] to `path`.

    Raises:
        ValueError: wrong dtype or dimensions, or the counts differ.
    """
    if images.ndim != 4 or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise ValueError(f"images uint8 [N, C, H, W] and labels [N]; got {images.shape} and {labels.shape}")
    with path.open("wb") as file:
        file.write(struct.pack("<8s5I", b"SWEEPIMG", 1, *images.shape))
        file.write(labels.astype("<u4").tobytes())
        for start in range(0, len(images), 1000):
            file.write(np.ascontiguousarray(images[start : start + 1000]).tobytes())


def write_logits_file(path: Path, logits: NDArray[np.float32]) -> None:
    """Write logits [N, classes] to `path`."""
    with path.open("wb") as file:
        file.write(struct.pack("<8s3I", b"SWEEPLGT", 1, *logits.shape))
        file.write(logits.astype("<f4").tobytes())
