"""The decisions of each scheduler on known accuracies (common rules: test_scheduler_contract)."""

from __future__ import annotations

import statistics
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler

from platform.space.settings import Asha, Median, NoStopping
from platform.tuning.sampling.schedulers import EpochAsha, EpochMedian, StopBetweenEpochs, make_scheduler
from tests.tuning.journal.examples import a_record


def trial(name: str) -> SimpleNamespace:
    """Return a trial as Tune passes it: Tune's own id differs in every run."""
    return SimpleNamespace(trial_id=f"ray-{id(object())}-{name}", config={"trial_id": name})


def decide_asha(asha: EpochAsha, name: str, epoch: int, accuracy: float) -> str:
    if name not in asha._trial_info:
        asha.on_trial_add(None, trial(name))
    return asha.on_trial_result(None, trial(name), a_record(epoch, accuracy).as_dict())


def decide_median(median: EpochMedian, name: str, epoch: int, accuracy: float) -> str:
    return median.on_trial_result(None, trial(name), a_record(epoch, accuracy).as_dict())


def test_settings_choose_the_scheduler() -> None:
    assert make_scheduler(NoStopping(name="none")) is None
    assert isinstance(make_scheduler(Median(name="median")), EpochMedian)
    assert isinstance(make_scheduler(Asha(name="asha")), EpochAsha)


def test_asha_stops_the_worse_half_at_a_rung_and_nothing_between_rungs() -> None:
    asha = EpochAsha(grace_epochs=1, reduction_factor=2)
    assert decide_asha(asha, "t000", 1, 0.5) == TrialScheduler.CONTINUE
    assert decide_asha(asha, "t001", 1, 0.6) == TrialScheduler.CONTINUE
    assert decide_asha(asha, "t002", 1, 0.4) == TrialScheduler.STOP
    assert decide_asha(asha, "t001", 1, 0.1) == TrialScheduler.CONTINUE, "one decision per trial and rung"


def test_median_compares_the_best_accuracy_with_the_median_of_the_others_means() -> None:
    median = EpochMedian(grace_epochs=1, min_trials=2)
    for name, accuracies in {"t000": (0.2, 0.6), "t001": (0.4, 0.8)}.items():
        for epoch, accuracy in enumerate(accuracies, start=1):
            assert decide_median(median, name, epoch, accuracy) == TrialScheduler.CONTINUE, "too few trials"
    # After two epochs the others' means are 0.4 and 0.6.
    assert decide_median(median, "t002", 1, 0.55) == TrialScheduler.CONTINUE
    assert decide_median(median, "t002", 2, 0.1) == TrialScheduler.CONTINUE, "the best epoch counts"
    assert decide_median(median, "t003", 1, 0.31) == TrialScheduler.STOP, "at one epoch: 0.2, 0.4, 0.55"
    assert decide_median(median, "t004", 1, 0.41) == TrialScheduler.CONTINUE, "at one epoch: 0.2 to 0.55"


def test_median_forgets_the_later_epochs_of_a_restarted_trial() -> None:
    median = EpochMedian(grace_epochs=1, min_trials=1)
    for epoch, accuracy in ((1, 0.9), (2, 0.9), (1, 0.1)):
        decide_median(median, "t000", epoch, accuracy)
    assert decide_median(median, "t001", 1, 0.5) == TrialScheduler.CONTINUE, "t000 restarted with 0.1"
    assert decide_median(median, "t001", 2, 0.5) == TrialScheduler.CONTINUE, "t000 has no second epoch now"


def test_median_computes_one_mean_per_epoch_for_any_number_of_trials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    median = EpochMedian(grace_epochs=1, min_trials=1)
    for number in range(200):
        decide_median(median, f"t{number:03d}", 1, 0.5)
    calls, fmean = list[int](), statistics.fmean
    monkeypatch.setattr(statistics, "fmean", lambda values: calls.append(len(values)) or fmean(values))
    decide_median(median, "t000", 2, 0.5)
    assert calls == [2]


def test_a_search_that_is_over_stops_trials_before_their_last_epoch() -> None:
    over = False
    stopper = StopBetweenEpochs(lambda _: over)
    result = {"epoch": 2, "epochs": 3}
    assert not stopper("t000", result)
    over = True
    assert stopper("t000", result)
    assert not stopper("t000", {"epoch": 3, "epochs": 3})
    assert not stopper.stop_all()
