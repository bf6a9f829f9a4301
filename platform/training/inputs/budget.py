"""How long a run is, in steps, and which images make up each step.

Every epoch takes a new permutation of the training images, cut into batches of `batch_size`. The rest of
the division is one smaller batch, so that an epoch passes over every image (as with torch's DataLoader);
a rest below a quarter of a batch is left out of that epoch, because a gradient of so few images would
weigh as much as a whole batch's. None of it depends on the number of workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from platform.errors import UserError
from platform.training.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The steps of a run."""

    images: int
    """Training images."""
    batch_size: int
    """Images per step, all workers together."""
    steps_per_epoch: int
    total_steps: int

    @property
    def epochs(self) -> int:
        """Epochs begun; the last one is cut short where the budget is in iterations."""
        return ceil(self.total_steps / self.steps_per_epoch)

    def steps_in(self, epoch: int) -> int:
        """Return the steps of `epoch` (counted from 0)."""
        return min(self.steps_per_epoch, self.total_steps - epoch * self.steps_per_epoch)

    def batch(self, step: int) -> slice:
        """Return which entries of its epoch's permutation step `step` of an epoch (from 0) takes."""
        start = step * self.batch_size
        return slice(start, min(start + self.batch_size, self.images))

    def images_in(self, epoch: int) -> int:
        """Return the images that `epoch` (counted from 0) trains on."""
        return min(self.steps_in(epoch) * self.batch_size, self.images)


def budget_of(config: RunConfig, *, images: int, workers: int = 1) -> Budget:
    """Return the steps that `config` takes over `images` training images.

    Raises:
        UserError: the batch size is not divisible by the number of workers.
    """
    if config.batch_size % workers:
        near = max(workers, round(config.batch_size / workers) * workers)
        raise UserError(
            f"batch_size is for all workers together and must be divisible by their number: got "
            f"{config.batch_size} for {workers} workers; {near} would do"
        )
    whole, rest = divmod(images, config.batch_size)
    steps_per_epoch = whole + (1 if rest * 4 >= config.batch_size or whole == 0 else 0)
    # A RunConfig holds exactly one of the two.
    total = config.iterations or (config.epochs or 0) * steps_per_epoch
    return Budget(
        images=images, batch_size=config.batch_size, steps_per_epoch=steps_per_epoch, total_steps=total
    )
