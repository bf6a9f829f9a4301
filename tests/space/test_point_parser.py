# ruff: noqa: E501 - a table of cases reads best one to a line
"""Parsing points: flat, nested, mixed, incomplete and invalid ones."""

from typing import Any

import pytest

from platform.common.errors import UsageError
from platform.space.distributions import Scalar
from platform.space.point_parser import OutsideSpaceError, read_point
from platform.space.spec import SweepSpec
from platform.space.tree_checks import value_at
from tests.space.examples import BASE, EVERY_KIND, spec

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
def test_flat_nested_and_mixed_points_are_equivalent(point: dict[str, Any]) -> None:
    found = flat(point, spec(EVERY_KIND))
    assert found == SGD_STEP
    assert list(found) == list(SGD_STEP)


def test_an_empty_point_takes_all_values_from_the_base() -> None:
    assert flat({}, spec()) == {"batch_size": 128, "optimizer.lr": 0.1}


def test_a_value_with_rounding_error_is_snapped_to_its_step() -> None:
    space = spec(search={"label_smoothing": {"quantized": [0.0, 0.5, 0.1]}})
    assert flat({"label_smoothing": 0.1 + 0.2}, space) == {"label_smoothing": 0.3}


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"batch_size": 100}, "batch_size: 100 is not one of 64, 128, 256"),
        ({"batch_size": True}, "batch_size: True is not one of"),
        ({"optimizer": "rmsprop"}, "optimizer: 'rmsprop' is not one of sgd, adam"),
        ({"optimizer": {"name": "adamw", "lr": 1e-3}}, "optimizer: 'adamw' is not one of sgd, adam"),
        ({"optimizer": {"name": "adam"}}, "optimizer.adam.lr: missing; expected 0.0001 to 0.01, log scale"),
        ({"optimizer": {"name": "adam", "lr": 1}}, "optimizer.adam.lr: must be in the range 0.0001 to 0.01, log scale; got 1"),
        ({"optimizer": {"name": "adam", "lr": "a"}}, "optimizer.adam.lr: must be a number in the range 0.0001 to 0.01, log scale; got 'a'"),
        ({"optimizer": "adam", "optimizer.sgd.lr": 0.1, "optimizer.adam.lr": 1e-3}, "optimizer.sgd.lr: belongs to an alternative that is not chosen"),
        ({"optimizer": {"name": "adam", "lr": 1e-3, "beta1": 0.8}}, "optimizer.beta1: the space fixes this setting to 0.9; got 0.8"),
        ({"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 2.5e-5}}, "optimizer.sgd.weight_decay: must be in the range 0 to 0.001 in steps of 0.0001; got 2.5e-05"),
        ({"schedule": {"name": "step", "milestones": [0.4]}}, "schedule: the values match no alternative of"),
        ({"schedule": {"name": "plateau", "patience_epochs": 2.5}}, "schedule.plateau.patience_epochs: must be in the range 1 to 20, integer, log scale; got 2.5"),
        ({"augment": {"cutout": {"length": 9}}}, "augment: the values match no alternative of 1, 2"),
        ({"batch_sise": 64}, "batch_sise: unknown setting (did you mean 'batch_size'?)"),
        ({"epochs": 3}, "epochs: the space fixes this setting to 9; got 3"),
    ],
)  # fmt: skip
def test_a_point_outside_the_space_is_refused_with_the_setting_at_fault(
    point: dict[str, Any], message: str
) -> None:
    nested = {
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
        "augment": {"crop_padding": 4, "cutout": {"holes": 2}},
    }
    with pytest.raises(OutsideSpaceError) as caught:
        flat({**nested, **point}, spec(EVERY_KIND))
    assert f"{caught.value.path}: {caught.value}".startswith(message)


def test_a_base_value_outside_the_space_is_not_used() -> None:
    space = spec(search={"batch_size": {"choice": [64, 256]}, "optimizer.lr": {"uniform": [0.1, 0.2]}})
    with pytest.raises(OutsideSpaceError, match="missing, and the base is outside the space: 128") as caught:
        flat({"optimizer.lr": 0.1}, space)
    assert caught.value.path == "batch_size"


def test_starting_points_are_stored_flat_and_complete() -> None:
    points = [{"batch_size": 256}, {"optimizer": {"lr": 0.2}}]
    assert spec(start_from=points).start_from == (
        {"batch_size": 256, "optimizer.lr": 0.1},
        {"batch_size": 128, "optimizer.lr": 0.2},
    )


def test_all_invalid_starting_points_are_reported() -> None:
    points = [{"batch_size": 3}, {"optimizer.lr": 0.2}, {"optimizer": {"lr": 7}}]
    with pytest.raises(UsageError) as caught:
        spec(start_from=points)
    assert str(caught.value).splitlines() == [
        "file.yaml: start_from.1.batch_size: 3 is not one of 128, 256",
        "file.yaml: start_from.3.optimizer.lr: must be in the range 0.01 to 0.5, log scale; got 7",
    ]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"batch_size": 128}, "the parameter 'optimizer.lr' is missing"),
        (
            {"batch_size": 128, "optimizer.lr": 0.1, "optimizer.le": 1},
            "unknown parameter 'optimizer.le'",
        ),
        ({"batch_size": 127, "optimizer.lr": 0.1}, "batch_size: 127 is not one of"),
        (
            {"batch_size": 128, "optimizer.lr": 0.6},
            "optimizer.lr: must be in the range 0.01 to 0.5, log scale; got 0.6",
        ),
    ],
)
def test_resolve_refuses_invalid_parameters(params: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        spec().resolve(params)


def test_an_alternative_replaces_exactly_its_section() -> None:
    options = [{"name": "sgd", "lr": 0.5}, {"name": "adam", "lr": {"uniform": [0.1, 0.2]}}]
    space = spec(search={"optimizer": options}, base={**BASE, "augment": {"flip": False}})
    run = space.resolve({"optimizer": "sgd"}, seed=5)
    expected = space.base.changed(optimizer={"name": "sgd", "lr": 0.5}, seed=5)
    assert run == expected, "the base's nesterov and weight decay are not inherited"
    assert space.resolve({"optimizer": "adam", "optimizer.adam.lr": 0.1}).optimizer.name == "adam"


IMAGES = {
    **BASE,
    "data": {"name": "image_folder", "image_size": 64},
    "augment": {"crop_padding": 0, "shorter_side": [64, 96]},
}


@pytest.mark.parametrize(
    ("base", "path", "off", "on"),
    [
        (BASE, "augment.cutmix", 0, 1.0),
        (BASE, "augment.mixup", 0, 0.2),
        (BASE, "clip_grad_norm", None, 1.0),
        (BASE, "model.shortcut", None, "A"),
        (IMAGES, "augment.color", None, 0.1),
        (IMAGES, "data.image_size", None, 32),
    ],
)
def test_a_setting_may_be_searched_with_the_value_that_turns_it_off(
    base: dict[str, Any], path: str, off: Any, on: Any
) -> None:
    if path == "data.image_size":  # null means 224
        base = {**base, "augment": {"crop_padding": 0, "shorter_side": [256, 480]}}
    space = spec(base=base, search={path: {"choice": [off, on]}})
    label = "null" if off is None else off
    assert flat({path: off}, space) == {path: label}
    assert value_at(space.resolve({path: label}).all_values(), path) == off
    nearby = spec(base=base, search={"batch_size": {"choice": [32, 64]}})
    kept = value_at(nearby.base.all_values(), path)
    assert flat({"batch_size": 32, path: kept}, nearby) == {"batch_size": 32}
