"""Measure the training time to a given test accuracy over several seeds.

    python -m benchmarks.time_to_accuracy                             # resnet18_ddp to 94 %, 3 seeds
    python -m benchmarks.time_to_accuracy --recipe resnet32_modern --target 0.93 --set epochs=60 --json a.json

Each seed trains on all 50,000 training images and is evaluated on the test images after every epoch. Its time
is that of the training steps up to the first epoch at or above the target, without evaluation and one-time
costs such as building the network; `wall_s` includes both. The target is fixed beforehand and nothing is
decided by the test images: a recipe whose schedule follows the validation loss is rejected. Every run
continues to its last epoch, whose accuracy is reported too. On a GPU one epoch is trained and discarded first
(`warm_up_epochs` in the record), since loading CUDA's libraries and kernels takes seconds per process.
Required packages: PyTorch, numpy, Pillow, pyarrow, psutil, ruamel.yaml and pydantic.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import mean, median, stdev
from typing import TYPE_CHECKING, Any

from benchmarks import record
from benchmarks.command import Parser, at_least, say
from platform.common.cores import usable_cores
from platform.common.errors import UsageError, run_command
from platform.space.space_files import load_run

if TYPE_CHECKING:
    from platform.data.dataset import DatasetInfo
    from platform.data.training_data import TrainingData
    from platform.training.config import RunConfig


OnEpoch = Callable[[dict[str, Any]], None]


def main(arguments: Sequence[str] | None = None, *, on_epoch: OnEpoch = lambda _: None) -> int:
    """Train each seed, print the table, write the record; call `on_epoch` with each epoch's row."""
    given = _parser().parse(arguments)
    config = load_run(given.recipe, overrides=[f"base.{text}" for text in given.set])
    if config.schedule.name == "plateau" or config.report == "best":
        raise UsageError(
            f"{given.recipe} makes decisions on held-out images (schedule {config.schedule.name}, report "
            f"{config.report}), and here those are the test images: give another recipe"
        )
    say("loading PyTorch")
    import torch

    from platform.data.catalog import prepare_dataset
    from platform.training.acceleration.precision import choose_precision
    from platform.training.distributed import single

    info = prepare_dataset(config.data, data_dir=given.data_dir, progress=say)
    data = load_data(config, info)
    world = single()
    if world.device.type == "cpu":
        torch.set_num_threads(given.threads or usable_cores())
    precision, reason = choose_precision(config.precision, world.device)
    where = record.context()
    settings = {
        "recipe": given.recipe,
        "config": config.model_dump(mode="json"),
        "target": given.target,
        "data": {"label": info.label, "sha256": info.sha256, "train_images": len(data.train)},
        "device": str(world.device),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "warm_up_epochs": int(world.device.type == "cuda"),
    }
    say(f"{config.model.name} on {info.label}, {world.device}, {precision} ({reason})")
    if settings["warm_up_epochs"]:
        say("warm-up: one epoch")
        warm_up(config, data)
    results = []
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        results.append(run_seed(config.changed(seed=seed), data, given.target, on_epoch=on_epoch))
        reached = results[-1]["train_s"]
        result = "not reached" if reached is None else f"{reached:.1f} s"
        say(f"seed {seed}: {result}; last epoch {100 * results[-1]['last_accuracy']:.2f} %")
    print(table(where, settings, results))
    if given.json:
        record.write(given.json, record.document("time_to_accuracy", where, settings, results))
    return 0


def _parser() -> Parser:
    parser = Parser(
        "time_to_accuracy", "Measure the training time to a given test accuracy over several seeds."
    )
    add = parser.add_argument
    add("--recipe", default="resnet18_ddp", metavar="NAME", help="a recipe or a space; default: resnet18_ddp")
    add("--target", type=_fraction, default=0.94, metavar="P", help="test accuracy, 0 to 1; default: 0.94")
    add("--seeds", type=at_least(1), default=3, metavar="N", help="number of seeds; default: 3")
    add("--first-seed", type=at_least(0), default=0, metavar="N", help="default: 0")
    add(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="changes of the recipe's settings",
    )
    add("--data-dir", type=Path, help="folder of the images; default: $CIFAR10_DIR, else the cache")
    add("--threads", type=at_least(1), metavar="N", help="CPU threads; default: cores")
    return parser


def _fraction(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be an accuracy between 0 and 1, as in 0.94; got {word!r}")
    return value


def load_data(config: RunConfig, info: DatasetInfo) -> TrainingData:
    """Return all training images, up to `data.train_limit`, with the test images as the held-out split."""
    from dataclasses import replace

    from platform.data.cache import load_split
    from platform.data.training_data import load_training_data

    return replace(load_training_data(config.data, info, final=True), validation=load_split(info, "test"))


def warm_up(config: RunConfig, data: TrainingData) -> None:
    """Train one epoch and discard it."""
    from platform.training.distributed import single
    from platform.training.loop import fit

    def stop(_: object) -> None:
        raise _WarmupDone

    with suppress(_WarmupDone):
        fit(config, data, world=single(), checkpoint_dir=None, on_epoch=stop)


class _WarmupDone(Exception):  # noqa: N818 - the end of the warm-up, not an error
    """Ends the warm-up."""


def run_seed(
    config: RunConfig, data: TrainingData, target: float, *, on_epoch: OnEpoch = lambda _: None
) -> dict[str, Any]:
    """Train once; return the seed's row of the record.

    `train_s` is the time of the training steps up to the first epoch at `target`, None if it is not reached,
    `wall_s` the wall time from the call to the same epoch, `total_train_s` the time of all training steps.
    """
    from platform.training.distributed import single
    from platform.training.loop import fit
    from platform.training.records import EpochRecord

    began_s = time.perf_counter()
    train_s = 0.0
    reached: dict[str, Any] = {"train_s": None, "wall_s": None, "epoch": None}
    epochs: list[dict[str, Any]] = []

    def note(epoch: EpochRecord) -> None:
        nonlocal train_s, reached
        train_s += epoch.epoch_s
        accuracy = epoch.validation_accuracy or 0.0
        epochs.append(
            {
                "epoch": epoch.epoch,
                "train_s": train_s,
                "test_accuracy": accuracy,
                "images_per_s": epoch.images_per_s,
                "mfu": epoch.mfu,
            }
        )
        if reached["epoch"] is None and accuracy >= target:
            reached = {"train_s": train_s, "wall_s": time.perf_counter() - began_s, "epoch": epoch.epoch}
        on_epoch(epochs[-1])

    fit(config, data, world=single(), checkpoint_dir=None, on_epoch=note)
    return {
        "seed": config.seed,
        **reached,
        "last_accuracy": epochs[-1]["test_accuracy"],
        "total_train_s": train_s,
        "epochs": epochs,
    }


def table(where: dict[str, Any], settings: dict[str, Any], results: Sequence[dict[str, Any]]) -> str:
    """Format the results: each seed, then mean and standard deviation."""
    config, data = settings["config"], settings["data"]
    what = f"{config['model']['name']} on {data['train_images']:,} images of {data['label']}"
    how = f"batch {config['batch_size']}, {settings['precision']} on {settings['device']}"
    how += ", after a warm-up epoch" * settings["warm_up_epochs"]
    goal = f"to {100 * settings['target']:g} %, s"
    lines = [
        record.describe(where),
        f"{settings['recipe']}: {what}, {how}",
        "",
        f"seed {goal:>14}  epoch  with tests, s  last epoch, %  all epochs, s",
        *(
            f"{row['seed']:4} {_number(row['train_s'], 1):>14} {_number(row['epoch'], 0):>6} "
            f"{_number(row['wall_s'], 1):>14} {100 * row['last_accuracy']:14.2f} {row['total_train_s']:14.1f}"
            for row in results
        ),
    ]
    seconds = [row["train_s"] for row in results if row["train_s"] is not None]
    reached = f"reached by {len(seconds)} of {len(results)} seeds"
    time_text = f", in {_spread(seconds, 1)} s of training (mean of those seeds)" if seconds else ""
    accuracies = [100 * row["last_accuracy"] for row in results]
    # Without the first epoch, which includes one-time costs such as the capture.
    shares = [epoch["mfu"] for row in results for epoch in row["epochs"][1:] if epoch["mfu"] is not None]
    used = f"; MFU {median(shares):.1%}" if shares else ""
    return "\n".join([*lines, "", f"{reached}{time_text}; last epoch {_spread(accuracies, 2)} %{used}"])


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _spread(values: Sequence[float], digits: int) -> str:
    """Format mean and standard deviation, or a single value."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f} (n = 1)"
    return f"{mean(values):.{digits}f} +- {stdev(values):.{digits}f} (n = {len(values)})"


if __name__ == "__main__":
    run_command(main)
