"""Records of the plan and its time estimate."""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveFloat

from platform.common.schema import Frozen
from platform.space.short_runs import PlannedChoice
from platform.tuning.execution.stage_context import Backend


class Resources(Frozen):
    """CPUs and GPUs of one worker or of one node."""

    CPU: float
    GPU: float

    def text(self) -> str:
        """Return the resources for a table or a message: `2 CPU + 0.5 GPU`, `nothing`."""
        return " + ".join(f"{amount:g} {name}" for name, amount in self if amount) or "nothing"


class SearchedSetting(Frozen):
    """One dimension of the search space."""

    name: str
    """The flat name, also the column name in tables of trials: `optimizer.sgd.lr`."""
    kind: str
    """`choice`, `alternatives`, `uniform`, `log_uniform`, `int`, `log_int` or `quantized`."""
    values: str
    """The possible values as text."""
    only_if: str
    """The alternatives under which it exists (`optimizer = sgd`); empty if always."""


class StagePlan(Frozen):
    """One stage: the search, the confirmation, or the final run."""

    runs: int
    epochs: int
    """Epochs of the longest run."""
    worst_case_epochs: int
    """Epochs of the stage if no run is stopped early."""
    expected_epochs: float | None
    """Epochs of the stage with early stopping; None if unpredictable."""
    workers: int
    """Data-parallel processes of one run."""
    resources_per_worker: Resources
    concurrency: int
    """Concurrent runs."""
    backend: Backend
    backend_reason: str


class Speed(Frozen):
    """Throughput of one process while all worker slots of the machine are busy."""

    train_images_per_s: PositiveFloat
    evaluation_images_per_s: PositiveFloat
    processes: int = 1
    """Concurrent processes during the measurement."""
    threads: int = 1
    """CPU threads per process."""
    networks: int = 1
    """Number of networks this is the mean of, weighted by equal numbers of images."""
    busy: bool = False
    """Whether the machine was running other work during the measurement."""
    cpu_share: PositiveFloat = 1.0
    """Processor time of the measuring processes relative to the wall time of their threads: below 1 on a
    busy machine; 1 on a GPU."""
    load_per_core: NonNegativeFloat = 0.0
    """Load average of the last minute per core at the start of the measurement."""
    gpu_held_bytes: int | None = None
    """Peak GPU memory of one process, including PyTorch's cache; None on a CPU."""
    gpu_total_bytes: int | None = None
    """Memory of that GPU; None on a CPU."""


class ImageCounts(Frozen):
    """Images per split."""

    train: int
    validation: int
    test: int


class StageEstimate(Frozen):
    """Expected time and resource use of one stage."""

    wall_s: NonNegativeFloat
    epoch_s: NonNegativeFloat = 0.0
    """Training and evaluation of one epoch of one run."""
    core_hours: NonNegativeFloat
    """Reserved CPU cores times hours."""
    gpu_hours: NonNegativeFloat


class Estimate(Frozen):
    """Expected time and resource use of the sweep."""

    speed: Speed
    search: StageEstimate
    confirm: StageEstimate
    final: StageEstimate
    hand_over_s: NonNegativeFloat = 0.0
    """Everything after the final run: test split, export, benchmark, registration, report."""
    wall_s: NonNegativeFloat
    """All stages, plus the start of Ray, export, benchmark and report."""
    idle_wall_s: NonNegativeFloat | None = None
    """The same on an idle machine; None if the machine was idle during the speed measurement."""
    core_hours: NonNegativeFloat
    gpu_hours: NonNegativeFloat
    saved_s: NonNegativeFloat
    """Wall seconds that early stopping is expected to save; already subtracted from `wall_s`."""
    cost: NonNegativeFloat | None = None
    """`cost_per_hour` times the wall time, in the currency of the space file."""


class TimeBudget(Frozen):
    """The time in which a sweep has to end, and the choices made for it."""

    budget_s: PositiveFloat
    used_before_s: NonNegativeFloat
    """Seconds from the start of the command to the plan."""
    choices: tuple[PlannedChoice, ...]
    """The differences from the space file, with reasons."""
    full_digest: str
    """Digest of the spec before it was shortened."""
    lifted: bool = False
    """Whether `--extend` has lifted the limit; the runs are as short as before."""


class Plan(Frozen):
    """The plan of a sweep: printed before the start and saved as plan.json."""

    space: str
    about: str
    spec_digest: str
    quick: bool
    """Whether a time budget allowed only one confirmation run per candidate."""
    within: TimeBudget | None = None
    rows: tuple[SearchedSetting, ...]
    """The resolved search space."""
    starting_points: int
    """Number of known good (or grid) points that are tried first."""
    objectives: tuple[str, ...] = ("validation_accuracy",)
    """Accuracy is maximized, costs are minimized."""
    sampler: str
    scheduler: str
    rungs: tuple[int, ...]
    """Epochs after which trials may be stopped; empty without fixed rungs."""
    stopping_risk: str = ""
    """Measured risk that early stopping loses the best recipe, in words; empty if it is unknown."""
    search: StagePlan
    confirmation: str = ""
    """Candidates and runs of the confirmation in words: `4 candidates, 2 to 16 runs`."""
    confirm: StagePlan
    final: StagePlan
    worst_case_epochs: int
    """Sum over all stages."""
    saved_share: float | None
    """Share of the search's epochs that early stopping is expected to save; None if unpredictable."""
    nodes: tuple[Resources, ...]
    """Resources of each cluster node."""
    device: str = ""
    device_reason: str = ""
    precision: str = ""
    precision_reason: str = ""
    estimate: Estimate | None = None
    """None without a speed measurement."""
    stops: tuple[str, ...] = ()
    """Conditions that end the search before its last trial, as text."""
    notes: tuple[str, ...]
    """Warnings for the user: settings without effect, unused hardware."""
