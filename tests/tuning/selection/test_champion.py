"""Ranking of trials, statistics over seeds, and the choice of the champion."""

import math
from typing import Any

import pytest

from platform.common.errors import UserError
from platform.tracking.events import TrialStatus
from platform.tuning.selection.champion import (
    RankedTrial,
    choose_champion,
    summarize,
    top_candidates,
    welch_interval,
)


def ranked_trial(number: int, accuracy: float | None, **changes: Any) -> RankedTrial:
    values: dict[str, Any] = {
        "trial_id": f"t{number:03d}",
        "number": number,
        "status": TrialStatus.FINISHED,
        "epoch": 9,
        "epochs": 9,
        "validation_accuracy": accuracy,
        "validation_loss": 1.0,
        **changes,
    }
    return RankedTrial(**values)


def numbers(*trials: RankedTrial, k: int = 10) -> list[int]:
    return [trial.number for trial in top_candidates(trials, k)]


def test_candidates_are_ordered_by_validation_accuracy() -> None:
    assert numbers(ranked_trial(0, 0.8), ranked_trial(1, 0.9), ranked_trial(2, 0.85), k=2) == [1, 2]


def test_ties_go_to_the_lower_loss_then_to_the_earlier_trial() -> None:
    tied = [
        ranked_trial(3, 0.9, validation_loss=0.5),
        ranked_trial(1, 0.9, validation_loss=0.5),
        ranked_trial(2, 0.9, validation_loss=0.4),
        ranked_trial(0, 0.9, validation_loss=None),
    ]
    assert numbers(*tied) == [2, 1, 3, 0]


def test_a_pruned_trial_ranks_below_every_finished_one() -> None:
    pruned = {"status": TrialStatus.PRUNED}
    trials = [
        ranked_trial(0, 0.95, epoch=3, **pruned),
        ranked_trial(1, 0.7),
        ranked_trial(2, 0.8, epoch=5, **pruned),
    ]
    assert numbers(*trials) == [1, 2, 0]
    assert numbers(*trials, k=1) == [1]


@pytest.mark.parametrize(
    "changes",
    [
        {"status": TrialStatus.FAILED},
        {"status": TrialStatus.RUNNING},
        {"status": TrialStatus.INTERRUPTED},
        {"validation_accuracy": None},
        {"validation_accuracy": math.nan},
    ],
)
def test_a_trial_without_an_accuracy_is_not_a_candidate(changes: dict[str, Any]) -> None:
    assert numbers(ranked_trial(0, 0.9, **{"validation_accuracy": 0.9} | changes), ranked_trial(1, 0.5)) == [
        1
    ]
    with pytest.raises(UserError, match="no trial of the search has a validation accuracy"):
        top_candidates([ranked_trial(0, 0.9, **{"validation_accuracy": 0.9} | changes)], 3)


def test_trials_with_equal_parameters_are_one_candidate() -> None:
    same = {"params": {"batch_size": 128}}
    trials = [
        ranked_trial(0, 0.9, **same),
        ranked_trial(1, 0.91, **same),
        ranked_trial(2, 0.8, params={"batch_size": 64}),
    ]
    assert numbers(*trials) == [1, 2]


def test_a_summary_has_mean_standard_deviation_and_interval() -> None:
    summary = summarize("t001", [0.90, 0.92, 0.91])
    assert (summary.n, summary.mean, summary.std) == (3, pytest.approx(0.91), pytest.approx(0.01))
    half = 4.302652729749462 * 0.01 / math.sqrt(3)  # the 0.975 quantile of t with 2 degrees of freedom
    assert summary.interval95 == pytest.approx((0.91 - half, 0.91 + half), rel=1e-9)


def test_a_single_run_has_no_standard_deviation() -> None:
    summary = summarize("t001", [0.9])
    assert (summary.std, summary.interval95) == (None, None)
    with pytest.raises(UserError, match="no confirmation run of candidate t001 finished"):
        summarize("t001", [])


def test_the_interval_of_a_difference_agrees_with_scipy() -> None:
    first, second = summarize("a", [27.5, 21.0, 19.0, 23.6]), summarize("b", [27.1, 22.0, 20.8, 23.4, 23.4])
    # scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95), SciPy 1.17
    assert welch_interval(first, second) == pytest.approx(WELCH, rel=1e-9)


WELCH = (-6.037234891569537, 4.907234891569527)


def test_a_clear_lead_is_significant() -> None:
    champion = choose_champion([summarize("t1", [0.90, 0.901, 0.902]), summarize("t2", [0.93, 0.931, 0.932])])
    assert (champion.candidate, champion.separated) == ("t2", True)
    assert champion.runner_up is not None
    assert champion.runner_up.candidate == "t1"
    assert champion.difference == pytest.approx(0.03)
    assert champion.verdict == (
        "t2 reached 93.10 % ± 0.10 (n = 3) on validation, 3.00 points above t1 (90.10 % ± 0.10, n = 3); "
        "the difference is significant (95 % CI +2.77 to +3.23, Welch's t-test; ± is the standard deviation)."
    )


def test_a_small_lead_is_not_significant() -> None:
    champion = choose_champion([summarize("t1", [0.90, 0.92, 0.91]), summarize("t2", [0.905, 0.925, 0.915])])
    assert (champion.candidate, champion.separated) == ("t2", False)
    assert "; the difference is not significant (95 % CI " in champion.verdict
    assert champion.verdict.count("n = 3") == 2


@pytest.mark.parametrize("runs", [([0.9], [0.8]), ([0.9, 0.91], [0.8]), ([0.9], [0.8, 0.81])])
def test_a_lead_over_or_of_a_single_run_is_not_tested(runs: tuple[list[float], list[float]]) -> None:
    champion = choose_champion([summarize("t1", runs[0]), summarize("t2", runs[1])])
    assert (champion.candidate, champion.separated) == ("t1", None)
    assert "the difference cannot be tested" in champion.verdict
    assert "n = 1)" in champion.verdict


def test_a_single_candidate_has_no_runner_up() -> None:
    champion = choose_champion([summarize("t1", [0.9, 0.91])])
    assert (champion.separated, champion.runner_up) == (None, None)
    assert champion.verdict.endswith("; it was the only candidate.")


def test_equal_means_go_to_the_candidate_listed_first() -> None:
    champion = choose_champion([summarize("t7", [0.9, 0.9]), summarize("t2", [0.9, 0.9])])
    assert (champion.candidate, champion.separated) == ("t7", False)


def test_without_candidates_there_is_no_champion() -> None:
    with pytest.raises(UserError, match="no candidate was confirmed"):
        choose_champion([])
