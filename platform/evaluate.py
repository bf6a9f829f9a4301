"""Evaluate a trained model on a split: loss, top-1, each class, confusion.

    python -m platform.evaluate runs/train-resnet32_cifar-20260101-120000
    python -m platform.evaluate runs/resnet32_cifar-20260101-120000     # a sweep: its champion
    python -m platform.evaluate model.pt --split validation --output evaluation/

The result goes to stdout. With `--output`, evaluation.json and confusion.svg are written too.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from platform.data.config import DataConfig
from platform.errors import UserError, run_command
from platform.schema import validate
from platform.training.config import RunConfig
from platform.training.run_folder import find_model, write_file

if TYPE_CHECKING:
    from platform.data.dataset import DatasetInfo, Split
    from platform.data.image_folders import PictureSplit
    from platform.models.trained import TrainedModel


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Evaluate a trained model on a split."""

    model: Annotated[Path, tyro.conf.Positional]
    """A model.pt, or the folder of a run or of a sweep."""
    split: Literal["test", "validation"] = "test"
    """`validation` is what the model's own training held out."""
    data_dir: Path | None = None
    """Where the images are; default: $CIFAR10_DIR, else the cache, else a download."""
    output: Path | None = None
    """Folder for evaluation.json and confusion.svg."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """What to compute in."""
    flip: bool = True
    """Tell the accuracy with test-time flip too, as a figure of its own; it takes as long again."""


def main() -> int:
    """Run the command."""
    arguments = tyro.cli(Arguments, prog="python -m platform.evaluate")
    path = find_model(arguments.model)
    _say("loading PyTorch")
    from platform.data.catalog import prepare
    from platform.data.normalization import Normalization
    from platform.models.trained import load_trained_model
    from platform.training.acceleration.precision import choose
    from platform.training.distributed import pick_device
    from platform.training.evaluation.confusion import class_table, confusion_svg, confusion_table
    from platform.training.evaluation.evaluation import evaluate

    model = load_trained_model(path)
    config = _data_config(model)
    info = prepare(config, data_dir=arguments.data_dir, progress=_say)
    _check_fit(model, info, path)
    split = _split(info, config, arguments.split, model)
    device = pick_device()
    precision, reason = choose(arguments.precision, device)
    _say(f"{len(split):,} {arguments.split} images of {info.label} on {device.type}, {precision} ({reason})")
    done = evaluate(
        model.network(),
        split,
        Normalization(mean=model.mean.numpy(), std=model.std.numpy()),
        device=device,
        precision=precision,
        flip=arguments.flip,
        size=info.image_shape[1],
    )
    print(
        f"top-1 accuracy {100 * done.accuracy:.2f} % of {len(split):,} {arguments.split} images "
        f"({info.label})"
    )
    print(f"loss {done.loss:.4f}")
    if done.flip is not None:
        print(
            f"with test-time flip {100 * done.flip.accuracy:.2f} %, loss {done.flip.loss:.4f} "
            f"(each image and its mirror image, averaged: comparable with other test-time flips only)"
        )
    print()
    print(class_table(done, model.class_names) + "\n")
    print(confusion_table(done, model.class_names))
    if arguments.output:
        title = f"{model.model.name}: {100 * done.accuracy:.2f} % of {info.label} {arguments.split}"
        record = {
            "schema_version": 1,
            "model": str(path),
            "provenance": model.provenance,
            "data": {
                "label": info.label,
                "sha256": info.sha256,
                "split": arguments.split,
                "images": len(split),
            },
            "precision": precision,
            "loss": done.loss,
            "accuracy": done.accuracy,
            "per_class_accuracy": dict(zip(model.class_names, done.per_class_accuracy, strict=True)),
            "confusion": done.confusion,
            "test_time_flip": asdict(done.flip) if done.flip is not None else None,
        }
        write_file(arguments.output / "evaluation.json", json.dumps(record, indent=2, allow_nan=False) + "\n")
        write_file(arguments.output / "confusion.svg", confusion_svg(done, model.class_names, title=title))
        _say(f"written: {arguments.output}/evaluation.json, confusion.svg")
    return 0


def _data_config(model: TrainedModel) -> DataConfig:
    """Return the data configuration of the model's training, or the defaults for its kind of data."""
    written = model.provenance.get("config")
    if written is not None:
        return validate(RunConfig, json.loads(written), source="the model's provenance").data
    settings: dict[str, Any] = {"name": "generated"} if model.data_label == "generated" else {}
    return DataConfig.model_validate(settings)


def _check_fit(model: TrainedModel, info: DatasetInfo, path: Path) -> None:
    """Refuse data of other classes or another size; tell of data of another origin."""
    if model.class_names != info.class_names or model.input_shape != info.image_shape:
        raise UserError(
            f"a model is evaluated on the classes and the image size it was trained for: {path} knows "
            f"{len(model.class_names)} classes ({', '.join(model.class_names[:3])}, ...) at "
            f"{model.input_shape}, {info.label} has {len(info.class_names)} "
            f"({', '.join(info.class_names[:3])}, ...) at {info.image_shape}; give its data by --data-dir"
        )
    if model.data_label != info.label:
        _say(f"note: trained on {model.data_label}, evaluated on {info.label}")


def _split(
    info: DatasetInfo, config: DataConfig, which: Literal["test", "validation"], model: TrainedModel
) -> Split | PictureSplit:
    from platform.data.catalog import load_split
    from platform.data.image_folders import NAME, load_pictures
    from platform.data.splits import train_validation_indices

    load = load_pictures if info.name == NAME else load_split
    if which == "test":
        return load(info, "test")
    if "config" not in model.provenance or "validation_accuracy" not in model.metrics:
        raise UserError(
            "the validation split is what a model's own training held out, and this model's training "
            "held out nothing: use --split test"
        )
    whole = load(info, "train")
    return whole.take(train_validation_indices(whole.labels, config)[1])


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_command(main)
