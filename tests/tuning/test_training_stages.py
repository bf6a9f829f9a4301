"""Confirmation and final run: which runs are started, and which configuration becomes the champion."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from platform.common.errors import UserError
from platform.data.dataset import DatasetInfo
from platform.tracking.events import SweepObserver, TrialInfo, TrialStatus
from platform.tracking.sweep_folder import SweepFolder
from platform.tuning import training_stages
from platform.tuning.journal.journal import open_journal
from platform.tuning.journal.trial import TrialOutcome, TrialTask
from platform.tuning.planning.estimate import estimate_sweep
from platform.tuning.planning.plan import make_plan
from platform.tuning.planning.records import ImageCounts, Speed, TimeBudget
from platform.tuning.training_stages import Sweep, confirm, train_final
from tests.space.examples import spec
from tests.tracking.examples import epoch

SPACE = spec(trials=3, confirm={"candidates": 2, "seeds": 2})
LEARNING_RATES = (0.02, 0.1, 0.3)
INFO = DatasetInfo(
    name="cifar10",
    label="cifar10",
    sha256="",
    class_names=tuple("0123456789"),
    train_images=0,
    test_images=0,
    image_shape=(3, 32, 32),
    path=Path(),
)
FINISHED, FAILED = TrialStatus.FINISHED, TrialStatus.FAILED


def params_of(number: int) -> dict[str, Any]:
    return {"batch_size": 128, "optimizer.lr": LEARNING_RATES[number]}


def searched(number: int, accuracy: float) -> TrialOutcome:
    params = params_of(number)
    return TrialOutcome(
        info=TrialInfo(
            trial_id=f"t{number:03d}",
            stage="search",
            number=number,
            config=SPACE.resolve(params),
            params=params,
        ),
        status=FINISHED,
        records=(epoch(9, epochs=9, accuracy=accuracy),),
        model_path=None,
    )


TRIALS = [searched(0, 0.7), searched(1, 0.9), searched(2, 0.8)]


class FakeRuns:
    """Replaces `run_configurations`: records the requested runs and returns prepared results."""

    def __init__(self, results: dict[str, tuple[float, TrialStatus]]) -> None:
        self.results = results
        self.requested: list[TrialInfo] = []
        self.options: dict[str, Any] = {}

    def __call__(self, trials: list[TrialInfo], *_: Any, **options: Any) -> list[TrialOutcome]:
        self.requested, self.options = list(trials), options
        return [self._outcome(trial) for trial in trials]

    def _outcome(self, trial: TrialInfo) -> TrialOutcome:
        accuracy, status = self.results.get(trial.trial_id, (0.5, FINISHED))
        return TrialOutcome(
            info=trial,
            status=status,
            records=(epoch(9, epochs=9, accuracy=accuracy),),
            model_path=Path("model.pt") if status is FINISHED else None,
            error=None if status is FINISHED else "the run's traceback",
        )


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    folder = SweepFolder(tmp_path / "plain-20260101-000000")
    folder.path.mkdir()
    return Sweep(
        spec=SPACE,
        plan=make_plan(SPACE, {"CPU": 2, "GPU": 0}),
        folder=folder,
        info=INFO,
        observer=SweepObserver(),
        provenance={},
    )


def fake_runs(monkeypatch: pytest.MonkeyPatch, **results: tuple[float, TrialStatus]) -> FakeRuns:
    runs = FakeRuns({name.replace("_", "-"): result for name, result in results.items()})
    monkeypatch.setattr(training_stages, "run_configurations", runs)
    return runs


def journal_confirmation(sweep: Sweep, trial_id: str, candidate: int) -> None:
    """Write the first confirmation run of a candidate into the sweep's journal."""
    params = params_of(candidate)
    with open_journal(sweep.folder.journal) as journal:
        journal.trial(
            TrialTask(
                trial_id=trial_id,
                stage="confirm",
                number=0,
                params=params,
                candidate=f"t{candidate:03d}",
                run=SPACE.resolve(params),
                data_path="/data",
                checkpoint_dir="/checkpoint",
                log_path="/log",
            )
        )


def test_all_candidates_run_with_the_same_seeds(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = fake_runs(monkeypatch)
    confirm(sweep, TRIALS)
    assert [(trial.trial_id, trial.candidate) for trial in runs.requested] == [
        ("c1-s0", "t001"), ("c1-s1", "t001"), ("c2-s0", "t002"), ("c2-s1", "t002")
    ]  # fmt: skip
    seeds = [trial.config.seed for trial in runs.requested]
    assert seeds[:2] == seeds[2:]
    assert len(set(seeds)) == 2
    assert [trial.number for trial in runs.requested] == [0, 1, 2, 3]


def test_a_late_confirmation_is_journaled_and_stays_smaller(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = TimeBudget(budget_s=100, used_before_s=5, choices=(), full_digest="")
    plan = make_plan(SPACE, {"CPU": 2, "GPU": 0}, within=budget)
    speed = Speed(train_images_per_s=1000, evaluation_images_per_s=5000)
    images = ImageCounts(train=1000, validation=500, test=1000)
    plan = plan.model_copy(update={"estimate": estimate_sweep(plan, speed, images)})
    late = dataclasses.replace(sweep, plan=plan)
    runs = fake_runs(monkeypatch)
    monkeypatch.setattr(SweepFolder, "elapsed_s", lambda _: 1000.0)
    confirm(late, TRIALS)
    assert [trial.trial_id for trial in runs.requested] == ["c1-s0"]
    [reason] = training_stages.why_shortened(late)
    assert reason.startswith("the confirmation has 1 candidate x 1 seed instead of 2 x 2")
    assert json.loads(late.folder.selection.read_text())["search_stopped"] == reason
    monkeypatch.setattr(SweepFolder, "elapsed_s", lambda _: 0.0)
    confirm(late, TRIALS)
    assert [trial.trial_id for trial in runs.requested] == ["c1-s0"], "a resumed sweep keeps the decision"
    lifted = plan.model_copy(update={"within": budget.model_copy(update={"lifted": True})})
    assert dataclasses.replace(late, plan=lifted).time_limits() is None


def test_the_best_mean_wins_and_failed_runs_do_not_count(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_runs(
        monkeypatch, c1_s0=(0.6, FINISHED), c1_s1=(0.99, FAILED), c2_s0=(0.7, FINISHED), c2_s1=(0.7, FINISHED)
    )
    champion = confirm(sweep, TRIALS)
    assert (champion.candidate, champion.summary.mean) == ("t002", pytest.approx(0.7))
    assert champion.runner_up is not None
    assert champion.runner_up.n == 1
    selection = json.loads(sweep.folder.selection.read_text())
    assert [entry["accuracies"] for entry in selection["candidates"]] == [[0.6], [0.7, 0.7]]
    written = json.loads(sweep.folder.champion.read_text())
    assert (written["trial_id"], written["params"]) == ("t002", params_of(2))


def test_a_candidate_without_a_finished_run_is_left_out(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_runs(monkeypatch, c1_s0=(0.9, FAILED), c1_s1=(0.9, FAILED))
    champion = confirm(sweep, TRIALS)
    assert (champion.candidate, champion.runner_up) == ("t002", None)


def test_no_finished_confirmation_run_is_an_error(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_runs(monkeypatch, **dict.fromkeys(("c1_s0", "c1_s1", "c2_s0", "c2_s1"), (0.9, FAILED)))
    with pytest.raises(UserError, match=r"no confirmation run finished; .*logs"):
        confirm(sweep, TRIALS)
    assert not sweep.folder.selection.exists()


def test_after_an_extension_earlier_candidates_keep_their_numbers(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal_confirmation(sweep, "c1-s0", candidate=0)
    runs = fake_runs(monkeypatch)
    confirm(sweep, TRIALS)
    assert [(trial.trial_id, trial.candidate) for trial in runs.requested[::2]] == [
        ("c1-s0", "t000"), ("c2-s0", "t001"), ("c3-s0", "t002")
    ]  # fmt: skip


def test_new_candidates_are_numbered_after_the_highest_known_number(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of candidate 1 is missing from the journal; candidate 2's runs must not be used again."""
    journal_confirmation(sweep, "c2-s0", candidate=1)
    runs = fake_runs(monkeypatch)
    confirm(sweep, TRIALS)
    assert [(trial.trial_id, trial.candidate) for trial in runs.requested[::2]] == [
        ("c2-s0", "t001"), ("c3-s0", "t002")
    ]  # fmt: skip
    numbers = [trial.number for trial in runs.requested]
    assert len(set(numbers)) == len(numbers)


def test_the_final_run_has_the_champions_settings(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_runs(monkeypatch)
    champion = confirm(sweep, TRIALS)
    runs = fake_runs(monkeypatch)
    assert train_final(sweep, champion, TRIALS) == Path("model.pt")
    [trial] = runs.requested
    assert (trial.trial_id, trial.stage, trial.candidate) == ("final", "final", "t001")
    assert trial.params == params_of(1)
    assert trial.config == SPACE.resolve(params_of(1), seed=trial.config.seed)
    assert runs.options["include_validation"] is SPACE.final.include_validation


def test_a_failed_final_run_is_an_error(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_runs(monkeypatch, final=(0.5, FAILED))
    champion = confirm(sweep, TRIALS)
    with pytest.raises(UserError, match="the final training failed: the run's traceback"):
        train_final(sweep, champion, TRIALS)
