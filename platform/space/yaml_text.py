"""YAML 1.2 as plain Python values: `1e-3` is a number, `on` is text, errors name their line and column."""

from __future__ import annotations

import io
import reprlib
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import Node

from platform.common.errors import UsageError

_MAX_VALUES = 100_000
_TAGS = "tag:yaml.org,2002:"


class _Constructor(SafeConstructor):
    """Plain Python values only; dates stay text."""

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """Return the value of a node; a scalar that its tag does not allow is an error with its place."""
        kind = str(node.tag).removeprefix(_TAGS)
        try:
            value = super().construct_object(node, deep=deep)
            if isinstance(value, str):
                value.encode()  # a lone surrogate cannot be stored
        except (ValueError, LookupError):
            text = f"{reprlib.repr(node.value)} is not a valid {kind}"
            raise ConstructorError(None, None, text, node.start_mark) from None
        if isinstance(value, int) and value.bit_length() > 63:
            text = f"{reprlib.repr(node.value)} is too large: an integer has at most 63 bits and a sign"
            raise ConstructorError(None, None, text, node.start_mark)
        if kind in ("binary", "set"):
            raise ConstructorError(None, None, f"the type {kind} is not supported", node.start_mark)
        return value

    def check_mapping_key(self, node: Node, key_node: Node, mapping: Any, key: Any, value: Any) -> bool:  # noqa: ARG002 - the signature of ruamel.yaml
        """Refuse a duplicate key; ruamel.yaml's own message would contain both values."""
        if key in mapping:
            raise ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
        return True


_Constructor.add_constructor(_TAGS + "timestamp", SafeConstructor.construct_yaml_str)


def parse_yaml(text: str, *, source: str) -> Any:
    """Return the content of a YAML document as plain Python values; messages start with `source`.

    Raises:
        UsageError: the text is not YAML, repeats a key, or is too large; `source:line:column: reason`.
    """
    loader = YAML(typ="safe", pure=True)
    loader.Constructor = _Constructor
    loader.composer.warn_double_anchors = False  # YAML allows a second anchor of the same name
    try:
        value = loader.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        message = ", ".join(part for part in (error.context, error.problem) if part)
        raise UsageError(f"{where}: not valid YAML: {message}") from None
    except (YAMLError, RecursionError) as error:
        raise UsageError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None
    if _too_large(value):
        raise UsageError(f"{source}: more than {_MAX_VALUES:,} values; does a section contain itself?")
    return value


def _too_large(value: Any) -> bool:
    """Return whether aliases make the document endless or expand it beyond the limit."""
    waiting, seen = [value], 0
    while waiting:
        item = waiting.pop()
        seen += 1
        if seen > _MAX_VALUES:
            return True
        waiting += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return False


def dump_yaml(values: Any) -> str:
    """Return `values` as YAML that `parse_yaml` reads back equal; keys keep their order."""
    dumper = YAML(typ="safe", pure=True)
    dumper.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # annotated as None
    dumper.default_flow_style = None
    dumper.allow_unicode = True
    dumper.width = 110
    stream = io.StringIO()
    dumper.dump(values, stream)
    return stream.getvalue()
