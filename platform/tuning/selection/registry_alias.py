"""Choose the alias of a sweep's model in MLflow's registry; `champion` requires a probable improvement."""

from __future__ import annotations

from collections.abc import Mapping

from platform.common.text_format import percent
from platform.tracking.mlflow_registry import CHAMPION, AliasChoice
from platform.tuning.selection.champion import better_probability

CANDIDATE, QUICK, GENERATED = "candidate", "quick", "generated"
MEAN, ERROR = (f"champion/validation_accuracy_{name}" for name in ("mean", "error"))
"""Tags of a model version with its expected validation accuracy, and the standard deviation of that mean."""
_CONFIDENCE = 0.95


def choose_alias(new: Mapping[str, str], champion: Mapping[str, str] | None) -> AliasChoice:
    """Return the alias of a new model version, and the reason if it is not `champion`.

    A version replaces the champion if it comes from the same sweep, or if it was trained on the same dataset
    and its validation accuracy is higher with a probability of 95 % or more.

    Args:
        new: tags of the new version (`sweep_id`, `data_label`, `quick`, `generated_data`, and the two
            tags above).
        champion: tags of the version with the alias `champion`; None if there is none.
    """
    if new["quick"] == "true":
        return AliasChoice(QUICK, "a quick sweep never becomes the champion")
    if new["generated_data"] == "true":
        return AliasChoice(GENERATED, "it was trained on generated images")
    if champion is None or champion.get("sweep_id") == new["sweep_id"]:
        return AliasChoice(CHAMPION)
    sweep_id = champion.get("sweep_id", "an unknown sweep")
    if champion.get("data_label") != new["data_label"]:
        return AliasChoice(
            CANDIDATE,
            f"the champion of {sweep_id} was trained on {champion.get('data_label', 'unknown data')}, "
            f"this model on {new['data_label']}",
        )
    for tags, whose in ((new, "this model"), (champion, f"the champion of {sweep_id}")):
        if ERROR not in tags:
            return AliasChoice(CANDIDATE, f"{whose} has no confirmed validation accuracy")
    one, two = ((float(tags[MEAN]), float(tags[ERROR])) for tags in (new, champion))
    probability = better_probability(one, two)
    if probability >= _CONFIDENCE:
        return AliasChoice(CHAMPION)
    return AliasChoice(
        CANDIDATE,
        f"better than the champion with {percent(probability, 0)}, {percent(_CONFIDENCE, 0)} are needed: "
        f"{percent(one[0])} on validation, {percent(two[0])} for {sweep_id}",
    )
