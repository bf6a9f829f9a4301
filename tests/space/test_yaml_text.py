import pytest

from platform.errors import UsageError
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
    ],
)
def test_a_value_is_read_as_people_mean_it(text: str, value: object) -> None:
    got = parse_yaml(text, source="x")
    assert got == value
    assert type(got) is type(value)


def test_what_is_dumped_is_read_back() -> None:
    values = {"b": [1e-7, 1e16, 0.1, 1, "1e-3", "null", None, True], "a": {"name": "x: y", "é": "#"}}
    assert parse_yaml(dump_yaml(values), source="x") == values
    assert list(parse_yaml(dump_yaml(values), source="x")) == ["b", "a"]


def test_a_key_that_stands_twice_is_refused_with_its_place() -> None:
    with pytest.raises(UsageError, match=r"^a\.yaml:3:3: .*'lr' stands twice"):
        parse_yaml("x:\n  lr: 1\n  lr: 2\n", source="a.yaml")


def test_a_syntax_error_names_its_place() -> None:
    with pytest.raises(UsageError, match=r"^a\.yaml:2:"):
        parse_yaml("x: {a: 1\ny: 2\n", source="a.yaml")


def test_a_merged_section_may_override_its_anchor() -> None:
    text = "a: &a {lr: 1, m: 2}\nb: {<<: *a, lr: 3}\n"
    assert parse_yaml(text, source="x")["b"] == {"lr": 3, "m": 2}


@pytest.mark.parametrize("text", ["!!python/object/apply:os.getcwd []", "{[1]: 2}: 3", "\x00"])
def test_what_is_not_plain_yaml_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not valid YAML"):
        parse_yaml(text, source="x")


LAUGHS = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "a0: &a0 [x]\n" + LAUGHS])
def test_an_endless_document_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="does a section contain itself"):
        parse_yaml(text, source="x")
