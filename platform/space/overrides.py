"""Overrides of a space file's settings from the command line: `--set path=value`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from platform.common.errors import UsageError, did_you_mean
from platform.common.schema import nested_records
from platform.space.distributions import apply_settings, tuples_to_lists
from platform.space.spec import SweepSpec
from platform.space.yaml_text import parse_yaml
from platform.training.config import RunConfig


def apply_overrides(document: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of a space file's content with each `path=value` applied; values are YAML.

    `search.PATH={...}` replaces the distribution of a setting, `search.PATH=null` removes it from the search.

    Raises:
        UsageError: an override is not of the form `path=value`, or the setting does not exist.
    """
    changed: dict[str, Any] = tuples_to_lists(document)
    for override in overrides:
        path, equals, text = override.partition("=")
        path = path.strip()
        if not equals or not path:
            raise UsageError(
                f"an override must be PATH=VALUE, such as trials=12 or base.epochs=6; got {override!r}"
            )
        value = parse_yaml(text, source=f"--set {path}")
        parts = path.split(".")
        _check_path(parts, override)
        if parts[0] == "search" and len(parts) > 1:
            _set_search(changed, ".".join(parts[1:]), value, override)
            continue
        if len(parts) > 1 and parts[0] not in changed:
            # The section is missing in the file: override its defaults.
            default = SweepSpec.model_fields[parts[0]].get_default()
            changed[parts[0]] = default.model_dump() if isinstance(default, BaseModel) else {}
        changed = apply_settings(changed, ((path, value),))
    return changed


def _set_search(document: dict[str, Any], path: str, value: Any, override: str) -> None:
    """Set an entry of the search section, whose keys may be dotted or nested."""
    section = document.get("search")
    if not isinstance(section, dict):
        section = document["search"] = {}
    key = path
    while key not in section and any(path.startswith(f"{outer}.") for outer in section):
        outer = next(outer for outer in section if path.startswith(f"{outer}."))
        if not isinstance(section[outer], dict):
            raise UsageError(
                f"--set {override}: 'search.{outer}' is a list of alternatives; replace the whole list with "
                f"--set 'search.{outer}=[...]'"
            )
        section, path = section[outer], path[len(outer) + 1 :]
        key = path
    if value is None:
        if section.pop(key, None) is None:
            raise UsageError(
                f"--set {override}: {key!r} is not in the search section{did_you_mean(key, section)}"
            )
    else:
        section[key] = value


def _check_path(parts: list[str], override: str) -> None:
    """Refuse a path that does not exist in space files, and suggest the closest name at its level."""
    level: list[type[BaseModel]] = [SweepSpec]
    top = "a space file"
    if parts[0] == "search" and len(parts) > 1:
        level, parts, top = [RunConfig], parts[1:], "a run"
    for index, part in enumerate(parts):
        keys = {key for record in level for key in record.model_fields}
        if part not in keys:
            where = ".".join(parts[:index]) or top
            settings = f"the settings {', '.join(sorted(keys))}" if keys else "no subsettings"
            hint = did_you_mean(part, keys)
            raise UsageError(f"--set {override}: unknown setting {part!r}{hint}; {where} has {settings}")
        level = [
            found
            for record in level
            if part in record.model_fields
            for found in nested_records(record.model_fields[part].annotation)
        ]
