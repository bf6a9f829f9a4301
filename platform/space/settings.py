"""Sections of a space file other than `base` and `search`: sampler, scheduler, stages and resources."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from platform.common.schema import Frozen, Seed
from platform.common.text_format import plural


class Tpe(Frozen):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), fitted to finished trials."""

    name: Literal["tpe"]
    startup_trials: NonNegativeInt = 10
    """Number of random trials before the estimator is used."""
    seed: Seed | None = None
    """Seed of the sampler; `null`: the sweep's."""


class Random(Frozen):
    """Independent random sampling."""

    name: Literal["random"]
    seed: Seed | None = None
    """Seed of the sampler; `null`: the sweep's."""


class Qmc(Frozen):
    """Scrambled Sobol points, which cover the space more evenly than random sampling."""

    name: Literal["qmc"]
    seed: Seed | None = None
    """Seed of the sampler; `null`: the sweep's."""


class Grid(Frozen):
    """Every combination once, in file order; supports choices and quantized ranges only."""

    name: Literal["grid"]


class Nsga2(Frozen):
    """Genetic algorithm (NSGA-II, Deb et al. 2002), for one or several objectives."""

    name: Literal["nsga2"]
    population_size: Annotated[int, Field(ge=2, le=100_000)] = 10
    """Number of trials per generation; the first generation is random."""
    seed: Seed | None = None
    """Seed of the sampler; `null`: the sweep's."""


Sampler = Annotated[Tpe | Random | Qmc | Grid | Nsga2, Field(discriminator="name")]

Objective = Literal["validation_accuracy", "parameters", "multiply_accumulates", "latency_ms"]
"""Objectives of a search: accuracy is maximized, costs of the network are minimized."""


class Asha(Frozen):
    """Asynchronous successive halving (Li et al. 2020): at each rung, only the best trials continue."""

    name: Literal["asha"]
    grace_epochs: PositiveInt = 5
    """Epochs before the first rung; no trial is stopped earlier."""
    reduction_factor: Annotated[float, Field(ge=1.1, le=1000)] = 3
    """At a rung, 1 / `reduction_factor` of the trials continue; the next rung is this factor later."""


class Median(Frozen):
    """Stop a trial whose best accuracy is below the median of the other trials' means at that epoch."""

    name: Literal["median"]
    grace_epochs: PositiveInt = 5
    """No trial is stopped before this number of epochs."""
    min_trials: PositiveInt = 3
    """Number of trials that must have reached an epoch before a trial is stopped at it."""


class NoStopping(Frozen):
    """Run every trial to its last epoch."""

    name: Literal["none"]


Scheduler = Annotated[Asha | Median | NoStopping, Field(discriminator="name")]

Workers = Annotated[int, Field(gt=0, le=10_000)] | Literal["auto"]


class Stop(Frozen):
    """Limits that end the search early; the confirmation continues with the trials so far.

    Running trials are stopped after their current epoch. `--extend` resets the limits.
    """

    wall_hours: PositiveFloat | None = None
    """Wall-clock time of the search in hours, summed over interruptions."""
    gpu_hours: PositiveFloat | None = None
    """Training and evaluation hours times GPUs, summed over all trials."""
    target_accuracy: Annotated[float, Field(gt=0, le=1)] | None = None
    """Validation accuracy in 0..1; reached when a completed trial has it."""
    hopeless_trials: bool = True
    """End a trial whose loss has diverged or has not become better than that of a guess."""


class Confirm(Frozen):
    """Repetition of the best trials over several seeds at the full budget, to measure the noise of seeds.

    By default each run goes to the recipe whose result helps the decision most, until the decision is good
    enough. With `seeds`, every candidate gets this number of runs.
    """

    candidates: PositiveInt = Field(default=4, le=1000)
    """Number of distinct configurations that may be repeated."""
    seeds: PositiveInt | None = Field(default=None, le=1000)
    """Runs of every candidate; `null`: the number follows from the settings below."""
    min_seeds: PositiveInt = Field(default=2, le=1000)
    """Runs of the champion, at least."""
    max_runs: PositiveInt = Field(default=16, le=100_000)
    """Runs of all candidates together, at most."""
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.001
    """Accuracy, 0..1, that does not matter: the confirmation ends when the leader is expected to lose less to
    the best recipe, and recipes that lose less are equally good, so the cheapest of them wins."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """The confirmation ends when the leader is the best recipe with this probability."""
    workers_per_run: Workers = "auto"
    """Data-parallel processes per run; `auto`: as in the search, so that the runs are comparable."""

    @model_validator(mode="after")
    def _one_protocol(self) -> Self:
        changed = [name for name, default in _adaptive().items() if getattr(self, name) != default]
        if self.seeds is not None and changed:
            raise ValueError(
                f"seeds sets the number of runs of every candidate, so {', '.join(changed)} would have no "
                "effect; omit either"
            )
        if self.seeds is None and self.max_runs < self.min_seeds:
            raise ValueError(f"max_runs must be at least min_seeds, got {self.max_runs} and {self.min_seeds}")
        return self

    def at_most(self, candidates: int, seeds: int) -> Confirm:
        """Return a confirmation of at most `candidates` x `seeds` runs; with 1 seed a single run of each."""
        values = self.model_dump() | {"candidates": min(self.candidates, candidates)}
        if self.seeds is not None:
            values["seeds"] = min(self.seeds, seeds)
        elif seeds == 1:
            values |= {"seeds": 1, **_adaptive()}
        else:
            values["max_runs"] = max(self.min_seeds, min(self.max_runs, candidates * seeds))
        return Confirm(**values)

    def runs(self, candidates: int) -> tuple[int, int]:
        """Return the fewest runs with which the confirmation can end, and the largest number."""
        if self.seeds is None:
            return self.min_seeds, self.max_runs
        return candidates * self.seeds, candidates * self.seeds

    def text(self) -> str:
        """Return the size in words: `3 candidates x 2 seeds`, `4 candidates, 2 to 16 runs`."""
        candidates = plural(self.candidates, "candidate")
        if self.seeds is not None:
            return f"{candidates} x {plural(self.seeds, 'seed')}"
        fewest = f"{self.min_seeds} to " if self.min_seeds < self.max_runs else ""
        return f"{candidates}, {fewest}{plural(self.max_runs, 'run')}"


def _adaptive() -> dict[str, Any]:
    """Return the default values of the settings that have no effect with `seeds`."""
    names = ("min_seeds", "max_runs", "confidence")
    return {name: Confirm.model_fields[name].default for name in names}


class Final(Frozen):
    """The final run, which trains the released model with the champion's configuration."""

    include_validation: bool = True
    """Also train on the validation images, which are not needed for further selection."""
    workers_per_run: Workers = "auto"
    """Data-parallel processes; `auto`: one with the cores of a node if trials use no GPU, else two where two
    slots are free."""


class WorkerResources(Frozen):
    """Resources of each worker of a trial."""

    CPU: NonNegativeFloat = 1
    """CPU cores; fractions are allowed below 1."""
    GPU: NonNegativeFloat | Literal["auto", "measured"] = "auto"
    """GPUs; below 1, one-worker trials share one; `auto`: one if the cluster has GPUs, else none;
    `measured`: the share of a GPU's memory that a calibration run uses, so that small trials share a GPU."""

    @model_validator(mode="after")
    def _placeable(self) -> Self:
        if not isinstance(self.GPU, str) and self.GPU > 1 and int(self.GPU) != self.GPU:
            raise ValueError(f"GPU must be below 1 or a whole number, got {self.GPU:g}")
        if self.CPU == 0 and self.GPU == 0:
            raise ValueError(
                "a worker needs some CPU or GPU, got 0 of both: any number of workers would fit on a node"
            )
        return self
