from __future__ import annotations

from types import SimpleNamespace

import pytest
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from platform.errors import UsageError
from platform.tuning.scheduler import EpochAsha, make_scheduler
from platform.tuning.settings import Median, NoStopping
from tests.tuning_ray.test_journal import a_record


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
    with pytest.raises(UsageError, match="median"):
        make_scheduler(Median(name="median"))
