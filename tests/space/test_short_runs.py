"""Sweeps whose runs are shortened to fit a time budget."""

from typing import Any

import pytest

from platform.space.settings import Confirm
from platform.space.short_runs import SweepSize, resized
from platform.space.space_files import load_space
from platform.space.spec import SweepSpec
from tests.space.examples import BASE, EVERY_KIND, PLAIN, spec

FULL_IMAGES = 45_000


def size(**changes: int) -> SweepSize:
    values = {
        "trials": 4,
        "candidates": 2,
        "seeds": 1,
        "epochs": 3,
        "train_images": 2000,
        "validation_images": 1000,
    }
    return SweepSize(**(values | changes))


def shortened(full: SweepSpec, **changes: int) -> tuple[SweepSpec, dict[str, str]]:
    short, choices = resized(full, size(**changes), full_epochs=50, full_images=FULL_IMAGES)
    return short, {choice.name: choice.value for choice in choices}


def test_runs_are_short_but_have_enough_steps() -> None:
    short, choices = shortened(load_space("resnet18_cifar"))
    base = short.base
    assert (short.trials, base.epochs, base.data.train_limit, base.batch_size) == (4, 3, 2000, 32)
    assert (base.data.validation_size, short.confirm.candidates, short.confirm.seeds) == (1000, 2, 1)
    assert (base.schedule.name, base.augment.cutout.length) == ("triangular", 0)
    assert short.scheduler.name == "none"
    search = short.to_dict()["search"]
    assert search["batch_size"] == {"choice": [32, 64]}
    assert [option["name"] for option in search["schedule"]] == ["triangular", "step"]
    assert "augment.cutout.length" not in search
    assert choices == {
        "trials": "4",
        "run": "3 epochs x 2,000 images",
        "validation": "1,000 images",
        "early stopping": "none",
        "confirmation": "2 candidates x 1 seed",
        "batch size": "32 or 64",
        "schedule": "triangular or step",
        "cutout": "none",
    }


def test_a_longer_run_keeps_more_of_the_space() -> None:
    short, choices = shortened(
        load_space("resnet18_cifar"), epochs=20, train_images=FULL_IMAGES, validation_images=5000, trials=12
    )
    full = load_space("resnet18_cifar")
    assert short.search == full.search
    assert (short.base.data.train_limit, short.base.data.validation_size) == (None, 5000)
    assert set(choices) == {"trials", "run", "early stopping", "confirmation"}
    assert choices["early stopping"] == "asha, from epoch 4"


@pytest.mark.parametrize(
    ("epochs", "grace"), [(3, None), (5, None), (6, 3), (10, 4), (14, 6), (15, 3), (40, 8)]
)
def test_short_runs_are_not_stopped_on_noise(epochs: int, grace: int | None) -> None:
    short, _ = shortened(load_space("resnet18_cifar"), epochs=epochs, train_images=FULL_IMAGES)
    got = getattr(short.scheduler, "grace_epochs", None)
    assert got == grace


def test_a_space_without_early_stopping_stays_without() -> None:
    short, _ = shortened(spec(PLAIN, scheduler={"name": "none"}), epochs=20, train_images=FULL_IMAGES)
    assert short.scheduler.name == "none"


@pytest.mark.parametrize("trials", [2, 4, 6, 12])
def test_the_starting_points_cover_every_optimizer(trials: int) -> None:
    for name in ("resnet18_cifar", "resnet32_cifar"):
        short, _ = shortened(load_space(name), trials=trials)
        assert {point["optimizer"] for point in short.start_from} == {"sgd", "adam"}
        assert 2 <= len(short.start_from) <= max(2, trials // 3)


def test_learning_rates_follow_the_batch_size() -> None:
    short, _ = shortened(load_space("resnet18_cifar"))
    sgd, adam = short.to_dict()["search"]["optimizer"]
    assert sgd["lr"]["log_uniform"] == pytest.approx([0.01 / 4, 0.5 / 4])
    assert adam["lr"]["log_uniform"] == pytest.approx([1e-4 / 2, 1e-2 / 2])
    first, last = short.start_from
    assert (first["optimizer.sgd.lr"], last["optimizer.adam.lr"]) == pytest.approx((0.1 / 4, 1e-3 / 2))
    assert first["batch_size"] == last["batch_size"] == 32
    assert first["schedule"] == last["schedule"] == "triangular"


def test_every_kind_of_distribution_can_be_shortened() -> None:
    short, _ = shortened(spec(EVERY_KIND))
    assert {dimension.name for dimension in short.dimensions} >= {"batch_size", "optimizer", "schedule"}


def test_a_plain_learning_rate_is_scaled_too() -> None:
    short, _ = shortened(spec(PLAIN))
    assert short.to_dict()["search"]["optimizer.lr"]["log_uniform"] == pytest.approx([0.0025, 0.125])
    assert short.base.optimizer.lr == pytest.approx(0.025)


def test_small_batches_and_their_learning_rates_stay() -> None:
    search = {"optimizer.lr": {"log_uniform": [0.01, 0.5]}}
    short, choices = shortened(spec(PLAIN, base={**BASE, "batch_size": 16}, search=search))
    assert (short.base.batch_size, short.base.optimizer.lr) == (16, 0.1)
    assert short.to_dict()["search"] == search
    assert "batch size" not in choices


def test_two_unsuitable_schedules_become_one_of_the_base() -> None:
    search = {"schedule": [{"name": "cosine"}, {"name": "plateau"}], "clip_grad_norm": {"choice": [1.0, 2.0]}}
    short, choices = shortened(
        spec(PLAIN, search=search, start_from=[{"schedule": "plateau", "clip_grad_norm": 1.0}])
    )
    assert short.base.schedule.name == "triangular"
    assert short.start_from == ({"clip_grad_norm": 1.0},)
    assert choices["schedule"] == "triangular"


def test_an_own_triangular_schedule_keeps_its_settings() -> None:
    short, _ = shortened(load_space("resnet32_cifar"))
    assert short.to_dict()["search"]["schedule"][0] == {
        "name": "triangular",
        "peak_at": 0.2,
        "start_fraction": 0.2,
    }


def test_searched_lengths_are_fixed() -> None:
    search = {"epochs": {"choice": [9, 90]}, "batch_size": {"choice": [64, 128]}}
    short, _ = shortened(spec(search=search, start_from=[{"epochs": 90, "batch_size": 64}]))
    assert [dimension.name for dimension in short.dimensions] == ["batch_size"]
    assert short.start_from == ({"batch_size": 32},)
    short, _ = shortened(spec(base={**BASE, "epochs": None, "iterations": 64_000}))
    assert short.base.epochs == 3


def test_runs_of_full_length_stay_as_they_are() -> None:
    full = load_space("resnet18_cifar")
    same, choices = resized(
        full,
        size(trials=40, candidates=4, seeds=4, epochs=50, train_images=FULL_IMAGES, validation_images=5000),
        full_epochs=50,
        full_images=FULL_IMAGES,
    )
    assert (same, choices) == (full, ())


@pytest.mark.parametrize(
    "changes",
    [
        {"search": {"augment.cutout.length": {"choice": [0, 8]}}},
        {"search": {"schedule": [{"name": "cosine"}, {"name": "plateau"}]}},
        {
            "base": {**BASE, "schedule": {"name": "plateau"}},
            "search": {"schedule.factor": {"uniform": [0.1, 0.5]}},
        },
        {
            "base": {**BASE, "batch_size": 96},
            "search": {"clip_grad_norm": {"choice": [1.0, 2.0]}},
            "workers_per_trial": 3,
        },
    ],
    ids=["only cutout", "only schedules", "a setting of a schedule", "three workers"],
)
def test_an_adaptation_that_the_space_does_not_allow_is_omitted(changes: dict[str, Any]) -> None:
    full = spec(PLAIN, **changes)
    short, _ = shortened(full)
    assert short.search == full.search
    assert (short.trials, short.base.epochs, short.scheduler.name) == (4, 3, "none")


@pytest.mark.parametrize(
    ("before", "size", "after"),
    [
        ({}, (3, 3), "3 candidates, 2 to 9 runs"),
        ({}, (8, 8), "4 candidates, 2 to 16 runs"),
        ({"min_seeds": 5}, (2, 2), "2 candidates, 5 runs"),
        ({"confidence": 0.99}, (2, 1), "2 candidates x 1 seed"),
        ({"candidates": 3, "seeds": 3}, (4, 2), "3 candidates x 2 seeds"),
    ],
)
def test_a_shorter_confirmation_keeps_its_protocol_except_for_single_runs(
    before: dict[str, Any], size: tuple[int, int], after: str
) -> None:
    assert Confirm(**before).at_most(*size).text() == after
