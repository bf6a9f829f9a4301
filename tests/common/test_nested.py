"""Flattening and comparison of nested mappings."""

from platform.common.nested import differences, flatten


def test_flatten_returns_dotted_paths():
    assert list(flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None})) == [
        ("a.b", 1),
        ("a.c.d", [2]),
        ("e", None),
    ]


def test_equal_values_have_no_differences():
    assert list(differences({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]})) == []


def test_differences_have_the_path_and_both_values():
    before = {"same": 1, "a": {"b": [1, {"c": 2}]}, "short": [1], "gone": 3}
    after = {"same": 1, "a": {"b": [1, {"c": 5}]}, "short": [1, 2], "new": 4}
    assert list(differences(before, after)) == [
        ("a.b[1].c", 2, 5),
        ("short", [1], [1, 2]),
        ("gone", 3, None),
        ("new", None, 4),
    ]
