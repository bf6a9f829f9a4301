"""The error that ends a run whose loss, gradient or weights became NaN or infinite."""

from __future__ import annotations

from pathlib import Path

from platform.common.errors import UserError


class TrainingDiverged(UserError):  # noqa: N818 - the name of an event, shown by sweeps
    """A loss, a gradient or the weights of a run became NaN or infinite."""


def divergence_error(
    value: str, *, epoch: int, step: int, lr: float, checkpoint: Path | None, last_epoch: int
) -> TrainingDiverged:
    """Return the error to raise: the step, the last good checkpoint, and advice.

    Args:
        value: what became NaN or infinite, for example `training loss`.
        epoch: the diverged epoch, from 1.
        step: the diverged optimizer step, from 1.
        lr: the learning rate of that step.
        checkpoint: the last good checkpoint, if any was written.
        last_epoch: the epoch of that checkpoint.
    """
    kept = (
        f"the checkpoint of epoch {last_epoch} is {checkpoint}" if checkpoint else "no checkpoint was written"
    )
    return TrainingDiverged(
        f"the {value} must stay finite: it became NaN or infinite in epoch {epoch}, step {step}, "
        f"at learning rate {lr:g}; {kept}. Try a lower optimizer.lr, a warm-up (schedule.warmup_epochs: 1), "
        f"or clip_grad_norm: 1"
    )
