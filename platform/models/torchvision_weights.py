"""ResNet-18 and ResNet-34 with weights of torchvision's form: a file that holds their state dict.

    python -m platform.models.torchvision_weights resnet18.pth --classes names.txt --output model.pt

writes a trained model, for platform.predict, platform.evaluate and deploy.export. platform.predict takes the
state dict as it is, too.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from platform.errors import UsageError, UserError, run_command
from platform.models.config import ModelConfig
from platform.models.networks import build_network
from platform.models.trained import (
    FORMAT,
    TrainedModel,
    parse_trained_model,
    read_torch_file,
    save_trained_model,
)

# What torchvision's own weights were trained and are evaluated with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
SIZE = 224
SHORTER_SIDE = 256

_NEXT_STEP = "give a state dict of torchvision's resnet18 or resnet34"


def load_model(path: Path, *, class_names: Sequence[str] | None = None) -> TrainedModel:
    """Read a trained model of this platform, or a state dict of torchvision's form.

    Args:
        path: the file; foreign objects in it are never loaded.
        class_names: names for a state dict's classes; by default their numbers. A trained model has its own.

    Raises:
        UserError: the file is missing, damaged, or neither.
        UsageError: names for a model that has its own, or not one for each class.
    """
    document = read_torch_file(path)
    weights = find_state_dict(document)
    if weights is None:
        model = parse_trained_model(document, path)
        if class_names is not None:
            raise UsageError(f"{path} knows the names of its classes: leave out the file of class names")
        return model
    return from_state_dict(weights, class_names=class_names, source=path)


def find_state_dict(document: object) -> dict[str, Tensor] | None:
    """Return the state dict in what a file holds: itself, or what training scripts keep as `model`.

    `module.` before each name, from a network that was wrapped for several GPUs, is taken off.
    """
    if not isinstance(document, Mapping) or document.get("format") == FORMAT:
        return None
    for candidate in (document, document.get("model"), document.get("state_dict")):
        if isinstance(candidate, Mapping) and candidate and _is_state_dict(candidate):
            return {str(name).removeprefix("module."): tensor for name, tensor in candidate.items()}
    return None


def from_state_dict(
    weights: Mapping[str, Tensor], *, class_names: Sequence[str] | None = None, source: Path
) -> TrainedModel:
    """Return the trained model that `weights` make up: torchvision's preprocessing, any number of classes.

    Args:
        weights: a state dict of torchvision's resnet18 or resnet34.
        class_names: one per row of the classifier; by default `0`, `1`, ...
        source: the file it came from, for messages and the model's provenance.

    Raises:
        UserError: it is another network's.
        UsageError: the number of names is not that of the classes.
    """
    name = _name_of(weights, source)
    classes = len(weights["fc.weight"])
    if class_names is None:
        class_names = [str(number) for number in range(classes)]
    if len(class_names) != classes:
        raise UsageError(f"each class needs a name: {source} has {classes} classes, got {len(class_names)}")
    model = TrainedModel(
        model=ModelConfig(name=name),
        state_dict={
            key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in weights.items()
        },
        mean=torch.tensor(MEAN),
        std=torch.tensor(STD),
        class_names=tuple(class_names),
        input_shape=(3, SIZE, SIZE),
        data_label="unknown",
        provenance={"weights": source.name, "sha256": _sha256(source)},
        shorter_side=SHORTER_SIDE,
    )
    try:
        model.network()
    except RuntimeError as error:
        raise UserError(f"{source}: the weights do not fit torchvision's {name}: {error}") from None
    return model


def read_class_names(path: Path) -> list[str]:
    """Read names, one a line, in the order of the classes; blank lines at the end do not count.

    Raises:
        UserError: the file cannot be read as text, or a line between others is blank.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: a text file with one class name a line is needed: {error}") from None
    if "" in lines:
        raise UserError(f"{path}: each line must name a class, line {lines.index('') + 1} is blank")
    return lines


def _is_state_dict(candidate: Mapping[Any, Any]) -> bool:
    return all(isinstance(name, str) and isinstance(value, Tensor) for name, value in candidate.items())


def _name_of(weights: Mapping[str, Tensor], source: Path) -> Literal["resnet18", "resnet34"]:
    """Tell the network by its tensors' names."""
    names: tuple[Literal["resnet18", "resnet34"], ...] = ("resnet18", "resnet34")
    for name in names:
        with torch.device("meta"):
            expected = build_network(ModelConfig(name=name), num_classes=1).state_dict()
        if expected.keys() == weights.keys():
            return name
    raise UserError(
        f"{source} is a state dict of another network ({len(weights)} tensors, the first is "
        f"{next(iter(weights))!r}); {_NEXT_STEP}"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert a state dict into a trained model."""
    parser = argparse.ArgumentParser(
        prog="python -m platform.models.torchvision_weights", description="Make a model.pt of a state dict."
    )
    parser.add_argument("weights", type=Path, help="a state dict of torchvision's resnet18 or resnet34")
    parser.add_argument("--classes", type=Path, help="names of the classes, one a line; default: numbers")
    parser.add_argument("--output", type=Path, default=Path("model.pt"), help="default: model.pt")
    given = parser.parse_args(arguments)
    names = read_class_names(given.classes) if given.classes else None
    weights = find_state_dict(read_torch_file(given.weights))
    if weights is None:
        raise UserError(f"{given.weights} holds no state dict; {_NEXT_STEP}")
    save_trained_model(given.output, from_state_dict(weights, class_names=names, source=given.weights))
    print(given.output)
    return 0


if __name__ == "__main__":
    run_command(main)
