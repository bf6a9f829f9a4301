"""Measure the top-1 accuracy of a model folder, preferably with the C++ engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deploy.conversion.ncnn_net import load_net, options_for, run
from deploy.engine_build.engine_model import EngineModel, Kernels
from deploy.model_files.model_folder import open_model_folder
from platform.common.errors import UserError
from platform.common.time_left import TimeLeft
from platform.data.dataset import Split

ComputedBy = Literal["the C++ engine", "ncnn in Python"]
_PART = 256  # images in memory at a time


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Top-1 accuracy on a set of images."""

    images: int
    correct: int
    computed_by: ComputedBy

    @property
    def top1(self) -> float:
        """Top-1 accuracy, 0 to 1."""
        return self.correct / self.images


Evaluator = Callable[[Path, Split], Accuracy]
"""(model folder, labeled images) -> top-1 accuracy."""


def predict(
    folder: Path,
    images: NDArray[np.uint8],
    *,
    computed_by: ComputedBy = "the C++ engine",
    kernels: Kernels = "auto",
    progress: Callable[[str], None] = lambda _: None,
) -> NDArray[np.float32]:
    """Return the logits [N, classes] of images uint8 [N, C, H, W], computed one per usable core.

    Args:
        folder: the model folder.
        images: images of the network's input size.
        computed_by: the C++ engine, or ncnn's Python package, which has ncnn's kernels only.
        kernels: the engine's kernels.
        progress: called with progress messages.

    Raises:
        UserError: the folder is damaged, or the engine cannot be built or rejects it.
    """
    model = open_model_folder(folder)
    infer: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    if computed_by == "the C++ engine":
        infer = EngineModel(folder, kernels=kernels, self_test=True).infer_each
    else:
        infer = partial(run, load_net(model.param, model.weights, options_for(model.document.precision)))
    logits = []
    meter = TimeLeft(
        f"measuring accuracy in {model.document.precision}", len(images), progress, unit="images"
    )
    for start in range(0, len(images), _PART):
        logits.append(infer(model.document.normalize(images[start : start + _PART])))
        meter.update(start + len(logits[-1]))
    return np.concatenate(logits)


def evaluate(
    folder: Path, split: Split, *, computed_by: ComputedBy, progress: Callable[[str], None] = lambda _: None
) -> Accuracy:
    """Return the accuracy of a model folder on `split`; raises the same errors as `predict`."""
    logits = predict(folder, split.images, computed_by=computed_by, progress=progress)
    correct = int((logits.argmax(1) == split.labels).sum())
    return Accuracy(images=len(split), correct=correct, computed_by=computed_by)


def choose_evaluator(progress: Callable[[str], None] = lambda _: None) -> Evaluator:
    """Return an evaluator with the C++ engine if it can be built on this machine, else with ncnn."""
    from deploy.engine_build.engine import ensure_engine

    computed_by: ComputedBy = "the C++ engine"
    try:
        ensure_engine(progress=progress)
    except UserError as error:
        progress(f"C++ engine unavailable, evaluating in Python instead: {str(error).splitlines()[0]}")
        computed_by = "ncnn in Python"
    return partial(evaluate, computed_by=computed_by, progress=progress)
