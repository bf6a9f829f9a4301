"""The gallery of runs with planted faults: its recording, its halves, and the scores of the diagnosis."""

import json
from dataclasses import replace

import pytest

from benchmarks.diagnostics import __main__ as command
from benchmarks.diagnostics import recording
from benchmarks.diagnostics.gallery import HEALTHY, planned_runs
from benchmarks.diagnostics.judge import (
    FALSE_ALARMS_TARGET,
    OTHER_TARGET,
    TARGETS,
    early_stops,
    fit_thresholds,
    half_of,
    scores,
)
from benchmarks.diagnostics.plants import PlannedRun, TrainedRun
from benchmarks.diagnostics.recording import GALLERY, RecordedRun, read_gallery, record_gallery
from platform.common.errors import UserError
from platform.training.diagnostics.findings import DESCRIPTIONS
from platform.training.diagnostics.thresholds import Thresholds
from tests.training.diagnostics.test_diagnose import curve

GOOD = curve([2.0, 1.6, 1.5, 1.45, 1.43, 1.42], [2.0, 1.6, 1.5, 1.45, 1.43, 1.42])
LEAP = curve([2.0, 1.6, 1.5, 1.45, 3.0, 3.1], [2.0, 1.6, 1.5, 1.45, 3.0, 3.1])


@pytest.fixture(scope="module")
def gallery():
    return read_gallery(GALLERY)


def planned(fault, recipe, seed=0):
    return PlannedRun(fault=fault, recipe=recipe, seed=seed, config={}, network={}, images=10)


def recorded(fault, recipe, epochs, *, stopped=False):
    return RecordedRun(fault=fault, recipe=recipe, seed=0, plan={}, stopped=stopped, epochs=tuple(epochs))


def test_the_plan_has_enough_runs_of_every_fault_and_recipes_in_both_halves():
    runs = planned_runs()
    assert len({run.key for run in runs}) == len(runs)
    assert sum(run.fault == HEALTHY for run in runs) >= 150
    for fault in DESCRIPTIONS:
        assert sum(run.fault == fault for run in runs) >= 20, fault


def test_the_file_has_planned_runs_only_and_every_fault_in_both_halves(gallery):
    assert {f"{run.group}/{run.seed}" for run in gallery} <= {run.key for run in planned_runs()}
    for half in ("fitted", "unseen"):
        assert {run.fault for run in half_of(gallery, half)} == {HEALTHY, *DESCRIPTIONS}


def test_the_rules_reach_their_targets_on_the_half_that_was_not_used_for_the_thresholds(gallery):
    healthy, *faults = scores(half_of(gallery, "unseen"))
    assert 1 - healthy.recall <= FALSE_ALARMS_TARGET
    for score in faults:
        if DESCRIPTIONS[score.fault].severity == "hint":
            continue
        assert score.recall >= TARGETS.get(score.fault, OTHER_TARGET), score


def test_no_recipe_is_in_both_halves(gallery):
    fitted, unseen = ({run.group for run in half_of(gallery, half)} for half in ("fitted", "unseen"))
    assert fitted.isdisjoint(unseen)
    assert fitted | unseen == {run.group for run in gallery}


def test_a_recording_resumes_and_drops_runs_that_are_no_longer_planned(tmp_path, monkeypatch):
    path, trained = tmp_path / "gallery.parquet", []

    def train(run):
        trained.append(run.key)
        return TrainedRun(epochs=tuple(GOOD), stopped=run.fault != HEALTHY)

    monkeypatch.setattr(recording, "train", train)
    first, second, third = planned(HEALTHY, "a"), planned("divergence", "b"), planned("divergence", "c")
    record_gallery(path, [first, second], say=lambda _: None)
    record_gallery(path, [second, third], say=lambda _: None)
    assert trained == ["healthy/a/0", "divergence/b/0", "divergence/c/0"]
    runs = read_gallery(path)
    assert [(run.fault, run.recipe, run.stopped) for run in runs] == [
        ("divergence", "b", True),
        ("divergence", "c", True),
    ]
    losses = [record.train_loss for record in runs[0].epochs]
    assert losses == pytest.approx([record.train_loss for record in GOOD])
    # A changed plan of a run is recorded again.
    record_gallery(path, [second, replace(third, images=20)], say=lambda _: None)
    assert trained[3:] == ["divergence/c/0"]


def test_scores_count_runs_whose_findings_contain_the_fault():
    runs = [
        recorded(HEALTHY, "a", GOOD),
        recorded(HEALTHY, "b", LEAP),
        recorded("divergence", "a", LEAP),
        recorded("divergence", "b", GOOD, stopped=True),
        recorded("divergence", "c", GOOD),
    ]
    by_fault = {score.fault: score for score in scores(runs)}
    healthy, divergence = by_fault[HEALTHY], by_fault["divergence"]
    assert (healthy.runs, healthy.found, healthy.named) == (2, 1, {"nothing": 1, "divergence": 1})
    assert (divergence.runs, divergence.found, divergence.alone) == (3, 2, 2)
    assert divergence.named == {"divergence": 2, "nothing": 1}
    # A limit that no run reaches finds only the run that the trainer stopped.
    blind = Thresholds(divergence_rise=1e9, divergence_loss=1e9)
    assert {score.fault: score for score in scores(runs, blind)}["divergence"].found == 1


def test_a_threshold_is_fitted_to_the_middle_of_the_best_range():
    slow = curve([2.0, 1.5, 1.2, 1.0, 1.0, 1.15], [2.0, 1.5, 1.2, 1.0, 1.0, 1.15])
    runs = [recorded(HEALTHY, "a", GOOD), recorded(HEALTHY, "b", slow), recorded("divergence", "a", LEAP)]
    fitted = {name: (value, low, high) for name, value, low, high in fit_thresholds(runs)}
    value, low, high = fitted["divergence_rise"]
    assert low < value < high
    assert value == pytest.approx((low * high) ** 0.5, rel=0.1)


def test_early_stopping_counts_ended_runs_and_saved_epochs():
    [healthy, diverged] = early_stops(
        [recorded(HEALTHY, "a", GOOD), recorded("divergence", "a", [*LEAP, *LEAP[-1:] * 4])]
    )
    assert (healthy.ended, healthy.saved) == (0, 0)
    assert (diverged.ended, diverged.runs) == (1, 1)
    assert diverged.saved == pytest.approx(0.4)


def test_the_command_prints_and_records_the_scores(tmp_path, capsys):
    path = tmp_path / "diagnostics.json"
    assert command.main(["--json", str(path)]) == 0
    out = capsys.readouterr().out
    assert "unseen half" in out
    assert "false alarms: " in out
    rows = json.loads(path.read_text())["results"]
    assert [row["fault"] for row in rows[:-1]] == [HEALTHY, *DESCRIPTIONS]
    assert "early_stopping" in rows[-1]


def test_a_missing_gallery_names_the_command(tmp_path):
    with pytest.raises(UserError, match=r"record it with python -m benchmarks\.diagnostics --record"):
        command.main(["--gallery", str(tmp_path / "missing.parquet")])
