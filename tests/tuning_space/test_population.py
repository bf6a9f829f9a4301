"""Population based training without Ray: what a space may ask for, and who takes over whom."""

from typing import Any

import pytest

from platform.errors import UsageError
from platform.tuning.distributions import Range
from platform.tuning.extension import extended
from platform.tuning.plan import make_plan
from platform.tuning.points import read_point
from platform.tuning.population import decide
from platform.tuning.quick import quick_variant
from platform.tuning.settings import Pbt
from platform.tuning.spec import SweepSpec
from tests.tuning_space.examples import BASE, spec

EXCHANGED: dict[str, Any] = {
    "search": {
        "optimizer": [
            {
                "name": "sgd",
                "lr": {"log_uniform": [0.01, 0.5]},
                "momentum": {"uniform": [0.5, 0.95]},
                "weight_decay": {"quantised": [0.0, 0.001, 0.0001]},
            },
            {"name": "adam", "lr": {"log_uniform": [1e-4, 1e-2]}},
        ],
        "schedule": [{"name": "plateau", "patience_epochs": {"int": [1, 3]}}, {"name": "constant"}],
        "augment.cutout.length": {"choice": [0, 4, 8]},
    },
    "scheduler": {"name": "pbt", "every_epochs": 3},
    "trials": 8,
}
SPACE = spec(**EXCHANGED)


def pbt(**changes: Any) -> Pbt:
    return Pbt.model_validate({"name": "pbt", **changes})


def params(lr: float, optimizer: str = "sgd") -> dict[str, Any]:
    inner = (
        {"optimizer.sgd.momentum": 0.9, "optimizer.sgd.weight_decay": 0.0005} if optimizer == "sgd" else {}
    )
    return {
        "optimizer": optimizer,
        f"optimizer.{optimizer}.lr": lr,
        **inner,
        "schedule": "plateau",
        "schedule.plateau.patience_epochs": 2,
        "augment.cutout.length": 4,
    }


POPULATION = {f"t{number:03d}": params(0.01 * (number + 1)) for number in range(8)}
RISING = {name: 0.1 * number for number, name in enumerate(POPULATION)}


def test_the_worst_quarter_takes_over_from_the_best_quarter() -> None:
    for epoch in range(3, 30, 3):
        found = decide(SPACE, pbt(), epoch=epoch, accuracies=RISING, params=POPULATION)
        assert set(found) == {"t000", "t001"}
        assert {source for source, _ in found.values()} <= {"t006", "t007"}


def test_decisions_come_out_the_same_and_differ_from_turn_to_turn() -> None:
    def found(epoch: int, **changes: Any) -> Any:
        space = spec(**EXCHANGED, **changes)
        return decide(space, pbt(), epoch=epoch, accuracies=RISING, params=POPULATION)

    assert found(3) == found(3)
    assert found(3) != found(6)
    assert found(3) != found(3, seed=1)


def test_nobody_takes_over_an_equal_and_a_survivor_stays_alone() -> None:
    equal = dict.fromkeys(POPULATION, 0.5)
    assert decide(SPACE, pbt(), epoch=3, accuracies=equal, params=POPULATION) == {}
    assert decide(SPACE, pbt(), epoch=3, accuracies={"t000": 0.1}, params=POPULATION) == {}


def test_even_a_population_of_two_exchanges() -> None:
    found = decide(SPACE, pbt(), epoch=3, accuracies={"t000": 0.1, "t001": 0.2}, params=POPULATION)
    assert {target: source for target, (source, _) in found.items()} == {"t000": "t001"}


@pytest.mark.parametrize("resample", [0.0, 1.0])
def test_settings_move_and_stay_within_the_space(resample: float) -> None:
    moved: set[float] = set()
    for epoch in range(60):
        found = decide(
            SPACE, pbt(resample_probability=resample), epoch=epoch, accuracies=RISING, params=POPULATION
        )
        for source, got in found.values():
            assert read_point(got, SPACE.search, SPACE.base) == got
            SPACE.resolve(got)
            assert got["optimizer"] == "sgd"
            before = POPULATION[source]
            moved.add(round(got["optimizer.sgd.lr"] / before["optimizer.sgd.lr"], 9))
            if not resample:
                assert got["schedule.plateau.patience_epochs"] in (1, 3)
                assert got["optimizer.sgd.weight_decay"] in (0.0004, 0.0006)
                assert got["augment.cutout.length"] in (0, 8)
    if resample:
        assert len(moved) > 20
    else:
        assert sorted(moved) == pytest.approx([1 / 1.2, 1.2])


def test_a_range_is_not_left_at_its_ends() -> None:
    node = next(d.node for d in SPACE.dimensions if d.name == "optimizer.sgd.lr")
    assert isinstance(node, Range)
    at_the_end = {name: params(0.5) for name in POPULATION}
    for epoch in range(20):
        found = decide(SPACE, pbt(resample_probability=0), epoch=epoch, accuracies=RISING, params=at_the_end)
        assert all(got["optimizer.sgd.lr"] <= node.high for _, got in found.values())


def test_the_settings_of_another_optimiser_are_taken_over_whole() -> None:
    mixed = {**POPULATION, "t006": params(0.001, "adam"), "t007": params(0.001, "adam")}
    found = decide(SPACE, pbt(), epoch=3, accuracies=RISING, params=mixed)
    for _, got in found.values():
        assert got["optimizer"] == "adam"
        assert not any(name.startswith("optimizer.sgd") for name in got)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"search": {"batch_size": {"choice": [64, 128]}, "model.name": {"choice": ["resnet20_cifar"]}}},
            r"scheduler\.name: pbt changes settings while a trial trains, and batch_size, model\.name cannot",
        ),
        ({"trials": 1}, r"scheduler\.name: pbt needs a population of trials, at least 2; got trials 1"),
        ({"base": {**BASE, "report": "best"}}, r"pbt needs base\.report: last"),
        ({"scheduler": {"name": "pbt", "every_epochs": 9}}, r"must be less than the run's epochs, got 9"),
        ({"scheduler": {"name": "pbt", "quantile": 0.6}}, r"scheduler\.quantile: .*0\.5"),
    ],
)
def test_what_cannot_be_exchanged_is_refused_with_the_file(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        spec(**{**EXCHANGED, **changes})


def test_the_plan_names_the_exchanges_and_saves_nothing() -> None:
    plan = make_plan(SPACE, {"CPU": 3, "GPU": 0})
    assert plan.rungs == (3, 6)
    assert plan.saved_share == 0
    assert [note.split(":")[0].split(" finds")[0] for note in plan.notes] == ["scheduler pbt"] * 2
    assert "8 trials take turns on 3 slots" in plan.notes[1]


def test_a_quick_sweep_exchanges_too() -> None:
    quick = quick_variant(SPACE)
    assert isinstance(quick.scheduler, Pbt)
    assert make_plan(quick, {"CPU": 2, "GPU": 0}).rungs == (1, 2)


def test_a_population_is_not_extended() -> None:
    space: SweepSpec = SPACE
    with pytest.raises(UsageError, match="a population trains side by side"):
        extended(space, 2)
