# ruff: noqa: E501 - a table of cases reads best one to a line
"""The errors of an invalid sweep specification."""

from collections.abc import Callable
from typing import Any

import pytest

from platform.common.errors import UsageError
from platform.space.spec import SweepSpec
from tests.space.examples import BASE, EVERY_KIND, PLAIN, spec


def refused(document: dict[str, Any] = PLAIN, **changes: Any) -> list[str]:
    with pytest.raises(UsageError) as caught:
        spec(document, **changes)
    lines = str(caught.value).splitlines()
    assert all(line.startswith("file.yaml: ") for line in lines)
    return [line.removeprefix("file.yaml: ") for line in lines]


def searching(**search: Any) -> list[str]:
    return refused(search=search)


def test_the_examples_are_valid() -> None:
    assert len(spec().dimensions) == 2
    assert [dimension.name for dimension in spec(EVERY_KIND).dimensions] == [
        "batch_size",
        "optimizer",
        "optimizer.sgd.lr",
        "optimizer.sgd.momentum",
        "optimizer.sgd.weight_decay",
        "optimizer.adam.lr",
        "schedule",
        "schedule.step.milestones",
        "schedule.plateau.patience_epochs",
        "augment",
        "augment.1.crop_padding",
        "augment.1.cutout",
        "augment.1.cutout.1.length",
        "augment.2.mixup",
        "augment.2.flip",
        "clip_grad_norm",
    ]


@pytest.mark.parametrize(
    ("path", "node", "message"),
    [
        ("batch_size", {"choice": []}, "choice needs a non-empty list of values, got []"),
        ("batch_size", {"choice": 128}, "choice needs a non-empty list of values, got 128"),
        ("batch_size", {"choice": [128, 128]}, "choice has duplicate values: 128"),
        ("optimizer.lr", {"choice": [float("nan"), 0.1]}, "choice needs finite numbers, got nan"),
        ("batch_size", {"choice": [128, 0]}, "Input should be greater than 0, got 0"),
        ("batch_size", {"choice": [128, "64"]}, "write 64 instead of '64'"),
        ("batch_size", {"choice": [128, 64.5]}, "got a number with a fractional part, got 64.5"),
        ("batch_size", {"uniform": [64, 512]}, "fractional part"),
        ("batch_size", {"int": [64.5, 512]}, "int needs integers"),
        ("batch_size", {"int": [0, 512]}, "Input should be greater than 0, got 0"),
        ("batch_size", {"quantized": [64, 512]}, "quantized needs 3 finite numbers, [low, high, step]"),
        ("batch_size", {"quantized": [64, 512, 0]}, "0 < step"),
        ("batch_size", {"quantized": [64, 512, 500]}, "0 < step <= high - low"),
        ("optimizer.lr", {"quantized": [0, 1e308, 1e-300]}, "quantized allows at most 1e+15 steps"),
        ("optimizer.lr", {"uniform": [-1e308, 1e308]}, "Input should be greater than 0"),
        ("batch_size", {"int": [64, 2**62]}, "Input should be less than or equal to 1000000"),
        ("batch_size", {"int": [64, 512], "step": 2}, "'int' must be the only key, got also 'step'"),
        ("batch_size", 128, "fixed values belong in 'base', got 128"),
        ("batch_size", [128, 256], "fixed values belong in 'base', got [128, 256]"),
        ("batch_size", {}, "is empty"),
        ("batch_siz", {"choice": [128]}, "unknown key (did you mean 'batch_size'?)"),
        ("optimizer.lr", {"log_uniform": [0, 1]}, "log_uniform needs low > 0"),
        ("optimizer.lr", {"log_uniform": [0.5, 0.1]}, "log_uniform needs low < high"),
        (
            "optimizer.lr",
            {"log_uniform": [0.1]},
            "log_uniform needs 2 finite numbers, [low, high]; got [0.1]",
        ),
        ("optimizer.lr", {"log_uniform": [0.1, "b"]}, "2 finite numbers"),
        ("optimizer.lr", {"uniform": [0.1, float("inf")]}, "2 finite numbers"),
        ("optimizer.lr", {"uniform": [False, True]}, "2 finite numbers"),
        ("optimizer.lr", {"uniform": [0, 1]}, "Input should be greater than 0, got 0.0"),
        (
            "optimizer.lr",
            {"log_unifrom": [0.1, 1]},
            "unknown distribution 'log_unifrom' (did you mean 'log_uniform'?)",
        ),
        ("optimizer.momentum", {"uniform": [0.5, 1]}, "Input should be less than 1, got 1.0"),
        ("optimizer.beta1", {"uniform": [0, 0.9]}, "unknown key"),
        ("augment.flip", {"int": [0, 1]}, "write False instead of 0"),
        (
            "precision",
            {"choice": ["fp32", "bf61"]},
            "'bf61' is not one of auto, fp32, bf16 (did you mean 'bf16'?)",
        ),
        ("seed", {"int": [0, 9]}, "cannot be searched: every trial's seed is derived"),
        ("data.split_seed", {"int": [0, 9]}, "cannot be searched: trials are only comparable"),
        ("iterations", {"choice": [100, 200]}, "set exactly one of 'epochs' and 'iterations'"),
        ("augment", {"choice": [{"flip": True}]}, "must not be sections; use a list of alternatives"),
    ],
)
def test_an_invalid_distribution_is_refused_with_its_path(path: str, node: Any, message: str) -> None:
    where, _, text = searching(**{path: node})[0].partition(": ")
    assert message in text
    assert where in (f"search.{path}", "search")


@pytest.mark.parametrize("search", [{}, None, [1], "x"])
def test_a_search_that_is_not_a_section_is_refused(search: Any) -> None:
    (line,) = refused(search=search)
    assert line.startswith(f"search: must be a section of settings, got {search!r}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            [{"name": "sdg", "lr": 0.1}, {"name": "adam", "lr": 0.1}],
            "search.optimizer.sdg: name 'sdg' is not one of",
        ),
        ([{"name": "sgd"}, {"name": "adam", "lr": 0.1}], "search.optimizer.sgd.lr: Field required"),
        (
            [{"name": "sgd", "lr": 0.1}, {"name": "adam", "lr": {"uniform": [0.1, 0.2]}, "beta3": 1}],
            "search.optimizer.adam.beta3: unknown key (did you mean 'beta",
        ),
        (
            [{"name": "sgd", "lr": {"uniform": [0, 1]}}, {"name": "adam", "lr": 0.1}],
            "search.optimizer.sgd.lr: Input should be greater than 0, got 0.0",
        ),
        (
            [{"name": "sgd", "lr": 0.1}, {"name": "sgd", "lr": -0.1}],
            "search.optimizer.sgd_2.lr: Input should be greater than 0",
        ),
        ([{"name": "sgd", "lr": 0.1}], "search.optimizer: a list of alternatives needs at least two"),
        (
            [{"name": "sgd", "lr": 0.1}, "adam"],
            "search.optimizer.2: an alternative must be a section of settings",
        ),
    ],
)
def test_an_invalid_alternative_is_refused_with_its_path(options: list[Any], message: str) -> None:
    (line,) = searching(optimizer=options)
    assert line.startswith(message)


def test_errors_in_nested_alternatives_have_their_full_path() -> None:
    nested = [{"cutout": [{"length": {"int": [-4, 4]}}, {"hole": 2}]}, {"mixup": 0.2}]
    assert searching(augment=nested) == [
        "search.augment.1.cutout.2.hole: unknown key (did you mean 'holes'?)",
        "search.augment.1.cutout.1.length: Input should be greater than or equal to 0, got -4",
    ]


def test_settings_that_exclude_each_other_are_refused() -> None:
    (line,) = searching(
        **{"optimizer.nesterov": {"choice": [False, True]}, "optimizer.momentum": {"choice": [0.9, 0.0]}}
    )
    assert "nesterov needs momentum above 0" in line
    (line,) = searching(**{"optimizer.momentum": {"uniform": [0.0, 0.9]}})
    assert "nesterov needs momentum above 0" in line, "the base's nesterov forbids it"


def test_a_setting_that_overlaps_with_alternatives_is_refused() -> None:
    options = [{"name": "sgd", "lr": 0.1}, {"name": "adam", "lr": 0.1}]
    lines = searching(optimizer=options, **{"optimizer.lr": {"uniform": [0.1, 0.2]}})
    expected = "search.optimizer.lr: overlaps with 'optimizer'; set it inside each alternative of 'optimizer'"
    assert lines[0] == expected


def test_a_setting_given_both_dotted_and_nested_is_refused() -> None:
    length = {"choice": [0, 8]}
    (line,) = searching(**{"augment.cutout.length": length, "augment": {"cutout": {"length": length}}})
    assert line == "search.augment.cutout.length: duplicate setting"


def test_errors_in_base_and_search_are_reported_together() -> None:
    base = {**BASE, "epochs": -1}
    options = [{"name": "sgd", "lr": {"uniform": [0, 1]}}, {"name": "adam", "lr": 0.1}]
    lines = refused(base=base, search={"optimizer": options, "batch_size": {"choice": [0]}})
    assert [line.partition(":")[0] for line in lines] == [
        "base.epochs",
        "search.optimizer.sgd.lr",
        "search.batch_size",
    ]


def test_an_invalid_base_causes_no_errors_in_a_valid_search() -> None:
    base = {**BASE, "optimizer": {"name": "adam", "lr": -1}}
    (line,) = refused(base=base, search={"optimizer.beta1": {"uniform": [0.8, 0.99]}})
    assert line.startswith("base.optimizer.lr")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workers_per_trial": 3}, "workers_per_trial: every batch size must be divisible by the number of workers, 3; got 128, 256"),
        ({"confirm": {"seeds": 3, "max_runs": 8}}, "confirm: seeds sets the number of runs of every candidate, so max_runs would have no effect; omit either"),
        ({"confirm": {"min_seeds": 5, "max_runs": 4}}, "confirm: max_runs must be at least min_seeds, got 4 and 5"),
        ({"confirm": {"workers_per_run": 3}}, "confirm.workers_per_run: every batch size must be divisible"),
        ({"final": {"workers_per_run": 256}}, "final.workers_per_run: every batch size must be divisible by the number of workers, 256; got 128"),
        ({"workers_per_trial": 2, "backend": "inproc"}, "backend: 'inproc' runs one worker per trial"),
        (
            {"workers_per_trial": 2, "resources_per_worker": {"GPU": 0.5}},
            "resources_per_worker.GPU must be 0 or whole when a trial has several workers, since NCCL",
        ),
        ({"resources_per_worker": {"GPU": 1.5}}, "resources_per_worker: GPU must be below 1 or a whole number"),
        ({"resources_per_worker": {"CPU": 0, "GPU": 0}}, "resources_per_worker: a worker needs some CPU or GPU"),
        ({"scheduler": {"name": "asha", "grace_epochs": 10}}, "scheduler.grace_epochs: must not exceed the run's epochs, got 10 > 9"),
        ({"scheduler": {"grace_epochs": 1}}, "scheduler: the key 'name' is missing"),
        ({"scheduler": {"name": "ahsa"}}, "scheduler: name 'ahsa' is not one of asha, median, none (did you mean 'asha'?)"),
        ({"scheduler": {"name": "pbt", "every_epochs": 5}}, "scheduler: name 'pbt' is not one of asha, median, none"),
        (
            {"sampler": {"name": "qmc"}, "search": {"optimizer": [{"name": "sgd", "lr": {"uniform": [0.1, 0.2]}}, {"name": "adam", "lr": 0.001}]}},
            "sampler: qmc does not support settings inside alternatives, and optimizer.sgd.lr depends on optimizer = sgd; use random or tpe",
        ),
        ({"sampler": {"name": "tpe", "startup": 3}}, "sampler.startup: unknown key (did you mean 'startup_trials'?)"),
        ({"name": "a/b"}, "name: String should match pattern"),
        ({"start_from": {"batch_size": 128}}, "start_from: must be a list of points"),
    ],
)  # fmt: skip
def test_an_invalid_setting_is_refused(changes: dict[str, Any], message: str) -> None:
    (line,) = refused(**changes)
    assert line.startswith(message)


@pytest.mark.parametrize(
    ("node", "fits"),
    [
        ({"int": [64, 512]}, False),
        ({"quantized": [64, 512, 64]}, True),
        ({"quantized": [65, 129, 64]}, False),
    ],
)
def test_searched_batch_sizes_must_be_divisible_by_the_workers(node: Any, fits: bool) -> None:
    if fits:
        assert spec(search={"batch_size": node}, workers_per_trial=2).workers_per_trial == 2
    else:
        (line,) = refused(search={"batch_size": node}, workers_per_trial=2)
        assert line.startswith("workers_per_trial: every batch size must be divisible")


def test_each_error_is_reported_once() -> None:
    document = {
        **PLAIN,
        "base": {**BASE, "epoch": 3},
        "search": {"batch_size": {"choice": [0, 128, 256]}, "optimizer.lr": {"uniform": [0.1, 0.2]}},
        "trials": "many",
    }
    assert len(refused(document)) == 3


def test_a_spec_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        spec().trials = 3
    assert isinstance(spec(), SweepSpec)


@pytest.mark.parametrize("too_large", [2**32, 10**30])
@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("seed", lambda seed: {"seed": seed}),
        ("base.seed", lambda seed: {"base": {**BASE, "seed": seed}}),
        ("base.data.split_seed", lambda seed: {"base": {**BASE, "data": {"split_seed": seed}}}),
        ("sampler.seed", lambda seed: {"sampler": {"name": "random", "seed": seed}}),
    ],
)
def test_a_seed_has_at_most_32_bits(
    path: str, changes: Callable[[int], dict[str, Any]], too_large: int
) -> None:
    spec(**changes(2**32 - 1))
    assert refused(**changes(too_large)) == [f"{path}: Input should be less than 4294967296"]


@pytest.mark.parametrize(
    "search",
    [
        {"optimizer.weight_decay": {"choice": [index / 1e6 for index in range(50_000)]}},
        {"optimizer": [{"name": "sgd", "lr": (index + 1) / 1e6} for index in range(50_000)]},
    ],
)
def test_a_space_with_too_many_values_is_refused_with_their_number(search: dict[str, Any]) -> None:
    (line,) = refused(search=search)
    assert line.startswith(
        "search: may list at most 1,000 values in choices and alternatives, got 50,000; use"
    )


def test_large_spaces_are_not_expanded() -> None:
    """Each of these has at least a million points; expanding them would exceed the time limit of a test."""
    choices = {"choice": [(index + 1) / 1e6 for index in range(490)]}
    spec(search={"optimizer.weight_decay": choices, "optimizer.lr": choices})
    spec(search={"optimizer.weight_decay": {"quantized": [0, 0.2, 1e-12]}})
    (line,) = refused(search={"batch_size": {"quantized": [2, 10**6, 2]}}, workers_per_trial=30)
    assert line.endswith("divisible by the number of workers, 30; got 2, 4, 6, 8, 10, ...")
    assert spec(search={"batch_size": {"quantized": [30, 900_000, 30]}}, workers_per_trial=30)


def test_a_value_that_turns_a_setting_off_is_checked_with_its_neighbors_in_a_large_space() -> None:
    momenta = [index / 1000 for index in range(1, 400)]
    momenta.insert(201, 0)
    (line,) = searching(
        **{"optimizer.momentum": {"choice": momenta}, "optimizer.nesterov": {"choice": [True, False]}}
    )
    assert "nesterov needs momentum above 0" in line


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("base.augment.crop_padding", {"base": {**BASE, "augment": {"crop_padding": 100_000}}}),
        ("base.augment.cutout.holes", {"base": {**BASE, "augment": {"cutout": {"holes": 10**8}}}}),
        ("base.augment.mixup", {"base": {**BASE, "augment": {"mixup": 1e300}}}),
        ("base.batch_size", {"base": {**BASE, "batch_size": 1e20}}),
        ("base.epochs", {"base": {**BASE, "epochs": 10**12}}),
        ("base.data.image_size", {"base": {**BASE, "data": {"image_size": 10**6}}}),
        ("trials", {"trials": 10**9}),
        ("workers_per_trial", {"workers_per_trial": 10**9}),
        ("confirm.candidates", {"confirm": {"candidates": 10**9}}),
        ("confirm.seeds", {"confirm": {"seeds": 10**9}}),
        ("scheduler.reduction_factor", {"scheduler": {"name": "asha", "reduction_factor": 1e300}}),
        ("scheduler.reduction_factor", {"scheduler": {"name": "asha", "reduction_factor": 1 + 1e-9}}),
    ],
)
def test_sizes_have_limits(path: str, changes: dict[str, Any]) -> None:
    (line,) = refused(**changes)
    assert line.startswith(f"{path}: Input should be ")
