"""Resize an image and crop a square.

The filter is Pillow's antialiased bilinear one, as in torchvision and the C++ engine.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from platform.data.dataset import Images


def resize_and_center_crop(image: Images, *, shorter_side: int, size: int) -> Images:
    """Resize to `shorter_side` and crop the center; pixels are equal to torchvision's.

    Args:
        image: uint8 [H, W, 3].
        shorter_side: length of the shorter side after resizing in pixels, at least `size`.
        size: side of the result in pixels.

    Returns:
        uint8 [size, size, 3].
    """
    height, width = resized_shape(image.shape[0], image.shape[1], shorter_side)
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    # Round half to even, as torchvision's CenterCrop does.
    top, left = round((height - size) / 2), round((width - size) / 2)
    return np.array(resized, dtype=np.uint8)[top : top + size, left : left + size]


def resize_and_crop(image: Images, *, shorter_side: int, size: int, top: int, left: int) -> Images:
    """Resize to `shorter_side` and crop the square at (`top`, `left`); exact to within one level of 255.

    Only the crop is computed: 224x224 of an image resized to 480 pixels are less than a quarter of it.
    """
    height, width = resized_shape(image.shape[0], image.shape[1], shorter_side)
    scale_y, scale_x = image.shape[0] / height, image.shape[1] / width
    # In pixels of the original image.
    box = (left * scale_x, top * scale_y, (left + size) * scale_x, (top + size) * scale_y)
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.array(resized, dtype=np.uint8)


def resized_shape(height: int, width: int, shorter_side: int) -> tuple[int, int]:
    """Return height and width after resizing; the longer side is rounded down, as in torchvision."""
    if height < width:
        return shorter_side, shorter_side * width // height
    return shorter_side * height // width, shorter_side
