"""Classify images with a trained model: the five likeliest classes of each.

    python -m platform.predict runs/resnet32_cifar-20260101-120000 cat.jpg dog.png

An image of any size is resized to what the model was trained on. Results go to stdout.
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
    """A model.pt, or the folder of a run or of a sweep."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE ...")]
    """Image files: PNG, JPEG, or whatever else Pillow reads."""
    top: int = 5
    """Classes to show for each image."""


def main() -> int:
    """Run the command."""
    arguments = tyro.cli(Arguments, prog="python -m platform.predict")
    path = find_model(arguments.model)
    from platform.data.decode import decode_image, resize_image

    # Before PyTorch: a file that is no image is told at once.
    decoded = [decode_image(image) for image in arguments.images]
    import torch

    from platform.models.trained import load_trained_model

    model = load_trained_model(path)
    network = model.network()
    side = model.input_shape[1]
    pixels = torch.stack([torch.from_numpy(resize_image(image, side)) for image in decoded]).permute(
        0, 3, 1, 2
    )
    with torch.inference_mode():
        probabilities = network(model.normalise(pixels)).softmax(dim=1)
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
