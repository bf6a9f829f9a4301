"""Records of a training run: one per epoch, its progress within an epoch, and the final result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One finished epoch. Losses are mean cross-entropy in nats; accuracies lie in 0..1."""

    epoch: int
    """Epochs finished, from 1."""
    epochs: int
    """Epochs in the run."""
    step: int
    """Optimizer steps finished."""
    lr: float
    """Learning rate of the epoch's last step."""
    train_loss: float
    """Mean over the epoch's training batches, augmented, in training mode."""
    train_accuracy: float
    validation_loss: float | None
    """None if the run has no validation split."""
    validation_accuracy: float | None
    grad_norm: float
    """Gradient norm, mean over the epoch's steps."""
    epoch_s: float
    """Wall seconds of the training part of the epoch."""
    evaluation_s: float
    images_per_s: float
    """Training images per wall second, all workers together."""
    mfu: float | None = None
    """Model FLOP utilization, 0..1 (`training.acceleration.mfu`); None if no peak is published."""
    grad_norm_max: float | None = None
    """Largest gradient norm of a step in the epoch."""
    overhead_s: float | None = None
    """Wall seconds since the previous epoch's end spent neither in training nor in evaluation: waiting for
    the previous checkpoint, probing the network. None in records older than this field."""
    loss_spikes: int | None = None
    """Number of loss spikes within the epoch (`platform.training.diagnostics.network_probe.count_spikes`)."""
    moved_bytes: int | None = None
    """Bytes copied between nodes since the trial's previous epoch: its checkpoint, and before the first epoch
    the images. None if nothing was copied. Log lines, and the model at the end, are not counted."""
    # Statistics of the network at the epoch's end (`diagnostics.network_probe`); None for image files, and in
    # records older than these fields.
    first_grad_norm: float | None = None
    """Gradient norm of the first convolution's weights."""
    last_grad_norm: float | None = None
    """Gradient norm of the classifier's weights."""
    dead_units: float | None = None
    """Share of the ReLU channels that are zero at every position of every image; 0..1."""
    feature_rank: float | None = None
    """Effective rank of the features before the classifier: exp of the entropy of their singular values."""
    weight_norm: float | None = None
    """L2 norm of all convolution and classifier weights."""
    weight_scale: float | None = None
    """`weight_norm` as a multiple of its expectation after He initialization."""
    zero_logits: float | None = None
    """Share of the network's outputs that are exactly zero; 0..1."""

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))  # scalars only; dataclasses.asdict takes 40 times as long


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A finished run."""

    epochs: tuple[EpochRecord, ...]
    """All epochs, including those before a resume."""
    model_path: Path | None
    """The trained model (`platform.models.trained`), rank 0 only."""
    train_loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    """Of the last epoch, or of the best one with `report: best` in the configuration."""
    device: str
    precision: str
    accumulate: int = 1
    """Micro-batches per worker and batch, in the call that finished the run."""
    compile_s: float | None = None
    """Wall seconds of `torch.compile`; None without compilation."""
    captured: bool = False
    """Whether steps of full batches were replayed from a CUDA graph."""


@dataclass(frozen=True, kw_only=True)
class StepProgress:
    """Progress of a run within an epoch, reported about once a second."""

    epoch: int
    """The current epoch, from 1."""
    epochs: int
    step: int
    """Optimizer steps finished, over the whole run."""
    steps: int
    """Optimizer steps in the run."""
    images_per_s: float
    """Training images per wall second in this epoch so far, all workers together."""
    remaining_s: float
    """Wall seconds to the end of the run at the average speed since its start or resume."""
    train_loss: float
    """Mean over the epoch so far, over this worker's images only."""
