"""What a sweep will do, decided and counted before it does anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from platform.schema import Frozen
from platform.space.distributions import Alternatives, Choice, Dimension
from platform.space.settings import Asha, Grid, Median, Nsga2, Workers
from platform.space.spec import SweepSpec
from platform.training.config import RunConfig
from platform.training.inputs.budget import budget_of
from platform.tuning.planning.capacity import Need, NodeResources, concurrency, decide, slots
from platform.tuning.planning.estimate import Estimate
from platform.tuning.sampling.sampler import initial_points, planned_trials
from platform.tuning.sampling.successive_halving import expected_epochs, rungs

CIFAR10_TRAINING_IMAGES = 45_000

Backend = Literal["inproc", "ddp"]


class PlanRow(Frozen):
    """One searched setting."""

    name: str
    """The flat name, which is a column of every table of trials: `optimizer.sgd.lr`."""
    kind: str
    """`choice`, `alternatives`, `uniform`, `log_uniform`, `int`, `log_int` or `quantized`."""
    values: str
    """What it can be, for people."""
    only_if: str
    """The alternatives under which it exists (`optimizer = sgd`); empty if always."""


class StagePlan(Frozen):
    """One stage: the search, the confirmation, or the final run."""

    runs: int
    epochs: int
    """Epochs of a full run; the longest, where they differ."""
    worst_case_epochs: int
    """All runs at full length."""
    expected_epochs: float | None
    """With early stopping; None where it cannot be predicted."""
    workers: int
    """Data-parallel processes of one run."""
    resources_per_worker: Need
    concurrency: int
    """Runs at once."""
    backend: Backend
    backend_reason: str


class Plan(Frozen):
    """A sweep's plan: printed first, kept as plan.json."""

    space: str
    about: str
    spec_digest: str
    quick: bool
    rows: tuple[PlanRow, ...]
    """The resolved search space."""
    starting_points: int
    """Known good points (or a grid's), tried first."""
    objectives: tuple[str, ...] = ("validation_accuracy",)
    """What the sampler raises (accuracy) or lowers (costs)."""
    sampler: str
    scheduler: str
    rungs: tuple[int, ...]
    """Epochs after which trials may be stopped; empty where there are no fixed ones."""
    search: StagePlan
    candidates: int
    seeds: int
    confirm: StagePlan
    final: StagePlan
    worst_case_epochs: int
    """Of all stages together."""
    saved_share: float | None
    """Share of the search's epochs that early stopping is expected to save; None if not predictable."""
    nodes: tuple[Need, ...]
    """What each node of the cluster has."""
    device: str
    device_reason: str
    precision: str
    precision_reason: str
    estimate: Estimate | None = None
    """Time and hours, from a measurement; None where there is none."""
    stops: tuple[str, ...] = ()
    """What may end the search before its last trial, in words."""
    notes: tuple[str, ...]
    """What the user should know before it starts: settings without effect, unused hardware."""


def make_plan(
    spec: SweepSpec,
    resources: NodeResources | Sequence[NodeResources],
    *,
    quick: bool = False,
    train_images: int = CIFAR10_TRAINING_IMAGES,
    device: str = "",
    device_reason: str = "",
    precision: str = "",
    precision_reason: str = "",
) -> Plan:
    """Plan a sweep.

    Args:
        spec: the sweep; already the quick variant where `quick` is set.
        resources: what each node has, or the only node: `{"CPU": 2, "GPU": 0}`.
        quick: whether this is a quick sweep; only told on.
        train_images: images a trial trains on, for runs whose length is in iterations.
        device: what was detected, and why; told on, as is `precision`.
        device_reason: see `device`.
        precision: see `device`.
        precision_reason: see `device`.

    Raises:
        UsageError: the cluster can never place a run, or a grid is over continuous ranges.
    """
    nodes = [resources] if isinstance(resources, Mapping) else list(resources)
    epochs = longest_run(spec, train_images)
    trials = planned_trials(spec)
    marks, expected = _stopping(spec, trials, epochs)
    search = _stage(spec, nodes, "a trial", runs=trials, epochs=epochs, workers=spec.workers_per_trial)
    at_once = min(search.concurrency, spec.concurrent_trials or search.concurrency)
    search = search.model_copy(update={"expected_epochs": expected, "concurrency": at_once})
    confirm_runs = min(spec.confirm.candidates, trials) * spec.confirm.seeds
    confirm = _stage(
        spec,
        nodes,
        "a confirmation run",
        runs=confirm_runs,
        epochs=epochs,
        workers=spec.confirm.workers_per_run,
    )
    final = _stage(spec, nodes, "the final run", runs=1, epochs=epochs, workers=spec.final.workers_per_run)
    return Plan(
        space=spec.name,
        about=spec.about,
        spec_digest=spec.digest(),
        quick=quick,
        rows=tuple(_row(dimension) for dimension in spec.dimensions),
        starting_points=len(initial_points(spec)),
        objectives=spec.objectives,
        sampler=spec.sampler.name,
        scheduler=spec.scheduler.name,
        rungs=marks,
        search=search,
        candidates=min(spec.confirm.candidates, trials),
        seeds=spec.confirm.seeds,
        confirm=confirm,
        final=final,
        worst_case_epochs=sum(stage.worst_case_epochs for stage in (search, confirm, final)),
        saved_share=None if expected is None else 1 - expected / search.worst_case_epochs,
        nodes=tuple(Need(CPU=node.get("CPU", 0), GPU=node.get("GPU", 0)) for node in nodes),
        device=device,
        device_reason=device_reason,
        precision=precision,
        precision_reason=precision_reason,
        stops=tuple(_stops(spec)),
        notes=tuple(_notes(spec, nodes, search, trials, marks)),
    )


def longest_run(spec: SweepSpec, train_images: int = CIFAR10_TRAINING_IMAGES) -> int:
    """Return the epochs of the longest run that the space can draw."""
    variants: list[RunConfig] = [spec.base]
    for dimension in spec.dimensions:
        if dimension.path in ("epochs", "iterations", "batch_size") and not dimension.given:
            variants = [
                config.changed(**{dimension.path: value})
                for config in variants
                for value in _extremes(dimension)
            ]
    images = min(train_images, spec.base.data.train_limit or train_images)
    return max(config.epochs or budget_of(config, images=images).epochs for config in variants)


def _extremes(dimension: Dimension) -> tuple[object, ...]:
    node = dimension.node
    return () if isinstance(node, Alternatives) else node.probes()


def _stopping(spec: SweepSpec, trials: int, epochs: int) -> tuple[tuple[int, ...], float | None]:
    """Return the rungs, and the epochs that the search is expected to train."""
    scheduler = spec.scheduler
    if isinstance(scheduler, Asha):
        grace, factor = scheduler.grace_epochs, scheduler.reduction_factor
        marks = rungs(grace_epochs=grace, reduction_factor=factor, epochs=epochs)
        return marks, expected_epochs(trials, grace_epochs=grace, reduction_factor=factor, epochs=epochs)
    return (), None if isinstance(scheduler, Median) else float(trials * epochs)


def _stage(
    spec: SweepSpec, nodes: Sequence[NodeResources], what: str, *, runs: int, epochs: int, workers: Workers
) -> StagePlan:
    confirmation = what != "a trial"
    asked = workers
    if workers == "auto":
        two = slots(decide(spec.resources_per_worker, nodes, workers=2), nodes) >= 2
        workers = 2 if two and not spec.indivisible_by(2) else 1
    need = decide(spec.resources_per_worker, nodes, workers=workers)
    at_once = min(runs, concurrency(need, nodes, workers=workers, what=what))
    backend, reason = _backend(spec, workers, confirmation=confirmation, automatic=asked == "auto")
    return StagePlan(
        runs=runs,
        epochs=epochs,
        worst_case_epochs=runs * epochs,
        expected_epochs=float(runs * epochs),
        workers=workers,
        resources_per_worker=need,
        concurrency=at_once,
        backend=backend,
        backend_reason=reason,
    )


def _backend(spec: SweepSpec, workers: int, *, confirmation: bool, automatic: bool) -> tuple[Backend, str]:
    if confirmation:
        if not automatic:
            return "ddp", f"the space file asks for {workers} worker(s)"
        if workers > 1:
            return "ddp", "two slots: the run is split over two workers"
        why = "no two slots" if not spec.indivisible_by(2) else "a batch size is odd"
        return "ddp", f"one worker: {why}"
    if spec.backend != "auto":
        return spec.backend, "the space file says so"
    if workers > 1:
        return "ddp", f"{workers} workers per trial"
    return "inproc", "one worker per trial: its process is reused for the next trial"


def _row(dimension: Dimension) -> PlanRow:
    node = dimension.node
    kind = (
        "alternatives"
        if isinstance(node, Alternatives)
        else "choice"
        if isinstance(node, Choice)
        else node.kind
    )
    only_if = ", ".join(f"{name} = {label}" for name, label in dimension.given)
    return PlanRow(name=dimension.name, kind=kind, values=node.text(), only_if=only_if)


def _stops(spec: SweepSpec) -> list[str]:
    stop, found = spec.stop, []
    if stop.wall_hours is not None:
        found.append(f"after {stop.wall_hours:g} h")
    if stop.gpu_hours is not None:
        found.append(f"after {stop.gpu_hours:g} GPU hours")
    if stop.target_accuracy is not None:
        found.append(f"at {100 * stop.target_accuracy:g} % on validation")
    return found


def _notes(
    spec: SweepSpec,
    nodes: Sequence[NodeResources],
    search: StagePlan,
    trials: int,
    marks: tuple[int, ...],
) -> list[str]:
    notes = []
    if isinstance(spec.scheduler, Asha) and not marks:
        notes.append(
            f"scheduler asha stops nothing: its first rung, {spec.scheduler.grace_epochs} epochs, "
            f"is not before the end of a run, {search.epochs}"
        )
    if trials < spec.trials:
        notes.append(f"trials: the grid has {trials} points, so {spec.trials} trials are not needed")
    dropped = len(spec.start_from) - len(initial_points(spec))
    if dropped > 0:
        notes.append(f"start_from: {dropped} point(s) are beyond the {spec.trials} trials, or repeated")
    if spec.confirm.seeds == 1:
        notes.append("confirm.seeds is 1: nothing can be said about luck, so the champion stays unconfirmed")
    if spec.confirm.candidates > trials:
        notes.append(f"confirm.candidates: only {trials} trials to choose from")
    if spec.stop.gpu_hours is not None and not search.resources_per_worker.GPU:
        notes.append("stop.gpu_hours has no effect: trials use no GPU")
    unused = sum(node.get("GPU", 0) for node in nodes)
    if unused and not search.resources_per_worker.GPU:
        notes.append(f"{unused:g} GPU(s) stay unused: resources_per_worker.GPU is 0")
    if len(spec.objectives) > 1 and isinstance(spec.scheduler, Asha | Median):
        notes.append(
            f"scheduler {spec.scheduler.name} stops trials by their accuracy alone, so small networks that "
            "learn less are stopped too; scheduler.name=none lets all of them reach the front"
        )
    if isinstance(spec.sampler, Nsga2) and trials <= spec.sampler.population_size:
        notes.append(
            f"sampler nsga2 draws its first {spec.sampler.population_size} trials at random, "
            f"and there are only {trials}: nothing is bred; lower sampler.population_size"
        )
    if not isinstance(spec.sampler, Grid) and trials == len(initial_points(spec)):
        notes.append("every trial is a starting point: nothing is searched")
    return notes
