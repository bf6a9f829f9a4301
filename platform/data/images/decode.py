"""Decode image files to RGB pixels, and resize them."""

from __future__ import annotations

import codecs
import functools
import io
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from platform.common.errors import UserError
from platform.common.regular_file import read_regular_file
from platform.data.dataset import Images

# Pillow only warns above 89 megapixels; this project rejects such files.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

MAX_FILE_BYTES = 256 * 2**20
# Pillow calls a PNG file with a megabyte of text or color profile damaged.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = MAX_FILE_BYTES

_LOSSLESS = {"PNG", "BMP", "DIB", "PPM", "TIFF", "GIF", "TGA"}


def decode_image(source: bytes | Path | str, *, name: str | None = None) -> Images:
    """Decode an image file.

    The EXIF orientation is applied. Gray, palette, CMYK and 16-bit images are converted to 8-bit RGB;
    transparent pixels are blended with white; only the first frame of an animation is decoded.

    Args:
        source: the encoded bytes, or the path of a file.
        name: the image's name in messages; default: its path.

    Returns:
        uint8 [H, W, 3], RGB.

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
        with Image.open(io.BytesIO(content), formats=_formats()) as image:
            encoding = _encoding(image)
            pixels = np.array(_to_rgb(image), dtype=np.uint8)
    except UnidentifiedImageError:
        raise UserError(f"{name} is not an image: {_describe(content)}; give a PNG or JPEG file") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(f"{name}: an image may have at most 89 megapixels; make it smaller first") from None
    except Exception as error:  # noqa: BLE001 - Pillow's plugins raise many types on damaged bytes
        raise UserError(f"{name} is a truncated or damaged image ({error}); replace the file") from None
    return pixels, encoding


def resize_image(image: Images, size: int) -> Images:
    """Resize to a square, ignoring the aspect ratio, with an antialiased triangle filter.

    This is Pillow's BILINEAR, whose support widens when it shrinks an image. The C++ engine implements the
    same filter (cpp_engine/src/image/resize.cpp).

    Args:
        image: uint8 [H, W, 3].
        size: side of the result in pixels.

    Returns:
        uint8 [size, size, 3].
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.array(resized, dtype=np.uint8)


@functools.cache
def _formats() -> tuple[str, ...]:
    """Return all formats that Pillow reads, common ones first, without EPS, which would start Ghostscript."""
    Image.init()
    return ("JPEG", "PNG", *sorted(set(Image.OPEN) - {"JPEG", "PNG", "EPS"}))


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode.startswith("I"):  # 16 bits per channel, which `convert` would clip at 255
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no standard range")
    if "exif" in image.info or image.format in ("TIFF", "MPO"):
        image = ImageOps.exif_transpose(image)
    if "A" in image.mode or "transparency" in image.info:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("RGB")
    return image.convert("RGB")


def _encoding(image: Image.Image) -> str:
    if image.format in ("JPEG", "MPO"):
        tables = image.quantization  # type: ignore[attr-defined]
        return f"jpeg{jpeg_quality(tuple(tables[min(tables)]))}" if tables else "jpeg"
    return "lossless" if image.format in _LOSSLESS else str(image.format).lower()


@functools.lru_cache(maxsize=256)
def jpeg_quality(luminance: tuple[int, ...]) -> int:
    """Estimate the JPEG quality, in libjpeg's numbering, of a quantization table.

    Args:
        luminance: the 64 entries of the luminance table in row order.

    Returns:
        The quality in 1..100 whose standard table is closest.
    """
    got = np.array(luminance)
    return min(range(1, 101), key=lambda quality: int(np.abs(_ijg_table(quality) - got).sum()))


def _ijg_table(quality: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    # ITU-T T.81, table K.1, scaled as in libjpeg's jpeg_quality_scaling and jpeg_add_quant_table.
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((_LUMINANCE * scale + 50) // 100, 1, 255)


_LUMINANCE = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61),
        *(12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56),
        *(14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77),
        *(24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101),
        *(72, 92, 95, 98, 112, 100, 103, 99),
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
