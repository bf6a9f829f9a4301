"""Plan a sweep: resolve its stages and resources, and count runs and epochs before it starts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from platform.common.text_format import percent
from platform.space.distributions import Alternatives, Choice, Dimension
from platform.space.settings import Asha, Grid, Median, Nsga2, Scheduler, Stop, WorkerResources
from platform.space.spec import SweepSpec
from platform.training.inputs.budget import budget_of
from platform.tuning.execution.stage_context import Backend
from platform.tuning.planning.capacity import (
    NodeResources,
    max_concurrent_runs,
    node_resources,
    resolve_resources,
    worker_slots,
)
from platform.tuning.planning.records import Plan, SearchedSetting, StagePlan, TimeBudget
from platform.tuning.sampling.sampler import initial_points, planned_trials
from platform.tuning.sampling.successive_halving import expected_epochs, rungs, stopping_risk

CIFAR10_TRAINING_IMAGES = 45_000
_MAX_THREADS = 8
"""Threads of a single run. More than two are not measured."""
_EXPECTED_SHARE = 0.5
"""Part of the runs between the fewest and the most that an adaptive confirmation is expected to need
(docs/results.md: 9.4 of 2 to 16 runs at a tolerance of a tenth of the noise)."""


def make_plan(
    spec: SweepSpec,
    nodes: Sequence[NodeResources],
    *,
    within: TimeBudget | None = None,
    train_images: int = CIFAR10_TRAINING_IMAGES,
) -> Plan:
    """Plan a sweep on these nodes; with a time budget, `spec` is already shortened.

    Raises:
        UsageError: the cluster can never place a run, or a grid contains a continuous range.
    """
    epochs, trials = longest_run(spec, train_images), planned_trials(spec)
    candidates = min(spec.confirm.candidates, trials)
    rung_epochs, expected, risk = _early_stopping(spec.scheduler, trials, epochs)
    search = _plan_search(spec, nodes, trials=trials, epochs=epochs, expected=expected)
    confirm = _plan_confirmation(spec, nodes, search, candidates=candidates)
    final = _plan_final(spec, nodes, epochs=epochs)
    return Plan(
        space=spec.name,
        about=spec.about,
        spec_digest=spec.digest(),
        quick=within is not None and spec.confirm.seeds == 1,
        within=within,
        rows=tuple(_searched_setting(dimension) for dimension in spec.dimensions),
        starting_points=len(initial_points(spec)),
        objectives=spec.objectives,
        sampler=spec.sampler.name,
        scheduler=spec.scheduler.name,
        rungs=rung_epochs,
        stopping_risk=risk,
        search=search,
        confirmation=spec.confirm.model_copy(update={"candidates": candidates}).text(),
        confirm=confirm,
        final=final,
        worst_case_epochs=sum(stage.worst_case_epochs for stage in (search, confirm, final)),
        saved_share=None if expected is None else 1 - expected / search.worst_case_epochs,
        nodes=tuple(node_resources(node) for node in nodes),
        stops=tuple(_stop_conditions(spec.stop)),
        notes=tuple(_notes(spec, nodes, search, trials, rung_epochs)),
    )


def longest_run(spec: SweepSpec, train_images: int = CIFAR10_TRAINING_IMAGES) -> int:
    """Return the epochs of the longest run that the space allows."""
    variants = [spec.base]
    for dimension in spec.dimensions:
        if dimension.path in ("epochs", "iterations", "batch_size") and not dimension.conditions:
            variants = [
                config.changed(**{dimension.path: value})
                for config in variants
                for value in _extremes(dimension)
            ]
    images = min(train_images, spec.base.data.train_limit or train_images)
    return max(config.epochs or budget_of(config, images=images).epochs for config in variants)


def _extremes(dimension: Dimension) -> tuple[object, ...]:
    node = dimension.node
    if isinstance(node, Alternatives):
        return ()
    values = node.values_to_check()
    numbers = [value for value in values if value is not None]
    return tuple(dict.fromkeys((min(numbers), max(numbers), *(None for value in values if value is None))))


def _plan_search(
    spec: SweepSpec, nodes: Sequence[NodeResources], *, trials: int, epochs: int, expected: float | None
) -> StagePlan:
    workers = spec.workers_per_trial
    stage = _plan_stage(spec, nodes, "a trial", trials, epochs, workers, *_backend(spec, workers))
    concurrency = min(stage.concurrency, spec.concurrent_trials or stage.concurrency)
    return stage.model_copy(update={"expected_epochs": expected, "concurrency": concurrency})


def _plan_confirmation(
    spec: SweepSpec, nodes: Sequence[NodeResources], search: StagePlan, *, candidates: int
) -> StagePlan:
    """Return the plan of the confirmation; with `auto`, its runs are placed as those of the search.

    Runs side by side need no synchronization, and they are comparable with the search. An adaptive
    confirmation is planned with its largest number of runs, and expected to need a part of them.
    """
    fewest, most = spec.confirm.runs(candidates)
    wanted = spec.confirm.workers_per_run
    workers = search.workers if wanted == "auto" else wanted
    if workers == search.workers:
        backend, reason = search.backend, "as in the search, side by side"
    else:
        backend, reason = _backend(spec, workers)[0], f"workers_per_run is {workers}"
    stage = _plan_stage(spec, nodes, "a confirmation run", most, search.epochs, workers, backend, reason)
    expected = fewest + _EXPECTED_SHARE * (most - fewest)
    return stage.model_copy(update={"expected_epochs": expected * search.epochs})


def _plan_final(spec: SweepSpec, nodes: Sequence[NodeResources], *, epochs: int) -> StagePlan:
    """Return the plan of the final run, a single one for all slots.

    `auto` gives it the cores of one node, if trials use no GPU: threads are faster than data-parallel
    processes, which exchange all gradients in every step. Else two workers, where possible.
    """
    workers = spec.final.workers_per_run
    resources = resolve_resources(spec.resources_per_worker, nodes, workers=1)
    cores = min(_MAX_THREADS, max(worker_slots(resources, [node]) * resources.CPU for node in nodes))
    if workers != "auto":
        reason = f"workers_per_run is {workers}"
    elif not resources.GPU and cores >= 2 * resources.CPU:
        workers, reason = 1, "a single run: all cores of one node"
        node = WorkerResources(CPU=math.floor(cores), GPU=0)
        spec = spec.model_copy(update={"resources_per_worker": node})
    elif spec.indivisible_by(2):
        workers, reason = 1, "one worker: not every batch size is even"
    elif worker_slots(resolve_resources(spec.resources_per_worker, nodes, workers=2), nodes) < 2:
        workers, reason = 1, "one worker: fewer than two worker slots"
    else:
        workers, reason = 2, "a single run for two worker slots: split over both"
    return _plan_stage(spec, nodes, "the final run", 1, epochs, workers, "ddp", reason)


def _backend(spec: SweepSpec, workers: int) -> tuple[Backend, str]:
    """Return the backend of runs with `workers` workers, and the reason."""
    if spec.backend != "auto" and (workers == 1 or spec.backend == "ddp"):
        return spec.backend, "set in the space file"
    if workers > 1:
        return "ddp", f"{workers} workers per trial"
    return "inproc", "one worker per trial: its process is reused for the next trial"


def _plan_stage(
    spec: SweepSpec,
    nodes: Sequence[NodeResources],
    run_name: str,
    runs: int,
    epochs: int,
    workers: int,
    backend: Backend,
    backend_reason: str,
) -> StagePlan:
    resources = resolve_resources(spec.resources_per_worker, nodes, workers=workers)
    concurrency = max_concurrent_runs(resources, nodes, workers=workers, run_name=run_name)
    return StagePlan(
        runs=runs,
        epochs=epochs,
        worst_case_epochs=runs * epochs,
        expected_epochs=float(runs * epochs),
        workers=workers,
        resources_per_worker=resources,
        concurrency=min(runs, concurrency),
        backend=backend,
        backend_reason=backend_reason,
    )


def _early_stopping(
    scheduler: Scheduler, trials: int, epochs: int
) -> tuple[tuple[int, ...], float | None, str]:
    """Return the rungs, the expected epochs of the search, and the measured risk in words.

    The epochs are None if they are unpredictable; the risk is empty without rungs.
    """
    if not isinstance(scheduler, Asha):
        return (), None if isinstance(scheduler, Median) else float(trials * epochs), ""
    rung_epochs, risk = rungs(scheduler, epochs), stopping_risk(scheduler, epochs)
    text = (
        f"replays with similar rungs stopped the best of 12 recipes in {percent(risk.lost_the_best, 0)}, "
        f"which cost {risk.regret:.2f} of the noise of a run on average"
    )
    return rung_epochs, expected_epochs(trials, scheduler, epochs), text if rung_epochs else ""


def _searched_setting(dimension: Dimension) -> SearchedSetting:
    node = dimension.node
    if isinstance(node, Alternatives):
        kind = "alternatives"
    elif isinstance(node, Choice):
        kind = "choice"
    else:
        kind = node.kind
    only_if = ", ".join(f"{name} = {label}" for name, label in dimension.conditions)
    return SearchedSetting(name=dimension.name, kind=kind, values=node.text(), only_if=only_if)


def _stop_conditions(stop: Stop) -> Iterator[str]:
    if stop.wall_hours is not None:
        yield f"after {stop.wall_hours:g} h"
    if stop.gpu_hours is not None:
        yield f"after {stop.gpu_hours:g} GPU hours"
    if stop.target_accuracy is not None:
        yield f"at {100 * stop.target_accuracy:g} % validation accuracy"


def _notes(
    spec: SweepSpec,
    nodes: Sequence[NodeResources],
    search: StagePlan,
    trials: int,
    rung_epochs: tuple[int, ...],
) -> Iterator[str]:
    if isinstance(spec.scheduler, Asha) and not rung_epochs:
        yield (
            f"scheduler asha stops no trial: its first rung ({spec.scheduler.grace_epochs} epochs) "
            f"is not before the end of a run ({search.epochs} epochs)"
        )
    if trials < spec.trials:
        yield f"trials: the grid has only {trials} points, fewer than the {spec.trials} trials"
    dropped = len(spec.start_from) - len(initial_points(spec))
    if dropped > 0:
        yield f"start_from: {dropped} point(s) dropped, as duplicates or beyond {spec.trials} trials"
    if spec.confirm.seeds == 1:
        yield (
            "confirm.seeds is 1: the noise of a run is known only from the search run and one more of each "
            "candidate, so intervals are wide"
        )
    if spec.confirm.seeds is not None and spec.confirm.candidates > trials:
        yield f"confirm.candidates is {spec.confirm.candidates}, but there are only {trials} trials"
    if spec.stop.gpu_hours is not None and not search.resources_per_worker.GPU:
        yield "stop.gpu_hours has no effect: trials use no GPU"
    startable = sum(1 for node in nodes if node.get("startable"))
    if startable:
        yield (
            f"{startable} of {len(nodes)} nodes are not running: the cluster's autoscaler starts them when "
            "trials wait for them"
        )
    gpus = sum(node.get("GPU", 0) for node in nodes)
    if gpus and not search.resources_per_worker.GPU:
        yield f"{gpus:g} GPU(s) unused: resources_per_worker.GPU is 0"
    if len(spec.objectives) > 1 and isinstance(spec.scheduler, Asha | Median):
        yield (
            f"scheduler {spec.scheduler.name} compares trials by accuracy only, so it also stops small, less "
            "accurate networks; scheduler.name=none keeps all of them for the Pareto front"
        )
    if isinstance(spec.sampler, Nsga2) and trials <= spec.sampler.population_size:
        yield (
            f"sampler nsga2 draws its first {spec.sampler.population_size} trials at random, and there are "
            f"only {trials}, so this is a random search; lower sampler.population_size"
        )
    if not isinstance(spec.sampler, Grid) and trials == len(initial_points(spec)):
        yield "every trial is a starting point, so the sampler is not used"
