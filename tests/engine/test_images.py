"""Decoding and resizing in C++ compared with Pillow, under the sanitizers."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from platform.common.errors import UserError
from platform.data.images.cropping import resize_and_center_crop
from platform.data.images.decode import decode_image

from .conftest import Tool, write_all
from .example_images import IMAGES, encode, smooth


def test_pixels_equal_pillows(tool: Tool, tmp_path: Path, stb: bool) -> None:
    decoded = tool(write_all(tmp_path, IMAGES), "-")
    differing = {}
    for (name, content), got in zip(IMAGES.items(), decoded, strict=True):
        expected = decode_image(content)
        if isinstance(got, str) or got.shape != expected.shape:
            differing[name] = got if isinstance(got, str) else f"{got.shape} for {expected.shape}"
        elif stb and name.startswith("jpeg") and np.abs(got.astype(int) - expected).mean() < 4:
            continue  # different inverse transform and chroma upsampling
        elif not np.array_equal(got, expected):
            differing[name] = f"differs by up to {np.abs(got.astype(int) - expected).max()}"
    assert differing == {}


@pytest.mark.parametrize("size", [(32, 32), (8, 60), (100, 90), (61, 13), (1, 1), (200, 47)])
def test_resizing_equals_pillows(tool: Tool, tmp_path: Path, size: tuple[int, int]) -> None:
    paths = write_all(
        tmp_path, {"a.png": IMAGES["png-rgb"], "b.png": encode(Image.fromarray(smooth(37, 251)), "PNG")}
    )
    for path, got in zip(paths, tool(paths, f"{size[0]}x{size[1]}"), strict=True):
        expected = np.asarray(Image.open(path).convert("RGB").resize(size, Image.Resampling.BILINEAR))
        assert isinstance(got, np.ndarray), got
        assert np.abs(got.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (3, 20_001), (700, 5), (90, 61), (300, 1000)])
def test_crops_of_any_proportions_equal_pythons(tool: Tool, tmp_path: Path, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    (path,) = write_all(tmp_path, {"a.png": encode(Image.fromarray(image), "PNG")})
    (got,) = tool([path], "256/224")
    expected = resize_and_center_crop(image, shorter_side=256, size=224)
    assert isinstance(got, np.ndarray), got
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected).max() <= 1


def test_text_file_is_rejected_in_python_too(tmp_path: Path) -> None:
    path = tmp_path / "text.png"
    path.write_text("hello\n")
    with pytest.raises(UserError, match="looks like a text file"):
        decode_image(path)
