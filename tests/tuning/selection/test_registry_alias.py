"""Which sweeps may take the alias `champion`."""

import pytest

from platform.tuning.selection.registry_alias import choose_alias


def tags(mean: float = 0.9, std: float | None = 0.002, **changes: str) -> dict[str, str]:
    spread = {} if std is None else {"champion/validation_accuracy_std": f"{std}"}
    return {
        "sweep_id": "new",
        "data_label": "cifar10",
        "quick": "false",
        "generated_data": "false",
        "champion/validation_accuracy_mean": f"{mean}",
        "champion/validation_runs": "3",
        **spread,
        **changes,
    }


PRESENT = tags(0.9, sweep_id="old")


@pytest.mark.parametrize(
    ("new", "present", "alias", "reason"),
    [
        (tags(), None, "champion", ""),
        (tags(0.92), PRESENT, "champion", ""),
        (tags(0.1, sweep_id="old"), PRESENT, "champion", ""),
        (tags(0.92, quick="true"), None, "quick", "a quick sweep never becomes the champion"),
        (tags(0.92, generated_data="true"), None, "generated", "it was trained on generated images"),
        (tags(0.92, data_label="other"), PRESENT, "candidate", "was trained on cifar10, this model on other"),
        (tags(0.88), PRESENT, "candidate", "not worse: 88.00 % on validation against 90.00 % of old"),
        (tags(0.9), PRESENT, "candidate", "not worse"),
        (tags(0.901), PRESENT, "candidate", "not separated from the champion"),
        (tags(0.95, None), PRESENT, "candidate", "a single run says nothing"),
        (tags(0.95), {"sweep_id": "old", "data_label": "cifar10"}, "candidate", "no confirmed accuracy"),
    ],
)
def test_only_a_separated_better_model_on_the_same_data_replaces_the_champion(
    new: dict[str, str], present: dict[str, str] | None, alias: str, reason: str
) -> None:
    choice = choose_alias(new, present)
    assert choice.alias == alias
    assert reason in choice.reason
    assert bool(choice.reason) == (alias != "champion")
