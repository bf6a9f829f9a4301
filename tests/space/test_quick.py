"""The quick variant of a sweep."""

from typing import Any

import pytest

from platform.space.quick import quick_variant
from platform.space.space_files import load_space
from tests.space.examples import BASE, EVERY_KIND, PLAIN, spec


def test_runs_are_short_but_have_enough_steps() -> None:
    quick = quick_variant(load_space("resnet18_cifar"))
    base = quick.base
    assert (quick.trials, base.epochs, base.data.train_limit, base.batch_size) == (4, 3, 2000, 32)
    assert (base.schedule.name, base.augment.cutout.length) == ("triangular", 0)
    assert quick.scheduler.name == "none"
    search = quick.to_dict()["search"]
    assert search["batch_size"] == {"choice": [32, 64]}
    assert [option["name"] for option in search["schedule"]] == ["triangular", "step"]
    assert "augment.cutout.length" not in search


def test_learning_rates_follow_the_batch_size() -> None:
    quick = quick_variant(load_space("resnet18_cifar"))
    sgd, adam = quick.to_dict()["search"]["optimizer"]
    assert sgd["lr"]["log_uniform"] == pytest.approx([0.01 / 4, 0.5 / 4])
    assert adam["lr"]["log_uniform"] == pytest.approx([1e-4 / 2, 1e-2 / 2])
    first, last = quick.start_from
    assert (first["optimizer.sgd.lr"], last["optimizer.adam.lr"]) == pytest.approx((0.1 / 4, 1e-3 / 2))
    assert first["batch_size"] == last["batch_size"] == 32
    assert first["schedule"] == last["schedule"] == "triangular"


def test_every_kind_of_distribution_has_a_quick_variant() -> None:
    quick = quick_variant(spec(EVERY_KIND))
    assert {dimension.name for dimension in quick.dimensions} >= {"batch_size", "optimizer", "schedule"}


def test_a_plain_learning_rate_is_scaled_too() -> None:
    quick = quick_variant(spec(PLAIN))
    assert quick.to_dict()["search"]["optimizer.lr"]["log_uniform"] == pytest.approx([0.0025, 0.125])
    assert quick.base.optimizer.lr == pytest.approx(0.025)


def test_small_batches_and_their_learning_rates_stay() -> None:
    search = {"optimizer.lr": {"log_uniform": [0.01, 0.5]}}
    quick = quick_variant(spec(PLAIN, base={**BASE, "batch_size": 16}, search=search))
    assert (quick.base.batch_size, quick.base.optimizer.lr) == (16, 0.1)
    assert quick.to_dict()["search"] == search


def test_two_unsuitable_schedules_become_one_of_the_base() -> None:
    search = {"schedule": [{"name": "cosine"}, {"name": "plateau"}], "clip_grad_norm": {"choice": [1.0, 2.0]}}
    quick = quick_variant(
        spec(PLAIN, search=search, start_from=[{"schedule": "plateau", "clip_grad_norm": 1.0}])
    )
    assert quick.base.schedule.name == "triangular"
    assert quick.start_from == ({"clip_grad_norm": 1.0},)


def test_a_quick_sweep_is_never_larger_than_the_space() -> None:
    base = {**BASE, "epochs": 2, "data": {"name": "cifar10", "train_limit": 500}}
    quick = quick_variant(spec(PLAIN, base=base, trials=2))
    assert (quick.trials, quick.base.epochs, quick.base.data.train_limit) == (2, 2, 500)


def test_searched_lengths_are_fixed() -> None:
    search = {"epochs": {"choice": [9, 90]}, "batch_size": {"choice": [64, 128]}}
    quick = quick_variant(spec(search=search, start_from=[{"epochs": 90, "batch_size": 64}]))
    assert [dimension.name for dimension in quick.dimensions] == ["batch_size"]
    assert quick.start_from == ({"batch_size": 32},)
    assert quick_variant(spec(base={**BASE, "epochs": None, "iterations": 64_000})).base.epochs == 3


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
def test_a_change_that_the_space_does_not_allow_is_omitted(changes: dict[str, Any]) -> None:
    full = spec(PLAIN, **changes)
    quick = quick_variant(full)
    assert quick.search == full.search
    assert (quick.trials, quick.base.epochs, quick.scheduler.name) == (4, 3, "none")
