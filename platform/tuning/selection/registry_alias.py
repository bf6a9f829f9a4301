"""Choose the alias of a sweep's model in MLflow's registry; `champion` requires a significant improvement."""

from __future__ import annotations

from collections.abc import Mapping

from platform.common.text_format import percent
from platform.tracking.mlflow_registry import CHAMPION, AliasChoice
from platform.tuning.selection.champion import CandidateSummary, welch_interval

CANDIDATE, QUICK, GENERATED = "candidate", "quick", "generated"
MEAN, STD, RUNS = (f"champion/validation_{name}" for name in ("accuracy_mean", "accuracy_std", "runs"))
"""Tags of a model version with its confirmed validation accuracy."""


def choose_alias(new: Mapping[str, str], champion: Mapping[str, str] | None) -> AliasChoice:
    """Return the alias of a new model version, and the reason if it is not `champion`.

    A version replaces the champion if it comes from the same sweep, or if it was trained on the same dataset
    and its validation accuracy is significantly higher (95 % confidence interval, Welch's t-test).

    Args:
        new: tags of the new version (`sweep_id`, `data_label`, `quick`, `generated_data`, and the three
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
    summary, champion_summary = _confirmation(new), _confirmation(champion)
    if summary is None or champion_summary is None:
        missing = "this model" if summary is None else f"the champion of {sweep_id}"
        return AliasChoice(CANDIDATE, f"{missing} has no confirmed validation accuracy")
    means = f"{percent(summary.mean)} on validation, {percent(champion_summary.mean)} for {sweep_id}"
    if summary.mean <= champion_summary.mean:
        return AliasChoice(CANDIDATE, f"not better than the champion: {means}")
    interval = welch_interval(summary, champion_summary)
    if interval is None:
        return AliasChoice(
            CANDIDATE, f"a single run has no standard deviation to test the difference: {means}"
        )
    if interval[0] <= 0:
        return AliasChoice(CANDIDATE, f"not significantly better than the champion: {means}")
    return AliasChoice(CHAMPION)


def _confirmation(tags: Mapping[str, str]) -> CandidateSummary | None:
    if MEAN not in tags:
        return None
    return CandidateSummary(
        candidate="",
        accuracies=(),
        n=int(float(tags.get(RUNS, 1))),
        mean=float(tags[MEAN]),
        std=float(tags[STD]) if STD in tags else None,
        interval95=None,
    )
