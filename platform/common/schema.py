"""The base class of configuration records, and validation that reports all errors at once."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from platform.common.errors import UsageError, did_you_mean, not_one_of

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""A seed that every random generator in use accepts; NumPy's `RandomState`, in Optuna, has 32 bits."""


class Frozen(BaseModel):
    """An immutable, hashable record that rejects unknown keys and non-finite numbers.

    The docstring below a field is its description.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True
    )

    def all_values(self) -> dict[str, Any]:
        """Return the fields as nested mappings, including those that `model_dump` omits when off."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            name: each.all_values() if isinstance(each, Frozen) else each for name, each in values.items()
        }


Record = TypeVar("Record", bound=BaseModel)


def validate(record: type[Record], values: Mapping[str, Any], *, source: str) -> Record:
    """Build `record` from `values`, parsed YAML or JSON; `source` is their origin, such as a file name.

    Raises:
        UsageError: one line per error, `source: path.to.field: message (did you mean ...?)`.
    """
    try:
        return record.model_validate(values)
    except ValidationError as error:
        raise UsageError("\n".join(describe_problems(error, record, source=source))) from None


def describe_problems(error: ValidationError, record: type[BaseModel], *, source: str) -> list[str]:
    """Return one line per problem in `error`: source, path, message and suggestion."""
    return [
        f"{source}: {path}: {message}" if path else f"{source}: {message}"
        for path, message in validation_problems(error, record)
    ]


def validation_problems(error: ValidationError, record: type[BaseModel]) -> list[tuple[str, str]]:
    """Return (dotted path as in the user's file, message with suggestion) for each problem in `error`."""
    return [(_dotted_path(record, item["loc"]), _message(item, record)) for item in error.errors()]


def _message(item: ErrorDetails, record: type[BaseModel]) -> str:
    match item["type"]:
        case "extra_forbidden":
            return f"unknown key{did_you_mean(str(item['loc'][-1]), _sibling_keys(record, item['loc']))}"
        case "union_tag_invalid":
            key = str(item["ctx"]["discriminator"]).strip("'")
            return f"{key} {not_one_of(item['ctx']['tag'], _names_in(item['ctx']['expected_tags']))}"
        case "union_tag_not_found":
            return f"the key {item['ctx']['discriminator']} is missing"
        case "literal_error":
            return not_one_of(item["input"], _names_in(item["ctx"]["expected"].replace(" or ", ", ")))
        case "int_parsing_size":
            return f"Input should be a smaller number, got {reprlib.repr(item['input'])}"
        case _:
            return item["msg"].removeprefix("Value error, ")


def _names_in(text: str) -> list[str]:
    """Return the names in pydantic's list `'a', 'b'`."""
    return [name.strip().strip("'") for name in text.split(",")]


def nested_records(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield every pydantic model that a type annotation contains."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from nested_records(argument)


def _walk_location(
    record: type[BaseModel], loc: tuple[int | str, ...]
) -> Iterator[tuple[str, list[type[BaseModel]], bool]]:
    """Yield (part, possible records at this level, whether the part is a key in the user's file)."""
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
        # pydantic adds the tag of a discriminated union to the path; it is not a key of the user's file.
        tagged = [
            model
            for model in level
            if "name" in model.model_fields and key in get_args(model.model_fields["name"].annotation)
        ]
        yield key, level, not tagged
        level = tagged or level


def _dotted_path(record: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    return ".".join(part for part, _, written in _walk_location(record, loc) if written)


def _sibling_keys(record: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    level: list[type[BaseModel]] = [record]
    for _, level_here, _ in _walk_location(record, loc):
        level = level_here
    return sorted({key for model in level for key in model.model_fields})
