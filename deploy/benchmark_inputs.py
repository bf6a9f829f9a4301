"""Test images with their labels and PyTorch's answers, as files for the engine's benchmark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deploy.model_files.image_file import write_image_file, write_logits_file
from deploy.model_files.precision_folders import sibling
from platform.errors import UserError


def write_questions(
    folder: Path,
    model_path: Path | None,
    scratch: Path,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Path, Path | None]:
    """Write the test images of the data that a model was trained on, and PyTorch's logits of them.

    Args:
        folder: a model folder in any precision.
        model_path: the trained model; by default that of the folder's sweep.
        scratch: where the files go.
        progress: told, in words, what is going on.

    Returns:
        the file of images, and that of logits; none where no trained model is found.

    Raises:
        UserError: the data is not in the cache, or the trained model is another network.
    """
    from deploy.conversion.export_source import trained_model_of
    from deploy.conversion.parity import reference_logits
    from deploy.model_files.model_folder import read_document
    from platform.data.cache import default_cache_dir, find_label, load_split
    from platform.models.trained import load_trained_model

    document = read_document(folder)
    image = document.input
    label = document.source.data or "unknown"
    info = find_label(default_cache_dir(), label)
    if info is None or info.image_shape != (image.channels, image.height, image.width):
        raise UserError(
            f"--accuracy counts right answers on the test images of {label}, which are not in the cache at "
            "this size; run a sweep on them first, or measure without --accuracy"
        )
    split = load_split(info, "test")
    images = scratch / "images.bin"
    write_image_file(images, split.images, split.labels)
    if model_path is None:
        fp32 = folder if document.precision == "fp32" else sibling(folder, "fp32")
        try:
            model_path = trained_model_of(fp32)
        except UserError:
            progress("the trained model is not beside the folder: parity is that of the self-test's patterns")
            return images, None
    progress(f"computing PyTorch's logits of {len(split):,} test images")
    _, logits = reference_logits(load_trained_model(model_path), split.images)
    if logits.shape[1] != len(document.output.classes):
        raise UserError(
            f"{model_path} has {logits.shape[1]} classes, {folder} {len(document.output.classes)}"
        )
    file = scratch / "logits.bin"
    write_logits_file(file, logits)
    return images, file
