# ruff: noqa: E501 - a table of cases reads best one to a line
"""Points written by people: flat, nested, mixed, incomplete, wrong."""

from typing import Any

import pytest

from platform.errors import UsageError
from platform.space.distributions import Scalar
from platform.space.point_parser import OutsideSpaceError, read_point
from platform.space.spec import SweepSpec
from tests.space.examples import BASE, EVERY_KIND, PLAIN, spec

SGD_STEP = {
    "batch_size": 256,
    "optimizer": "sgd",
    "optimizer.sgd.lr": 0.2,
    "optimizer.sgd.momentum": 0.9,
    "optimizer.sgd.weight_decay": 0.0005,
    "schedule": "step_3",
    "augment": "1",
    "augment.1.crop_padding": 2,
    "augment.1.cutout": "2",
    "clip_grad_norm": "null",
}


def flat(point: dict[str, Any], space: SweepSpec) -> dict[str, Scalar]:
    return read_point(point, space.search, space.base)


@pytest.mark.parametrize(
    "point",
    [
        SGD_STEP,
        {
            "batch_size": 256,
            "optimizer": {"name": "sgd", "lr": 0.2, "momentum": 0.9, "weight_decay": 5e-4},
            "schedule": {"name": "step", "milestones": [0.3]},
            "augment": {"crop_padding": 2, "cutout": {"holes": 2}},
            "clip_grad_norm": None,
        },
        {
            "batch_size": 256,
            "optimizer.name": "sgd",
            "optimizer.lr": 0.2,
            "optimizer": {"momentum": 0.9},
            "optimizer.sgd.weight_decay": 5e-4,
            "schedule": "step_3",
            "augment": {"crop_padding": 2},
            "augment.cutout.holes": 2,
        },
    ],
    ids=["flat", "nested", "mixed"],
)
def test_every_way_to_write_a_point_means_the_same(point: dict[str, Any]) -> None:
    found = flat(point, spec(EVERY_KIND))
    assert found == SGD_STEP
    assert list(found) == list(SGD_STEP)


def test_the_base_itself_is_a_point_where_the_space_holds_it() -> None:
    assert flat({}, spec()) == {"batch_size": 128, "optimizer.lr": 0.1}


def test_a_step_written_with_rounding_noise_is_the_step() -> None:
    space = spec(search={"label_smoothing": {"quantized": [0.0, 0.5, 0.1]}})
    assert flat({"label_smoothing": 0.1 + 0.2}, space) == {"label_smoothing": 0.3}


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"batch_size": 100}, "batch_size: 100 is not one of 64, 128, 256"),
        ({"batch_size": True}, "batch_size: True is not one of"),
        ({"optimizer": "rmsprop"}, "optimizer: 'rmsprop' is not one of sgd, adam"),
        ({"optimizer": {"name": "adamw", "lr": 1e-3}}, "optimizer: 'adamw' is not one of sgd, adam"),
        ({"optimizer": {"name": "adam"}}, "optimizer.adam.lr: is missing; give one of 0.0001 to 0.01, log scale"),
        ({"optimizer": {"name": "adam", "lr": 1}}, "optimizer.adam.lr: 1 lies outside 0.0001 to 0.01"),
        ({"optimizer": {"name": "adam", "lr": "a"}}, "optimizer.adam.lr: 'a' is not a number"),
        ({"optimizer": "adam", "optimizer.sgd.lr": 0.1, "optimizer.adam.lr": 1e-3}, "optimizer.sgd.lr: belongs to an alternative that the point does not choose"),
        ({"optimizer": {"name": "adam", "lr": 1e-3, "beta1": 0.8}}, "optimizer.beta1: 0.8 lies outside the space, which fixes it at 0.9"),
        ({"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 2.5e-5}}, "optimizer.sgd.weight_decay: 2.5e-05 is not a step of"),
        ({"schedule": {"name": "step", "milestones": [0.4]}}, "schedule: fits none of the alternatives"),
        ({"schedule": {"name": "plateau", "patience_epochs": 2.5}}, "schedule.plateau.patience_epochs: 2.5 is not a whole number"),
        ({"augment": {"cutout": {"length": 9}}}, "augment: fits none of the alternatives 1, 2"),
        ({"batch_sise": 64}, "batch_sise: unknown setting (did you mean 'batch_size'?)"),
        ({"epochs": 3}, "epochs: 3 lies outside the space, which fixes it at 9"),
    ],
)  # fmt: skip
def test_a_point_outside_the_space_is_refused_with_the_setting(point: dict[str, Any], message: str) -> None:
    nested = {
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
        "augment": {"crop_padding": 4, "cutout": {"holes": 2}},
    }
    with pytest.raises(OutsideSpaceError) as caught:
        flat({**nested, **point}, spec(EVERY_KIND))
    assert f"{caught.value.path}: {caught.value}".startswith(message)


def test_a_base_outside_the_space_does_not_fill_a_gap() -> None:
    space = spec(search={"batch_size": {"choice": [64, 256]}, "optimizer.lr": {"uniform": [0.1, 0.2]}})
    with pytest.raises(
        OutsideSpaceError, match="is missing, and the base's value will not do: 128"
    ) as caught:
        flat({"optimizer.lr": 0.1}, space)
    assert caught.value.path == "batch_size"


def test_starting_points_are_kept_flat_and_complete() -> None:
    points = [{"batch_size": 256}, {"optimizer": {"lr": 0.2}}]
    assert spec(start_from=points).start_from == (
        {"batch_size": 256, "optimizer.lr": 0.1},
        {"batch_size": 128, "optimizer.lr": 0.2},
    )


def test_every_wrong_starting_point_is_named() -> None:
    points = [{"batch_size": 3}, {"optimizer.lr": 0.2}, {"optimizer": {"lr": 7}}]
    with pytest.raises(UsageError) as caught:
        spec(start_from=points)
    assert str(caught.value).splitlines() == [
        "file.yaml: start_from.1.batch_size: 3 is not one of 128, 256",
        "file.yaml: start_from.3.optimizer.lr: 7 lies outside 0.01 to 0.5, log scale",
    ]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"batch_size": 128}, "the parameter 'optimizer.lr' is missing"),
        (
            {"batch_size": 128, "optimizer.lr": 0.1, "optimizer.le": 1},
            "the parameter 'optimizer.le' does not exist",
        ),
        ({"batch_size": 127, "optimizer.lr": 0.1}, "batch_size: 127 is not one of"),
        ({"batch_size": 128, "optimizer.lr": 0.6}, "optimizer.lr: 0.6 lies outside"),
    ],
)
def test_wrong_parameters_are_not_resolved(params: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        spec().resolve(params)


def test_an_alternative_replaces_its_section_and_nothing_else() -> None:
    options = [{"name": "sgd", "lr": 0.5}, {"name": "adam", "lr": {"uniform": [0.1, 0.2]}}]
    space = spec(search={"optimizer": options}, base={**BASE, "augment": {"flip": False}})
    run = space.resolve({"optimizer": "sgd"}, seed=5)
    expected = space.base.changed(optimizer={"name": "sgd", "lr": 0.5}, seed=5)
    assert run == expected, "the base's nesterov and weight decay are not inherited"
    assert space.resolve({"optimizer": "adam", "optimizer.adam.lr": 0.1}).optimizer.name == "adam"


def test_the_plain_example_has_no_points() -> None:
    assert spec(PLAIN).start_from == ()
