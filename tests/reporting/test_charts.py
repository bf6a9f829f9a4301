"""Scales, ticks and boundary warnings of the charts."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform.reporting.axes import Axis, axis_plots, boundary_warning
from platform.reporting.spread import confirmation
from platform.reporting.svg import Scale, focused, framed, linear_ticks, log_ticks, padded
from platform.tracking.results import read_results


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(3, 8))
def test_linear_ticks_are_round_few_and_inside(low, span, count):
    ticks = linear_ticks(low, low + span, count)
    assert 1 <= len(ticks) <= 2 * count + 1
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in ticks)
    assert ticks == sorted(set(ticks))


@given(st.floats(1e-6, 1e3), st.floats(12, 1e5))
def test_log_ticks_are_few_and_inside(low, factor):
    ticks = log_ticks(low, low * factor)
    assert 1 <= len(ticks) <= 7
    assert all(low * 0.998 <= tick <= low * factor * 1.002 for tick in ticks)


def test_decades_have_equal_width_on_a_log_scale():
    scale = Scale(low=1e-4, high=1e-2, start=0, end=100, log=True)
    assert [scale(value) for value in (1e-4, 1e-3, 1e-2)] == pytest.approx([0, 50, 100])


@pytest.mark.parametrize("value", [0.0, 0.5, 93.0, -2.0])
def test_equal_values_have_non_empty_limits(value):
    low, high = padded(value, value)
    assert low < value < high


def test_pruned_trials_do_not_extend_the_limits():
    low, high = focused([94.0, 93.5, 93.0, 40.0, 10.0], [94.0, 93.5, 93.0])
    assert 90 < low < 93
    assert 94 < high <= 100


def test_a_value_below_the_frame_is_a_hollow_dot_at_its_edge():
    chart = framed((0, 1), (90, 100))
    chart.dot(0.5, 50, "c1")
    chart.dot(0.5, 95, "c1")
    below, inside = chart.parts
    assert 'class="dot c1 below"' in below
    assert f'cy="{chart.y.start:.1f}"' in below
    assert 'class="dot c1"' in inside


def test_a_line_is_interrupted_at_nan():
    chart = framed((0, 5), (0, 10))
    chart.line([(1, 1), (2, float("nan")), (3, 2), (4, 3)], "c1")
    (part,) = chart.parts
    path = part.split('d="')[1].split('"')[0]
    assert (path.count("M"), path.count("L")) == (2, 1)


@pytest.fixture(scope="module")
def best(finished):
    return read_results(finished).leaderboard()[0]


RATE = Axis(name="lr", low=0.001, high=1.0, log=True)
SIZES = Axis(name="size", categories=("64", "128", "256"), ordered=True)


@pytest.mark.parametrize(
    ("axis", "value", "words"),
    [
        (RATE, 0.0011, "lower boundary of the range 0.001 to 1"),
        (RATE, 0.9, "upper boundary of the range 0.001 to 1"),
        (RATE, 0.03, ""),
        # On a linear scale this would be at the lower boundary.
        (RATE, 0.01, ""),
        (SIZES, 256, "upper boundary of the range 64 to 256"),
        (SIZES, 128, ""),
        (SIZES, 512, ""),
        (Axis(name="size", categories=("64", "128"), ordered=True), 64, ""),
        (Axis(name="opt", categories=("adam", "sgd", "x")), "adam", ""),
    ],
)
def test_a_best_value_at_a_boundary_has_a_warning(best, axis, value, words):
    warning = boundary_warning(axis, replace(best, params={axis.name: value}))
    assert words in warning
    assert bool(warning) == bool(words)


def test_a_setting_that_the_best_trial_lacks_has_no_warning(best):
    assert boundary_warning(RATE, replace(best, params={"optimizer": "sgd"})) == ""


def test_every_searched_setting_has_a_plot(finished):
    names = [plot.name for plot in axis_plots(read_results(finished))]
    assert names == [
        "batch_size",
        "optimizer",
        "optimizer.sgd.lr",
        "optimizer.sgd.weight_decay",
        "optimizer.adam.lr",
        "schedule",
        "augment.cutout.length",
    ]


def test_a_wide_interval_keeps_the_runs_visible():
    # Two runs: t = 12.7, so the interval is an order of magnitude wider than the runs.
    entry = {"trial_id": "t1", "accuracies": [0.93, 0.932], "mean": 0.931, "interval95": [0.918, 0.944]}
    svg = str(confirmation({"candidates": [entry], "champion": "t1"}))
    pixels = [float(part.split('"')[0]) for part in svg.split('cx="')[1:]]
    assert max(pixels) - min(pixels) > 100


def test_without_runs_there_is_no_confirmation_chart():
    assert confirmation({"candidates": []}) is None
    assert confirmation({}) is None
