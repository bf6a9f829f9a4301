"""Image files in one folder per class: ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png (or val)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from platform.common.errors import UserError, require_utf8
from platform.common.text_format import plural
from platform.data.dataset import DatasetSource, Notify, RawDataset, Split, files_fingerprint
from platform.data.images.parallel_decode import decode_all, lossy_suffix

SIZE = 32
_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
_LAYOUT = "arrange the images as ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png"


@dataclass(frozen=True)
class ClassFolders:
    """The classes and image files of a dataset, listed but not decoded."""

    classes: tuple[str, ...]
    train_files: list[tuple[str, int]]
    """(path, label), sorted by class and file name."""
    test_files: list[tuple[str, int]]
    left_out: list[str]
    """Files in the class folders that are not used: not images by their names, or in further subfolders."""

    def fingerprint(self) -> str:
        """Return a string that changes whenever one of the files does."""
        return files_fingerprint(file for file, _ in (*self.train_files, *self.test_files))

    def report_left_out(self, notify: Notify) -> None:
        if self.left_out:
            examples = ", ".join(self.left_out[:3]) + (", ..." if len(self.left_out) > 3 else "")
            names = ", ".join(f"*{suffix}" for suffix in _SUFFIXES)
            notify(
                f"left out {plural(len(self.left_out), 'file')} "
                f"(only files directly in a class folder count, named {names}): {examples}"
            )


def find_class_folders(root: Path, *, custom: bool = True) -> DatasetSource | None:
    """Return the class folders at `root` as a source; otherwise as `list_class_folders`.

    `custom` is for `data.name: folder`, with images of any size; those of CIFAR-10 are 32x32.
    """
    listing = list_class_folders(root)
    if listing is None:
        return None
    return DatasetSource(
        key=f"folder:{root.absolute()}",
        fingerprint=listing.fingerprint(),
        read=partial(read_class_folders, root, custom, listing),
    )


def list_class_folders(root: Path) -> ClassFolders | None:
    """List the class folders at `root`; None without a `train` folder that has subfolders.

    Raises:
        UserError: the `test` or `val` folder is missing, there is one class only, or a class has no training
            images.
    """
    if not (root / "train").is_dir() or not _subfolders(root / "train"):
        return None
    test = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if test is None:
        raise UserError(
            f"{root}: a 'test' (or 'val') folder is needed to evaluate models, got only 'train'; {_LAYOUT}"
        )
    classes = tuple(_subfolders(root / "train"))
    if unknown := [name for name in _subfolders(test) if name not in classes]:
        raise UserError(
            f"{test}: every class must have a folder of training images in {root / 'train'}; missing: "
            f"{', '.join(unknown[:5])}"
        )
    if len(classes) < 2:
        raise UserError(
            f"{root / 'train'}: at least two classes are needed, got only {classes[0]}; {_LAYOUT}"
        )
    left_out: list[str] = []
    train_files = _labeled_files(root / "train", classes, left_out)
    test_files = _labeled_files(test, classes, left_out)
    used = {label for _, label in train_files}
    if empty := [name for number, name in enumerate(classes) if number not in used]:
        raise UserError(f"{root / 'train'}: no images of the classes {', '.join(empty[:5])}; {_LAYOUT}")
    if not test_files:
        raise UserError(f"{test}: no images; {_LAYOUT}")
    return ClassFolders(classes, train_files, test_files, left_out)


def read_class_folders(root: Path, custom: bool, listing: ClassFolders, notify: Notify) -> RawDataset:
    """Decode all images on all cores; with `custom`, resize them to 32x32.

    Raises:
        UserError: an image cannot be decoded; the message names the file.
    """
    encodings: Counter[str] = Counter()
    listing.report_left_out(notify)

    def split(files: Sequence[tuple[str, int]]) -> Split:
        notify(f"decoding {len(files):,} images in {root}")
        rows = ((file, Path(file)) for file, _ in files)
        images = decode_all(rows, len(files), size=SIZE, encodings=encodings, resize=custom)
        return Split(images, np.array([label for _, label in files], np.int64))

    train, test = split(listing.train_files), split(listing.test_files)
    label = f"folder:{root.resolve().name}" if custom else f"cifar10{lossy_suffix(encodings)}"
    name = "folder" if custom else "cifar10"
    return RawDataset(name=name, label=label, class_names=listing.classes, train=train, test=test)


def _subfolders(root: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != ".")


def _labeled_files(root: Path, classes: Sequence[str], left_out: list[str]) -> list[tuple[str, int]]:
    """Return (path, label), sorted by class and file name; add unused files to `left_out`."""
    # Strings: building Path objects for 60,000 files takes a second.
    found = []
    for label, name in enumerate(classes):
        folder = f"{root}{os.sep}{name}"
        if not os.path.isdir(folder):  # noqa: PTH112
            continue
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name[0] == ".":
                continue
            if entry.is_dir():
                left_out += (
                    f"{top}{os.sep}{file}" for top, _, files in os.walk(entry.path) for file in files
                )
            elif entry.name.lower().endswith(_SUFFIXES) and entry.is_file():
                require_utf8(entry.path)
                found.append((entry.path, label))
            else:
                left_out.append(entry.path)
    return found
