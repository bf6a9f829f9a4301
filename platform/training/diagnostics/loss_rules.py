"""Rules over loss and learning rate: divergence, spikes, plasticity, underfitting, periodicity.

Each rule maps a run's records, the number of classes and the thresholds to a finding or None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from platform.common.text_format import percent
from platform.training.diagnostics.findings import Finding, format_epochs, lr_text
from platform.training.diagnostics.generalization_rules import skill
from platform.training.diagnostics.thresholds import Thresholds
from platform.training.records import EpochRecord

_LARGE_JUMP = 0.4
"""Rise of the loss between two epochs, in log units, that is a spike in a run of any noise."""
_RELEARNED = 0.3
"""Part of its skill that training loses from one epoch to the next when the targets change."""


def divergence(records: Sequence[EpochRecord], classes: int, limits: Thresholds) -> Finding | None:
    """The loss ended far above its minimum, or a run that had learned ended as a guess."""
    if len(records) < 2:
        return None
    guess = math.log(classes)
    best, last = min(records, key=lambda record: record.train_loss), records[-1]
    rise = last.train_loss - best.train_loss
    risen = last.train_loss >= limits.divergence_rise * best.train_loss
    lost = best.train_loss <= 0.95 * guess and last.train_loss >= limits.divergence_loss * guess
    if not (risen or lost) or rise < 0.1 * guess:
        return None
    first = next(
        record
        for record in records
        if record.epoch > best.epoch and record.train_loss >= best.train_loss + rise / 2
    )
    return Finding.of(
        "divergence",
        (record for record in records if record.epoch >= first.epoch),
        f"training loss ended at {last.train_loss:.3f}, after {best.train_loss:.3f} in epoch {best.epoch}"
        f"{lr_text(records)}",
    )


def plasticity(records: Sequence[EpochRecord], classes: int, limits: Thresholds) -> Finding | None:
    """Training starts over repeatedly, and learns less each time."""
    skills = [skill(record.train_accuracy, classes) for record in records]
    drops = [
        number
        for number in range(1, len(records))
        if skills[number] < (1 - _RELEARNED) * skills[number - 1]
        and skills[number - 1] > 0.05
        and records[number].train_loss > 1.05 * records[number - 1].train_loss
    ]
    if len(drops) < 2:
        return None
    ends = [0, *drops, len(records)]
    reached = [max(skills[a:b]) for a, b in pairwise(ends)]
    recovers = any(max(skills[a:b]) > skills[a] + 0.03 for a, b in pairwise(ends[1:]))
    if not recovers:  # it diverges
        return None
    half = (len(reached) + 1) // 2
    best, later = max(reached[:half]), fmean(reached[half:])
    if later > limits.task_skill * best:
        return None
    to_percent = [1 / classes + (1 - 1 / classes) * value for value in (best, later)]
    return Finding.of(
        "loss of plasticity",
        records[drops[0] :],
        f"training accuracy dropped {len(drops)} times, first in epoch {records[drops[0]].epoch}; it "
        f"reached {percent(to_percent[0], 1)} at first and {percent(to_percent[1], 1)} later (mean)",
    )


def spikes(records: Sequence[EpochRecord], classes: int, limits: Thresholds) -> Finding | None:
    """The loss spiked within an epoch, or rose between two epochs far more than it usually changes."""
    within = [record for record in records if record.loss_spikes]
    between = _jumps(records, classes, limits)
    epochs = sorted({record.epoch for record in (*within, *between)})
    if not epochs:
        return None
    first = records[epochs[0] - records[0].epoch]
    evidence = []
    if within:
        count = sum(record.loss_spikes or 0 for record in within)
        evidence.append(
            f"the loss spiked {'once' if count == 1 else f'{count} times'} within {format_epochs(within)}"
        )
    if between:
        evidence.append(f"{format_epochs(between)} had a far higher mean loss than the epoch before")
    recovered = records[-1].train_loss <= min(record.train_loss for record in records[: epochs[-1]])
    after = "; it recovered" if recovered and records[-1].epoch > epochs[-1] else ""
    return Finding(
        name="loss spikes",
        epochs=tuple(epochs),
        evidence=" and ".join(evidence) + f"{lr_text([first])}{after}",
    )


def _jumps(records: Sequence[EpochRecord], classes: int, limits: Thresholds) -> list[EpochRecord]:
    """Return the epochs whose loss rose unusually, although the learning rate did not."""
    if len(records) < 4:
        return []
    pairs = list(pairwise(records))
    changes = _loss_changes(records, classes)
    # Relative to the changes around it, because the loss falls faster at the beginning.
    around = [np.delete(changes[max(0, n - 2) : n + 3], min(n, 2)) for n in range(len(changes))]
    unusual = changes - np.array([np.median(neighbors) for neighbors in around])
    deviation = 1.4826 * float(np.median(np.abs(unusual - np.median(unusual))))
    return [
        b
        for (a, b), change, excess in zip(pairs, changes, unusual, strict=True)
        if change > limits.spike_rise
        and (excess > limits.spike_sigmas * deviation or change > _LARGE_JUMP)
        and not b.lr > 1.2 * a.lr
    ]


def underfitting(records: Sequence[EpochRecord], classes: int, limits: Thresholds) -> Finding | None:
    """The run ended near the loss of a uniform guess, or while both losses were still falling fast."""
    last = records[-1] if records else None
    if last is None or last.epoch < last.epochs:
        return None
    guess = math.log(classes)
    # With mixup or label smoothing the training loss stays high; validation has neither.
    losses = [loss for loss in (last.train_loss, last.validation_loss) if loss is not None]
    if min(losses) > limits.underfitting_loss * guess:
        return Finding(
            name="underfitting",
            epochs=(last.epoch,),
            evidence=f"the loss ended at {min(losses):.3f}; a uniform guess has {guess:.3f}",
        )
    late = records[-max(3, len(records) // 5) :]
    if len(late) < 3 or last.validation_loss is None:
        return None
    train = _slope([record.train_loss for record in late])
    held_out = _slope([record.validation_loss or math.nan for record in late])
    if not (train < -0.03 and held_out < -0.03):
        return None
    return Finding.of(
        "underfitting",
        late,
        f"when the run ended, training loss was still falling by {-100 * math.expm1(train):.0f} % "
        f"per epoch and validation loss by {-100 * math.expm1(held_out):.0f} %",
    )


def periodicity(records: Sequence[EpochRecord], classes: int, limits: Thresholds) -> Finding | None:
    """The losses are periodic: their changes correlate with themselves at some lag.

    At least three periods are required; learning-rate drops are excluded. A slow trend correlates, too, but
    has no minimum of the autocorrelation at half the period.
    """
    if len(records) < 12:
        return None
    cyclical = _is_cyclical(records)
    moves = _changes(records, classes, with_jumps=cyclical)
    if moves.std() < limits.period_change:
        return None
    strength = _autocorrelation(moves)
    period = max(range(2, len(records) // 3 + 1), key=lambda lag: strength[lag])
    dip = strength[1:period].min()
    # A periodic signal correlates at twice the period, too, unlike noise and trends. The threshold is higher
    # for few epochs, where noise correlates by chance, unless a cyclical learning rate explains the period.
    threshold = limits.period_correlation
    if not cyclical:
        threshold = max(threshold, 3 / math.sqrt(len(moves)))
    if strength[period] < threshold or strength[2 * period] < 0.2 or dip > strength[period] - 0.5:
        return None
    return Finding.of(
        "periodicity",
        records,
        f"training loss repeats every {period} epochs (autocorrelation {strength[period]:.2f}, "
        f"changes of {100 * moves.std():.0f} %)",
    )


def _is_cyclical(records: Sequence[EpochRecord]) -> bool:
    """Return whether the learning rate rises repeatedly, which a warm-up does not."""
    rises = [b.lr > 1.5 * a.lr for a, b in pairwise(records)]
    return sum(rise and not before for before, rise in pairwise([True, *rises])) >= 2


def _loss_changes(records: Sequence[EpochRecord], classes: int) -> NDArray[np.float64]:
    """Return the changes of the logarithm of the training loss between epochs.

    A twentieth of a guess's loss is added, because small losses of memorized images vary by large factors.
    """
    losses = np.array([record.train_loss for record in records])
    return np.asarray(np.diff(np.log(losses.clip(min=0) + 0.05 * math.log(classes))))


def _changes(records: Sequence[EpochRecord], classes: int, *, with_jumps: bool) -> NDArray[np.float64]:
    """Return the changes of the loss between epochs, centered at their median and clipped.

    Args:
        records: the run.
        classes: number of classes.
        with_jumps: include changes at large changes of the learning rate.
    """
    changes = _loss_changes(records, classes)
    jumps = np.array(
        [not with_jumps and (b.lr > 1.5 * a.lr or b.lr < 0.67 * a.lr) for a, b in pairwise(records)]
    )
    center = float(np.median(changes[~jumps])) if (~jumps).any() else 0.0
    moves = np.where(jumps, 0.0, changes - center)
    # Without clipping, the steep fall of the first epochs would dominate.
    limit = 1.5 * float(np.quantile(np.abs(moves), 0.85))
    return np.asarray(np.clip(moves, -limit, limit))


def _autocorrelation(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the biased autocorrelation at each lag, which is damped at long lags."""
    values = values - values.mean()
    products = [float(values[lag:] @ values[: len(values) - lag]) for lag in range(len(values))]
    return np.array(products) / products[0]


def _slope(values: Sequence[float]) -> float:
    """Return the least-squares slope of the logarithm per epoch; 0 if a value is not positive."""
    if any(not value > 0 for value in values):
        return 0.0
    return float(np.polyfit(np.arange(len(values)), np.log(values), 1)[0])
