"""Reading and writing YAML: scalars, places of errors, limits."""

import pytest

from platform.common.errors import UsageError
from platform.space.yaml_text import dump_yaml, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("5E2", 500.0),
        ("-1e+2", -100.0),
        ("+.5", 0.5),
        ("1.", 1.0),
        ("2", 2),
        ("-3", -3),
        ("1e", "1e"),
        ("e5", "e5"),
        ("-", [None]),
        ("2024-01-01", "2024-01-01"),
        ("'1e-3'", "1e-3"),
        ("true", True),
        ("null", None),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("0o17", 15),
    ],
)
def test_a_scalar_is_read_as_yaml_1_2(text: str, value: object) -> None:
    got = parse_yaml(text, source="x")
    assert got == value
    assert type(got) is type(value)


def test_dumped_values_are_read_back_in_order() -> None:
    numbers_and_texts = [1e-7, 1e16, 0.1, 1, "1e-3", "null", None, True, "2024-01-01", "on", "1:30", "0o17"]
    values = {"b": numbers_and_texts, "a": {"name": "x: y", "é": "#", "no": "a" * 200}}
    assert parse_yaml(dump_yaml(values), source="x") == values
    assert list(parse_yaml(dump_yaml(values), source="x")) == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x:\n  lr: 1\n  lr: 2\n", "a.yaml:3:3: not valid YAML: duplicate key 'lr'"),
        ("x: {1: 2, 1: 3}", "a.yaml:1:11: not valid YAML: duplicate key 1"),
        ("x: {a: 1\ny: 2\n", "a.yaml:2:2: not valid YAML: while parsing a flow mapping"),
        ("base:\n  trials: !!int abc", "a.yaml:2:11: not valid YAML: 'abc' is not a valid int"),
        ("trials: !!int", "a.yaml:1:9: not valid YAML: '' is not a valid int"),
        ("lr: !!float abc", "a.yaml:1:5: not valid YAML: 'abc' is not a valid float"),
        ("x: !!bool maybe", "a.yaml:1:4: not valid YAML: 'maybe' is not a valid bool"),
        ("0b_", "a.yaml:1:1: not valid YAML: '0b_' is not a valid int"),
        ("x: " + "1" * 5000, "a.yaml:1:4: not valid YAML: '111111111111...1111111111111' is not a valid int"),
        ("x: 0x" + "f" * 5000, "a.yaml:1:4: not valid YAML: '0xffffffffff...fffffffffffff' is too large"),
        ("x: -9223372036854775809", "a.yaml:1:4: not valid YAML: '-9223372036854775809' is too large"),
        (
            "x: {uniform: [1, 1" + "0" * 400 + "]}",
            "a.yaml:1:18: not valid YAML: '100000000000...0000000000000' is",
        ),
        ('x: "\\ud800"', "a.yaml:1:4: not valid YAML: '\\ud800' is not a valid str"),
        ("x: !!binary aGk=", "a.yaml:1:4: not valid YAML: the type binary is not supported"),
        ("x: !!set {a: null}", "a.yaml:1:4: not valid YAML: the type set is not supported"),
        ("[" * 5000, "a.yaml: not valid YAML: maximum recursion depth exceeded"),
    ],
)
def test_an_error_is_one_line_that_names_its_place(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_yaml(text, source="a.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_an_anchor_may_be_defined_again() -> None:
    assert parse_yaml("a: &x 1\nb: *x\nc: &x 2\nd: *x\n", source="x") == {"a": 1, "b": 1, "c": 2, "d": 2}


def test_a_merged_section_may_override_its_anchor() -> None:
    text = "a: &a {lr: 1, m: 2}\nb: {<<: *a, lr: 3}\n"
    assert parse_yaml(text, source="x")["b"] == {"lr": 3, "m": 2}


@pytest.mark.parametrize("text", ["!!python/object/apply:os.getcwd []", "{[1]: 2}: 3", "\x00"])
def test_tags_and_characters_beyond_plain_yaml_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not valid YAML"):
        parse_yaml(text, source="x")


LAUGHS = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "a0: &a0 [x]\n" + LAUGHS])
def test_an_endless_document_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="does a section contain itself"):
        parse_yaml(text, source="x")
