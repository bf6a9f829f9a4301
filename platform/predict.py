"""Classify images with a trained model: the five likeliest classes of each.

    python -m platform.predict runs/resnet32_cifar-20260101-120000 cat.jpg dog.png
    python -m platform.predict resnet18.pth cat.jpg --classes names.txt       # torchvision's weights

An image of any size is brought to what the model was trained on, in the way it was. Results go to stdout.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from platform.errors import run_command
from platform.training.run_folder import find_model


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Classify images with a trained model."""

    model: Annotated[Path, tyro.conf.Positional]
    """A model.pt, the folder of a run or a sweep, or a state dict of torchvision's resnet18 or resnet34."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE ...")]
    """Image files: PNG, JPEG, or whatever else Pillow reads."""
    top: int = 5
    """Classes to show for each image."""
    classes: Path | None = None
    """Names of a state dict's classes, one a line; without them, their numbers."""


def main() -> int:
    """Run the command."""
    arguments = tyro.cli(Arguments, prog="python -m platform.predict")
    path = find_model(arguments.model)
    from platform.data.images.decode import decode_image

    # Before PyTorch: a file that is no image is told at once.
    decoded = [decode_image(image) for image in arguments.images]
    import torch

    from platform.models.torchvision_weights import load_model, read_class_names

    names = read_class_names(arguments.classes) if arguments.classes else None
    model = load_model(path, class_names=names)
    network = model.network()
    with torch.inference_mode():
        probabilities = network(model.normalize(model.pixels(decoded))).softmax(dim=1)
    best = probabilities.topk(min(max(1, arguments.top), len(model.class_names)))
    width = max(len(name) for name in model.class_names)
    for image, shares, indices in zip(
        arguments.images, best.values.tolist(), best.indices.tolist(), strict=True
    ):
        print(image)
        for share, index in zip(shares, indices, strict=True):
            print(f"  {model.class_names[index]:{width}}  {100 * share:6.2f} %")
    return 0


if __name__ == "__main__":
    run_command(main)
