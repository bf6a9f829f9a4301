"""Choose between ncnn's and oneDNN's kernels for a whole network by measurement on this machine."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.conversion.parity import compare, tolerant_self_test
from deploy.engine_build.engine_model import EngineModel
from deploy.model_files import model_folder as mf
from deploy.winograd.measured_choice import FINAL_ROUNDS, MAX_TIME_RATIO, cpu_times_ms, processor_name
from platform.common.errors import UserError


def choose_kernels(
    folder: Path,
    document: mf.ModelDocument,
    inputs: NDArray[np.float32],
    reference: NDArray[np.float32],
    *,
    tolerance: float = math.inf,
    progress: Callable[[str], None],
) -> mf.ModelDocument:
    """Use oneDNN's kernels in `folder` if they are faster; return its model.json.

    The parity is then that of oneDNN. The tolerance of the self-test covers both, because other machines use
    ncnn's kernels.

    Args:
        folder: a complete model folder, with ncnn's kernels tuned.
        document: its model.json.
        inputs: normalized images [N, C, H, W].
        reference: their reference logits [N, classes].
        tolerance: largest permitted difference of a logit, relative to the largest logit.
        progress: called with progress messages.
    """
    found = find_faster_onednn(folder, progress=progress)
    if found is None:
        return document
    model, ratio = found
    parity = compare(reference, model.infer_each(inputs))
    if parity.max_relative > tolerance:
        progress(f"oneDNN's kernels are not used: their logits differ by up to {parity.max_abs:.2g}")
        return document
    labels = {"data": document.parity.data, "reference": document.parity.reference}
    patterns = model.infer_each(document.normalize(mf.self_test_images(document.input.shape)))
    tuning = {
        "kernels": "onednn",
        "processor": processor_name(),
        "threads": 1,
        "kernels_time_ratio": round(ratio, 4),
    }
    changed = document.model_copy(
        update={
            "parity": parity.model_copy(update=labels),
            "self_test": tolerant_self_test(document, patterns),
            "tuning": {**(document.tuning or {}), **tuning},
        }
    )
    mf.write_document(folder, changed)
    return changed


def find_faster_onednn(
    folder: Path, *, progress: Callable[[str], None] = lambda _: None
) -> tuple[EngineModel, float] | None:
    """Return the model with oneDNN's kernels, and their processor time relative to ncnn's.

    Args:
        folder: a complete model folder, with ncnn's kernels tuned.
        progress: called with progress messages.

    Returns:
        None if the engine has no such kernels for this network, or if they save no processor time.
    """
    document = mf.read_document(folder)
    try:
        onednn = EngineModel(folder, kernels="onednn")
    except UserError as reason:
        progress(f"tuning {document.precision}: ncnn's kernels are used ({str(reason).splitlines()[0]})")
        return None
    progress(f"tuning {document.precision}: comparing ncnn's kernels with oneDNN's")
    ratio = time_ratio(onednn, EngineModel(folder, kernels="ncnn"), document.input.shape)
    return (onednn, ratio) if ratio < MAX_TIME_RATIO else None


def time_ratio(one: EngineModel, other: EngineModel, input_shape: tuple[int, int, int]) -> float:
    """Return the processor time of `one` relative to that of `other`, from interleaved inferences."""
    image = np.random.default_rng(0).standard_normal((1, *input_shape)).astype(np.float32)
    times = cpu_times_ms([partial(model.infer, image) for model in (one, other)], rounds=FINAL_ROUNDS)
    return float(np.median(times[0] / times[1]))
