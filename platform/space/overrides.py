"""`--set path=value`: one setting of a space file changed from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from platform.errors import UsageError, did_you_mean
from platform.schema import nested_records
from platform.space.distributions import tuples_to_lists
from platform.space.spec import SweepSpec
from platform.space.yaml_text import parse_yaml
from platform.training.config import RunConfig


def apply_overrides(document: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of a space file's content with each `path=value` put in; values are YAML.

    `search.PATH={...}` replaces what is searched there, `search.PATH=null` takes it out of the search.

    Raises:
        UsageError: not of the form `path=value`, or no such setting.
    """
    changed: dict[str, Any] = tuples_to_lists(document)
    for override in overrides:
        path, equals, text = override.partition("=")
        path = path.strip()
        if not equals or not path:
            raise UsageError(f"an override is PATH=VALUE, as in trials=12 or base.epochs=6; got {override!r}")
        value = parse_yaml(text, source=f"--set {path}")
        parts = path.split(".")
        _check_path(parts, override)
        if parts[0] == "search" and len(parts) > 1:
            _set_search(changed, ".".join(parts[1:]), value, override)
            continue
        if len(parts) > 1 and parts[0] not in changed:
            # A file may leave a section out; its defaults are then what the override changes.
            default = SweepSpec.model_fields[parts[0]].get_default()
            changed[parts[0]] = default.model_dump() if isinstance(default, BaseModel) else {}
        section = changed
        for part in parts[:-1]:
            if not isinstance(section.get(part), dict):
                section[part] = {}
            section = section[part]
        section[parts[-1]] = value
    return changed


def _set_search(document: dict[str, Any], path: str, value: Any, override: str) -> None:
    """Set an entry of the search section, which a file may write dotted or nested."""
    section = document.get("search")
    if not isinstance(section, dict):
        section = document["search"] = {}
    key = path
    while key not in section and any(path.startswith(f"{outer}.") for outer in section):
        outer = next(outer for outer in section if path.startswith(f"{outer}."))
        if not isinstance(section[outer], dict):
            raise UsageError(
                f"--set {override}: 'search.{outer}' is a list of alternatives; give it as a whole: "
                f"--set 'search.{outer}=[...]'"
            )
        section, path = section[outer], path[len(outer) + 1 :]
        key = path
    if value is None:
        if section.pop(key, None) is None:
            raise UsageError(f"--set {override}: {key!r} is not searched{did_you_mean(key, section)}")
    else:
        section[key] = value


def _check_path(parts: list[str], override: str) -> None:
    """Refuse a path that no space file can have, with the closest name at the level of the mistake."""
    level: list[type[BaseModel]] = [SweepSpec]
    if parts[0] == "search" and len(parts) > 1:
        level, parts = [RunConfig], parts[1:]
    for index, part in enumerate(parts):
        keys = {key for record in level for key in record.model_fields}
        if part not in keys:
            where = ".".join(parts[:index]) or "here"
            valid = (
                f"; {where} has: {', '.join(sorted(keys))}" if keys else f"; {where} has no settings within"
            )
            raise UsageError(f"--set {override}: unknown setting {part!r}{did_you_mean(part, keys)}{valid}")
        level = [
            found
            for record in level
            if part in record.model_fields
            for found in nested_records(record.model_fields[part].annotation)
        ]
