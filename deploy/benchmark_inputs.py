"""Write labeled test images and PyTorch's logits to files for the engine's benchmark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deploy.model_files.image_file import write_image_file, write_logits_file
from deploy.model_files.precision_folders import find_precision_folder
from platform.common.errors import UserError


def write_test_images(
    folder: Path,
    model_path: Path | None,
    scratch: Path,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Path, Path | None]:
    """Write the test images of the data set that a model was trained on, and PyTorch's logits for them.

    Args:
        folder: a model folder in any precision.
        model_path: the trained model; default: that of the folder's sweep.
        scratch: folder for the files.
        progress: called with progress messages.

    Returns:
        the image file, and the logits file or None if no trained model is found.

    Raises:
        UserError: the data set is not in the cache, or the trained model is a different network.
    """
    from deploy.conversion.export_source import trained_model_of
    from deploy.conversion.parity import reference_logits
    from deploy.model_files.model_folder import read_document
    from platform.data.cache import default_cache_dir, find_cached_by_label, load_split
    from platform.models.trained import load_trained_model

    document = read_document(folder)
    label = document.source.data or "unknown"
    info = find_cached_by_label(default_cache_dir(), label)
    if info is None or info.image_shape != document.input.shape:
        raise UserError(
            f"--accuracy needs the test images of {label}, which are not in the cache at this size; "
            "run a sweep on them first, or measure without --accuracy"
        )
    split = load_split(info, "test")
    images = scratch / "images.bin"
    write_image_file(images, split.images, split.labels)
    if model_path is None:
        fp32 = folder if document.precision == "fp32" else find_precision_folder(folder, "fp32")
        try:
            model_path = trained_model_of(fp32)
        except UserError:
            progress(
                "trained model not found next to the folder: parity is measured on the self-test images only"
            )
            return images, None
    progress(f"computing PyTorch's logits for {len(split):,} test images")
    _, logits = reference_logits(load_trained_model(model_path), split.images)
    if logits.shape[1] != len(document.output.classes):
        raise UserError(
            f"{model_path} has {logits.shape[1]} classes, {folder} {len(document.output.classes)}"
        )
    file = scratch / "logits.bin"
    write_logits_file(file, logits)
    return images, file
