"""Diagnosis of a run: rules over its epoch records that detect training problems and quote the evidence.

The rules are conservative, to avoid false alarms. Each rule compares a run with itself, not with other runs,
and ignores effects of the learning-rate schedule. docs/diagnostics.md lists the phenomena, the rules and
their sources.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from platform.training.diagnostics import loss_rules, network_rules
from platform.training.diagnostics.findings import Finding
from platform.training.records import EpochRecord


def diagnose(records: Sequence[EpochRecord], *, classes: int) -> tuple[Finding, ...]:
    """Return the findings about one run, the most serious first; empty for a healthy run.

    Args:
        records: the run's epochs so far, in order.
        classes: number of classes; a uniform guess has the loss log(classes).
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
