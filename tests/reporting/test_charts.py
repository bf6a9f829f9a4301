"""The charts of the report: which trials and settings they show, their axes, and the boundary warnings."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from platform.data.dataset import Split
from platform.reporting import result_charts
from platform.reporting.boundaries import boundary_warning
from platform.reporting.page import context
from platform.reporting.search_charts import (
    importance_interval,
    learning_curves,
    search_charts,
    slice_charts,
    timeline,
)
from platform.reporting.search_study import search_study
from platform.space.distributions import Choice, Dimension, Range
from platform.tracking.events import TrialStatus
from platform.tracking.parquet_tables import TableWriter
from platform.tracking.results import read_results
from platform.tracking.sweep_folder import SweepFolder
from platform.training.evaluation.calibration import calibration, frequent_mistakes
from tests.reporting.example_sweep import write_example
from tests.tracking.examples import epoch, trial


def figure(chart):
    return json.loads(chart.figure)


def titled(charts, title):
    return next(figure(chart) for chart in charts if chart.title.startswith(title))


@pytest.fixture(scope="module")
def results(finished):
    return read_results(finished)


@pytest.fixture(scope="module")
def charts(results):
    return search_charts(results)


@pytest.fixture(scope="module")
def best(results):
    return results.leaderboard()[0]


def dimension(path, node):
    return Dimension(path, path, node, ())


RATE = dimension("optimizer.lr", Range("log_uniform", 0.001, 1.0))
SIZE = dimension("batch_size", Choice((64, 128, 256)))
CUTOUT = dimension("augment.cutout.length", Choice((0, 8, 16)))
SMOOTHING = dimension("label_smoothing", Range("uniform", 0.0, 0.2))


@pytest.mark.parametrize(
    ("dimension", "value", "words"),
    [
        (RATE, 0.0011, "lower boundary of the range 0.001 to 1"),
        (RATE, 0.9, "upper boundary of the range 0.001 to 1"),
        (RATE, 0.03, ""),
        # On a linear scale this would be at the lower boundary.
        (RATE, 0.01, ""),
        (SIZE, 256, "upper boundary of the range 64 to 256"),
        (SIZE, 64, "lower boundary of the range 64 to 256"),
        (SIZE, 128, ""),
        # No cutout is shorter than 0 pixels, no label smoothing is negative.
        (CUTOUT, 0, ""),
        (CUTOUT, 16, "upper boundary of the range 0 to 16"),
        (SMOOTHING, 0.001, ""),
        (SMOOTHING, 0.199, "upper boundary of the range 0 to 0.2"),
        (dimension("batch_size", Choice((64, 128))), 64, ""),
        (dimension("optimizer", Choice(("adam", "sgd", "x"))), "adam", ""),
    ],
)
def test_a_best_value_at_a_boundary_has_a_warning(best, dimension, value, words):
    warning = boundary_warning(dimension, replace(best, params={dimension.name: value}))
    assert words in warning
    assert bool(warning) == bool(words)


def test_a_setting_that_the_best_trial_lacks_has_no_warning(best):
    assert boundary_warning(RATE, replace(best, params={"optimizer": "sgd"})) == ""


def test_the_learning_rates_of_all_optimizers_share_a_log_axis(results, charts):
    parallel = titled(charts, "Settings of the completed trials")
    labels = parallel["layout"]["xaxis"]["ticktext"]
    assert sorted(labels) == sorted(
        ["accuracy, %", "batch_size", "cutout.length", "lr", "optimizer", "schedule", "weight_decay"]
    )
    completed = [row for row in results.of_stage("search") if row.completed]
    lines = [trace for trace in parallel["data"] if trace["mode"] == "lines"]
    assert len(lines) == len(completed)
    column = labels.index("lr")
    shown = sorted(float(trace["customdata"][column][1]) for trace in lines)
    rates = sorted(row.config["optimizer"]["lr"] for row in completed)
    assert shown == pytest.approx(rates, rel=0.01)
    # Equal ratios have equal distances.
    heights = sorted(trace["y"][column] for trace in lines)
    logs = np.log(rates)
    assert heights == pytest.approx((logs - logs[0]) / (logs[-1] - logs[0]), abs=0.01)


def test_trials_are_named_by_their_ids(charts):
    history = titled(charts, "Optimization history")
    axis = history["layout"]["xaxis"]
    assert (axis["tickprefix"], axis["tickformat"]) == ("t", "03d")


def test_importances_have_intervals_over_resamples(results, charts):
    bars = titled(charts, "Importance")["data"][0]
    assert sum(bars["x"]) == pytest.approx(1)
    assert any(width > 0 for width in bars["error_x"]["array"])
    study = search_study(results, results.of_stage("search"))
    low, high = importance_interval(study, bars["y"])
    assert all(0 <= bound <= 1 for bound in (*low, *high))
    assert any(low < high)


def test_few_trials_have_no_importances(tmp_path):
    results = read_results(write_example(tmp_path, trials=5))
    assert not any(chart.title.startswith("Importance") for chart in search_charts(results))


def test_every_searched_setting_has_a_slice(results):
    slices = slice_charts(results)
    assert [chart.title for chart in slices] == [
        "batch_size",
        "optimizer",
        "sgd.lr",
        "sgd.weight_decay",
        "adam.lr",
        "schedule",
        "cutout.length",
    ]
    assert figure(slices[1])["data"][0]["x"].count("'sgd'") == 0
    axis = figure(slices[2])["layout"]["xaxis"]
    assert axis["type"] == "log"
    assert len(axis["tickvals"]) == 4


def test_settings_of_a_single_trial_have_a_slice_and_those_of_none_are_named(tmp_path):
    folder = write_example(tmp_path, trials=4)
    slices = {chart.title: figure(chart) for chart in slice_charts(read_results(folder))}
    (point,) = slices["adam.lr"]["data"][0]["x"]
    assert point > 0
    single = write_example(tmp_path / "one", trials=1)
    assert context(read_results(single))["unsliced"] == ["optimizer.adam.lr"]


def test_trials_of_one_epoch_are_visible_and_epochs_are_whole(tmp_path):
    folder = SweepFolder(tmp_path / "s-20260301-120000")
    folder.path.mkdir()
    writer = TableWriter(folder)
    writer.epoch_finished(trial(0), epoch(1, accuracy=0.4))
    writer.trial_ended(trial(0), TrialStatus.FINISHED)
    writer.epoch_finished(trial(1), epoch(1, accuracy=0.3))
    writer.trial_ended(trial(1), TrialStatus.PRUNED)
    writer.flush()
    for chart in learning_curves(read_results(folder)):
        others, ends, best = figure(chart)["data"]
        assert (best["name"], best["mode"]) == ("t000", "lines+markers")
        assert (others["text"], ends["mode"]) == (["t001", "t001"], "markers")
        assert others["x"] == [*ends["x"], None]
        assert figure(chart)["layout"]["xaxis"]["dtick"] == 1


def test_the_learning_curves_count_the_survivors_of_each_rung(results):
    accuracy, loss = learning_curves(results)
    rows = results.of_stage("search")
    for rung in results.plan["rungs"]:
        reached = sum(row.epochs_done >= rung for row in rows)
        continued = sum(row.epochs_done > rung for row in rows)
        assert f"epoch {rung}: {reached} reached, {continued} continued" in accuracy.note
    assert len(figure(accuracy)["layout"]["shapes"]) == len(results.plan["rungs"])
    assert figure(loss)["layout"]["yaxis"]["type"] == "log"


def test_concurrent_runs_have_slots_of_their_own(results):
    first, second, third = results.trials[:3]
    overlapping = [first, replace(second, started_at=first.started_at), third]
    data = figure(timeline(replace(results, trials=overlapping)))["data"]
    slots = {
        text.split(",")[0]: slot
        for trace in data
        for text, slot in zip(trace["text"], trace["y"], strict=True)
    }
    assert slots == {"t000": 1, "t001": 2, "t002": 1}


def test_the_pareto_charts_mark_the_front(tmp_path):
    folder = write_example(tmp_path, objectives=["validation_accuracy", "parameters", "latency_ms"])
    results = read_results(folder)
    pareto = context(results)["pareto"]
    front = {row.trial_id for row, _, _ in pareto["rows"]}
    completed = [row for row in results.leaderboard() if row.completed]
    assert 1 < len(front) < len(completed) == pareto["completed"]
    for row in completed:
        dominated = any(
            other.validation_accuracy > row.validation_accuracy
            and all(other.costs[name] <= row.costs[name] for name in row.costs)
            for other in completed
        )
        assert dominated != (row.trial_id in front)
    for chart in pareto["charts"]:
        traces = {trace["name"]: trace for trace in figure(chart)["data"]}
        assert len(traces["Pareto front"]["x"]) == len(front)
        assert len(traces["dominated"]["x"]) == len(completed) - len(front)


def test_the_confirmation_has_the_search_run_and_the_interval():
    entry = {"trial_id": "t1", "accuracies": [0.93, 0.932], "mean": 0.931, "searched": 0.94}
    estimate = {"mean": 0.932, "interval95": [0.929, 0.935]}
    shown = figure(result_charts.confirmation({"candidates": [{**entry, "estimate": estimate}]}))
    interval, mean, runs, search = (trace["x"] for trace in shown["data"])
    assert interval == pytest.approx([92.9, 93.5])
    assert (mean, runs, search) == (
        pytest.approx([93.2]), pytest.approx([93.0, 93.2]), pytest.approx([94.0])
    )  # fmt: skip
    single = figure(result_charts.confirmation({"candidates": [{**entry, "estimate": None}]}))
    assert len(single["data"]) == 2


def test_without_runs_there_is_no_confirmation_chart():
    assert result_charts.confirmation({"candidates": []}) is None
    assert result_charts.confirmation({}) is None


def test_calibration_compares_confidence_with_accuracy():
    # Two images with confidence 0.9, of which one is right.
    logits = torch.tensor([[0.9, 0.1], [0.9, 0.1]]).log()
    split = Split(np.zeros((2, 3, 4, 4), np.uint8), np.array([0, 1]))
    found = calibration(logits, split)
    assert found["ece"] == pytest.approx(0.4)
    (used,) = [entry for entry in found["bins"] if entry["images"]]
    assert used["low"] < 0.9 <= used["high"]
    assert (used["images"], used["confidence"], used["accuracy"]) == (2, pytest.approx(0.9), 0.5)
    assert "40.00 %" in result_charts.reliability(found).title


def test_the_most_frequent_mistakes_come_first_with_the_most_confident_image():
    logits = torch.tensor([[0.1, 0.9, 0], [0.2, 3.0, 0], [0, 0, 1], [0, 1, 0]])
    split = Split(np.zeros((4, 3, 4, 4), np.uint8), np.array([0, 0, 1, 1]))
    first, second = frequent_mistakes(logits, split)
    assert (first["actual"], first["predicted"], first["count"]) == (0, 1, 2)
    assert [image["index"] for image in first["images"]] == [1, 0]
    assert (second["actual"], second["predicted"], second["count"]) == (1, 2, 1)


def test_the_time_of_each_stage_is_compared_with_the_plan(results):
    stages = {name: (planned, actual) for name, planned, actual in results.stage_times()}
    assert stages["search"][0] == 5000.0
    rows = results.of_stage("search")
    span = (max(row.ended_at for row in rows) - min(row.started_at for row in rows)).total_seconds()
    assert stages["search"][1] == span
    plan, actual = figure(result_charts.stage_times(results.stage_times()))["data"]
    assert (plan["name"], actual["name"]) == ("plan", "actual")
    assert plan["x"][0] == pytest.approx(5000 / 60)
    assert actual["x"][0] == pytest.approx(span / 60)
