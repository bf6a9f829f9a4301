"""The end of a run whose loss is no longer a number."""

from __future__ import annotations

from pathlib import Path

from platform.errors import UserError


class TrainingDiverged(UserError):  # noqa: N818 - what happened, as a sweep reports it
    """The training loss became NaN or infinite."""


def diverged(
    *, epoch: int, step: int, lr: float, checkpoint: Path | None, last_epoch: int
) -> TrainingDiverged:
    """Return the error to raise: where it happened, what is kept, what to try.

    Args:
        epoch: the epoch it happened in, from 1.
        step: the optimizer step it happened in, from 1.
        lr: the learning rate of that step.
        checkpoint: the last good checkpoint, if any was written.
        last_epoch: the epoch that checkpoint was written after.
    """
    kept = (
        f"the checkpoint of epoch {last_epoch} is {checkpoint}" if checkpoint else "no checkpoint was written"
    )
    return TrainingDiverged(
        f"the training loss must stay finite: it became NaN or infinite in epoch {epoch}, step {step}, "
        f"at learning rate {lr:g}; {kept}. Try a lower optimizer.lr, a warm-up (schedule.warmup_epochs: 1), "
        f"or clip_grad_norm: 1"
    )
