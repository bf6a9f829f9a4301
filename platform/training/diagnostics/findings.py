"""The findings of a diagnosis, and helpers for the rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from platform.training.records import EpochRecord

Phenomenon = Literal[
    "loss spikes",
    "divergence",
    "overfitting",
    "underfitting",
    "vanishing gradients",
    "exploding gradients",
    "periodicity",
    "loss of plasticity",
]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One phenomenon detected in one run."""

    name: Phenomenon
    epochs: tuple[int, ...]
    """Affected epochs, from 1."""
    evidence: str
    """The measured values: a sentence without its full stop."""
    advice: str
    """Remedies to try, without a full stop."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)

    def __str__(self) -> str:
        """Return one line for display."""
        return f"{self.name}: {self.evidence}. Try: {self.advice}."


def format_epochs(records: Sequence[EpochRecord]) -> str:
    """Return `epoch 3` or `epochs 3, 5, 8`, with at most four numbers."""
    numbers = [str(record.epoch) for record in records[:4]]
    more = ", ..." if len(records) > len(numbers) else ""
    return f"epoch{'' if len(records) == 1 else 's'} {', '.join(numbers)}{more}"


def peak_lr(records: Sequence[EpochRecord]) -> float:
    """Return the largest learning rate at the end of an epoch."""
    return max(record.lr for record in records)
