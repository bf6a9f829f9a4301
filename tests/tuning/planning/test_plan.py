# ruff: noqa: E501 - one line per case
from typing import Any

import numpy as np
import pytest

from platform.common.errors import UsageError
from platform.space.settings import Asha, WorkerResources
from platform.space.space_files import load_space
from platform.tuning.planning.capacity import max_concurrent_runs, resolve_resources
from platform.tuning.planning.plan import longest_run, make_plan
from platform.tuning.planning.records import Plan, Resources
from platform.tuning.sampling.successive_halving import expected_epochs, rungs
from tests.space.examples import BASE, EVERY_KIND, PLAIN, spec

TWO_CORES = {"CPU": 2.0}
GPU_HOST = {"CPU": 16.0, "GPU": 1.0}


def plan(resources: Any = TWO_CORES, document: dict[str, Any] = PLAIN, **changes: Any) -> Plan:
    nodes = resources if isinstance(resources, list) else [resources]
    return make_plan(spec(document, **changes), nodes)


def asha(grace: int, factor: float) -> Asha:
    return Asha(name="asha", grace_epochs=grace, reduction_factor=factor)


@pytest.mark.parametrize(
    ("grace", "factor", "epochs", "expected"),
    [
        (5, 3, 50, (5, 15, 45)),
        (1, 3, 3, (1,)),
        (1, 2, 9, (1, 2, 4, 8)),
        (3, 2.5, 30, (3, 8, 19)),
        (1, 1.2, 4, (1, 2, 3)),
        (9, 3, 9, ()),
    ],
)
def test_rungs_are_powers_of_the_reduction_factor_before_the_last_epoch(
    grace: int, factor: float, epochs: int, expected: tuple[int, ...]
) -> None:
    assert rungs(asha(grace, factor), epochs) == expected


def simulated_epochs(trials: int, marks: tuple[int, ...], factor: float, epochs: int) -> float:
    """Return the mean epochs of a simulated search with the rule of Ray Tune's AsyncHyperBandScheduler."""
    draw = np.random.default_rng(0)
    rounds, total = 1500, 0
    for _ in range(rounds):
        recorded: dict[int, list[float]] = {mark: [] for mark in marks}
        for _ in range(trials):
            for mark in marks:
                accuracy = draw.random()
                cutoff = np.percentile(recorded[mark], (1 - 1 / factor) * 100) if recorded[mark] else None
                recorded[mark].append(accuracy)
                if cutoff is not None and accuracy < cutoff:
                    total += mark
                    break
            else:
                total += epochs
    return total / rounds


@pytest.mark.parametrize(("trials", "factor"), [(12, 3.0), (5, 2.0)])
def test_the_expected_epochs_agree_with_a_simulation(trials: int, factor: float) -> None:
    marks = rungs(asha(1, factor), 9)
    simulated = simulated_epochs(trials, marks, factor, 9)
    expected = expected_epochs(trials, asha(1, factor), 9)
    # The formula replaces the number of trials at a rung by its mean, which is inexact for few trials.
    assert expected == pytest.approx(simulated, rel=0.04)


def test_a_single_trial_is_expected_to_run_in_full() -> None:
    assert expected_epochs(1, asha(1, 3), 9) == 9


def test_a_plan_lists_every_dimension_with_its_condition() -> None:
    rows = {row.name: row for row in plan(document=EVERY_KIND).rows}
    assert rows["batch_size"].values == "64, 128, 256"
    assert rows["optimizer"].kind == "alternatives"
    assert rows["optimizer.sgd.lr"].kind == "log_uniform"
    assert rows["optimizer.sgd.lr"].only_if == "optimizer = sgd"
    assert rows["optimizer.sgd.weight_decay"].values == "0 to 0.001 in steps of 0.0001"
    assert rows["augment.1.cutout.1.length"].only_if == "augment = 1, augment.1.cutout = 1"


def test_a_plan_has_worst_case_and_expected_epochs() -> None:
    got = plan(
        trials=10, scheduler={"name": "asha", "grace_epochs": 1}, confirm={"candidates": 2, "seeds": 4}
    )
    assert got.rungs == (1, 3)
    assert (got.search.worst_case_epochs, got.confirm.worst_case_epochs) == (90, 2 * 4 * 9)
    assert got.worst_case_epochs == 90 + 72 + 9
    assert got.search.expected_epochs is not None
    assert got.saved_share == pytest.approx(1 - got.search.expected_epochs / 90)
    assert 0.3 < got.saved_share < 0.7


def test_an_adaptive_confirmation_is_planned_with_its_limits_and_expected_to_need_fewer_runs() -> None:
    got = plan(trials=10, confirm={"candidates": 4, "min_seeds": 2, "max_runs": 16})
    assert (got.confirm.runs, got.confirm.worst_case_epochs) == (16, 16 * 9)
    assert got.confirm.expected_epochs == pytest.approx(9 * 9)
    assert got.confirmation == "4 candidates, 2 to 16 runs"
    assert plan(trials=2).confirmation == "2 candidates, 2 to 16 runs"


def test_the_plan_has_the_measured_risk_of_early_stopping_with_similar_rungs() -> None:
    early = plan(scheduler={"name": "asha", "grace_epochs": 1}).stopping_risk
    assert early.startswith(
        "replays with similar rungs stopped the best of 12 recipes in 36 %, which cost 0.19 of"
    )
    assert "in 1 %" in plan(scheduler={"name": "asha", "grace_epochs": 4}).stopping_risk
    assert plan(scheduler={"name": "none"}).stopping_risk == ""


def test_without_early_stopping_nothing_is_saved_and_median_is_unpredictable() -> None:
    assert plan().saved_share == 0
    median = plan(scheduler={"name": "median", "grace_epochs": 2})
    assert (median.saved_share, median.search.expected_epochs) == (None, None)


def test_a_plan_round_trips_through_json() -> None:
    got = plan(GPU_HOST)
    assert Plan.model_validate_json(got.model_dump_json()) == got


@pytest.mark.parametrize(
    ("resources", "changes", "search", "confirm"),
    [
        (TWO_CORES, {}, (1, 2, "inproc"), (1, 2, "inproc")),
        ({"CPU": 1.0}, {}, (1, 1, "inproc"), (1, 1, "inproc")),
        (GPU_HOST, {}, (1, 1, "inproc"), (1, 1, "inproc")),
        ([GPU_HOST, GPU_HOST], {}, (1, 2, "inproc"), (1, 2, "inproc")),
        (GPU_HOST, {"resources_per_worker": {"GPU": 0.25}}, (1, 4, "inproc"), (1, 4, "inproc")),
        (GPU_HOST, {"resources_per_worker": {"GPU": 0}}, (1, 16, "inproc"), (1, 16, "inproc")),
        (GPU_HOST, {"resources_per_worker": {"CPU": 4, "GPU": 0.1}}, (1, 4, "inproc"), (1, 4, "inproc")),
        (TWO_CORES, {"workers_per_trial": 2}, (2, 1, "ddp"), (2, 1, "ddp")),
        (TWO_CORES, {"backend": "ddp"}, (1, 2, "ddp"), (1, 2, "ddp")),
        (
            [{"CPU": 3.0}, {"CPU": 3.0}],
            {"resources_per_worker": {"CPU": 2}},
            (1, 2, "inproc"),
            (1, 2, "inproc"),
        ),
        ({"CPU": 64.0}, {"trials": 5}, (1, 5, "inproc"), (1, 16, "inproc")),
        (TWO_CORES, {"confirm": {"workers_per_run": 1}}, (1, 2, "inproc"), (1, 2, "inproc")),
        (TWO_CORES, {"confirm": {"workers_per_run": 2}}, (1, 2, "inproc"), (2, 1, "ddp")),
        (
            TWO_CORES,
            {"workers_per_trial": 2, "confirm": {"workers_per_run": 1}},
            (2, 1, "ddp"),
            (1, 2, "inproc"),
        ),
    ],
)
def test_concurrency_is_counted_node_by_node(
    resources: Any, changes: dict[str, Any], search: tuple[int, int, str], confirm: tuple[int, int, str]
) -> None:
    got = plan(resources, **changes)
    assert (got.search.workers, got.search.concurrency, got.search.backend) == search
    assert (got.confirm.workers, got.confirm.concurrency, got.confirm.backend) == confirm


@pytest.mark.parametrize(("concurrent_trials", "concurrency"), [(None, 16), (3, 3), (40, 16)])
def test_concurrent_trials_lowers_the_concurrency_of_the_search(
    concurrent_trials: int | None, concurrency: int
) -> None:
    got = plan({"CPU": 16.0}, trials=40, concurrent_trials=concurrent_trials)
    assert (got.search.concurrency, got.confirm.concurrency) == (concurrency, 16)


ONE_RUN = "a single run: all cores of one node"
SPLIT = "a single run for two worker slots: split over both"
ONE_SLOT = "one worker: fewer than two worker slots"


@pytest.mark.parametrize(
    ("resources", "changes", "workers", "cores", "reason"),
    [
        (TWO_CORES, {}, 1, 2, ONE_RUN),
        ({"CPU": 64.0}, {}, 1, 8, ONE_RUN),
        ([{"CPU": 2.0}, {"CPU": 4.0}], {}, 1, 4, ONE_RUN),
        ({"CPU": 1.0}, {}, 1, 1, ONE_SLOT),
        ({"CPU": 3.0}, {"resources_per_worker": {"CPU": 2}}, 1, 2, ONE_SLOT),
        ([{"CPU": 1.0}, {"CPU": 1.0}], {}, 2, 1, SPLIT),
        (GPU_HOST, {}, 1, 1, ONE_SLOT),
        ([GPU_HOST, GPU_HOST], {}, 2, 1, SPLIT),
        ([GPU_HOST, GPU_HOST], {"search": {"batch_size": {"choice": [128, 75]}}}, 1, 1, "one worker: not every batch size is even"),
        (TWO_CORES, {"final": {"workers_per_run": 1}}, 1, 1, "workers_per_run is 1"),
        (TWO_CORES, {"final": {"workers_per_run": 2}}, 2, 1, "workers_per_run is 2"),
    ],
)  # fmt: skip
def test_the_final_run_uses_all_slots(
    resources: Any, changes: dict[str, Any], workers: int, cores: float, reason: str
) -> None:
    final = plan(resources, **changes).final
    assert (final.workers, final.resources_per_worker.CPU) == (workers, cores)
    assert (final.backend, final.backend_reason) == ("ddp", reason)


def test_workers_of_one_run_never_share_a_gpu() -> None:
    quarter = WorkerResources(CPU=1, GPU=0.25)
    assert resolve_resources(quarter, [GPU_HOST], workers=1) == Resources(CPU=1, GPU=0.25)
    assert resolve_resources(quarter, [GPU_HOST], workers=2) == Resources(CPU=1, GPU=1)


@pytest.mark.parametrize(
    ("resources", "changes", "message"),
    [
        (TWO_CORES, {"resources_per_worker": {"GPU": 1}}, "needs one worker of 1 CPU + 1 GPU, and the cluster's 1 node(s) have 2 CPU;"),
        (GPU_HOST, {"workers_per_trial": 2}, "needs 2 workers of 1 CPU + 1 GPU each, and the cluster's 1 node(s) have 16 CPU + 1 GPU;"),
        ([{"CPU": 1.0}, {"CPU": 1.0}], {"resources_per_worker": {"CPU": 2}}, "needs one worker of 2 CPU, and the cluster's 2 node(s) have 1 CPU; 1 CPU;"),
        ({}, {}, "have nothing"),
    ],
)  # fmt: skip
def test_a_run_that_fits_on_no_node_is_refused_with_the_available_resources(
    resources: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        plan(resources, **changes)
    assert str(caught.value).startswith("a trial can never be placed: it ")
    assert message in str(caught.value)


def test_ten_tenths_of_a_gpu_are_ten_slots() -> None:
    assert max_concurrent_runs(Resources(CPU=0, GPU=0.1), [{"GPU": 1.0}], workers=1, run_name="a trial") == 10


@pytest.mark.parametrize(
    ("changes", "epochs"),
    [
        ({}, 9),
        ({"search": {"epochs": {"choice": [3, 12, 6]}}}, 12),
        ({"search": {"epochs": {"int": [3, 20]}}}, 20),
        (
            {
                "base": {**BASE, "epochs": None, "iterations": 1000},
                "search": {"batch_size": {"choice": [90, 45]}},
            },
            2,
        ),
    ],
)
def test_the_plan_counts_the_longest_run_of_the_space(changes: dict[str, Any], epochs: int) -> None:
    assert longest_run(spec(**changes), 45_000) == epochs
    assert plan(**changes).search.epochs == epochs


TWO_OBJECTIVES: dict[str, Any] = {
    "search": {"model.name": {"choice": ["resnet20_cifar", "resnet32_cifar"]}},
    "objectives": ["validation_accuracy", "parameters"],
}


def test_a_plan_lists_the_objectives() -> None:
    assert plan().objectives == ("validation_accuracy",)
    several = plan(**TWO_OBJECTIVES)
    assert several.objectives == ("validation_accuracy", "parameters")
    assert several.notes == ()


@pytest.mark.parametrize(
    ("resources", "changes", "note"),
    [
        (TWO_CORES, {"scheduler": {"name": "asha", "grace_epochs": 9}}, "asha stops no trial"),
        (TWO_CORES, {"confirm": {"seeds": 1}}, "so intervals are wide"),
        (
            TWO_CORES,
            {"trials": 2, "confirm": {"candidates": 3, "seeds": 2}},
            "confirm.candidates is 3, but there are only 2 trials",
        ),
        (GPU_HOST, {"resources_per_worker": {"GPU": 0}}, "1 GPU(s) unused"),
        (
            TWO_CORES,
            {"trials": 1, "start_from": [{}], "confirm": {"candidates": 1}},
            "the sampler is not used",
        ),
        (TWO_CORES, {"start_from": [{}, {}]}, "1 point(s) dropped, as duplicates or beyond 40 trials"),
        (
            TWO_CORES,
            {"sampler": {"name": "grid"}, "search": {"batch_size": {"choice": [64, 128, 256]}}},
            "the grid has only 3 points",
        ),
        (TWO_CORES, {"sampler": {"name": "nsga2"}, "trials": 10}, "lower sampler.population_size"),
        (
            TWO_CORES,
            {**TWO_OBJECTIVES, "scheduler": {"name": "median"}},
            "scheduler median compares trials by accuracy only",
        ),
    ],
)
def test_a_plan_warns_of_settings_without_effect(resources: Any, changes: dict[str, Any], note: str) -> None:
    (got,) = plan(resources, **changes).notes
    assert note in got


def test_the_plans_of_the_shipped_spaces_have_no_notes() -> None:
    for name in ("resnet18_cifar", "resnet32_cifar", "small_networks"):
        assert make_plan(load_space(name), [GPU_HOST]).notes == ()
