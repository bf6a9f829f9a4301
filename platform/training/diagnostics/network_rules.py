"""Rules over gradients and activations: exploding and vanishing gradients, loss of plasticity.

Each rule maps a run's records and the number of classes to a finding or None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from platform.common.text_format import percent
from platform.training.diagnostics.findings import Finding, peak_lr
from platform.training.records import EpochRecord


def exploding(records: Sequence[EpochRecord], _: int) -> Finding | None:
    """The first layer's gradient exceeds 70 times the last layer's, or a step's 10 times the usual norm."""
    steep = [
        record
        for record in records
        if record.first_grad_norm is not None
        and record.last_grad_norm
        and record.first_grad_norm > 70 * record.last_grad_norm
        and record.first_grad_norm > 1
    ]
    # A single probe may be an outlier, so two consecutive epochs are required.
    pairs = [b for a, b in pairwise(steep) if b.epoch == a.epoch + 1]
    if pairs:
        worst = max(pairs, key=lambda record: (record.first_grad_norm or 0) / (record.last_grad_norm or 1))
        return Finding(
            name="exploding gradients",
            epochs=tuple(record.epoch for record in pairs),
            evidence=(
                f"the gradient of the first layer ({worst.first_grad_norm:.3g}) is "
                f"{(worst.first_grad_norm or 0) / (worst.last_grad_norm or 1):,.0f} times the last layer's "
                f"in epoch {worst.epoch}"
            ),
            advice="clip_grad_norm: 1, a warm-up, a lower optimizer.lr",
        )
    for number, record in enumerate(records):
        before = [earlier.grad_norm for earlier in records[max(0, number - 5) : number]]
        if len(before) < 3 or record.grad_norm_max is None:
            continue
        usual = median(before)
        if record.grad_norm_max > 10 * usual and record.grad_norm > 2 * usual:
            return Finding(
                name="exploding gradients",
                epochs=(record.epoch,),
                evidence=(
                    f"a step of epoch {record.epoch} had a gradient norm of {record.grad_norm_max:.3g}, "
                    f"compared with {usual:.3g} in the epochs before"
                ),
                advice="clip_grad_norm: 1, a warm-up, a lower optimizer.lr",
            )
    return None


def vanishing(records: Sequence[EpochRecord], classes: int) -> Finding | None:
    """The first layer's gradient is below 1e-4 and 0.001 times the last layer's, twice in a row.

    A run that has memorized its images has small gradients everywhere and is excluded.
    """
    weak = [
        record
        for record in records
        if record.first_grad_norm is not None
        and record.last_grad_norm is not None
        and record.first_grad_norm < 1e-4
        and record.first_grad_norm < 1e-3 * record.last_grad_norm
        and record.train_loss > 0.1 * math.log(classes)
    ]
    pairs = [b for a, b in pairwise(weak) if b.epoch == a.epoch + 1]
    if not pairs:
        return None
    worst = pairs[-1]
    return Finding(
        name="vanishing gradients",
        epochs=tuple(record.epoch for record in pairs),
        evidence=(
            f"the gradient of the first layer is {worst.first_grad_norm:.2g} in epoch {worst.epoch}, "
            f"that of the last layer is {worst.last_grad_norm:.2g}"
        ),
        advice="a lower optimizer.weight_decay, a shallower network, a different initialization",
    )


def plasticity(records: Sequence[EpochRecord], _: int) -> Finding | None:
    """Units die or features collapse, and training accuracy stagnates, although the learning rate is high."""
    probed = [record for record in records if record.dead_units is not None]
    if len(probed) < 6:
        return None
    last, first = probed[-1], probed[0]
    late = records[-max(3, len(records) // 3) :]
    gained = max(record.train_accuracy for record in late) - late[0].train_accuracy
    if gained > 0.005 or last.train_accuracy > 0.98 or last.lr < 0.01 * peak_lr(records):
        return None
    dead, at_first = last.dead_units or 0.0, first.dead_units or 0.0
    widest = max(probed, key=lambda record: record.feature_rank or 0.0)
    rank, largest_rank = last.feature_rank or 0.0, widest.feature_rank or 0.0
    if dead > 0.25 and dead > at_first + 0.15:
        seen = f"{percent(dead, 0)} of the units are dead ({percent(at_first, 0)} in epoch {first.epoch})"
    elif rank < 0.5 * largest_rank:
        seen = f"the effective rank of the features fell from {largest_rank:.1f} to {rank:.1f}"
    else:
        return None
    stagnation = f"training accuracy has stayed at {percent(last.train_accuracy, 1)} for {len(late)} epochs"
    return Finding(
        name="loss of plasticity",
        epochs=tuple(record.epoch for record in late),
        evidence=f"{seen}, and {stagnation}",
        advice="a lower optimizer.lr or a warm-up (units die in large steps), more weight decay",
    )
