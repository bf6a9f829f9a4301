"""The findings of a diagnosis: their severity, cause and remedy, and which ones explain others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from platform.common.errors import UserError
from platform.training.records import EpochRecord

Phenomenon = Literal[
    "divergence",
    "exploding gradients",
    "vanishing gradients",
    "ReLU on the output",
    "learning rate too high",
    "random labels",
    "dead units",
    "loss of plasticity",
    "periodicity",
    "overfitting",
    "generalization gap",
    "loss spikes",
    "underfitting",
]
Severity = Literal["serious", "warning", "hint"]


class Description(NamedTuple):
    """Severity, cause and remedies of a phenomenon."""

    severity: Severity
    """`serious`: the result of the run is not usable; `hint`: the rule is often wrong."""
    cause: str
    """Why it happens, with the source; without a full stop."""
    advice: str
    """Remedies, without a full stop."""
    explains: tuple[Phenomenon, ...]
    """Phenomena that it causes, and that are not reported with it."""


_SYMPTOMS: tuple[Phenomenon, ...] = (
    "loss spikes",
    "underfitting",
    "dead units",
    "overfitting",
    "generalization gap",
)

DESCRIPTIONS: Mapping[Phenomenon, Description] = {
    "divergence": Description(
        "serious",
        "steps larger than the curvature of the loss allows increase it (Cohen et al. 2021, "
        "arXiv:2103.00065: unstable above 2 / learning rate)",
        "a lower learning rate, a warm-up, gradient clipping",
        (*_SYMPTOMS, "vanishing gradients"),
    ),
    "exploding gradients": Description(
        "serious",
        "each layer multiplies the gradient; without normalization, large initial weights make it grow "
        "exponentially with depth (Glorot and Bengio 2010; He et al. 2015, arXiv:1502.01852)",
        "He initialization, batch normalization, gradient clipping",
        (*_SYMPTOMS, "divergence", "learning rate too high", "random labels"),
    ),
    "vanishing gradients": Description(
        "serious",
        "each layer multiplies the gradient by a factor below 1, as saturated sigmoids do, so the first "
        "layers hardly learn (Glorot and Bengio 2010; thresholds: Zhang et al. 2021, AUTOTRAINER)",
        "ReLU, batch normalization, shortcuts, He initialization, less weight decay",
        ("underfitting", "dead units"),
    ),
    "ReLU on the output": Description(
        "serious",
        "an activation after the classifier sets negative logits to zero; these classes get no gradient and "
        "cannot be ruled out by the softmax",
        "remove the activation after the last layer",
        (
            "underfitting",
            "dead units",
            "learning rate too high",
            "generalization gap",
            "vanishing gradients",
            "exploding gradients",
            "loss spikes",
        ),
    ),
    "learning rate too high": Description(
        "serious",
        "the first steps moved the weights far beyond their initialization; Adam moves every weight by about "
        "the learning rate per step (Kingma and Ba 2015, section 2.1)",
        "a lower learning rate, a warm-up",
        ("dead units", "underfitting", "loss spikes", "vanishing gradients", "divergence"),
    ),
    "random labels": Description(
        "serious",
        "a network can memorize labels that do not belong to its images, but not predict others "
        "(Zhang et al. 2017, arXiv:1611.03530)",
        "check that images and labels are in the same order, and the label files",
        ("overfitting", "generalization gap", "underfitting"),
    ),
    "dead units": Description(
        "warning",
        "a ReLU whose input is negative for every image gives no output and gets no gradient; large steps or "
        "a negative bias cause it (Maas et al. 2013)",
        "a lower learning rate or a warm-up, other initial biases",
        ("underfitting",),
    ),
    "loss of plasticity": Description(
        "hint",
        "a network that was trained on changing targets learns new ones worse than a new network does "
        "(Dohare et al. 2024, Nature 632)",
        "a new initialization for each task, weight decay, a lower learning rate",
        (*_SYMPTOMS, "periodicity", "divergence", "random labels"),
    ),
    "periodicity": Description(
        "hint",
        "the loss follows a cycle of the learning rate, or images in a fixed order; batch normalization with "
        "weight decay at a constant rate can cause it, too (Lobacheva et al. 2021, arXiv:2106.15739)",
        "shuffled images, a learning rate that falls to zero",
        (*_SYMPTOMS, "divergence", "random labels"),
    ),
    "overfitting": Description(
        "warning",
        "the network fits details of its training images that others do not have",
        "more images or augmentation, more weight decay, fewer epochs",
        ("generalization gap",),
    ),
    "generalization gap": Description(
        "warning",
        "training and validation images differ, as with another normalization or transform, or the images "
        "are too few for the network",
        "the same normalization for both splits, more images or augmentation",
        (),
    ),
    "loss spikes": Description(
        "warning",
        "a bad batch or a step that is too large; spikes that recover cost time, frequent ones precede "
        "divergence (Chowdhery et al. 2022, arXiv:2204.02311, section 5.1)",
        "gradient clipping, a warm-up, a lower learning rate",
        (),
    ),
    "underfitting": Description(
        "warning",
        "the network is too small, the learning rate too low, or the run too short",
        "more epochs, another learning rate, a larger network, less augmentation",
        (),
    ),
}
"""All phenomena, the most serious first."""


class TrainingDiverged(UserError):  # noqa: N818 - the name of an event, shown by sweeps
    """A loss, a gradient or the weights of a run became NaN or infinite."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One phenomenon detected in one run."""

    name: Phenomenon
    epochs: tuple[int, ...]
    """Affected epochs, from 1."""
    evidence: str
    """The measured values: a sentence without its full stop."""

    @classmethod
    def of(cls, name: Phenomenon, records: Iterable[EpochRecord], evidence: str) -> Finding:
        """Return the finding of a phenomenon in the epochs of `records`."""
        return cls(name=name, epochs=tuple(record.epoch for record in records), evidence=evidence)

    @property
    def title(self) -> str:
        """Its name, with `possible` before that of a hint."""
        return f"possible {self.name}" if self.severity == "hint" else self.name

    @property
    def severity(self) -> Severity:
        return DESCRIPTIONS[self.name].severity

    @property
    def cause(self) -> str:
        """Why it happens, with the source."""
        return DESCRIPTIONS[self.name].cause

    @property
    def advice(self) -> str:
        """Remedies to try; `platform.training.diagnostics.remedies` has them as settings."""
        return DESCRIPTIONS[self.name].advice

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "severity": self.severity, "cause": self.cause, "advice": self.advice}

    def __str__(self) -> str:
        return f"{self.title}: {self.evidence}. Try: {self.advice}."


def without_symptoms(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return the findings that no other one explains, the most serious first."""
    explained = {name for finding in findings for name in DESCRIPTIONS[finding.name].explains}
    causes = [name for name in DESCRIPTIONS if name not in explained]
    return tuple(finding for name in causes for finding in findings if finding.name == name)


def late(records: Sequence[EpochRecord]) -> Sequence[EpochRecord]:
    """Return the last third of a run, at least three epochs."""
    return records[-max(3, len(records) // 3) :]


def lr_text(records: Sequence[EpochRecord]) -> str:
    """Return ` (learning rate up to 0.1)`, or an empty string if it is unknown."""
    highest = max(record.lr for record in records)
    return f" (learning rate up to {highest:.3g})" if math.isfinite(highest) else ""


def format_epochs(records: Sequence[EpochRecord]) -> str:
    """Return `epoch 3` or `epochs 3, 5, 8`, with at most four numbers."""
    numbers = [str(record.epoch) for record in records[:4]]
    more = ", ..." if len(records) > len(numbers) else ""
    return f"epoch{'' if len(records) == 1 else 's'} {', '.join(numbers)}{more}"
