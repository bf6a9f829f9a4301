"""Formatting of numbers, durations and settings."""

import pytest

from platform.common.text_format import (
    GENERATED,
    QUICK,
    approximate_duration,
    clock,
    different_settings,
    duration,
    percent,
    plural,
    settings_cells,
    settings_text,
    sweep_warnings,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (float("nan"), "-"),
        (0.04, "0.0 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (192, "3 min 12 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (86399, "1 d 0 h"),
        (273600, "3 d 4 h"),
    ],
)
def test_durations_never_show_sixty(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(10, "under a minute"), (80, "about 1 min"), (5000, "about 83 min"), (9000, "about 2.5 h")],
)
def test_approximate_durations_are_rounded(seconds, text):
    assert approximate_duration(seconds) == text


def test_settings_in_one_line():
    params = {
        "batch_size": 128,
        "optimizer": "sgd",
        "optimizer.sgd.lr": 0.123456,
        "optimizer.sgd.weight_decay": 0.0005,
        "schedule": "cosine",
        "augment.cutout.length": 8,
        "augment.flip": True,
    }
    assert settings_text(params) == (
        "batch_size=128 sgd(lr=0.123, weight_decay=0.0005) cosine cutout.length=8 flip=True"
    )


def test_the_name_of_a_section_has_the_name_of_the_section():
    assert settings_cells({"model.name": "resnet20_cifar", "epochs": 3}) == {
        "model": "resnet20_cifar",
        "epochs": "3",
    }


def test_a_setting_of_another_alternative_stays_outside_the_brackets():
    assert settings_text({"optimizer": "sgd", "optimizer.adam.lr": 0.1}) == "sgd adam.lr=0.1"


def test_plural_and_percent():
    assert (plural(1, "trial"), plural(1200, "trial")) == ("1 trial", "1,200 trials")
    assert (percent(0.93125), percent(None), percent(float("nan"))) == ("93.12 %", "-", "-")


def test_the_warnings_of_a_sweep():
    assert sweep_warnings(quick=False, generated=False) == []
    assert sweep_warnings(quick=True, generated=False) == [QUICK]
    assert sweep_warnings(quick=True, generated=True) == [QUICK, GENERATED]


def test_different_settings_have_short_names_and_leave_out_what_is_equal():
    rows = [
        {"optimizer": "sgd", "optimizer.sgd.lr": 0.1, "batch_size": 64, "schedule": "cosine"},
        {
            "optimizer": "adam",
            "batch_size": 128,
            "schedule": "cosine",
            "optimizer.adam.lr": 0.003,
            "optimizer.adam.weight_decay": 0.000512,
            "augment.cutout.length": 8,
        },
    ]
    assert different_settings(rows) == ["sgd lr=0.1 bs=64", "adam lr=0.003 wd=5.12e-4 bs=128 cutout=8"]
    assert different_settings(rows[:1]) == ["sgd lr=0.1 bs=64 cosine"]
    assert different_settings([]) == []


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (252.4, "4:12"), (3852, "1:04:12"), (-3, "0:00")])
def test_a_clock(seconds, text):
    assert clock(seconds) == text
