"""Evaluate a trained model on a split: loss, top-1 accuracy, per-class accuracy, confusion matrix.

    python -m platform.evaluate runs/train-resnet32_cifar-20260101-120000
    python -m platform.evaluate runs/resnet32_cifar-20260101-120000     # the champion of a sweep
    python -m platform.evaluate model.pt --split validation --output evaluation/

The result is printed to stdout. `--output` also writes evaluation.json and confusion.svg.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from platform.common.command_line import DataDir, Flag, option, parse_command_line, require_local
from platform.common.errors import UserError, run_command
from platform.common.schema import validate
from platform.common.text_format import percent
from platform.common.time_left import TimeLeft
from platform.data.config import DataConfig
from platform.training.config import RunConfig
from platform.training.run_folder import find_model, write_text_file

if TYPE_CHECKING:
    from platform.data.dataset import DatasetInfo, Split
    from platform.data.image_folders import ImageFolderSplit
    from platform.models.trained import TrainedModel


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Evaluate a trained model on a split."""

    model: Annotated[Path, tyro.conf.Positional, option("MODEL")]
    """A model.pt, or the folder of a run or a sweep."""
    split: Annotated[Literal["test", "validation"], option(default="test")] = "test"
    """The split; `validation` is the one held out in the model's training."""
    data_dir: DataDir = None
    """Folder of the dataset."""
    output: Annotated[Path | None, option("PATH")] = None
    """Write evaluation.json and confusion.svg to this folder."""
    precision: Annotated[Literal["auto", "fp32", "bf16"], option(default="fp32")] = "fp32"
    """Precision of the computation."""
    no_flip: Flag = False
    """Skip the second evaluation with test-time flip."""


def main(words: Sequence[str] | None = None, *, prog: str = "python -m platform.evaluate") -> int:
    """Run the command."""
    arguments = parse_command_line(Arguments, prog=prog, words=words)
    require_local(arguments.output, "--output")
    path = find_model(arguments.model)
    _say("loading PyTorch")
    from platform.console.live import LiveView
    from platform.data.catalog import prepare_dataset
    from platform.data.normalization import Normalization
    from platform.models.trained import load_trained_model
    from platform.training.acceleration.precision import choose_precision
    from platform.training.distributed import pick_device
    from platform.training.evaluation.confusion import class_table, confusion_svg, confusion_table
    from platform.training.evaluation.evaluate import evaluate

    model = load_trained_model(path)
    config = _data_config(model)
    info = prepare_dataset(config, data_dir=arguments.data_dir, progress=_say)
    _check_fit(model, info, path)
    split = _split(info, config, arguments.split, model)
    if arguments.split == "test":
        from platform.tuning.selection.test_set_record import record_evaluation

        record_evaluation(path, split_sha256=info.sha256)
    device = pick_device()
    precision, reason = choose_precision(arguments.precision, device)
    _say(f"{len(split):,} {arguments.split} images of {info.label} on {device.type}, {precision} ({reason})")
    with LiveView() as view:
        done = evaluate(
            model.network(),
            split,
            Normalization(mean=model.mean.numpy(), std=model.std.numpy()),
            device=device,
            precision=precision,
            flip=not arguments.no_flip,
            size=info.image_shape[1],
            progress=TimeLeft("evaluating", len(split), view.set_phase, unit="images").update,
        )
    images = f"{arguments.split} images ({info.label})"
    print(f"top-1 accuracy {percent(done.accuracy)} on {len(split):,} {images}")
    print(f"loss {done.loss:.4f}")
    if done.flip is not None:
        print(
            f"top-1 accuracy with test-time flip {percent(done.flip.accuracy)}, loss {done.flip.loss:.4f} "
            f"(mean of the logits of each image and its mirror image)"
        )
    print()
    print(class_table(done, model.class_names) + "\n")
    print(confusion_table(done, model.class_names))
    if arguments.output:
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
        text = json.dumps(record, indent=2, allow_nan=False) + "\n"
        write_text_file(arguments.output / "evaluation.json", text)
        title = f"{model.model.name}: {percent(done.accuracy)} on {info.label} {arguments.split}"
        svg = confusion_svg(done, model.class_names, title=title)
        write_text_file(arguments.output / "confusion.svg", svg)
        _say(f"written: {arguments.output}/evaluation.json, confusion.svg")
    return 0


def _data_config(model: TrainedModel) -> DataConfig:
    """Return the data configuration of the model's training, or the defaults for its dataset."""
    config = model.provenance.get("config")
    if config is not None:
        return validate(RunConfig, json.loads(config), source="the model's provenance").data
    settings: dict[str, Any] = {"name": "generated"} if model.data_label == "generated" else {}
    return DataConfig.model_validate(settings)


def _check_fit(model: TrainedModel, info: DatasetInfo, path: Path) -> None:
    """Check that the dataset has the model's classes and image size; print a note if its label differs."""
    if model.class_names != info.class_names or model.input_shape != info.image_shape:
        raise UserError(
            f"the dataset must have the classes and the image size of the model: {path} has "
            f"{len(model.class_names)} classes ({', '.join(model.class_names[:3])}, ...) at "
            f"{model.input_shape}, {info.label} has {len(info.class_names)} "
            f"({', '.join(info.class_names[:3])}, ...) at {info.image_shape}; give the dataset of the model "
            "with --data-dir"
        )
    if model.data_label != info.label:
        _say(f"note: trained on {model.data_label}, evaluated on {info.label}")


def _split(
    info: DatasetInfo, config: DataConfig, which: Literal["test", "validation"], model: TrainedModel
) -> Split | ImageFolderSplit:
    from platform.data.image_folders import load_images
    from platform.data.splits import train_validation_indices

    if which == "test":
        return load_images(info, "test")
    if "config" not in model.provenance or "validation_accuracy" not in model.metrics:
        raise UserError(
            "--split validation needs a validation split held out in the model's training; "
            "this model was trained without one: use --split test"
        )
    train = load_images(info, "train")
    return train.take(train_validation_indices(train.labels, config)[1])


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_command(main)
