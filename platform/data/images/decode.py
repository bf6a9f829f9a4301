"""Decode image files to RGB pixels, and resize them."""

from __future__ import annotations

import codecs
import functools
import io
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from platform.common.errors import UserError
from platform.common.regular_file import read_regular_file
from platform.data.dataset import Images
from platform.data.images import jpeg, png
from platform.data.images.exif import apply_orientation

# Pillow only warns above 89 megapixels; this project rejects such files.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

MAX_FILE_BYTES = 256 * 2**20
_MAX_PIXELS = 89_478_485
"""Pillow's limit."""

_LOSSLESS = {"BMP", "DIB", "PPM", "TIFF", "GIF", "TGA"}


def decode_image(source: bytes | Path | str, *, name: str | None = None) -> Images:
    """Decode an image file, given by its path or content, to uint8 [H, W, 3], RGB.

    The EXIF orientation is applied. Gray, palette, CMYK and 16-bit images are converted to 8-bit RGB;
    transparent pixels are blended with white; only the first frame of an animation is decoded. `name` is the
    image's name in messages, by default its path.

    Raises:
        UserError: the file is missing, not a regular file, not an image, truncated, damaged, or larger than
            89 megapixels or 256 MiB.
    """
    return decode_with_encoding(source, name=name)[0]


def decode_with_encoding(source: bytes | Path | str, *, name: str | None = None) -> tuple[Images, str]:
    """Also return the encoding: `lossless`, `jpeg75` (the number is the quality), or a format name."""
    if isinstance(source, bytes):
        content, name = source, name or "image"
    else:
        name = name or str(source)
        content = read_regular_file(Path(source), max_bytes=MAX_FILE_BYTES, name=name)
    try:
        pixels, encoding = _decode(content)
    except UnidentifiedImageError:
        raise UserError(f"{name} is not an image: {_describe(content)}; give a PNG or JPEG file") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(f"{name}: an image may have at most 89 megapixels; make it smaller first") from None
    except Exception as error:  # noqa: BLE001 - Pillow's plugins raise many types on damaged bytes
        raise UserError(f"{name} is a truncated or damaged image ({error}); replace the file") from None
    return pixels, encoding


def resize_image(image: Images, size: int) -> Images:
    """Resize uint8 [H, W, 3] to [size, size, 3] with an antialiased filter, ignoring the aspect ratio.

    This is Pillow's BILINEAR, whose support widens when it shrinks an image. The C++ engine implements the
    same filter (cpp_engine/src/image/resize.cpp).
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.array(resized, dtype=np.uint8)


def _decode(content: bytes) -> tuple[Images, str]:
    if content.startswith(jpeg.MAGIC):
        pixels, orientation, table = jpeg.decode_jpeg(content, max_pixels=_MAX_PIXELS)
        encoding = f"jpeg{jpeg_quality(table)}" if len(table) == 64 else "jpeg"
    elif content.startswith(png.MAGIC):
        pixels, orientation = png.decode_png(content, max_pixels=_MAX_PIXELS)
        encoding = "lossless"
    else:
        with Image.open(io.BytesIO(content), formats=_formats()) as image:
            encoding = "lossless" if image.format in _LOSSLESS else str(image.format).lower()
            return np.array(_to_rgb(image), dtype=np.uint8), encoding
    return np.array(apply_orientation(pixels, orientation), order="C"), encoding


@functools.cache
def _formats() -> tuple[str, ...]:
    """Return the other formats that Pillow reads, without EPS, which would start Ghostscript."""
    Image.init()
    return tuple(sorted(set(Image.OPEN) - {"JPEG", "MPO", "PNG", "EPS"}))


def _to_rgb(image: Image.Image) -> Image.Image | Images:
    image.load()
    if image.mode.startswith("I"):  # 16 bits per channel, which `convert` would clip at 255
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no standard range")
    if "exif" in image.info or image.format == "TIFF":
        image = ImageOps.exif_transpose(image)
    if "A" in image.mode or "transparency" in image.info:
        return png.over_white(image)
    return image.convert("RGB")


@functools.lru_cache(maxsize=256)
def jpeg_quality(luminance: tuple[int, ...]) -> int:
    """Return the JPEG quality (libjpeg's 1..100) whose standard table of luminance is closest.

    `luminance` are the 64 entries of a quantization table in zigzag order.
    """
    got = np.array(luminance)
    return min(range(1, 101), key=lambda quality: int(np.abs(_ijg_table(quality) - got).sum()))


def _ijg_table(quality: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    # ITU-T T.81, table K.1, in zigzag order; scaled as in jpeg_quality_scaling and jpeg_add_quant_table.
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((_LUMINANCE * scale + 50) // 100, 1, 255)


_LUMINANCE = np.array(
    [
        *(16, 11, 12, 14, 12, 10, 16, 14),
        *(13, 14, 18, 17, 16, 19, 24, 40),
        *(26, 24, 22, 22, 24, 49, 35, 37),
        *(29, 40, 58, 51, 61, 60, 57, 51),
        *(56, 55, 64, 72, 92, 78, 64, 68),
        *(87, 69, 55, 56, 80, 109, 81, 87),
        *(95, 98, 103, 104, 103, 62, 77, 113),
        *(121, 112, 100, 120, 92, 101, 103, 99),
    ],
    dtype=np.int64,
)


def _describe(content: bytes) -> str:
    if not content:
        return "the file is empty"
    if content[4:8] == b"ftyp":
        return f"it is a photo or video of the type {content[8:12].decode('latin1').strip()!r}, such as HEIC"
    start = content[:512]
    with suppress(UnicodeDecodeError):
        codecs.getincrementaldecoder("utf-8")().decode(start)
        if b"\0" not in start:
            return "it looks like a text file"
    return f"it starts with the bytes {content[:8].hex(' ')}"
