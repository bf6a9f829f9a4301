"""The part of a larger picture that a network sees: resized, then cut to a square.

Bilinear, with a filter as wide as the reduction: Pillow's, which torchvision and the C++ engine share.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from platform.data.dataset import Images


def resize_and_center_crop(image: Images, *, shorter_side: int, size: int) -> Images:
    """Resize until the shorter side has `shorter_side` pixels and cut out the center: torchvision's pixels.

    Args:
        image: uint8 [H, W, 3].
        shorter_side: pixels, at least `size`.
        size: side of the result in pixels.

    Returns:
        uint8 [size, size, 3].
    """
    height, width = resized_shape(image.shape[0], image.shape[1], shorter_side)
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    # As in torchvision's CenterCrop, a half is rounded to even.
    top, left = round((height - size) / 2), round((width - size) / 2)
    return np.array(resized, dtype=np.uint8)[top : top + size, left : left + size]


def resize_and_crop(image: Images, *, shorter_side: int, size: int, top: int, left: int) -> Images:
    """Resize like that, and cut out the square whose first pixel is (`top`, `left`), to within one level.

    Only what is kept is computed: of a picture resized to 480 pixels, 224 in square are less than a quarter.
    """
    height, width = resized_shape(image.shape[0], image.shape[1], shorter_side)
    scale_y, scale_x = image.shape[0] / height, image.shape[1] / width
    # In pixels of the picture before it is resized.
    box = (left * scale_x, top * scale_y, (left + size) * scale_x, (top + size) * scale_y)
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.array(resized, dtype=np.uint8)


def resized_shape(height: int, width: int, shorter_side: int) -> tuple[int, int]:
    """Return height and width after resizing; the longer side is rounded down, as in torchvision."""
    if height < width:
        return shorter_side, shorter_side * width // height
    return shorter_side * height // width, shorter_side
