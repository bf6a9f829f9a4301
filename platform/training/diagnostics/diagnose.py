"""Diagnosis of a run: rules over its epoch records that detect training problems and quote the evidence.

Each rule compares a run with itself and with a uniform guess, not with other runs, and ignores effects of the
learning-rate schedule. `python -m benchmarks.diagnostics` measures how often the rules are right;
docs/diagnostics.md lists the phenomena, the rules and their sources.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from platform.training.diagnostics import generalization_rules, loss_rules, network_rules
from platform.training.diagnostics.findings import Finding, without_symptoms
from platform.training.diagnostics.thresholds import Thresholds
from platform.training.records import EpochRecord

_RULES: tuple[Callable[[Sequence[EpochRecord], int, Thresholds], Finding | None], ...] = (
    loss_rules.divergence,
    network_rules.exploding,
    network_rules.vanishing,
    network_rules.output_relu,
    network_rules.high_learning_rate,
    generalization_rules.random_labels,
    network_rules.dead_units,
    loss_rules.plasticity,
    loss_rules.periodicity,
    generalization_rules.overfitting,
    generalization_rules.gap,
    loss_rules.spikes,
    loss_rules.underfitting,
)


def diagnose(
    records: Sequence[EpochRecord],
    *,
    classes: int,
    stopped: bool = False,
    thresholds: Thresholds = Thresholds(),  # noqa: B008 - immutable
) -> tuple[Finding, ...]:
    """Return the findings about the epochs of a run so far, the most serious first; empty for a healthy run.

    `stopped` means that the trainer ended the run because a value was not finite.
    """
    found = [finding for rule in _RULES if (finding := rule(records, classes, thresholds)) is not None]
    if stopped and not any(finding.name == "divergence" for finding in found):
        epoch = records[-1].epoch + 1 if records else 1
        evidence = f"the run ended in epoch {epoch}, because a value became NaN or infinite"
        found.append(Finding(name="divergence", epochs=(epoch,), evidence=evidence))
    return without_symptoms(found)
