"""Decode PNG files, and refuse damaged ones.

Pillow reads the chunks differently from libpng, browsers and viewers: it ignores the checksums of pixels and
returns black for missing ones. Here it only undoes the filters. docs/engine.md has the rules; the C++ engine
has the same (src/image/png_chunks.cpp).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from platform.data.dataset import Images
from platform.data.images.exif import exif_orientation

MAGIC = b"\x89PNG\r\n\x1a\n"

_GRAY, _RGB, _PALETTE = 0, 2, 3
_MODES = {
    (_GRAY, 1): ("1", "1"),
    (_GRAY, 2): ("L", "L;2"),
    (_GRAY, 4): ("L", "L;4"),
    (_GRAY, 8): ("L", "L"),
    (_GRAY, 16): ("I;16", "I;16B"),
    (_RGB, 8): ("RGB", "RGB"),
    (_RGB, 16): ("RGB", "RGB;16B"),
    **{(_PALETTE, bits): ("P", f"P;{bits}") for bits in (1, 2, 4)},
    (_PALETTE, 8): ("P", "P"),
    (4, 8): ("LA", "LA"),
    (4, 16): ("RGBA", "LA;16B"),
    (6, 8): ("RGBA", "RGBA"),
    (6, 16): ("RGBA", "RGBA;16B"),
}
"""Pillow's names of the pixels and of their encoding, by color type and bit depth."""
_CHANNELS = {_GRAY: 1, _RGB: 3, _PALETTE: 1, 4: 2, 6: 4}
# Adam7: first column and row, and the distance of columns and rows, of the seven passes.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@dataclass
class _Chunks:
    """The values of the header, and the other chunks that matter."""

    width: int
    height: int
    depth: int
    color: int
    interlaced: bool
    palette: bytes = b""
    transparency: bytes = b""
    pixels: bytes = b""
    orientation: int | None = None

    @classmethod
    def from_header(cls, data: bytes) -> _Chunks:
        width, height, depth, color, *methods = struct.unpack(">IIBBBBB", data)
        allowed = (color, depth) in _MODES and methods in ([0, 0, 0], [0, 0, 1])
        if not allowed or not (0 < width < 2**31 and 0 < height < 2**31):
            raise ValueError("invalid header")
        return cls(width, height, depth, color, methods[2] == 1)

    @property
    def num_bytes(self) -> int:
        """Bytes of the filtered rows."""
        bits = self.depth * _CHANNELS[self.color]
        found = 0
        for x, y, dx, dy in _PASSES if self.interlaced else ((0, 0, 1, 1),):
            columns, rows = -((x - self.width) // dx), -((y - self.height) // dy)
            if columns > 0 and rows > 0:
                found += rows * (1 + (columns * bits + 7) // 8)
        return found


def decode_png(content: bytes, *, max_pixels: int) -> tuple[Images, int]:
    """Decode the content of a PNG file; of an animation its default image.

    Returns:
        uint8 [H, W, 3], RGB, transparent pixels blended with white, and the EXIF orientation to apply.

    Raises:
        ValueError: the data are damaged.
        Image.DecompressionBombError: the image has more than `max_pixels`.
    """
    chunks = _read_chunks(content, max_pixels)
    _check_pixel_data(chunks.pixels, chunks.num_bytes)
    return _to_rgb(chunks), chunks.orientation or 1


def _check_pixel_data(compressed: bytes, num_bytes: int) -> None:
    """Check that there are `num_bytes`, for which Pillow would return black, and the end of the stream."""
    stream = zlib.decompressobj()
    is_complete = len(stream.decompress(compressed, num_bytes)) == num_bytes
    try:
        while not stream.eof and stream.unconsumed_tail:
            stream.decompress(stream.unconsumed_tail, 2**16)
    except zlib.error:  # after the last pixel
        return
    if not is_complete or not stream.eof:
        raise ValueError("the pixel data are incomplete")


def _read_chunks(content: bytes, max_pixels: int) -> _Chunks:
    chunks: _Chunks | None = None
    pixels: list[bytes] = []
    is_after_pixels = False
    at = len(MAGIC)
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        data, at = content[at + 8 : at + 8 + length], at + 12 + length
        is_after_pixels = is_after_pixels or (bool(pixels) and kind != b"IDAT")
        is_complete = at <= len(content)
        is_sound = is_complete and zlib.crc32(data, zlib.crc32(kind)) == int.from_bytes(
            content[at - 4 : at], "big"
        )
        is_critical = not kind[0] & 32
        if is_after_pixels:
            if kind == b"IEND" or not kind.isalpha():
                break
        elif not kind.isalpha():
            raise ValueError("invalid chunk type")
        elif is_critical and is_complete and not is_sound:
            raise ValueError(f"{kind.decode()} has a wrong checksum")
        elif chunks is None:
            if kind != b"IHDR" or length != 13 or not is_complete:
                raise ValueError("no header")
            chunks = _Chunks.from_header(data)
            if chunks.width * chunks.height > max_pixels:
                raise Image.DecompressionBombError
            continue
        elif kind == b"IDAT":
            pixels.append(data)  # the last one may be cut off
        elif kind == b"PLTE" and is_complete:
            _add_palette(chunks, data)
        elif is_critical:
            raise ValueError(f"unexpected chunk {kind.decode()}")
        elif kind == b"tRNS" and is_sound:
            _add_transparency(chunks, data)
        if kind == b"eXIf" and is_sound and chunks is not None and chunks.orientation is None:
            chunks.orientation = exif_orientation(data)
    if chunks is None or not pixels or (chunks.color == _PALETTE and not chunks.palette):
        raise ValueError("no pixel data" if chunks is None or not pixels else "no palette")
    chunks.pixels = b"".join(pixels)
    return chunks


def _add_palette(chunks: _Chunks, data: bytes) -> None:
    if chunks.color != _PALETTE:  # only a suggestion
        return
    if chunks.palette or len(data) % 3 or not 0 < len(data) <= 768:
        raise ValueError("invalid palette")
    chunks.palette = data[: 3 << chunks.depth]


def _add_transparency(chunks: _Chunks, data: bytes) -> None:
    expected = {_GRAY: [2], _RGB: [6], _PALETTE: range(1, len(chunks.palette) // 3 + 1)}
    if not chunks.transparency and len(data) in expected.get(chunks.color, ()):
        chunks.transparency = data


def _to_rgb(chunks: _Chunks) -> Images:
    mode, encoding = _MODES[chunks.color, chunks.depth]
    decoded = _decode(chunks, mode, encoding)
    pixels: NDArray[Any] = np.asarray(decoded)
    if mode == "P":
        colored: Images = _palette_table(chunks)[pixels]
        return colored
    if chunks.color in (4, 6):
        return over_white(decoded)
    transparent: NDArray[np.bool_] | None = None
    if chunks.transparency:
        # Only the low bits count.
        key = np.frombuffer(chunks.transparency, ">u2") & ((1 << chunks.depth) - 1)
        if chunks.color == _RGB and chunks.depth == 16:
            # Pillow drops the low bytes. As little-endian data, the same bytes yield them.
            low = np.asarray(_decode(chunks, mode, "RGB;16L"))
            transparent = ((pixels == key >> 8) & (low == (key & 255))).all(-1)
        elif chunks.color == _RGB:
            transparent = (pixels == key).all(-1)
        else:
            scale = 255 // ((1 << chunks.depth) - 1) if 1 < chunks.depth < 8 else 1
            transparent = pixels == int(key[0]) * scale
    if chunks.color == _GRAY:
        gray = pixels >> 8 if chunks.depth == 16 else np.asarray(decoded.convert("L"))
        pixels = np.repeat(gray[..., None], 3, axis=-1)
    pixels = pixels.astype(np.uint8)
    if transparent is not None:
        pixels[transparent] = 255
    return pixels


def _decode(chunks: _Chunks, mode: str, encoding: str) -> Image.Image:
    size = (chunks.width, chunks.height)
    return Image.frombytes(mode, size, chunks.pixels, "zip", encoding, int(chunks.interlaced))


def _palette_table(chunks: _Chunks) -> Images:
    """Return uint8 [256, 3], the colors of a palette over white; missing ones are black."""
    colors = np.zeros((1, 256, 4), np.uint8)
    palette = np.frombuffer(chunks.palette, np.uint8).reshape(-1, 3)
    colors[0, : len(palette), :3] = palette
    colors[0, :, 3] = 255
    colors[0, : len(chunks.transparency), 3] = np.frombuffer(chunks.transparency, np.uint8)
    table: Images = over_white(Image.fromarray(colors))[0]
    return table


def over_white(image: Image.Image) -> Images:
    """Blend an image that has transparency with white; uint8 [H, W, 3]."""
    over = image.convert("RGBA")
    white = Image.new("RGBA", over.size, "white")
    return np.asarray(Image.alpha_composite(white, over).convert("RGB"))
