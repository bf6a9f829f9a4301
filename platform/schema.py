"""The base of every configuration record, and validation that reports every mistake at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from platform.errors import UsageError, did_you_mean


class Frozen(BaseModel):
    """An immutable record: unknown keys are refused, non-finite numbers too; hashable; JSON both ways.

    A docstring under a field is its description.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
    )


Record = TypeVar("Record", bound=BaseModel)


def validate(record: type[Record], values: Mapping[str, Any], *, source: str) -> Record:
    """Build `record` from `values`, or raise one `UsageError` that lists every mistake.

    Args:
        record: the pydantic model to build.
        values: parsed YAML or JSON.
        source: what the values came from (a file name), to begin each line of the message.

    Raises:
        UsageError: one line per mistake, `source: path.to.field: message (did you mean ...?)`.
    """
    try:
        return record.model_validate(values)
    except ValidationError as error:
        raise UsageError("\n".join(describe_problems(error, record, source=source))) from None


def describe_problems(
    error: ValidationError, record: type[BaseModel], *, source: str, prefix: str = ""
) -> list[str]:
    """Return one line per mistake in `error`, each with its path and, for unknown keys, a suggestion."""
    lines = []
    for path, message in validation_problems(error, record):
        where = ".".join(part for part in (prefix, path) if part)
        lines.append(f"{source}: {where}: {message}" if where else f"{source}: {message}")
    return lines


def validation_problems(error: ValidationError, record: type[BaseModel]) -> list[tuple[str, str]]:
    """Return (dotted path as the user wrote it, message with suggestion) for each mistake in `error`."""
    found = []
    for item in error.errors():
        message = item["msg"].removeprefix("Value error, ")
        hint = ""
        if item["type"] == "extra_forbidden":
            message = "unknown key"
            hint = did_you_mean(str(item["loc"][-1]), _keys_beside(record, item["loc"]))
        elif item["type"] == "union_tag_invalid":
            context = item["ctx"]
            tags = [tag.strip().strip("'") for tag in str(context["expected_tags"]).split(",")]
            got = str(context["tag"])
            message = f"{context['discriminator']} is {got!r}, not one of {', '.join(tags)}".replace(
                "'name' is", "name is"
            )
            hint = did_you_mean(got, tags)
        elif item["type"] == "union_tag_not_found":
            message = f"needs {item['ctx']['discriminator']}, which says what kind it is"
        elif item["type"] == "literal_error":
            options = [
                option.strip().strip("'")
                for option in str(item["ctx"]["expected"]).replace(" or ", ", ").split(",")
            ]
            message = f"{item['input']!r} is not one of {', '.join(options)}"
            hint = did_you_mean(str(item["input"]), options)
        found.append((_readable_path(record, item["loc"]), message + hint))
    return found


def nested_records(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield every pydantic model that a type annotation contains."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from nested_records(argument)


def _walk_location(
    record: type[BaseModel], loc: tuple[int | str, ...]
) -> Iterator[tuple[str, list[type[BaseModel]], bool]]:
    """Yield (part, candidate records at this level, whether the part is a key a user wrote)."""
    level: list[type[BaseModel]] = [record]
    for part in loc:
        key = str(part)
        owners = [model for model in level if key in model.model_fields]
        if owners:
            yield key, level, True
            level = [
                found for model in owners for found in nested_records(model.model_fields[key].annotation)
            ]
            continue
        # pydantic adds the tag of a discriminated union to the path; users never wrote it there.
        tagged = [
            model
            for model in level
            if "name" in model.model_fields and key in get_args(model.model_fields["name"].annotation)
        ]
        yield key, level, not tagged
        level = tagged or level


def _readable_path(record: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    return ".".join(part for part, _, written in _walk_location(record, loc) if written)


def _keys_beside(record: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    level: list[type[BaseModel]] = [record]
    for _, level_here, _ in _walk_location(record, loc):
        level = level_here
    return sorted({key for model in level for key in model.model_fields})
