"""Space files: found by name, read, overridden from the command line, and validated at once.

A file is a search space if it has a `search` section, else a recipe: one training run.
This module imports neither torch nor ray nor optuna: a mistake answers in under a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from platform.errors import UsageError, did_you_mean
from platform.schema import Frozen, validate
from platform.space.overrides import apply_overrides
from platform.space.spec import SweepSpec, changed_fields, trial_seed
from platform.space.yaml_text import parse_yaml
from platform.training.config import RunConfig

__all__ = [
    "SPEC_FILE",
    "SweepSpec",
    "changed_fields",
    "find_spaces",
    "load_run",
    "load_space",
    "load_spec",
    "trial_seed",
]

SPEC_FILE = "spec.yaml"
"""The resolved spec in a sweep's folder."""

_SUFFIXES = (".yaml", ".yml")


class _Recipe(Frozen):
    """A file without a `search` section: one run."""

    name: str
    about: str = ""
    base: RunConfig


def find_spaces() -> dict[str, Path]:
    """Return the files that a name can mean: those in ./search_spaces, then the project's own."""
    found: dict[str, Path] = {}
    for folder in (Path.cwd() / "search_spaces", Path(__file__).resolve().parents[2] / "search_spaces"):
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                if path.suffix in _SUFFIXES:
                    found.setdefault(path.stem, path)
    return found


def load_space(name_or_path: str, *, overrides: Sequence[str] = ()) -> SweepSpec:
    """Read a search space.

    Args:
        name_or_path: a name (`resnet18_cifar`), or the path of a .yaml file.
        overrides: `path=value` each, applied before validation: `trials=12`, `base.epochs=6`.

    Raises:
        UsageError: no such space, or every mistake in it, one line each.
    """
    path = _find_space_file(name_or_path)
    document = _load_document(path, overrides)
    if "search" not in document:
        raise UsageError(
            f"{_display_path(path)}: has no 'search' section, so there is nothing to sweep: "
            f"it is a recipe for one run; train it with: python -m platform.train {name_or_path}"
        )
    return validate(SweepSpec, document, source=_display_path(path))


def load_run(name_or_path: str, *, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the base run of a search space or a recipe; arguments and errors as `load_space`."""
    path = _find_space_file(name_or_path)
    document = _load_document(path, overrides)
    if "search" in document:
        validate(SweepSpec, _load_document(path, ()), source=_display_path(path))
        # The file is right. A run of one epoch need not suit its scheduler, or its batch its workers.
        document = {key: value for key, value in document.items() if key in ("name", "about", "base")}
    unknown = [key for key in document if key not in ("name", "about", "base")]
    if unknown:
        raise UsageError(
            f"{_display_path(path)}: {unknown[0]}: a file without a 'search' section is a recipe: "
            "it holds 'about' and 'base' only"
        )
    return validate(_Recipe, document, source=_display_path(path)).base


def load_spec(folder: Path) -> SweepSpec:
    """Read the spec that a sweep left in its folder; UsageError if it cannot be read."""
    path = folder / SPEC_FILE
    if not path.is_file():
        raise UsageError(f"{folder}: is not a sweep's folder: {SPEC_FILE} is missing")
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
            f"there are: {', '.join(spaces) or 'none (no search_spaces folder here)'}; "
            "or give the path of a .yaml file"
        )
    return spaces[name_or_path]


def _load_document(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{_display_path(path)}: cannot be read as text: {error}") from None
    document = parse_yaml(text, source=_display_path(path))
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise UsageError(
            f"{_display_path(path)}: must hold sections such as 'base' and 'search', got {type(document).__name__}"
        )
    document.setdefault("name", path.stem)
    return apply_overrides(document, overrides)


def _display_path(path: Path) -> str:
    """Return the path as a person would type it from here."""
    absolute = path.resolve()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(path)
