"""Rules over loss and learning rate: divergence, spikes, overfitting, underfitting, periodicity.

Each rule maps a run's records and the number of classes to a finding or None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

import numpy as np
from numpy.typing import NDArray

from platform.training.diagnostics.findings import Finding, format_epochs, peak_lr
from platform.training.records import EpochRecord


def divergence(records: Sequence[EpochRecord], classes: int) -> Finding | None:
    """The last loss is 1.9 times the lowest one, and higher by a tenth of a uniform guess's loss."""
    if len(records) < 2:
        return None
    best, last = min(records, key=lambda record: record.train_loss), records[-1]
    if last.train_loss < 1.9 * best.train_loss or last.train_loss - best.train_loss < 0.1 * math.log(classes):
        return None
    return Finding(
        name="divergence",
        epochs=(last.epoch,),
        evidence=(
            f"training loss ended at {last.train_loss:.3f}, after {best.train_loss:.3f} in epoch {best.epoch}"
        ),
        advice=f"a lower optimizer.lr (here {peak_lr(records):g} at most), a warm-up, clip_grad_norm: 1",
    )


def spikes(records: Sequence[EpochRecord], _: int) -> Finding | None:
    """The loss spiked within an epoch, or an epoch's mean is 50 % above the median of the five before."""
    within = [record for record in records if record.loss_spikes]
    between = []
    for number, record in enumerate(records):
        before = [earlier.train_loss for earlier in records[max(0, number - 5) : number]]
        if len(before) >= 2 and record.train_loss > 1.5 * median(before) + 0.1:
            between.append(record)
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
        evidence.append(f"{format_epochs(between)} had a mean loss 50 % above the preceding epochs")
    recovered = records[-1].train_loss <= min(record.train_loss for record in records[: epochs[-1]])
    after = "; it recovered" if recovered and records[-1].epoch > epochs[-1] else ""
    return Finding(
        name="loss spikes",
        epochs=tuple(epochs),
        evidence=" and ".join(evidence) + f" (learning rate {first.lr:.3g}){after}",
        advice="clip_grad_norm: 1, a warm-up (schedule.warmup_epochs: 1), a lower optimizer.lr",
    )


def overfitting(records: Sequence[EpochRecord], _: int) -> Finding | None:
    """The last validation loss is 20 % above its minimum, and training loss has fallen since."""
    held_out = [record for record in records if record.validation_loss is not None]
    if len(held_out) < 4:
        return None
    best, last = min(held_out, key=lambda record: record.validation_loss or 0), held_out[-1]
    risen = (last.validation_loss or 0) > 1.2 * (best.validation_loss or 0)
    if not risen or last.train_loss >= best.train_loss:
        return None
    return Finding(
        name="overfitting",
        epochs=tuple(record.epoch for record in held_out if record.epoch > best.epoch),
        evidence=(
            f"validation loss rose from {best.validation_loss:.3f} (epoch {best.epoch}) to "
            f"{last.validation_loss:.3f} while training loss fell from {best.train_loss:.3f} to "
            f"{last.train_loss:.3f}"
        ),
        advice="more augmentation (augment.cutout, augment.mixup), more weight decay, fewer epochs",
    )


def underfitting(records: Sequence[EpochRecord], classes: int) -> Finding | None:
    """The run ended near the loss of a uniform guess, or while both losses were still falling fast."""
    last = records[-1] if records else None
    if last is None or last.epoch < last.epochs:
        return None
    guess = math.log(classes)
    if last.train_loss > 0.95 * guess:
        return Finding(
            name="underfitting",
            epochs=(last.epoch,),
            evidence=f"training loss ended at {last.train_loss:.3f}; a uniform guess has {guess:.3f}",
            advice="more epochs, another optimizer.lr, less augmentation",
        )
    late = records[-max(3, len(records) // 5) :]
    if len(late) < 3 or last.validation_loss is None:
        return None
    train = _slope([record.train_loss for record in late])
    held_out = _slope([record.validation_loss or math.nan for record in late])
    if not (train < -0.03 and held_out < -0.03):
        return None
    return Finding(
        name="underfitting",
        epochs=tuple(record.epoch for record in late),
        evidence=(
            f"when the run ended, training loss was still falling by {-100 * math.expm1(train):.0f} % "
            f"per epoch and validation loss by {-100 * math.expm1(held_out):.0f} %"
        ),
        advice="more epochs",
    )


def periodicity(records: Sequence[EpochRecord], _: int) -> Finding | None:
    """The losses are periodic: their changes have an autocorrelation of at least 0.5 at some lag.

    At least three periods and changes of 3 % are required; learning-rate drops are excluded. A slow trend
    correlates, too, but has no minimum of the autocorrelation at half the period.
    """
    if len(records) < 12 or any(not record.train_loss > 0 for record in records):
        return None
    moves = _changes(records)
    if moves.std() < 0.03:
        return None
    strength = _autocorrelation(moves)
    period = max(range(2, len(records) // 3 + 1), key=lambda lag: strength[lag])
    dip = strength[1:period].min()
    # A periodic signal correlates at twice the period, too, unlike noise and trends. The threshold is higher
    # for few epochs, where noise correlates by chance.
    threshold = max(0.5, 3 / math.sqrt(len(moves)))
    if strength[period] < threshold or strength[2 * period] < 0.2 or dip > strength[period] - 0.5:
        return None
    return Finding(
        name="periodicity",
        epochs=tuple(record.epoch for record in records),
        evidence=(
            f"training loss repeats every {period} epochs (autocorrelation {strength[period]:.2f}, "
            f"changes of {100 * moves.std():.0f} %)"
        ),
        advice=(
            "a learning rate that falls to zero: with batch normalization and weight decay a constant one "
            "can destabilize the weights repeatedly"
        ),
    )


def _changes(records: Sequence[EpochRecord]) -> NDArray[np.float64]:
    """Return the changes of log(training loss) between epochs, centered at their median and clipped."""
    pairs = list(pairwise(records))
    changes = np.array([math.log(b.train_loss / a.train_loss) for a, b in pairs])
    jumps = np.array([not 0.67 < (b.lr / a.lr if a.lr else 1.0) < 1.5 for a, b in pairs])
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
