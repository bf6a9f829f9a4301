"""Ranking of trials, and the choice of the champion."""

import math

import pytest

from platform.common.errors import UserError
from platform.tracking.events import TrialStatus
from platform.tuning.journal.ledger import JournaledTrial
from platform.tuning.selection.champion import (
    Recipe,
    better_probability,
    choose_champion,
    selection_document,
    top_candidates,
)
from tests.tuning.journal.examples import a_trial


def numbers(*trials: JournaledTrial, k: int = 10) -> list[int]:
    return [trial.task.number for trial in top_candidates(trials, k)]


def test_candidates_are_ordered_by_validation_accuracy() -> None:
    assert numbers(a_trial(0, 0.8), a_trial(1, 0.9), a_trial(2, 0.85), k=2) == [1, 2]


def test_ties_go_to_the_lower_loss_then_to_the_earlier_trial() -> None:
    losses = {3: 0.5, 1: 0.5, 2: 0.4, 0: None, 4: math.nan}
    assert numbers(*(a_trial(number, 0.9, loss=loss) for number, loss in losses.items())) == [
        2,
        1,
        3,
        0,
        4,
    ]


def test_a_pruned_trial_ranks_below_every_finished_one() -> None:
    trials = [
        a_trial(0, 0.95, epoch=3, status=TrialStatus.PRUNED),
        a_trial(1, 0.7),
        a_trial(2, 0.8, epoch=5, status=TrialStatus.PRUNED),
    ]
    assert numbers(*trials) == [1, 2, 0]
    assert numbers(*trials, k=1) == [1]


@pytest.mark.parametrize(
    ("accuracy", "status"),
    [
        (0.9, TrialStatus.FAILED),
        (0.9, TrialStatus.RUNNING),
        (0.9, TrialStatus.INTERRUPTED),
        (None, TrialStatus.FINISHED),
    ],
)
def test_a_trial_without_an_accuracy_is_not_a_candidate(accuracy: float | None, status: TrialStatus) -> None:
    trial = a_trial(0, accuracy, status=status)
    assert numbers(trial, a_trial(1, 0.5)) == [1]
    with pytest.raises(UserError, match="no trial of the search has a validation accuracy"):
        top_candidates([trial], 3)


def test_trials_with_equal_parameters_are_one_candidate() -> None:
    same = {"batch_size": 128}
    trials = [a_trial(0, 0.9, params=same), a_trial(1, 0.91, params=same), a_trial(2, 0.8)]
    assert numbers(*trials) == [1, 2]


def recipe(name: str, searched: float | None, *confirmed: float, **costs: float) -> Recipe:
    return Recipe(trial_id=name, searched=searched, confirmed=confirmed, costs=tuple(costs.items()))


CLEAR = [recipe("t1", 0.905, 0.90, 0.901, 0.902), recipe("t2", 0.93, 0.93, 0.931, 0.932)]
CLOSE = [recipe("t1", 0.92, 0.90, 0.92, 0.91), recipe("t2", 0.91, 0.905, 0.925, 0.915), recipe("t3", 0.90)]


def test_a_clear_lead_is_nearly_certain() -> None:
    champion = choose_champion(CLEAR, tolerance=0.001)
    assert champion.candidate == "t2"
    assert champion.estimate is not None
    assert champion.estimate.best_probability > 0.99
    assert champion.verdict == (
        "t2 is the best of 2 recipes with over 99 %; choosing it costs 0.00 points in expectation, at most "
        "0.00 with 95 %."
    )


def test_a_small_lead_is_uncertain_and_the_loss_is_in_the_verdict() -> None:
    champion = choose_champion(CLOSE, tolerance=0.0001)
    assert champion.candidate == "t2"
    own = champion.estimate
    assert own is not None
    assert 0.3 < own.best_probability < 0.8
    assert 0 < own.expected_loss < own.loss_bound95
    assert own.interval95[0] < own.mean < own.interval95[1]
    assert sum(each.best_probability for each in champion.estimates.values()) == pytest.approx(1)
    assert f"costs {100 * own.expected_loss:.2f} points in expectation" in champion.verdict


def test_only_a_confirmed_recipe_becomes_the_champion() -> None:
    better = [recipe("t9", 0.99), *CLEAR]
    assert choose_champion(better, tolerance=0.001).candidate == "t2"
    with pytest.raises(UserError, match="no candidate was confirmed"):
        choose_champion([recipe("t9", 0.99)], tolerance=0.001)


def test_of_equally_good_recipes_the_cheaper_one_wins() -> None:
    priced = [
        recipe("t1", 0.91, 0.91, 0.911, epochs=20, batch=1),
        recipe("t2", 0.91, 0.911, 0.911, epochs=30, batch=1),
    ]
    champion = choose_champion(priced, tolerance=0.01)
    assert (champion.candidate, champion.cheaper_than) == ("t1", "t2")
    assert champion.verdict.endswith(
        "t1, t2 are equally good within 1 points; t1 was preferred to t2 for its cost: epochs."
    )
    other = [recipe("t1", 0.91, 0.91, 0.911, size=20), priced[1]]
    assert choose_champion(other, tolerance=0.01).candidate == "t2", "other costs do not compare"


def test_a_single_run_at_full_budget_has_no_estimate() -> None:
    champion = choose_champion([recipe("t7", None, 0.9)], tolerance=0.001)
    assert (champion.candidate, champion.estimate) == ("t7", None)
    assert champion.verdict == "t7 reached 90.00 % in the only run at full budget."


def test_equal_recipes_go_to_the_one_listed_first() -> None:
    same = [recipe("t7", 0.9, 0.9, 0.9), recipe("t2", 0.9, 0.9, 0.9)]
    assert choose_champion(same, tolerance=0.001).candidate == "t7"


def test_the_document_has_the_best_single_run_and_its_disappointment() -> None:
    recipes = [
        recipe("t1", 0.95, 0.90, 0.902),
        recipe("t2", 0.91, 0.908),
        recipe("t3", 0.90),
        recipe("t4", 0.89),
    ]
    champion = choose_champion(recipes, tolerance=0.001)
    document = selection_document(champion, recipes, {one.trial_id: {} for one in recipes})
    assert (document["recipes"], [entry["trial_id"] for entry in document["candidates"]]) == (4, ["t1", "t2"])
    single = document["best_single_run"]
    assert (single["trial_id"], single["accuracy"]) == ("t1", 0.95)
    assert single["estimate"]["mean"] < 0.93


@pytest.mark.parametrize(
    ("one", "other", "probability"),
    [((0.9, 0.0), (0.9, 0.0), 0.5), ((0.91, 0.0), (0.9, 0.0), 1), ((0.91, 0.006), (0.9, 0.008), 0.8413)],
)
def test_the_probability_of_the_better_estimate(
    one: tuple[float, float], other: tuple[float, float], probability: float
) -> None:
    assert better_probability(one, other) == pytest.approx(probability, abs=1e-4)
