"""Choose between ncnn's and oneDNN's kernels for a whole network by measurement on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.engine_build.engine_model import EngineModel
from deploy.model_files import model_folder as mf
from deploy.winograd.measured_choice import FINAL_ROUNDS, MAX_TIME_RATIO, cpu_times_ms, processor_name
from platform.common.errors import UserError


@dataclass(frozen=True, kw_only=True)
class OnednnChoice:
    """oneDNN's kernels, which are faster than ncnn's for a network on this machine."""

    model: EngineModel
    """The network, loaded with these kernels."""
    ratio: float
    """Processor time relative to ncnn's kernels."""

    def infer_all(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits [N, classes] of normalized images [N, C, H, W], computed one by one."""
        return np.concatenate([self.model.infer(image[None]) for image in inputs])

    def record(self) -> dict[str, object]:
        """Return the additions to the `tuning` entry of model.json."""
        return {
            "kernels": "onednn",
            "processor": processor_name(),
            "threads": 1,
            "kernels_time_ratio": round(self.ratio, 4),
        }


def find_faster_onednn(
    folder: Path, *, progress: Callable[[str], None] = lambda _: None
) -> OnednnChoice | None:
    """Return oneDNN's kernels if the engine has them for this network and they save processor time.

    Args:
        folder: a complete model folder, with ncnn's kernels tuned.
        progress: called with progress messages.
    """
    document = mf.read_document(folder)
    try:
        onednn = EngineModel(folder, kernels="onednn")
    except UserError as reason:
        progress(f"tuning {document.precision}: ncnn's kernels are used ({str(reason).splitlines()[0]})")
        return None
    progress(f"tuning {document.precision}: comparing ncnn's kernels with oneDNN's")
    ratio = time_ratio(onednn, EngineModel(folder, kernels="ncnn"), document.input.shape)
    return OnednnChoice(model=onednn, ratio=ratio) if ratio < MAX_TIME_RATIO else None


def time_ratio(one: EngineModel, other: EngineModel, input_shape: tuple[int, int, int]) -> float:
    """Return the processor time of `one` relative to that of `other`, from interleaved inferences."""
    image = np.random.default_rng(0).standard_normal((1, *input_shape)).astype(np.float32)
    times = cpu_times_ms([partial(model.infer, image) for model in (one, other)], rounds=FINAL_ROUNDS)
    return float(np.median(times[0] / times[1]))
