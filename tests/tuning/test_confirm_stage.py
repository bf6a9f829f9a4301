"""The confirmation: which runs are started, in which order, and when it ends."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from platform.common.errors import UserError
from platform.space.spec import SweepSpec
from platform.tracking.events import SweepObserver, TrialInfo, TrialStatus
from platform.tracking.sweep_folder import SweepFolder
from platform.tuning import confirm_stage, training_stages
from platform.tuning.confirm_stage import Confirmation
from platform.tuning.execution.stage_context import StageContext
from platform.tuning.journal.journal import Journal, open_journal, read_ledger
from platform.tuning.journal.ledger import JournaledTrial
from platform.tuning.planning.estimate import estimate_sweep
from platform.tuning.planning.plan import make_plan
from platform.tuning.planning.records import ImageCounts, Speed, TimeBudget
from platform.tuning.training_stages import Sweep, confirm, train_final
from tests.space.examples import spec
from tests.tracking.examples import epoch
from tests.tuning.journal.examples import INFO, a_trial

FINISHED, FAILED = TrialStatus.FINISHED, TrialStatus.FAILED
Accuracy = Callable[[str], float | None]


def sweep_of(tmp_path: Path, **confirmation: Any) -> Sweep:
    space = spec(trials=6, confirm={"candidates": 3, **confirmation})
    folder = SweepFolder(tmp_path / "plain-20260101-000000")
    folder.path.mkdir(exist_ok=True)
    return Sweep(
        spec=space,
        plan=make_plan(space, [{"CPU": 2, "GPU": 0}]),
        folder=folder,
        info=INFO,
        observer=SweepObserver(),
        provenance={},
    )


def searched(
    space: SweepSpec, *accuracies: float, status: TrialStatus = FINISHED, batch_sizes: tuple[int, ...] = ()
) -> list[JournaledTrial]:
    """Return one trial of the search per accuracy."""
    trials = []
    for number, accuracy in enumerate(accuracies):
        size = batch_sizes[number] if batch_sizes else 128
        params = {"batch_size": size, "optimizer.lr": round(0.02 + 0.01 * number, 3)}
        done, run = 9 if status is FINISHED else 3, space.resolve(params)
        trials.append(a_trial(number, accuracy, status=status, epoch=done, params=params, run=run))
    return trials


class DriverEndedError(Exception):
    """The simulated end of the driver."""


class FakeRuns:
    """Replaces `run_configurations`: journals runs whose accuracies a function returns, None for a failure.

    Args:
        accuracy: the accuracy of a run by its id.
        slots: runs at a time. The oldest one ends first.
        ends: number of ended runs after which the driver dies.
    """

    def __init__(self, accuracy: Accuracy, *, slots: int = 1, ends: int = 10**6) -> None:
        self.accuracy, self.slots, self.ends = accuracy, slots, ends
        self.started: list[TrialInfo] = []
        self.options: dict[str, Any] = {}

    def __call__(
        self,
        trials: list[TrialInfo],
        context: StageContext,
        *,
        next_trial: Callable[[Journal], TrialInfo | None] = lambda _: None,
        **options: Any,
    ) -> list[JournaledTrial]:
        self.options = options
        with open_journal(context.folder.journal) as journal:
            running = [one for one in trials if not self._is_finished(journal, one)]
            for one in running:
                if one.trial_id not in journal.ledger.trials:
                    self._start(journal, context, one)
            while True:
                while len(running) < self.slots and (further := next_trial(journal)) is not None:
                    self._start(journal, context, further)
                    running.append(further)
                if not running:
                    break
                if not self.ends:
                    raise DriverEndedError
                self._end(journal, running.pop(0).trial_id)
            return [journal.ledger.trials[one.trial_id] for one in trials]

    def _is_finished(self, journal: Journal, trial: TrialInfo) -> bool:
        known = journal.ledger.trials.get(trial.trial_id)
        return known is not None and known.status is FINISHED

    def _start(self, journal: Journal, context: StageContext, trial: TrialInfo) -> None:
        self.started.append(trial)
        journal.trial(context.task(trial))

    def _end(self, journal: Journal, trial_id: str) -> None:
        self.ends -= 1
        accuracy = self.accuracy(trial_id)
        if accuracy is None:
            journal.ended(trial_id, FAILED, "the run's traceback")
        else:
            journal.epoch(trial_id, epoch(9, epochs=9, accuracy=accuracy))
            journal.ended(trial_id, FINISHED, None)

    @property
    def ids(self) -> list[str]:
        return [trial.trial_id for trial in self.started]


Install = Callable[..., FakeRuns]


@pytest.fixture
def fake_runs(monkeypatch: pytest.MonkeyPatch) -> Install:
    def install(accuracy: Accuracy, **options: Any) -> FakeRuns:
        runs = FakeRuns(accuracy, **options)
        for module in (confirm_stage, training_stages):
            monkeypatch.setattr(module, "run_configurations", runs)
        return runs

    return install


def noisy(means: dict[int, float], noise: float = 0.004) -> Accuracy:
    """Return accuracies around the mean of each candidate, a function of the run's id."""

    def accuracy(trial_id: str) -> float:
        candidate, seed = (int(part[1:]) for part in trial_id.split("-"))
        return means[candidate] + noise * float(np.random.default_rng([candidate, seed]).standard_normal())

    return accuracy


CLOSE = noisy({1: 0.90, 2: 0.901, 3: 0.899})


@pytest.fixture
def adaptive(tmp_path: Path) -> Sweep:
    return sweep_of(tmp_path, max_runs=12, tolerance=0.0001)


def close_trials(sweep: Sweep) -> list[JournaledTrial]:
    return searched(sweep.spec, 0.896, 0.905, 0.903, 0.901, 0.88, 0.87)


def test_a_clear_winner_needs_the_fewest_runs(adaptive: Sweep, fake_runs: Install) -> None:
    runs = fake_runs(noisy({1: 0.95, 2: 0.9, 3: 0.9}, noise=0.001))
    champion = confirm(adaptive, searched(adaptive.spec, 0.90, 0.95, 0.901, 0.89, 0.895, 0.885))
    assert runs.ids == ["c1-s0", "c1-s1"]
    assert champion.candidate == "t001"
    assert champion.estimate is not None
    assert champion.estimate.best_probability > 0.95
    selection = json.loads(adaptive.folder.selection.read_text())
    assert selection["confirmation_ended"].startswith("t001 is the best with ")
    assert selection["best_single_run"]["trial_id"] == "t001"


def test_close_candidates_get_all_runs_and_none_is_left_out(adaptive: Sweep, fake_runs: Install) -> None:
    runs = fake_runs(CLOSE)
    champion = confirm(adaptive, close_trials(adaptive))
    assert len(runs.ids) == 12
    assert {trial.candidate for trial in runs.started} == {"t001", "t002", "t003"}
    assert champion.estimate is not None
    assert champion.estimate.best_probability < 0.95
    assert json.loads(adaptive.folder.selection.read_text())["confirmation_ended"] == "all 12 runs are used"


def test_the_nth_runs_of_all_candidates_have_the_same_seed(adaptive: Sweep, fake_runs: Install) -> None:
    runs = fake_runs(CLOSE)
    confirm(adaptive, close_trials(adaptive))
    seeds: dict[str, set[int]] = {}
    for trial in runs.started:
        seeds.setdefault(trial.trial_id.partition("-")[2], set()).add(trial.config.seed)
    assert all(len(found) == 1 for found in seeds.values())
    assert len({seed for found in seeds.values() for seed in found}) == len(seeds)
    assert [trial.number for trial in runs.started] == list(range(12))


@pytest.mark.parametrize("slots", [1, 4])
def test_a_resume_after_every_run_gives_the_same_runs(tmp_path: Path, fake_runs: Install, slots: int) -> None:
    (tmp_path / "whole").mkdir()
    sweep = sweep_of(tmp_path / "whole", max_runs=10, tolerance=0.0001)
    whole = fake_runs(CLOSE, slots=slots)
    expected = confirm(sweep, close_trials(sweep))
    for ends in range(10):
        (tmp_path / str(ends)).mkdir()
        sweep = sweep_of(tmp_path / str(ends), max_runs=10, tolerance=0.0001)
        first = fake_runs(CLOSE, slots=slots, ends=ends)
        with pytest.raises(DriverEndedError):
            confirm(sweep, close_trials(sweep))
        rest = fake_runs(CLOSE, slots=slots)
        assert confirm(sweep, close_trials(sweep)) == expected
        assert first.ids + rest.ids == whole.ids


def test_several_slots_do_not_run_one_candidate_only(adaptive: Sweep, fake_runs: Install) -> None:
    runs = fake_runs(CLOSE, slots=4)
    confirm(adaptive, close_trials(adaptive))
    assert len({trial.candidate for trial in runs.started[:4]}) >= 2


def test_a_candidate_that_fails_twice_gets_no_more_runs(adaptive: Sweep, fake_runs: Install) -> None:
    runs = fake_runs(lambda name: None if name.startswith("c1") else CLOSE(name))
    champion = confirm(adaptive, close_trials(adaptive))
    assert [name for name in runs.ids if name.startswith("c1")] == ["c1-s0", "c1-s1"]
    assert champion.candidate != "t001"


def test_failed_runs_are_tried_again_only_if_no_run_finished(adaptive: Sweep, fake_runs: Install) -> None:
    runs = fake_runs(lambda _: None)
    with pytest.raises(UserError, match=r"no confirmation run finished; .*logs"):
        confirm(adaptive, close_trials(adaptive))
    assert not adaptive.folder.selection.exists()
    assert len(runs.ids) == 6
    fake_runs(CLOSE)
    assert confirm(adaptive, close_trials(adaptive)).candidate


def test_one_candidate_gets_its_least_number_of_runs(tmp_path: Path, fake_runs: Install) -> None:
    sweep = sweep_of(tmp_path, candidates=1)
    runs = fake_runs(CLOSE)
    champion = confirm(sweep, searched(sweep.spec, 0.9))
    assert (runs.ids, champion.candidate) == (["c1-s0", "c1-s1"], "t000")
    assert champion.verdict == "t000 is the only recipe with a run at full budget."


def test_without_noise_equal_recipes_end_at_once_and_the_cheaper_one_wins(
    adaptive: Sweep, fake_runs: Install
) -> None:
    runs = fake_runs(lambda _: 0.9)
    trials = searched(adaptive.spec, 0.9, 0.9, 0.9, batch_sizes=(128, 128, 256))
    champion = confirm(adaptive, trials)
    assert runs.ids == ["c1-s0", "c1-s1"]
    assert champion.candidate == "t000", "the others have no run of the confirmation"
    fixed = spec(trials=6, confirm={"candidates": 3, "seeds": 2})
    more = dataclasses.replace(adaptive, spec=fixed)
    champion = confirm(more, trials)
    assert (champion.candidate, champion.cheaper_than) == ("t002", "t000")
    assert champion.verdict.endswith(
        "t002, t000, t001 are equally good within 0.1 points; t002 was preferred to t000 for its cost: "
        "images per batch (larger is faster)."
    )


def test_trials_stopped_early_are_candidates_only_without_complete_ones(
    adaptive: Sweep, fake_runs: Install
) -> None:
    stopped = searched(adaptive.spec, 0.5, 0.6, 0.7, status=TrialStatus.PRUNED)
    complete = searched(adaptive.spec, 0.9, 0.8, 0.8, 0.8)[3:]
    runs = fake_runs(noisy({1: 0.8, 2: 0.7, 3: 0.6}))
    champion = confirm(adaptive, [*stopped, *complete])
    assert {trial.candidate for trial in runs.started} >= {"t003"}
    assert champion.candidate == "t003"


def test_a_fixed_confirmation_runs_every_candidate_with_every_seed(
    tmp_path: Path, fake_runs: Install
) -> None:
    sweep = sweep_of(tmp_path, candidates=2, seeds=2)
    runs = fake_runs(lambda name: {"c1-s1": None, "c1-s0": 0.6}.get(name, 0.7))
    champion = confirm(sweep, searched(sweep.spec, 0.62, 0.66, 0.65))
    assert [(trial.trial_id, trial.candidate) for trial in runs.started] == [
        ("c1-s0", "t001"), ("c2-s0", "t002"), ("c1-s1", "t001"), ("c2-s1", "t002")
    ]  # fmt: skip
    assert champion.candidate == "t002"
    selection = json.loads(sweep.folder.selection.read_text())
    assert [entry["accuracies"] for entry in selection["candidates"]] == [[0.6], [0.7, 0.7]]
    assert selection["confirmation_ended"] == "2 candidates x 2 seeds were planned"
    written = json.loads(sweep.folder.champion.read_text())
    assert (written["trial_id"], written["verdict"]) == ("t002", champion.verdict)
    again = fake_runs(lambda _: 0.6)
    confirm(sweep, searched(sweep.spec, 0.62, 0.66, 0.65))
    assert again.ids == [], "only the failed run runs again, under its id"


def test_a_late_confirmation_ends_after_one_run_and_stays_so(
    tmp_path: Path, fake_runs: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = sweep_of(tmp_path)
    budget = TimeBudget(budget_s=100, used_before_s=5, choices=(), full_digest="")
    plan = make_plan(sweep.spec, [{"CPU": 2, "GPU": 0}], within=budget)
    speed = Speed(train_images_per_s=1000, evaluation_images_per_s=5000)
    images = ImageCounts(train=1000, validation=500, test=1000)
    plan = plan.model_copy(update={"estimate": estimate_sweep(plan, speed, images)})
    observer = SweepObserver()
    notes: list[str] = []
    monkeypatch.setattr(observer, "sweep_noted", notes.append)
    late = dataclasses.replace(sweep, plan=plan, observer=observer)
    runs = fake_runs(CLOSE)
    monkeypatch.setattr(SweepFolder, "elapsed_s", lambda _: 1000.0)
    confirm(late, close_trials(late))
    assert runs.ids == ["c1-s0"]
    [reason] = training_stages.why_shortened(late)
    assert notes == [reason], "said when it happens"
    assert reason.startswith("the confirmation ends after 1 run: with another one the sweep would take")
    selection = json.loads(late.folder.selection.read_text())
    assert (selection["search_stopped"], selection["confirmation_ended"]) == (reason, "no time was left")
    monkeypatch.setattr(SweepFolder, "elapsed_s", lambda _: 0.0)
    resumed = fake_runs(CLOSE)
    confirm(late, close_trials(late))
    assert resumed.ids == [], "a resumed sweep keeps the decision"
    lifted = plan.model_copy(update={"within": budget.model_copy(update={"lifted": True})})
    assert dataclasses.replace(late, plan=lifted).time_limits() is None


def test_after_an_extension_earlier_candidates_keep_their_numbers_and_runs(
    tmp_path: Path, fake_runs: Install
) -> None:
    sweep = sweep_of(tmp_path, candidates=2, seeds=1)
    fake_runs(lambda _: 0.6)
    confirm(sweep, searched(sweep.spec, 0.7, 0.6))
    runs = fake_runs(lambda _: 0.6)
    confirm(sweep, searched(sweep.spec, 0.7, 0.6, 0.9, 0.8))
    assert [(trial.trial_id, trial.candidate) for trial in runs.started] == [
        ("c3-s0", "t002"), ("c4-s0", "t003")
    ]  # fmt: skip
    assert [trial.number for trial in runs.started] == [2, 3]


def test_after_an_extension_the_limit_of_runs_counts_anew(adaptive: Sweep, fake_runs: Install) -> None:
    fake_runs(CLOSE)
    confirm(adaptive, close_trials(adaptive))
    with open_journal(adaptive.folder.journal) as journal:
        journal.extended("8 trials")
    runs = fake_runs(lambda name: CLOSE(name) if name < "c4" else 0.95)
    champion = confirm(adaptive, searched(adaptive.spec, 0.896, 0.905, 0.903, 0.901, 0.88, 0.87, 0.95))
    assert runs.ids[:2] == ["c4-s0", "c4-s1"]
    assert champion.candidate == "t006"


def test_the_final_run_has_the_champions_settings(adaptive: Sweep, fake_runs: Install) -> None:
    fake_runs(CLOSE)
    trials = close_trials(adaptive)
    champion = confirm(adaptive, trials)
    runs = fake_runs(lambda _: 0.5)
    train_final(adaptive, champion, trials)
    [trial] = runs.started
    [chosen] = [one.task for one in trials if one.task.trial_id == champion.candidate]
    assert (trial.trial_id, trial.stage, trial.candidate) == ("final", "final", champion.candidate)
    assert trial.config == adaptive.spec.resolve(chosen.params, seed=trial.config.seed)
    assert runs.options["include_validation"] is adaptive.spec.final.include_validation


def test_a_failed_final_run_is_an_error(adaptive: Sweep, fake_runs: Install) -> None:
    fake_runs(CLOSE)
    champion = confirm(adaptive, close_trials(adaptive))
    fake_runs(lambda _: None)
    with pytest.raises(UserError, match="the final training failed: the run's traceback"):
        train_final(adaptive, champion, close_trials(adaptive))


def test_recipes_include_the_complete_trials_that_are_no_candidates(adaptive: Sweep) -> None:
    stage = Confirmation(adaptive.spec, close_trials(adaptive), adaptive.context(adaptive.plan.confirm))
    recipes = stage.recipes(read_ledger(adaptive.folder.journal))
    assert [recipe.trial_id for recipe in recipes] == ["t001", "t002", "t003", "t000", "t004", "t005"]
    assert [recipe.searched for recipe in recipes] == [0.905, 0.903, 0.901, 0.896, 0.88, 0.87]
