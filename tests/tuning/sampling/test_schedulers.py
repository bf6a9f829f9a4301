from __future__ import annotations

from types import SimpleNamespace

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from platform.space.settings import Median, NoStopping
from platform.tuning.sampling.schedulers import EpochAsha, EpochMedian, StopBetweenEpochs, make_scheduler
from tests.tuning.journal.examples import a_record


def trial(name: str) -> SimpleNamespace:
    """A trial as Tune hands it over: its own id changes from start to start."""
    return SimpleNamespace(trial_id=f"ray-{id(object())}-{name}", config={"trial_id": name})


def judge(asha: EpochAsha, name: str, epoch: int, accuracy: float) -> str:
    if name not in asha._trial_info:
        asha.on_trial_add(None, trial(name))
    return asha.on_trial_result(None, trial(name), a_record(epoch, accuracy).as_dict())


def test_the_worse_half_is_stopped_at_a_rung_and_nobody_between_rungs() -> None:
    asha = EpochAsha(grace_epochs=1, reduction_factor=2)
    assert judge(asha, "t000", 1, 0.5) == TrialScheduler.CONTINUE
    assert judge(asha, "t001", 1, 0.6) == TrialScheduler.CONTINUE
    assert judge(asha, "t002", 1, 0.4) == TrialScheduler.STOP
    assert judge(asha, "t001", 1, 0.1) == TrialScheduler.CONTINUE, "a rung judges a trial once"


def test_the_last_epoch_is_not_judged() -> None:
    asha = EpochAsha(grace_epochs=3, reduction_factor=3)
    assert judge(asha, "t000", 3, 0.9) == TrialScheduler.CONTINUE
    assert judge(asha, "t001", 3, 0.1) == TrialScheduler.CONTINUE


def test_replayed_rungs_judge_as_the_lived_ones() -> None:
    lived, replayed = (EpochAsha(grace_epochs=1, reduction_factor=2) for _ in range(2))
    past = [("t000", 1, 0.5), ("t001", 1, 0.6), ("t000", 2, 0.55), ("t001", 2, 0.7)]
    for name, epoch, accuracy in past:
        judge(lived, name, epoch, accuracy)
        replayed.replay(name, a_record(epoch, accuracy))
    for name, epoch, accuracy in [("t002", 1, 0.58), ("t002", 2, 0.6), ("t003", 1, 0.4)]:
        assert judge(replayed, name, epoch, accuracy) == judge(lived, name, epoch, accuracy)


def test_settings_choose_the_scheduler() -> None:
    assert isinstance(make_scheduler(NoStopping(name="none")), FIFOScheduler)
    assert isinstance(make_scheduler(Median(name="median")), EpochMedian)


def vote(median: EpochMedian, name: str, epoch: int, accuracy: float) -> str:
    return median.on_trial_result(None, trial(name), a_record(epoch, accuracy).as_dict())


def test_the_median_of_the_others_means_is_what_the_best_so_far_must_reach() -> None:
    median = EpochMedian(grace_epochs=1, min_trials=2)
    for name, accuracies in {"t000": (0.2, 0.6), "t001": (0.4, 0.8)}.items():
        for epoch, accuracy in enumerate(accuracies, start=1):
            assert vote(median, name, epoch, accuracy) == TrialScheduler.CONTINUE, "too few to compare with"
    # After two epochs the others' means are 0.4 and 0.6.
    assert vote(median, "t002", 1, 0.55) == TrialScheduler.CONTINUE
    assert vote(median, "t002", 2, 0.1) == TrialScheduler.CONTINUE, "its best counts, not its last"
    assert vote(median, "t003", 1, 0.31) == TrialScheduler.STOP, "at one epoch: 0.2, 0.4, 0.55"
    assert vote(median, "t004", 1, 0.41) == TrialScheduler.CONTINUE, "at one epoch: 0.2, 0.31, 0.4, 0.55"


def test_the_median_rule_spares_the_first_epochs_and_the_last() -> None:
    median = EpochMedian(grace_epochs=2, min_trials=1)
    for epoch in (1, 2, 3):
        assert vote(median, "t000", epoch, 0.9) == TrialScheduler.CONTINUE
    assert vote(median, "t001", 1, 0.1) == TrialScheduler.CONTINUE
    assert vote(median, "t001", 2, 0.1) == TrialScheduler.STOP
    assert vote(median, "t001", 3, 0.1) == TrialScheduler.CONTINUE, "three epochs are the whole run"


def test_the_replayed_median_judges_as_the_lived_one() -> None:
    lived, replayed = (EpochMedian(grace_epochs=1, min_trials=1) for _ in range(2))
    for name, epoch, accuracy in [("t000", 1, 0.5), ("t001", 1, 0.6), ("t000", 2, 0.55), ("t001", 2, 0.7)]:
        vote(lived, name, epoch, accuracy)
        replayed.replay(name, a_record(epoch, accuracy))
    for name, epoch, accuracy in [("t002", 1, 0.55), ("t002", 2, 0.6), ("t003", 1, 0.54)]:
        assert vote(replayed, name, epoch, accuracy) == vote(lived, name, epoch, accuracy)


def test_a_search_that_is_over_stops_trials_but_lets_the_last_epoch_end_itself() -> None:
    over = False
    stopper = StopBetweenEpochs(lambda: over)
    result = {"epoch": 2, "epochs": 3}
    assert not stopper("t000", result)
    over = True
    assert stopper("t000", result)
    assert not stopper("t000", {"epoch": 3, "epochs": 3})
    assert not stopper.stop_all()
