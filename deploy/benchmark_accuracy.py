"""Add the accuracy on all test images, and the parity of their logits with PyTorch, to a benchmark record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.conversion.export_source import trained_model_of
from deploy.conversion.parity import compare, reference_logits
from deploy.engine_build.engine_model import Kernels
from deploy.model_files.model_folder import read_document
from deploy.model_files.precision_folders import find_precision_folder
from deploy.quantization.accuracy import predict
from platform.common.errors import UserError
from platform.data.cache import default_cache_dir, find_cached_by_label, load_split
from platform.data.dataset import Split
from platform.models.trained import load_trained_model

_PARITY = ("images", "max_abs", "mean_abs", "top1_agreement")


def load_test_images(
    folder: Path, model_path: Path | None, *, progress: Callable[[str], None]
) -> tuple[Split, NDArray[np.float32] | None]:
    """Return the test images of the data set that a model was trained on, and PyTorch's logits for them.

    Args:
        folder: a model folder in any precision.
        model_path: the trained model; default: that of the folder's sweep.
        progress: called with progress messages.

    Returns:
        the images, and logits [N, classes] or None if no trained model is found.

    Raises:
        UserError: the data set is not in the cache, or the trained model is a different network.
    """
    document = read_document(folder)
    label = document.source.data or "unknown"
    info = find_cached_by_label(default_cache_dir(), label)
    if info is None or info.image_shape != document.input.shape:
        raise UserError(
            f"--accuracy needs the test images of {label}, which are not in the cache at this size; "
            "run a sweep on them first, or measure without --accuracy"
        )
    split = load_split(info, "test")
    if model_path is None:
        try:
            model_path = trained_model_of(find_precision_folder(folder, "fp32"))
        except UserError:
            progress(
                "trained model not found next to the folder: parity is measured on the self-test images only"
            )
            return split, None
    progress(f"computing PyTorch's logits for {len(split):,} test images")
    _, logits = reference_logits(load_trained_model(model_path), split.images)
    if logits.shape[1] != len(document.output.classes):
        raise UserError(
            f"{model_path} has {logits.shape[1]} classes, {folder} {len(document.output.classes)}"
        )
    return split, logits


def add_accuracy(
    record: dict[str, Any],
    folders: Sequence[Path],
    split: Split,
    reference: NDArray[np.float32] | None,
    *,
    kernels: Kernels,
    progress: Callable[[str], None],
) -> None:
    """Add the accuracy of each of `folders`, and its parity with `reference`, to their benchmark record."""
    for number, (folder, model) in enumerate(zip(folders, record["models"], strict=True)):
        logits = predict(folder, split.images, kernels=kernels, progress=progress)
        correct = int((logits.argmax(1) == split.labels).sum())
        model["accuracy"] = {"images": len(split), "correct": correct, "top1": correct / len(split)}
        measured = {"accuracy_top1": model["accuracy"]["top1"]}
        if reference is not None:
            parity = compare(reference, logits).model_dump(include={*_PARITY})
            model["parity"] = {**parity, "reference": "PyTorch fp32 logits of the test images"}
            measured |= {f"parity_{key}": parity[key] for key in ("max_abs", "top1_agreement")}
        for row in record["results"]:
            if row["model"] == number:
                row.update(measured)
