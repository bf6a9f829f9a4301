"""YAML as people mean it: `1e-3` is a number, a key stands once, an error names its line.

PyYAML follows YAML 1.1, where `1e-3` is text and a repeated key silently wins over the first.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from platform.errors import UsageError

_MOST_VALUES = 100_000
_DATE_TAG = "tag:yaml.org,2002:timestamp"
_FLOAT_TAG = "tag:yaml.org,2002:float"
# YAML 1.2's floats: the exponent needs neither a dot in the mantissa nor a sign.
_FLOAT = re.compile(
    r"""^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?
         |[-+]?[0-9]+[eE][-+]?[0-9]+
         |[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's floats, no dates, and repeated keys refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands twice in one section", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which quotes what `_Loader` would not read back as text."""


for _side in (_Loader, _Dumper):
    _side.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_FLOAT_TAG, _DATE_TAG)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _side.add_implicit_resolver(_FLOAT_TAG, _FLOAT, list("-+0123456789."))


def parse_yaml(text: str, *, source: str) -> Any:
    """Return what `text` says, as plain Python values.

    Args:
        text: the YAML text.
        source: where it came from, to begin the message.

    Raises:
        UsageError: the text is not YAML, or repeats a key; `source:line:column: what is wrong`.
    """
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader, refined above
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        message = ", ".join(part for part in (error.context, error.problem) if part)
        raise UsageError(f"{where}: not valid YAML: {message}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{source}: not valid YAML: {error}") from None
    if _too_large(value):
        raise UsageError(f"{source}: holds more than {_MOST_VALUES:,} values; does a section contain itself?")
    return value


def _too_large(value: Any) -> bool:
    """Whether anchors make the document endless, or as good as that."""
    waiting, seen = [value], 0
    while waiting:
        item = waiting.pop()
        seen += 1
        if seen > _MOST_VALUES:
            return True
        waiting += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return False


def dump_yaml(values: Any) -> str:
    """Return `values` as YAML that `parse_yaml` reads back equal; keys keep their order."""
    return yaml.dump(
        values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
    )
