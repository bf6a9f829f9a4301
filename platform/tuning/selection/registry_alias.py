"""The alias of a sweep's model in MLflow's registry: `champion` only if it replaces the present one."""

from __future__ import annotations

from collections.abc import Mapping

from platform.tracking.mlflow_registry import CHAMPION, AliasChoice
from platform.tuning.selection.champion import CandidateSummary, welch_interval

CANDIDATE, QUICK, GENERATED = "candidate", "quick", "generated"
MEAN, STD, RUNS = (f"champion/validation_{name}" for name in ("accuracy_mean", "accuracy_std", "runs"))
"""Tags of a version that hold its confirmation on validation."""


def choose_alias(new: Mapping[str, str], champion: Mapping[str, str] | None) -> AliasChoice:
    """Return the alias of a new version, and the reason where it is not `champion`.

    A version replaces the champion if it was trained on the same dataset and its validation accuracy is
    higher by more than chance explains (95 % interval of Welch's t), or if it comes from the same sweep.

    Args:
        new: tags of the new version (`sweep_id`, `data_label`, `quick`, `generated_data`, the three above).
        champion: tags of the version that has the alias `champion`; None if there is none.
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
            f"the champion, of {sweep_id}, was trained on {champion.get('data_label', 'unknown data')}, "
            f"this model on {new['data_label']}",
        )
    mine, present = _confirmation(new), _confirmation(champion)
    if mine is None or present is None:
        return AliasChoice(CANDIDATE, f"one of it and the champion, of {sweep_id}, has no confirmed accuracy")
    figures = f"{100 * mine.mean:.2f} % on validation against {100 * present.mean:.2f} % of {sweep_id}"
    if mine.mean <= present.mean:
        return AliasChoice(CANDIDATE, f"the champion is not worse: {figures}")
    interval = welch_interval(mine, present)
    if interval is None:
        return AliasChoice(CANDIDATE, f"a single run says nothing about the difference: {figures}")
    if interval[0] <= 0:
        return AliasChoice(CANDIDATE, f"it is not separated from the champion: {figures}")
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
