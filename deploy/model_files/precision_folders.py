"""One network in several precisions: model folders side by side, `export`, `export-bf16`, `export-int8`.

Every precision keeps the reference logits of the fp32 network that it was made from; by them one sees whether
two folders hold the same network.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from deploy.model_files import model_folder as mf
from platform.errors import UserError


def folder_of(out_dir: Path, precision: str) -> Path:
    """Return where a precision belongs: beside the fp32 folder, `export` and `export-int8`."""
    return out_dir if precision == "fp32" else out_dir.with_name(f"{out_dir.name}-{precision}")


def sibling(folder: Path, precision: mf.Precision) -> Path:
    """Return the folder that holds the network of `folder` in `precision`: itself, or one beside it.

    Raises:
        UserError: there is none, or it holds another network.
    """
    document = mf.read_document(folder)
    if document.precision == precision:
        return folder
    base = folder.with_name(folder.name.removesuffix(f"-{document.precision}"))
    beside = folder_of(base, precision)
    if not (beside / mf.DOCUMENT).is_file():
        raise UserError(
            f"no export in {precision} beside {folder} (looked at {beside}); make one with: "
            f"python -m deploy.export SWEEP --precision {precision}"
        )
    if not same_network(document, mf.read_document(beside)):
        raise UserError(f"{beside} holds another network than {folder}; export it again")
    return beside


def siblings(folder: Path, *, warn: Callable[[str], None] = lambda _: None) -> dict[mf.Precision, Path]:
    """Return the folders beside an fp32 folder that hold its network in lower precisions.

    Args:
        folder: the fp32 folder.
        warn: told, in words, of each that is left out: damaged, or another network.
    """
    document = mf.read_document(folder)
    found: dict[mf.Precision, Path] = {}
    for precision in mf.PRECISIONS:
        beside = folder_of(folder, precision)
        if beside == folder or not (beside / mf.DOCUMENT).is_file():
            continue
        try:
            other = mf.read_document(beside)
        except UserError as damage:
            warn(f"{beside} is left out: {damage}")
            continue
        if other.precision == precision and same_network(document, other):
            found[precision] = beside
        else:
            warn(
                f"{beside} is left out: it holds another network than {folder}, or in another precision; "
                "export it again"
            )
    return found


def same_network(one: mf.ModelDocument, other: mf.ModelDocument) -> bool:
    """Return whether two documents describe one network, in whatever precision."""
    return one.self_test.logits == other.self_test.logits


def drop_siblings(folder: Path, *, keep: Collection[Path] = ()) -> list[Path]:
    """Remove what an earlier export into `folder` left beside it in other precisions; return what it was.

    Folders with other files than an export's stay, whatever their name.

    Args:
        folder: the fp32 folder, about to be replaced or just replaced.
        keep: folders that stay.

    Raises:
        UserError: one cannot be removed.
    """
    dropped = []
    for precision in mf.PRECISIONS:
        beside = folder_of(folder, precision)
        if beside == folder or beside in keep or not (beside / mf.DOCUMENT).is_file():
            continue
        if {path.name for path in beside.iterdir()} - {*mf.FILES}:
            continue
        try:
            # The document first: without it nobody takes what is left for a model.
            (beside / mf.DOCUMENT).unlink()
            shutil.rmtree(beside)
        except OSError as error:
            raise UserError(
                f"cannot remove {beside}, an export of another network: {error.strerror}"
            ) from None
        dropped.append(beside)
    return dropped
