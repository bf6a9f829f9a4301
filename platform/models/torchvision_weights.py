"""Convert torchvision's ResNet-18 and ResNet-34 state dicts to trained-model files.

    python -m platform.models.torchvision_weights resnet18.pth --classes names.txt --output model.pt

The output works with platform.predict, platform.evaluate and deploy.export. platform.predict also accepts
the state dict itself.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from platform.common.errors import UsageError, UserError, run_command
from platform.common.regular_file import read_regular_file
from platform.models.config import ModelConfig
from platform.models.networks import build_network
from platform.models.trained import (
    FORMAT,
    TrainedModel,
    check_weights,
    parse_trained_model,
    read_torch_file,
    save_trained_model,
)

# The preprocessing of torchvision's own weights.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
SIZE = 224
SHORTER_SIDE = 256

_MAX_CLASS_NAMES_BYTES = 16 * 2**20
_NEXT_STEP = "give a state dict of torchvision's resnet18 or resnet34"


def load_model(path: Path, *, class_names: Sequence[str] | None = None) -> TrainedModel:
    """Read a trained model of this platform, or a state dict of torchvision's resnet18 or resnet34.

    Of a state dict, the default class names are the class numbers.

    Raises:
        UserError: the file is missing, damaged, or neither of these.
        UsageError: `class_names` for a trained model, which contains its own, or a wrong number of them.
    """
    document = read_torch_file(path)
    weights = find_state_dict(document)
    if weights is None:
        model = parse_trained_model(document, path)
        if class_names is not None:
            raise UsageError(f"{path} already contains class names; omit the file of class names")
        return model
    return from_state_dict(weights, class_names=class_names, source=path)


def find_state_dict(document: object) -> dict[str, Tensor] | None:
    """Return the state dict in a file's content: the content itself or an entry of it.

    Prefixes that wrappers add to the names (`module.`, `_orig_mod.`, `model.`) are removed.
    """
    if not isinstance(document, Mapping) or document.get("format") == FORMAT:
        return None
    # Training programs store a state dict under these names; the moving average is the last choice.
    keys = ("model", "state_dict", "model_state_dict", "net", "network", "state_dict_ema", "model_ema", "ema")
    for candidate in (document, *(document.get(key) for key in keys), *document.values()):
        if (
            isinstance(candidate, Mapping)
            and candidate
            and all(isinstance(name, str) and isinstance(each, Tensor) for name, each in candidate.items())
        ):
            return _without_wrappers(candidate)
    return None


def _without_wrappers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with the names that they have in the network itself."""
    # torch.compile wraps any module as `_orig_mod`; AveragedModel counts its updates in `n_averaged`.
    found = {
        name.replace("_orig_mod.", ""): tensor for name, tensor in weights.items() if name != "n_averaged"
    }
    while len(tops := {name.partition(".")[0] for name in found}) == 1 and all("." in name for name in found):
        found = {name.removeprefix(f"{next(iter(tops))}."): tensor for name, tensor in found.items()}
    return found


def from_state_dict(
    weights: Mapping[str, Tensor], *, class_names: Sequence[str] | None = None, source: Path
) -> TrainedModel:
    """Return a trained model with these weights, for any number of classes, and torchvision's preprocessing.

    Raises:
        UserError: the state dict is of another network.
        UsageError: the number of names differs from the number of classes.
    """
    name = _network_name(weights, source)
    if weights["fc.weight"].dim() != 2 or not len(weights["fc.weight"]):
        raise UserError(
            f"{source}: fc.weight must have the shape [classes, features], got "
            f"{list(weights['fc.weight'].shape)}; {_NEXT_STEP}"
        )
    classes = len(weights["fc.weight"])
    with source.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    # Files of old versions of PyTorch have no counters of batches; they do not affect results.
    weights = {**dict.fromkeys(_batch_counters(name), torch.zeros((), dtype=torch.int64)), **weights}
    if class_names is None:
        class_names = [str(number) for number in range(classes)]
    if len(class_names) != classes:
        raise UsageError(
            f"{source} needs one name per class: it has {classes} classes, got {len(class_names)}"
        )
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
        provenance={"weights": source.name, "sha256": sha256},
        shorter_side=SHORTER_SIDE,
    )
    check_weights(model, source)
    return model


def read_class_names(path: Path) -> list[str]:
    """Read one class name per line, in the order of the classes; trailing blank lines are ignored.

    Raises:
        UserError: the file cannot be read as text, or a line between others is blank.
    """
    try:
        text = read_regular_file(path, max_bytes=_MAX_CLASS_NAMES_BYTES).decode("utf-8")
        lines = [line.strip() for line in text.rstrip().splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} must be a text file with one class name per line: {error}") from None
    if "" in lines:
        raise UserError(f"{path}: each line must contain a class name, line {lines.index('') + 1} is blank")
    return lines


def _network_name(weights: Mapping[str, Tensor], source: Path) -> Literal["resnet18", "resnet34"]:
    """Identify the network by the names of its tensors."""
    names: tuple[Literal["resnet18", "resnet34"], ...] = ("resnet18", "resnet34")
    for name in names:
        if _tensor_names(name) - _batch_counters(name) <= weights.keys() <= _tensor_names(name):
            return name
    raise UserError(
        f"{source} is a state dict of another network ({len(weights)} tensors, the first is "
        f"{next(iter(weights), None)!r}); {_NEXT_STEP}"
    )


@functools.cache
def _tensor_names(name: Literal["resnet18", "resnet34"]) -> frozenset[str]:
    with torch.device("meta"):
        return frozenset(build_network(ModelConfig(name=name), num_classes=1).state_dict())


def _batch_counters(name: Literal["resnet18", "resnet34"]) -> set[str]:
    return {key for key in _tensor_names(name) if key.endswith(".num_batches_tracked")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert a state dict to a trained-model file."""
    parser = argparse.ArgumentParser(
        prog="python -m platform.models.torchvision_weights",
        description="Convert a state dict to a trained-model file.",
    )
    parser.add_argument("weights", type=Path, help="a state dict of torchvision's resnet18 or resnet34")
    parser.add_argument("--classes", type=Path, help="class names, one per line; default: numbers")
    parser.add_argument("--output", type=Path, default=Path("model.pt"), help="default: model.pt")
    given = parser.parse_args(arguments)
    names = read_class_names(given.classes) if given.classes else None
    weights = find_state_dict(read_torch_file(given.weights))
    if weights is None:
        raise UserError(f"{given.weights} contains no state dict; {_NEXT_STEP}")
    save_trained_model(given.output, from_state_dict(weights, class_names=names, source=given.weights))
    print(given.output)
    return 0


if __name__ == "__main__":
    run_command(main)
