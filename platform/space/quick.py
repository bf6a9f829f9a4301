"""The `--quick` variant of a sweep: all stages in minutes, with short runs whose accuracy still rises."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

from platform.common.errors import UsageError
from platform.common.schema import validate
from platform.space.spec import SweepSpec

TRIALS = 4
EPOCHS = 3
TRAIN_IMAGES = 2000
BATCH_SIZES = (32, 64)
"""188 and 94 steps in three epochs on 2,000 images; with 128 and more a ResNet-18 stays near chance."""
CHANGES = (
    f"quick sweep: {TRIALS} trials of {EPOCHS} epochs on {TRAIN_IMAGES:,} images, 1 candidate, 1 seed",
    f"quick sweep: batch sizes {BATCH_SIZES[0]} and {BATCH_SIZES[1]}, with scaled learning rates",
    "quick sweep: triangular instead of cosine, for its warm-up; no plateau schedule, which would never act",
    "quick sweep: no cutout, which needs longer runs; no early stopping, which would decide on noise",
    "quick sweep: changes that this space does not allow are omitted",
)
"""The differences from the full sweep, for the plan."""


def quick_variant(spec: SweepSpec) -> SweepSpec:
    """Return a short version of `spec` with all stages and the differences in `CHANGES`.

    The first and the last starting point remain: by convention the standard recipe and the one that differs
    most from it. Learning rates of SGD are scaled with the batch size (Goyal et al. 2017, arXiv:1706.02677),
    those of Adam and AdamW with its square root (Malladi et al. 2022, arXiv:2205.10287).
    """
    values: dict[str, Any] = spec.to_dict()
    base, search = values["base"], values["search"]
    base["data"]["train_limit"] = min(base["data"]["train_limit"] or TRAIN_IMAGES, TRAIN_IMAGES)
    base["epochs"] = min(base["epochs"] or EPOCHS, EPOCHS)
    base["iterations"] = None
    values["trials"] = min(spec.trials, TRIALS)
    values["start_from"] = values["start_from"][:1] + values["start_from"][1:][-1:]
    values["scheduler"] = {"name": "none"}
    values["confirm"] |= {"candidates": 1, "seeds": 1}
    for length in ("epochs", "iterations"):
        search.pop(length, None)
        for point in values["start_from"]:
            point.pop(length, None)
    quick = validate(SweepSpec, values, source=f"{spec.name} --quick")
    for adapt in (_shrink_batches, _shorten_schedules, _remove_cutout):
        values = quick.to_dict()
        adapt(values["base"], values["search"], values["start_from"])
        # A space that searches only cutout, say, or has three workers, does not allow every change.
        with suppress(UsageError):
            quick = validate(SweepSpec, values, source=f"{spec.name} --quick")
    return quick


def _shrink_batches(base: dict[str, Any], search: dict[str, Any], points: list[dict[str, Any]]) -> None:
    before = base["batch_size"]
    if before <= max(BATCH_SIZES):
        return
    name = base["optimizer"]["name"]
    for point in points:
        ratio = BATCH_SIZES[0] / point.get("batch_size", before)
        for path in point:
            if path.startswith("optimizer") and path.endswith("lr"):
                optimizer = path.split(".")[1] if path.count(".") == 2 else name
                point[path] *= _lr_factor(optimizer, ratio)
        if "batch_size" in point:
            point["batch_size"] = BATCH_SIZES[0]
    ratio = BATCH_SIZES[0] / before
    base["batch_size"] = BATCH_SIZES[0]
    base["optimizer"]["lr"] *= _lr_factor(name, ratio)
    if "batch_size" in search:
        search["batch_size"] = {"choice": list(BATCH_SIZES)}
    if "optimizer.lr" in search:
        search["optimizer.lr"] = _scaled(search["optimizer.lr"], _lr_factor(name, ratio))
    for option in search.get("optimizer", ()):
        option["lr"] = _scaled(option["lr"], _lr_factor(option["name"], ratio))


def _lr_factor(optimizer: str, ratio: float) -> float:
    return ratio if optimizer == "sgd" else math.sqrt(ratio)


def _scaled(entry: Any, factor: float) -> Any:
    """Scale a learning rate, or the numbers of its distribution."""
    if isinstance(entry, dict):
        return {kind: [number * factor for number in numbers] for kind, numbers in entry.items()}
    return entry * factor


def _shorten_schedules(base: dict[str, Any], search: dict[str, Any], points: list[dict[str, Any]]) -> None:
    triangular = {"name": "triangular"}
    if base["schedule"]["name"] in ("cosine", "plateau"):
        base["schedule"] = triangular
    options = search.get("schedule")
    if options is None:
        return
    kept = [option for option in options if option["name"] not in ("cosine", "plateau", "triangular")]
    names = {option["name"] for option in kept}
    for point in points:
        if point.get("schedule") not in names:
            point["schedule"] = "triangular"
        for path in [
            path for path in point if path.startswith("schedule.") and path.split(".")[1] not in names
        ]:
            del point[path]
    search["schedule"] = [triangular, *kept]
    if not kept:
        base["schedule"] = triangular
        del search["schedule"]
        for point in points:
            del point["schedule"]


def _remove_cutout(base: dict[str, Any], search: dict[str, Any], points: list[dict[str, Any]]) -> None:
    base["augment"]["cutout"]["length"] = 0
    for values in (search, *points):
        for path in [path for path in values if path.startswith("augment.cutout")]:
            del values[path]
