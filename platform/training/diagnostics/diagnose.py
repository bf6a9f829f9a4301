"""What a run's learning curves say about its health: rules over epoch records, each with its evidence.

Rules are silent when unsure: a finding is worth a person's time, or it is not made. Each compares a run with
itself, not with other runs, and leaves alone what a schedule causes. docs/diagnostics.md shows every
phenomenon, its rule and where that comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from platform.training.diagnostics import loss_rules, network_rules
from platform.training.diagnostics.findings import Finding
from platform.training.records import EpochRecord


def diagnose(records: Sequence[EpochRecord], *, classes: int) -> tuple[Finding, ...]:
    """Return what the epochs of one run show, the most pressing first; nothing where all is well.

    Args:
        records: the run's epochs in order; those so far, while it runs.
        classes: how many there are to tell apart, for the loss of a guess: log(classes).
    """
    rules: tuple[Callable[[Sequence[EpochRecord], int], Finding | None], ...] = (
        loss_rules.divergence,
        network_rules.exploding,
        network_rules.vanishing,
        loss_rules.spikes,
        network_rules.plasticity,
        loss_rules.overfitting,
        loss_rules.underfitting,
        loss_rules.periodicity,
    )
    found = (rule(records, classes) for rule in rules)
    return tuple(finding for finding in found if finding is not None)
