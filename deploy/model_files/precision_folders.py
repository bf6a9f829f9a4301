"""Find and remove the folders of one network in several precisions: `export`, `export-bf16`, `export-int8`.

Every precision keeps the reference logits of its fp32 source; equal logits identify the same network.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from deploy.model_files import model_folder as mf
from platform.common.errors import UserError


def precision_folder(out_dir: Path, precision: str) -> Path:
    """Return the folder of a precision next to the fp32 folder: `export`, `export-int8`."""
    return out_dir if precision == "fp32" else out_dir.with_name(f"{out_dir.name}-{precision}")


def find_precision_folder(folder: Path, precision: mf.ModelPrecision) -> Path:
    """Return the folder with the network of `folder` in `precision`: itself, or one next to it.

    Raises:
        UserError: the folder is missing, or holds another network.
    """
    document = mf.read_document(folder)
    if document.precision == precision:
        return folder
    base = folder.with_name(folder.name.removesuffix(f"-{document.precision}"))
    path = precision_folder(base, precision)
    if not (path / mf.DOCUMENT).is_file():
        raise UserError(
            f"no export in {precision} next to {folder} (looked for {path}); make one with: "
            f"python -m deploy.export SWEEP --precision {precision}"
        )
    if not is_same_network(document, mf.read_document(path)):
        raise UserError(f"{path} holds a different network from {folder}; export it again")
    return path


def find_lower_precisions(
    folder: Path, *, warn: Callable[[str], None] = lambda _: None
) -> dict[mf.ModelPrecision, Path]:
    """Return the folders next to an fp32 folder that hold its network in lower precisions.

    Args:
        folder: the fp32 folder.
        warn: called with a message for each folder that is left out: damaged, or another network.
    """
    document = mf.read_document(folder)
    found: dict[mf.ModelPrecision, Path] = {}
    for precision in mf.PRECISIONS:
        path = precision_folder(folder, precision)
        if path == folder or not (path / mf.DOCUMENT).is_file():
            continue
        try:
            other = mf.read_document(path)
        except UserError as damage:
            warn(f"{path} is left out: {damage}")
            continue
        if other.precision == precision and is_same_network(document, other):
            found[precision] = path
        else:
            warn(
                f"{path} is left out: its network or precision does not match its name and {folder}; "
                "export it again"
            )
    return found


def is_same_network(one: mf.ModelDocument, other: mf.ModelDocument) -> bool:
    """Return whether two documents describe the same network, regardless of precision."""
    return one.self_test.logits == other.self_test.logits


def remove_lower_precisions(folder: Path, *, keep: Collection[Path] = ()) -> list[Path]:
    """Remove the lower-precision folders of an earlier export into `folder`; return their paths.

    Folders that contain other files are kept.

    Args:
        folder: the fp32 folder, about to be replaced or just replaced.
        keep: folders to keep.

    Raises:
        UserError: a folder cannot be removed.
    """
    dropped = []
    for precision in mf.PRECISIONS:
        path = precision_folder(folder, precision)
        if path == folder or path in keep or not (path / mf.DOCUMENT).is_file():
            continue
        if {file.name for file in path.iterdir()} - {*mf.FILES}:
            continue
        try:
            # The document first: a partly removed folder without it is not taken for a model.
            (path / mf.DOCUMENT).unlink()
            shutil.rmtree(path)
        except OSError as error:
            raise UserError(f"cannot remove {path}, an export of another network: {error.strerror}") from None
        dropped.append(path)
    return dropped
