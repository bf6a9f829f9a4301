"""Classify images with an exported network; MLflow loads this file from the registered model's folder.

It is copied into the model's folder and imports nothing of this package, so that the model can be served
where only MLflow and PyTorch are installed. Nothing in the folder is unpickled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

PROGRAM, CLASSES = "network.pt2", "classes.json"
_IMAGES_PER_BATCH = 256


class ImageClassifier:
    """A network with the names of its classes."""

    def __init__(self, folder: Path) -> None:
        document = json.loads((folder / CLASSES).read_text(encoding="utf-8"))
        self._classes: list[str] = document["classes"]
        self._shape = tuple(document["input_shape"])
        self._network = torch.export.load(folder / PROGRAM).module()

    def predict(self, images: ArrayLike, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:  # noqa: ARG002
        """Return the class, its probability and the logits of each image.

        Args:
            images: [N, C, H, W] or a single image [C, H, W]; integers 0..255 or floats 0..1.
            params: not used; MLflow passes it.

        Raises:
            ValueError: the shape or a value is invalid.
        """
        pixels = self._pixels(np.asarray(images))
        with torch.inference_mode():
            logits = torch.cat([self._network(batch) for batch in torch.split(pixels, _IMAGES_PER_BATCH)])
        probabilities = logits.softmax(dim=1)
        return [
            {
                "class": self._classes[int(row.argmax())],
                "probability": float(row.max()),
                "logits": row_logits.tolist(),
            }
            for row, row_logits in zip(probabilities, logits, strict=True)
        ]

    def _pixels(self, images: np.ndarray[Any, Any]) -> torch.Tensor:
        """Return float32 [N, C, H, W], 0..1."""
        if images.shape == self._shape:
            images = images[None]
        if images.ndim != 4 or images.shape[1:] != self._shape or not len(images):
            raise ValueError(
                f"images must have the shape [N, {', '.join(map(str, self._shape))}]; got {images.shape}"
            )
        is_float = images.dtype.kind == "f"
        low, high, limit = images.min(), images.max(), 1 if is_float else 255
        if images.dtype.kind not in "fiu" or not (low >= 0 and high <= limit):
            raise ValueError(
                "pixels must be integers from 0 to 255 or floats from 0 to 1; "
                f"got {images.dtype} from {low} to {high}"
            )
        pixels = torch.from_numpy(images.astype(np.float32))
        return pixels if is_float else pixels / 255


def _load_pyfunc(path: str) -> ImageClassifier:
    """Return the model in a folder; MLflow calls this function by name."""
    return ImageClassifier(Path(path))
