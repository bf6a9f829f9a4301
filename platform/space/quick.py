"""The `--quick` variant of a sweep: all stages in minutes, as a smoke test; accuracies are meaningless."""

from __future__ import annotations

from typing import Any

from platform.schema import validate
from platform.space.settings import Asha, Median
from platform.space.spec import SweepSpec

TRIALS = 4
EPOCHS = 3
TRAIN_IMAGES = 2000


def quick_variant(spec: SweepSpec) -> SweepSpec:
    """Return a short version of `spec` with the same search space and all stages.

    At most four trials (the first and the last starting point, then the sampler's) of three epochs on 2,000
    training images, one candidate, one seed, and a first rung after one epoch, so that early stopping occurs.
    The search space loses only `epochs` and `iterations`.
    """
    values: dict[str, Any] = spec.to_dict()
    base = values["base"]
    limit = base["data"]["train_limit"] or TRAIN_IMAGES
    base["data"]["train_limit"] = min(limit, TRAIN_IMAGES)
    # Replace iterations by epochs: three epochs over 2,000 images are few iterations.
    base["epochs"] = min(base["epochs"] or EPOCHS, EPOCHS)
    base["iterations"] = None
    for length in ("epochs", "iterations"):
        values["search"].pop(length, None)
        for point in values["start_from"]:
            point.pop(length, None)
    # By convention the first starting point is the standard recipe, and the last differs most from it.
    values["start_from"] = values["start_from"][:1] + values["start_from"][1:][-1:]
    values["trials"] = min(spec.trials, TRIALS)
    if isinstance(spec.scheduler, Asha | Median):
        values["scheduler"]["grace_epochs"] = 1
    values["confirm"] |= {"candidates": 1, "seeds": 1}
    return validate(SweepSpec, values, source=f"{spec.name} --quick")
