"""Shorten the runs of a sweep so that they still learn: fewer images, smaller batches, warm-up, no cutout.

All changes are returned with their reasons, so that the plan can show them before the sweep starts.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from platform.common.errors import UsageError
from platform.common.schema import Frozen, validate
from platform.space.settings import NoStopping
from platform.space.spec import SweepSpec

_FEW_STEPS = 450
"""Below this number of steps, the batch sizes of the space are too large."""
_WARM_UP_STEPS = 1000
"""Below this number of steps, a schedule without warm-up wastes a large part of the run."""
_PLATEAU_EPOCHS = 10
_CUTOUT_PASSES = 500_000
_STOPPING_EPOCHS = 6
_SHORT_RUN_EPOCHS = 15
_GRACE_SHARE, _GRACE_SHARE_OF_LONG_RUNS = 0.4, 0.2
"""Part of a run before a trial may be stopped. In the recorded learning curves of five epochs
(benchmarks/data/curves_4000_images.parquet), the rank correlation with the final mean accuracy is 0.59 after
a fifth of the run and 0.89 after two fifths."""
_REFERENCE_PASSES, _REFERENCE_BATCH = 6000, 32
"""ResNet-18 reaches 44 % in 6,000 image passes with batches of 32; with 128 it stays near chance."""

Values = dict[str, Any]


class PlannedChoice(Frozen):
    """One choice of a time-limited sweep."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class SweepSize:
    """Numbers of runs, and the length of each."""

    trials: int
    candidates: int
    seeds: int
    """Runs of each candidate on average, at most."""
    epochs: int
    train_images: int
    """Training images of each run."""
    validation_images: int

    @property
    def passes(self) -> int:
        """Images that one run trains on, counted once per epoch."""
        return self.epochs * self.train_images


def resized(
    spec: SweepSpec, size: SweepSize, *, full_epochs: int, full_images: int
) -> tuple[SweepSpec, tuple[PlannedChoice, ...]]:
    """Return `spec` with `size`, adapted to the length of its runs, and the choices that differ.

    Learning rates of SGD are scaled with the batch size (Goyal et al. 2017, arXiv:1706.02677), those of Adam
    and AdamW with its square root (Malladi et al. 2022, arXiv:2205.10287). Adaptations that the space does
    not allow are omitted. `full_epochs` and `full_images` are those of the longest run of `spec`.
    """
    values: Values = spec.to_dict()
    values["trials"] = size.trials
    values["confirm"] = spec.confirm.at_most(size.candidates, size.seeds).model_dump(mode="json")
    if size.trials < spec.trials:
        values["start_from"] = _starting_points(values["start_from"], most=max(2, size.trials // 3))
    short = size.passes < full_epochs * full_images
    if short:
        base = values["base"]
        base["epochs"], base["iterations"] = size.epochs, None
        if size.train_images < full_images:
            base["data"]["train_limit"] = size.train_images
        base["data"]["validation_size"] = size.validation_images
        for settings in (values["search"], *values["start_from"]):
            for length in ("epochs", "iterations"):
                settings.pop(length, None)
        values["scheduler"] = _early_stopping(values["scheduler"], size.epochs, full_epochs)
    result = validate(SweepSpec, values, source=spec.name)
    choices = _size_choices(spec, result, size, full_epochs=full_epochs, full_images=full_images)
    if short:
        for adapt in (_shrink_batches, _shorten_schedules, _remove_cutout):
            values = result.to_dict()
            choice = adapt(values, size)
            # A space that searches only cutout, say, or has three workers, does not allow every change.
            with suppress(UsageError):
                adapted = validate(SweepSpec, values, source=spec.name)
                if choice is not None and adapted != result:
                    result = adapted
                    choices.append(choice)
    return result, tuple(choices)


def _starting_points(points: list[Values], *, most: int) -> list[Values]:
    """Return at most `most` points in order: the first ones with each optimizer, then other early ones."""
    by_optimizer = {point.get("optimizer"): point for point in reversed(points)}
    first = list(by_optimizer.values())[::-1]
    others = [point for point in points if point not in first]
    kept = (first + others)[:most]
    return [point for point in points if point in kept]


def _early_stopping(scheduler: Values, epochs: int, full_epochs: int) -> Values:
    if epochs < _STOPPING_EPOCHS or scheduler["name"] == "none":
        return {"name": "none"}
    least = _GRACE_SHARE if epochs < _SHORT_RUN_EPOCHS else _GRACE_SHARE_OF_LONG_RUNS
    share = max(least, scheduler["grace_epochs"] / full_epochs)
    return scheduler | {"grace_epochs": math.ceil(share * epochs)}


def _size_choices(
    before: SweepSpec, after: SweepSpec, size: SweepSize, *, full_epochs: int, full_images: int
) -> list[PlannedChoice]:
    """Return the differences between two specs that the size explains."""
    short = size.passes < full_epochs * full_images
    stopping, images = after.scheduler, before.base.data.validation_size
    if isinstance(stopping, NoStopping):
        early, why = "none", "after so few epochs it would decide on noise"
    else:
        early = f"{stopping.name}, from epoch {stopping.grace_epochs}"
        why = "not earlier, when the ranks of short runs are still noise"
    instead = f"instead of {before.trials}: longer runs rank recipes better than more runs"
    choices = [
        (size.trials != before.trials, "trials", str(size.trials), instead),
        (
            short,
            "run",
            f"{size.epochs} epochs x {size.train_images:,} images",
            f"instead of {full_epochs} x {full_images:,}",
        ),
        (
            short and size.validation_images != images,
            "validation",
            f"{size.validation_images:,} images",
            f"instead of {images:,}: evaluation takes time too",
        ),
        (short and before.scheduler != stopping, "early stopping", early, why),
        (
            before.confirm != after.confirm,
            "confirmation",
            after.confirm.text(),
            f"instead of {before.confirm.text()}",
        ),
    ]
    return [
        PlannedChoice(name=name, value=value, reason=reason)
        for changed, name, value, reason in choices
        if changed
    ]


def _shrink_batches(values: Values, size: SweepSize) -> PlannedChoice | None:
    base, search = values["base"], values["search"]
    before = base["batch_size"]
    searched = search.get("batch_size", {}).get("choice", [before])
    largest = max(searched) if all(isinstance(number, int) for number in searched) else before
    if size.passes >= _FEW_STEPS * largest:
        return None
    scale = math.sqrt(size.passes / _REFERENCE_PASSES)
    batch = max(_REFERENCE_BATCH // 2, 2 ** math.floor(math.log2(_REFERENCE_BATCH * scale)))
    if batch >= before:
        return None
    name = base["optimizer"]["name"]
    for point in values["start_from"]:
        ratio = batch / point.get("batch_size", before)
        for path in point:
            if path.startswith("optimizer") and path.endswith("lr"):
                optimizer = path.split(".")[1] if path.count(".") == 2 else name
                point[path] = _scaled(point[path], _lr_factor(optimizer, ratio))
        if "batch_size" in point:
            point["batch_size"] = batch
    ratio = batch / before
    base["batch_size"] = batch
    base["optimizer"]["lr"] = _scaled(base["optimizer"]["lr"], _lr_factor(name, ratio))
    sizes = str(batch)
    if "batch_size" in search:
        search["batch_size"] = {"choice": [batch, 2 * batch]}
        sizes = f"{batch} or {2 * batch}"
    if "optimizer.lr" in search:
        search["optimizer.lr"] = _scaled(search["optimizer.lr"], _lr_factor(name, ratio))
    for option in search.get("optimizer", ()):
        option["lr"] = _scaled(option["lr"], _lr_factor(option["name"], ratio))
    steps, few = size.passes // batch, size.passes // largest
    return PlannedChoice(
        name="batch size",
        value=sizes,
        reason=f"{steps:,} steps; {few:,} at {largest}. Learning rates scaled: SGD x {ratio:g}, "
        f"Adam x {math.sqrt(ratio):.2g}",
    )


def _lr_factor(optimizer: str, ratio: float) -> float:
    return ratio if optimizer == "sgd" else math.sqrt(ratio)


def _scaled(entry: Any, factor: float) -> Any:
    """Scale a learning rate, or the numbers of its distribution."""
    if isinstance(entry, dict):
        return {kind: [_rounded(number * factor) for number in numbers] for kind, numbers in entry.items()}
    return _rounded(entry * factor)


def _rounded(lr: float) -> float:
    return float(f"{lr:.3g}")


def _shorten_schedules(values: Values, size: SweepSize) -> PlannedChoice | None:
    base, search, points = values["base"], values["search"], values["start_from"]
    unsuitable: dict[str, str] = {}
    if size.passes < _WARM_UP_STEPS * base["batch_size"]:
        unsuitable["cosine"] = "cosine has no warm-up"
    if size.epochs < _PLATEAU_EPOCHS:
        unsuitable["plateau"] = "plateau would never act"
    triangular = {"name": "triangular"}
    replaced = {base["schedule"]["name"]} & set(unsuitable)
    if replaced:
        base["schedule"] = triangular
    options = search.get("schedule")
    if options is not None:
        replaced |= {option["name"] for option in options} & set(unsuitable)
        if replaced:
            _replace_options(base, search, points, unsuitable, triangular)
    if not replaced:
        return None
    reasons = ", ".join(reason for name, reason in unsuitable.items() if name in replaced)
    left = [option["name"] for option in search.get("schedule", [base["schedule"]])]
    return PlannedChoice(name="schedule", value=" or ".join(left), reason=reasons)


def _replace_options(
    base: Values, search: Values, points: list[Values], unsuitable: dict[str, str], triangular: Values
) -> None:
    own = [option for option in search["schedule"] if option["name"] == "triangular"]
    kept = [option for option in search["schedule"] if option["name"] not in ("triangular", *unsuitable)]
    names = {option["name"] for option in (*own, *kept)}
    for point in points:
        if "schedule" in point and point["schedule"] not in names:
            point["schedule"] = "triangular"
        for path in [
            path for path in point if path.startswith("schedule.") and path.split(".")[1] not in names
        ]:
            del point[path]
    search["schedule"] = [*(own or [triangular]), *kept]
    if not kept:
        base["schedule"] = (own or [triangular])[0]
        del search["schedule"]
        for point in points:
            point.pop("schedule", None)


def _remove_cutout(values: Values, size: SweepSize) -> PlannedChoice | None:
    if size.passes >= _CUTOUT_PASSES:
        return None
    values["base"]["augment"]["cutout"]["length"] = 0
    for settings in (values["search"], *values["start_from"]):
        for path in [path for path in settings if path.startswith("augment.cutout")]:
            del settings[path]
    return PlannedChoice(name="cutout", value="none", reason="it helps only in longer runs")
