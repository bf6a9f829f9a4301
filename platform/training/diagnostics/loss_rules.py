"""Rules over the curves of loss and learning rate: divergence, spikes, over- and underfitting, periodicity.

Each returns a finding or None, given a run's records and the number of classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

import numpy as np
from numpy.typing import NDArray

from platform.training.diagnostics.findings import Finding, listed, peak_lr
from platform.training.records import EpochRecord


def divergence(records: Sequence[EpochRecord], classes: int) -> Finding | None:
    """The loss ends well above what the run had reached (1.9 times, and a tenth of a guess's loss)."""
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
    """The loss leapt within an epoch, or an epoch's mean lies half above the five before it."""
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
    told = []
    if within:
        count = sum(record.loss_spikes or 0 for record in within)
        told.append(f"the loss leapt {'once' if count == 1 else f'{count} times'} within {listed(within)}")
    if between:
        told.append(f"{listed(between)} had a mean loss half above that of the epochs before")
    came_back = records[-1].train_loss <= min(record.train_loss for record in records[: epochs[-1]])
    after = "; it recovered" if came_back and records[-1].epoch > epochs[-1] else ""
    return Finding(
        name="loss spikes",
        epochs=tuple(epochs),
        evidence=" and ".join(told) + f" (learning rate {first.lr:.3g}){after}",
        advice="clip_grad_norm: 1, a warm-up (schedule.warmup_epochs: 1), a lower optimizer.lr",
    )


def overfitting(records: Sequence[EpochRecord], _: int) -> Finding | None:
    """Validation loss ends a fifth above its own minimum while training loss has fallen since."""
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
    """The run is over and has learned nearly nothing, or both losses were still falling fast."""
    last = records[-1] if records else None
    if last is None or last.epoch < last.epochs:
        return None
    guess = math.log(classes)
    if last.train_loss > 0.95 * guess:
        return Finding(
            name="underfitting",
            epochs=(last.epoch,),
            evidence=f"training loss ended at {last.train_loss:.3f}; guessing gives {guess:.3f}",
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
    """The epochs' losses repeat: their changes have an autocorrelation of 0.5 or more at some lag.

    Over three periods at least, by three per cent at least; jumps of the learning rate are left out. A slow
    trend correlates too, but without the dip that a period has at half its length.
    """
    if len(records) < 12 or any(not record.train_loss > 0 for record in records):
        return None
    moves = _changes(records)
    if moves.std() < 0.03:
        return None
    strength = _autocorrelation(moves)
    period = max(range(2, len(records) // 3 + 1), key=lambda lag: strength[lag])
    dip = strength[1:period].min()
    # What repeats does so a second time; chance and trends do not. Of few values chance makes a lot.
    least = max(0.5, 3 / math.sqrt(len(moves)))
    if strength[period] < least or strength[2 * period] < 0.2 or dip > strength[period] - 0.5:
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
            "can destabilise the weights again and again"
        ),
    )


def _changes(records: Sequence[EpochRecord]) -> NDArray[np.float64]:
    """Return the changes of log(training loss) from epoch to epoch around their median, outliers cut."""
    pairs = list(pairwise(records))
    changes = np.array([math.log(b.train_loss / a.train_loss) for a, b in pairs])
    jumps = np.array([not 0.67 < (b.lr / a.lr if a.lr else 1.0) < 1.5 for a, b in pairs])
    center = float(np.median(changes[~jumps])) if (~jumps).any() else 0.0
    moves = np.where(jumps, 0.0, changes - center)
    # The fall of the first epochs is no period.
    most = 1.5 * float(np.quantile(np.abs(moves), 0.85))
    return np.asarray(np.clip(moves, -most, most))


def _autocorrelation(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the autocorrelation at each lag; n - lag of n products, so that long lags must be strong."""
    values = values - values.mean()
    products = [float(values[lag:] @ values[: len(values) - lag]) for lag in range(len(values))]
    return np.array(products) / products[0]


def _slope(values: Sequence[float]) -> float:
    """Return the mean change of the logarithm per epoch, by least squares; 0 where there is none."""
    if any(not value > 0 for value in values):
        return 0.0
    return float(np.polyfit(np.arange(len(values)), np.log(values), 1)[0])
