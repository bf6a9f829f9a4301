"""The planned runs of the gallery: healthy runs over many recipes, and each fault in many forms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.diagnostics.plants import PlannedRun

HEALTHY = "healthy"
_FAULT_SEEDS = 2
_HEALTHY_SEEDS = {"plain": 7, "bare": 6}
"""Seeds of healthy runs by network; 2 for the others, which take longer."""
_FIRST_FAULT_SEED = 100  # other images than the healthy runs
_IMAGES, _FEWER_IMAGES = 1536, 1024

_PLAIN = {"kind": "plain", "widths": (8, 16, 32)}
_WIDER = {"kind": "plain", "widths": (16, 32, 32)}
_BARE = {**_WIDER, "norm": False}
_RESNET = {"widths": (8, 16, 32), "blocks": (1, 1, 1)}
_DEEPER = {"widths": (8, 16, 32), "blocks": (2, 1, 1)}
_WIDE_RESNET = {"widths": (16, 32, 64), "blocks": (1, 1, 1)}
_NO_AUGMENTATION = {"crop_padding": 0, "flip": False}
_CONSTANT = {"name": "constant"}


def _sgd(lr: float, **others: Any) -> dict[str, Any]:
    return {"name": "sgd", "lr": lr, "momentum": 0.9, "weight_decay": 5e-4, **others}


def _adam(lr: float, **others: Any) -> dict[str, Any]:
    return {"name": "adam", "lr": lr, **others}


def _config(**changes: Any) -> dict[str, Any]:
    return {"batch_size": 64, "epochs": 16, **changes}


_RECIPES: Mapping[str, Mapping[str, Any]] = {
    "sgd, cosine": {"optimizer": _sgd(0.05)},
    "sgd, step": {"optimizer": _sgd(0.1), "schedule": {"name": "step", "milestones": [0.5, 0.75]}},
    "sgd, step, fifth": {
        "optimizer": _sgd(0.05, nesterov=True),
        "schedule": {"name": "step", "milestones": [0.3, 0.6, 0.8], "factor": 0.2},
    },
    "sgd, linear, nesterov": {"optimizer": _sgd(0.05, nesterov=True), "schedule": {"name": "linear"}},
    "sgd, triangular": {"optimizer": _sgd(0.1), "schedule": {"name": "triangular"}},
    "sgd, one cycle": {"optimizer": _sgd(0.2), "schedule": {"name": "one_cycle"}},
    "sgd, constant": {"optimizer": _sgd(0.02), "schedule": _CONSTANT},
    "sgd, plateau": {"optimizer": _sgd(0.05), "schedule": {"name": "plateau", "patience_epochs": 3}},
    "sgd, no momentum": {"optimizer": {"name": "sgd", "lr": 0.2, "momentum": 0.0}},
    "sgd, warm-up": {"optimizer": _sgd(0.1), "schedule": {"name": "cosine", "warmup_epochs": 2}},
    "sgd, cutout": {"augment": {"crop_padding": 2, "cutout": {"length": 6}}},
    "sgd, mixup": {"augment": {"crop_padding": 2, "mixup": 0.4}},
    "sgd, cutmix": {"augment": {"crop_padding": 2, "cutmix": 1.0}},
    "sgd, smoothing": {"label_smoothing": 0.1, "schedule": {"name": "linear"}},
    "sgd, ema": {"ema_decay": 0.97},
    "sgd, clipped": {"clip_grad_norm": 1.0, "optimizer": _sgd(0.1)},
    "sgd, small batches": {"batch_size": 32, "optimizer": _sgd(0.03), "epochs": 12},
    "sgd, large batches": {"batch_size": 128, "optimizer": _sgd(0.1), "epochs": 24},
    "sgd, flip only": {"augment": {"crop_padding": 0, "flip": True}, "epochs": 12},
    "adam, cosine": {"optimizer": _adam(2e-3)},
    "adam, constant": {"optimizer": _adam(1e-3), "schedule": _CONSTANT},
    "adam, step": {"optimizer": _adam(3e-3), "schedule": {"name": "step", "milestones": [0.6, 0.85]}},
    "adamw, linear": {
        "optimizer": _adam(3e-3, name="adamw", weight_decay=0.05),
        "schedule": {"name": "linear"},
    },
    "adamw, one cycle": {
        "optimizer": _adam(5e-3, name="adamw", weight_decay=0.01),
        "schedule": {"name": "one_cycle"},
    },
    "adam, mixup, smoothing": {
        "optimizer": _adam(2e-3),
        "augment": {"crop_padding": 2, "mixup": 0.2},
        "label_smoothing": 0.1,
    },
    "adam, long": {"optimizer": _adam(1e-3), "epochs": 28},
}
# Networks without normalization need a lower learning rate.
_BARE_RECIPES: Mapping[str, Mapping[str, Any]] = {
    "sgd, cosine": {"optimizer": _sgd(0.02)},
    "sgd, warm-up, linear": {"optimizer": _sgd(0.04), "schedule": {"name": "linear", "warmup_epochs": 2}},
    "adam, cosine": {"optimizer": _adam(2e-3)},
    "adam, constant": {"optimizer": _adam(1e-3), "schedule": _CONSTANT},
    "sgd, clipped, step": {
        "optimizer": _sgd(0.03),
        "clip_grad_norm": 1.0,
        "schedule": {"name": "step", "milestones": [0.5, 0.75]},
    },
    "adam, triangular": {"optimizer": _adam(3e-3), "schedule": {"name": "triangular"}},
}


def planned_runs() -> list[PlannedRun]:
    """Return all runs; the first seed of every recipe comes first."""
    runs = [*_faults(), *_healthy()]
    return sorted(runs, key=lambda run: run.seed % _FIRST_FAULT_SEED)


def _healthy() -> Iterator[PlannedRun]:
    networks: dict[str, Mapping[str, Any]] = {
        "plain": _PLAIN,
        "resnet": _RESNET,
        "wider": _WIDER,
        "deeper": _DEEPER,
    }
    names = list(networks)
    pairs: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]] = [
        (f"{recipe}; {names[(number + shift) % 4]}", networks[names[(number + shift) % 4]], config)
        for number, (recipe, config) in enumerate(_RECIPES.items())
        for shift in ((0, 2) if number % 3 == 0 else (0,))
    ]
    pairs += [(f"{recipe}; bare", _BARE, config) for recipe, config in _BARE_RECIPES.items()]
    pairs.append(("sgd, cosine; resnet20_cifar", {}, {"epochs": 10, "optimizer": _sgd(0.1)}))
    pairs.append(("adam, cosine; resnet20_cifar", {}, {"epochs": 10, "optimizer": _adam(3e-3)}))
    for recipe, network, config in pairs:
        for seed in range(_HEALTHY_SEEDS.get(recipe.split("; ")[1], 2) if network else 1):
            yield PlannedRun(
                fault=HEALTHY,
                recipe=recipe,
                seed=seed,
                config=_config(**config),
                network=network,
                images=_IMAGES if seed == 0 else _FEWER_IMAGES,
            )


def _faults() -> Iterator[PlannedRun]:
    for fault, recipes in _FAULTS.items():
        costs = [_steps(recipe) for recipe in recipes]
        # The two shortest recipes of each half get another seed.
        again = {number for half in (0, 1) for number in sorted(range(half, 8, 2), key=costs.__getitem__)[:2]}
        for number, recipe in enumerate(recipes):
            for seed in range(_FAULT_SEEDS + (number in again)):
                yield PlannedRun(
                    fault=fault, recipe=f"{number}", seed=_FIRST_FAULT_SEED + seed, **_planned(recipe)
                )


def _steps(recipe: Mapping[str, Any]) -> float:
    """Return the relative time of a recipe: its steps, which take longer in a ResNet."""
    run = _planned(recipe)
    config, slow = run["config"], run["network"].get("kind") != "plain"
    return float(config["epochs"] * run["images"] / config["batch_size"] * (3 if slow else 1))


def _planned(recipe: Mapping[str, Any]) -> dict[str, Any]:
    others = {key: value for key, value in recipe.items() if key not in ("network", "images", "plant")}
    return {
        "network": recipe.get("network", _PLAIN),
        "images": recipe.get("images", 768),
        "plant": recipe.get("plant", {}),
        "config": _config(**others),
    }


def _few_images(images: int, **changes: Any) -> dict[str, Any]:
    return {"images": images, "batch_size": 32, "epochs": 40, "augment": _NO_AUGMENTATION, **changes}


def _transformed(name: str, **changes: Any) -> dict[str, Any]:
    return {"images": _IMAGES, "plant": {"validation_transform": name}, **changes}


def _relabeled(images: int, **changes: Any) -> dict[str, Any]:
    return {**_few_images(images), "epochs": 24, "plant": {"shuffled_labels": True}, **changes}


def _deep(width: int, depth: int, **changes: Any) -> dict[str, Any]:
    return {"kind": "plain", "norm": False, "widths": (width,) * 2 + (2 * width,) * (depth - 2), **changes}


def _tasks(*widths: int, optimizer: dict[str, Any]) -> dict[str, Any]:
    every = 12
    return {
        "images": 96,
        "batch_size": 16,
        "epochs": 8 * every,
        "network": {"kind": "plain", "norm": False, "widths": widths},
        "schedule": _CONSTANT,
        "augment": _NO_AUGMENTATION,
        "optimizer": optimizer,
        "plant": {"permuted_labels": {"every": every, "random": True}},
    }


def _lr(**changes: Any) -> dict[str, Any]:
    return {"learning_rate": changes}


def _sorted(records_per_pass: int) -> dict[str, Any]:
    return {"unshuffled": {"records_per_pass": records_per_pass, "mixed": 0.4}}


def _bad(*epochs: int, scale: float) -> dict[str, Any]:
    return {"bad_batches": {"epochs": list(epochs), "scale": scale}}


_FAULTS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "loss spikes": [
        {"images": _IMAGES, "batch_size": 32, "epochs": 12, "plant": _bad(5, scale=20)},
        {"images": _IMAGES, "plant": _bad(4, 9, scale=40)},
        {
            "images": _IMAGES,
            "batch_size": 32,
            "epochs": 12,
            "network": _BARE,
            "optimizer": _sgd(0.01),
            "plant": _bad(6, scale=8),
        },
        {"images": _IMAGES, "optimizer": _adam(2e-3), "plant": _bad(3, 7, 11, scale=30)},
        {"images": _IMAGES, "schedule": _CONSTANT, "plant": _lr(jump=30, first=6.4, length=0.12)},
        {
            "images": _IMAGES,
            "network": _WIDER,
            "optimizer": _adam(2e-3),
            "plant": _lr(jump=50, first=5.5, length=0.15),
        },
        {"network": _RESNET, "images": _IMAGES, "epochs": 12, "plant": _lr(jump=20, first=4.5, length=0.12)},
        {
            "images": _IMAGES,
            "network": _BARE,
            "optimizer": _sgd(0.02),
            "plant": _lr(jump=20, first=7.5, length=0.1),
        },
    ],
    "divergence": [
        {"schedule": _CONSTANT, "plant": _lr(growth=2.0, first=6)},
        {"schedule": _CONSTANT, "network": _BARE, "optimizer": _sgd(0.02), "plant": _lr(growth=1.8, first=6)},
        {"schedule": _CONSTANT, "network": _RESNET, "plant": _lr(jump=100, first=8)},
        {"schedule": _CONSTANT, "network": _BARE, "optimizer": _sgd(0.03), "plant": _lr(jump=40, first=9)},
        {"schedule": _CONSTANT, "optimizer": _adam(2e-3), "network": _BARE, "plant": _lr(jump=60, first=8)},
        {"schedule": _CONSTANT, "network": _WIDER, "optimizer": _sgd(0.1), "plant": _lr(growth=2.5, first=9)},
        {"schedule": _CONSTANT, "network": _WIDER, "plant": _lr(jump=200, first=11)},
        {
            "schedule": _CONSTANT,
            "optimizer": _adam(3e-3),
            "network": _BARE,
            "plant": _lr(growth=1.7, first=7),
        },
    ],
    "overfitting": [
        _few_images(128, network=_WIDE_RESNET),
        _few_images(192, network=_WIDER, optimizer=_adam(1e-2)),
        _few_images(256, network=_WIDE_RESNET, optimizer=_adam(2e-3), epochs=24),
        _few_images(128, network=_BARE, optimizer=_adam(5e-3), epochs=60),
        _few_images(256, network=_WIDER, optimizer=_sgd(0.1, weight_decay=0), epochs=60, batch_size=16),
        _few_images(192, network=_RESNET, schedule=_CONSTANT),
        _few_images(160, network=_WIDE_RESNET, optimizer=_adam(1e-3), schedule=_CONSTANT),
        _few_images(
            256, network=_WIDE_RESNET, epochs=24, schedule={"name": "step", "milestones": [0.5, 0.75]}
        ),
    ],
    "underfitting": [
        {"network": {**_PLAIN, "widths": (2,)}},
        {"network": {**_PLAIN, "widths": (1,)}, "optimizer": _adam(2e-3)},
        {"optimizer": _sgd(1e-4)},
        {"optimizer": _adam(1e-5)},
        {"network": _RESNET, "epochs": 12, "optimizer": _sgd(3e-4)},
        {"network": _BARE, "optimizer": _sgd(5e-4)},
        {"network": {**_PLAIN, "widths": (1, 2)}},
        {"network": _BARE, "optimizer": _adam(3e-5), "schedule": _CONSTANT},
    ],
    "vanishing gradients": [
        {"epochs": 8, "network": _deep(width, depth, activation="sigmoid"), "optimizer": optimizer}
        for width, depth, optimizer in (
            (8, 7, _sgd(0.05)),
            (16, 7, _sgd(0.02)),
            (8, 9, _adam(1e-3)),
            (8, 12, _sgd(0.1)),
            (16, 9, _sgd(0.05)),
            (12, 8, _adam(2e-3)),
            (12, 10, _sgd(0.05)),
            (8, 8, _sgd(0.01)),
        )
    ],
    "exploding gradients": [
        {"epochs": 8, "network": _deep(width, depth, gain=gain), **others}
        for width, depth, gain, others in (
            (8, 6, 2.5, {"optimizer": _sgd(1e-4)}),
            (8, 8, 2.5, {"optimizer": _sgd(1e-5)}),
            (16, 5, 3.0, {"optimizer": _sgd(3e-5)}),
            (8, 7, 3.0, {"optimizer": _sgd(0.01), "clip_grad_norm": 1.0}),
            (12, 6, 4.0, {"optimizer": _adam(1e-4)}),
            (8, 10, 2.0, {"optimizer": _sgd(3e-5)}),
            (8, 6, 3.5, {"optimizer": _adam(1e-3)}),
            (12, 8, 3.0, {"optimizer": _sgd(1e-6)}),
        )
    ],
    "dead units": [
        {"network": {**_PLAIN, "dead_share": 0.6}},
        {"network": {**_WIDER, "dead_share": 0.5}, "optimizer": _adam(2e-3)},
        {"network": {**_BARE, "dead_share": 0.7}, "optimizer": _sgd(0.02)},
        {"network": {**_RESNET, "dead_share": 0.6}, "epochs": 12},
        {"network": {**_BARE, "dead_share": 0.9}, "optimizer": _adam(2e-3)},
        {"network": {**_RESNET, "dead_share": 0.8}, "optimizer": _adam(2e-3), "epochs": 12},
        {"network": {**_WIDER, "dead_share": 0.4}, "images": _IMAGES},
        {"network": {**_PLAIN, "dead_share": 0.9}, "schedule": {"name": "one_cycle"}, "optimizer": _sgd(0.1)},
    ],
    "periodicity": [
        {"epochs": 30, "schedule": _CONSTANT, **others}
        for others in (
            {"optimizer": _sgd(0.5), "plant": _lr(cycle=5, low=0.01), "images": _IMAGES},
            {"optimizer": _adam(1e-3), "plant": _sorted(5)},
            {"optimizer": _adam(0.02), "plant": _lr(cycle=4, low=0.01), "images": _IMAGES},
            {"optimizer": _adam(1e-3), "plant": _sorted(4), "network": _WIDER},
            {"network": _WIDER, "optimizer": _sgd(0.4), "plant": _lr(cycle=6, low=0.02), "images": _IMAGES},
            {"optimizer": _sgd(0.01), "plant": _sorted(4)},
            {"network": _RESNET, "optimizer": _sgd(0.5), "plant": _lr(cycle=4, low=0.02)},
            {"optimizer": _adam(5e-4), "plant": _sorted(3), "network": _WIDER},
        )
    ],
    "loss of plasticity": [
        _tasks(16, 16, 32, 32, optimizer=_adam(0.01)),
        _tasks(16, 32, 32, optimizer=_adam(0.012)),
        _tasks(16, 16, 16, 32, 32, optimizer=_adam(0.008)),
        _tasks(16, 16, 32, 32, optimizer=_sgd(0.1, weight_decay=0)),
        _tasks(16, 32, 32, optimizer=_sgd(0.12, weight_decay=0)),
        _tasks(16, 16, 16, 32, 32, optimizer=_adam(0.01)),
        _tasks(12, 12, 24, 24, optimizer=_adam(0.01)),
        _tasks(16, 16, 32, 32, optimizer=_adam(0.014)),
    ],
    "learning rate too high": [
        {"optimizer": _adam(0.1)},
        {"optimizer": _adam(0.1), "network": _RESNET, "epochs": 12},
        {"optimizer": _adam(0.1), "network": _BARE},
        {"optimizer": _adam(0.1, name="adamw", weight_decay=0.01), "schedule": _CONSTANT},
        {"optimizer": _adam(0.1), "network": _WIDER, "schedule": {"name": "step", "milestones": [0.5, 0.75]}},
        {"optimizer": _adam(0.2), "images": _IMAGES, "schedule": {"name": "linear"}},
        {"optimizer": _adam(0.1, beta1=0.5), "network": _RESNET, "epochs": 12, "schedule": _CONSTANT},
        {"optimizer": _adam(0.06), "images": _IMAGES},
    ],
    "ReLU on the output": [
        {"network": {**_PLAIN, "output_relu": True}},
        {"network": {**_RESNET, "output_relu": True}, "epochs": 12},
        {"network": {**_WIDER, "output_relu": True}, "optimizer": _adam(2e-3)},
        {"network": {**_BARE, "output_relu": True}, "optimizer": _sgd(0.02)},
        {"network": {**_RESNET, "output_relu": True}, "epochs": 12, "optimizer": _adam(1e-3)},
        {"network": {**_PLAIN, "output_relu": True}, "optimizer": _adam(5e-3), "images": _IMAGES},
        {
            "network": {**_WIDER, "output_relu": True},
            "schedule": {"name": "one_cycle"},
            "optimizer": _sgd(0.1),
        },
        {"network": {**_BARE, "output_relu": True}, "optimizer": _adam(1e-3), "label_smoothing": 0.1},
    ],
    "random labels": [
        _relabeled(256, network=_WIDER),
        _relabeled(128),
        _relabeled(256, network=_RESNET),
        _relabeled(200, network=_WIDER, optimizer=_adam(3e-3)),
        _relabeled(384, network=_WIDER, epochs=36),
        _relabeled(160, network=_BARE, optimizer=_adam(2e-3), epochs=40),
        _relabeled(256, network={"widths": (16, 32, 32)}, schedule=_CONSTANT),
        _relabeled(192, optimizer=_adam(2e-3), epochs=36),
    ],
    "generalization gap": [
        _transformed("upside down"),
        _transformed("mean not subtracted", network=_WIDER),
        _transformed("half the brightness", network=_WIDER, optimizer=_adam(2e-3)),
        _transformed("transposed", network=_RESNET, epochs=12),
        _transformed("inverted"),
        _transformed("central half", network=_WIDER),
        _transformed("not divided by std", network=_RESNET, epochs=12, optimizer=_adam(2e-3)),
        _transformed("BGR, upside down", network=_WIDER),
    ],
}
"""Recipes of each fault. Even ones form one half of the gallery, odd ones the other."""
