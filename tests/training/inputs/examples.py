"""Positions of batches, for tests that read single batches."""

import torch

from platform.training.inputs.augment import BatchPosition


def position_of(step: int, rows: slice) -> BatchPosition:
    return BatchPosition(step, rows, torch.tensor(step), torch.arange(rows.start, rows.stop))
