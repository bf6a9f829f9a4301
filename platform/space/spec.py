"""The specification of a sweep as one frozen record, fully validated before the sweep starts.

This module does not import torch, ray or optuna, so that errors in a file appear in under a second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from platform.common.errors import UsageError, did_you_mean
from platform.common.nested import differences
from platform.common.schema import Frozen, Seed, validate
from platform.space.distributions import (
    Choice,
    Dimension,
    Range,
    Scalar,
    SearchTree,
    apply_settings,
    dimensions,
    walk_tree,
)
from platform.space.point_parser import OutsideSpaceError, read_point
from platform.space.settings import (
    Asha,
    Confirm,
    Final,
    Median,
    Objective,
    Qmc,
    Sampler,
    Scheduler,
    Stop,
    Tpe,
    WorkerResources,
)
from platform.space.tree_checks import check_tree
from platform.space.tree_parser import Problem, parse_search
from platform.space.yaml_text import dump_yaml
from platform.training.config import RunConfig


class SweepSpec(Frozen):
    """The specification of a sweep: its space file with the command line's overrides applied."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """Name of the space, of its sweep folders and of its MLflow experiment. Default: the file's name."""
    about: str = ""
    """The question of the experiment, in one sentence."""
    base: RunConfig
    """The base run; searched settings replace its values."""
    search: SearchTree
    """The searched settings: dotted path -> distribution or alternatives."""
    start_from: tuple[Mapping[str, Scalar], ...] = ()
    """Starting points, tried first."""
    trials: PositiveInt = Field(default=40, le=100_000)
    """Number of trials, including the starting points."""
    objectives: tuple[Objective, ...] = ("validation_accuracy",)
    """Objectives of the sampler: accuracy is maximized, costs of the network are minimized."""
    sampler: Sampler = Tpe(name="tpe")
    scheduler: Scheduler = Asha(name="asha")
    workers_per_trial: PositiveInt = Field(default=1, le=10_000)
    """Data-parallel processes per trial of the search."""
    concurrent_trials: PositiveInt | None = None
    """Maximum number of concurrent trials; `null`: all that fit. 1 makes the search reproducible."""
    resources_per_worker: WorkerResources = WorkerResources()
    backend: Literal["auto", "inproc", "ddp"] = "auto"
    """`inproc`: one worker in a reused process; `ddp`: Ray Train; `auto`: `ddp` for several workers."""
    max_failures: NonNegativeInt = 10
    """Maximum number of failed trials; one more ends the sweep."""
    stop: Stop = Stop()
    confirm: Confirm = Confirm()
    final: Final = Final()
    seed: Seed = 0
    """Seed of the sweep; the seeds of its runs are derived from it."""
    cost_per_hour: PositiveFloat | None = None
    """Price of the whole cluster per hour, in any currency, for the cost estimate in the plan."""

    @field_validator("search", mode="plain")
    @classmethod
    def _read_search(cls, raw: Any, info: ValidationInfo) -> SearchTree:
        if isinstance(raw, SearchTree):
            raw = raw.raw()
        tree, found = parse_search(raw)
        # Check the values of the valid settings even if others are invalid, to report all problems at once.
        invalid = tuple(path for path, _ in found)
        found += [
            (path, text)
            for path, text in check_tree(tree, info.data.get("base"))
            if not any(path == other or path.startswith(f"{other}.") for other in invalid)
        ]
        _raise_problems(found, raw)
        return tree

    @field_serializer("search")
    def _write_search(self, tree: SearchTree) -> dict[str, Any]:
        return tree.raw()

    @field_validator("start_from", mode="plain")
    @classmethod
    def _read_points(cls, raw: Any, info: ValidationInfo) -> tuple[Mapping[str, Scalar], ...]:
        if not isinstance(raw, list | tuple) or not all(isinstance(point, Mapping) for point in raw):
            _raise_problems([("", f"must be a list of points, each a section of settings, got {raw!r}")], raw)
        tree, base = info.data.get("search"), info.data.get("base")
        if tree is None or base is None:
            return ()  # another field is invalid
        points, found = [], []
        for position, point in enumerate(raw, start=1):
            try:
                points.append(read_point(point, tree, base))
            except OutsideSpaceError as error:
                found.append((f"{position}.{error.path}".removesuffix("."), str(error)))
        _raise_problems(found, raw)
        return tuple(points)

    @field_serializer("start_from")
    def _write_points(self, points: tuple[Mapping[str, Scalar], ...]) -> list[dict[str, Scalar]]:
        return [dict(point) for point in points]

    @field_validator("objectives")
    @classmethod
    def _check_objectives(
        cls, objectives: tuple[Objective, ...], info: ValidationInfo
    ) -> tuple[Objective, ...]:
        if "validation_accuracy" not in objectives:
            raise ValueError(
                f"must contain validation_accuracy, which selects the champion; got {', '.join(objectives)}"
            )
        if len(set(objectives)) < len(objectives):
            raise ValueError(f"must not contain duplicates, got {', '.join(objectives)}")
        tree = info.data.get("search")
        costs = [name for name in objectives if name != "validation_accuracy"]
        if costs and tree is not None and not any(changes_network(entry.path) for entry in tree.entries):
            raise ValueError(
                f"{', '.join(costs)}: equal for all trials, because the space does not vary the model; "
                "search model.name, or remove the objective"
            )
        return objectives

    @field_validator("sampler")
    @classmethod
    def _check_qmc(cls, sampler: Sampler, info: ValidationInfo) -> Sampler:
        tree = info.data.get("search")
        inside = [each for each in dimensions(tree) if each.conditions] if tree is not None else []
        if isinstance(sampler, Qmc) and inside:
            owner, label = inside[0].conditions[-1]
            raise ValueError(
                f"qmc does not support settings inside alternatives, and {inside[0].name} depends on "
                f"{owner} = {label}; use random or tpe, or search no setting inside alternatives"
            )
        return sampler

    @field_validator("scheduler")
    @classmethod
    def _check_grace_epochs(cls, scheduler: Scheduler, info: ValidationInfo) -> Scheduler:
        epochs = info.data["base"].epochs if "base" in info.data else None
        if isinstance(scheduler, Asha | Median) and epochs is not None and scheduler.grace_epochs > epochs:
            text = f"must not exceed the run's epochs, got {scheduler.grace_epochs} > {epochs}"
            _raise_problems([("grace_epochs", text)], scheduler)
        return scheduler

    @field_validator("workers_per_trial")
    @classmethod
    def _check_workers_per_trial(cls, workers: int, info: ValidationInfo) -> int:
        if problem := _indivisible(workers, info.data.get("base"), info.data.get("search")):
            raise ValueError(problem)
        return workers

    @field_validator("confirm", "final")
    @classmethod
    def _check_workers_per_run(cls, stage: Any, info: ValidationInfo) -> Any:
        workers, base, tree = stage.workers_per_run, info.data.get("base"), info.data.get("search")
        if workers != "auto" and (problem := _indivisible(workers, base, tree)):
            _raise_problems([("workers_per_run", problem)], stage)
        return stage

    @field_validator("backend")
    @classmethod
    def _check_backend(cls, backend: str, info: ValidationInfo) -> str:
        workers = info.data.get("workers_per_trial", 1)
        if backend == "inproc" and workers > 1:
            raise ValueError(
                f"'inproc' runs one worker per trial, got workers_per_trial {workers}; use 'ddp'"
            )
        return backend

    @model_validator(mode="after")
    def _check_gpu_share(self) -> Self:
        gpu = self.resources_per_worker.GPU
        if self.workers_per_trial > 1 and isinstance(gpu, float | int) and 0 < gpu < 1:
            raise ValueError(
                "resources_per_worker.GPU must be 0 or whole when a trial has several workers, since NCCL "
                f"refuses two of them on one GPU; got {gpu:g} for workers_per_trial {self.workers_per_trial}"
            )
        return self

    @cached_property
    def dimensions(self) -> tuple[Dimension, ...]:
        """All searched settings in file order, including those of all alternatives."""
        return tuple(dimensions(self.search))

    def resolve(self, params: Mapping[str, Any], *, seed: int | None = None) -> RunConfig:
        """Return the run configuration for flat `params`.

        Args:
            params: one value for each dimension that exists under the choices made.
            seed: the run's seed (`trial_seed`); None: the base's.

        Raises:
            UsageError: a parameter is missing, unknown, or outside the space.
        """

        def choose(dimension: Dimension) -> Any:
            if dimension.name not in params:
                raise UsageError(f"{self.name}: the parameter {dimension.name!r} is missing")
            try:
                return dimension.node.parameter(params[dimension.name])
            except ValueError as error:
                raise UsageError(f"{self.name}: {dimension.name}: {error}") from None

        chosen = walk_tree(self.search, choose)
        unknown = [name for name in params if name not in chosen.params]
        if unknown:
            hint = did_you_mean(unknown[0], chosen.params)
            raise UsageError(f"{self.name}: unknown parameter {unknown[0]!r}{hint}")
        values = apply_settings(self.base.model_dump(), chosen.settings)
        if seed is not None:
            values["seed"] = seed
        return validate(RunConfig, values, source=self.name)

    def indivisible_by(self, workers: int) -> bool:
        """Return whether some batch size is not divisible by `workers`."""
        return bool(_indivisible(workers, self.base, self.search))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values from which `SweepSpec.model_validate` restores an equal spec."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return the spec as a space file."""
        return dump_yaml(self.to_dict())

    def digest(self) -> str:
        """Return a short hash that is equal for equal specs on every machine."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    def __hash__(self) -> int:
        return hash(self.digest())


def _raise_problems(found: Sequence[Problem], raw: Any) -> None:
    """Raise one pydantic error with all problems, which pydantic merges with those of other fields."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError("space", "{message}", {"message": text}),
            loc=tuple(path.split(".")) if path else (),
            input=raw,
        )
        for path, text in found
    ]
    if details:
        raise ValidationError.from_exception_data("SweepSpec", details)


def changes_network(path: str) -> bool:
    """Return whether a setting affects the costs of the network."""
    return path == "model" or (path.startswith("model.") and path != "model.zero_init_residual")


def _indivisible(workers: int, base: RunConfig | None, tree: SearchTree | None) -> str:
    """Return the problem if some batch size is not divisible by `workers`, else an empty string."""
    if workers == 1 or base is None or tree is None:
        return ""
    rule = f"every batch size must be divisible by the number of workers, {workers}"
    sizes: Sequence[Any] = (base.batch_size,)
    for node in [dimension.node for dimension in dimensions(tree) if dimension.path == "batch_size"]:
        if isinstance(node, Choice):
            sizes = node.values_to_check()
        elif isinstance(node, Range) and node.step is not None:
            # The remainders repeat after `workers` steps.
            sizes = [node.at(index) for index in range(min(node.steps(), workers))]
        else:
            return f"{rule}; search batch_size with choice or quantized"
    wrong = [str(size) for size in sizes if size % workers]
    return f"{rule}; got {', '.join(wrong[:5])}{', ...' * (len(wrong) > 5)}" if wrong else ""


def trial_seed(spec: SweepSpec, number: int, *, stage: str = "search") -> int:
    """Return the seed (31 bits) of run `number` of a stage, equal on every machine and after a resume.

    The confirmation passes the index of the seed as `number`, so that all candidates have the same seeds.
    """
    digest = hashlib.sha256(f"{spec.seed}:{stage}:{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def changed_fields(before: SweepSpec, after: SweepSpec) -> list[str]:
    """Return the dotted names of all settings that differ between two specs, in file order."""
    return [path for path, _, _ in differences(before.to_dict(), after.to_dict())]
