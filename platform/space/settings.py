"""How a sweep searches, stops and confirms: the sections of a space file beside `base` and `search`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from platform.schema import Frozen


class Tpe(Frozen):
    """Tree-structured Parzen estimator (Bergstra et al. 2011): learns from finished trials."""

    name: Literal["tpe"]
    startup_trials: NonNegativeInt = 10
    """Random trials before the estimator begins to propose."""
    seed: NonNegativeInt | None = None
    """Seed of the sampler; `null`: the sweep's."""


class Random(Frozen):
    """Independent draws."""

    name: Literal["random"]
    seed: NonNegativeInt | None = None
    """Seed of the sampler; `null`: the sweep's."""


class Qmc(Frozen):
    """Scrambled Sobol points: spread evenly where random draws clump."""

    name: Literal["qmc"]
    seed: NonNegativeInt | None = None
    """Seed of the sampler; `null`: the sweep's."""


class Grid(Frozen):
    """Every combination once, in file order; needs choices and quantized ranges only."""

    name: Literal["grid"]


class Nsga2(Frozen):
    """Genetic algorithm (NSGA-II, Deb et al. 2002): for several objectives, but not only for them."""

    name: Literal["nsga2"]
    population_size: Annotated[int, Field(ge=2)] = 10
    """Trials of a generation; the first one is drawn at random."""
    seed: NonNegativeInt | None = None
    """Seed of the sampler; `null`: the sweep's."""


Sampler = Annotated[Tpe | Random | Qmc | Grid | Nsga2, Field(discriminator="name")]

Objective = Literal["validation_accuracy", "parameters", "multiply_accumulates", "latency_ms"]
"""What trials are compared by: accuracy, to be raised; what the network costs, to be lowered."""


class Asha(Frozen):
    """Asynchronous successive halving (Li et al. 2020): at each rung, only the best go on."""

    name: Literal["asha"]
    grace_epochs: PositiveInt = 5
    """No trial is stopped before; the first rung."""
    reduction_factor: Annotated[float, Field(gt=1)] = 3
    """One in so many goes on at a rung; the next rung is so many times later."""


class Median(Frozen):
    """Stop a trial whose best accuracy is below the median of the others' means at that epoch."""

    name: Literal["median"]
    grace_epochs: PositiveInt = 5
    """No trial is stopped before."""
    min_trials: PositiveInt = 3
    """Trials that must have come as far before one is stopped."""


class NoStopping(Frozen):
    """Every trial runs to its end."""

    name: Literal["none"]


Scheduler = Annotated[Asha | Median | NoStopping, Field(discriminator="name")]

Workers = PositiveInt | Literal["auto"]


class Stop(Frozen):
    """When the search ends before its last trial; the confirmation goes on with what there is.

    Trials that run then are stopped after their epoch. `--extend` gives a search a fresh allowance.
    """

    wall_hours: PositiveFloat | None = None
    """Wall time of the search, over all its starts."""
    gpu_hours: PositiveFloat | None = None
    """GPUs of a trial times its hours of training and evaluating, over all trials."""
    target_accuracy: Annotated[float, Field(gt=0, le=1)] | None = None
    """Validation accuracy, 0..1; reached when a trial that ran to its end has it."""


class Confirm(Frozen):
    """The best trials repeated over several seeds at the full budget, to tell signal from luck."""

    candidates: PositiveInt = 3
    """Distinct configurations that are repeated."""
    seeds: PositiveInt = 3
    """Runs of each, with different seeds; below 2 nothing can be said about the spread."""
    workers_per_run: Workers = "auto"
    """Data-parallel processes of a run; `auto`: two wherever there are two slots, else one."""


class Final(Frozen):
    """The champion's configuration trained once more; this model ships."""

    include_validation: bool = True
    """Train on the validation images too, as no more decisions are taken from them."""
    workers_per_run: Workers = "auto"
    """Data-parallel processes; `auto`: two wherever there are two slots, else one."""


class WorkerResources(Frozen):
    """What each worker of a trial gets."""

    CPU: NonNegativeFloat = 1
    """Cores; fractions are allowed below 1."""
    GPU: NonNegativeFloat | Literal["auto", "measured"] = "auto"
    """GPUs; below 1, one-worker trials share one; `auto`: one where the cluster has any, else none;
    `measured`: the share of one whose memory a trial was seen to need, so that many cheap trials share it."""

    @model_validator(mode="after")
    def _placeable(self) -> Self:
        if not isinstance(self.GPU, str) and self.GPU > 1 and int(self.GPU) != self.GPU:
            raise ValueError(f"GPU must be below 1 or a whole number, got {self.GPU:g}")
        if self.CPU == 0 and self.GPU == 0:
            raise ValueError(
                "a worker must ask for some CPU or GPU, got none: any number would fit on a machine"
            )
        return self
