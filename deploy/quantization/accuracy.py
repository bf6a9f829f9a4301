"""Measure the top-1 accuracy of a model folder, preferably with the C++ engine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from deploy.conversion.ncnn_net import load_net, options_for, run
from deploy.model_files.image_file import write_image_file
from deploy.model_files.model_folder import open_model_folder
from platform.common.errors import UserError
from platform.common.time_left import TimeLeft
from platform.data.dataset import Split

ComputedBy = Literal["the C++ engine", "ncnn in Python"]


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


def evaluate_in_cpp(
    folder: Path, split: Split, *, progress: Callable[[str], None] = lambda _: None
) -> Accuracy:
    """Evaluate with the C++ engine, which is built first if needed.

    Raises:
        UserError: the engine cannot be built, or rejects the folder.
    """
    from deploy.engine_build.engine import run_benchmark

    with tempfile.TemporaryDirectory(prefix="accuracy-") as scratch:
        images = Path(scratch, "images.bin")
        write_image_file(images, split.images, split.labels)
        record = run_benchmark(
            folder, warmup=0, repetitions=1, min_time_s=0.0, images=images, progress=_only_counts(progress)
        )
    found = record["models"][0]["accuracy"]
    return Accuracy(images=found["images"], correct=found["correct"], computed_by="the C++ engine")


def _only_counts(progress: Callable[[str], None]) -> Callable[[str], None]:
    """Return a function that omits the messages of the single latency query."""
    return lambda message: progress(message) if message.startswith("measuring accuracy") else None


def evaluate_in_python(
    folder: Path, split: Split, *, progress: Callable[[str], None] = lambda _: None
) -> Accuracy:
    """Evaluate with ncnn's Python package, which has the same kernels.

    Raises:
        UserError: the folder is damaged.
    """
    model = open_model_folder(folder)
    net = load_net(model.param, model.weights, options_for(model.document.precision))
    correct = 0
    meter = TimeLeft(f"measuring accuracy in {model.document.precision}", len(split), progress, unit="images")
    for start in range(0, len(split), 256):
        part = slice(start, start + 256)
        answers = run(net, model.document.normalize(split.images[part])).argmax(1)
        correct += int((answers == split.labels[part]).sum())
        meter.update(min(start + 256, len(split)))
    return Accuracy(images=len(split), correct=correct, computed_by="ncnn in Python")


def choose_evaluator(progress: Callable[[str], None] = lambda _: None) -> Evaluator:
    """Return `evaluate_in_cpp` if the engine can be built on this machine, else `evaluate_in_python`."""
    from deploy.engine_build.engine import ensure_engine

    try:
        ensure_engine(progress=progress)
    except UserError as error:
        progress(f"C++ engine unavailable, evaluating in Python instead: {str(error).splitlines()[0]}")
        return partial(evaluate_in_python, progress=progress)
    return partial(evaluate_in_cpp, progress=progress)
