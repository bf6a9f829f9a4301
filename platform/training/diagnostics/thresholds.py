"""The thresholds of the rules. `python -m benchmarks.diagnostics --fit` fits them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Limits beyond which a rule reports a finding.

    `chance` is the accuracy of a guess and `skill` the part of the distance from chance to 1, so that limits
    hold for any number of classes. Losses are relative to that of a uniform guess, log(classes).
    """

    divergence_rise: float = 1.9
    """Last training loss as a multiple of the lowest one."""
    divergence_loss: float = 1.0
    """Last training loss of a run that had learned, relative to a guess."""
    spike_rise: float = 0.04
    """Rise of the training loss from one epoch to the next, in log units."""
    spike_sigmas: float = 4.2
    """The same in robust standard deviations of the changes between epochs."""
    overfitting_rise: float = 1.2
    """Last validation loss as a multiple of its minimum."""
    overfitting_loss: float = 0.5
    """Highest training loss of a run whose validation loss rose, relative to a guess."""
    fitted_skill: float = 0.65
    """Training skill from which a gap to validation is overfitting."""
    gap: float = 0.3
    """Part of the training skill that validation lacks."""
    gap_skill: float = 0.12
    """The same as a difference; smaller ones may be noise."""
    unlearned_skill: float = 0.031
    """Highest skill of an accuracy that counts as chance."""
    memorized_skill: float = 0.15
    """Training skill that random labels reach when they are memorized."""
    underfitting_loss: float = 0.9
    """Lower one of the final losses, relative to a guess."""
    vanishing_norm: float = 1e-4
    """Gradient norm of the first layer."""
    vanishing_ratio: float = 1e-3
    """Gradient norm of the first layer relative to the classifier's."""
    exploding_norm: float = 15.0
    """Gradient norm in the first half of the run, median of the epochs' means."""
    dead_share: float = 0.3
    """Share of dead units in the last third of the run."""
    weight_scale: float = 2.0
    """Weight norm as a multiple of the initial one's expectation, in the first tenth of the run."""
    zero_logits: float = 0.02
    """Share of the outputs that are exactly zero."""
    task_skill: float = 0.8
    """Skill reached in later tasks relative to the best of the earlier ones."""
    period_correlation: float = 0.5
    """Autocorrelation of the changes of the loss."""
    period_change: float = 0.03
    """Standard deviation of the changes of the loss, in log units."""
