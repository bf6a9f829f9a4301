"""A space with every kind of distribution, a plain space, and a helper to change them."""

import copy
from typing import Any

from platform.common.schema import validate
from platform.space.spec import SweepSpec

BASE: dict[str, Any] = {
    "model": {"name": "resnet32_cifar"},
    "epochs": 9,
    "batch_size": 128,
    "optimizer": {"name": "sgd", "lr": 0.1, "nesterov": True, "weight_decay": 5e-4},
    "schedule": {"name": "cosine"},
}

EVERY_KIND: dict[str, Any] = {
    "name": "every_kind",
    "about": "Uses every kind of distribution.",
    "base": BASE,
    "search": {
        "batch_size": {"choice": [64, 128, 256]},
        "optimizer": [
            {
                "name": "sgd",
                "lr": {"log_uniform": [0.01, 0.5]},
                "momentum": {"uniform": [0.5, 0.95]},
                "nesterov": True,
                "weight_decay": {"quantized": [0.0, 0.001, 0.0001]},
            },
            {"name": "adam", "lr": {"log_uniform": [1e-4, 1e-2]}},
        ],
        "schedule": [
            {"name": "cosine"},
            {"name": "step", "milestones": {"choice": [[0.5, 0.75], [0.6]]}},
            {"name": "step", "milestones": [0.3], "factor": 0.2},
            {"name": "plateau", "patience_epochs": {"log_int": [1, 20]}},
        ],
        "augment": [
            {
                "crop_padding": {"int": [0, 4]},
                "cutout": [
                    {"holes": 1, "length": {"quantized": [8, 16, 4]}},
                    {"holes": 2, "length": 6},
                ],
            },
            {"mixup": {"uniform": [0.1, 0.4]}, "flip": {"choice": [True, False]}},
        ],
        "clip_grad_norm": {"choice": [None, 1.0]},
    },
    "trials": 12,
    "scheduler": {"name": "asha", "grace_epochs": 1},
}

PLAIN: dict[str, Any] = {
    "name": "plain",
    "base": BASE,
    "search": {"batch_size": {"choice": [128, 256]}, "optimizer.lr": {"log_uniform": [0.01, 0.5]}},
    "scheduler": {"name": "none"},
}


def spec(document: dict[str, Any] = PLAIN, **changes: Any) -> SweepSpec:
    """Validate a document with some top-level sections replaced."""
    return validate(SweepSpec, copy.deepcopy({**document, **changes}), source="file.yaml")
