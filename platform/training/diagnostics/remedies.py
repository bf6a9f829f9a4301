"""Remedies of a finding as settings: what to change in the configuration of the run that has it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from platform.training.config import RunConfig
from platform.training.diagnostics.findings import Finding, Phenomenon
from platform.training.records import EpochRecord

_SMALLER_STEPS: frozenset[Phenomenon] = frozenset(
    {"divergence", "exploding gradients", "learning rate too high", "loss spikes", "dead units"}
)
_USUAL_ADAM_LR, _LR_FACTOR = 3e-3, 3.0
_WEIGHT_DECAY = 5e-4


def remedies(finding: Finding, config: RunConfig, records: Sequence[EpochRecord]) -> tuple[str, ...]:
    """Return options for `--set` that may remove a finding, such as `optimizer.lr=0.033`; the best first.

    Settings that the run has already are not suggested. Empty if no setting helps, as for wrong labels.
    """
    options: dict[str, Any] = {}
    if finding.name in _SMALLER_STEPS:
        options = _smaller_steps(finding, config)
    elif finding.name in ("overfitting", "generalization gap"):
        options = _regularization(finding, config, records)
    elif finding.name == "underfitting":
        options = _more_training(finding, config, records)
    elif finding.name == "vanishing gradients":
        options = {"optimizer.weight_decay": 0.0} if config.optimizer.weight_decay > _WEIGHT_DECAY else {}
    elif finding.name == "periodicity" and config.schedule.name in ("constant", "plateau"):
        options = {"schedule": {"name": "cosine"}}
    elif finding.name == "loss of plasticity":
        options = {"optimizer.lr": _rounded(config.optimizer.lr / _LR_FACTOR)}
        if config.optimizer.weight_decay < _WEIGHT_DECAY:
            options["optimizer.weight_decay"] = _WEIGHT_DECAY
    return tuple(f"{path}={_text(value)}" for path, value in options.items())


def _smaller_steps(finding: Finding, config: RunConfig) -> dict[str, Any]:
    lr = config.optimizer.lr / _LR_FACTOR
    too_high_for_adam = config.optimizer.name != "sgd" and lr > _USUAL_ADAM_LR
    lower = {"optimizer.lr": _USUAL_ADAM_LR if too_high_for_adam else _rounded(lr)}
    options: dict[str, Any] = {}
    if config.clip_grad_norm is None and finding.name != "dead units":
        options["clip_grad_norm"] = 1
    if getattr(config.schedule, "warmup_epochs", None) == 0:
        options["schedule.warmup_epochs"] = max(1, round(0.05 * (config.epochs or 20)))
    return {**options, **lower} if finding.name == "loss spikes" else {**lower, **options}


def _regularization(finding: Finding, config: RunConfig, records: Sequence[EpochRecord]) -> dict[str, Any]:
    augment, options = config.augment, dict[str, Any]()
    if config.data.name != "image_folder":
        if augment.crop_padding == 0:
            options["augment.crop_padding"] = 4
        if not augment.flip:
            options["augment.flip"] = True
        if augment.cutout.length == 0:
            options["augment.cutout.length"] = 8
        elif not augment.mixup:
            options["augment.mixup"] = 0.2
    if config.optimizer.weight_decay < _WEIGHT_DECAY:
        options["optimizer.weight_decay"] = _WEIGHT_DECAY
    if finding.name == "overfitting" and config.epochs is not None:
        held_out = [record for record in records if record.validation_loss is not None]
        best = min(held_out, key=lambda record: record.validation_loss or 0.0, default=None)
        if best is not None and best.epoch < config.epochs:
            options["epochs"] = best.epoch
    return options


def _more_training(finding: Finding, config: RunConfig, records: Sequence[EpochRecord]) -> dict[str, Any]:
    longer: dict[str, Any] = (
        {"epochs": 2 * config.epochs} if config.epochs else {"iterations": 2 * (config.iterations or 1)}
    )
    if len(finding.epochs) > 1:  # both losses were still falling
        return longer
    # Near the loss of a guess: steps that hardly change the weights leave the loss where it was.
    unchanged = len(records) > 1 and records[-1].train_loss > 0.98 * records[0].train_loss
    higher = {"optimizer.lr": _rounded(config.optimizer.lr * 10)}
    augment = config.augment
    less = {"augment.mixup": 0.0} if augment.mixup else {"augment.cutmix": 0.0} if augment.cutmix else {}
    return {**higher, **longer, **less} if unchanged else {**longer, **higher, **less}


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def _text(value: Any) -> str:
    """Return a value in the YAML that `--set` parses."""
    return json.dumps(value) if isinstance(value, bool | Mapping) else f"{value:g}"
