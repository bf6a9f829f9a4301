"""Find, read, override and validate space files.

A file with a `search` section is a search space; without one it is a recipe, a single training run.
This module does not import torch, ray or optuna, so that errors appear in under a second.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from platform.common.errors import UsageError, UserError, did_you_mean
from platform.common.regular_file import read_regular_file
from platform.common.schema import Frozen, validate
from platform.space.overrides import apply_overrides
from platform.space.spec import SweepSpec
from platform.space.yaml_text import parse_yaml
from platform.training.config import RunConfig

SPEC_FILE = "spec.yaml"
"""File name of the resolved spec in a sweep folder."""

_SUFFIXES = (".yaml", ".yml")
_MAX_BYTES = 16 * 2**20


class _Recipe(Frozen):
    """A file without a `search` section: a single run."""

    name: str
    about: str = ""
    base: RunConfig


def find_spaces() -> dict[str, Path]:
    """Return the space files by name: those in ./search_spaces, then the project's own."""
    found: dict[str, Path] = {}
    for folder in (Path.cwd() / "search_spaces", Path(__file__).resolve().parents[2] / "search_spaces"):
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                if path.suffix in _SUFFIXES:
                    found.setdefault(path.stem, path)
    return found


def load_space(name_or_path: str, *, overrides: Sequence[str] = ()) -> SweepSpec:
    """Read a search space by name (`resnet18_cifar`) or by the path of a .yaml file.

    Each of `overrides` (`trials=12`, `base.epochs=6`) is applied before the validation.

    Raises:
        UsageError: the space does not exist or is invalid; the message has one line per error.
    """
    path = _find_space_file(name_or_path)
    document = _load_document(path, overrides)
    if "search" not in document:
        raise UsageError(
            f"{_display_path(path)}: a search space needs a 'search' section; "
            f"to train this file as a single run: python -m platform.train {name_or_path}"
        )
    return validate(SweepSpec, document, source=_display_path(path))


def load_run(name_or_path: str, *, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the base run of a search space, or a recipe's run; arguments and errors as for `load_space`."""
    path = _find_space_file(name_or_path)
    document = _load_document(path, overrides)
    if "search" in document:
        validate(SweepSpec, _load_document(path, ()), source=_display_path(path))
        # The file is valid. With overrides, its base need not fit the scheduler or the number of workers.
        document = {key: value for key, value in document.items() if key in ("name", "about", "base")}
    unknown = [key for key in document if key not in ("name", "about", "base")]
    if unknown:
        raise UsageError(
            f"{_display_path(path)}: {unknown[0]}: a file without a 'search' section (a recipe for one run) "
            "may contain 'name', 'about' and 'base' only"
        )
    return validate(_Recipe, document, source=_display_path(path)).base


def load_spec(folder: Path) -> SweepSpec:
    """Read the spec in a sweep folder; UsageError if it is missing or invalid."""
    path = folder / SPEC_FILE
    if not path.is_file():
        raise UsageError(f"{folder}: not a sweep folder: {SPEC_FILE} is missing")
    return validate(SweepSpec, _load_document(path, ()), source=str(path))


def _find_space_file(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if path.suffix in _SUFFIXES or len(path.parts) > 1:
        if not path.is_file():
            raise UsageError(f"no such search space file: {name_or_path}")
        return path
    spaces = find_spaces()
    if name_or_path not in spaces:
        raise UsageError(
            f"no search space named {name_or_path!r}{did_you_mean(name_or_path, spaces)}; "
            f"available: {', '.join(spaces) or 'none (no search_spaces folder)'}; "
            "or give the path of a .yaml file"
        )
    return spaces[name_or_path]


def _load_document(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    try:
        text = read_regular_file(path, max_bytes=_MAX_BYTES).decode("utf-8")
    except (UserError, UnicodeDecodeError) as error:
        raise UsageError(f"{_display_path(path)}: cannot be read as text: {error}") from None
    document = parse_yaml(text, source=_display_path(path))
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise UsageError(
            f"{_display_path(path)}: must contain sections such as 'base' and 'search', "
            f"got {type(document).__name__}"
        )
    document.setdefault("name", re.sub(r"[^A-Za-z0-9_.-]+", "_", path.stem).strip("_.-") or "space")
    return apply_overrides(document, overrides)


def _display_path(path: Path) -> str:
    """Return the path relative to the working directory if it is inside it."""
    absolute = path.resolve()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(path)
