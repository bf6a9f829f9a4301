"""Classify image files with a trained model and print the most probable classes.

    python -m platform.predict runs/resnet32_cifar-20260101-120000 cat.jpg dog.png
    python -m platform.predict resnet18.pth cat.jpg --classes names.txt       # torchvision's weights

Images of any size are resized as in the model's training. Results are printed to stdout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from platform.common.command_line import option, parse_command_line
from platform.common.errors import run_command
from platform.common.text_format import percent
from platform.training.run_folder import find_model


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Classify image files with a trained model."""

    model: Annotated[Path, tyro.conf.Positional, option("MODEL")]
    """A model.pt, the folder of a run or a sweep, or a state dict of torchvision's resnet18 or resnet34."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, option("IMAGE ...")]
    """Image files in a format that Pillow reads, such as PNG or JPEG."""
    top: Annotated[int, option("N", default="5")] = 5
    """Number of classes to print per image."""
    classes: Annotated[Path | None, option("PATH", default="class indices")] = None
    """Text file with the class names of a state dict, one per line."""


def main(words: Sequence[str] | None = None, *, prog: str = "python -m platform.predict") -> int:
    """Run the command."""
    arguments = parse_command_line(Arguments, prog=prog, words=words)
    path = find_model(arguments.model)
    from platform.data.images.decode import decode_image

    # Decoded before PyTorch is imported, so that a file that is not an image fails immediately.
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
    for image, values, indices in zip(
        arguments.images, best.values.tolist(), best.indices.tolist(), strict=True
    ):
        print(image)
        for probability, index in zip(values, indices, strict=True):
            print(f"  {model.class_names[index]:{width}}  {percent(probability):>8}")
    return 0


if __name__ == "__main__":
    run_command(main)
