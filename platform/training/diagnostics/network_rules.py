"""Rules over gradients, weights and activations.

Each rule maps a run's records, the number of classes and the thresholds to a finding or None. The network
probe measures the statistics; without them a rule reports nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from platform.common.text_format import percent
from platform.training.diagnostics.findings import Finding, late, lr_text
from platform.training.diagnostics.thresholds import Thresholds
from platform.training.records import EpochRecord

_STEEP = 70
"""First layer's gradient norm as a multiple of the last layer's (AUTOTRAINER)."""


def exploding(records: Sequence[EpochRecord], _: int, limits: Thresholds) -> Finding | None:
    """The gradient is large from the start, or far larger in the first layer than in the last one."""
    early = records[: max(2, len(records) // 2)]
    usual = median(record.grad_norm for record in early) if early else 0.0
    if usual >= limits.exploding_norm:
        large = [record for record in records if record.grad_norm >= limits.exploding_norm]
        return Finding.of(
            "exploding gradients",
            large,
            f"the gradient norm is {usual:,.3g} (median up to epoch {early[-1].epoch})",
        )
    steep = [
        record
        for record in records
        if record.first_grad_norm is not None
        and record.last_grad_norm
        and record.first_grad_norm > _STEEP * record.last_grad_norm
        and record.first_grad_norm > 1
    ]
    pairs = _consecutive(steep)
    if not pairs:
        return None
    worst = max(pairs, key=lambda record: (record.first_grad_norm or 0) / (record.last_grad_norm or 1))
    return Finding.of(
        "exploding gradients",
        pairs,
        f"the gradient of the first layer ({worst.first_grad_norm:.3g}) is "
        f"{(worst.first_grad_norm or 0) / (worst.last_grad_norm or 1):,.0f} times the last layer's "
        f"in epoch {worst.epoch}",
    )


def vanishing(records: Sequence[EpochRecord], classes: int, limits: Thresholds) -> Finding | None:
    """The first layer's gradient is tiny, also compared with the last layer's, in consecutive epochs.

    A run that has memorized its images has small gradients everywhere and is excluded.
    """
    weak = [
        record
        for record in records
        if record.first_grad_norm is not None
        and record.last_grad_norm is not None
        and record.first_grad_norm < limits.vanishing_norm
        and record.first_grad_norm < limits.vanishing_ratio * record.last_grad_norm
        and record.train_loss > 0.1 * math.log(classes)
    ]
    pairs = _consecutive(weak)
    if not pairs:
        return None
    worst = pairs[-1]
    return Finding.of(
        "vanishing gradients",
        pairs,
        f"the gradient of the first layer is {worst.first_grad_norm:.2g} in epoch {worst.epoch}, "
        f"that of the last layer is {worst.last_grad_norm:.2g}",
    )


def output_relu(records: Sequence[EpochRecord], _: int, limits: Thresholds) -> Finding | None:
    """Some outputs of the network are exactly zero, which those of a linear layer are not."""
    zero = [record for record in records if (record.zero_logits or 0.0) >= limits.zero_logits]
    if len(_consecutive(zero)) < len(records) // 2 or len(zero) < 2:
        return None
    last = zero[-1]
    return Finding.of(
        "ReLU on the output",
        zero,
        f"{percent(last.zero_logits, 0)} of the outputs are exactly zero in epoch {last.epoch}",
    )


def high_learning_rate(records: Sequence[EpochRecord], _: int, limits: Thresholds) -> Finding | None:
    """The weights grew far beyond their initialization in the first epochs."""
    early = [
        record
        for record in records[: max(2, len(records) // 10)]
        if (record.weight_scale or 0.0) >= limits.weight_scale
    ]
    if not early:
        return None
    last = early[-1]
    return Finding.of(
        "learning rate too high",
        early,
        f"the weights are {last.weight_scale:.1f} times as large as after initialization in epoch "
        f"{last.epoch}{lr_text(early)}",
    )


def dead_units(records: Sequence[EpochRecord], _: int, limits: Thresholds) -> Finding | None:
    """Many ReLU channels are zero for every image late in the run."""
    probed = [record for record in records if record.dead_units is not None]
    if len(probed) < 3 or median(record.dead_units or 0.0 for record in late(probed)) < limits.dead_share:
        return None
    first, last = probed[0], probed[-1]
    return Finding.of(
        "dead units",
        (record for record in probed if (record.dead_units or 0.0) >= limits.dead_share),
        f"{percent(last.dead_units, 0)} of the units are dead in epoch {last.epoch} "
        f"({percent(first.dead_units, 0)} in epoch {first.epoch})",
    )


def _consecutive(records: Sequence[EpochRecord]) -> list[EpochRecord]:
    """Return the records that follow one of the epoch before: a single probe may be an outlier."""
    return [b for a, b in pairwise(records) if b.epoch == a.epoch + 1]
