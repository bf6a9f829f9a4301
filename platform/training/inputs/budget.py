"""The length of a run in steps, and the division of its images into batches.

Every epoch splits a new permutation of the training images into batches of `batch_size`. The remainder forms
a smaller last batch, so that an epoch covers every image (as with torch's DataLoader). A remainder below a
quarter of a batch is dropped, because the gradient of so few images would weigh as much as a full batch's.
The division is the same for any number of workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from platform.common.errors import UserError
from platform.training.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The steps of a run."""

    images: int
    """Training images."""
    batch_size: int
    """Images per step over all workers."""
    steps_per_epoch: int
    total_steps: int

    @property
    def epochs(self) -> int:
        """Epochs, including a shortened last one if the run length is given in iterations."""
        return ceil(self.total_steps / self.steps_per_epoch)

    def steps_in(self, epoch: int) -> int:
        """Return the number of steps in `epoch` (counted from 0)."""
        return min(self.steps_per_epoch, self.total_steps - epoch * self.steps_per_epoch)

    def batch(self, step: int) -> slice:
        """Return the slice of the epoch's permutation that step `step` (from 0) of an epoch uses."""
        start = step * self.batch_size
        return slice(start, min(start + self.batch_size, self.images))

    def images_in(self, epoch: int) -> int:
        """Return the number of images in `epoch` (counted from 0)."""
        return min(self.steps_in(epoch) * self.batch_size, self.images)


def budget_of(config: RunConfig, *, images: int, workers: int = 1) -> Budget:
    """Return the budget of `config` for `images` training images.

    Raises:
        UserError: the batch size is not divisible by the number of workers.
    """
    if config.batch_size % workers:
        near = max(workers, round(config.batch_size / workers) * workers)
        raise UserError(
            f"batch_size counts the images over all workers and must be divisible by their number: got "
            f"{config.batch_size} for {workers} workers; {near} would work"
        )
    whole, rest = divmod(images, config.batch_size)
    steps_per_epoch = whole + (1 if rest * 4 >= config.batch_size or whole == 0 else 0)
    # A RunConfig has exactly one of the two.
    total = config.iterations or (config.epochs or 0) * steps_per_epoch
    return Budget(
        images=images, batch_size=config.batch_size, steps_per_epoch=steps_per_epoch, total_steps=total
    )
