"""Resize an image and crop a square.

The filter is Pillow's antialiased bilinear one, as in torchvision and the C++ engine.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from platform.data.dataset import Images


def resize_and_center_crop(image: Images, *, shorter_side: int, size: int) -> Images:
    """Map uint8 [H, W, 3] to [size, size, 3]: resize to `shorter_side` (at least `size`), crop the center.

    Pixels are equal to torchvision's. Of images with sides of more than 64:1 only the crop is computed, which
    is exact to within one level.
    """
    height, width = resized_shape(image.shape[0], image.shape[1], shorter_side)
    # Round half to even, as torchvision's CenterCrop does.
    top, left = round((height - size) / 2), round((width - size) / 2)
    if max(height, width) > 64 * shorter_side:
        return resize_and_crop(image, shorter_side=shorter_side, size=size, top=top, left=left)
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.array(resized, dtype=np.uint8)[top : top + size, left : left + size]


def resize_and_crop(image: Images, *, shorter_side: int, size: int, top: int, left: int) -> Images:
    """Resize to `shorter_side` and crop the square at (`top`, `left`); exact to within one level of 255.

    Only the crop is computed: 224x224 of an image resized to 480 pixels are less than a quarter of it.
    """
    starts, ends, parts = [], [], []
    for axis, (resized, first) in enumerate(
        zip(resized_shape(image.shape[0], image.shape[1], shorter_side), (top, left), strict=True)
    ):
        scale = image.shape[axis] / resized
        # Pillow stores the box in single precision: cut off what is outside the filter, so that it is small.
        margin = math.ceil(max(scale, 1)) + 1
        cut = max(math.floor(first * scale) - margin, 0)
        parts.append(slice(cut, math.ceil((first + size) * scale) + margin))
        starts.append(first * scale - cut)
        ends.append(min((first + size) * scale, image.shape[axis]) - cut)
    source = Image.fromarray(np.ascontiguousarray(image[parts[0], parts[1]]))
    box = (starts[1], starts[0], ends[1], ends[0])
    return np.array(source.resize((size, size), Image.Resampling.BILINEAR, box=box), dtype=np.uint8)


def resized_shape(height: int, width: int, shorter_side: int) -> tuple[int, int]:
    """Return height and width after resizing; the longer side is rounded down, as in torchvision."""
    if height < width:
        return shorter_side, shorter_side * width // height
    return shorter_side * height // width, shorter_side
