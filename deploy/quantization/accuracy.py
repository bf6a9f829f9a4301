"""How often a model folder's answer is right, counted by the C++ engine that will run it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploy.conversion.ncnn_net import load_net, options_for, run
from deploy.model_files.image_file import write_image_file
from deploy.model_files.model_folder import open_model_folder
from platform.data.dataset import Split
from platform.errors import UserError

Computer = Literal["the C++ engine", "ncnn in Python"]


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Right answers."""

    images: int
    correct: int
    computed_by: Computer

    @property
    def top1(self) -> float:
        """Share of right answers, 0 to 1."""
        return self.correct / self.images


Count = Callable[[Path, Split], Accuracy]
"""A way to count: (model folder, labeled images) -> right answers."""


def count_in_cpp(folder: Path, split: Split, *, progress: Callable[[str], None] = lambda _: None) -> Accuracy:
    """Count with the engine, which is built first if needed.

    Raises:
        UserError: the engine cannot be built, or refuses the folder.
    """
    from deploy.engine_build.engine import run_benchmark

    with tempfile.TemporaryDirectory(prefix="accuracy-") as scratch:
        images = Path(scratch, "images.bin")
        write_image_file(images, split.images, split.labels)
        record = run_benchmark(
            folder, warmup=0, repetitions=1, min_time_s=0.0, images=images, progress=progress
        )
    found = record["models"][0]["accuracy"]
    return Accuracy(images=found["images"], correct=found["correct"], computed_by="the C++ engine")


def count_in_python(folder: Path, split: Split) -> Accuracy:
    """Count with ncnn's Python package: the same kernels, one thread.

    Raises:
        UserError: the folder is damaged.
    """
    model = open_model_folder(folder)
    net = load_net(model.param, model.weights, options_for(model.document.precision))
    correct = 0
    for start in range(0, len(split), 256):
        part = slice(start, start + 256)
        answers = run(net, model.document.normalize(split.images[part])).argmax(1)
        correct += int((answers == split.labels[part]).sum())
    return Accuracy(images=len(split), correct=correct, computed_by="ncnn in Python")


def counter(progress: Callable[[str], None] = lambda _: None) -> Count:
    """Return the engine's count where the engine can be built on this machine, else Python's."""
    from deploy.engine_build.engine import ensure_engine

    try:
        ensure_engine(progress=progress)
    except UserError as error:
        progress(f"counting in Python, the C++ engine is not to be had: {str(error).splitlines()[0]}")
        return count_in_python
    return count_in_cpp
