"""Conditions for the registry alias `champion`."""

import pytest

from platform.tuning.selection.registry_alias import choose_alias


def tags(mean: float = 0.9, error: float | None = 0.002, **changes: str) -> dict[str, str]:
    spread = {} if error is None else {"champion/validation_accuracy_error": f"{error}"}
    return {
        "sweep_id": "new",
        "data_label": "cifar10",
        "quick": "false",
        "generated_data": "false",
        "champion/validation_accuracy_mean": f"{mean}",
        **spread,
        **changes,
    }


CHAMPION = tags(0.9, sweep_id="old")
UNCONFIRMED = {key: value for key, value in tags().items() if not key.startswith("champion/")}


@pytest.mark.parametrize(
    ("new", "champion", "alias", "reason"),
    [
        (tags(), None, "champion", ""),
        (tags(0.92), CHAMPION, "champion", ""),
        (tags(0.1, sweep_id="old"), CHAMPION, "champion", ""),
        (tags(0.92, quick="true"), None, "quick", "a quick sweep never becomes the champion"),
        (tags(0.92, generated_data="true"), None, "generated", "it was trained on generated images"),
        (
            tags(0.92, data_label="other"),
            CHAMPION,
            "candidate",
            "was trained on cifar10, this model on other",
        ),
        (
            tags(0.88),
            CHAMPION,
            "candidate",
            "better than the champion with 0 %, 95 % are needed: 88.00 % on validation, 90.00 % for old",
        ),
        (tags(0.9), CHAMPION, "candidate", "better than the champion with 50 %"),
        (UNCONFIRMED, CHAMPION, "candidate", "this model has no confirmed validation"),
        (tags(0.901), CHAMPION, "candidate", "better than the champion with 64 %"),
        (tags(0.95, None), CHAMPION, "candidate", "this model has no confirmed validation"),
        (
            tags(0.95),
            {"sweep_id": "old", "data_label": "cifar10"},
            "candidate",
            "the champion of old has no confirmed validation",
        ),
    ],
)
def test_only_a_probably_better_model_on_the_same_data_replaces_the_champion(
    new: dict[str, str], champion: dict[str, str] | None, alias: str, reason: str
) -> None:
    choice = choose_alias(new, champion)
    assert choice.alias == alias
    assert reason in choice.reason
    assert bool(choice.reason) == (alias != "champion")
