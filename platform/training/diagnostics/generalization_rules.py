"""Rules that compare training with validation: overfitting, generalization gap, random labels.

Each rule maps a run's records, the number of classes and the thresholds to a finding or None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median

from platform.common.text_format import percent
from platform.training.diagnostics.findings import Finding, late
from platform.training.diagnostics.thresholds import Thresholds
from platform.training.records import EpochRecord

_NO_IMPROVEMENT = 0.01


def overfitting(records: Sequence[EpochRecord], classes: int, limits: Thresholds) -> Finding | None:
    """Validation got worse while training improved, or training is far better than validation."""
    return _worsened(records, classes, limits) or _fitted(records, classes, limits)


def _worsened(records: Sequence[EpochRecord], classes: int, limits: Thresholds) -> Finding | None:
    held_out = [record for record in records if record.validation_loss is not None]
    if len(held_out) < 4:
        return None
    best, last = min(held_out, key=lambda record: record.validation_loss or 0), held_out[-1]
    risen = (last.validation_loss or 0) >= limits.overfitting_rise * (best.validation_loss or 0)
    fitted = last.train_loss < min(best.train_loss, limits.overfitting_loss * math.log(classes))
    if not (risen and fitted):
        return None
    return Finding.of(
        "overfitting",
        (record for record in held_out if record.epoch > best.epoch),
        f"validation loss rose from {best.validation_loss:.3f} (epoch {best.epoch}) to "
        f"{last.validation_loss:.3f} while training loss fell from {best.train_loss:.3f} to "
        f"{last.train_loss:.3f}",
    )


def _fitted(records: Sequence[EpochRecord], classes: int, limits: Thresholds) -> Finding | None:
    held_out = [record for record in records if record.validation_accuracy is not None]
    if len(held_out) < 4 or not _gap(late(held_out), classes, limits) >= limits.gap:
        return None
    fitted = [
        record
        for record in held_out
        if skill(record.train_accuracy, classes) >= limits.fitted_skill
        and _gap([record], classes, limits) >= limits.gap
    ]
    last = held_out[-1]
    if last not in fitted:
        return None
    reached = (last.validation_accuracy or 0.0) - _NO_IMPROVEMENT
    settled = next(record for record in fitted if (record.validation_accuracy or 0.0) >= reached)
    without_effect = (
        f"; since epoch {settled.epoch} a learning rate lowered from {settled.lr:.2g} to {last.lr:.2g} has "
        "not improved it"
    )
    return Finding.of(
        "overfitting",
        fitted,
        f"training accuracy is {percent(last.train_accuracy, 1)}, validation accuracy "
        f"{percent(last.validation_accuracy, 1)}{without_effect if last.lr < 0.1 * settled.lr else ''}",
    )


def gap(records: Sequence[EpochRecord], classes: int, limits: Thresholds) -> Finding | None:
    """Validation accuracy is far below training accuracy."""
    held_out = [record for record in records if record.validation_accuracy is not None]
    if len(held_out) < 4 or not _gap(late(held_out), classes, limits) >= limits.gap:
        return None
    last = held_out[-1]
    return Finding.of(
        "generalization gap",
        late(held_out),
        f"training accuracy is {percent(last.train_accuracy, 1)}, validation accuracy "
        f"{percent(last.validation_accuracy, 1)} in epoch {last.epoch}",
    )


def random_labels(records: Sequence[EpochRecord], classes: int, limits: Thresholds) -> Finding | None:
    """The labels were memorized: validation accuracy is chance, and so was that of the first epoch.

    In the first epoch every image is new, so its training accuracy shows whether labels can be predicted.
    """
    held_out = [record for record in records if record.validation_accuracy is not None]
    if len(held_out) < 4 or records[0].epoch != 1:
        return None
    last = late(held_out)
    validation = fmean(record.validation_accuracy or 0.0 for record in last)
    first = records[0]
    learned = skill(max(record.train_accuracy for record in last), classes) >= limits.memorized_skill
    # The accuracy of few images is noisy; their loss is another indication.
    allowed = limits.unlearned_skill * (2 if first.train_loss >= math.log(classes) else 1)
    # Below chance, the labels are predicted wrongly, so they are not random.
    unlearned = abs(skill(validation, classes)) <= limits.unlearned_skill
    if not (learned and unlearned and skill(first.train_accuracy, classes) <= allowed):
        return None
    return Finding.of(
        "random labels",
        records,
        f"training accuracy rose from {percent(first.train_accuracy, 1)} to "
        f"{percent(records[-1].train_accuracy, 1)}, and validation accuracy is {percent(validation, 1)}; "
        f"a guess has {percent(1 / classes, 1)}",
    )


def skill(accuracy: float, classes: int) -> float:
    """Return an accuracy on a scale where chance is 0 and all correct is 1."""
    return (accuracy - 1 / classes) / (1 - 1 / classes)


def _gap(held_out: Sequence[EpochRecord], classes: int, limits: Thresholds) -> float:
    """Return the part of the training skill that validation lacks, median; 0 if the difference is small."""
    gaps = []
    for record in held_out:
        training = skill(record.train_accuracy, classes)
        lacking = training - skill(record.validation_accuracy or 0.0, classes)
        gaps.append(lacking / training if lacking >= limits.gap_skill else 0.0)
    return median(gaps)
