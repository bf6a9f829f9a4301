"""`--quick`: the whole road in minutes, to see that it works; its accuracies mean nothing."""

from __future__ import annotations

from typing import Any

from platform.schema import validate
from platform.space.settings import Asha, Median
from platform.space.spec import SweepSpec

TRIALS = 4
EPOCHS = 3
TRAIN_IMAGES = 2000


def quick_variant(spec: SweepSpec) -> SweepSpec:
    """Return a small version of `spec`: the same space, and every stage of the sweep, hardly any training.

    At most four trials (the first and the last starting point, then the sampler's) of three epochs over 2,000
    training images, one candidate, one seed, and a first rung after one epoch, so that early stopping is seen
    too. The search stays, but for the length of a run.
    """
    values: dict[str, Any] = spec.to_dict()
    base = values["base"]
    limit = base["data"]["train_limit"] or TRAIN_IMAGES
    base["data"]["train_limit"] = min(limit, TRAIN_IMAGES)
    # A length in iterations becomes one in epochs: three passes over 2,000 images are few iterations anyway.
    base["epochs"] = min(base["epochs"] or EPOCHS, EPOCHS)
    base["iterations"] = None
    for length in ("epochs", "iterations"):
        values["search"].pop(length, None)
        for point in values["start_from"]:
            point.pop(length, None)
    # The classic recipe comes first in a file, and what differs most from it, Adam say, last.
    values["start_from"] = values["start_from"][:1] + values["start_from"][1:][-1:]
    values["trials"] = min(spec.trials, TRIALS)
    if isinstance(spec.scheduler, Asha | Median):
        values["scheduler"]["grace_epochs"] = 1
    values["confirm"] |= {"candidates": 1, "seeds": 1}
    return validate(SweepSpec, values, source=f"{spec.name} --quick")
