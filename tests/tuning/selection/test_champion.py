import math
from typing import Any

import pytest

from platform.errors import UserError
from platform.tracking.events import TrialStatus
from platform.tuning.selection.champion import (
    RankedTrial,
    choose_champion,
    summarize,
    top_candidates,
    welch_interval,
)


def outcome(number: int, accuracy: float | None, **changes: Any) -> RankedTrial:
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


def test_candidates_come_by_validation_accuracy() -> None:
    assert numbers(outcome(0, 0.8), outcome(1, 0.9), outcome(2, 0.85), k=2) == [1, 2]


def test_ties_go_to_the_lower_loss_then_to_the_earlier_trial() -> None:
    tied = [
        outcome(3, 0.9, validation_loss=0.5),
        outcome(1, 0.9, validation_loss=0.5),
        outcome(2, 0.9, validation_loss=0.4),
        outcome(0, 0.9, validation_loss=None),
    ]
    assert numbers(*tied) == [2, 1, 3, 0]


def test_a_stopped_trial_never_comes_before_a_finished_one() -> None:
    stopped = {"status": TrialStatus.PRUNED}
    trials = [
        outcome(0, 0.95, epoch=3, **stopped),
        outcome(1, 0.7),
        outcome(2, 0.8, epoch=5, **stopped),
    ]
    assert numbers(*trials) == [1, 2, 0]
    assert numbers(*trials, k=1) == [1]


@pytest.mark.parametrize(
    "unfit",
    [
        {"status": TrialStatus.FAILED},
        {"status": TrialStatus.RUNNING},
        {"status": TrialStatus.INTERRUPTED},
        {"validation_accuracy": None},
        {"validation_accuracy": math.nan},
    ],
)
def test_a_trial_without_a_result_is_no_candidate(unfit: dict[str, Any]) -> None:
    assert numbers(outcome(0, 0.9, **{"validation_accuracy": 0.9} | unfit), outcome(1, 0.5)) == [1]
    with pytest.raises(UserError, match="nothing to choose from"):
        top_candidates([outcome(0, 0.9, **{"validation_accuracy": 0.9} | unfit)], 3)


def test_equal_configurations_are_one_candidate() -> None:
    same = {"params": {"batch_size": 128}}
    trials = [outcome(0, 0.9, **same), outcome(1, 0.91, **same), outcome(2, 0.8, params={"batch_size": 64})]
    assert numbers(*trials) == [1, 2]


def test_a_summary_has_mean_spread_and_interval() -> None:
    summary = summarize("t001", [0.90, 0.92, 0.91])
    assert (summary.n, summary.mean, summary.std) == (3, pytest.approx(0.91), pytest.approx(0.01))
    half = 4.302652729749462 * 0.01 / math.sqrt(3)  # the 0.975 quantile of t with 2 degrees of freedom
    assert summary.interval95 == pytest.approx((0.91 - half, 0.91 + half), rel=1e-9)


def test_a_single_run_has_no_spread() -> None:
    summary = summarize("t001", [0.9])
    assert (summary.std, summary.interval95) == (None, None)
    with pytest.raises(UserError, match="no confirmation run of candidate t001 finished"):
        summarize("t001", [])


def test_the_interval_of_a_difference_is_welch_s() -> None:
    first, second = summarize("a", [27.5, 21.0, 19.0, 23.6]), summarize("b", [27.1, 22.0, 20.8, 23.4, 23.4])
    # scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95), SciPy 1.17
    assert welch_interval(first, second) == pytest.approx(WELCH, rel=1e-9)


WELCH = (-6.037234891569537, 4.907234891569527)


def test_a_clear_winner_is_said_to_be_separated() -> None:
    champion = choose_champion([summarize("t1", [0.90, 0.901, 0.902]), summarize("t2", [0.93, 0.931, 0.932])])
    assert (champion.candidate, champion.separated) == ("t2", True)
    assert champion.second is not None
    assert champion.second.candidate == "t1"
    assert champion.difference == pytest.approx(0.03)
    assert champion.verdict == (
        "t2 reached 93.10 % +- 0.10 (standard deviation, n = 3) on validation, ahead of "
        "t1 90.10 % +- 0.10 (standard deviation, n = 3) by 3.00 percentage points "
        "(95 % interval +2.77 to +3.23, Welch's t): the two are separated."
    )


def test_a_narrow_winner_is_said_not_to_be() -> None:
    champion = choose_champion([summarize("t1", [0.90, 0.92, 0.91]), summarize("t2", [0.905, 0.925, 0.915])])
    assert (champion.candidate, champion.separated) == ("t2", False)
    assert "the two are not separated, and a repetition could reverse them." in champion.verdict
    assert champion.verdict.count("n = 3") == 2


@pytest.mark.parametrize("runs", [([0.9], [0.8]), ([0.9, 0.91], [0.8]), ([0.9], [0.8, 0.81])])
def test_a_single_run_says_nothing(runs: tuple[list[float], list[float]]) -> None:
    champion = choose_champion([summarize("t1", runs[0]), summarize("t2", runs[1])])
    assert (champion.candidate, champion.separated) == ("t1", None)
    assert "nothing can be said about which is better" in champion.verdict
    assert "(n = 1)" in champion.verdict


def test_an_only_candidate_was_compared_with_none() -> None:
    champion = choose_champion([summarize("t1", [0.9, 0.91])])
    assert (champion.separated, champion.second) == (None, None)
    assert champion.verdict.endswith("It was the only candidate, so it was compared with none.")


def test_equal_means_go_to_the_better_of_the_search() -> None:
    champion = choose_champion([summarize("t7", [0.9, 0.9]), summarize("t2", [0.9, 0.9])])
    assert (champion.candidate, champion.separated) == ("t7", False)


def test_no_candidates_is_a_message() -> None:
    with pytest.raises(UserError, match="no candidate was confirmed"):
        choose_champion([])
