"""The size of a sweep for a given time, over a grid of speeds, machines and times."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest

from platform.common.errors import UsageError
from platform.space.space_files import load_space
from platform.space.spec import SweepSpec
from platform.tuning.planning.estimate import estimate_sweep
from platform.tuning.planning.plan import make_plan
from platform.tuning.planning.records import ImageCounts, Speed, TimeBudget
from platform.tuning.planning.time_budget import TooLittleTimeError, fit_to_time
from tests.space.examples import BASE, PLAIN, spec

IMAGES = ImageCounts(train=45_000, validation=5000, test=10_000)
MACHINES = {
    "one core": [{"CPU": 1.0, "GPU": 0.0}],
    "two cores": [{"CPU": 2.0, "GPU": 0.0}],
    "one GPU": [{"CPU": 16.0, "GPU": 1.0}],
    "cluster": [{"CPU": 8.0, "GPU": 0.0}] * 10,
}


def speed(images_per_s: float, processes: int = 2) -> Speed:
    return Speed(
        train_images_per_s=images_per_s, evaluation_images_per_s=3 * images_per_s, processes=processes
    )


def planned_s(fitted: SweepSpec, nodes: list[dict[str, float]], measured: Speed) -> float:
    """Return the estimate of a sweep of this size, made independently of the choice."""
    budget = TimeBudget(budget_s=1, used_before_s=0, choices=(), full_digest="")
    plan = make_plan(fitted, nodes, within=budget)
    data = fitted.base.data
    train = min(data.train_limit or IMAGES.train, IMAGES.train)
    counts = IMAGES.model_copy(update={"train": train, "validation": min(data.validation_size, train // 2)})
    return estimate_sweep(plan, measured, counts).wall_s


@pytest.mark.parametrize("space", ["resnet18_cifar", "small_networks"])
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("images_per_s", [60, 500, 20_000])
@pytest.mark.parametrize("budget_s", [300, 3600, 86_400])
def test_the_sweep_uses_the_time_and_does_not_exceed_it(
    space: str, machine: str, images_per_s: float, budget_s: float
) -> None:
    full, nodes, measured = load_space(space), MACHINES[machine], speed(images_per_s)
    if images_per_s == 60 and budget_s < 1200:
        with suppress(UsageError):  # too little time for some of these; another test covers the refusal
            fit_to_time(full, nodes, measured, IMAGES, available_s=budget_s)
        return
    fitted, choices = fit_to_time(full, nodes, measured, IMAGES, available_s=budget_s)
    took_s = planned_s(fitted, nodes, measured)
    assert took_s <= budget_s * 1.001
    if fitted == full:
        assert choices == ()
    else:
        assert choices
        # Whole epochs and whole confirmations make steps; more than a third is never left unused.
        assert took_s > 0.66 * budget_s
    passes = (fitted.base.epochs or 0) * min(fitted.base.data.train_limit or 45_000, 45_000)
    assert passes >= 1_900
    assert fitted.trials >= 2
    assert fitted.confirm.candidates >= 1


def test_more_time_never_gives_a_smaller_sweep() -> None:
    full = load_space("resnet32_cifar")
    sizes = []
    for minutes in (4, 5, 8, 15, 30, 60, 120, 300, 1000):
        fitted, _ = fit_to_time(full, MACHINES["two cores"], speed(500), IMAGES, available_s=60 * minutes)
        passes = (fitted.base.epochs or 0) * (fitted.base.data.train_limit or 45_000)
        sizes.append((fitted.trials * passes, fitted.confirm.runs(fitted.confirm.candidates)[1]))
    assert all(later[0] >= earlier[0] for earlier, later in pairwise(sizes)), sizes
    assert all(later[1] >= earlier[1] for earlier, later in pairwise(sizes)), sizes


def test_a_time_that_fits_the_whole_space_changes_nothing() -> None:
    full = load_space("resnet32_cifar")
    fitted, choices = fit_to_time(full, MACHINES["one GPU"], speed(50_000, 1), IMAGES, available_s=86_400)
    assert (fitted, choices) == (full, ())
    tiny = spec(PLAIN, trials=2, base={**BASE, "epochs": 1})
    few = IMAGES.model_copy(update={"train": 256})
    assert fit_to_time(tiny, MACHINES["one core"], speed(100), few, available_s=3600) == (tiny, ())


def test_too_little_time_is_refused_with_the_shortest_sensible_one() -> None:
    full = load_space("resnet18_cifar")
    with pytest.raises(TooLittleTimeError, match="cannot be swept in 1 min 00 s") as caught:
        fit_to_time(full, MACHINES["two cores"], speed(120), IMAGES, available_s=60)
    minutes = int(str(caught.value).split("give --within ")[1].split("min or more")[0])
    for available_s in (60.0 * minutes, caught.value.least_s):
        fitted, _ = fit_to_time(full, MACHINES["two cores"], speed(120), IMAGES, available_s=available_s)
        assert fitted.trials == 4


def test_a_small_space_is_never_enlarged() -> None:
    small = spec(PLAIN, trials=3, confirm={"candidates": 1, "seeds": 1})
    fitted, _ = fit_to_time(small, MACHINES["two cores"], speed(500), IMAGES, available_s=600)
    assert (fitted.trials, fitted.confirm.candidates, fitted.confirm.seeds) == (3, 1, 1)
    assert (fitted.base.epochs or 0) <= 9


@pytest.mark.parametrize(("seeds", "quick"), [(1, True), (2, False)])
def test_only_a_sweep_without_repeated_confirmation_is_quick(seeds: int, quick: bool) -> None:
    budget = TimeBudget(budget_s=300, used_before_s=5, choices=(), full_digest="abc")
    once = spec(PLAIN, confirm={"seeds": seeds})
    assert make_plan(once, [{"CPU": 2}], within=budget).quick == quick
    assert not make_plan(once, [{"CPU": 2}]).quick
