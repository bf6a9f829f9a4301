"""What a training run reports: one record per epoch, one result at its end."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One finished epoch. Losses are mean cross-entropy in nats; accuracies lie in 0..1."""

    epoch: int
    """Epochs finished, from 1."""
    epochs: int
    """Epochs the run will take."""
    step: int
    """Optimizer steps finished."""
    lr: float
    """Learning rate of the epoch's last step."""
    train_loss: float
    """Mean over the epoch's training batches, augmented, in training mode."""
    train_accuracy: float
    validation_loss: float | None
    """None where the run has no validation split."""
    validation_accuracy: float | None
    grad_norm: float
    """Gradient norm, mean over the epoch's steps."""
    epoch_s: float
    """Wall seconds of the training part of the epoch."""
    evaluation_s: float
    images_per_s: float
    """Training images per wall second, all workers together."""
    mfu: float | None = None
    """Model FLOP utilization, 0..1 (`training.acceleration.mfu`); None where no rate is published."""
    grad_norm_max: float | None = None
    """Largest gradient norm of a step."""
    overhead_s: float | None = None
    """Wall seconds since the previous epoch's end that were neither training nor evaluation: the wait for the
    previous checkpoint, this epoch's probe. None in records older than this field."""
    loss_spikes: int | None = None
    """How often the loss leapt within the epoch (`platform.training.diagnostics.probe.count_spikes`)."""
    # What a look inside the network saw at the epoch's end (`diagnostics.probe.Look`); None where the
    # images are files, and in records of before there was one.
    first_grad_norm: float | None = None
    last_grad_norm: float | None = None
    dead_units: float | None = None
    feature_rank: float | None = None
    weight_norm: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A finished run."""

    epochs: tuple[EpochRecord, ...]
    """All epochs, those before a resume included."""
    model_path: Path | None
    """The trained model (`platform.models.trained`), rank 0 only."""
    train_loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    """Of the last epoch, or of the best one where the configuration says `report: best`."""
    device: str
    precision: str
    accumulate: int = 1
    """Pieces into which each worker's part of a batch was cut (in the call that ended the run)."""
    compile_s: float | None = None
    """Wall seconds of `torch.compile`; None where nothing was compiled."""
    captured: bool = False
    """Whether the steps of whole batches were replayed from a CUDA graph."""


@dataclass(frozen=True, kw_only=True)
class StepProgress:
    """How a run stands within an epoch; reported about once a second."""

    epoch: int
    """The epoch under way, from 1."""
    epochs: int
    step: int
    """Optimizer steps finished, over the whole run."""
    steps: int
    """Optimizer steps the run will take."""
    images_per_s: float
    """Training images per wall second in this epoch so far, all workers together."""
    remaining_s: float
    """Wall seconds to the run's end at the pace since it began (or was resumed), evaluations included."""
    train_loss: float
    """Mean over the epoch so far; over this worker's images only."""
